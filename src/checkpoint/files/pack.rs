//! Contents of many files as few images: a large file is an image of its own, small ones follow
//! each other in shared images, each at a page boundary, so that equal files deduplicate.

use super::catalogue::{ALIGNMENT, Content, Data};
use super::content::{FileSink, FileSource};
use super::extents::data_extents;
use super::path::RelPath;
use super::rooted::Root;
use super::status::Status;
use rustix::fs::fstat;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::thread;

/// From this size on a file is an image of its own.
const LARGE: u64 = 4 << 20;
/// About how long a shared image grows.
const SHARED: u64 = 64 << 20;
/// Bytes asked for in a pipe; the kernel's default limit for unprivileged users.
const PIPE_BYTES: usize = 1 << 20;

/// A file and its data, or why it could not be read.
pub type Packed = io::Result<Data>;

/// Stores contents and remembers under which names.
pub struct Packer<'a> {
    root: &'a Root,
    sink: &'a dyn FileSink,
    /// The images so far.
    pub contents: Vec<Content>,
}

impl<'a> Packer<'a> {
    /// A packer that has stored nothing yet.
    pub fn new(root: &'a Root, sink: &'a dyn FileSink) -> Self {
        Self { root, sink, contents: Vec::new() }
    }

    /// Stores regular files; one answer for each, in the same order. An error of the sink ends it.
    pub fn store(&mut self, files: &[(RelPath, Status)]) -> io::Result<Vec<Packed>> {
        let mut packed: Vec<Packed> = files.iter().map(|_| Ok(Data::default())).collect();
        let mut shared = Vec::new();
        let mut waiting = 0;
        for (index, (path, status)) in files.iter().enumerate() {
            if status.size >= LARGE {
                packed[index] = self.store_large(path)?;
                continue;
            }
            if status.size > 0 {
                shared.push(index);
                waiting += status.size.min(status.allocated.max(1)).next_multiple_of(ALIGNMENT);
            }
            if waiting >= SHARED {
                self.store_shared(files, &std::mem::take(&mut shared), &mut packed)?;
                waiting = 0;
            }
        }
        self.store_shared(files, &shared, &mut packed)?;
        Ok(packed)
    }

    fn next_name(&self) -> (String, u32) {
        let index = self.contents.len();
        (format!("revenant-file-{:06}", index + 1), u32::try_from(index).unwrap_or(u32::MAX))
    }

    fn store_large(&mut self, path: &RelPath) -> io::Result<Packed> {
        let file = match self.root.read(path) {
            Ok(file) => file,
            Err(error) => return Ok(Err(error)),
        };
        let status = Status::from(fstat(&file)?);
        let extents = data_extents(&file, status.size, status.allocated);
        let (name, content) = self.next_name();
        if extents == [(0, status.size)] {
            (&file).rewind()?;
            let bytes = self.sink.store(&name, &file)?;
            self.contents.push(Content { name, bytes });
            // What was stored counts, should the file have changed meanwhile.
            return Ok(Ok(Data {
                size: bytes,
                content,
                at: 0,
                extents: (0..bytes.min(1)).map(|_| (0, bytes)).collect(),
            }));
        }
        let data = Data { size: status.size, content, at: 0, extents };
        let (bytes, outcome) = self.through_pipe(&name, |pipe| feed_one(&file, &data, pipe))?;
        self.contents.push(Content { name, bytes });
        Ok(outcome.map(|()| data))
    }

    fn store_shared(&mut self, files: &[(RelPath, Status)], which: &[usize], packed: &mut [Packed]) -> io::Result<()> {
        if which.is_empty() {
            return Ok(());
        }
        let (name, content) = self.next_name();
        let root = self.root;
        let (bytes, fed) = self.through_pipe(&name, |pipe| -> io::Result<Vec<Packed>> {
            let mut at = 0;
            let mut answers = Vec::with_capacity(which.len());
            for index in which {
                let (answer, used) = feed_small(root, &files[*index].0, content, at, pipe)?;
                answers.push(answer);
                at += used;
            }
            Ok(answers)
        })?;
        for (index, answer) in which.iter().zip(fed?) {
            packed[*index] = answer;
        }
        self.contents.push(Content { name, bytes });
        Ok(())
    }

    /// Runs `feed` in a thread of its own while the sink reads the other end.
    fn through_pipe<T: Send>(&self, name: &str, feed: impl FnOnce(&mut File) -> T + Send) -> io::Result<(u64, T)> {
        let (reader, mut writer) = pipe()?;
        thread::scope(|scope| {
            let feeder = scope.spawn(move || feed(&mut writer));
            let stored = self.sink.store(name, &reader);
            // A feeder that still writes ends with EPIPE.
            drop(reader);
            let outcome = feeder.join().map_err(|_| io::Error::other("the thread that reads files has crashed"))?;
            Ok((stored?, outcome))
        })
    }
}

/// A pipe as large as the kernel gives.
fn pipe() -> io::Result<(File, File)> {
    let (reader, writer) = io::pipe()?;
    // A small pipe is slower, not wrong.
    let _ = rustix::pipe::fcntl_setpipe_size(&writer, PIPE_BYTES);
    Ok((File::from(OwnedFd::from(reader)), File::from(OwnedFd::from(writer))))
}

/// Feeds a small file and zeros up to the next boundary; says how long both are. The outer error
/// is the pipe's.
fn feed_small(root: &Root, path: &RelPath, content: u32, at: u64, pipe: &mut File) -> io::Result<(Packed, u64)> {
    let opened = root.read(path).and_then(|file| Ok((Status::from(fstat(&file)?), file)));
    let (status, file) = match opened {
        Ok(opened) => opened,
        Err(error) => return Ok((Err(error), 0)),
    };
    let data = Data { size: status.size, content, at, extents: data_extents(&file, status.size, status.allocated) };
    feed_one(&file, &data, pipe)?;
    let used = data.bytes().next_multiple_of(ALIGNMENT);
    io::copy(&mut io::repeat(0).take(used - data.bytes()), pipe)?;
    Ok((Ok(data), used))
}

/// Feeds exactly the data of a file. Where the file has become shorter, zeros.
fn feed_one(file: &File, data: &Data, pipe: &mut File) -> io::Result<()> {
    for (offset, length) in &data.extents {
        let mut file = file;
        file.seek(io::SeekFrom::Start(*offset))?;
        let fed = io::copy(&mut file.take(*length), pipe)?;
        io::copy(&mut io::repeat(0).take(length - fed), pipe)?;
    }
    Ok(())
}

/// Gives one image back: `targets` are the files in it, by where they start; `create` opens each,
/// empty, when its turn comes, and `finish` gets it filled.
pub fn unpack<F: FnMut(usize) -> io::Result<File> + Send, G: FnMut(usize, File) -> io::Result<()> + Send>(
    source: &dyn FileSource,
    content: &Content,
    targets: &[(usize, &Data)],
    mut create: F,
    mut finish: G,
) -> io::Result<()> {
    if let [(index, data)] = targets
        && data.extents == [(0, content.bytes)]
    {
        let mut file = create(*index)?;
        source.fetch(&content.name, &mut file)?;
        if file.metadata()?.len() != content.bytes {
            return Err(short(content));
        }
        return finish(*index, file);
    }
    let (mut reader, mut writer) = pipe()?;
    thread::scope(|scope| {
        let sorter = scope.spawn(move || -> io::Result<()> {
            let mut position = 0;
            let mut buffer = vec![0; PIPE_BYTES];
            for (index, data) in targets {
                let gap = data.at.checked_sub(position).ok_or_else(|| short(content))?;
                if io::copy(&mut (&mut reader).take(gap), &mut io::sink())? < gap {
                    return Err(short(content));
                }
                let file = create(*index)?;
                file.set_len(data.size)?;
                for (offset, length) in &data.extents {
                    pour(&mut reader, &file, *offset, *length, &mut buffer)?;
                }
                position = data.at + data.bytes();
                finish(*index, file)?;
            }
            // To the end, so that the source does not see a broken pipe.
            io::copy(&mut reader, &mut io::sink()).map(drop)
        });
        let fetched = source.fetch(&content.name, &mut writer);
        drop(writer);
        // A sorter that stopped early is the cause of the source's broken pipe.
        sorter.join().map_err(|_| io::Error::other("the thread that writes files has crashed"))??;
        fetched
    })
}

/// Writes the next `length` bytes of the pipe at `offset`.
fn pour(pipe: &mut File, file: &File, offset: u64, length: u64, buffer: &mut [u8]) -> io::Result<()> {
    let mut done = 0;
    while done < length {
        let most = usize::try_from(length - done).unwrap_or(buffer.len()).min(buffer.len());
        let got = pipe.read(&mut buffer[..most])?;
        if got == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        file.write_all_at(&buffer[..got], offset + done)?;
        done += got as u64;
    }
    Ok(())
}

fn short(content: &Content) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{} is not as long as its catalogue says", content.name))
}
