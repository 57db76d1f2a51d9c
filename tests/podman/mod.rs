//! A machine with podman: storage of its own, of which nothing stays, and lines that its user types.

#![allow(dead_code, reason = "each test program uses its own part")]

use super::harness::{PATIENCE, Scratch};
use nix::sys::resource::{Resource, getrlimit};
use std::path::Path;
use std::process::{Child, Command, Output};
use std::time::Instant;

/// Containers and images of podman and buildah, removed when dropped.
pub struct Podman {
    scratch: Scratch,
}

impl Podman {
    pub fn new() -> Self {
        let podman = Self { scratch: Scratch::new() };
        let at = podman.folder().display();
        // vfs needs nothing of the kernel, and works inside containers too.
        podman.write(
            "storage.conf",
            &format!("[storage]\ndriver = \"vfs\"\ngraphroot = \"{at}/store\"\nrunroot = \"{at}/run\"\n"),
        );
        // Podman wants higher limits than a root without CAP_SYS_RESOURCE may set. What ends containers reads no file
        // of settings, and looks for `static_dir` where it is by default.
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        podman.write(
            "containers.conf",
            &format!(
                "[containers]\nnetns = \"host\"\ndefault_ulimits = [\"nofile={most}:{most}\", \"nproc=4096:4096\"]\n\
                 [engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"none\"\nruntime = \"runc\"\n\
                 static_dir = \"{at}/store/libpod\"\ntmp_dir = \"{at}/tmp\"\nvolume_path = \"{at}/volumes\"\n"
            ),
        );
        podman
    }

    /// Where the lines are typed.
    pub fn folder(&self) -> &Path {
        self.scratch.path()
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder().join(name), text).unwrap();
    }

    fn shell(&self, line: &str) -> Command {
        let mut shell = Command::new("bash");
        shell.args(["-c", line]).current_dir(self.folder());
        shell.env("CONTAINERS_STORAGE_CONF", self.folder().join("storage.conf"));
        shell.env("CONTAINERS_CONF", self.folder().join("containers.conf"));
        shell
    }

    /// Types a line, to its end.
    pub fn type_line(&self, line: &str) -> Output {
        self.shell(line).output().unwrap()
    }

    /// Types a line that must succeed; what it said.
    pub fn typed(&self, line: &str) -> String {
        let output = self.type_line(line);
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        assert!(output.status.success(), "{line}: {}\n{said}", output.status);
        said
    }

    /// Types a line in another window; what it says comes into this file of the folder.
    pub fn type_beside(&self, line: &str, log: &str) -> Child {
        let file = std::fs::File::create(self.folder().join(log)).unwrap();
        self.shell(line).stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap()
    }

    /// Waits until the file has this text.
    pub fn wait_for(&self, log: &str, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let said = std::fs::read_to_string(self.folder().join(log)).unwrap();
            if said.contains(text) {
                return;
            }
            assert!(Instant::now() < deadline, "{log} does not say {text:?}:\n{said}");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let _ = self.type_line("podman rm --all --force --time 0; podman image unmount --all; buildah rm --all");
    }
}
