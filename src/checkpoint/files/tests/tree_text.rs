//! A directory tree as text, complete enough that equal texts mean equal trees.

use super::super::extents::data_extents;
use super::super::path::RelPath;
use super::super::rooted::Root;
use super::super::status::Status;
use super::super::xattrs;
use rustix::fs::FileType;
use std::collections::{BTreeMap, HashMap};
use std::io::Read;

/// One line for each path: kind, mode, owner, size, time, holes, links, attributes, content.
pub fn tree_text(root: &Root, skip: &[&str]) -> String {
    let mut found = BTreeMap::new();
    let mut pending = vec![RelPath::root()];
    while let Some(directory) = pending.pop() {
        for (name, status) in root.entries(&directory).unwrap() {
            let path = directory.join(&name).unwrap();
            if skip.iter().any(|skipped| path.to_string() == **skipped) {
                continue;
            }
            if status.kind == FileType::Directory {
                pending.push(path.clone());
            }
            found.insert(path, status);
        }
    }
    let mut names: HashMap<(u64, u64), RelPath> = HashMap::new();
    let lines = found.iter().map(|(path, status)| {
        let first = names.entry(status.identity).or_insert_with(|| path.clone()).clone();
        line(root, path, status, &first)
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn line(root: &Root, path: &RelPath, status: &Status, first: &RelPath) -> String {
    let detail = match status.kind {
        FileType::RegularFile => {
            let mut file = root.read(path).unwrap();
            let mut content = Vec::new();
            file.read_to_end(&mut content).unwrap();
            let holes = data_extents(&file, status.size, status.allocated);
            format!(
                "{} {holes:?} {} {:?} {}",
                status.size,
                status.links,
                xattrs::read(&file).unwrap(),
                blake3::hash(&content).to_hex()
            )
        }
        FileType::Symlink => format!("{:?}", root.link_target(path).unwrap()),
        FileType::Directory => format!("{:?}", xattrs::read(root.directory(path).unwrap()).unwrap()),
        _ => String::new(),
    };
    let time = (status.modified.0, status.modified.1);
    format!("{path} {:?} {:o} {}:{} {time:?} ={first} {detail}", status.kind, status.mode, status.uid, status.gid)
}
