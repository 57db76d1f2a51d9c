//! What the processes of a job hold besides memory and files, and which of it CRIU cannot carry.
//!
//! [`look`] reads `/proc` and the kernel's socket tables and stops nobody; it costs some microseconds a
//! descriptor. [`findings`] decides, without I/O. What processes do while they are looked at may be missed: a save
//! that passes this look can still fail, and then says so.

mod descriptor;
mod finding;
mod halted;
mod mapping;
mod process;
mod rules;
mod socket;
mod system_v;
mod unix_peers;
mod watched;

pub use descriptor::{Descriptor, Object};
pub use finding::{Effect, Finding};
pub use halted::Halted;
pub use process::Holder;
pub use rules::{Allowed, findings};
pub use socket::{Endpoint, Sockets};
pub use system_v::SystemV;
pub use watched::WatchedPaths;

use super::tree;
use std::collections::HashSet;
use std::io;

/// Everything that was seen.
#[derive(Debug, Clone, Default)]
pub struct Holdings {
    /// The processes of the job.
    pub holders: Vec<Holder>,
    /// The sockets of their network.
    pub sockets: Sockets,
    /// The job has an IPC namespace that is saved with it.
    pub own_ipc: bool,
    /// System V objects of the container, if the job has none of its own.
    pub system_v: SystemV,
}

impl Holdings {
    /// Whether the job has an established TCP connection.
    pub fn has_tcp(&self) -> bool {
        self.inodes().any(|inode| self.sockets.tcp.contains_key(&inode))
    }

    /// The job's TCP connections whose other end is not the job's.
    pub fn tcp_to_outside(&self) -> Vec<&Endpoint> {
        let own: Vec<&Endpoint> = self.inodes().filter_map(|inode| self.sockets.tcp.get(&inode)).collect();
        let ends: HashSet<(&str, &str)> = own.iter().map(|end| (end.local.as_str(), end.remote.as_str())).collect();
        own.into_iter().filter(|end| !ends.contains(&(end.remote.as_str(), end.local.as_str()))).collect()
    }

    fn inodes(&self) -> impl Iterator<Item = u64> {
        let descriptors = self.holders.iter().flat_map(|holder| &holder.descriptors);
        descriptors.filter_map(|descriptor| match descriptor.object {
            Object::Socket { inode, .. } => Some(inode),
            _ => None,
        })
    }
}

/// Looks at a root and all its descendants.
pub fn look(root: i32) -> io::Result<Holdings> {
    let namespaces = process::namespaces(root);
    let processes = tree::below(root)?;
    let mut holders: Vec<Holder> = processes.iter().filter_map(|process| Holder::read(process, &namespaces)).collect();
    let halted = halted::lasting(&holders.iter().map(|holder| holder.pid).collect::<Vec<_>>());
    for holder in &mut holders {
        holder.halted = halted.get(&holder.pid).copied();
    }
    let shares_ipc = process::namespace(root, "ipc") == process::namespace_of_caller("ipc");
    let system_v = if shares_ipc { SystemV::read() } else { SystemV::default() };
    Ok(Holdings { holders, sockets: Sockets::of(root), own_ipc: !shares_ipc, system_v })
}
