//! A workload's changes to its image come back in a fresh copy of the image.

use super::super::{
    Baseline, FilePolicy, Held, Mounts, Root, Site, When, bring_back, capture_at, plan_at, remove_leftovers,
};
use super::folder_store::FolderStore;
use super::tree_text::tree_text;
use nix::sys::stat::Mode;
use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// An image with something in it.
pub fn make_image(root: &Path) {
    for directory in ["etc", "usr/lib", "tmp", "var/cache/old/deep", "home/user"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    for (name, content) in [
        ("etc/passwd", "root"),
        ("etc/motd", "welcome"),
        ("usr/lib/tool.sh", "v1"),
        ("var/cache/old/deep/x", "x"),
        ("var/cache/keep", "k"),
        ("etc/config", "a=1"),
        ("home/user/.profile", "p"),
    ] {
        fs::write(root.join(name), content).unwrap();
    }
    fs::hard_link(root.join("usr/lib/tool.sh"), root.join("usr/lib/tool-again.sh")).unwrap();
    symlink("keep", root.join("var/cache/link")).unwrap();
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    // File systems keep change times by the tick; what comes next is later.
    std::thread::sleep(Duration::from_millis(50));
}

/// What a workload may do to its container, one of each kind.
pub fn work(root: &Path) {
    let at = |name: &str| root.join(name);
    fs::create_dir_all(at("tmp/w/sub dir")).unwrap();
    for index in 0..300u16 {
        fs::write(
            at(&format!("tmp/w/small-{index}")),
            vec![b'a' + index.to_le_bytes()[0] % 26; usize::from(index) * 37],
        )
        .unwrap();
    }
    fs::write(at("tmp/w/large"), (0..6_000_000u32).map(|i| (i / 7).to_le_bytes()[0]).collect::<Vec<_>>()).unwrap();
    let sparse = fs::File::create(at("tmp/w/sparse")).unwrap();
    sparse.set_len(50 << 20).unwrap();
    sparse.write_at(&[7; 10000], 20 << 20).unwrap();
    sparse.write_at(b"end", (50 << 20) - 3).unwrap();
    let small = fs::File::create(at("tmp/w/sparse-small")).unwrap();
    small.set_len(100_000).unwrap();
    small.write_at(&[9; 4096], 40960).unwrap();
    fs::File::create(at("tmp/w/hole-only")).unwrap().set_len(1 << 20).unwrap();
    fs::hard_link(at("tmp/w/large"), at("tmp/w/sub dir/large-again")).unwrap();
    symlink("../nowhere", at("tmp/w/dangling")).unwrap();
    symlink("/etc", at("tmp/w/into-etc")).unwrap();
    nix::unistd::mkfifo(&at("tmp/w/fifo"), Mode::from_bits_truncate(0o640)).unwrap();
    drop(std::os::unix::net::UnixListener::bind(at("tmp/w/socket")).unwrap());
    let odd = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"tmp/w/odd-\xff\\name\n");
    fs::write(root.join(odd), "odd").unwrap();
    let file = fs::File::open(at("tmp/w/small-7")).unwrap();
    rustix::fs::fsetxattr(&file, "user.origin", b"here\0", rustix::fs::XattrFlags::empty()).unwrap();
    fs::set_permissions(at("tmp/w/small-8"), fs::Permissions::from_mode(0o4751)).unwrap();
    file.set_modified(std::time::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789)).unwrap();
    if nix::unistd::geteuid().is_root() {
        std::os::unix::fs::chown(at("tmp/w/small-8"), Some(1234), Some(4321)).unwrap();
        fs::set_permissions(at("tmp/w/small-8"), fs::Permissions::from_mode(0o4751)).unwrap();
        std::os::unix::fs::lchown(at("tmp/w/dangling"), Some(1234), Some(4321)).unwrap();
    }
    // Changes to the image itself.
    fs::OpenOptions::new().write(true).open(at("etc/config")).unwrap().write_at(b"a=2", 0).unwrap();
    fs::set_permissions(at("var/cache/keep"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::remove_file(at("etc/motd")).unwrap();
    fs::remove_dir_all(at("var/cache/old")).unwrap();
    fs::rename(at("home/user/.profile"), at("home/user/.profile.bak")).unwrap();
    fs::remove_file(at("var/cache/link")).unwrap();
    fs::create_dir(at("var/cache/link")).unwrap();
    fs::write(at("var/cache/link/now-a-directory"), "").unwrap();
    // As `cp -p` does: a new file with an old time.
    fs::copy(at("etc/passwd"), at("etc/passwd-copy")).unwrap();
    let old = fs::metadata(at("etc/passwd")).unwrap().modified().unwrap();
    fs::File::open(at("etc/passwd-copy")).unwrap().set_modified(old).unwrap();
    let temporary = fs::File::open(at("tmp/w/sub dir")).unwrap();
    temporary.set_modified(std::time::UNIX_EPOCH + Duration::new(1_100_000_000, 5)).unwrap();
}

pub fn copy_tree(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}

pub fn site(root: &Path) -> Site {
    Site { root: Root::open(root).unwrap(), mounts: Mounts::only_root() }
}

/// An image, a container that has worked in it and was captured, and a second container.
pub struct Story {
    pub temp: tempfile::TempDir,
    pub store: FolderStore,
}

impl Story {
    pub fn after_work() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let path = |name: &str| temp.path().join(name);
        fs::create_dir(path("image")).unwrap();
        make_image(&path("image"));
        copy_tree(&path("image"), &path("first"));
        fs::create_dir(path("store")).unwrap();
        std::thread::sleep(Duration::from_millis(50));
        let first = site(&path("first"));
        let mut baseline = Baseline::now(&first.root);
        assert!(baseline.list(&first, When::BeforeTheWorkload, Duration::from_secs(60)));
        work(&path("first"));
        let store = FolderStore(path("store"));
        let captured = capture_at(&first, &Held::default(), &baseline, &FilePolicy::default(), &store).unwrap();
        assert_eq!(captured.warnings, []);
        copy_tree(&path("image"), &path("second"));
        Self { temp, store }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    pub fn text(&self, name: &str) -> String {
        tree_text(&Root::open(&self.path(name)).unwrap(), &[])
    }
}

#[test]
fn a_fresh_root_becomes_the_same_tree() {
    let story = Story::after_work();
    let plan = plan_at(site(&story.path("second")), &story.store, &FilePolicy::default()).unwrap();
    let report = bring_back(&plan, &story.store).unwrap();
    assert_eq!(report.warnings, []);
    assert_eq!(report.deleted, 3, "motd, old, .profile and nothing else: {:?}", plan.catalogue().deleted);
    assert_eq!(story.text("second"), story.text("first"));
}

#[test]
fn doing_it_twice_changes_nothing() {
    let story = Story::after_work();
    for _ in 0..2 {
        let plan = plan_at(site(&story.path("second")), &story.store, &FilePolicy::default()).unwrap();
        bring_back(&plan, &story.store).unwrap();
    }
    assert_eq!(story.text("second"), story.text("first"));
}

#[test]
fn unchanged_files_of_the_image_are_not_stored() {
    let story = Story::after_work();
    let plan = plan_at(site(&story.path("second")), &story.store, &FilePolicy::default()).unwrap();
    let has = |name: &str| plan.catalogue().entries.iter().any(|entry| entry.path.to_string() == name);
    assert!(has("/etc/config") && has("/tmp/w/large"));
    assert!(!has("/etc/passwd") && !has("/usr/lib/tool.sh"));
    let bytes: u64 = plan.catalogue().contents.iter().map(|content| content.bytes).sum();
    assert!(bytes < 12 << 20, "holes are not stored: {bytes}");
}

#[test]
fn an_older_generation_finds_nothing_of_a_newer_one() {
    let story = Story::after_work();
    let older = FolderStore(story.path("older"));
    fs::create_dir(&older.0).unwrap();
    copy_tree(&story.path("image"), &story.path("third"));
    std::thread::sleep(Duration::from_millis(50));
    let third = site(&story.path("third"));
    let mut baseline = Baseline::now(&third.root);
    baseline.list(&third, When::BeforeTheWorkload, Duration::from_secs(60));
    fs::create_dir(story.path("third/tmp/w")).unwrap();
    fs::write(story.path("third/tmp/w/small-1"), "older").unwrap();
    capture_at(&third, &Held::default(), &baseline, &FilePolicy::default(), &older).unwrap();

    std::thread::sleep(Duration::from_millis(50));
    let second = site(&story.path("second"));
    let mut baseline = Baseline::now(&second.root);
    baseline.list(&second, When::BeforeTheWorkload, Duration::from_secs(60));
    let newer = plan_at(second, &story.store, &FilePolicy::default()).unwrap();
    bring_back(&newer, &story.store).unwrap();
    let plan = plan_at(site(&story.path("second")), &older, &FilePolicy::default()).unwrap();
    let problems = remove_leftovers(&plan, &baseline);
    bring_back(&plan, &older).unwrap();
    assert_eq!(fs::read_dir(story.path("second/tmp/w")).unwrap().count(), 1);
    assert_eq!(fs::read_to_string(story.path("second/tmp/w/small-1")).unwrap(), "older");
    assert!(!story.path("second/etc/passwd-copy").exists());
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].cause.starts_with("5 in all"), "motd, config, .profile, old, keep: {problems:?}");
}

#[test]
fn a_limit_names_the_largest_files() {
    let temp = tempfile::tempdir().unwrap();
    let root = site(temp.path());
    let baseline = Baseline::now(&root.root);
    fs::write(temp.path().join("big"), vec![1; 3 << 20]).unwrap();
    fs::write(temp.path().join("little"), vec![1; 1 << 10]).unwrap();
    let policy = FilePolicy { limit_bytes: 1 << 20, ..FilePolicy::default() };
    let store = FolderStore(temp.path().to_owned());
    let problem = capture_at(&root, &Held::default(), &baseline, &policy, &store).unwrap_err();
    insta::assert_snapshot!(problem.to_string(), @"
    the files to keep are 4 MiB, the limit is 1 MiB
      why:  the workload wrote them in the container's own layer; largest: /big (3 MiB), /little (1 MiB)
      next: put them on a volume, leave them out with `--ignore PATH`, or raise `--file-limit`
    ");
}

#[test]
fn ignored_paths_stay_and_kept_paths_go() {
    let temp = tempfile::tempdir().unwrap();
    let path = |name: &str| temp.path().join(name);
    fs::create_dir_all(path("first/data/old")).unwrap();
    fs::write(path("first/data/old/before"), "b").unwrap();
    fs::create_dir_all(path("second")).unwrap();
    fs::create_dir_all(path("store")).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    let first = site(&path("first"));
    let baseline = Baseline::now(&first.root);
    fs::create_dir_all(path("first/cache")).unwrap();
    fs::write(path("first/cache/x"), "x").unwrap();
    let policy = FilePolicy { keep: vec!["/data/old".into()], ignore: vec!["/cache".into()], ..FilePolicy::default() };
    let store = FolderStore(path("store"));
    capture_at(&first, &Held::default(), &baseline, &policy, &store).unwrap();
    bring_back(&plan_at(site(&path("second")), &store, &policy).unwrap(), &store).unwrap();
    assert_eq!(fs::read_to_string(path("second/data/old/before")).unwrap(), "b");
    assert!(!path("second/cache").exists());
}

/// Not a test: prints what scans and listings of this machine's root cost.
#[test]
#[ignore = "a measurement"]
fn how_long_a_scan_takes() {
    let root = super::super::Site::here().unwrap();
    let begun = std::time::Instant::now();
    let mut baseline = Baseline::now(&root.root);
    let moment = begun.elapsed();
    for round in 0..2 {
        let begun = std::time::Instant::now();
        let mut listed = baseline.clone();
        let complete = listed.list(&root, When::BeforeTheWorkload, Duration::from_secs(60));
        println!("listing {round}: {:?}, complete {complete}", begun.elapsed());
        let begun = std::time::Instant::now();
        let scan = super::super::scan::scan(&root.root, &root.mounts, &FilePolicy::default(), baseline.since());
        println!("scan {round}: {} paths in {:?}", scan.looked_at, begun.elapsed());
        if round == 1 {
            baseline = listed;
        }
    }
    let json = serde_json::to_vec(&baseline).unwrap();
    println!("moment {moment:?}, baseline {} bytes", json.len());
}
