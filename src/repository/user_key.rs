//! The key that a person or a Kubernetes Secret holds: 256 bits, or a passphrase. It comes from a
//! file or the environment, never from the command line, and is wiped from memory after use.

use super::keys::{Kdf, KeyError};
use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use std::fmt;
use std::io::Read as _;
use std::path::Path;
use std::sync::{Mutex, OnceLock, PoisonError};
use zeroize::Zeroizing;

/// A shorter passphrase is a mistake, or soon broken.
const MIN_PASSPHRASE: usize = 12;
/// A key file is a line of text.
const MAX_FILE: u64 = 4096;

/// RFC 9106's second recommended choice: 64 MiB and 3 passes, a quarter of revenant's memory bound.
const ARGON2ID: Kdf = Kdf::Argon2id { memory_kib: 64 << 10, passes: 3, lanes: 4 };

/// A user's key. Never printed.
pub struct UserKey(Secret);

enum Secret {
    Random(Zeroizing<[u8; 32]>),
    Passphrase(Zeroizing<Vec<u8>>),
}

impl fmt::Debug for UserKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Secret::Random(_) => "UserKey(256 bits)",
            Secret::Passphrase(_) => "UserKey(passphrase)",
        })
    }
}

impl UserKey {
    /// From `REVENANT_KEY_FILE` or `REVENANT_KEY`, whichever is set; none when neither is. `file` (from
    /// `--key-file`) goes before both.
    pub fn from_environment(file: Option<&Path>) -> Result<Option<Self>, KeyError> {
        if let Some(path) = file {
            return Self::from_file(path).map(Some);
        }
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        match (set("REVENANT_KEY_FILE"), set("REVENANT_KEY")) {
            (None, None) => Ok(None),
            (Some(path), None) => Self::from_file(Path::new(&path)).map(Some),
            (None, Some(text)) => {
                let text = Zeroizing::new(text.into_string().map_err(|_| unusable("REVENANT_KEY is not text"))?);
                Self::from_text(&text).map(Some)
            }
            (Some(_), Some(_)) => Err(unusable("both REVENANT_KEY_FILE and REVENANT_KEY are set")),
        }
    }

    /// From a file: 32 raw bytes that are not text, or text as in [`UserKey::from_text`].
    pub fn from_file(path: &Path) -> Result<Self, KeyError> {
        let failed = |reason: String| KeyError::File { path: path.to_owned(), reason };
        let mut content = Zeroizing::new(Vec::with_capacity(4097));
        let file = std::fs::File::open(path).map_err(|error| failed(error.to_string()))?;
        file.take(MAX_FILE + 1).read_to_end(&mut content).map_err(|error| failed(error.to_string()))?;
        if content.len() as u64 > MAX_FILE {
            return Err(failed(format!("it has more than {MAX_FILE} bytes, so it is no key")));
        }
        match std::str::from_utf8(&content) {
            Ok(text) if !text.trim_end().chars().any(char::is_control) => Self::from_text(text),
            _ => match <[u8; 32]>::try_from(content.as_slice()) {
                Ok(bytes) => Ok(Self(Secret::Random(Zeroizing::new(bytes)))),
                Err(_) => Err(failed("it is neither text nor exactly 32 bytes".to_owned())),
            },
        }
    }

    /// From text: 64 hexadecimal digits or the base64 of 32 bytes are a key, anything else is a
    /// passphrase. White space around it does not count.
    pub fn from_text(text: &str) -> Result<Self, KeyError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(unusable("it is empty"));
        }
        let mut key = Zeroizing::new([0; 32]);
        if hex::decode_to_slice(text, &mut *key).is_ok() {
            return Ok(Self(Secret::Random(key)));
        }
        if matches!(text.len(), 43 | 44) {
            for alphabet in [STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD] {
                let mut decoded = Zeroizing::new([0; 33]);
                if alphabet.decode_slice(text, &mut *decoded) == Ok(32) {
                    key.copy_from_slice(&decoded[..32]);
                    return Ok(Self(Secret::Random(key)));
                }
            }
        }
        if text.chars().count() < MIN_PASSPHRASE {
            return Err(unusable(&format!("a passphrase has at least {MIN_PASSPHRASE} characters")));
        }
        Ok(Self(Secret::Passphrase(Zeroizing::new(text.as_bytes().to_vec()))))
    }

    /// How a new slot for this key derives its wrapping key.
    pub(super) fn kdf(&self) -> Kdf {
        match self.0 {
            Secret::Random(_) => Kdf::Blake3,
            Secret::Passphrase(_) => ARGON2ID,
        }
    }

    /// Whether this key could be the one of a slot with that derivation.
    pub(super) fn fits(&self, kdf: &Kdf) -> bool {
        matches!((&self.0, kdf), (Secret::Random(_), Kdf::Blake3) | (Secret::Passphrase(_), Kdf::Argon2id { .. }))
    }

    /// 256 bits that cost as much to guess as the slot demands.
    pub(super) fn stretch(&self, kdf: &Kdf, salt: &[u8; 32]) -> Result<Zeroizing<[u8; 32]>, KeyError> {
        match (&self.0, kdf) {
            (Secret::Random(key), Kdf::Blake3) => Ok(key.clone()),
            (Secret::Passphrase(phrase), &Kdf::Argon2id { memory_kib, passes, lanes }) => {
                // Whoever can write to the store must not be able to make us use up memory or time.
                if memory_kib > 256 << 10 || passes > 16 || lanes > 16 {
                    return Err(unusable("its slot demands more memory or time than any revenant writes"));
                }
                let derive = || {
                    let params = Params::new(memory_kib, passes, lanes, Some(32))
                        .map_err(|error| unusable(&error.to_string()))?;
                    let mut out = Zeroizing::new([0; 32]);
                    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
                        .hash_password_into(phrase, salt, &mut *out)
                        .map_err(|error| unusable(&error.to_string()))?;
                    Ok(out)
                };
                let input = [&memory_kib.to_le_bytes()[..], &passes.to_le_bytes(), &lanes.to_le_bytes(), salt, phrase];
                STRETCHED.get_or_derive(&input, derive)
            }
            _ => Err(unusable("it is not of the slot's kind")),
        }
    }
}

/// What this process has stretched already: it costs a second and 64 MiB each time.
static STRETCHED: Stretched = Stretched(Mutex::new(Vec::new()));

/// Stretched passphrases, by a digest of what they were made from.
struct Stretched(Mutex<Vec<(blake3::Hash, Zeroizing<[u8; 32]>)>>);

impl Stretched {
    /// Passphrases and slots that are remembered: the old and the new ones of a rotation, and some more.
    const KEPT: usize = 8;

    /// Held while it derives: of two threads one waits, and memory is taken once.
    fn get_or_derive(
        &self,
        input: &[&[u8]],
        derive: impl FnOnce() -> Result<Zeroizing<[u8; 32]>, KeyError>,
    ) -> Result<Zeroizing<[u8; 32]>, KeyError> {
        // Keyed at random, so that what lies in memory is no short cut for guessing.
        static KEY: OnceLock<Zeroizing<[u8; 32]>> = OnceLock::new();
        let mut hasher = blake3::Hasher::new_keyed(KEY.get_or_init(|| Zeroizing::new(rand::random())));
        for part in input {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
        }
        let of = hasher.finalize();
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, known)) = kept.iter().find(|(other, _)| *other == of) {
            return Ok(known.clone());
        }
        let derived = derive()?;
        if kept.len() == Self::KEPT {
            kept.remove(0);
        }
        kept.push((of, derived.clone()));
        Ok(derived)
    }
}

fn unusable(reason: &str) -> KeyError {
    KeyError::Unusable { reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bits(key: &UserKey) -> Option<[u8; 32]> {
        match &key.0 {
            Secret::Random(bits) => Some(**bits),
            Secret::Passphrase(_) => None,
        }
    }

    #[test]
    fn a_passphrase_is_stretched_once_for_each_slot() {
        let cache = Stretched(Mutex::new(Vec::new()));
        let mut derived = 0;
        let mut ask = |input: &[&[u8]], value: u8| {
            let derive = || {
                derived += 1;
                Ok(Zeroizing::new([value; 32]))
            };
            cache.get_or_derive(input, derive).unwrap()[0]
        };
        assert_eq!(ask(&[b"salt", b"phrase"], 1), 1);
        assert_eq!(ask(&[b"salt", b"phrase"], 2), 1, "remembered");
        assert_eq!(ask(&[b"salt", b"phrases"], 3), 3);
        assert_eq!(ask(&[b"saltp", b"hrase"], 4), 4, "other lengths, other inputs");
        assert_eq!(ask(&[b"salt", b"phrase"], 5), 1);
        assert_eq!(derived, 3);
        // A failure is not remembered, and no more is kept than there is room for.
        assert!(cache.get_or_derive(&[b"x"], || Err(unusable("no memory"))).is_err());
        for n in 0..20u8 {
            cache.get_or_derive(&[&[n]], || Ok(Zeroizing::new([n; 32]))).unwrap();
        }
        assert_eq!(cache.0.lock().unwrap().len(), Stretched::KEPT);
    }

    #[test]
    fn reads_the_usual_spellings() {
        let raw: [u8; 32] = std::array::from_fn(|i| u8::try_from(i * 8 + 7).unwrap());
        for text in [
            hex::encode(raw),
            hex::encode_upper(raw),
            STANDARD.encode(raw),
            URL_SAFE_NO_PAD.encode(raw),
            format!(" {}\n", hex::encode(raw)),
        ] {
            assert_eq!(bits(&UserKey::from_text(&text).unwrap()), Some(raw), "{text}");
        }
        assert_eq!(bits(&UserKey::from_text("correct horse battery staple").unwrap()), None);
        for bad in ["", "  \n", "short", "12345678901"] {
            assert!(UserKey::from_text(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn reads_key_files() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let raw = [0xfe; 32];
        std::fs::write(&path, raw).unwrap();
        assert_eq!(bits(&UserKey::from_file(&path).unwrap()), Some(raw));
        std::fs::write(&path, STANDARD.encode(raw) + "\n").unwrap();
        assert_eq!(bits(&UserKey::from_file(&path).unwrap()), Some(raw));
        std::fs::write(&path, [0xfe; 31]).unwrap();
        assert!(matches!(UserKey::from_file(&path), Err(KeyError::File { .. })));
        std::fs::write(&path, vec![b'a'; 5000]).unwrap();
        assert!(matches!(UserKey::from_file(&path), Err(KeyError::File { .. })));
        assert!(matches!(UserKey::from_file(&directory.path().join("none")), Err(KeyError::File { .. })));
    }

    #[test]
    fn a_greedy_slot_is_refused() {
        let key = UserKey::from_text("correct horse battery staple").unwrap();
        let greedy = Kdf::Argon2id { memory_kib: u32::MAX, passes: 3, lanes: 1 };
        assert!(key.stretch(&greedy, &[0; 32]).is_err());
    }

    #[test]
    fn debug_never_prints_secrets() {
        assert_eq!(format!("{:?}", UserKey::from_text("correct horse battery staple").unwrap()), "UserKey(passphrase)");
    }
}
