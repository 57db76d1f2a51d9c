//! A real tree is dumped and restored by real CRIU through the streaming protocol.
//!
//! Needs root, `unshare` and CRIU 4.2 (`REVENANT_CRIU`, or revenant's bundle). Each test runs
//! itself again in PID and mount namespaces of its own, so that PIDs are free at restore.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::pedantic)] // Helpers of tests are outside of `cfg(test)`.

mod criu_tree;

use criu_tree::{Images, Tree, criu, dump, in_own_namespaces, restore};
use revenant::criu::options::Afterwards;
use std::time::Duration;

#[test]
fn a_tree_continues_exactly_over_two_generations() {
    in_own_namespaces("a_tree_continues_exactly_over_two_generations", || {
        let criu = criu();
        let tree = Tree::start();
        let mut root = tree.root();
        // With one stream at a time, processes that read their memory wait for one another.
        for streams in [1, 8] {
            let before = tree.wait_for_progress(Duration::from_secs(30));
            let images = Images::default();
            dump(&criu, root, tree.directory(), Afterwards::Killed, &images).expect("the dump works");
            let at_dump = tree.last();
            root = restore(&criu, tree.directory(), &images, streams).expect("the restore works");
            let after = tree.wait_for_progress(Duration::from_secs(30));
            assert!(before.count <= at_dump.count && at_dump.count < after.count, "{before:?} {at_dump:?} {after:?}");
            assert_eq!(before.digest, after.digest, "memory changed");
            tree.assert_never_went_back();
        }
    });
}

#[test]
fn images_arrive_whole_and_named() {
    in_own_namespaces("images_arrive_whole_and_named", || {
        let tree = Tree::start();
        tree.wait_for_progress(Duration::from_secs(30));
        let images = Images::default();
        dump(&criu(), tree.root(), tree.directory(), Afterwards::Running, &images).expect("the dump works");
        let names = images.names();
        for expected in ["inventory.img", "pstree.img", "files.img", "pages-1.img"] {
            assert!(names.iter().any(|name| name == expected), "{expected} is not among {names:?}");
        }
        assert_images_describe(&tree, &images);
        // The dump left it running.
        tree.wait_for_progress(Duration::from_secs(30));
    });
}

/// What we read out of real images is what `/proc` says.
fn assert_images_describe(tree: &Tree, images: &Images) {
    use revenant::criu::images::{FdType, core, fdinfo, files, inventory, mm, pagemap, pstree};
    let image = |name: &str| images.bytes(name);
    let root = tree.root();
    assert_eq!(inventory(&image("inventory.img")).unwrap().image_version, 2);
    let processes = pstree(&image("pstree.img")).unwrap();
    let pids: Vec<_> = processes.iter().map(|process| i32::try_from(process.pid).unwrap()).collect();
    assert_eq!(pids, tree.pids());
    assert_eq!(processes[0].threads.len(), 2, "a main thread and a ticking one");
    assert!(processes.iter().all(|process| i32::try_from(process.sid).unwrap() == root));

    let task = core(&image(&format!("core-{root}.img"))).unwrap().task.unwrap();
    assert_eq!((task.state, task.name.starts_with(b"python3")), (1, true));

    let open = files(&image("files.img")).unwrap();
    let pipe_ids: Vec<_> =
        open.iter().filter_map(|file| Some(format!("pipe:[{}]", file.pipe.as_ref()?.pipe_id))).collect();
    let fds = fdinfo(&image("fdinfo-2.img")).unwrap();
    let pipe = fds.iter().find(|fd| fd.kind() == FdType::Pipe).expect("the root has a pipe");
    let link = std::fs::read_link(format!("/proc/{root}/fd/{}", pipe.fd)).unwrap();
    assert!(pipe_ids.iter().any(|id| link.as_os_str() == id.as_str()), "{link:?} is not among {pipe_ids:?}");

    let memory = mm(&image(&format!("mm-{root}.img"))).unwrap();
    let executable = open.iter().find(|file| file.id == memory.exe_file && file.kind() == FdType::Regular).unwrap();
    let path = std::path::Path::new("/").join(executable.regular.as_ref().unwrap().path());
    assert_eq!(path, std::fs::read_link(format!("/proc/{root}/exe")).unwrap());
    assert!(memory.vmas.iter().any(|vma| vma.length() >= Tree::MEMORY as u64));
    let map = pagemap(&image(&format!("pagemap-{root}.img"))).unwrap();
    let pages = image(&format!("pages-{}.img", map.pages_id));
    assert_eq!(map.present_pages() * 4096, pages.len() as u64);
}

#[test]
fn a_tree_left_stopped_is_stopped_and_continues_on_sigcont() {
    in_own_namespaces("a_tree_left_stopped_is_stopped_and_continues_on_sigcont", || {
        let tree = Tree::start();
        tree.wait_for_progress(Duration::from_secs(30));
        dump(&criu(), tree.root(), tree.directory(), Afterwards::Stopped, &Images::default()).expect("the dump works");
        for pid in tree.pids() {
            // CRIU ends a moment before the kernel has stopped all of them.
            criu_tree::wait_for_state(pid, 'T', Duration::from_secs(10));
        }
        let stopped_at = tree.last();
        std::thread::sleep(Duration::from_millis(200));
        assert_eq!(tree.last().count, stopped_at.count, "a stopped tree made progress");
        for pid in tree.pids() {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGCONT).unwrap();
        }
        assert!(tree.wait_for_progress(Duration::from_secs(30)).count > stopped_at.count);
        tree.assert_never_went_back();
    });
}

#[test]
fn a_reader_that_gives_up_leaves_the_tree_running() {
    in_own_namespaces("a_reader_that_gives_up_leaves_the_tree_running", || {
        let tree = Tree::start();
        tree.wait_for_progress(Duration::from_secs(30));
        let images = Images::giving_up_after(1 << 20);
        let error = dump(&criu(), tree.root(), tree.directory(), Afterwards::Stopped, &images).unwrap_err();
        assert!(error.contains("gave up"), "{error}");
        tree.wait_for_progress(Duration::from_secs(30));
        tree.assert_never_went_back();
    });
}
