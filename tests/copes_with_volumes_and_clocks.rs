//! The subcommands on a volume that is full or read-only, and after the clock was set back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::pedantic)] // Helpers of tests are outside of `cfg(test)`.

mod stored_job;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, SystemTime};
use stored_job::{Fixture, JOB, content, contents};

/// A small file system of its own, on a directory of the fixture.
struct Volume(PathBuf);

impl Volume {
    fn on(directory: PathBuf) -> Self {
        std::fs::create_dir_all(&directory).unwrap();
        mount(Some("tmpfs"), &directory, Some("tmpfs"), MsFlags::empty(), Some("size=4m,mode=700")).unwrap();
        Self(directory)
    }

    fn fill(&self) {
        let error = std::fs::write(self.0.join("filler"), vec![0; 8 << 20]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(nix::libc::ENOSPC));
    }

    fn read_only(&self) {
        let none: Option<&str> = None;
        mount(none, &self.0, none, MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, none).unwrap();
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

fn fails(output: &Output, code: i32, text: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(said.contains(text) && said.contains("next:"), "{said}");
}

fn copy(from: &Path, to: &Path) {
    let status = std::process::Command::new("cp").args(["-a", "--"]).arg(from).arg(to).status().unwrap();
    assert!(status.success());
}

#[test]
fn an_export_to_a_full_volume_leaves_nothing() {
    let fixture = Fixture::new(None);
    let volume = Volume::on(fixture.directory.path().join("small"));
    volume.fill();
    let file = volume.0.join("job.tar");
    let export = ["export", "--all", "--to", file.to_str().unwrap()];
    fails(&fixture.run(&export, &JOB), 1, "No space left on device");
    assert_eq!(std::fs::read_dir(&volume.0).unwrap().count(), 1, "only the filler is there");
    std::fs::remove_file(volume.0.join("filler")).unwrap();
    fixture.shows(&export, &JOB);
}

#[test]
fn an_import_into_a_full_volume_imports_nothing_and_then_all() {
    let fixture = Fixture::new(None);
    let file = fixture.directory.path().join("job.tar");
    let file = file.to_str().unwrap();
    fixture.shows(&["export", "--all", "--to", file], &JOB);
    let volume = Volume::on(fixture.directory.path().join("small"));
    let url = format!("file://{}", volume.0.display());
    let import = ["import", file, "--store", &url, "--lease", "1s"];
    volume.fill();
    fails(&fixture.run(&import, &JOB), 205, "is full");
    assert_eq!(contents(&url, "assembly", None), []);
    std::fs::remove_file(volume.0.join("filler")).unwrap();
    fixture.shows(&import, &JOB);
    let images: Vec<Vec<u8>> = contents(&url, "assembly", None).into_iter().map(|(_, image)| image).collect();
    assert_eq!(images, [0, 1, 2, 3].map(content));
}

/// What only reads works; what writes says why it does not, and changes nothing.
#[test]
fn a_volume_that_is_mounted_read_only() {
    let key = "5a".repeat(32);
    let fixture = Fixture::new(Some(&key));
    let volume = Volume::on(fixture.directory.path().join("small"));
    copy(&fixture.directory.path().join("store/assembly"), &volume.0);
    volume.read_only();
    let url = format!("file://{}", volume.0.display());
    let environment = [JOB[0], ("REVENANT_KEY", key.as_str()), ("REVENANT_LEASE", "1s")];
    let file = fixture.directory.path().join("job.tar");
    let file = file.to_str().unwrap();
    for reading in
        [&["list"][..], &["inspect"], &["verify", "--read-data"], &["key", "list"], &["export", "--to", file]]
    {
        // Before the rest: `key` has subcommands of its own.
        let arguments = [&reading[..1], &["--store", &url], &reading[1..]].concat();
        fixture.shows(&arguments, &environment);
    }
    let new_key = fixture.directory.path().join("new.key");
    std::fs::write(&new_key, "6b".repeat(32)).unwrap();
    let rotate = ["key", "--store", &url, "rotate", "--new-key-file", new_key.to_str().unwrap()];
    for writing in [&["prune", "--keep-last", "1", "--store", &url][..], &["import", file, "--store", &url], &rotate] {
        fails(&fixture.run(writing, &environment), 205, "mount the volume read-write");
    }
    assert_eq!(contents(&url, "assembly", Some(&key)).len(), 4);
}

/// Everything was written by a clock that was a year ahead; then it was set right.
#[test]
fn a_clock_that_was_set_back_hides_and_removes_nothing() {
    let ahead = SystemTime::now() + Duration::from_secs(365 * 24 * 3600);
    let fixture = Fixture::saved_at(None, ahead, Duration::from_secs(2));
    let store = fixture.directory.path().join("store/assembly");
    let mut directories = vec![store.clone()];
    while let Some(directory) = directories.pop() {
        for path in std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                directories.push(path);
            } else {
                std::fs::File::options().write(true).open(path).unwrap().set_modified(ahead).unwrap();
            }
        }
    }
    // Its holder never gave it back: its last beat lies in the future, and still it is taken for dead.
    std::fs::remove_file(store.join(format!("claims/{:020}.released", 1))).unwrap();
    let kept = fixture.shows(&["prune", "--keep-last", "1", "--keep-within", "1h", "--lease", "1s"], &JOB);
    assert!(kept.contains("removed no generation"), "{kept}");
    let removed = fixture.shows(&["prune", "--keep-last", "2"], &JOB);
    assert!(removed.contains("removed 1-1, 1-2; 2 packs"), "{removed}");
    // What comes later counts as newer, whatever its time says.
    let file = fixture.directory.path().join("job.tar");
    let other = Fixture::new(None);
    let file = file.to_str().unwrap();
    fixture.shows(&["export", "--generation", "1-3", "--to", file], &JOB);
    assert!(fixture.shows(&["import", file], &JOB).contains("generation 1-3 is there already"));
    assert_eq!(other.run(&["import", file], &JOB).status.code(), Some(210), "another repository");
    let there: Vec<Vec<u8>> = contents(&fixture.url(), "assembly", None).into_iter().map(|(_, image)| image).collect();
    assert_eq!(there, [content(2), content(3)]);
}
