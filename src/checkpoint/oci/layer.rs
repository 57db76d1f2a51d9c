//! The layer: every image of a generation as a file below `checkpoint/`, compressed on its way.

use super::OciError;
use super::archive::{Hashing, header};
use crate::criu::images;
use crate::repository::read::Opened;
use nix::fcntl::{FcntlArg, fcntl};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::time::SystemTime;

/// Where the images are in the layer.
const DIRECTORY: &str = "checkpoint";
/// What is known of them, beside them.
const FACTS: &str = "revenant-checkpoint.json";
/// CRIU's table of open files, which is corrected as on the way to a restore, and the most that is kept in memory of it.
const FILES_IMAGE: (&str, u64) = ("files.img", 64 << 20);
/// The fastest of zstd's usual levels: what is written was decompressed a moment before.
const LEVEL: i32 = 1;
/// As large as the kernel grants without a privilege.
const PIPE: i32 = 1 << 20;

/// A layer that was written.
pub(super) struct Layer {
    /// SHA-256 of the tar before compression, in hexadecimal.
    pub plain_digest: String,
    /// How many images it holds.
    pub images: u64,
}

/// Writes the layer. `progress` is told bytes of images done.
pub(super) fn write(
    opened: &Opened,
    created: SystemTime,
    facts: &[u8],
    out: impl Write,
    mut progress: impl FnMut(u64),
) -> Result<Layer, OciError> {
    let seconds = created.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let zstd = zstd::stream::write::Encoder::new(out, LEVEL)?;
    let mut tar = tar::Builder::new(Hashing::new(zstd));
    tar.append(&directory(seconds)?, std::io::empty())?;
    tar.append(&header(&format!("{DIRECTORY}/{FACTS}"), facts.len() as u64, seconds)?, facts)?;
    let (mut images, mut done) = (0, 0);
    for (name, length) in opened.images() {
        if name.contains('/') || name.starts_with('.') || name == FACTS {
            return Err(OciError::Name(name.to_owned()));
        }
        let header = header(&format!("{DIRECTORY}/{name}"), length, seconds)?;
        if name == FILES_IMAGE.0 && length <= FILES_IMAGE.1 {
            let mut bytes = opened.read(name, length)?;
            images::ring_overdue(&mut bytes);
            tar.append(&header, bytes.as_slice())?;
        } else {
            append(&mut tar, &header, opened, name, length)?;
        }
        (images, done) = (images + 1, done + length);
        progress(done);
    }
    let (zstd, plain_digest) = tar.into_inner()?.into_parts();
    zstd.finish()?;
    Ok(Layer { plain_digest, images })
}

/// An image of any size, through a pipe: the repository reads ahead while this end compresses.
fn append<W: Write>(
    tar: &mut tar::Builder<W>,
    header: &tar::Header,
    opened: &Opened,
    name: &str,
    length: u64,
) -> Result<(), OciError> {
    let (reader, writer) = std::io::pipe()?;
    // A smaller pipe is only slower.
    let _ = fcntl(&writer, FcntlArg::F_SETPIPE_SZ(PIPE));
    std::thread::scope(|scope| {
        let sending = scope.spawn(move || opened.send(name, writer.as_fd()));
        // This drops the reading end, so the sender ends whatever happens here.
        let appended = tar.append(header, reader.take(length));
        let sent = sending.join().map_err(|_| OciError::Aborted)?;
        appended?;
        if sent? == length { Ok(()) } else { Err(OciError::Aborted) }
    })
}

fn directory(seconds: u64) -> std::io::Result<tar::Header> {
    let mut header = header(&format!("{DIRECTORY}/"), 0, seconds)?;
    header.set_entry_type(tar::EntryType::Directory);
    header.set_mode(0o700);
    header.set_cksum();
    Ok(header)
}
