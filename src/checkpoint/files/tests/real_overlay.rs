//! The same in mount namespaces with a real overlayfs, a private tmpfs and a volume, entered by
//! chroot: the mounts are the kernel's own account. Needs root; says so when it cannot run.

use super::super::{Baseline, FilePolicy, Held, Root, Site, When, bring_back, capture_at, plan_at};
use super::folder_store::FolderStore;
use super::round_trip::{make_image, work};
use super::tree_text::tree_text;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use std::fs;
use std::path::Path;
use std::time::Duration;

const NOTHING: Option<&str> = None;

/// Runs `body` in a thread whose root is a fresh container over `image`; none without privileges.
fn in_container<T: Send + 'static>(temp: &Path, name: &str, body: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (temp, name) = (temp.to_owned(), name.to_owned());
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_FS).ok()?;
        mount(NOTHING, "/", NOTHING, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NOTHING).ok()?;
        let at = |part: &str| temp.join(format!("{name}-{part}"));
        for part in ["upper", "work", "root"] {
            fs::create_dir_all(at(part)).unwrap();
        }
        let image = temp.join("image");
        let options =
            format!("lowerdir={},upperdir={},workdir={}", image.display(), at("upper").display(), at("work").display());
        let root = at("root");
        mount(Some("overlay"), &root, Some("overlay"), MsFlags::empty(), Some(options.as_str())).ok()?;
        mount(Some("proc"), &root.join("proc"), Some("proc"), MsFlags::empty(), NOTHING).unwrap();
        mount(Some("tmpfs"), &root.join("tmp"), Some("tmpfs"), MsFlags::empty(), Some("mode=1777")).unwrap();
        mount(Some(&temp.join("volume")), &root.join("data"), NOTHING, MsFlags::MS_BIND, NOTHING).unwrap();
        mount(Some(&temp.join("store")), &root.join("store"), NOTHING, MsFlags::MS_BIND, NOTHING).unwrap();
        nix::unistd::chroot(&root).unwrap();
        Some(body())
    });
    thread.join().unwrap()
}

/// The site of this thread: `/proc/self` is the process's main thread, which is elsewhere.
fn site() -> Site {
    let text = fs::read("/proc/thread-self/mountinfo").unwrap();
    Site { root: Root::open(Path::new("/")).unwrap(), mounts: super::super::Mounts::parse(&text) }
}

fn policy() -> FilePolicy {
    FilePolicy { own: vec!["/store".into()], ..FilePolicy::default() }
}

const SKIPPED: &[&str] = &["/proc", "/store", "/data"];

#[test]
fn carries_the_layer_to_the_next_container() {
    let temp = tempfile::tempdir().unwrap();
    for directory in ["image/proc", "image/data", "image/store", "volume", "store"] {
        fs::create_dir_all(temp.path().join(directory)).unwrap();
    }
    make_image(&temp.path().join("image"));
    for index in 0..200 {
        let directory = temp.path().join(format!("image/usr/lib/package-{index}"));
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("file"), "content").unwrap();
    }
    std::thread::sleep(Duration::from_millis(50));
    let first = in_container(temp.path(), "first", || {
        let site = site();
        let mut baseline = Baseline::now(&site.root);
        assert!(baseline.list(&site, When::BeforeTheWorkload, Duration::from_secs(60)));
        work(Path::new("/"));
        fs::write("/data/on-the-volume", "v").unwrap();
        let changed = super::super::scan::scan(&site.root, &site.mounts, &policy(), baseline.since());
        let captured =
            capture_at(&site, &Held::default(), &baseline, &policy(), &FolderStore("/store".into())).unwrap();
        assert_eq!(captured.warnings, []);
        (tree_text(&site.root, SKIPPED), changed.looked_at)
    });
    let Some((expected, looked_at)) = first else {
        eprintln!("cannot mount here: not tested");
        return;
    };
    assert!(looked_at < 700, "unchanged packages are not entered, but {looked_at} paths were looked at");
    let second = in_container(temp.path(), "second", || {
        let site = site();
        let store = FolderStore("/store".into());
        let plan = plan_at(site, &store, &policy()).unwrap();
        assert_eq!(plan.obstacles(), [""; 0]);
        let report = bring_back(&plan, &store).unwrap();
        assert_eq!(report.warnings, []);
        tree_text(&Root::open(Path::new("/")).unwrap(), SKIPPED)
    });
    assert_eq!(second.unwrap(), expected);
    assert_eq!(fs::read_to_string(temp.path().join("volume/on-the-volume")).unwrap(), "v");
}
