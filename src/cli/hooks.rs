//! Options of `revenant run` about programs and signals around saves and restores.

use super::run::time;
use super::triggers::signal_name;
use crate::exit::Exit;
use crate::explain::{Explain, Problem};
use crate::supervisor::hook::{Hook, Hooks, Moment};
use crate::workload::command::Command;
use clap::Args;
use nix::sys::signal::Signal;
use std::time::Duration;

/// How long a save waits after a signal, if nothing else is said.
const USUAL_PAUSE: Duration = Duration::from_secs(1);

/// What is done around saves and restores. A HOOK is a shell command (run by /bin/sh -c), a JSON array of the
/// program and its arguments, or signal:NAME[,TIME] for a signal to the command, after which a save waits for TIME.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Hooks")]
pub struct HookOptions {
    /// Before each save: a shell command, ["PROGRAM", "ARGUMENT", …], or signal:NAME[,TIME] to the command, after which
    /// the save waits for TIME (1s). Its failure does not keep the save from being made
    #[arg(long, env = "REVENANT_BEFORE_SAVE", value_name = "HOOK")]
    before_save: Option<String>,
    /// After each save, durable or failed
    #[arg(long, env = "REVENANT_AFTER_SAVE", value_name = "HOOK")]
    after_save: Option<String>,
    /// After each restore, while the command runs again
    #[arg(long, env = "REVENANT_AFTER_RESTORE", value_name = "HOOK")]
    after_restore: Option<String>,
    /// The longest that a hook may take; less when the end is near. Then it is killed with its process group
    #[arg(long, env = "REVENANT_HOOK_TIMEOUT", value_name = "TIME", default_value = "10s", value_parser = time)]
    hook_timeout: Duration,
}

impl HookOptions {
    /// For the supervisor.
    pub fn hooks(&self) -> Result<Hooks, Problem> {
        Ok(Hooks {
            before_save: resolve(Moment::BeforeSave, self.before_save.as_deref())?,
            after_save: resolve(Moment::AfterSave, self.after_save.as_deref())?,
            after_restore: resolve(Moment::AfterRestore, self.after_restore.as_deref())?,
            timeout: self.hook_timeout,
        })
    }
}

fn resolve(moment: Moment, text: Option<&str>) -> Result<Option<Hook>, Problem> {
    let Some(text) = text.map(str::trim).filter(|text| !text.is_empty()) else { return Ok(None) };
    if let Some(rest) = text.strip_prefix("signal:") {
        let (signal, pause) = signal_and_pause(rest).map_err(|why| refused(moment, text, &why))?;
        return Ok(Some(Hook::Signal { signal, pause }));
    }
    let command = if text.starts_with('[') {
        let words: Vec<String> =
            serde_json::from_str(text).map_err(|error| refused(moment, text, &format!("no JSON: {error}")))?;
        Command::find(&words.into_iter().map(Into::into).collect::<Vec<_>>())
    } else {
        Command::shell(text)
    };
    command.map(|command| Some(Hook::Program(command))).map_err(|error| {
        let found = error.explain();
        Problem::new(Exit::Usage, format!("--{moment} {text}: {}", found.what), found.cause, found.next)
    })
}

fn signal_and_pause(text: &str) -> Result<(Signal, Duration), String> {
    let (name, pause) = text.split_once(',').unwrap_or((text, ""));
    let signal = signal_name(name).ok_or_else(|| format!("{name:?} is no signal"))?;
    if matches!(signal, Signal::SIGKILL | Signal::SIGSTOP) {
        return Err(format!("nothing can handle {signal}"));
    }
    Ok((signal, if pause.is_empty() { USUAL_PAUSE } else { time(pause)? }))
}

fn refused(moment: Moment, text: &str, why: &str) -> Problem {
    Problem::new(
        Exit::Usage,
        format!("--{moment} {text} is not understood: {why}"),
        "a hook is a shell command, a JSON array of a program and its arguments, or signal:NAME[,TIME]",
        format!(
            "write for example --{moment} 'sync /data', --{moment} '[\"/bin/flush\", \"now\"]' or --{moment} signal:USR1,2s"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Option<Hook>, Problem> {
        resolve(Moment::BeforeSave, Some(text))
    }

    #[test]
    fn a_hook_is_a_shell_command_a_program_or_a_signal() {
        assert_eq!(read(" "), Ok(None));
        let Ok(Some(Hook::Program(shell))) = read("sync /data; echo done") else { panic!("no program") };
        assert_eq!(shell.argv, ["/bin/sh", "-c", "sync /data; echo done"]);
        let Ok(Some(Hook::Program(plain))) = read(r#"["/bin/sh", "a b"]"#) else { panic!("no program") };
        assert_eq!(plain.argv, ["/bin/sh", "a b"]);
        let usr1 = |pause| Ok(Some(Hook::Signal { signal: Signal::SIGUSR1, pause }));
        assert_eq!(read("signal:USR1"), usr1(USUAL_PAUSE));
        assert_eq!(read("signal:SIGUSR1,250ms"), usr1(Duration::from_millis(250)));
    }

    #[test]
    fn what_is_not_understood_is_refused_with_an_example() {
        for bad in ["signal:NOPE", "signal:KILL", "signal:USR1,soon", "[\"a\"", "[\"/no/such/program\"]", "[]"] {
            let problem = read(bad).unwrap_err();
            assert_eq!(problem.exit, Exit::Usage.code(), "{bad}");
            assert!(problem.what.contains("--before-save"), "{problem}");
        }
    }
}
