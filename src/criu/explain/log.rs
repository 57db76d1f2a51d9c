//! CRIU's logs: where they are, which lines matter.

use super::super::options::{DUMP_LOG, OUTPUT, RESTORE_LOG};
use super::Operation;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// How much of a log is read: its end. A log at full verbosity may have hundreds of megabytes, and
/// the errors are at the end.
const MOST: u64 = 1 << 20;

/// Errors that CRIU logs and overcomes.
const HARMLESS: [&str; 2] = ["tun: Unable to create tun", "Dumping FAILED"];

pub(super) fn file_name(operation: Operation) -> &'static str {
    match operation {
        Operation::Dump => DUMP_LOG,
        Operation::Restore => RESTORE_LOG,
    }
}

/// The end of the operation's log, and what CRIU printed before it had one. At most 2 MiB. What
/// cannot be read is left out.
pub fn read_log(images: &Path, operation: Operation) -> String {
    let log = tail(&images.join(file_name(operation))).unwrap_or_default();
    let output = tail(&images.join(OUTPUT)).unwrap_or_default();
    format!("{log}\n{output}")
}

fn tail(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(MOST)))?;
    let mut bytes = Vec::new();
    file.take(MOST).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Whether a line reports an error. Some of CRIU's first complaints carry no such mark.
pub(super) fn is_error(line: &str) -> bool {
    line.contains("Error (")
        || line.contains("CRIU needs to have")
        || line.contains("error while loading shared libraries")
}

pub(super) fn is_harmless(line: &str) -> bool {
    HARMLESS.iter().any(|harmless| line.contains(harmless)) || line.contains("Restoring FAILED")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_of_a_long_log_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = "(00.1) a step\n".repeat(200_000);
        log.push_str("(09.9) Error (criu/x.c:1): the end\n");
        std::fs::write(dir.path().join(DUMP_LOG), &log).unwrap();
        std::fs::write(dir.path().join(OUTPUT), "Error (criu/config.c:1068): printed").unwrap();
        let read = read_log(dir.path(), Operation::Dump);
        assert!(read.len() as u64 <= 2 * MOST + 1);
        assert!(read.contains("the end") && read.contains("printed"));
    }

    #[test]
    fn a_missing_log_is_no_error() {
        assert!(read_log(Path::new("/nonexistent"), Operation::Restore).trim().is_empty());
    }
}
