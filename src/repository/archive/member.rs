//! What may be in an archive. A member's name is only ever compared with these; it never becomes a
//! path, so no name can lead anywhere else.

use crate::job::{Generation, JobName};
use crate::repository::crypto::ObjectId;
use crate::repository::index::INDEX_LIMIT;
use crate::repository::recipe::PACK_LIMIT;
use crate::repository::{completion, format, keys, layout, manifest};

const CONTENTS: &str = "revenant-export.json";
const DIGESTS: &str = "SHA256SUMS";

/// One member of an archive.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Member {
    /// What the archive is.
    Contents,
    /// The repository's format.
    Format,
    /// That the job was started before.
    Started,
    /// A key slot.
    Key(String),
    /// An index object.
    Index(ObjectId),
    /// A pack.
    Pack(ObjectId),
    /// A manifest.
    Manifest(Generation),
    /// The digests of all others.
    Digests,
}

impl Member {
    /// Its name below the job's directory: for stored objects their key.
    pub fn name(&self) -> String {
        match self {
            Self::Contents => CONTENTS.to_owned(),
            Self::Format => layout::FORMAT.to_owned(),
            Self::Started => layout::STARTED.to_owned(),
            Self::Key(slot) => layout::key_slot(slot),
            Self::Index(id) => layout::index(id),
            Self::Pack(id) => layout::pack(id),
            Self::Manifest(generation) => layout::manifest(*generation),
            Self::Digests => DIGESTS.to_owned(),
        }
    }

    fn parse(name: &str) -> Option<Self> {
        match name {
            CONTENTS => return Some(Self::Contents),
            DIGESTS => return Some(Self::Digests),
            layout::FORMAT => return Some(Self::Format),
            layout::STARTED => return Some(Self::Started),
            _ => {}
        }
        let key = || {
            let slot = name.strip_prefix(layout::KEYS)?.strip_prefix('/')?.strip_suffix(".json")?;
            let usable = (1..=64).contains(&slot.len()) && slot.bytes().all(|b| b.is_ascii_alphanumeric());
            usable.then(|| Self::Key(slot.to_owned()))
        };
        (layout::parse_pack(name).map(Self::Pack))
            .or_else(|| layout::parse_index(name).map(Self::Index))
            .or_else(|| layout::parse_manifest(name).map(Self::Manifest))
            .or_else(key)
    }

    /// From a member's whole name, `<job>/<name>`.
    pub fn parse_path(path: &[u8]) -> Option<(JobName, Self)> {
        let path = std::str::from_utf8(path).ok()?;
        let (job, name) = path.strip_prefix("./").unwrap_or(path).split_once('/')?;
        Some((job.parse().ok()?, Self::parse(name)?))
    }

    /// The most bytes that it can have.
    pub fn limit(&self) -> u64 {
        match self {
            Self::Contents => 1 << 20,
            Self::Format => format::MAX_LEN,
            Self::Started => completion::MAX_LEN,
            Self::Key(_) => keys::MAX_LEN,
            Self::Index(_) => INDEX_LIMIT,
            Self::Pack(_) => PACK_LIMIT,
            Self::Manifest(_) => manifest::MAX_LEN,
            // A digest, two spaces, the longest name, a line feed.
            Self::Digests => super::MOST_MEMBERS as u64 * 160,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Epoch;
    use proptest::prelude::*;

    #[test]
    fn names_parse_back() {
        let generation = Generation { epoch: Epoch(3), sequence: 7 };
        let id = ObjectId([0xab; 32]);
        for member in [
            Member::Contents,
            Member::Format,
            Member::Started,
            Member::Key("0123abcd".to_owned()),
            Member::Index(id),
            Member::Pack(id),
            Member::Manifest(generation),
            Member::Digests,
        ] {
            let path = format!("assembly/{}", member.name());
            assert_eq!(Member::parse_path(path.as_bytes()), Some(("assembly".parse().unwrap(), member)));
        }
    }

    #[test]
    fn nothing_else_is_a_member() {
        for path in [
            "assembly/../etc/passwd",
            "../assembly/format.json",
            "/assembly/format.json",
            "assembly/packs/../../format.json",
            "assembly/keys/../x.json",
            "assembly/keys/.json",
            "assembly/claims/00000000000000000001.claim",
            "assembly/complete.json",
            "assembly",
            "format.json",
            "..//format.json",
            "assembly//format.json",
        ] {
            assert_eq!(Member::parse_path(path.as_bytes()), None, "{path}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_names_never_panic(path: Vec<u8>) {
            let _ = Member::parse_path(&path);
        }
    }
}
