//! Buckets of S3, Google Cloud Storage and Azure, by `object_store`.
//!
//! Its own retries are switched off: [`super::retry`] does that for all back ends in the same way.

use super::backend::{Backend, Created, ObjectInfo};
use super::{StoreError, StoreSettings};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::TryStreamExt;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::client::{HttpError, HttpErrorKind};
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path;
use object_store::{
    ClientOptions, GetOptions, GetRange, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutPayload,
    RetryConfig,
};
use std::error::Error as _;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// Objects longer than this are sent in parts: to S3, which takes at most 5 GiB at once, and to Azure.
/// Google takes any length in one request.
const MULTIPART_ABOVE: usize = 64 << 20;
/// Length of a part. S3 allows 10 000 parts of at least 5 MiB.
const PART: usize = 16 << 20;
/// Parts under way at once.
const PARTS_AT_ONCE: usize = 4;

#[derive(Debug)]
pub(super) struct Cloud {
    inner: Arc<dyn ObjectStore>,
    name: String,
    multipart_above: usize,
}

/// S3, with the usual `AWS_*` variables.
pub(super) fn s3(bucket: &str, settings: &StoreSettings) -> Result<Cloud, StoreError> {
    let endpoint = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"].iter().find_map(|name| variable(name));
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(bucket)
        .with_client_options(client(settings, endpoint.as_deref())?)
        .with_retry(no_retries());
    if let Some(endpoint) = &endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    let name = format!("s3://{bucket}");
    built(name, builder.build())
}

/// Google Cloud Storage, with the usual `GOOGLE_*` variables.
pub(super) fn gs(bucket: &str, settings: &StoreSettings) -> Result<Cloud, StoreError> {
    let endpoint = ["GOOGLE_BASE_URL", "GCS_BASE_URL"].iter().find_map(|name| variable(name));
    let mut builder = GoogleCloudStorageBuilder::from_env()
        .with_bucket_name(bucket)
        .with_client_options(client(settings, endpoint.as_deref())?)
        .with_retry(no_retries());
    if let Some(endpoint) = &endpoint {
        builder = builder.with_base_url(endpoint);
    }
    let cloud = built(format!("gs://{bucket}"), builder.build())?;
    Ok(Cloud { multipart_above: usize::MAX, ..cloud })
}

/// Azure Blob Storage, with the usual `AZURE_*` variables.
pub(super) fn az(container: &str, settings: &StoreSettings) -> Result<Cloud, StoreError> {
    let endpoint = ["AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"].iter().find_map(|name| variable(name));
    let emulator = variable("AZURE_STORAGE_USE_EMULATOR").is_some_and(|value| value == "true" || value == "1");
    let endpoint_scheme = if emulator { Some("http:") } else { endpoint.as_deref() };
    let builder = MicrosoftAzureBuilder::from_env()
        .with_container_name(container)
        .with_client_options(client(settings, endpoint_scheme)?)
        .with_retry(no_retries());
    built(format!("az://{container}"), builder.build())
}

fn built<S: ObjectStore>(name: String, store: object_store::Result<S>) -> Result<Cloud, StoreError> {
    match store {
        Ok(store) => Ok(Cloud { inner: Arc::new(store), name, multipart_above: MULTIPART_ABOVE }),
        Err(error) => Err(StoreError::InvalidUrl { url: name, reason: chain(&error) }),
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn no_retries() -> RetryConfig {
    RetryConfig { max_retries: 0, ..RetryConfig::default() }
}

fn client(settings: &StoreSettings, endpoint: Option<&str>) -> Result<ClientOptions, StoreError> {
    super::tls::prepare();
    let mut options = ClientOptions::new()
        .with_connect_timeout(settings.request_timeout.min(Duration::from_secs(10)))
        // The whole request is limited in `retry`, by the length of its payload.
        .with_timeout_disabled()
        .with_read_timeout(settings.request_timeout)
        .with_allow_http(endpoint.is_some_and(|url| url.starts_with("http:")));
    if !super::tls::system_has_roots() {
        options = super::tls::bundled_roots(options)?;
    }
    Ok(options)
}

/// All that an error and its causes say.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let message = inner.to_string();
        // Many errors repeat what their cause says.
        if !text.contains(&message) {
            text = format!("{text}: {message}");
        }
        cause = inner.source();
    }
    text.chars().take(600).collect()
}

impl Cloud {
    fn error(&self, key: &str, error: &object_store::Error) -> StoreError {
        let (store, key, reason) = (self.name.clone(), key.to_owned(), chain(error));
        let status = status(error);
        let missing_bucket = ["NoSuchBucket", "ContainerNotFound", "The specified bucket does not exist"];
        match error {
            _ if missing_bucket.iter().any(|code| reason.contains(code)) => StoreError::BucketMissing { store },
            object_store::Error::NotFound { .. } => StoreError::NotFound { store, key },
            object_store::Error::Unauthenticated { .. } | object_store::Error::PermissionDenied { .. } => {
                StoreError::Credentials { store, reason }
            }
            _ if status.is_some_and(|code| code == 401 || code == 403) => StoreError::Credentials { store, reason },
            _ if status.is_some_and(|code| code == 408 || code == 429 || code >= 500) || is_network(error) => {
                StoreError::Unreachable { store, reason, tried: Duration::ZERO }
            }
            _ if status == Some(507) => StoreError::Full { store, key },
            _ => StoreError::Failed { store, key, reason },
        }
    }

    /// For writing: what is not found is then the bucket.
    fn write_error(&self, key: &str, error: &object_store::Error) -> StoreError {
        match self.error(key, error) {
            StoreError::NotFound { store, .. } => StoreError::BucketMissing { store },
            other => other,
        }
    }

    fn path(key: &str) -> Result<Path, StoreError> {
        Path::parse(key).map_err(|_| StoreError::InvalidKey { key: key.to_owned() })
    }

    fn info(meta: &ObjectMeta) -> ObjectInfo {
        ObjectInfo { key: meta.location.to_string(), size: meta.size, modified: meta.last_modified.into() }
    }

    async fn put_parts(&self, path: &Path, bytes: &Bytes) -> object_store::Result<()> {
        let mut upload = self.inner.put_multipart(path).await?;
        let mut under_way = futures::stream::FuturesUnordered::new();
        let sent = async {
            for start in (0..bytes.len()).step_by(PART) {
                let part = bytes.slice(start..bytes.len().min(start + PART));
                under_way.push(upload.put_part(part.into()));
                if under_way.len() >= PARTS_AT_ONCE {
                    under_way.try_next().await?;
                }
            }
            while under_way.try_next().await?.is_some() {}
            upload.complete().await?;
            Ok(())
        }
        .await;
        if sent.is_err() {
            // Parts of an abandoned upload cost money until somebody removes them.
            let _ = upload.abort().await;
        }
        sent
    }
}

/// The HTTP status somewhere in the causes.
fn status(error: &object_store::Error) -> Option<u16> {
    // `object_store` keeps its error types private; its messages say "non-2xx status code: 503 …".
    let text = chain(error);
    let (_, after) = text.split_once("status code: ")?;
    after.get(..3)?.parse().ok()
}

/// Whether a connection failed rather than the request.
fn is_network(error: &object_store::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = error.source();
    while let Some(inner) = cause {
        if let Some(http) = inner.downcast_ref::<HttpError>() {
            return !matches!(http.kind(), HttpErrorKind::Decode);
        }
        cause = inner.source();
    }
    false
}

#[async_trait]
impl Backend for Cloud {
    fn name(&self) -> &str {
        &self.name
    }

    async fn put_new(&self, key: &str, bytes: Bytes) -> Result<Created, StoreError> {
        match self.inner.put_opts(&Self::path(key)?, bytes.into(), PutMode::Create.into()).await {
            Ok(_) => Ok(Created::New),
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                Ok(Created::AlreadyExists)
            }
            Err(error) => Err(self.write_error(key, &error)),
        }
    }

    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        let path = Self::path(key)?;
        let sent = if bytes.len() > self.multipart_above {
            self.put_parts(&path, &bytes).await
        } else {
            self.inner.put(&path, PutPayload::from(bytes)).await.map(drop)
        };
        sent.map_err(|error| self.write_error(key, &error))
    }

    async fn get(&self, key: &str, max_len: u64) -> Result<Bytes, StoreError> {
        let found = self.inner.get(&Self::path(key)?).await.map_err(|error| self.error(key, &error))?;
        let size = found.meta.size;
        if size > max_len {
            return Err(StoreError::TooLarge { key: key.to_owned(), size, limit: max_len });
        }
        let mut bytes = BytesMut::with_capacity(usize::try_from(size).unwrap_or(0));
        let mut stream = found.into_stream();
        while let Some(piece) = stream.try_next().await.map_err(|error| self.error(key, &error))? {
            if (bytes.len() + piece.len()) as u64 > max_len {
                let size = (bytes.len() + piece.len()) as u64;
                return Err(StoreError::TooLarge { key: key.to_owned(), size, limit: max_len });
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes.freeze())
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        let wanted = range.end - range.start;
        let options = GetOptions { range: Some(GetRange::Bounded(range.clone())), ..GetOptions::default() };
        let short = |got| StoreError::ShortRead { key: key.to_owned(), offset: range.start, wanted, got };
        let found = match self.inner.get_opts(&Self::path(key)?, options).await {
            Ok(found) => found,
            // A range that begins beyond the end: 416, or refused before it is sent.
            Err(error) if status(&error) == Some(416) || chain(&error).contains("Wanted range starting at") => {
                return Err(short(0));
            }
            Err(error) => return Err(self.error(key, &error)),
        };
        if found.range.end - found.range.start != wanted {
            return Err(short(found.range.end.saturating_sub(found.range.start)));
        }
        let bytes = found.bytes().await.map_err(|error| self.error(key, &error))?;
        if bytes.len() as u64 != wanted {
            return Err(short(bytes.len() as u64));
        }
        Ok(bytes)
    }

    async fn head(&self, key: &str) -> Result<Option<ObjectInfo>, StoreError> {
        match self.inner.head(&Self::path(key)?).await {
            Ok(meta) => Ok(Some(Self::info(&meta))),
            Err(error) => match self.error(key, &error) {
                StoreError::NotFound { .. } => Ok(None),
                other => Err(other),
            },
        }
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        let path = match prefix.trim_matches('/') {
            "" => None,
            prefix => Some(Self::path(prefix)?),
        };
        let found: Vec<ObjectMeta> =
            self.inner.list(path.as_ref()).try_collect().await.map_err(|error| self.error(prefix, &error))?;
        Ok(found.iter().map(Self::info).collect())
    }

    async fn directories(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let path = match prefix.trim_matches('/') {
            "" => None,
            prefix => Some(Self::path(prefix)?),
        };
        let found = self.inner.list_with_delimiter(path.as_ref()).await.map_err(|error| self.error(prefix, &error))?;
        Ok(found.common_prefixes.iter().filter_map(|path| Some(path.filename()?.to_owned())).collect())
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        match self.inner.delete(&Self::path(key)?).await {
            Ok(()) => Ok(()),
            Err(error) => match self.error(key, &error) {
                StoreError::NotFound { .. } => Ok(()),
                other => Err(other),
            },
        }
    }
}
