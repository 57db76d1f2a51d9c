//! The catalogue: what a checkpoint remembers of files. One JSON document beside the contents.

use super::mapped::MappedFile;
use super::path::{self, RelPath};
use super::status::Time;
use super::volume::VolumeFile;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

/// The image that holds the catalogue.
pub const CATALOGUE_NAME: &str = "revenant-files.json";
/// The layout that this build writes and the only one it reads.
pub const CATALOGUE_VERSION: u32 = 1;
/// The longest catalogue that is read, in bytes.
pub const CATALOGUE_LIMIT: u64 = 512 << 20;
/// Contents start at multiples of this in their image, so that equal files make equal pages.
pub const ALIGNMENT: u64 = 4096;
/// The most entries of any list.
const MOST_ENTRIES: usize = 4 << 20;
/// The most data extents of one file; a file with more is carried whole.
pub const MOST_EXTENTS: usize = 1 << 16;
/// `XATTR_SIZE_MAX` of Linux.
const LONGEST_XATTR: usize = 65536;

/// Everything that a restore must know of files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catalogue {
    /// [`CATALOGUE_VERSION`] at the time of writing.
    pub version: u32,
    /// When the job's first container started: what is newer on a volume may be the job's.
    pub job_started: Time,
    /// When this was taken.
    pub taken: Time,
    /// The images that hold contents.
    pub contents: Vec<Content>,
    /// What the container's own layer holds, parents before children, by path.
    pub entries: Vec<Entry>,
    /// What the image has and the workload deleted, by path.
    pub deleted: Vec<RelPath>,
    /// Files on volumes.
    pub volumes: Vec<VolumeFile>,
    /// Directories on volumes that belong to the job alone (`--volume`), whose files are all listed.
    pub own_directories: Vec<RelPath>,
    /// Files that processes need and that are not carried: programs, libraries, inputs.
    pub mapped: Vec<MappedFile>,
}

/// One image with contents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Content {
    /// Its name in the repository.
    pub name: String,
    /// Its length.
    pub bytes: u64,
}

/// One path in the container's layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Where.
    pub path: RelPath,
    /// The low 12 bits of `st_mode`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last access.
    pub accessed: Time,
    /// Last change of the content.
    pub modified: Time,
    /// Extended attributes of files and directories.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub xattrs: Vec<Xattr>,
    /// What it is.
    pub kind: Kind,
}

/// An extended attribute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Xattr {
    /// With its namespace, for example `user.origin`.
    pub name: String,
    /// Its value.
    #[serde(with = "hex::serde")]
    pub value: Vec<u8>,
}

/// The kind of a path. Devices are not carried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Kind {
    /// A regular file.
    File(Data),
    /// One more name of a file that comes earlier.
    HardLink {
        /// The earlier name.
        to: RelPath,
    },
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink {
        /// Its target, as text like [`RelPath`]'s.
        target: String,
    },
    /// A FIFO.
    Fifo,
    /// A Unix socket.
    Socket,
}

/// The content of a regular file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// Length of the file, holes included.
    pub size: u64,
    /// Index into [`Catalogue::contents`]; meaningless without extents.
    pub content: u32,
    /// Where its data starts in that image.
    pub at: u64,
    /// Its data, `(offset, length)` ascending; between them are holes. In the image they follow
    /// each other without gaps.
    pub extents: Vec<(u64, u64)>,
}

impl Data {
    /// How many bytes of data it has.
    pub fn bytes(&self) -> u64 {
        self.extents.iter().map(|(_, length)| length).sum()
    }
}

/// A catalogue that must not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Defect {
    /// From another version.
    #[error("it has layout {0}, this revenant reads layout {CATALOGUE_VERSION}")]
    Version(u64),
    /// Not JSON, or not this shape.
    #[error("it cannot be read: {0}")]
    Shape(String),
    /// Contradicts itself or the rules.
    #[error("{path}: {rule}")]
    Rule {
        /// The path concerned.
        path: String,
        /// What is broken.
        rule: &'static str,
    },
}

impl Catalogue {
    /// As JSON.
    pub fn to_json(&self) -> Result<Vec<u8>, Defect> {
        serde_json::to_vec(self).map_err(|error| Defect::Shape(error.to_string()))
    }

    /// Reads JSON and checks every rule that a restore relies on.
    pub fn from_json(bytes: &[u8]) -> Result<Self, Defect> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u64,
        }
        let shape = |error: serde_json::Error| Defect::Shape(error.to_string());
        let version = serde_json::from_slice::<Versioned>(bytes).map_err(shape)?.version;
        if version != u64::from(CATALOGUE_VERSION) {
            return Err(Defect::Version(version));
        }
        let catalogue: Self = serde_json::from_slice(bytes).map_err(shape)?;
        catalogue.check()?;
        Ok(catalogue)
    }

    fn check(&self) -> Result<(), Defect> {
        let broken = |path: &dyn ToString, rule| Err(Defect::Rule { path: path.to_string(), rule });
        let lengths = [self.entries.len(), self.deleted.len(), self.volumes.len(), self.mapped.len()];
        if lengths.into_iter().max().unwrap_or(0) > MOST_ENTRIES {
            return broken(&"the catalogue", "has too many entries");
        }
        for content in &self.contents {
            if !content.name.starts_with("revenant-file-")
                || !content.name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            {
                return broken(&content.name, "is not the name of a content");
            }
        }
        let mut files = HashSet::new();
        let mut previous: Option<&RelPath> = None;
        for entry in &self.entries {
            if previous.is_some_and(|previous| *previous >= entry.path) {
                return broken(&entry.path, "is out of order");
            }
            previous = Some(&entry.path);
            if entry.mode > 0o7777 || entry.modified.1 >= 1_000_000_000 || entry.accessed.1 >= 1_000_000_000 {
                return broken(&entry.path, "has a mode or a time that cannot be");
            }
            if entry.xattrs.iter().any(|x| {
                x.value.len() > LONGEST_XATTR || x.name.is_empty() || x.name.len() > 255 || x.name.contains('\0')
            }) {
                return broken(&entry.path, "has an extended attribute that cannot be");
            }
            match &entry.kind {
                Kind::File(data) => {
                    self.check_data(&entry.path, data)?;
                    files.insert(&entry.path);
                }
                Kind::HardLink { to } if !files.contains(to) => {
                    return broken(&entry.path, "is a second name of a file that does not come before it");
                }
                Kind::Symlink { target } if path::unescape(target).is_none_or(|t| t.is_empty() || t.contains(&0)) => {
                    return broken(&entry.path, "is a symbolic link to nothing");
                }
                _ if entry.path.is_root() && entry.kind != Kind::Directory => {
                    return broken(&entry.path, "is the root and not a directory");
                }
                _ => {}
            }
        }
        if self.deleted.iter().any(RelPath::is_root) {
            return broken(&"/", "cannot be deleted");
        }
        for file in &self.volumes {
            if let Some(copy) = &file.copy {
                self.check_data(&file.path, copy)?;
            }
        }
        Ok(())
    }

    fn check_data(&self, path: &RelPath, data: &Data) -> Result<(), Defect> {
        let broken = |rule| Err(Defect::Rule { path: path.to_string(), rule });
        if i64::try_from(data.size).is_err() || data.extents.len() > MOST_EXTENTS {
            return broken("has a size that cannot be");
        }
        let mut end = 0;
        let mut bytes = 0u64;
        for (offset, length) in &data.extents {
            let Some(after) = offset.checked_add(*length) else { return broken("has an extent that cannot be") };
            if *offset < end || *length == 0 || after > data.size {
                return broken("has extents that overlap or lie outside");
            }
            end = after;
            bytes += length;
        }
        if bytes == 0 {
            return Ok(());
        }
        let within = usize::try_from(data.content)
            .ok()
            .and_then(|index| self.contents.get(index))
            .is_some_and(|content| data.at.checked_add(bytes).is_some_and(|end| end <= content.bytes));
        if within { Ok(()) } else { broken("has content that is not there") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Catalogue {
        let path = |text: &str| RelPath::from_bytes(text.as_bytes()).unwrap();
        let entry = |text: &str, kind| Entry {
            path: path(text),
            mode: 0o640,
            uid: 1,
            gid: 2,
            accessed: Time(3, 4),
            modified: Time(-5, 6),
            xattrs: vec![Xattr { name: "user.a".into(), value: vec![0, 255] }],
            kind,
        };
        Catalogue {
            version: CATALOGUE_VERSION,
            contents: vec![Content { name: "revenant-file-000001".into(), bytes: 8192 }],
            entries: vec![
                entry("tmp", Kind::Directory),
                entry(
                    "tmp/a",
                    Kind::File(Data { size: 9000, content: 0, at: 4096, extents: vec![(0, 10), (8990, 10)] }),
                ),
                entry("tmp/b", Kind::HardLink { to: path("tmp/a") }),
                entry("tmp/c", Kind::Symlink { target: "../x\\xff".into() }),
                entry("tmp/d", Kind::Fifo),
            ],
            deleted: vec![path("etc/motd")],
            ..Catalogue::default()
        }
    }

    #[test]
    fn survives_its_own_json() {
        let json = sample().to_json().unwrap();
        assert_eq!(Catalogue::from_json(&json).unwrap(), sample());
    }

    /// A catalogue after one change, as its refusal.
    fn refusal(change: impl FnOnce(&mut Catalogue)) -> String {
        let mut catalogue = sample();
        change(&mut catalogue);
        Catalogue::from_json(&catalogue.to_json().unwrap()).unwrap_err().to_string()
    }

    #[test]
    fn refuses_what_contradicts_itself() {
        let file = |change: fn(&mut Data)| {
            refusal(move |c| {
                if let Kind::File(data) = &mut c.entries[1].kind {
                    change(data);
                }
            })
        };
        assert_eq!(refusal(|c| c.version = 2), "it has layout 2, this revenant reads layout 1");
        assert_eq!(file(|d| d.content = 1), "/tmp/a: has content that is not there");
        assert_eq!(file(|d| d.at = 8190), "/tmp/a: has content that is not there");
        assert_eq!(file(|d| d.at = u64::MAX), "/tmp/a: has content that is not there");
        assert_eq!(file(|d| d.extents = vec![(0, 10), (5, 10)]), "/tmp/a: has extents that overlap or lie outside");
        assert_eq!(file(|d| d.extents = vec![(u64::MAX, 2)]), "/tmp/a: has an extent that cannot be");
        assert_eq!(file(|d| d.size = u64::MAX), "/tmp/a: has a size that cannot be");
        assert_eq!(refusal(|c| c.entries.swap(0, 1)), "/tmp: is out of order");
        assert_eq!(refusal(|c| c.deleted.push(RelPath::root())), "/: cannot be deleted");
        assert_eq!(
            refusal(|c| c.contents[0].name = "../../etc/passwd".into()),
            "../../etc/passwd: is not the name of a content"
        );
        assert!(refusal(|c| c.entries[2].kind = Kind::HardLink { to: RelPath::root() }).contains("second name"));
    }

    #[test]
    fn refuses_paths_that_lead_away() {
        let json = String::from_utf8(sample().to_json().unwrap()).unwrap();
        for bad in ["../etc/shadow", "/etc/shadow", "tmp/../../x", ""] {
            let text = json.replace("etc/motd", bad);
            assert!(Catalogue::from_json(text.as_bytes()).is_err(), "{bad:?} was accepted");
        }
    }

    proptest! {
        #[test]
        fn flipped_bytes_never_crash(at in 0usize..900, with in any::<u8>()) {
            let mut json = sample().to_json().unwrap();
            let at = at % json.len();
            json[at] = with;
            let _ = Catalogue::from_json(&json);
        }
    }
}
