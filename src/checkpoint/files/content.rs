//! Where the contents of files go to and come from: the repository, as far as this room knows it.

use std::fs::File;
use std::io;

/// Takes contents into a checkpoint.
pub trait FileSink {
    /// Stores what `file` gives when read to its end, as the image `name`, deduplicated like
    /// memory. Returns how many bytes that were. `file` may be a pipe.
    fn store(&self, name: &str, file: &File) -> io::Result<u64>;
    /// Stores a small document.
    fn store_bytes(&self, name: &str, bytes: &[u8]) -> io::Result<()>;
}

/// Gives contents back. Everything it gives was covered by a digest that matched.
pub trait FileSource {
    /// Writes the image `name` to `into`, which may be a pipe, from its current position on.
    fn fetch(&self, name: &str, into: &mut File) -> io::Result<()>;
    /// A small document; longer than `limit` bytes is an error, a missing one `NotFound`.
    fn fetch_bytes(&self, name: &str, limit: u64) -> io::Result<Vec<u8>>;
}
