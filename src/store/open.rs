//! From a URL to a store with its decorators.

use super::backend::Backend;
use super::{Store, StoreError, cloud, limit::Limit, local::Local, memory::Memory, retry::Retry};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use url::Url;

/// How a store is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreSettings {
    /// For how long one operation is tried again and again before it fails.
    pub patience: Duration,
    /// How long a single request may take without its payload; for each MiB of payload it gets a
    /// second more.
    pub request_timeout: Duration,
    /// The most that is written, in bytes per second.
    pub upload_limit: Option<u64>,
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self { patience: Duration::from_secs(120), request_timeout: Duration::from_secs(30), upload_limit: None }
    }
}

pub(super) fn open(url: &str, settings: &StoreSettings) -> Result<Store, StoreError> {
    let invalid = |reason: &str| StoreError::InvalidUrl { url: without_secrets(url), reason: reason.to_owned() };
    let parsed = Url::parse(url).map_err(|error| match error {
        url::ParseError::RelativeUrlWithoutBase => invalid("it has no scheme"),
        other => invalid(&other.to_string()),
    })?;
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Err(invalid("credentials do not belong in it; other processes can read a command line"));
    }
    if parsed.query().is_some() || parsed.fragment().is_some() {
        return Err(invalid("it has a query or a fragment"));
    }
    let scheme = parsed.scheme();
    let store = match scheme {
        "memory" => Store::from_backend(Arc::new(Memory::default())),
        "file" => {
            let path = parsed.to_file_path().map_err(|()| invalid("it has to be file:///absolute/path"))?;
            let store = Store::from_backend(Arc::new(Local::new(&path)));
            Store { local: Some(path), ..store }
        }
        "s3" | "gs" | "az" => {
            let bucket =
                parsed.host_str().filter(|host| !host.is_empty()).ok_or_else(|| invalid("it names no bucket"))?;
            let backend = match scheme {
                "s3" => cloud::s3(bucket, settings)?,
                "gs" => cloud::gs(bucket, settings)?,
                _ => cloud::az(bucket, settings)?,
            };
            let prefix = parsed.path().trim_matches('/');
            if !prefix.is_empty() {
                super::key::check(prefix).map_err(|_| {
                    invalid("its path has characters other than letters, digits, dots, dashes and underscores")
                })?;
            }
            Store::from_backend(Arc::new(backend)).child(prefix)
        }
        other => return Err(StoreError::UnknownScheme { scheme: other.to_owned() }),
    };
    Ok(decorated(store, settings))
}

/// Retries inside, the rate limit outside: waiting for the rate is not a failure of the store.
fn decorated(store: Store, settings: &StoreSettings) -> Store {
    let store = store.wrapped(|inner| Arc::new(Retry::new(inner, settings.patience, settings.request_timeout)));
    match settings.upload_limit {
        None => store,
        Some(rate) => store.wrapped(|inner| Arc::new(Limit::upload(inner, rate)) as Arc<dyn Backend>),
    }
}

/// A URL as it may be logged.
fn without_secrets(url: &str) -> String {
    match Url::parse(url) {
        Ok(mut parsed) => {
            let _ = parsed.set_password(None);
            let _ = parsed.set_username("");
            parsed.set_query(None);
            parsed.set_fragment(None);
            parsed.to_string()
        }
        // Not a URL: a path, or a typing error.
        Err(_) => Path::new(url).display().to_string().chars().take(160).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::Explain;

    fn refused(url: &str) -> String {
        Store::open(url, &StoreSettings::default()).unwrap_err().explain().to_string()
    }

    #[test]
    fn says_what_is_wrong_with_a_url() {
        let urls = [
            "ftp://host/x",
            "/checkpoints",
            "s3://",
            "file://host/x",
            "s3://user:secret@bucket",
            "s3://bucket/a b",
            "s3://bucket?x=y",
        ];
        insta::assert_snapshot!(urls.map(refused).join("\n\n"), @r#"
unknown store scheme "ftp"
  why:  the store URL names a kind of storage that revenant does not know
  next: use file:///path, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix

the store URL "/checkpoints" is not usable: it has no scheme
  why:  the store URL or an environment variable that belongs to it is mistyped
  next: use file:///path, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix, and check AWS_*, GOOGLE_* or AZURE_*

the store URL "s3://" is not usable: it names no bucket
  why:  the store URL or an environment variable that belongs to it is mistyped
  next: use file:///path, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix, and check AWS_*, GOOGLE_* or AZURE_*

the store URL "file://host/x" is not usable: it has to be file:///absolute/path
  why:  the store URL or an environment variable that belongs to it is mistyped
  next: use file:///path, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix, and check AWS_*, GOOGLE_* or AZURE_*

the store URL "s3://bucket" is not usable: credentials do not belong in it; other processes can read a command line
  why:  the store URL or an environment variable that belongs to it is mistyped
  next: use file:///path, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix, and check AWS_*, GOOGLE_* or AZURE_*

the store URL "s3://bucket/a%20b" is not usable: its path has characters other than letters, digits, dots, dashes and underscores
  why:  the store URL or an environment variable that belongs to it is mistyped
  next: use file:///path, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix, and check AWS_*, GOOGLE_* or AZURE_*

the store URL "s3://bucket" is not usable: it has a query or a fragment
  why:  the store URL or an environment variable that belongs to it is mistyped
  next: use file:///path, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix, and check AWS_*, GOOGLE_* or AZURE_*
"#);
    }

    #[test]
    fn a_url_in_a_message_has_no_secret() {
        assert!(!refused("s3://user:secret@bucket").contains("secret"));
    }

    #[test]
    fn opens_nothing_yet() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store");
        Store::open(&format!("file://{}", path.display()), &StoreSettings::default()).unwrap();
        assert!(!path.exists());
    }
}
