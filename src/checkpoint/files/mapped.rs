//! Programs, libraries and inputs that the processes use and that are not carried: the next
//! container must have the same ones. CRIU compares size and build-id and fails on the first that
//! differs; here all of them are named before.

use super::digest::Digests;
use super::path::RelPath;
use super::rooted::Root;
use super::status::{Status, Time};
use rustix::fs::fstat;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// A file that a process has mapped, or open for reading.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MappedFile {
    /// Where.
    pub path: RelPath,
    /// Mapped into memory, else only open.
    pub mapped: bool,
    /// Bytes.
    pub size: u64,
    /// Last change of the content, for people: images of the same content differ in it.
    pub modified: Time,
    /// What tells its content from another's.
    pub identity: Identity,
}

/// What tells one content from another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Identity {
    /// The linker's build-id of an ELF file, in hexadecimal.
    BuildId(String),
    /// Its two ends, or all of it.
    Ends(Digests),
    /// It could not be read.
    Unknown,
}

impl MappedFile {
    /// Looks at a file as it is now.
    pub fn observe(root: &Root, path: &RelPath, mapped: bool) -> io::Result<Self> {
        let (status, identity) = match root.read(path) {
            Ok(file) => {
                let status = Status::from(fstat(&file)?);
                (status, identify(&file, status.size))
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => (root.status(path)?, Identity::Unknown),
            Err(error) => return Err(error),
        };
        Ok(Self { path: path.clone(), mapped, size: status.size, modified: status.modified, identity })
    }

    /// How it differs from what is there now, if it does.
    pub fn drift(&self, now: Option<&Self>) -> Option<Drift> {
        let same = now.is_some_and(|now| {
            let comparable = self.identity != Identity::Unknown && now.identity != Identity::Unknown;
            self.size == now.size && (!comparable || self.identity == now.identity)
        });
        (!same).then(|| Drift { was: self.clone(), now: now.cloned() })
    }
}

fn identify(file: &File, size: u64) -> Identity {
    match build_id(file) {
        Some(id) => Identity::BuildId(id),
        None => Digests::of(file, size).map_or(Identity::Unknown, Identity::Ends),
    }
}

/// A file that is not what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drift {
    /// At the checkpoint.
    pub was: MappedFile,
    /// Now, if it exists.
    pub now: Option<MappedFile>,
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let describe = |file: &MappedFile| match &file.identity {
            Identity::BuildId(id) => format!("{} bytes, build-id {}", file.size, &id[..id.len().min(12)]),
            _ => format!("{} bytes", file.size),
        };
        write!(f, "{} was {}, ", self.was.path, describe(&self.was))?;
        match &self.now {
            None => write!(f, "is missing"),
            Some(now) if describe(now) == describe(&self.was) => write!(f, "has other content"),
            Some(now) => write!(f, "is {}", describe(now)),
        }
    }
}

/// Note type `NT_GNU_BUILD_ID` of elf.h.
const NT_GNU_BUILD_ID: u32 = 3;
/// Segment type `PT_NOTE` of elf.h.
const PT_NOTE: u32 = 4;
/// Notes of real files have a few hundred bytes.
const LONGEST_NOTES: u64 = 64 << 10;

/// The build-id of a 64-bit little-endian ELF file, see elf(5).
fn build_id(file: &File) -> Option<String> {
    let mut header = [0; 64];
    file.read_exact_at(&mut header, 0).ok()?;
    if !header.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let table = u64::from_le_bytes(header[32..40].try_into().ok()?);
    let size = u64::from(u16::from_le_bytes(header[54..56].try_into().ok()?));
    let count = u64::from(u16::from_le_bytes(header[56..58].try_into().ok()?));
    for index in 0..count {
        let mut segment = [0; 56];
        file.read_exact_at(&mut segment, table.checked_add(index * size)?).ok()?;
        if u32::from_le_bytes(segment[..4].try_into().ok()?) != PT_NOTE {
            continue;
        }
        let offset = u64::from_le_bytes(segment[8..16].try_into().ok()?);
        let length = u64::from_le_bytes(segment[32..40].try_into().ok()?).min(LONGEST_NOTES);
        let mut notes = vec![0; usize::try_from(length).ok()?];
        file.read_exact_at(&mut notes, offset).ok()?;
        if let Some(id) = build_id_note(&notes) {
            return Some(hex::encode(id));
        }
    }
    None
}

/// The build-id among notes: each is name length, data length, type, name, data, padded to 4.
fn build_id_note(mut notes: &[u8]) -> Option<&[u8]> {
    while notes.len() >= 12 {
        let word = |at: usize| notes.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
        let name = usize::try_from(word(0)?).ok()?;
        let data = usize::try_from(word(4)?).ok()?;
        let start = 12 + name.checked_next_multiple_of(4)?;
        let end = start.checked_add(data)?;
        if word(8)? == NT_GNU_BUILD_ID && notes.get(12..12 + name)? == b"GNU\0" && data > 0 {
            return notes.get(start..end);
        }
        notes = notes.get(end.checked_next_multiple_of(4)?..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn finds_the_build_id_among_notes() {
        let mut notes = Vec::new();
        notes.extend([4u32, 16, 1].iter().flat_map(|w| w.to_le_bytes()));
        notes.extend(b"GNU\0aaaabbbbccccdddd");
        notes.extend([4u32, 3, 3].iter().flat_map(|w| w.to_le_bytes()));
        notes.extend(b"GNU\0\x01\x02\x03\0");
        assert_eq!(build_id_note(&notes), Some(&[1, 2, 3][..]));
        assert_eq!(build_id_note(&notes[..40]), None);
    }

    #[test]
    fn agrees_with_readelf_on_a_system_library() {
        let root = Root::open(std::path::Path::new("/")).unwrap();
        let shell = std::fs::canonicalize("/bin/sh").unwrap();
        let path = RelPath::from_absolute(&shell).unwrap();
        let seen = MappedFile::observe(&root, &path, true).unwrap();
        let Ok(readelf) = std::process::Command::new("readelf").arg("-n").arg(&shell).output() else { return };
        let text = String::from_utf8_lossy(&readelf.stdout).into_owned();
        let id = text.lines().find_map(|line| line.trim().strip_prefix("Build ID: ")).unwrap();
        assert_eq!(seen.identity, Identity::BuildId(id.to_owned()));
    }

    #[test]
    fn says_what_was_and_what_is() {
        let path = RelPath::from_bytes(b"usr/lib/libm.so.6").unwrap();
        let file = |size, id: &str| MappedFile {
            path: path.clone(),
            mapped: true,
            size,
            modified: Time(1, 0),
            identity: Identity::BuildId(id.into()),
        };
        let was = file(100, "aaaa");
        assert_eq!(was.drift(Some(&MappedFile { modified: Time(9, 0), ..was.clone() })), None, "times may differ");
        assert_eq!(was.drift(None).unwrap().to_string(), "/usr/lib/libm.so.6 was 100 bytes, build-id aaaa, is missing");
        assert_eq!(
            was.drift(Some(&file(100, "bbbb"))).unwrap().to_string(),
            "/usr/lib/libm.so.6 was 100 bytes, build-id aaaa, is 100 bytes, build-id bbbb"
        );
        assert!(was.drift(Some(&file(101, "aaaa"))).is_some());
    }

    proptest! {
        #[test]
        fn any_notes_are_read_without_a_crash(notes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = build_id_note(&notes);
        }

        #[test]
        fn any_elf_is_read_without_a_crash(mut bytes in prop::collection::vec(any::<u8>(), 6..300)) {
            bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
            let file = tempfile::tempfile().unwrap();
            file.write_all_at(&bytes, 0).unwrap();
            let _ = build_id(&file);
        }
    }
}
