//! What PID 1 does when a save goes well, fails, hangs or crashes: the real entrypoint as PID 1 of a PID
//! namespace, with an engine that follows a script (this same program, started as `/proc/self/exe engine`).
//! How the real engine behaves is tested with CRIU in containers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::pedantic)] // Helpers of tests are outside of `cfg(test)`.

mod entrypoint;

use entrypoint::{code, entrypoint as entrypoint_pid, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::rc::Rc;
use std::time::Duration;

/// Names the folder with the engine's scripts; what it was asked is written there too.
const FOLDER: &str = "SCRIPTED_ENGINE";

/// Ends with 3 on SIGTERM, after a last word; ends with 0 when told to.
const WORKLOAD: &str = r#"
trap 'echo bye > "$0/bye"; exit 3' TERM
echo $$ > "$0/pid.new"; mv "$0/pid.new" "$0/pid"
until [ -e "$0/done" ]; do sleep 0.02; done
"#;

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("run" | "checkpoint" | "status") => revenant::cli::main(),
        Some("engine") => scripted_engine(),
        _ => run_all(),
    }
}

fn run_all() -> ExitCode {
    let tests: [(&str, fn()); 13] = [
        ("a_final_save_ends_with_200_and_nothing_is_left", a_final_save_ends_with_200_and_nothing_is_left),
        ("a_workload_killed_by_its_save_is_saved", a_workload_killed_by_its_save_is_saved),
        ("a_failed_final_save_hands_sigterm_on", a_failed_final_save_hands_sigterm_on),
        ("a_crashed_engine_leaves_the_workload_running", a_crashed_engine_leaves_the_workload_running),
        ("a_second_sigterm_ends_a_save_that_hangs", a_second_sigterm_ends_a_save_that_hangs),
        ("the_deadline_ends_a_save_that_hangs", the_deadline_ends_a_save_that_hangs),
        ("sigterm_during_a_save_makes_a_second_one", sigterm_during_a_save_makes_a_second_one),
        ("sigterm_before_the_start_gives_the_claim_back", sigterm_before_the_start_gives_the_claim_back),
        ("two_requests_share_one_save_and_the_job_completes", two_requests_share_one_save_and_the_job_completes),
        ("a_request_with_stop_ends_with_200", a_request_with_stop_ends_with_200),
        ("a_complete_job_is_not_run_again", a_complete_job_is_not_run_again),
        ("a_refused_restore_ends_with_its_code", a_refused_restore_ends_with_its_code),
        ("a_crash_after_a_restore_is_recorded", a_crash_after_a_restore_is_recorded),
    ];
    let only = std::env::args().nth(1).filter(|word| !word.starts_with('-'));
    let (mut passed, mut failed) = (0, 0);
    for (name, test) in tests.iter().filter(|(name, _)| only.as_ref().is_none_or(|only| name.contains(only.as_str()))) {
        let ok = std::panic::catch_unwind(test).is_ok();
        println!("test {name} ... {}", if ok { "ok" } else { "FAILED" });
        passed += usize::from(ok);
        failed += usize::from(!ok);
    }
    println!("\ntest result: {passed} passed; {failed} failed;");
    ExitCode::from(u8::from(failed > 0))
}

// The tests.

fn a_final_save_ends_with_200_and_nothing_is_left() {
    let run = Run::start(&[("begin", fresh()), ("save-1", json!([frozen(), durable("1-1")])), ("finish", finished())]);
    run.signal(Signal::SIGTERM);
    let folder = run.ends_with(200);
    let asked = folder.asked("save-1");
    assert_eq!((&asked["then"], &asked["reason"]), (&json!("hold"), &json!("SIGTERM")));
    assert!(asked["root_pid"].as_i64() > Some(300) && asked["command_pid"].as_i64() > asked["root_pid"].as_i64());
    assert!((1..30_000).contains(&asked["deadline_ms"].as_u64().unwrap()), "{asked}");
    assert_eq!(folder.asked("finish")["ending"], "stopped");
    assert!(!folder.path("bye").exists(), "the workload must not run on after a final save");
    assert!(folder.said().contains("saved generation 1-1"), "{}", folder.said());
}

/// CRIU kills what it has dumped, and PID 1 may see that before it hears that the save is durable.
fn a_workload_killed_by_its_save_is_saved() {
    let save = json!([frozen(), {"kill": "tree"}, {"wait": "go"}, durable("1-1")]);
    let run = Run::start(&[("begin", fresh()), ("save-1", save), ("finish", finished())]);
    run.signal(Signal::SIGTERM);
    run.folder.wait("killed");
    std::thread::sleep(Duration::from_millis(100));
    run.folder.touch("go");
    let folder = run.ends_with(200);
    assert_eq!(folder.asked("finish")["ending"], "stopped");
}

fn a_failed_final_save_hands_sigterm_on() {
    let run = Run::start(&[("begin", fresh()), ("save-1", json!([frozen(), failed(205)])), ("finish", finished())]);
    run.signal(Signal::SIGTERM);
    let folder = run.ends_with(201);
    assert!(folder.path("bye").exists());
    assert_eq!(folder.asked("finish")["ending"], "stopped", "an end after SIGTERM is not the job's end");
    assert!(folder.said().contains("there is no checkpoint"), "{}", folder.said());
}

fn a_crashed_engine_leaves_the_workload_running() {
    let crash = json!([frozen(), {"stop": "tree"}, {"do": "crash"}]);
    let run = Run::start(&[
        ("begin", fresh()),
        ("save-1", crash),
        ("save-2", json!([durable("1-1")])),
        ("finish", finished()),
    ]);
    assert_ne!(run.checkpoint(&[]).wait().unwrap().code(), Some(0));
    // It was stopped, and runs on: it notices that it is done.
    run.folder.touch("done");
    let folder = run.ends_with(0);
    assert_eq!(folder.asked("finish")["ending"], "complete");
}

fn a_second_sigterm_ends_a_save_that_hangs() {
    let run = Run::start(&[("begin", fresh()), ("save-1", json!([frozen(), {"do": "hang"}])), ("finish", finished())]);
    run.signal(Signal::SIGTERM);
    run.folder.wait("save-1.asked");
    run.signal(Signal::SIGTERM);
    assert!(run.ends_with(201).path("bye").exists());
}

fn the_deadline_ends_a_save_that_hangs() {
    let scripts = [("begin", fresh()), ("save-1", json!([frozen(), {"do": "hang"}])), ("finish", finished())];
    let run = Run::start_with(&["--grace", "6s"], &scripts);
    run.signal(Signal::SIGTERM);
    assert!(run.ends_with(201).path("bye").exists());
}

fn sigterm_during_a_save_makes_a_second_one() {
    let first = json!([frozen(), released(), {"wait": "go"}, durable("1-1")]);
    let run = Run::start(&[
        ("begin", fresh()),
        ("save-1", first),
        ("save-2", json!([durable("1-2")])),
        ("finish", finished()),
    ]);
    run.signal(Signal::SIGUSR1);
    run.folder.wait("save-1.asked");
    run.signal(Signal::SIGTERM);
    std::thread::sleep(Duration::from_millis(50));
    run.folder.touch("go");
    let folder = run.ends_with(200);
    assert_eq!(folder.asked("save-1")["then"], "run-on");
    assert_eq!(folder.asked("save-2")["then"], "hold");
    assert_eq!(folder.asked("save-2")["base"], "1-1");
}

fn sigterm_before_the_start_gives_the_claim_back() {
    let run = Run::start_early(&[("begin", json!([claimed(), {"do": "hang"}])), ("finish", finished())]);
    run.folder.wait("begin.asked");
    // Until the claim has been heard of; there is nothing that shows it from outside.
    std::thread::sleep(Duration::from_millis(300));
    run.signal(Signal::SIGTERM);
    let folder = run.ends_with(209);
    assert!(!folder.path("pid").exists(), "the workload must not have run");
    assert_eq!(folder.asked("finish")["ending"], "stopped");
}

fn two_requests_share_one_save_and_the_job_completes() {
    let save = json!([frozen(), released(), {"wait": "go"}, durable("1-1")]);
    let run = Run::start(&[("begin", fresh()), ("save-1", save), ("finish", finished())]);
    let mut first = run.checkpoint(&[]);
    run.folder.wait("save-1.asked");
    let mut second = run.checkpoint(&["--json"]);
    std::thread::sleep(Duration::from_millis(200));
    run.folder.touch("go");
    assert!(first.wait().unwrap().success() && second.wait().unwrap().success());
    let mut text = String::new();
    second.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert!(text.contains(r#""generation":"1-1""#), "{text}");
    run.folder.touch("done");
    let folder = run.ends_with(0);
    assert!(!folder.path("save-2.asked").exists());
    assert_eq!(folder.asked("finish")["ending"], "complete");
}

fn a_request_with_stop_ends_with_200() {
    let run = Run::start(&[("begin", fresh()), ("save-1", json!([frozen(), durable("1-1")])), ("finish", finished())]);
    assert!(run.checkpoint(&["--stop"]).wait().unwrap().success());
    assert_eq!(run.ends_with(200).asked("save-1")["deadline_ms"], Value::Null);
}

fn a_complete_job_is_not_run_again() {
    let complete = json!([{"event": "began", "outcome": {"outcome": "already-complete", "at": epoch_time()}}]);
    let folder = Run::start_early(&[("begin", complete)]).ends_with(0);
    assert!(!folder.path("pid").exists() && folder.said().contains("nothing to do"));
}

fn a_refused_restore_ends_with_its_code() {
    let folder = Run::start_early(&[("begin", json!([claimed(), failed(202)])), ("finish", finished())]).ends_with(202);
    assert!(!folder.path("pid").exists());
    assert_eq!(folder.asked("finish")["ending"], "stopped");
}

fn a_crash_after_a_restore_is_recorded() {
    let folder =
        Run::start_early(&[("begin", json!([claimed(), {"restore": "exit 6"}])), ("finish", finished())]).ends_with(6);
    assert_eq!(folder.asked("finish")["ending"]["failed"], json!({"code": 6, "crashed_after_restore_of": "1-1"}));
}

// The events of a script.

fn fresh() -> Value {
    json!([claimed(), {"event": "began", "outcome": {"outcome": "start-fresh"}}])
}

fn claimed() -> Value {
    json!({"event": "claimed", "epoch": 1})
}

fn frozen() -> Value {
    json!({"event": "frozen"})
}

fn released() -> Value {
    json!({"event": "released", "frozen_ms": 12})
}

fn durable(generation: &str) -> Value {
    json!({"event": "durable", "generation": generation, "at": epoch_time(), "image_bytes": 1 << 20, "stored_bytes": 1000,
           "frozen_ms": 12, "total_ms": 34})
}

fn failed(exit: u8) -> Value {
    json!({"event": "failed", "problem": {"what": "it failed", "cause": "a script says so", "next": "nothing", "exit": exit}})
}

fn finished() -> Value {
    json!([{"event": "finished"}])
}

fn epoch_time() -> Value {
    json!({"secs_since_epoch": 1_700_000_000, "nanos_since_epoch": 0})
}

// The run under test.

struct Run {
    unshare: Child,
    folder: Rc<Folder>,
}

struct Folder(tempfile::TempDir);

impl Run {
    /// Starts, and waits until the workload runs.
    fn start(scripts: &[(&str, Value)]) -> Self {
        Self::start_with(&[], scripts)
    }

    fn start_with(options: &[&str], scripts: &[(&str, Value)]) -> Self {
        let run = Self::begin(options, scripts);
        run.folder.wait("pid");
        run
    }

    /// Starts only.
    fn start_early(scripts: &[(&str, Value)]) -> Self {
        Self::begin(&[], scripts)
    }

    fn begin(options: &[&str], scripts: &[(&str, Value)]) -> Self {
        let folder = Rc::new(Folder(tempfile::tempdir().unwrap()));
        for (name, script) in scripts {
            fs::write(folder.path(name), script.to_string()).unwrap();
        }
        let mut command = Command::new("unshare");
        if !nix::unistd::geteuid().is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        command.args(["--pid", "--fork", "--kill-child", "--mount-proc"]).arg(std::env::current_exe().unwrap());
        command.args(["run", "--job", "test", "--store", "file:///nowhere"]).args(options);
        command.args(["--", "/bin/sh", "-c", WORKLOAD]).arg(folder.0.path());
        command.env(FOLDER, folder.0.path()).env("REVENANT_RUNTIME_DIR", folder.path("run")).stdin(Stdio::null());
        command.stderr(fs::File::create(folder.path("said")).unwrap());
        Self { unshare: command.spawn().unwrap(), folder }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(entrypoint_pid(&self.unshare)), signal).unwrap();
    }

    fn checkpoint(&self, options: &[&str]) -> Child {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg("checkpoint").args(options).env("REVENANT_RUNTIME_DIR", self.folder.path("run"));
        command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
    }

    fn ends_with(mut self, expected: i32) -> Rc<Folder> {
        let status = until(|| self.unshare.try_wait().unwrap());
        assert_eq!(code(status), expected, "{}", self.folder.said());
        self.folder.clone()
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // Takes the whole PID namespace with it (`--kill-child`).
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
    }
}

impl Folder {
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn wait(&self, name: &str) {
        until(|| self.path(name).exists().then_some(()));
    }

    fn touch(&self, name: &str) {
        fs::write(self.path(name), "").unwrap();
    }

    /// What the engine was asked.
    fn asked(&self, name: &str) -> Value {
        serde_json::from_slice(&fs::read(self.path(&format!("{name}.asked"))).unwrap()).unwrap()
    }

    /// The container's log.
    fn said(&self) -> String {
        fs::read_to_string(self.path("said")).unwrap()
    }
}

// The engine.

fn scripted_engine() -> ExitCode {
    let folder = PathBuf::from(std::env::var_os(FOLDER).unwrap());
    let request: Value = serde_json::Deserializer::from_reader(std::io::stdin()).into_iter().next().unwrap().unwrap();
    let name = match request["request"].as_str().unwrap() {
        "save" => {
            (1..100).map(|n| format!("save-{n}")).find(|name| !folder.join(format!("{name}.asked")).exists()).unwrap()
        }
        other => other.to_owned(),
    };
    fs::write(folder.join("asked.new"), request.to_string()).unwrap();
    fs::rename(folder.join("asked.new"), folder.join(format!("{name}.asked"))).unwrap();
    let script: Vec<Value> = serde_json::from_slice(&fs::read(folder.join(&name)).unwrap()).unwrap();
    for step in script {
        if step["event"].is_string() {
            println!("{step}");
        } else {
            perform(&folder, &request, &step);
        }
    }
    ExitCode::SUCCESS
}

fn perform(folder: &Path, request: &Value, step: &Value) {
    if let Some(file) = step["wait"].as_str() {
        until(|| folder.join(file).exists().then_some(()));
    } else if step["stop"].is_string() {
        let pid = request["command_pid"].as_i64().unwrap().try_into().unwrap();
        kill(Pid::from_raw(pid), Signal::SIGSTOP).unwrap();
    } else if step["kill"].is_string() {
        for process in
            revenant::workload::tree::below(request["root_pid"].as_i64().unwrap().try_into().unwrap()).unwrap()
        {
            match kill(Pid::from_raw(process.pid), Signal::SIGKILL) {
                // A `sleep` of the workload may have ended since it was listed.
                Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
                Err(error) => panic!("cannot kill {}: {error}", process.pid),
            }
        }
        fs::write(folder.join("killed"), "").unwrap();
    } else if step["do"] == "crash" {
        kill(Pid::this(), Signal::SIGKILL).unwrap();
    } else if step["do"] == "hang" {
        let ignore = nix::sys::signal::SigSet::all();
        ignore.thread_block().unwrap();
        std::thread::sleep(Duration::from_secs(600));
    } else if let Some(script) = step["restore"].as_str() {
        // As CRIU does it: the tree's root loses its parent and comes to PID 1.
        let text = format!(
            "(while kill -0 {0} 2>/dev/null; do sleep 0.01; done; {script}) > /dev/null 2>&1 & echo $!",
            std::process::id()
        );
        let shell = Command::new("/bin/sh").args(["-c", &text]).stdin(Stdio::null()).output().unwrap();
        let root: i32 = String::from_utf8(shell.stdout).unwrap().trim().parse().unwrap();
        println!(
            "{}",
            json!({"event": "began", "outcome": {"outcome": "restored", "generation": "1-1", "saved_at": epoch_time(),
                   "root_pid": root, "command_pid": root, "took_ms": 5, "stdio": {}}})
        );
    }
}
