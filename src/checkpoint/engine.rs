//! The engine process: one request in, events out, then the end.

use super::protocol::{Event, Observation, Request};
use crate::exit::Exit;
use crate::explain::Problem;
use crate::observe::identity;
use std::io::{self, BufRead, Read, Write};
use std::process::ExitCode;
use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;
use tokio::runtime::Runtime;

/// The most threads for what blocks: files and names.
const BLOCKING: usize = 8;

/// How long an idle one lives: as long as the engine.
const KEPT: Duration = Duration::from_secs(24 * 3600);

/// The longest request that is read, in bytes.
const MAX_REQUEST: u64 = 1 << 20;

/// Where events go; cheap to clone, and usable from every thread.
#[derive(Clone)]
pub struct Events {
    sink: Arc<Mutex<dyn Write + Send>>,
}

impl Events {
    /// Events as JSON lines into `sink`.
    pub fn into_writer(sink: impl Write + Send + 'static) -> Self {
        Self { sink: Arc::new(Mutex::new(sink)) }
    }

    /// Sends one event. A reader that went away is not an error: PID 1 may have decided to give up
    /// waiting, and what is under way must still end in order.
    pub fn send(&self, event: &Event) {
        if let (Ok(mut line), Ok(mut sink)) = (serde_json::to_vec(event), self.sink.lock()) {
            line.push(b'\n');
            let _ = sink.write_all(&line).and_then(|()| sink.flush());
        }
    }

    /// Asks PID 1 whether the restored workload may run; false when it has decided otherwise, or is gone.
    pub fn may_run(&self) -> bool {
        self.send(&Event::Ready);
        io::stdin().lock().read_exact(&mut [0]).is_ok()
    }

    /// Tells an operator one sentence.
    pub fn notice(&self, message: impl Into<String>) {
        self.send(&Event::Notice { message: message.into() });
    }

    /// Tells of a trouble that does not end the work.
    pub fn warn(&self, problem: Problem) {
        self.send(&Event::Warning { problem });
    }
}

/// Reads the request from stdin, serves it, and reports on stdout.
pub fn run() -> ExitCode {
    let events = Events::into_writer(io::stdout());
    // Of the program file's own capabilities; where they cannot be had, what needs them says so.
    let _ = crate::workload::credentials::use_permitted();
    let result = read_request(io::stdin().lock()).and_then(|request| serve(request, &events));
    if let Err(problem) = result {
        events.send(&Event::Failed { problem });
    }
    let trouble = crate::store::take_trouble();
    if trouble != crate::store::Trouble::default() {
        events.send(&Event::Observed(Observation::Store { errors: trouble.errors, retries: trouble.retries }));
    }
    ExitCode::SUCCESS
}

/// Makes all threads now. One that is born while the kernel's PID cursor is pushed through the IDs of a checkpoint would
/// get one of them.
fn be_born(runtime: &Runtime) {
    let all = Arc::new(Barrier::new(BLOCKING + 1));
    for _ in 0..BLOCKING {
        let all = all.clone();
        runtime.spawn_blocking(move || all.wait());
    }
    all.wait();
}

fn read_request(input: impl BufRead) -> Result<Request, Problem> {
    let mut text = String::new();
    let read = input.take(MAX_REQUEST).read_line(&mut text);
    read.map_err(|error| error.to_string())
        .and_then(|_| serde_json::from_str(&text).map_err(|error| error.to_string()))
        .map_err(|error| {
            Problem::new(
                Exit::Internal,
                format!("the engine cannot read its request: {error}"),
                "`revenant engine` is started by `revenant run`, not by people",
                "use `revenant checkpoint` to save, `revenant run` to start",
            )
        })
}

fn serve(request: Request, events: &Events) -> Result<(), Problem> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        // Few threads: each takes a PID that a restore may need.
        .max_blocking_threads(BLOCKING)
        .thread_keep_alive(KEPT)
        .enable_all()
        .build()
        .map_err(|error| {
            Problem::new(
                Exit::Internal,
                format!("the engine cannot start its threads: {error}"),
                "the container may be at its limit of processes (pids.max)",
                "raise the pod's PID limit",
            )
        })?;
    if matches!(request, Request::Begin(_)) {
        be_born(&runtime);
    }
    if let Some(context) = request.context() {
        identity::speak_for(&context.job);
    }
    match request {
        Request::Begin(begin) => {
            let result = super::begin::serve(&begin, events, &runtime);
            if result.is_err() {
                // Threads that bring memory may still wait for the store by it. They end with this process, which is next.
                std::mem::forget(runtime);
            }
            result
        }
        Request::Save(save) => super::save::serve(&save, events, &runtime),
        Request::Finish(finish) => super::finish::serve(&finish, events, &runtime),
        Request::Look(look) => super::foresight::serve(&look, events),
    }
}
