//! Where a sparse file has data and where holes.

use super::catalogue::MOST_EXTENTS;
use rustix::fs::{SeekFrom, seek};
use std::fs::File;
use std::io;

/// The data of a file of this size, as `(offset, length)`. `allocated` bytes on disk for `size`
/// bytes of file mean that there is no hole; then nothing is asked. A file in a very great many
/// pieces, or on a file system that cannot tell, is all data.
pub fn data_extents(file: &File, size: u64, allocated: u64) -> Vec<(u64, u64)> {
    if size == 0 {
        return Vec::new();
    }
    let whole = vec![(0, size)];
    if allocated >= size { whole } else { sparse(file, size).ok().filter(|e| e.len() <= MOST_EXTENTS).unwrap_or(whole) }
}

fn sparse(file: &File, size: u64) -> io::Result<Vec<(u64, u64)>> {
    let mut extents = Vec::new();
    let mut at = 0;
    while at < size && extents.len() <= MOST_EXTENTS {
        let data = match seek(file, SeekFrom::Data(at)) {
            Ok(data) => data.min(size),
            // No data after this: the rest is a hole.
            Err(rustix::io::Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let end = seek(file, SeekFrom::Hole(data))?.min(size);
        if end <= data {
            break;
        }
        extents.push((data, end - data));
        at = end;
    }
    Ok(extents)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{FileExt, MetadataExt};

    #[test]
    fn finds_data_between_holes() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(10 << 20).unwrap();
        file.write_at(&[1; 4096], 1 << 20).unwrap();
        file.write_at(&[2; 8192], 5 << 20).unwrap();
        let meta = file.metadata().unwrap();
        let extents = data_extents(&file, meta.len(), meta.blocks() * 512);
        assert_eq!(extents, [(1 << 20, 4096), (5 << 20, 8192)]);
    }

    #[test]
    fn a_hole_only_and_nothing_at_all() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(data_extents(&file, 0, 0), []);
        file.set_len(12345).unwrap();
        assert_eq!(data_extents(&file, 12345, 0), []);
        file.write_at(b"x", 12344).unwrap();
        let extents = data_extents(&file, 12345, 4096);
        assert_eq!(extents, [(12288, 57)], "the last piece ends with the file");
    }
}
