//! Writes an archive: plain ustar, no extension of it, so that any tar reads it.

use super::contents::Contents;
use super::member::Member;
use ring::digest::{SHA256, digest};
use std::fmt::Write as _;
use std::io::{self, Write};
use std::time::SystemTime;

/// An archive that is being written.
pub(super) struct Writer<W: Write> {
    tar: tar::Builder<W>,
    job: String,
    seconds: u64,
    sums: String,
}

impl<W: Write> Writer<W> {
    pub fn new(out: W, contents: &Contents) -> Self {
        let since = contents.exported.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self {
            tar: tar::Builder::new(out),
            job: contents.job.to_string(),
            seconds: since.as_secs(),
            sums: String::new(),
        }
    }

    pub fn add(&mut self, member: &Member, bytes: &[u8]) -> io::Result<()> {
        let name = member.name();
        let digest = hex::encode(digest(&SHA256, bytes));
        // As `sha256sum --check` reads it.
        let _ = writeln!(self.sums, "{digest}  {name}");
        self.append(&name, bytes)
    }

    /// Ends the archive with the digests and hands the output back.
    pub fn finish(mut self) -> io::Result<W> {
        let sums = std::mem::take(&mut self.sums);
        self.append(&Member::Digests.name(), sums.as_bytes())?;
        self.tar.into_inner()
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut header = tar::Header::new_ustar();
        header.set_path(format!("{}/{name}", self.job))?;
        header.set_entry_type(tar::EntryType::Regular);
        header.set_size(bytes.len() as u64);
        header.set_mode(0o600);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(self.seconds);
        header.set_cksum();
        self.tar.append(&header, bytes)
    }
}
