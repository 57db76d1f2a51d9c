//! What the kernel says about one path: a small `stat`.

use rustix::fs::{FileType, Stat};
use serde::{Deserialize, Serialize};

/// A time of day in nanoseconds, as file systems keep it. Negative seconds lie before 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Time(
    /// Seconds since 1970.
    pub i64,
    /// Nanoseconds within the second, below 10⁹.
    pub u32,
);

impl Time {
    /// Before every file.
    pub const BEGINNING: Self = Self(i64::MIN, 0);

    /// The clock that file systems take their times from: it is never ahead of a change made later.
    pub fn now() -> Self {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
        Self(now.tv_sec, u32::try_from(now.tv_nsec).unwrap_or(0))
    }

    /// This time moved back by whole milliseconds.
    #[must_use]
    pub fn minus_millis(self, millis: u64) -> Self {
        let all = i128::from(self.0) * 1_000_000_000 + i128::from(self.1) - i128::from(millis) * 1_000_000;
        let seconds = i64::try_from(all.div_euclid(1_000_000_000)).unwrap_or(i64::MIN);
        Self(seconds, u32::try_from(all.rem_euclid(1_000_000_000)).unwrap_or(0))
    }

    /// Milliseconds since 1970.
    pub(super) fn millis(self) -> i128 {
        i128::from(self.0) * 1000 + i128::from(self.1) / 1_000_000
    }

    /// As the kernel takes it.
    pub(super) fn timespec(self) -> rustix::fs::Timespec {
        rustix::fs::Timespec { tv_sec: self.0, tv_nsec: self.1.into() }
    }
}

/// The kind, owner, size, times and identity of one path, symbolic links not followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// Regular file, directory, …
    pub kind: FileType,
    /// Permission bits with set-ID and sticky bits: the low 12 bits of `st_mode`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes.
    pub size: u64,
    /// Bytes that lie on disk.
    pub allocated: u64,
    /// Last access.
    pub accessed: Time,
    /// Last change of the content.
    pub modified: Time,
    /// Last change of the content or of anything in the inode. Cannot be set by programs.
    pub changed: Time,
    /// Device and inode: the identity of the file on this machine.
    pub identity: (u64, u64),
    /// How many names it has.
    pub links: u64,
}

// The fields' types differ between architectures.
#[allow(clippy::unnecessary_cast, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
impl From<Stat> for Status {
    fn from(stat: Stat) -> Self {
        let time = |seconds: i64, nanos| Time(seconds, u32::try_from(nanos).unwrap_or(0));
        Self {
            kind: FileType::from_raw_mode(stat.st_mode),
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            allocated: u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512),
            accessed: time(stat.st_atime as i64, stat.st_atime_nsec),
            modified: time(stat.st_mtime as i64, stat.st_mtime_nsec),
            changed: time(stat.st_ctime as i64, stat.st_ctime_nsec),
            identity: (stat.st_dev as u64, stat.st_ino as u64),
            links: stat.st_nlink as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_made_now_is_not_before_now() {
        let before = Time::now();
        let file = tempfile::NamedTempFile::new().unwrap();
        let status = Status::from(rustix::fs::fstat(file.as_file()).unwrap());
        assert!(status.changed >= before, "{:?} < {before:?}", status.changed);
    }

    #[test]
    fn goes_back_over_a_second_and_over_1970() {
        assert_eq!(Time(5, 1_000_000).minus_millis(2), Time(4, 999_000_000));
        assert_eq!(Time(0, 0).minus_millis(1500), Time(-2, 500_000_000));
        assert!(Time(-2, 500_000_000) < Time(-1, 0));
    }
}
