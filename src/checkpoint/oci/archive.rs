//! The outer tar. A blob is named by its digest and preceded by its length, neither of which is known before it
//! was written: so its header is written last, into the place that was left for it.

use super::document::{Blob, Kind};
use ring::digest::{Context, SHA256};
use std::io::{self, Seek, SeekFrom, Write};
use std::time::SystemTime;

/// The unit of a tar.
const RECORD: usize = 512;

/// An archive that is being written.
pub(super) struct Archive<'a, W: Write + Seek> {
    out: &'a mut W,
    seconds: u64,
}

impl<'a, W: Write + Seek> Archive<'a, W> {
    pub fn new(out: &'a mut W, created: SystemTime) -> Self {
        let seconds = created.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        Self { out, seconds }
    }

    /// A file whose content is known.
    pub fn add(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        self.out.write_all(header(name, content.len() as u64, self.seconds)?.as_bytes())?;
        self.out.write_all(content)?;
        self.pad(content.len() as u64)
    }

    /// A blob, as it is written by `content`.
    pub fn add_blob<E: From<io::Error>>(
        &mut self,
        kind: Kind,
        content: impl FnOnce(&mut Hashing<&mut W>) -> Result<(), E>,
    ) -> Result<Blob, E> {
        let place = self.out.stream_position()?;
        self.out.write_all(&[0; RECORD])?;
        let mut hashing = Hashing::new(&mut *self.out);
        content(&mut hashing)?;
        let (sha256, length) = hashing.finish();
        self.pad(length)?;
        let end = self.out.stream_position()?;
        self.out.seek(SeekFrom::Start(place))?;
        self.out.write_all(header(&format!("blobs/sha256/{sha256}"), length, self.seconds)?.as_bytes())?;
        self.out.seek(SeekFrom::Start(end))?;
        Ok(Blob { kind, sha256, length })
    }

    /// The end of a tar: two empty records.
    pub fn finish(self) -> io::Result<()> {
        self.out.write_all(&[0; 2 * RECORD])?;
        self.out.flush()
    }

    fn pad(&mut self, length: u64) -> io::Result<()> {
        let missing = usize::try_from(length.wrapping_neg() % RECORD as u64).unwrap_or(0);
        self.out.write_all(&[0; RECORD][..missing])
    }
}

/// A regular file, readable by its owner alone. Lengths from 8 GiB on are written as GNU tar and Go's do.
pub(super) fn header(path: &str, length: u64, seconds: u64) -> io::Result<tar::Header> {
    let mut header = tar::Header::new_gnu();
    header.set_path(path)?;
    header.set_size(length);
    header.set_mode(0o600);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(seconds);
    header.set_entry_type(tar::EntryType::Regular);
    header.set_cksum();
    Ok(header)
}

/// Passes bytes on and digests them.
pub(super) struct Hashing<W: Write> {
    out: W,
    digest: Context,
    length: u64,
}

impl<W: Write> Hashing<W> {
    pub fn new(out: W) -> Self {
        Self { out, digest: Context::new(&SHA256), length: 0 }
    }

    /// SHA-256 in hexadecimal, and the length.
    pub fn finish(self) -> (String, u64) {
        (hex::encode(self.digest.finish()), self.length)
    }

    pub fn into_parts(self) -> (W, String) {
        (self.out, hex::encode(self.digest.finish()))
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.digest.update(&bytes[..written]);
        self.length += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::digest::digest;
    use std::io::{Cursor, Read};

    #[test]
    fn a_blob_has_the_name_that_only_its_end_tells() {
        let mut out = Cursor::new(Vec::new());
        let mut archive = Archive::new(&mut out, SystemTime::UNIX_EPOCH);
        archive.add("oci-layout", b"{}").unwrap();
        let content = vec![7; 1000];
        let blob =
            archive.add_blob(Kind::Layer, |out| content.chunks(300).try_for_each(|part| out.write_all(part))).unwrap();
        archive.add("index.json", b"[]").unwrap();
        archive.finish().unwrap();
        assert_eq!(blob.sha256, hex::encode(digest(&SHA256, &content)));
        let mut members = Vec::new();
        for entry in tar::Archive::new(Cursor::new(out.into_inner())).entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            members.push((entry.path().unwrap().display().to_string(), bytes));
        }
        let named = |name: &str, bytes: &[u8]| (name.to_owned(), bytes.to_vec());
        let blob = format!("blobs/sha256/{}", blob.sha256);
        assert_eq!(members, [named("oci-layout", b"{}"), named(&blob, &content), named("index.json", b"[]")]);
    }

    #[test]
    fn a_layer_may_be_longer_than_eight_gib() {
        for length in [0, 8 << 30, 3 << 40] {
            assert_eq!(header("blobs/sha256/x", length, 5).unwrap().entry_size().unwrap(), length);
        }
    }
}
