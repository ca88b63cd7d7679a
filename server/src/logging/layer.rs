//! Receives events from `tracing`, formats them where they happen, and queues the finished lines.
//!
//! Always true here: an event below the level costs a comparison; one above it costs a formatting on its
//! own core and a try-send, never a wait and never a lock held by a writer. Equal messages are sampled as
//! etcd samples them: the first hundred in a second, then each hundredth. Libraries speak from WARN up.
//!
//! `init` and `fatal` are called by the main thread; events come from every core.

use std::cell::RefCell;
use std::fmt::{self, Debug, Write};
use std::hash::Hasher;
use std::panic::Location;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use rustc_hash::FxHasher;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};

use super::line::{Fields, Head, Value, push_line};
use super::writer::{self, LogError, LogGuard, Queue};
use super::{LogConfig, LogFormat, LogLevel};

/// Event targets of our own crates; everyone else is a library.
const OUR_TARGETS: &[&str] = &["pilaster", "wire", "consensus", "storage"];

/// Where `fatal` and the panic hook find the queue.
static PROCESS: OnceLock<(Arc<Queue>, LogFormat)> = OnceLock::new();

/// Sets up logging for the whole process and makes panics a log line. Once, before any core starts.
pub fn init(config: &LogConfig) -> Result<LogGuard, LogError> {
    let config = &LogConfig {
        format: config.effective_format(),
        ..config.clone()
    };
    let queue = Arc::new(writer::start(config)?);
    PROCESS
        .set((Arc::clone(&queue), config.format))
        .map_err(|_| LogError::Twice)?;
    let lines = Lines::new(config, Arc::clone(&queue));
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(lines))
        .map_err(|_| LogError::Twice)?;
    std::panic::set_hook(Box::new(|panic| {
        let message = panic.payload_as_str().unwrap_or("panic without a text");
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("unnamed");
        if let Some(location) = panic.location() {
            last_words(LogLevel::Panic, location, message, &[("thread", name)]);
        }
    }));
    Ok(LogGuard(queue))
}

/// Logs why the process ends, and waits (within a limit) until all lines are written. Before `init` the
/// line goes straight to stderr. The caller exits.
#[track_caller]
pub fn fatal(message: &str, fields: &[(&str, &str)]) {
    last_words(LogLevel::Fatal, Location::caller(), message, fields);
}

fn last_words(level: LogLevel, location: &Location<'_>, message: &str, fields: &[(&str, &str)]) {
    let process = PROCESS.get();
    let mut encoded = Fields::new(process.map_or(LogFormat::Json, |(_, format)| *format));
    for (key, value) in fields {
        encoded.push(key, Value::Text(value));
    }
    let head = Head {
        level,
        time: SystemTime::now(),
        file: location.file(),
        line: location.line(),
    };
    let mut line = String::new();
    push_line(&mut line, &head, message, &encoded);
    match process {
        Some((queue, _)) => {
            queue.put(&line);
            queue.flush();
        }
        None => {
            let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
        }
    }
}

/// The layer: level filter, sampler, formatter, queue.
struct Lines {
    level: LevelFilter,
    format: LogFormat,
    queue: Arc<Queue>,
    sampler: Sampler,
}

impl Lines {
    fn new(config: &LogConfig, queue: Arc<Queue>) -> Lines {
        let level = match config.level {
            LogLevel::Debug => LevelFilter::DEBUG,
            LogLevel::Info => LevelFilter::INFO,
            LogLevel::Warn => LevelFilter::WARN,
            LogLevel::Error => LevelFilter::ERROR,
            // Nothing but the process's last words.
            LogLevel::Panic | LogLevel::Fatal => LevelFilter::OFF,
        };
        Lines {
            level,
            format: config.format,
            queue,
            sampler: Sampler::new(),
        }
    }

    fn wants(&self, metadata: &Metadata<'_>) -> bool {
        let crate_name = metadata.target().split("::").next().unwrap_or("");
        let allowed = if OUR_TARGETS.contains(&crate_name) {
            self.level
        } else {
            self.level.min(LevelFilter::WARN)
        };
        *metadata.level() <= allowed
    }
}

impl<S: Subscriber> Layer<S> for Lines {
    fn register_callsite(
        &self,
        metadata: &'static Metadata<'static>,
    ) -> tracing::subscriber::Interest {
        if metadata.is_event() && self.wants(metadata) {
            tracing::subscriber::Interest::always()
        } else {
            tracing::subscriber::Interest::never()
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _context: Context<'_, S>) -> bool {
        metadata.is_event() && self.wants(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.level)
    }

    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        thread_local! {
            static LINE: RefCell<String> = const { RefCell::new(String::new()) };
        }
        let metadata = event.metadata();
        let level = match *metadata.level() {
            Level::ERROR => LogLevel::Error,
            Level::WARN => LogLevel::Warn,
            Level::INFO => LogLevel::Info,
            Level::DEBUG | Level::TRACE => LogLevel::Debug,
        };
        let mut visitor = Visitor {
            message: String::new(),
            fields: Fields::new(self.format),
        };
        event.record(&mut visitor);
        let time = SystemTime::now();
        let seconds = time
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        if !self.sampler.admits(seconds, level, &visitor.message) {
            return;
        }
        let head = Head {
            level,
            time,
            file: metadata.file().unwrap_or("unknown"),
            line: metadata.line().unwrap_or(0),
        };
        LINE.with_borrow_mut(|line| {
            line.clear();
            push_line(line, &head, &visitor.message, &visitor.fields);
            self.queue.put(line);
        });
    }
}

struct Visitor {
    message: String,
    fields: Fields,
}

impl Visitor {
    fn literal(&mut self, field: &Field, value: impl fmt::Display) {
        self.fields
            .push(field.name(), Value::Literal(&value.to_string()));
    }
}

impl Visit for Visitor {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            let _ = write!(self.message, "{value:?}");
        } else {
            self.fields
                .push(field.name(), Value::Text(&format!("{value:?}")));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message.push_str(value);
        } else {
            self.fields.push(field.name(), Value::Text(value));
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.fields
            .push(field.name(), Value::Text(&value.to_string()));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.literal(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.literal(field, value);
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.literal(field, value);
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.literal(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.literal(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() {
            self.literal(field, value);
        } else {
            self.fields
                .push(field.name(), Value::Text(&value.to_string()));
        }
    }
}

/// Counts equal messages per second in a fixed table; messages that share a slot share a count.
struct Sampler {
    /// Upper half: the second counted; lower half: messages in it.
    slots: Box<[AtomicU64]>,
}

impl Sampler {
    const SLOTS: usize = 1024;
    const FIRST: u64 = 100;
    const THEREAFTER: u64 = 100;

    fn new() -> Sampler {
        Sampler {
            slots: (0..Self::SLOTS).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    fn admits(&self, seconds: u64, level: LogLevel, message: &str) -> bool {
        let mut hasher = FxHasher::default();
        hasher.write_u8(level as u8);
        hasher.write(message.as_bytes());
        let slot = &self.slots[(hasher.finish() >> 32) as usize % Self::SLOTS];
        let second = seconds & u64::from(u32::MAX);
        let count = |slot: u64| {
            if slot >> 32 == second {
                (slot & 0xffff_ffff) + 1
            } else {
                1
            }
        };
        // Two threads may both read one count; a line too many or too few does no harm.
        let next = count(slot.load(Ordering::Relaxed)).min(u64::from(u32::MAX));
        slot.store(second << 32 | next, Ordering::Relaxed);
        next <= Self::FIRST || (next - Self::FIRST).is_multiple_of(Self::THEREAFTER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logging::LogOutput;

    /// Runs `log` with a subscriber of its own and returns the lines.
    fn lines(level: LogLevel, log: impl FnOnce()) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let outputs = vec![LogOutput::File(path.clone())];
        let config = LogConfig {
            level,
            format: LogFormat::Json,
            is_format_given: true,
            outputs,
        };
        let queue = Arc::new(writer::start(&config).unwrap());
        let subscriber = tracing_subscriber::registry().with(Lines::new(&config, queue.clone()));
        tracing::subscriber::with_default(subscriber, log);
        queue.flush();
        std::fs::read_to_string(&path)
            .unwrap()
            .lines()
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn an_event_becomes_one_line_with_typed_fields() {
        let lines = lines(LogLevel::Debug, || {
            let error = std::io::Error::other("why");
            tracing::warn!(
                count = 3u64,
                ratio = 0.5,
                ok = true,
                "status-code" = 503,
                error = &error as &dyn std::error::Error,
                list = ?["a"],
                "slow {}",
                "apply"
            );
        });
        assert_eq!(lines.len(), 1, "{lines:?}");
        let (head, tail) = lines[0].split_once(r#"","caller":""#).unwrap();
        assert!(
            head.starts_with(r#"{"level":"warn","ts":"2"#) && head.ends_with('Z'),
            "{head}"
        );
        let (caller, tail) = tail.split_once(r#"","msg":"#).unwrap();
        assert!(caller.starts_with("logging/layer.rs:"), "{caller}");
        assert_eq!(
            tail,
            r#""slow apply","count":3,"ratio":0.5,"ok":true,"status-code":503,"error":"why","list":"[\"a\"]"}"#
        );
    }

    #[test]
    fn levels_and_libraries_are_filtered() {
        let log = || {
            tracing::debug!("quiet");
            tracing::info!("loud");
            tracing::info!(target: "mio::x", "library info");
            tracing::warn!(target: "mio::x", "library warning");
        };
        let messages = |lines: Vec<String>| -> Vec<String> {
            lines
                .iter()
                .map(|line| {
                    let parsed: serde_json::Value = serde_json::from_str(line).unwrap();
                    parsed["msg"].as_str().unwrap().to_owned()
                })
                .collect()
        };
        assert_eq!(
            messages(lines(LogLevel::Info, log)),
            ["loud", "library warning"]
        );
        assert_eq!(messages(lines(LogLevel::Error, log)), [""; 0]);
        assert_eq!(
            messages(lines(LogLevel::Fatal, || tracing::error!("x"))),
            [""; 0]
        );
    }

    #[test]
    fn equal_messages_are_sampled_per_second() {
        let sampler = Sampler::new();
        let admitted = |second| {
            (0..350)
                .filter(|_| sampler.admits(second, LogLevel::Info, "again"))
                .count()
        };
        assert_eq!(admitted(7), 100 + 2);
        assert_eq!(admitted(8), 100 + 2);
        assert!(sampler.admits(8, LogLevel::Warn, "another"));
    }
}
