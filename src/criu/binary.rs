//! Where CRIU lies, how it is run, and which version it is.
//!
//! CRIU comes as a bundle: a directory with `criu`, its libraries and its own dynamic loader, so
//! that it runs in any base image. A bundle is run as `LOADER --library-path DIR DIR/criu …`; a
//! single program is run as it is.

use super::error::CriuError;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// Names a criu program or a bundle directory, before any other place is looked at.
pub const CRIU_VARIABLE: &str = "REVENANT_CRIU";

/// The oldest CRIU that works: 4.1.1 cannot dump sockets on kernels ≥ 6.16, nor the guard pages of
/// newer thread stacks.
pub const OLDEST: Version = Version { major: 4, minor: 2, patch: 0 };

const INSTALLED: &str = "/opt/revenant/criu";

#[cfg(target_arch = "x86_64")]
const LOADER: &str = "ld-linux-x86-64.so.2";
#[cfg(target_arch = "aarch64")]
const LOADER: &str = "ld-linux-aarch64.so.1";

/// A CRIU that was found. Cheap to clone and to keep.
#[derive(Debug, Clone)]
pub struct Criu {
    /// What was named: a program or a bundle directory.
    path: PathBuf,
    /// The program to execute, and the arguments that come before CRIU's own.
    program: PathBuf,
    leading: Vec<OsString>,
    version: OnceLock<Version>,
}

/// CRIU's version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// 4 in 4.2.1.
    pub major: u32,
    /// 2 in 4.2.1.
    pub minor: u32,
    /// 1 in 4.2.1.
    pub patch: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { major, minor, patch } = self;
        if *patch == 0 { write!(f, "{major}.{minor}") } else { write!(f, "{major}.{minor}.{patch}") }
    }
}

impl Criu {
    /// Finds CRIU: `REVENANT_CRIU`, else the bundle beside this program (`../criu`), else
    /// `/opt/revenant/criu`. A place that was named but holds no CRIU is an error, not skipped.
    pub fn locate() -> Result<Self, CriuError> {
        if let Some(named) = std::env::var_os(CRIU_VARIABLE).filter(|named| !named.is_empty()) {
            return Self::at(Path::new(&named));
        }
        let beside =
            std::fs::read_link("/proc/self/exe").ok().and_then(|exe| Some(exe.parent()?.parent()?.join("criu")));
        let looked: Vec<PathBuf> = beside.into_iter().chain([PathBuf::from(INSTALLED)]).collect();
        match looked.iter().find(|place| place.exists()) {
            Some(place) => Self::at(place),
            None => Err(CriuError::Missing { looked }),
        }
    }

    /// CRIU at this path: a program or a bundle directory.
    pub fn at(path: &Path) -> Result<Self, CriuError> {
        let missing = |place: PathBuf| CriuError::Missing { looked: vec![place] };
        // CRIU changes its working directory; a relative path would lead elsewhere then.
        let path = path.canonicalize().map_err(|_| missing(path.to_owned()))?;
        if !path.is_dir() {
            return Ok(Self { program: path.clone(), path, leading: Vec::new(), version: OnceLock::new() });
        }
        let (loader, criu) = (path.join(LOADER), path.join("criu"));
        for part in [&criu, &loader] {
            if !part.is_file() {
                return Err(missing(part.clone()));
            }
        }
        let leading = vec!["--library-path".into(), path.clone().into(), criu.into()];
        Ok(Self { path, program: loader, leading, version: OnceLock::new() })
    }

    /// The program or bundle directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A command that runs CRIU; its own arguments are still to be added. The environment is
    /// empty but for `PATH`: CRIU must not see secrets nor settings meant for the workload.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.leading).env_clear();
        command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command
    }

    /// The version, from `criu --version` the first time (some milliseconds), then remembered.
    pub fn version(&self) -> Result<Version, CriuError> {
        if let Some(version) = self.version.get() {
            return Ok(*version);
        }
        let refuse = |reason: String| CriuError::NotRunnable { path: self.path.clone(), reason };
        let output =
            self.command().arg("--version").stdin(Stdio::null()).output().map_err(|error| refuse(error.to_string()))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(refuse(format!("{}: {}", output.status, said.trim().chars().take(300).collect::<String>())));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let version = parse_version(&text).ok_or_else(|| CriuError::NoVersion {
            path: self.path.clone(),
            output: text.chars().take(200).collect(),
        })?;
        Ok(*self.version.get_or_init(|| version))
    }

    /// The version, or the reason why it is refused.
    pub fn supported_version(&self) -> Result<Version, CriuError> {
        let version = self.version()?;
        if version < OLDEST {
            return Err(CriuError::TooOld { path: self.path.clone(), version });
        }
        Ok(version)
    }
}

/// Reads the version out of what `criu --version` prints (`Version: 4.2.1`, perhaps with a
/// suffix such as `-rc1` or a `GitID:` line).
pub fn parse_version(output: &str) -> Option<Version> {
    let text = output.lines().find_map(|line| line.trim().strip_prefix("Version:"))?.trim();
    let number = text.split(|c: char| !(c.is_ascii_digit() || c == '.')).next()?;
    let mut parts = number.split('.').map(str::parse::<u32>);
    let major = parts.next()?.ok()?;
    let minor = parts.next().unwrap_or(Ok(0)).ok()?;
    let patch = parts.next().unwrap_or(Ok(0)).ok()?;
    Some(Version { major, minor, patch })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::Explain;
    use std::os::unix::fs::PermissionsExt;

    fn version(major: u32, minor: u32, patch: u32) -> Version {
        Version { major, minor, patch }
    }

    #[test]
    fn reads_versions_as_criu_prints_them() {
        assert_eq!(parse_version("Version: 4.2.1\n"), Some(version(4, 2, 1)));
        assert_eq!(parse_version("Version: 4.2\nGitID: v4.2-3-gabcdef\n"), Some(version(4, 2, 0)));
        assert_eq!(parse_version("Version: 5.0-rc1\n"), Some(version(5, 0, 0)));
        assert_eq!(parse_version("Usage: criu"), None);
        assert_eq!(parse_version("Version: none"), None);
    }

    #[test]
    fn writes_versions_as_criu_does() {
        assert_eq!(version(4, 2, 0).to_string(), "4.2");
        assert_eq!(version(3, 17, 1).to_string(), "3.17.1");
    }

    fn fake(dir: &Path, script: &str) -> PathBuf {
        let path = dir.join("criu");
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn refuses_an_old_criu_and_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let criu = Criu::at(&fake(dir.path(), "#!/bin/sh\necho Version: 3.17.1\n")).unwrap();
        let problem = criu.supported_version().unwrap_err().explain();
        assert_eq!(problem.exit, crate::exit::Exit::CriuUnusable.code());
        assert!(problem.what.contains("3.17.1") && problem.what.contains("too old"), "{problem}");
        assert!(problem.next.contains("4.2"), "{problem}");
    }

    #[test]
    fn a_program_that_cannot_run_is_told_with_its_words() {
        let dir = tempfile::tempdir().unwrap();
        let criu = Criu::at(&fake(dir.path(), "#!/bin/sh\necho libnet.so.9: cannot open >&2; exit 127\n")).unwrap();
        let problem = criu.version().unwrap_err().explain();
        assert!(problem.cause.contains("libnet.so.9"), "{problem}");
    }

    #[test]
    fn a_bundle_without_its_loader_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fake(dir.path(), "");
        let error = Criu::at(dir.path()).unwrap_err();
        assert!(error.to_string().contains(LOADER), "{error}");
    }

    #[test]
    fn a_named_place_without_criu_is_an_error() {
        let error = Criu::at(Path::new("/nonexistent/criu")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/criu"));
    }

    #[test]
    fn a_bundle_runs_by_its_own_loader() {
        let dir = tempfile::tempdir().unwrap();
        fake(dir.path(), "");
        std::fs::write(dir.path().join(LOADER), "").unwrap();
        let bundle = dir.path().canonicalize().unwrap();
        let command = Criu::at(&bundle).unwrap().command();
        assert_eq!(command.get_program(), bundle.join(LOADER));
        let arguments: Vec<_> = command.get_args().collect();
        assert_eq!(arguments, ["--library-path".as_ref(), bundle.as_os_str(), bundle.join("criu").as_os_str()]);
    }
}
