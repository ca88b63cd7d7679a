//! The queue of finished lines and the thread that writes them.
//!
//! Always true here: putting a line in the queue never waits; the queue holds at most `LINES_MAX` lines;
//! a line that finds it full is dropped and counted, and the next line written says how many were. Lines
//! of one thread stay in order. A failing output is given up alone, after saying so on stderr.
//!
//! One thread per process, started by `init`. It may block as long as it likes; nobody waits for it,
//! except `LogGuard` at the end of the process, and that with a limit.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, SystemTime};

use super::journal::Journal;
use super::line::{Fields, Head, Value, push_line};
use super::rotate::RotatingFile;
use super::{LogConfig, LogFormat, LogLevel, LogOutput};

/// Lines that may wait for a slow output; more are dropped and counted.
pub const LINES_MAX: usize = 8192;
/// How long the end of the process waits for the last lines.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Lines dropped since the start because an output was too slow.
pub fn lines_dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error(
        "--log-outputs {path}: cannot be opened for appending ({source}); check path and permissions"
    )]
    Open { path: PathBuf, source: io::Error },
    #[error("can't find journal ({0}); use stderr, which systemd writes to the journal")]
    Journal(io::Error),
    #[error("the log writer thread cannot be started ({0}); raise the limit on threads")]
    Thread(io::Error),
    #[error("logging was set up twice")]
    Twice,
}

pub(super) enum Entry {
    Line(Box<str>),
    /// Everything before this has been written when the sender is dropped.
    Flush(SyncSender<()>),
}

/// The sending side; cheap to clone, never waits.
#[derive(Clone)]
pub(super) struct Queue {
    sender: SyncSender<Entry>,
    dropped: &'static AtomicU64,
}

impl Queue {
    pub(super) fn put(&self, line: &str) {
        match self.sender.try_send(Entry::Line(line.into())) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Waits, but not for ever, until all lines put before are written.
    pub(super) fn flush(&self) {
        let (done, wait) = sync_channel(0);
        // A full queue means a stuck output: waiting for a place would only hang the end of the process.
        if self.sender.try_send(Entry::Flush(done)).is_ok() {
            let _: Result<(), RecvTimeoutError> = wait.recv_timeout(FLUSH_TIMEOUT);
        }
    }
}

/// Flushes the log when the process ends in order. Keep it in `main`.
#[must_use]
pub struct LogGuard(pub(super) Arc<Queue>);

impl Drop for LogGuard {
    fn drop(&mut self) {
        self.0.flush();
    }
}

/// Opens the outputs and starts the thread.
pub(super) fn start(config: &LogConfig) -> Result<Queue, LogError> {
    let sinks = config
        .outputs
        .iter()
        .map(Sink::open)
        .collect::<Result<Vec<_>, _>>()?;
    let (sender, receiver) = sync_channel(LINES_MAX);
    let format = config.format;
    std::thread::Builder::new()
        .name("log-writer".to_owned())
        .spawn(move || run(&receiver, sinks, format, &DROPPED))
        .map_err(LogError::Thread)?;
    Ok(Queue {
        sender,
        dropped: &DROPPED,
    })
}

/// Until every sender is gone.
fn run(receiver: &Receiver<Entry>, mut sinks: Vec<Sink>, format: LogFormat, dropped: &AtomicU64) {
    let mut reported = 0;
    while let Ok(entry) = receiver.recv() {
        match entry {
            Entry::Line(line) => write_all(&mut sinks, line.as_bytes()),
            Entry::Flush(done) => drop(done),
        }
        let total = dropped.load(Ordering::Relaxed);
        if total != reported {
            write_all(
                &mut sinks,
                dropped_line(format, total - reported).as_bytes(),
            );
            reported = total;
        }
    }
}

fn dropped_line(format: LogFormat, count: u64) -> String {
    let mut fields = Fields::new(format);
    fields.push("count", Value::Literal(&count.to_string()));
    let head = Head {
        level: LogLevel::Warn,
        time: SystemTime::now(),
        file: file!(),
        line: line!(),
    };
    let mut text = String::new();
    push_line(
        &mut text,
        &head,
        "dropped log lines: an output is too slow",
        &fields,
    );
    text
}

fn write_all(sinks: &mut Vec<Sink>, bytes: &[u8]) {
    sinks.retain_mut(|sink| match sink.target.write_all(bytes) {
        Ok(()) => true,
        Err(error) => {
            let _ = writeln!(
                io::stderr(),
                "log output {} failed and is given up: {error}",
                sink.name
            );
            false
        }
    });
}

struct Sink {
    name: String,
    target: Box<dyn Write + Send>,
}

impl Sink {
    fn open(output: &LogOutput) -> Result<Sink, LogError> {
        Ok(match output {
            LogOutput::Stderr => Sink {
                name: "stderr".to_owned(),
                target: Box::new(io::stderr()),
            },
            LogOutput::Stdout => Sink {
                name: "stdout".to_owned(),
                target: Box::new(io::stdout()),
            },
            LogOutput::File(path) => {
                let file = OpenOptions::new().append(true).create(true).open(path);
                Sink::file(path, file)?
            }
            LogOutput::Rotated(path, rotation) => {
                Sink::file(path, RotatingFile::open(path, *rotation))?
            }
            LogOutput::Journal => Sink {
                name: "systemd/journal".to_owned(),
                target: Box::new(Journal::open().map_err(LogError::Journal)?),
            },
        })
    }
}

impl Sink {
    fn file(
        path: &Path,
        opened: io::Result<impl Write + Send + 'static>,
    ) -> Result<Sink, LogError> {
        let target = opened.map_err(|source| LogError::Open {
            path: path.to_owned(),
            source,
        })?;
        Ok(Sink {
            name: path.display().to_string(),
            target: Box::new(target),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Condvar, Mutex};

    use super::*;

    /// An output that accepts nothing until it is opened.
    #[derive(Default)]
    struct Gate {
        is_open: Mutex<bool>,
        opened: Condvar,
        written: Mutex<Vec<u8>>,
    }

    struct Gated(Arc<Gate>);

    impl Write for Gated {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut is_open = self.0.is_open.lock().unwrap();
            while !*is_open {
                is_open = self.0.opened.wait(is_open).unwrap();
            }
            self.0.written.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stuck_output_drops_and_counts_but_never_waits() {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let gate = Arc::new(Gate::default());
        let (sender, receiver) = sync_channel(LINES_MAX);
        let queue = Queue {
            sender,
            dropped: &COUNT,
        };
        let sinks = vec![Sink {
            name: "gate".to_owned(),
            target: Box::new(Gated(Arc::clone(&gate))),
        }];
        let thread = std::thread::spawn(move || run(&receiver, sinks, LogFormat::Json, &COUNT));
        // One line may already be in the thread's hands; the rest fills the queue.
        for _ in 0..LINES_MAX + 100 {
            queue.put("line\n");
        }
        let dropped = COUNT.load(Ordering::Relaxed);
        assert!((99..=100).contains(&dropped), "{dropped}");
        *gate.is_open.lock().unwrap() = true;
        gate.opened.notify_all();
        drop(queue);
        thread.join().unwrap();
        let written = String::from_utf8(gate.written.lock().unwrap().clone()).unwrap();
        let lines = written.lines().filter(|line| *line == "line").count();
        assert_eq!(lines as u64, LINES_MAX as u64 + 100 - dropped);
        assert!(
            written.contains(&format!("\"count\":{dropped}}}")),
            "{written}"
        );
    }

    #[test]
    fn files_are_appended_to_and_flushed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, "old\n").unwrap();
        let config = LogConfig {
            level: LogLevel::Info,
            format: LogFormat::Json,
            is_format_given: true,
            outputs: vec![LogOutput::File(path.clone())],
        };
        let queue = start(&config).unwrap();
        queue.put("new\n");
        queue.flush();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "old\nnew\n");
        let config = LogConfig {
            outputs: vec![LogOutput::File(dir.path().to_owned())],
            ..config
        };
        assert!(matches!(start(&config), Err(LogError::Open { .. })));
    }
}
