//! From the words on the command line to the program that the kernel will execute.

use crate::exit::Exit;
use crate::explain::{Explain, Problem};
use nix::unistd::{AccessFlags, access};
use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Where shells look when `PATH` is not set.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program that exists and may be executed, with its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Absolute path.
    pub program: PathBuf,
    /// `argv`, from argv\[0\] on, as the user wrote it.
    pub argv: Vec<OsString>,
}

/// Why a command cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// Nothing to run.
    #[error("no command was given")]
    Missing,
    /// No such program.
    #[error("command not found: {}", .0.display())]
    NotFound(OsString),
    /// It is there, but not a program that this user may run.
    #[error("command cannot be executed: {}", .0.display())]
    NotExecutable(PathBuf),
}

impl Explain for CommandError {
    fn explain(&self) -> Problem {
        match self {
            Self::Missing => Problem::new(
                Exit::Usage,
                "no command was given",
                "revenant runs a program, and was not told which",
                "write it after two dashes: revenant run -- COMMAND ARGUMENTS…",
            ),
            Self::NotFound(name) => Problem::new(
                Exit::NotFound,
                format!("command not found: {}", name.display()),
                if name.as_bytes().contains(&b'/') {
                    "no such file in this container".to_owned()
                } else {
                    let path = env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
                    format!("no such program in PATH ({})", path.display())
                },
                "check the spelling, and that the image has the tool (its path may differ from your own machine's)",
            ),
            Self::NotExecutable(path) => Problem::new(
                Exit::NotExecutable,
                format!("command cannot be executed: {}", path.display()),
                if path.is_dir() { "it is a directory" } else { "the file has no execute permission for this user" },
                format!("make it executable in the image (chmod +x {}), or name another program", path.display()),
            ),
        }
    }
}

impl Command {
    /// Finds the program as a shell would: by path if it has a slash, else in `PATH`.
    pub fn find(argv: &[OsString]) -> Result<Self, CommandError> {
        let path = env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
        let here = env::current_dir().unwrap_or_else(|_| "/".into());
        Self::find_in(argv, &path, &here)
    }

    /// `text` as a shell command line.
    pub fn shell(text: &str) -> Result<Self, CommandError> {
        Self::find(&["/bin/sh".into(), "-c".into(), text.into()])
    }

    fn find_in(argv: &[OsString], path: &OsStr, here: &Path) -> Result<Self, CommandError> {
        let name = argv.first().filter(|name| !name.is_empty()).ok_or(CommandError::Missing)?;
        let candidates: Vec<PathBuf> = if name.as_bytes().contains(&b'/') {
            vec![here.join(name)]
        } else {
            env::split_paths(path).map(|folder| here.join(folder).join(name)).collect()
        };
        let mut refused = None;
        for candidate in candidates {
            if candidate.is_file() && access(&candidate, AccessFlags::X_OK).is_ok() {
                return Ok(Self { program: candidate, argv: argv.to_vec() });
            }
            if candidate.exists() {
                refused.get_or_insert(candidate);
            }
        }
        Err(refused.map_or_else(|| CommandError::NotFound(name.clone()), CommandError::NotExecutable))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(words: &[&str]) -> Result<Command, CommandError> {
        let argv: Vec<OsString> = words.iter().map(Into::into).collect();
        Command::find_in(&argv, OsStr::new("/usr/bin:/bin"), Path::new("/etc"))
    }

    #[test]
    fn finds_programs_as_a_shell_does() {
        assert!(find(&["sh", "-c"]).unwrap().program.ends_with("sh"));
        assert_eq!(find(&["/bin/sh"]).unwrap().program, Path::new("/bin/sh"));
        assert_eq!(find(&["../bin/sh"]).unwrap().program, Path::new("/etc/../bin/sh"));
    }

    #[test]
    fn tells_missing_from_not_executable() {
        assert_eq!(find(&["no-such-tool"]).unwrap_err().explain().exit, 127);
        assert_eq!(find(&["./passwd"]).unwrap_err().explain().exit, 126);
        assert_eq!(find(&["/usr/bin"]).unwrap_err().explain().exit, 126);
        assert_eq!(find(&[]).unwrap_err().explain().exit, 210);
        assert_eq!(find(&[""]).unwrap_err().explain().exit, 210);
    }
}
