//! Running h2load and reading what it reports.
//!
//! The request body is one gRPC frame in a file; every request of a run is the same. A run counts only when every request was
//! answered with a 2xx and every answer had the expected number of bytes in it; h2load does not look at gRPC statuses, so an
//! error answer, which has no body, shows itself there.

use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::Command;

use pilaster_tests::kind;
use pilaster_tests::tool;
use prost::Message;

/// One run to be made.
pub(crate) struct Load<'a> {
    pub(crate) url: String,
    /// File with the gRPC frame.
    pub(crate) body: &'a Path,
    pub(crate) connections: u32,
    pub(crate) streams: u32,
    pub(crate) requests: u64,
    /// Bytes of DATA frames per answer.
    pub(crate) answer_bytes: RangeInclusive<u64>,
}

/// What h2load measured.
pub(crate) struct Measured {
    pub(crate) per_second: f64,
    pub(crate) requests: u64,
    /// The request that took longest.
    pub(crate) slowest_ms: f64,
}

/// The core the load runs on.
const LOAD_CORE: &str = "1";

/// Writes `message` as a gRPC frame: no compression, length, bytes.
pub(crate) fn write_frame(file: &Path, message: &impl Message) {
    let bytes = message.encode_to_vec();
    let length = u32::try_from(bytes.len()).expect("a small request");
    let frame = [&[0][..], &length.to_be_bytes(), &bytes].concat();
    fs::write(file, frame).expect("a scratch directory is writable");
}

pub(crate) fn run(load: &Load<'_>) -> Result<Measured, String> {
    let (program, libraries) = program().ok_or("no h2load: run `cargo xtask peers`")?;
    let mut command = Command::new("taskset");
    command.args(["-c", LOAD_CORE]).arg(program);
    command.env("LD_LIBRARY_PATH", libraries);
    command.args(["-t", "1", "-n", &load.requests.to_string()]);
    command.args([
        "-c",
        &load.connections.to_string(),
        "-m",
        &load.streams.to_string(),
    ]);
    command.args([
        "-H",
        "content-type: application/grpc",
        "-H",
        "te: trailers",
        "-d",
    ]);
    command.arg(load.body).arg(&load.url);
    let output = tool::run_command(command, "");
    let text = &output.stdout;
    let wrong = |what: &str| {
        format!(
            "{what} in the answers at {}:\n{text}{}",
            load.url, output.stderr
        )
    };
    let per_second = between(text, "finished in ", " req/s")
        .and_then(|part| part.rsplit(' ').next()?.parse().ok())
        .ok_or_else(|| wrong("no rate"))?;
    let good: u64 = between(text, "status codes: ", " 2xx")
        .and_then(|part| part.parse().ok())
        .ok_or_else(|| wrong("no status codes"))?;
    if good != load.requests {
        return Err(wrong("not every request has a 2xx"));
    }
    let bytes: u64 = text
        .lines()
        .find(|line| line.starts_with("traffic: "))
        .and_then(|line| line.rsplit_once('(')?.1.split(')').next()?.parse().ok())
        .ok_or_else(|| wrong("no traffic"))?;
    let (low, high) = load.answer_bytes.clone().into_inner();
    if bytes < low * good || high * good < bytes {
        return Err(wrong(&format!(
            "{} bytes each, expected {low} to {high},",
            bytes / good
        )));
    }
    // `time for request:` has the shortest, the longest, and more.
    let slowest_ms = text
        .lines()
        .find_map(|line| line.strip_prefix("time for request:"))
        .and_then(|times| milliseconds(times.split_whitespace().nth(1)?))
        .ok_or_else(|| wrong("no times"))?;
    Ok(Measured {
        per_second,
        slowest_ms,
        requests: good,
    })
}

/// h2load and the folders of its libraries: from the peer cache, else the host's.
fn program() -> Option<(PathBuf, String)> {
    let usr = kind::peers_root().join("h2load/unpacked/usr");
    if let Ok(folders) = fs::read_dir(usr.join("lib")) {
        let folders = folders.filter_map(|entry| Some(entry.ok()?.path().display().to_string()));
        return Some((
            usr.join("bin/h2load"),
            folders.collect::<Vec<_>>().join(":"),
        ));
    }
    let path = std::env::var_os("PATH")?;
    let found = std::env::split_paths(&path)
        .map(|dir| dir.join("h2load"))
        .find(|file| file.is_file());
    Some((found?, std::env::var("LD_LIBRARY_PATH").unwrap_or_default()))
}

/// Of a time as h2load writes it, such as `1.23ms`.
fn milliseconds(text: &str) -> Option<f64> {
    let (number, factor) = if let Some(number) = text.strip_suffix("us") {
        (number, 0.001)
    } else if let Some(number) = text.strip_suffix("ms") {
        (number, 1.0)
    } else {
        (text.strip_suffix('s')?, 1000.0)
    };
    Some(number.parse::<f64>().ok()? * factor)
}

fn between<'a>(text: &'a str, from: &str, to: &str) -> Option<&'a str> {
    Some(text.split_once(from)?.1.split_once(to)?.0)
}
