//! Which of it CRIU cannot carry. Pure. Measured with CRIU 4.2.1 on Linux 6.18; see docs/fidelity.md.

use super::descriptor::{Descriptor, Object};
use super::finding::{Effect, Finding};
use super::halted::Halted;
use super::process::Holder;
use super::{Endpoint, Holdings, Sockets, WatchedPaths};
use std::collections::HashSet;

/// What revenant may do here, and what it was told; see `capabilities(7)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // They are one bit each in the kernel, too.
pub struct Allowed {
    /// `CAP_SYS_ADMIN`.
    pub sys_admin: bool,
    /// `CAP_DAC_READ_SEARCH`.
    pub dac_read_search: bool,
    /// Processes of other users than CRIU's: `CAP_SYS_RESOURCE`, or root with what it takes to be anybody (see
    /// [`crate::criu::limits`]).
    pub other_users: bool,
    /// The user that CRIU runs as.
    pub uid: u32,
    /// And its group.
    pub gid: u32,
    /// Established TCP connections are kept.
    pub keeps_tcp: bool,
    /// The user has said that they are to be closed (`--tcp close`).
    pub closes_tcp: bool,
    /// The user takes files as they come (`--files accept`).
    pub accepts_files: bool,
    /// The largest deleted file that is saved, in bytes.
    pub ghost_limit: u64,
}

/// Kernel objects without a file that CRIU carries.
const CARRIED_OBJECTS: [&str; 7] = ["bpf-map", "eventfd", "eventpoll", "inotify", "pidfd", "signalfd", "timerfd"];

/// Socket protocols that CRIU carries, as the kernel names them.
const CARRIED_PROTOCOLS: [&str; 14] = [
    "TCP",
    "TCPv6",
    "UDP",
    "UDPv6",
    "UDP-Lite",
    "UDPLITEv6",
    "RAW",
    "RAWv6",
    "PING",
    "UNIX",
    "UNIX-STREAM",
    "NETLINK",
    "PACKET",
    "",
];

/// Character devices that every container has and that hold no state: major 1 (memory), 5 (terminals), the
/// pseudo-terminals' masters and slaves, and tun (10, 200).
fn is_carried_device(block: bool, major: u64, minor: u64) -> bool {
    !block && (matches!(major, 1 | 5 | 128..=143) || (major, minor) == (10, 200))
}

/// Everything that cannot be carried, what prevents a save first.
pub fn findings(holdings: &Holdings, watched: &WatchedPaths, allowed: &Allowed) -> Vec<Finding> {
    let inside: HashSet<u64> =
        holdings.holders.iter().flat_map(|holder| &holder.descriptors).filter_map(inode).collect();
    let mut found: Vec<Finding> = holdings
        .holders
        .iter()
        .flat_map(|holder| {
            let of_descriptors = holder
                .descriptors
                .iter()
                .filter_map(|descriptor| about_descriptor(holder, descriptor, &holdings.sockets, &inside, allowed));
            about_process(holder, holdings.own_ipc, allowed).into_iter().chain(of_descriptors).collect::<Vec<_>>()
        })
        .collect();
    found.extend(about_processors(&holdings.holders));
    found.extend(about_container(holdings));
    found.extend(about_watches(holdings, watched));
    found.sort();
    found.dedup();
    found
}

fn inode(descriptor: &Descriptor) -> Option<u64> {
    match descriptor.object {
        Object::Socket { inode, .. } => Some(inode),
        _ => None,
    }
}

fn finding(holder: &Holder, descriptor: Option<i32>, effect: Effect, text: [&str; 3]) -> Finding {
    let [what, reason, remedy] = text.map(str::to_owned);
    Finding { effect, pid: Some(holder.pid), program: holder.program.clone(), descriptor, what, reason, remedy }
}

fn about_process(holder: &Holder, own_ipc: bool, allowed: &Allowed) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut prevents = |text: [&str; 3]| found.push(finding(holder, None, Effect::Prevents, text));
    if let Some(tracer) = holder.tracer {
        prevents([
            &format!("traced by process {tracer}"),
            "a process can have one tracer, and CRIU must be it",
            "end the debugger or strace",
        ]);
    }
    if holder.filtered && !allowed.sys_admin {
        prevents([
            "a seccomp filter of its own",
            "CRIU may set a filter aside only with the capability SYS_ADMIN",
            "add SYS_ADMIN, or tell the program not to sandbox itself",
        ]);
    }
    match holder.halted {
        Some(Halted::FirstThreadEnded) => prevents([
            "a process whose first thread has ended while others go on",
            "CRIU cannot save such a process",
            "let the main thread wait for the others (pthread_join) instead of ending by itself (pthread_exit)",
        ]),
        Some(Halted::Waits) => prevents([
            "a process that waits in the kernel and cannot be stopped",
            "it waits for a disk or a network file system, or for a child that has not begun its program",
            "nothing, if it goes on by itself: the next save will succeed; else look at the volumes that it uses",
        ]),
        None => {}
    }
    if (holder.uid != allowed.uid || holder.gid != allowed.gid || holder.mixed) && !allowed.other_users {
        prevents([
            &format!("it runs as user {}, group {}", holder.uid, holder.gid),
            &format!(
                "CRIU runs as user {}, group {}, and may not act for a process with others",
                allowed.uid, allowed.gid
            ),
            "run the command as root, with the capabilities SETUID, SETGID, SYS_PTRACE and DAC_OVERRIDE (not by --user); or the whole container as that user",
        ]);
    }
    if let Some(kind) = holder.foreign.iter().find(|kind| !(**kind == "net" && allowed.sys_admin)) {
        prevents([
            &format!("in a namespace of its own ({kind})"),
            "namespaces inside the job are not saved",
            "run the program without its sandbox (unshare, bubblewrap, nested containers)",
        ]);
    }
    if holder.special.system_v && !own_ipc {
        prevents([
            "System V shared memory",
            "it belongs to the container's IPC namespace, which is not saved",
            "let the job have its own: --isolate ipc, which needs SYS_ADMIN; or have the program use POSIX shared memory or mmap",
        ]);
    }
    for device in &holder.special.devices {
        prevents([
            &format!("memory of the device {device}"),
            "the state of a device cannot be saved",
            "run the part that uses the device to its end before a save, or use the program's own checkpoints",
        ]);
    }
    found
}

/// Processes that may not run wherever the job's first one may.
fn about_processors(holders: &[Holder]) -> Vec<Finding> {
    let Some(usual) = holders.first().map(|root| &root.processors) else { return Vec::new() };
    let bound = holders.iter().filter(|holder| !holder.processors.is_subset(usual));
    let told = |holder: &Holder| {
        finding(
            holder,
            None,
            Effect::Loses,
            [
                "bound to some of this machine's processors",
                "CRIU does not carry that, and another machine's are others: a restored workload may run on all that it has",
                "nothing, if it is only for speed; else bind it again in --after-restore (taskset)",
            ],
        )
    };
    bound.map(told).collect()
}

fn about_descriptor(
    holder: &Holder,
    descriptor: &Descriptor,
    sockets: &Sockets,
    inside: &HashSet<u64>,
    allowed: &Allowed,
) -> Option<Finding> {
    let about = |effect, what: &str, reason: &str, remedy: &str| {
        Some(finding(holder, Some(descriptor.number), effect, [what, reason, remedy]))
    };
    match &descriptor.object {
        Object::Anonymous(name) if !CARRIED_OBJECTS.contains(&name.as_str()) => {
            let remedy = match name.as_str() {
                "io_uring" => "tell the program to use plain I/O (UV_USE_IO_URING=0 for Node.js and libuv)",
                "userfaultfd" => "tell the program not to handle page faults itself",
                "perf_event" => "end the profiler",
                _ => "tell the program not to use it, or run that part to its end before a save",
            };
            about(
                Effect::Prevents,
                &format!("a kernel object of the kind {name}"),
                "CRIU cannot save this kind",
                remedy,
            )
        }
        Object::MessageQueue => about(
            Effect::Prevents,
            &format!("the POSIX message queue {}", descriptor.link),
            "CRIU cannot save this kind",
            "tell the program to use a pipe, a socket or shared memory",
        ),
        Object::Device { block, major, minor } if !is_carried_device(*block, *major, *minor) => about(
            Effect::Prevents,
            &format!("the device {} ({major}:{minor})", descriptor.link),
            "the state of a device cannot be saved",
            "run the part that uses the device to its end before a save, or use the program's own checkpoints",
        ),
        Object::Nameless { .. } | Object::Ordinary if descriptor.link.starts_with("/secretmem") => about(
            Effect::Prevents,
            "secret memory (memfd_secret)",
            "nobody but the process may read it",
            "tell the program not to use it",
        ),
        Object::Nameless { size, links: 0, .. } if *size > allowed.ghost_limit => about(
            Effect::Prevents,
            &format!("the deleted file {} of {size} bytes", descriptor.link),
            "deleted files travel inside the checkpoint, up to --file-limit",
            "raise --file-limit, or let the program keep its temporary files under a name on a volume (TMPDIR)",
        ),
        Object::Nameless { links: 1.., overlay: true, .. } if !allowed.dac_read_search => about(
            if allowed.accepts_files { Effect::Loses } else { Effect::Spoils },
            &format!("the file {}, which still has another name", descriptor.link),
            "it is carried as a file of its own: in a restored workload the other name leads to another file",
            "add the capability DAC_READ_SEARCH, or let the program rename files instead of linking and removing; or \
             take it as it comes (--files accept)",
        ),
        Object::Nameless { links: 1.., overlay: false, .. } if !allowed.dac_read_search => about(
            Effect::Prevents,
            &format!("the file {}, which still has another name", descriptor.link),
            "giving it a name for the time of the save needs the capability DAC_READ_SEARCH",
            "add DAC_READ_SEARCH, or let the program rename files instead of linking and removing",
        ),
        Object::Socket { inode, protocol } => about_socket(*inode, protocol, sockets, inside, allowed)
            .and_then(|(effect, what, reason, remedy)| about(effect, &what, reason, remedy)),
        _ => None,
    }
}

/// `SOCK_DGRAM`.
const DATAGRAM: u8 = 2;

fn about_socket(
    inode: u64,
    protocol: &str,
    sockets: &Sockets,
    inside: &HashSet<u64>,
    allowed: &Allowed,
) -> Option<(Effect, String, &'static str, &'static str)> {
    if !CARRIED_PROTOCOLS.contains(&protocol) {
        return Some((
            Effect::Prevents,
            format!("a socket of the kind {protocol}"),
            "CRIU cannot save this kind",
            "tell the program not to use it, or close it before a save",
        ));
    }
    if let Some(socket) = sockets.unix.as_ref().and_then(|unix| unix.get(&inode))
        && socket.peer.is_some_and(|peer| !inside.contains(&peer))
    {
        if socket.kind == DATAGRAM {
            return Some((
                Effect::Loses,
                "a Unix socket that sends datagrams to a process outside the job".to_owned(),
                "in the next container they go to whoever receives at the same path, and a restore needs somebody there",
                "nothing, if that program runs there too (a side-car with the same volume at the same place)",
            ));
        }
        return Some((
            Effect::Prevents,
            "a Unix connection to a process outside the job".to_owned(),
            "only one of its ends belongs to the workload",
            "start the other program under the same revenant, or close the connection before a save",
        ));
    }
    if let Some(ends) = sockets.tcp.get(&inode)
        && !allowed.keeps_tcp
    {
        if !allowed.closes_tcp && is_inside(ends, sockets, inside) {
            return Some((
                Effect::Spoils,
                format!("a TCP connection to {} inside the job", ends.remote_text()),
                "it would be closed in the restored workload, and who talks to itself seldom connects again",
                "add the capability NET_ADMIN, with which it goes on; or have it closed (--tcp close), if the program \
                 connects again",
            ));
        }
        return Some((
            Effect::Loses,
            format!("a TCP connection to {}", ends.remote_text()),
            "connections are closed in a restored workload, and the program sees a reset",
            "nothing, if the program connects again; else --tcp keep, which needs NET_ADMIN and the same address",
        ));
    }
    None
}

/// Whether the other end is the job's too.
fn is_inside(ends: &Endpoint, sockets: &Sockets, inside: &HashSet<u64>) -> bool {
    let is_other = |other: &Endpoint| other.local == ends.remote && other.remote == ends.local;
    sockets.tcp.iter().any(|(inode, other)| inside.contains(inode) && is_other(other))
}

/// A watch whose place is not known: CRIU would not find it either.
fn about_watches(holdings: &Holdings, watched: &WatchedPaths) -> Option<Finding> {
    if watched.lost == 0 {
        return None;
    }
    let has_watches = |holder: &&Holder| holder.descriptors.iter().any(|descriptor| !descriptor.watches.is_empty());
    let holder = holdings.holders.iter().find(has_watches)?;
    let descriptor = holder.descriptors.iter().find(|descriptor| !descriptor.watches.is_empty())?;
    Some(finding(
        holder,
        Some(descriptor.number),
        Effect::Prevents,
        [
            &format!("{} watched files or directories (inotify) that cannot be found by name", watched.lost),
            "the kernel tells their inodes only, and they do not lie near what the job uses",
            "turn watching off in the program (polling)",
        ],
    ))
}

fn about_container(holdings: &Holdings) -> Option<Finding> {
    let kinds = [(holdings.system_v.semaphores, "semaphore sets"), (holdings.system_v.queues, "message queues")];
    let there: Vec<String> =
        kinds.iter().filter(|(count, _)| *count > 0).map(|(count, name)| format!("{count} System V {name}")).collect();
    (!there.is_empty() && !holdings.own_ipc).then(|| Finding {
        effect: Effect::Spoils,
        pid: None,
        program: String::new(),
        descriptor: None,
        what: there.join(" and "),
        reason: "they belong to the container's IPC namespace, which is not saved: the next container has none"
            .to_owned(),
        remedy: "let the job have its own: --isolate ipc, which needs the capability SYS_ADMIN".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::descriptor::Watch;
    use super::super::socket::Endpoint;
    use super::super::unix_peers::UnixSocket;
    use super::*;
    use std::collections::{BTreeMap, HashMap};

    const ALLOWED: Allowed = Allowed {
        sys_admin: false,
        dac_read_search: false,
        other_users: false,
        uid: 0,
        gid: 0,
        keeps_tcp: false,
        closes_tcp: false,
        accepts_files: false,
        ghost_limit: 1 << 30,
    };

    fn holding(object: Object, link: &str) -> Holdings {
        let descriptor = Descriptor { number: 7, link: link.to_owned(), object, watches: Vec::<Watch>::new() };
        let holder = Holder { pid: 42, program: "tool".to_owned(), descriptors: vec![descriptor], ..Holder::default() };
        Holdings { holders: vec![holder], ..Holdings::default() }
    }

    fn told(holdings: &Holdings, allowed: &Allowed) -> Vec<(Effect, String)> {
        findings(holdings, &WatchedPaths::default(), allowed)
            .iter()
            .map(|finding| (finding.effect, finding.to_string()))
            .collect()
    }

    #[test]
    fn an_io_uring_is_named_with_its_process_and_descriptor() {
        let holdings = holding(Object::Anonymous("io_uring".into()), "anon_inode:[io_uring]");
        let found = findings(&holdings, &WatchedPaths::default(), &ALLOWED);
        assert_eq!(
            found[0].to_string(),
            "process 42 (tool), descriptor 7: a kernel object of the kind io_uring; CRIU cannot save this kind"
        );
        assert_eq!(found[0].effect, Effect::Prevents);
        assert!(found[0].remedy.contains("UV_USE_IO_URING"));
    }

    #[test]
    fn what_is_carried_is_not_mentioned() {
        for object in [
            Object::Anonymous("eventfd".into()),
            Object::Anonymous("pidfd".into()),
            Object::Device { block: false, major: 1, minor: 3 },
            Object::Device { block: false, major: 136, minor: 0 },
            Object::Socket { inode: 9, protocol: "UDP".into() },
            Object::Nameless { size: 1 << 20, links: 0, overlay: true },
            Object::Ordinary,
        ] {
            assert_eq!(told(&holding(object.clone(), "x"), &ALLOWED), [], "{object:?}");
        }
    }

    #[test]
    fn devices_and_unknown_sockets_prevent_a_save() {
        let gpu = Object::Device { block: false, major: 195, minor: 255 };
        let told_of = told(&holding(gpu, "/dev/nvidiactl"), &ALLOWED);
        assert!(told_of[0].1.contains("the device /dev/nvidiactl (195:255)"), "{told_of:?}");
        let socket = Object::Socket { inode: 9, protocol: "AF_VSOCK".into() };
        assert!(told(&holding(socket, "socket:[9]"), &ALLOWED)[0].1.contains("AF_VSOCK"));
    }

    #[test]
    fn a_unix_connection_counts_only_when_its_other_end_is_outside() {
        let mut holdings = holding(Object::Socket { inode: 9, protocol: "UNIX-STREAM".into() }, "socket:[9]");
        let peer = |peer| Some(HashMap::from([(9, UnixSocket { kind: 1, peer })]));
        holdings.sockets.unix = peer(None);
        assert_eq!(told(&holdings, &ALLOWED), []);
        holdings.sockets.unix = peer(Some(10));
        assert!(told(&holdings, &ALLOWED)[0].1.contains("outside the job"));
        holdings.sockets.unix = Some(HashMap::from([(9, UnixSocket { kind: DATAGRAM, peer: Some(10) })]));
        assert_eq!(told(&holdings, &ALLOWED)[0].0, Effect::Loses);
        holdings.holders.push(Holder {
            pid: 43,
            descriptors: vec![Descriptor {
                number: 3,
                link: "socket:[10]".into(),
                object: Object::Socket { inode: 10, protocol: "UNIX-STREAM".into() },
                watches: Vec::new(),
            }],
            ..Holder::default()
        });
        assert_eq!(told(&holdings, &ALLOWED), []);
    }

    #[test]
    fn a_tcp_connection_is_lost_unless_it_is_kept() {
        let mut holdings = holding(Object::Socket { inode: 9, protocol: "TCP".into() }, "socket:[9]");
        let ends = Endpoint { local: "0100007F:1F90".into(), remote: "0100007F:D431".into() };
        holdings.sockets.tcp = BTreeMap::from([(9, ends)]);
        let told_of = told(&holdings, &ALLOWED);
        assert_eq!(told_of[0].0, Effect::Loses);
        assert!(told_of[0].1.contains("a TCP connection to 127.0.0.1:54321"), "{told_of:?}");
        assert_eq!(told(&holdings, &Allowed { keeps_tcp: true, ..ALLOWED }), []);
    }

    #[test]
    fn a_tcp_connection_inside_the_job_must_be_kept_or_given_up_knowingly() {
        let mut holdings = holding(Object::Socket { inode: 9, protocol: "TCP".into() }, "socket:[9]");
        let mut other = holdings.holders[0].clone();
        other.descriptors[0].object = Object::Socket { inode: 10, protocol: "TCP".into() };
        holdings.holders.push(other);
        let (here, there) = ("0100007F:1F90".to_owned(), "0100007F:D431".to_owned());
        let ends = Endpoint { local: here.clone(), remote: there.clone() };
        holdings.sockets.tcp = BTreeMap::from([(9, ends), (10, Endpoint { local: there, remote: here })]);
        let effects =
            |allowed: &Allowed| told(&holdings, allowed).into_iter().map(|(effect, _)| effect).collect::<Vec<_>>();
        assert_eq!(effects(&ALLOWED), [Effect::Spoils, Effect::Spoils]);
        assert_eq!(effects(&Allowed { closes_tcp: true, ..ALLOWED }), [Effect::Loses, Effect::Loses]);
        assert_eq!(effects(&Allowed { keeps_tcp: true, ..ALLOWED }), []);
    }

    #[test]
    fn rights_decide_about_filters_users_and_shared_memory() {
        let mut holdings = Holdings::default();
        holdings.holders.push(Holder { pid: 1, uid: 1000, filtered: true, tracer: Some(5), ..Holder::default() });
        holdings.holders[0].special.system_v = true;
        assert_eq!(told(&holdings, &ALLOWED).len(), 4);
        holdings.own_ipc = true;
        let more = Allowed { sys_admin: true, other_users: true, ..ALLOWED };
        assert_eq!(told(&holdings, &more).len(), 1, "a tracer is in the way whatever is allowed");
        holdings.own_ipc = false;
        holdings.system_v.semaphores = 2;
        assert!(
            told(&holdings, &ALLOWED)
                .iter()
                .any(|(effect, text)| *effect == Effect::Spoils && text.starts_with("2 System V semaphore sets"))
        );
    }

    #[test]
    fn a_process_that_cannot_be_stopped_or_is_several_people_s_prevents_a_save() {
        let effects = |holder: Holder, allowed: &Allowed| {
            told(&Holdings { holders: vec![holder], ..Holdings::default() }, allowed).len()
        };
        for halted in [Halted::FirstThreadEnded, Halted::Waits] {
            assert_eq!(effects(Holder { halted: Some(halted), ..Holder::default() }, &ALLOWED), 1);
        }
        for strange in [Holder { gid: 50, ..Holder::default() }, Holder { mixed: true, ..Holder::default() }] {
            assert_eq!(effects(strange.clone(), &ALLOWED), 1);
            assert_eq!(effects(strange, &Allowed { other_users: true, ..ALLOWED }), 0);
        }
    }

    #[test]
    fn threads_that_are_bound_to_processors_are_told_of() {
        let on = |lists: &[&str]| Holder {
            processors: lists.iter().map(ToString::to_string).collect(),
            ..Holder::default()
        };
        let told = |bound| told(&Holdings { holders: vec![on(&["0-63"]), bound], ..Holdings::default() }, &ALLOWED);
        assert_eq!(told(on(&["0-63"])), []);
        assert_eq!(told(on(&["0-63", "5"]))[0].0, Effect::Loses);
    }

    #[test]
    fn a_removed_name_of_a_file_with_another_one_depends_on_where_it_lies() {
        let effects = |overlay, allowed: &Allowed| {
            let holdings = holding(Object::Nameless { size: 9, links: 1, overlay }, "/data/a (deleted)");
            told(&holdings, allowed).into_iter().map(|(effect, _)| effect).collect::<Vec<_>>()
        };
        assert_eq!(effects(true, &ALLOWED), [Effect::Spoils]);
        assert_eq!(effects(true, &Allowed { accepts_files: true, ..ALLOWED }), [Effect::Loses]);
        assert_eq!(effects(false, &ALLOWED), [Effect::Prevents]);
        for overlay in [true, false] {
            assert_eq!(effects(overlay, &Allowed { dac_read_search: true, ..ALLOWED }), []);
        }
    }

    #[test]
    fn a_deleted_file_may_be_as_large_as_the_limit() {
        let holdings = holding(Object::Nameless { size: 2 << 30, links: 0, overlay: true }, "/tmp/x (deleted)");
        assert_eq!(told(&holdings, &ALLOWED).len(), 1);
        assert_eq!(told(&holdings, &Allowed { ghost_limit: 2 << 30, ..ALLOWED }), []);
    }
}
