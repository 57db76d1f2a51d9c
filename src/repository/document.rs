//! The envelope of the repository's small JSON documents: what it is, its version, a digest.
//!
//! `{"revenant":"seal","version":1,"body":{…},"blake3":"…"}`. The digest covers the kind, the version
//! and the exact text of the body. It finds damage; it does not authenticate (the documents that
//! matter for what is executed, manifests, are sealed by [`super::crypto`]).

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The version of every document so far.
const VERSION: u32 = 1;

/// Why a document cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// Written by a newer revenant.
    #[error("it has version {found}, and this revenant reads up to version {VERSION}")]
    Newer {
        /// Its version.
        found: u64,
    },
    /// Cut, changed, or something else.
    #[error("it is damaged or not revenant's: {0}")]
    Damaged(String),
}

impl DocumentError {
    fn damaged(reason: impl std::fmt::Display) -> Self {
        Self::Damaged(format!("{reason}"))
    }
}

#[derive(Serialize, Deserialize)]
struct Envelope<'a> {
    revenant: &'a str,
    version: u64,
    #[serde(borrow)]
    body: &'a RawValue,
    blake3: &'a str,
}

/// A document as it is stored.
pub(super) fn encode<T: Serialize>(kind: &str, body: &T) -> Result<Vec<u8>, DocumentError> {
    let body = serde_json::value::to_raw_value(body).map_err(DocumentError::damaged)?;
    let digest = digest(kind, u64::from(VERSION), body.get());
    let envelope = Envelope { revenant: kind, version: u64::from(VERSION), body: &body, blake3: &digest };
    serde_json::to_vec(&envelope).map_err(DocumentError::damaged)
}

/// The body of a document of that kind.
pub(super) fn decode<T: DeserializeOwned>(kind: &str, bytes: &[u8]) -> Result<T, DocumentError> {
    let envelope: Envelope<'_> = serde_json::from_slice(bytes).map_err(DocumentError::damaged)?;
    if envelope.revenant != kind {
        return Err(DocumentError::damaged("it is another kind of document"));
    }
    if envelope.blake3 != digest(kind, envelope.version, envelope.body.get()) {
        return Err(DocumentError::damaged("its digest does not match"));
    }
    match envelope.version {
        1 => serde_json::from_str(envelope.body.get()).map_err(DocumentError::damaged),
        0 => Err(DocumentError::damaged("there is no version 0")),
        found => Err(DocumentError::Newer { found }),
    }
}

/// Whether a document of that kind is undamaged, whatever its body says.
pub(super) fn check(kind: &str, bytes: &[u8]) -> Result<(), DocumentError> {
    decode::<serde::de::IgnoredAny>(kind, bytes).map(drop)
}

fn digest(kind: &str, version: u64, body: &str) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(format!("revenant {kind} {version}\n").as_bytes());
    hasher.update(body.as_bytes());
    hex::encode(hasher.finalize().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn decodes_what_was_encoded(body: Vec<(String, u64)>) {
            let bytes = encode("test", &body).unwrap();
            prop_assert_eq!(decode::<Vec<(String, u64)>>("test", &bytes).unwrap(), body);
            prop_assert!(decode::<Vec<(String, u64)>>("other", &bytes).is_err());
        }

        #[test]
        fn arbitrary_bytes_are_refused(bytes: Vec<u8>) {
            prop_assert!(decode::<Vec<u64>>("test", &bytes).is_err());
        }
    }

    #[test]
    fn finds_every_flipped_bit_and_every_cut() {
        let good = encode("test", &vec![1u64, 20, 300]).unwrap();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode::<Vec<u64>>("test", &bad).is_err(), "bit {bit}: {}", String::from_utf8_lossy(&bad));
        }
        for len in 0..good.len() {
            assert!(decode::<Vec<u64>>("test", &good[..len]).is_err(), "cut to {len}");
        }
    }

    #[test]
    fn a_newer_version_is_named_whatever_its_body() {
        let body = r#"{"shape":"unknown"}"#;
        let text = format!(r#"{{"revenant":"test","version":7,"body":{body},"blake3":"{}"}}"#, digest("test", 7, body));
        assert_eq!(decode::<Vec<u64>>("test", text.as_bytes()), Err(DocumentError::Newer { found: 7 }));
    }
}
