//! What of this machine must stand beside each number, and readings of a server process.
//!
//! Everything is read from /proc and the repository; nothing is changed.

use std::fs;
use std::path::Path;
use std::process::Command;

/// Prints the command, commit, machine, kernel and disk of this run.
pub(crate) fn describe(data: &Path) {
    let words: Vec<String> = std::env::args().skip(1).collect();
    println!(
        "- command: `cargo run --release -p pilaster-bench -- {}`",
        words.join(" ")
    );
    println!(
        "- commit: {}",
        first_line(Command::new("git").args(["describe", "--always", "--dirty"]))
    );
    println!(
        "- kernel: {}",
        first_line(Command::new("uname").args(["-srm"]))
    );
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name\t: "));
    let count = cpus
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    println!("- processor: {}, {count} cores", model.unwrap_or("unknown"));
    println!("- disk of the data: {}", disk(data));
    println!(
        "- server on core 0, load on core 1, loopback; syncs are real (no server runs with them off)"
    );
}

/// The file system that holds `place`: device, type and options.
fn disk(place: &Path) -> String {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let fields = mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>());
    let holding = fields.filter(|mount| 3 < mount.len() && place.starts_with(mount[1]));
    match holding.max_by_key(|mount| mount[1].len()) {
        Some(mount) => format!("{} {} ({})", mount[0], mount[2], mount[3]),
        None => "unknown".into(),
    }
}

/// Processor time the process has used, in seconds.
pub(crate) fn cpu_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name may hold spaces; the fields after its bracket do not. User and system time are the 12th and 13th of them.
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let ticks = |index: usize| {
        fields
            .get(index)
            .and_then(|word| word.parse::<f64>().ok())
            .unwrap_or(0.0)
    };
    const TICKS_PER_SECOND: f64 = 100.0;
    (ticks(11) + ticks(12)) / TICKS_PER_SECOND
}

/// A line of /proc/PID/status such as `RssAnon`, in MiB.
pub(crate) fn memory_mib(pid: u32, field: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or(0.0) / 1024.0
}

/// The middle of the samples; of an even number the lower one.
pub(crate) fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[(sorted.len() - 1) / 2]
}

/// Lowest and highest sample.
pub(crate) fn spread(samples: &[f64]) -> (f64, f64) {
    let low = samples.iter().copied().fold(f64::INFINITY, f64::min);
    let high = samples.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    (low, high)
}

fn first_line(command: &mut Command) -> String {
    let output = command
        .output()
        .map(|output| output.stdout)
        .unwrap_or_default();
    String::from_utf8_lossy(&output)
        .lines()
        .next()
        .unwrap_or("unknown")
        .to_owned()
}
