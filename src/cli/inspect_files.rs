//! `revenant inspect --files`: the files that a generation carries or has recorded.

use crate::checkpoint::files::{Catalogue, Kind};
use crate::supervisor::words;
use std::fmt::Write;

/// One line a path: what it is, mode, owner, size, name.
pub fn page(catalogue: &Catalogue) -> String {
    let mut page = String::new();
    let bytes: u64 = catalogue.contents.iter().map(|content| content.bytes).sum();
    let _ = writeln!(page, "container layer: {} paths, {} of content", catalogue.entries.len(), words::bytes(bytes));
    for entry in &catalogue.entries {
        let (letter, size, arrow) = match &entry.kind {
            Kind::File(data) => ('-', data.size.to_string(), String::new()),
            Kind::HardLink { to } => ('h', String::new(), format!(" = {to}")),
            Kind::Directory => ('d', String::new(), String::new()),
            Kind::Symlink { target } => ('l', String::new(), format!(" -> {target}")),
            Kind::Fifo => ('p', String::new(), String::new()),
            Kind::Socket => ('s', String::new(), String::new()),
        };
        let _ = writeln!(
            page,
            "  {letter}{:04o} {:>5} {:>5} {size:>12} {}{arrow}",
            entry.mode, entry.uid, entry.gid, entry.path
        );
    }
    let _ = writeln!(page, "deleted from the image: {}", catalogue.deleted.len());
    for path in &catalogue.deleted {
        let _ = writeln!(page, "  {path}");
    }
    let _ = writeln!(page, "on volumes: {}", catalogue.volumes.len());
    for file in &catalogue.volumes {
        let copy = if file.copy.is_some() { "with a copy" } else { "recorded" };
        let _ = writeln!(page, "  {:>12} {} ({copy})", file.size, file.path);
    }
    let _ = writeln!(page, "needed and not carried (programs, libraries, inputs): {}", catalogue.mapped.len());
    for file in &catalogue.mapped {
        let _ = writeln!(page, "  {:>12} {}", file.size, file.path);
    }
    page
}
