//! Options of `revenant run` about how saves go about it.

use crate::checkpoint::protocol::{ChunkSizes, Tcp, Tuning};
use crate::repository::codec::Compression;
use clap::Args;
use std::path::{Path, PathBuf};

/// How saves go about it.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Speed and space")]
pub struct TuningOptions {
    /// How new data is compressed: auto, none, lz4, zstd or zstd:N
    #[arg(long, env = "REVENANT_COMPRESSION", value_name = "METHOD", default_value = "auto")]
    #[arg(value_parser = compression)]
    compression: String,
    /// Where data waits for a slow store once memory is full, so that the workload need not
    #[arg(long, env = "REVENANT_SPOOL", value_name = "DIR")]
    spool: Option<PathBuf>,
    /// The most that waits there, for example 20GiB
    #[arg(long, env = "REVENANT_SPOOL_LIMIT", value_name = "SIZE", value_parser = size, requires = "spool")]
    spool_limit: Option<u64>,
    /// Write to the store no faster than this each second, for example 100MiB
    #[arg(long, env = "REVENANT_UPLOAD_LIMIT", value_name = "SIZE", value_parser = size)]
    upload_limit: Option<u64>,
    /// Read memory ahead while the workload runs, so that it is frozen for a shorter time [default: where there is no hurry]
    #[arg(long, env = "REVENANT_PRE_COPY", value_name = "BOOL")]
    pre_copy: Option<bool>,
    /// Average length of the pieces in which memory is stored [default: 32KiB, more for jobs of 32 GiB and above]. Settled
    /// when a job first runs
    #[arg(long, env = "REVENANT_CHUNK_SIZE", value_name = "SIZE", value_parser = size)]
    chunk_size: Option<u64>,
    /// The longest such piece [default: four times the average]
    #[arg(long, env = "REVENANT_CHUNK_MAX", value_name = "SIZE", value_parser = size)]
    chunk_max: Option<u64>,
    /// What becomes of TCP connections
    #[arg(long, env = "REVENANT_TCP", value_enum, default_value = "auto", help_heading = "Surroundings")]
    tcp: Tcp,
}

impl TuningOptions {
    /// For a job that is new.
    pub fn chunk_sizes(&self) -> ChunkSizes {
        ChunkSizes { average: self.chunk_size, longest: self.chunk_max }
    }

    /// Where data waits for a slow store.
    pub fn spool(&self) -> Option<&Path> {
        self.spool.as_deref()
    }

    /// For the engine.
    pub fn tuning(self) -> Tuning {
        Tuning {
            compression: self.compression,
            spool: self.spool,
            spool_limit: self.spool_limit,
            upload_limit: self.upload_limit,
            pre_copy: self.pre_copy,
            tcp: self.tcp,
            memory_limit: None,
        }
    }
}

fn compression(text: &str) -> Result<String, String> {
    text.parse::<Compression>().map(|_| text.to_owned()).map_err(|error| error.to_string())
}

/// `500MiB`, `2GB`, `1.5 TiB`, or a number of bytes.
pub fn size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1_000,
        "ki" | "kib" => 1 << 10,
        "m" | "mb" => 1_000_000,
        "mi" | "mib" => 1 << 20,
        "g" | "gb" => 1_000_000_000,
        "gi" | "gib" => 1 << 30,
        "t" | "tb" => 1_000_000_000_000,
        "ti" | "tib" => 1 << 40,
        _ => return Err(format!("{unit:?} is no unit of size; write for example 500MiB or 20GiB")),
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let refuse = || format!("{text:?} is no size; write for example 500MiB or 20GiB");
    let whole: u64 = if whole.is_empty() && !part.is_empty() { 0 } else { whole.parse().map_err(|_| refuse())? };
    let part = part.get(..part.len().min(6)).unwrap_or("");
    let scale = 10_u64.pow(u32::try_from(part.len()).unwrap_or(0));
    let part: u64 = if part.is_empty() { 0 } else { part.parse().map_err(|_| refuse())? };
    whole
        .checked_mul(factor)
        .and_then(|bytes| {
            bytes.checked_add((u128::from(part) * u128::from(factor) / u128::from(scale)).try_into().ok()?)
        })
        .ok_or_else(refuse)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        assert_eq!(size("4096"), Ok(4096));
        assert_eq!(size("500MiB"), Ok(500 << 20));
        assert_eq!(size("1.5 GiB"), Ok(3 << 29));
        assert_eq!(size("2GB"), Ok(2_000_000_000));
        for bad in ["", "GiB", "5 parsecs", "-1", "99999999TiB"] {
            assert!(size(bad).is_err(), "{bad:?} was accepted");
        }
    }
}
