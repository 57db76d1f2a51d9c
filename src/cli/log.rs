//! How revenant's own messages look: plain sentences for people, or JSON for machines, on stderr.

mod json;

use crate::observe::log_form;
use clap::{Args, ValueEnum};
use json::Lines;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{OutputFlags, tcgetattr};
use std::fmt::{self, Write as _};
use std::io::{self, Write};
use std::os::fd::AsFd;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::field::Visit;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::prelude::*;
use tracing_subscriber::registry::LookupSpan;

/// Options of every subcommand.
#[derive(Debug, Clone, Args)]
pub struct LogOptions {
    /// Sentences for people, or one JSON object per line
    #[arg(long, env = "REVENANT_LOG_FORMAT", value_enum, default_value = "human", global = true)]
    #[arg(help_heading = "Messages")]
    pub log_format: LogFormat,
    /// How much to tell
    #[arg(long, env = "REVENANT_LOG_LEVEL", value_enum, default_value = "info", global = true)]
    #[arg(help_heading = "Messages")]
    pub log_level: LogLevel,
}

/// See [`LogOptions::log_format`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Sentences.
    Human,
    /// JSON lines.
    Json,
}

/// See [`LogOptions::log_level`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// Nothing but failures.
    Error,
    /// And what went wrong without stopping the work.
    Warn,
    /// And what an operator wants to read once.
    Info,
    /// And what the developers want to know.
    Debug,
    /// Everything.
    Trace,
}

impl LogFormat {
    fn name(self) -> &'static str {
        match self {
            Self::Human => "human",
            Self::Json => "json",
        }
    }
}

impl LogLevel {
    fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

impl LogOptions {
    /// Sends all messages of this process to stderr in this form.
    pub fn install(&self) {
        let level = match self.log_level {
            LogLevel::Error => LevelFilter::ERROR,
            LogLevel::Warn => LevelFilter::WARN,
            LogLevel::Info => LevelFilter::INFO,
            LogLevel::Debug => LevelFilter::DEBUG,
            LogLevel::Trace => LevelFilter::TRACE,
        };
        log_form::remember(self.log_format.name(), self.log_level.name());
        let registry = tracing_subscriber::registry().with(level);
        let result = match self.log_format {
            LogFormat::Json => {
                let json = tracing_subscriber::fmt::layer().event_format(Lines).with_ansi(false);
                registry.with(json.with_writer(Stderr)).try_init()
            }
            LogFormat::Human => {
                let human = tracing_subscriber::fmt::layer().event_format(Sentences).with_ansi(false);
                registry.with(human.with_writer(Stderr)).try_init()
            }
        };
        // Only a second call could fail, and then messages go where they went before.
        debug_assert!(result.is_ok());
    }
}

/// `revenant: a sentence`. Below info, the fields too.
struct Sentences;

impl<S, N> FormatEvent<S, N> for Sentences
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut said = Said::default();
        event.record(&mut said);
        let level = *event.metadata().level();
        let mark = match level {
            Level::ERROR => "error: ",
            Level::WARN => "warning: ",
            Level::DEBUG | Level::TRACE => "debug: ",
            Level::INFO => "",
        };
        write!(out, "revenant: {mark}{}", said.message)?;
        if level > Level::INFO {
            write!(out, "{}", said.fields)?;
        }
        writeln!(out)
    }
}

#[derive(Default)]
struct Said {
    message: String,
    fields: String,
}

impl Visit for Said {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        } else {
            let _ = write!(self.fields, " {}={value:?}", field.name());
        }
    }
}

/// Stderr; on a terminal that is in raw mode each line also returns the carriage.
struct Stderr;

impl<'a> MakeWriter<'a> for Stderr {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        Self
    }
}

impl Write for Stderr {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let stderr = io::stderr();
        if !takes_more(&stderr) {
            return Ok(text.len());
        }
        let raw = tcgetattr(&stderr).is_ok_and(|modes| !modes.output_flags.contains(OutputFlags::OPOST));
        if raw {
            let lines = String::from_utf8_lossy(text).replace('\n', "\r\n");
            stderr.lock().write_all(lines.as_bytes())?;
        } else {
            stderr.lock().write_all(text)?;
        }
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How long a line waits for a reader that has stopped reading. PID 1 must not stand still because
/// the container's log does: the line is dropped then. In milliseconds.
const PATIENCE: u8 = 100;

/// Whether a line can be written without blocking: a pipe that polls writable takes `PIPE_BUF` bytes.
fn takes_more(stderr: &io::Stderr) -> bool {
    poll(&mut [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)], PollTimeout::from(PATIENCE))
        .is_ok_and(|ready| ready > 0)
}
