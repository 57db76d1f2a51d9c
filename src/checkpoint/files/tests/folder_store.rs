//! A store in a directory, one file for each image.

use super::super::{FileSink, FileSource};
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

pub struct FolderStore(pub PathBuf);

impl FileSink for FolderStore {
    fn store(&self, name: &str, file: &File) -> io::Result<u64> {
        let mut file = file;
        io::copy(&mut file, &mut File::create(self.0.join(name))?)
    }

    fn store_bytes(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        std::fs::write(self.0.join(name), bytes)
    }
}

impl FileSource for FolderStore {
    fn fetch(&self, name: &str, into: &mut File) -> io::Result<()> {
        io::copy(&mut File::open(self.0.join(name))?, into).map(drop)
    }

    fn fetch_bytes(&self, name: &str, limit: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(self.0.join(name))?.take(limit + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > limit { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
    }
}
