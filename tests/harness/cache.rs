//! Where the things lie that `make test-needs` has made.

use std::path::{Path, PathBuf};

fn cache() -> PathBuf {
    if let Some(path) = std::env::var_os("REVENANT_CACHE").filter(|path| !path.is_empty()) {
        return PathBuf::from(path);
    }
    let base = std::env::var_os("XDG_CACHE_HOME").filter(|path| !path.is_empty()).map_or_else(
        || PathBuf::from(std::env::var_os("HOME").expect("HOME is not set")).join(".cache"),
        PathBuf::from,
    );
    base.join("revenant")
}

fn made(name: &str) -> PathBuf {
    let path = cache().join(name);
    path.canonicalize().unwrap_or_else(|_| panic!("{} is missing; run `make test-needs` first", path.display()))
}

/// The directory of the CRIU bundle.
pub fn criu() -> PathBuf {
    made("criu")
}

/// A root file system, never to be written to.
pub fn rootfs(variant: &str) -> PathBuf {
    made(&format!("rootfs/{variant}"))
}

/// The `SeaweedFS` program.
pub fn seaweedfs() -> PathBuf {
    made("seaweedfs/bin/weed")
}

/// The revenant under test, of the same profile as the test.
pub fn revenant() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_revenant"))
}

/// The workloads that tests run, mounted at `/workloads`.
pub fn workloads() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/workloads")
}
