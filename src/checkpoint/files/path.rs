//! Paths below the root of a container, as a checkpoint writes them down.

use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A path relative to the root directory of the workload: no leading slash, no empty component,
/// no `.` or `..`, so it cannot lead out of the root by its text. `.` alone is the root itself.
///
/// In JSON it is text; bytes that are not UTF-8 are written `\xNN` and a backslash `\\`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RelPath(Vec<u8>);

/// Text that is not such a path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} {reason}")]
pub struct InvalidPath {
    text: String,
    reason: &'static str,
}

/// `PATH_MAX` of Linux, in bytes.
const LONGEST_PATH: usize = 4096;
/// `NAME_MAX` of Linux, in bytes.
const LONGEST_NAME: usize = 255;

impl RelPath {
    /// The root directory itself.
    pub fn root() -> Self {
        Self(b".".to_vec())
    }

    /// Checks raw bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidPath> {
        let refuse = |reason| Err(InvalidPath { text: escape(&bytes[..bytes.len().min(200)]), reason });
        if bytes == b"." {
            return Ok(Self::root());
        }
        if bytes.len() > LONGEST_PATH {
            return refuse("is longer than a path may be");
        }
        if bytes.contains(&0) {
            return refuse("has a zero byte");
        }
        for component in bytes.split(|byte| *byte == b'/') {
            match component {
                b"" => return refuse("has an empty component"),
                b"." | b".." => return refuse("has a dot component"),
                name if name.len() > LONGEST_NAME => return refuse("has a name longer than a name may be"),
                _ => {}
            }
        }
        Ok(Self(bytes.to_vec()))
    }

    /// An absolute path as the kernel shows it, made relative. `/` is the root.
    pub fn from_absolute(path: &Path) -> Result<Self, InvalidPath> {
        let bytes = path.as_os_str().as_bytes();
        let Some(rest) = bytes.strip_prefix(b"/") else {
            return Err(InvalidPath { text: escape(bytes), reason: "is not absolute" });
        };
        match rest.strip_suffix(b"/").unwrap_or(rest) {
            b"" => Ok(Self::root()),
            rest => Self::from_bytes(rest),
        }
    }

    /// This path with one more name; none when the name cannot stand in a path.
    pub fn join(&self, name: &[u8]) -> Option<Self> {
        if matches!(name, b"" | b"." | b"..") || name.contains(&b'/') || name.contains(&0) {
            return None;
        }
        let mut bytes = if self.is_root() { Vec::new() } else { self.0.clone() };
        if !bytes.is_empty() {
            bytes.push(b'/');
        }
        bytes.extend_from_slice(name);
        (bytes.len() <= LONGEST_PATH && name.len() <= LONGEST_NAME).then_some(Self(bytes))
    }

    /// Whether this is the root itself.
    pub fn is_root(&self) -> bool {
        self.0 == b"."
    }

    /// The directory that holds it, and its name there; none for the root.
    pub fn split(&self) -> Option<(Self, &OsStr)> {
        if self.is_root() {
            return None;
        }
        Some(match self.0.iter().rposition(|byte| *byte == b'/') {
            Some(at) => (Self(self.0[..at].to_vec()), OsStr::from_bytes(&self.0[at + 1..])),
            None => (Self::root(), OsStr::from_bytes(&self.0)),
        })
    }

    /// Whether this is `ancestor` or lies below it.
    pub fn is_within(&self, ancestor: &Self) -> bool {
        ancestor.is_root()
            || self.0.strip_prefix(ancestor.0.as_slice()).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
    }

    /// How many names it has; 0 for the root.
    pub fn depth(&self) -> usize {
        if self.is_root() { 0 } else { self.0.split(|byte| *byte == b'/').count() }
    }

    /// Relative to the root.
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }

    /// As the workload sees it.
    pub fn absolute(&self) -> PathBuf {
        if self.is_root() { PathBuf::from("/") } else { Path::new("/").join(self.as_path()) }
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_root() { f.write_str("/") } else { write!(f, "/{}", escape(&self.0)) }
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<RelPath> for String {
    fn from(path: RelPath) -> Self {
        escape(&path.0)
    }
}

impl TryFrom<String> for RelPath {
    type Error = InvalidPath;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match unescape(&text) {
            Some(bytes) => Self::from_bytes(&bytes),
            None => Err(InvalidPath { text, reason: "has a backslash that escapes nothing" }),
        }
    }
}

/// Any bytes as text without loss.
pub(super) fn escape(bytes: &[u8]) -> String {
    use fmt::Write;
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character == '\\' {
                text.push('\\');
            }
            text.push(character);
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// The bytes that [`escape`] wrote.
pub(super) fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = match (first, tail) {
            (b'\\', [b'\\', tail @ ..]) => {
                bytes.push(b'\\');
                tail
            }
            (b'\\', [b'x', high, low, tail @ ..]) => {
                let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|d| u8::try_from(d).ok());
                bytes.push(digit(*high)? << 4 | digit(*low)?);
                tail
            }
            (b'\\', _) => return None,
            (byte, tail) => {
                bytes.push(*byte);
                tail
            }
        };
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn refuses_what_could_lead_out_of_the_root() {
        for bad in ["", "/etc", "a//b", "a/", "..", "a/../b", "./a", "a/.", "a\0b", "a\\qb", &"x".repeat(256)] {
            assert!(RelPath::try_from(bad.to_owned()).is_err(), "{bad:?} was accepted");
        }
        for good in [".", "a", "tmp/w/data", "..a/b..", "a b"] {
            assert_eq!(String::from(RelPath::try_from(good.to_owned()).unwrap()), good);
        }
    }

    #[test]
    fn knows_what_lies_below_what() {
        let path = |text: &str| RelPath::from_bytes(text.as_bytes()).unwrap();
        assert!(path("a/b").is_within(&path("a")) && path("a").is_within(&path("a")));
        assert!(!path("ab").is_within(&path("a")) && path("ab").is_within(&RelPath::root()));
        assert_eq!(path("a/b").split().unwrap(), (path("a"), OsStr::new("b")));
        assert_eq!(path("a").split().unwrap().0, RelPath::root());
        assert_eq!((RelPath::root().depth(), path("a/b").depth()), (0, 2));
        assert_eq!(RelPath::from_absolute(Path::new("/")).unwrap(), RelPath::root());
    }

    proptest! {
        #[test]
        fn any_name_survives_its_text(name in prop::collection::vec(1u8..=255, 1..40)) {
            if let Some(path) = RelPath::root().join(&name) {
                prop_assert_eq!(RelPath::try_from(String::from(path.clone())).unwrap(), path);
            }
        }

        #[test]
        fn accepted_text_never_has_a_way_up(text in "[a./\\\\x0-9]{0,12}") {
            if let Ok(path) = RelPath::try_from(text) {
                prop_assert!(!path.absolute().components().any(|c| c == std::path::Component::ParentDir));
            }
        }
    }
}
