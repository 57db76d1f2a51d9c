//! A file on a volume: what a checkpoint remembers of it, and what that means for the file that a
//! restore finds. Decisions only; nothing here touches a file.

use super::catalogue::Data;
use super::digest::Digests;
use super::path::RelPath;
use super::status::Time;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A regular file on a volume at the moment of the checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeFile {
    /// Where.
    pub path: RelPath,
    /// Bytes.
    pub size: u64,
    /// Last change of the content.
    pub modified: Time,
    /// Its inode number there.
    pub inode: u64,
    /// The low 12 bits of `st_mode`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Whether and how the workload has it open for writing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open: Option<Writing>,
    /// Evidence of its content, when the job may have written it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digests: Option<Digests>,
    /// Its content, when it was copied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy: Option<Data>,
}

/// How a file is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Writing {
    /// Only with `O_APPEND`: what is there never changes.
    Append,
    /// Anywhere in it.
    Anywhere,
}

/// What a restore finds in a file's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// Something that is not a regular file.
    OtherKind,
    /// A regular file.
    File(Facts),
    /// Nothing, but the file itself lies under another name in the same directory.
    Renamed(RelPath, Facts),
}

/// A regular file as a restore finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// Bytes.
    pub size: u64,
    /// Last change of the content.
    pub modified: Time,
    /// Its inode number.
    pub inode: u64,
    /// Whether its first bytes, as many as there were, look as they did; none when nobody can tell.
    pub same_so_far: Option<bool>,
}

/// What to do about a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// It is as it was.
    Keep,
    /// It grew: cut it back.
    Truncate {
        /// Bytes now.
        from: u64,
    },
    /// Bring back the copy in the checkpoint; what is there now is moved aside.
    Restore,
    /// Give it its name back, then cut it back if it grew.
    RenameBack {
        /// Where it is now.
        from: RelPath,
        /// Bytes now.
        size: u64,
    },
    /// It cannot become what it was.
    Refuse(Obstacle),
}

/// Why a file cannot become what it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// Its old part has changed.
    Rewritten,
    /// It is shorter than it was.
    Shrunk {
        /// Bytes now.
        to: u64,
    },
    /// It is gone.
    Deleted,
    /// A directory or something else lies there.
    OtherKind,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rewritten => write!(f, "was rewritten after the checkpoint"),
            Self::Shrunk { to } => write!(f, "was cut to {to} bytes after the checkpoint"),
            Self::Deleted => write!(f, "was deleted after the checkpoint"),
            Self::OtherKind => write!(f, "is no regular file any more"),
        }
    }
}

impl VolumeFile {
    /// What to do, given what is there.
    pub fn decide(&self, found: &Found) -> Step {
        let or_restore = |obstacle| if self.copy.is_some() { Step::Restore } else { Step::Refuse(obstacle) };
        match found {
            Found::Nothing => or_restore(Obstacle::Deleted),
            Found::OtherKind => or_restore(Obstacle::OtherKind),
            Found::Renamed(from, facts) => match self.judge(facts) {
                Step::Keep | Step::Truncate { .. } => Step::RenameBack { from: from.clone(), size: facts.size },
                _ => or_restore(Obstacle::Deleted),
            },
            Found::File(facts) => self.judge(facts),
        }
    }

    fn judge(&self, facts: &Facts) -> Step {
        let untouched = facts.size == self.size && facts.modified == self.modified;
        if untouched && facts.same_so_far != Some(false) {
            return Step::Keep;
        }
        if facts.size < self.size {
            return if self.copy.is_some() { Step::Restore } else { Step::Refuse(Obstacle::Shrunk { to: facts.size }) };
        }
        if facts.same_so_far != Some(true) || !self.trusts_ends(facts) {
            return if self.copy.is_some() { Step::Restore } else { Step::Refuse(Obstacle::Rewritten) };
        }
        if facts.size == self.size { Step::Keep } else { Step::Truncate { from: facts.size } }
    }

    /// Whether equal ends are enough. In a small file they are everything. In a large one that was
    /// written anywhere, growth says that it is written in sequence; the same size and a newer time
    /// say that something in it was rewritten.
    fn trusts_ends(&self, facts: &Facts) -> bool {
        let whole = self.digests.as_ref().is_some_and(|digests| digests.whole.is_some());
        whole || self.open == Some(Writing::Append) || facts.size > self.size
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(open: Option<Writing>, whole: bool, copied: bool) -> VolumeFile {
        VolumeFile {
            path: RelPath::from_bytes(b"data/out").unwrap(),
            size: 1000,
            modified: Time(50, 0),
            inode: 7,
            mode: 0o644,
            uid: 0,
            gid: 0,
            open,
            digests: Some(Digests { head: [0; 32], tail: [0; 32], whole: whole.then(String::new) }),
            copy: copied.then(Data::default),
        }
    }

    fn facts(size: u64, seconds: i64, same: bool) -> Facts {
        Facts { size, modified: Time(seconds, 0), inode: 7, same_so_far: Some(same) }
    }

    #[test]
    fn decides_by_what_can_be_proven() {
        let log = file(Some(Writing::Append), false, false);
        let index = file(Some(Writing::Anywhere), false, false);
        let small = file(None, true, true);
        let at = |size, seconds, same| Found::File(facts(size, seconds, same));
        for (what, record, found, step) in [
            ("untouched", &log, at(1000, 50, true), Step::Keep),
            ("appended", &log, at(1200, 60, true), Step::Truncate { from: 1200 }),
            ("touched only", &log, at(1000, 60, true), Step::Keep),
            ("another file in its place", &log, at(1200, 60, false), Step::Refuse(Obstacle::Rewritten)),
            ("same time, other bytes", &log, at(1000, 50, false), Step::Refuse(Obstacle::Rewritten)),
            ("written in sequence", &index, at(1200, 60, true), Step::Truncate { from: 1200 }),
            ("rewritten in the middle", &index, at(1000, 60, true), Step::Refuse(Obstacle::Rewritten)),
            ("cut", &index, at(10, 60, false), Step::Refuse(Obstacle::Shrunk { to: 10 })),
            ("deleted", &index, Found::Nothing, Step::Refuse(Obstacle::Deleted)),
            ("replaced by a directory", &index, Found::OtherKind, Step::Refuse(Obstacle::OtherKind)),
            ("small, rewritten", &small, at(1000, 60, false), Step::Restore),
            ("small, touched", &small, at(1000, 60, true), Step::Keep),
            ("small, deleted", &small, Found::Nothing, Step::Restore),
            ("small, cut", &small, at(1, 60, false), Step::Restore),
            ("small, directory", &small, Found::OtherKind, Step::Restore),
        ] {
            assert_eq!(record.decide(&found), step, "{what}");
        }
        let new_name = RelPath::from_bytes(b"data/out.done").unwrap();
        assert_eq!(
            log.decide(&Found::Renamed(new_name.clone(), facts(1100, 60, true))),
            Step::RenameBack { from: new_name.clone(), size: 1100 }
        );
        assert_eq!(log.decide(&Found::Renamed(new_name, facts(1100, 60, false))), Step::Refuse(Obstacle::Deleted));
    }

    proptest! {
        #[test]
        fn nothing_is_cut_or_kept_against_evidence(size in 0u64..2000, seconds in 49i64..52, copied: bool, whole: bool) {
            let record = file(Some(Writing::Anywhere), whole, copied);
            let step = record.decide(&Found::File(facts(size, seconds, false)));
            prop_assert!(matches!(step, Step::Restore | Step::Refuse(_)));
            prop_assert_eq!(step == Step::Restore, copied, "a copy is used whenever there is one");
        }

        #[test]
        fn only_longer_files_are_cut(size in 0u64..2000, seconds in 49i64..52, same: bool) {
            let step = file(None, true, false).decide(&Found::File(facts(size, seconds, same)));
            let cuts = matches!(step, Step::Truncate { .. });
            prop_assert!(!cuts || size > 1000);
        }
    }
}
