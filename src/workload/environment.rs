//! What of revenant's own environment the workload does not get to see.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

const SECRET_WORDS: [&[u8]; 4] = [b"KEY", b"SECRET", b"TOKEN", b"PASSWORD"];

/// Whether a variable is a secret of revenant's: its name starts with `REVENANT_` and has a word for a
/// secret in it (`REVENANT_KEY`, …). The others, such as `REVENANT_JOB`, the workload may want to know.
/// Credentials of clouds (`AWS_…`) stay, because the workload may need them itself.
pub fn is_secret(name: &OsStr) -> bool {
    let Some(rest) = name.as_bytes().strip_prefix(b"REVENANT_") else { return false };
    SECRET_WORDS.iter().any(|word| rest.windows(word.len()).any(|part| part.eq_ignore_ascii_case(word)))
}

/// The environment of the workload: this process's own without revenant's secrets.
pub fn for_workload() -> impl Iterator<Item = (OsString, OsString)> {
    std::env::vars_os().filter(|(name, _)| !is_secret(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hides_secrets_of_revenant_only() {
        for secret in ["REVENANT_KEY", "REVENANT_KEY_FILE", "REVENANT_store_password", "REVENANT_AUTH_TOKEN"] {
            assert!(is_secret(OsStr::new(secret)), "{secret}");
        }
        for open in ["REVENANT_JOB", "KEY", "AWS_SECRET_ACCESS_KEY", "PATH", "MY_REVENANT_KEY"] {
            assert!(!is_secret(OsStr::new(open)), "{open}");
        }
    }
}
