//! Reads an archive that anybody may have made. Names are compared with what can be there, lengths
//! are checked before anything is read, and memory grows only with bytes that really came.

use super::MOST_MEMBERS;
use super::error::ArchiveError;
use super::member::Member;
use crate::job::JobName;
use ring::digest::{SHA256, digest};
use std::collections::BTreeMap;
use std::io::Read;

/// The first allocation for a member; it grows as bytes come.
const FIRST: u64 = 1 << 20;

/// Hands every member but the digests to `each`, in order, until it says that nobody listens. Returns
/// whether the archive was read to its end; then every member's digest matched.
pub(super) fn read(source: impl Read, mut each: impl FnMut(Member, Vec<u8>) -> bool) -> Result<bool, ArchiveError> {
    let mut archive = tar::Archive::new(source);
    let mut seen: BTreeMap<Member, [u8; 32]> = BTreeMap::new();
    let mut job: Option<JobName> = None;
    let mut complete = false;
    // Raw: extensions, which hold names and lengths of any size, are refused like any other foreign kind.
    for entry in archive.entries().map_err(|error| unreadable(&error, seen.is_empty()))?.raw(true) {
        let mut entry = entry.map_err(|error| unreadable(&error, seen.is_empty()))?;
        let header = entry.header();
        match header.entry_type() {
            tar::EntryType::Regular => {}
            tar::EntryType::Directory => continue,
            _ => return Err(foreign(&entry.path_bytes())),
        }
        let length = header.entry_size().map_err(|error| unreadable(&error, seen.is_empty()))?;
        let path = entry.path_bytes().into_owned();
        let (directory, member) = Member::parse_path(&path).ok_or_else(|| foreign(&path))?;
        let name = member.name();
        if *job.get_or_insert_with(|| directory.clone()) != directory {
            return Err(ArchiveError::damaged(&name, "it belongs to another job than what came before"));
        }
        if complete || seen.contains_key(&member) {
            return Err(ArchiveError::damaged(&name, "it comes twice, or after the end"));
        }
        if length > member.limit() || seen.len() >= MOST_MEMBERS {
            return Err(ArchiveError::damaged(&name, "it is longer than that can be"));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(length.min(FIRST)).unwrap_or(0));
        entry.read_to_end(&mut bytes).map_err(|error| unreadable(&error, seen.is_empty()))?;
        if bytes.len() as u64 != length {
            return Err(ArchiveError::CutOff);
        }
        if member == Member::Digests {
            check(&seen, &bytes)?;
            complete = true;
            continue;
        }
        let mut sum = [0; 32];
        sum.copy_from_slice(digest(&SHA256, &bytes).as_ref());
        seen.insert(member.clone(), sum);
        if !each(member, bytes) {
            return Ok(false);
        }
    }
    match (complete, seen.is_empty()) {
        (true, _) => Ok(true),
        (false, true) => Err(ArchiveError::Foreign("it has no member that revenant knows".to_owned())),
        (false, false) => Err(ArchiveError::CutOff),
    }
}

/// Every member has its line, and every line its member.
fn check(seen: &BTreeMap<Member, [u8; 32]>, lines: &[u8]) -> Result<(), ArchiveError> {
    let sums = Member::Digests.name();
    let text = std::str::from_utf8(lines).map_err(|error| ArchiveError::damaged(&sums, error))?;
    let mut listed: BTreeMap<&str, &str> = BTreeMap::new();
    for line in text.lines() {
        let (digest, name) =
            line.split_once("  ").ok_or_else(|| ArchiveError::damaged(&sums, "a line is no digest"))?;
        listed.insert(name, digest);
    }
    for (member, sum) in seen {
        let name = member.name();
        if listed.remove(name.as_str()) != Some(hex::encode(sum).as_str()) {
            return Err(ArchiveError::damaged(&name, "its digest does not match"));
        }
    }
    match listed.first_key_value() {
        Some((name, _)) => Err(ArchiveError::damaged(*name, "it is missing")),
        None => Ok(()),
    }
}

fn unreadable(error: &std::io::Error, at_once: bool) -> ArchiveError {
    if error.kind() == std::io::ErrorKind::UnexpectedEof {
        return ArchiveError::CutOff;
    }
    match error.raw_os_error() {
        Some(_) => ArchiveError::Source(error.to_string()),
        None if at_once => ArchiveError::Foreign(error.to_string()),
        None => ArchiveError::damaged("what comes next", error),
    }
}

fn foreign(path: &[u8]) -> ArchiveError {
    let name: String = String::from_utf8_lossy(path).chars().take(200).collect();
    ArchiveError::Foreign(format!("it has a member {name:?}"))
}
