//! `revenant export --format oci`: what it writes is an OCI image by every digest of it, and plain CRIU restores
//! the process from its layer, without revenant.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::pedantic)] // Helpers of tests are outside of `cfg(test)`.

mod harness;
mod podman;

use harness::{Container, Store, Ticks};
use podman::Podman;
use ring::digest::{SHA256, digest};
use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

const KEY: &str = "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a";

fn export(store: &Store, to: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_revenant"));
    command.env_clear().args(["export", "--format", "oci", "--job", "oci-job", "--json", "--to"]).arg(to).args(more);
    command.env("REVENANT_STORE", format!("file://{}", store.directory().unwrap().display()));
    command.env("REVENANT_KEY", KEY).output().unwrap()
}

/// Every member of a tar.
fn members(tar: impl Read) -> BTreeMap<String, Vec<u8>> {
    let mut members = BTreeMap::new();
    for entry in tar::Archive::new(tar).entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        members.insert(entry.path().unwrap().display().to_string(), bytes);
    }
    members
}

/// The blob of a descriptor; its length and digest are right.
fn blob<'a>(archive: &'a BTreeMap<String, Vec<u8>>, descriptor: &serde_json::Value) -> &'a [u8] {
    let named = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
    let bytes = &archive[&format!("blobs/sha256/{named}")];
    assert_eq!(hex::encode(digest(&SHA256, bytes)), named);
    assert_eq!(descriptor["size"], bytes.len());
    bytes
}

/// The files of the image's layer.
fn layer(file: &Path) -> BTreeMap<String, Vec<u8>> {
    let archive = members(std::fs::File::open(file).unwrap());
    let json = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).unwrap();
    assert_eq!(json(&archive["oci-layout"])["imageLayoutVersion"], "1.0.0");
    let index = json(&archive["index.json"]);
    let manifest = json(blob(&archive, &index["manifests"][0]));
    let config = json(blob(&archive, &manifest["config"]));
    let plain = zstd::stream::decode_all(blob(&archive, &manifest["layers"][0])).unwrap();
    assert_eq!(config["rootfs"]["diff_ids"][0], format!("sha256:{}", hex::encode(digest(&SHA256, &plain))));
    members(plain.as_slice())
}

#[test]
fn plain_criu_restores_the_process_from_the_layer() {
    let store = Store::local();
    let counter = Container::of("oci-job").store(&store).env("REVENANT_KEY", KEY);
    let first = counter.workload("counter.py", &["--threads", "1", "--mib", "24"]).start();
    first.wait_for_line("tick 3 ");
    let asked = first.exec(&["revenant", "checkpoint", "--stop"]);
    assert_eq!(asked.code, 0, "{}", asked.stderr);
    assert_eq!(first.wait(), 200);

    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("image.tar");
    let refused = export(&store, &file, &[]);
    assert_eq!(refused.status.code(), Some(210));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("would hold its memory in the clear"), "{said}");
    assert!(!file.exists());
    let exported = export(&store, &file, &["--decrypt"]);
    assert!(exported.status.success(), "{}", String::from_utf8_lossy(&exported.stderr));
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "nothing else is left");

    let images = directory.path().join("images");
    std::fs::create_dir(&images).unwrap();
    for (name, bytes) in layer(&file).iter().filter(|(name, _)| !name.ends_with('/')) {
        std::fs::write(images.join(name.strip_prefix("checkpoint/").unwrap()), bytes).unwrap();
    }
    let facts: serde_json::Value =
        serde_json::from_slice(&std::fs::read(images.join("revenant-checkpoint.json")).unwrap()).unwrap();
    let fact = |path: &str| facts.pointer(path).unwrap().as_str().unwrap().to_owned();
    let arguments: Vec<&str> = facts["criu"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    // The reaper's program lies where it lay; each pipe of the old container has its heir.
    let reaper = fact("/checkpoint/reaper_path");
    let script = format!(
        "mkdir -p $(dirname {reaper}) && cp /images/revenant-reaper.img {reaper} && chmod 755 {reaper} && cd /images && \
         /opt/revenant/criu/ld-linux-x86-64.so.2 --library-path /opt/revenant/criu /opt/revenant/criu/criu {} \
         --inherit-fd 'fd[7]:{}' --inherit-fd 'fd[8]:{}' 7>&1 8>&2 || tail -n 30 restore.log >&2; sleep 3600",
        arguments.join(" "),
        fact("/checkpoint/stdio/stdout"),
        fact("/checkpoint/stdio/stderr"),
    );
    let next = Container::of("unused").mount(&images, "/images").entrypoint(&["/bin/sh", "-c", &script]).start();
    let saved = Ticks::of(&first.stdout_lines());
    next.wait_for_line(&format!("tick {} ", saved.last() + 3));
    saved.then(Ticks::of(&next.stdout_lines())).assert_unbroken();
}

/// A reader that is not ours. Where none is installed there is nothing to see.
#[test]
fn skopeo_reads_it() {
    if Command::new("skopeo").arg("--version").output().is_err() {
        eprintln!("skopeo is not installed");
        return;
    }
    let store = Store::local();
    let first = Container::of("oci-job").store(&store).env("REVENANT_KEY", KEY).workload("counter.py", &[]).start();
    first.wait_for_line("tick 2 ");
    assert_eq!(first.exec(&["revenant", "checkpoint"]).code, 0);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("image.tar");
    let exported = export(&store, &file, &["--decrypt"]);
    assert!(exported.status.success(), "{}", String::from_utf8_lossy(&exported.stderr));
    let report: serde_json::Value = serde_json::from_slice(&exported.stdout).unwrap();
    let source = format!("oci-archive:{}", file.display());
    let inspected = Command::new("skopeo").args(["inspect", &source]).output().unwrap();
    assert!(inspected.status.success(), "{inspected:?}");
    let image: serde_json::Value = serde_json::from_slice(&inspected.stdout).unwrap();
    assert_eq!(image["Digest"], report["digest"]);
    assert_eq!(image["Labels"]["revenant.checkpoint.job"], "oci-job");
    // Copying checks every digest.
    let copy = directory.path().join("copy");
    let copied = Command::new("skopeo")
        .args(["copy", "--insecure-policy", &source, &format!("dir:{}", copy.display())])
        .output()
        .unwrap();
    assert!(copied.status.success(), "{copied:?}");
}

/// The rows of docs/oci-archive.md about podman and buildah: they show what is in it, and none takes it for a checkpoint of its own.
#[test]
fn podman_and_buildah_show_its_images_and_refuse_to_restore_it() {
    let store = Store::local();
    let first = Container::of("oci-job").store(&store).env("REVENANT_KEY", KEY).workload("counter.py", &[]).start();
    first.wait_for_line("tick 2 ");
    assert_eq!(first.exec(&["revenant", "checkpoint"]).code, 0);
    let podman = Podman::new();
    let exported = export(&store, &podman.folder().join("image.tar"), &["--decrypt"]);
    assert!(exported.status.success(), "{}", String::from_utf8_lossy(&exported.stderr));
    podman.typed("podman load --input image.tar");
    let image = podman.typed("podman images --quiet --no-trunc");
    let image = image.trim();
    podman.typed(&format!("test -s $(podman image mount {image})/checkpoint/revenant-checkpoint.json"));
    podman.typed(&format!("test -s $(buildah mount $(buildah from {image}))/checkpoint/revenant-checkpoint.json"));
    for refused in [
        format!("podman run {image}"),
        format!("podman container restore {image}"),
        "podman container restore --import image.tar".into(),
    ] {
        assert!(!podman.type_line(&refused).status.success(), "{refused}");
    }
}
