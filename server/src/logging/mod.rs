//! Log lines in etcd's form, written by a thread of their own.
//!
//! In reading order: `line` formats one line; `layer` receives events from `tracing` and formats them on
//! the core where they happen; `writer` is the bounded queue and the thread that writes to the outputs; `rotate` is a file
//! that is put aside when it is full, `journal` that of systemd.
//!
//! Always true here: logging never waits. A slow terminal or disk fills the queue, then lines are dropped,
//! counted, and the count is logged. Set up once by the main thread with `init`; everyone else just uses
//! `tracing`.

mod journal;
mod layer;
mod line;
mod rotate;
mod writer;

use std::io::IsTerminal;
use std::path::PathBuf;

pub use layer::{fatal, init};
pub use rotate::Rotation;
pub use writer::lines_dropped;

/// What is logged, how, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogConfig {
    pub level: LogLevel,
    pub format: LogFormat,
    /// Whether the operator asked for that format.
    pub is_format_given: bool,
    /// Each gets every line. Empty: nothing is written.
    pub outputs: Vec<LogOutput>,
}

impl LogConfig {
    /// The format asked for; without a wish JSON as in etcd, but for people who look on lines they can read.
    fn effective_format(&self) -> LogFormat {
        let is_terminal = |output: &LogOutput| match output {
            LogOutput::Stderr => std::io::stderr().is_terminal(),
            LogOutput::Stdout => std::io::stdout().is_terminal(),
            LogOutput::File(_) | LogOutput::Rotated(..) | LogOutput::Journal => false,
        };
        if !self.is_format_given && !self.outputs.is_empty() && self.outputs.iter().all(is_terminal)
        {
            return LogFormat::Console;
        }
        self.format
    }
}

/// Severities by zap's names, least severe first. Events have the first four; the last two only silence.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum LogLevel {
    Debug,
    Info,
    Warn,
    Error,
    Panic,
    Fatal,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// Tab-separated columns for people.
    Console,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LogOutput {
    Stderr,
    Stdout,
    /// Appended to, created if absent.
    File(PathBuf),
    /// The same, and put aside when it is full.
    Rotated(PathBuf, Rotation),
    /// `systemd/journal`.
    Journal,
}

impl LogLevel {
    pub fn name(self) -> &'static str {
        match self {
            LogLevel::Debug => "debug",
            LogLevel::Info => "info",
            LogLevel::Warn => "warn",
            LogLevel::Error => "error",
            LogLevel::Panic => "panic",
            LogLevel::Fatal => "fatal",
        }
    }
}
