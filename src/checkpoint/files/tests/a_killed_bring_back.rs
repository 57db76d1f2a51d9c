//! SIGKILL in the middle of bringing files back, then again: the same result.

use super::super::{FilePolicy, FileSource, bring_back, plan_at};
use super::folder_store::FolderStore;
use super::round_trip::{Story, site};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::process::Command;

const DIRECTORY: &str = "REVENANT_TEST_KILLED_BRING_BACK";

/// Gives so many bytes of contents, then says so and stalls.
struct Stalling<'a> {
    store: FolderStore,
    left: std::cell::Cell<u64>,
    marker: &'a Path,
}

impl FileSource for Stalling<'_> {
    fn fetch(&self, name: &str, into: &mut File) -> io::Result<()> {
        let given = io::copy(&mut File::open(self.store.0.join(name))?.take(self.left.get()), into)?;
        self.left.set(self.left.get() - given);
        if self.left.get() == 0 {
            std::fs::write(self.marker, "")?;
            loop {
                std::thread::park();
            }
        }
        Ok(())
    }

    fn fetch_bytes(&self, name: &str, limit: u64) -> io::Result<Vec<u8>> {
        self.store.fetch_bytes(name, limit)
    }
}

/// Run by the test below in a process of its own.
#[test]
#[ignore = "a part of another test"]
fn brings_back_and_stalls() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    let (directory, bytes) = directory.rsplit_once(':').unwrap();
    let directory = Path::new(directory);
    let marker = directory.join("marker");
    let store = FolderStore(directory.join("store"));
    let source = Stalling { store, left: std::cell::Cell::new(bytes.parse().unwrap()), marker: &marker };
    let plan = plan_at(site(&directory.join("second")), &source, &FilePolicy::default()).unwrap();
    bring_back(&plan, &source).unwrap();
}

#[test]
fn ends_with_the_same_tree() {
    let story = Story::after_work();
    let expected = story.text("first");
    for bytes in [1u64, 50_000, 1_000_000, 3_000_000, 8_000_000] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "checkpoint::files::tests::a_killed_bring_back::brings_back_and_stalls"])
            .env(DIRECTORY, format!("{}:{bytes}", story.temp.path().display()))
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let marker = story.path("marker");
        while !marker.exists() {
            assert!(child.try_wait().unwrap().is_none(), "it ended before {bytes} bytes");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        std::fs::remove_file(marker).unwrap();
        assert_ne!(story.text("second"), expected, "it was killed in the middle");
    }
    let plan = plan_at(site(&story.path("second")), &story.store, &FilePolicy::default()).unwrap();
    bring_back(&plan, &story.store).unwrap();
    assert_eq!(story.text("second"), expected);
}
