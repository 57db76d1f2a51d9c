//! CRIU's options that depend on what the workload holds: chosen by looking, not by asking the user.

use super::protocol::Tcp;
use crate::workload::resources::{Holdings, Object, WatchedPaths};
use std::path::PathBuf;

/// Deleted files up to this many bytes need no thought: CRIU's own default is 1 MiB.
const GHOST_LIMIT_AT_LEAST: u64 = 64 << 20;

/// What one dump needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needs {
    /// The largest deleted file that is carried, in bytes.
    pub ghost_limit: u64,
    /// Directories in which CRIU looks for what inotify watches.
    pub watched: Vec<PathBuf>,
    /// Established TCP connections go on. Both sides must be told.
    pub keeps_tcp: bool,
    /// Processes of several users or groups, whose limits the kernel does not tell CRIU.
    pub several_users: bool,
}

impl Default for Needs {
    fn default() -> Self {
        Self { ghost_limit: 1 << 30, watched: Vec::new(), keeps_tcp: false, several_users: false }
    }
}

impl Needs {
    /// Of these processes. `most`: the largest deleted file that the user lets travel.
    pub fn of(holdings: &Holdings, watched: &WatchedPaths, most: u64, keeps_tcp: bool) -> Self {
        let descriptors = holdings.holders.iter().flat_map(|holder| &holder.descriptors);
        let largest = descriptors.filter_map(|descriptor| match descriptor.object {
            Object::Nameless { size, links: 0, .. } => Some(size),
            _ => None,
        });
        // It may still grow until it is frozen.
        let ghost = largest.max().map_or(0, |size| size.saturating_add(size / 4));
        Self {
            ghost_limit: ghost.max(GHOST_LIMIT_AT_LEAST).min(most.max(GHOST_LIMIT_AT_LEAST)),
            watched: watched.found.iter().cloned().collect(),
            keeps_tcp,
            several_users: holdings.holders.iter().any(|holder| holder.mixed)
                || holdings.holders.windows(2).any(|pair| (pair[0].uid, pair[0].gid) != (pair[1].uid, pair[1].gid)),
        }
    }
}

/// Whether TCP connections are kept: where asked, or, if it is left to us, where both ends of all of them are inside
/// the job (no address can have changed, no peer can be surprised) and the kernel lets us (`NET_ADMIN`).
pub fn keeps_tcp(asked: Tcp, holdings: &Holdings, net_admin: bool) -> bool {
    match asked {
        Tcp::Close => false,
        Tcp::Keep => true,
        Tcp::Auto => net_admin && holdings.has_tcp() && holdings.tcp_to_outside().is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::resources::{Descriptor, Endpoint, Holder};

    fn holding(objects: Vec<Object>) -> Holdings {
        let descriptors = objects
            .into_iter()
            .map(|object| Descriptor { number: 3, link: String::new(), object, watches: Vec::new() })
            .collect();
        Holdings { holders: vec![Holder { descriptors, ..Holder::default() }], ..Holdings::default() }
    }

    #[test]
    fn the_limit_follows_the_largest_deleted_file_up_to_what_the_user_lets() {
        let limit = |size, most| {
            let holdings = holding(vec![
                Object::Nameless { size, links: 0, overlay: true },
                Object::Nameless { size: 1 << 50, links: 1, overlay: true },
            ]);
            Needs::of(&holdings, &WatchedPaths::default(), most, false).ghost_limit
        };
        assert_eq!(limit(1 << 20, 1 << 34), 64 << 20);
        assert_eq!(limit(4 << 30, 1 << 34), 5 << 30);
        assert_eq!(limit(4 << 30, 1 << 30), 1 << 30);
        assert_eq!(limit(4 << 30, 0), 64 << 20);
    }

    #[test]
    fn connections_inside_the_job_are_kept_where_that_is_allowed() {
        let socket = |inode| Object::Socket { inode, protocol: "TCP".into() };
        let mut holdings = holding(vec![socket(1), socket(2)]);
        assert!(!keeps_tcp(Tcp::Auto, &holdings, true), "there is nothing to keep");
        let (here, there) = ("0100007F:1000".to_owned(), "0100007F:2000".to_owned());
        holdings.sockets.tcp.insert(1, Endpoint { local: here.clone(), remote: there.clone() });
        assert!(!keeps_tcp(Tcp::Auto, &holdings, true), "its other end is outside");
        assert!(keeps_tcp(Tcp::Keep, &holdings, true));
        holdings.sockets.tcp.insert(2, Endpoint { local: there, remote: here });
        assert!(keeps_tcp(Tcp::Auto, &holdings, true));
        assert!(!keeps_tcp(Tcp::Auto, &holdings, false));
        assert!(!keeps_tcp(Tcp::Close, &holdings, true));
    }
}
