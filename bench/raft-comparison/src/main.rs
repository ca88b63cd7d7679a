//! From propose to commit on three members in one thread, ours and the crate `raft` doing the same in the same run.
//!
//! `cargo run --release --manifest-path bench/raft-comparison/Cargo.toml [--rounds 7] [--entries 400000]` prints a table for
//! `docs/figures.md`. Both sides get the same payloads of 256 bytes in the same batches (each batch proposed as one), keep
//! their logs in memory, call a write durable at once, hand messages over as values, apply by reading each payload's first
//! byte, and trim their logs to the same length. Payloads are slices of one block on both sides: neither copies them. The
//! sides take turns; a digest of what was applied must be the same, or the run ends.

#![forbid(unsafe_code)]

mod ours;
mod rival;

use std::time::Instant;

use bytes::Bytes;

const PAYLOAD_BYTES: usize = 256;
const BATCHES: [usize; 3] = [1, 32, 256];

/// When so many entries lie behind the applied one the log is trimmed, and so many are left.
const TRIM_EVERY: u64 = 10_000;
const TRIM_KEEP: u64 = 5_000;

/// Limits of both sides.
const MESSAGE_BYTES_MAX: u64 = 1 << 20;
const INFLIGHT_MESSAGES_MAX: usize = 512;

/// Three members, the first one leads.
trait Cluster {
    /// Proposes `batch` as one and runs all members until nobody has anything to do.
    fn round(&mut self, batch: &mut Vec<Bytes>);
    /// What the leader applied.
    fn applied(&self) -> Applied;
}

/// Commands that the leader applied, and what they were.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Applied {
    commands: u64,
    digest: u64,
}

impl Applied {
    /// The leader's own entry at the start of its term is empty and counts for nothing.
    fn add(&mut self, payload: &[u8]) {
        if let Some(byte) = payload.first() {
            self.commands += 1;
            self.digest = self.digest.rotate_left(5) ^ self.commands ^ u64::from(*byte);
        }
    }
}

/// Runs `entries` through a new cluster; entries a second, and what was applied.
fn measure(
    mut cluster: impl Cluster,
    batch: usize,
    entries: usize,
    block: &Bytes,
) -> (f64, Applied) {
    let mut payloads = Vec::with_capacity(batch);
    let slots = block.len() / PAYLOAD_BYTES;
    let mut run = |cluster: &mut dyn Cluster, rounds: usize| {
        for round in 0..rounds {
            payloads.extend((0..batch).map(|n| {
                let at = (round * batch + n) % slots * PAYLOAD_BYTES;
                block.slice(at..at + PAYLOAD_BYTES)
            }));
            cluster.round(&mut payloads);
            assert!(payloads.is_empty(), "the batch was taken");
        }
    };
    let rounds = entries / batch;
    // Buffers grow to their size and the log to its length first.
    run(&mut cluster, (2 * TRIM_EVERY as usize).div_ceil(batch));
    let before = cluster.applied().commands;
    let began = Instant::now();
    run(&mut cluster, rounds);
    let seconds = began.elapsed().as_secs_f64();
    let applied = cluster.applied();
    assert_eq!(
        applied.commands - before,
        (rounds * batch) as u64,
        "everything committed"
    );
    ((rounds * batch) as f64 / seconds, applied)
}

/// `median (lowest-highest)` in thousands; of an even number the lower middle counts.
fn cell(rates: &mut [f64]) -> (f64, String) {
    rates.sort_unstable_by(f64::total_cmp);
    let median = rates[(rates.len() - 1) / 2];
    let text = format!(
        "{:.0} ({:.0}-{:.0})",
        median / 1e3,
        rates[0] / 1e3,
        rates[rates.len() - 1] / 1e3
    );
    (median, text)
}

fn option(name: &str, default: usize) -> usize {
    let mut words = std::env::args().skip_while(|word| word != name);
    match (words.next(), words.next()) {
        (Some(_), Some(value)) => value.parse().expect("a number"),
        _ => default,
    }
}

fn main() {
    let (rounds, entries) = (option("--rounds", 7), option("--entries", 400_000));
    let bytes = (0..1024).flat_map(|slot| vec![slot as u8; PAYLOAD_BYTES]);
    let block: Bytes = bytes.collect::<Vec<u8>>().into();
    println!(
        "{rounds} rounds, {entries} entries each, thousands of entries a second: median (lowest-highest)\n"
    );
    println!("| batch | consensus | raft 0.7 | ratio |");
    println!("| --- | --- | --- | --- |");
    for batch in BATCHES {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let (rate, applied) = measure(ours::Ours::new(), batch, entries, &block);
            ours.push(rate);
            let (rate, same) = measure(rival::Rival::new(), batch, entries, &block);
            theirs.push(rate);
            assert_eq!(applied, same, "both sides applied the same");
        }
        let ((ours, ours_cell), (theirs, their_cell)) = (cell(&mut ours), cell(&mut theirs));
        println!(
            "| {batch} | {ours_cell} | {their_cell} | {:.2} |",
            ours / theirs
        );
    }
}
