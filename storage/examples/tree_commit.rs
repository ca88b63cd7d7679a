//! Measures the tree file: commits of new records, point reads, scans and opening, at two sizes of existing data.
//!
//! `cargo run --release -p storage --example tree_commit -- [folder] [records...]`. Records are 17-byte keys with
//! 300-byte values in the `key` bucket, appended in ascending order as the store does. The folder should lie on the
//! disk to be measured; it is emptied of `db` and `db.sum` first.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use storage::tree::{CommitPhase, Snapshot, Tree, TreeFiles, TreeOptions, WriteBatch};

const VALUE_BYTES: usize = 300;
const ROUNDS: usize = 15;

fn main() {
    let mut args = std::env::args().skip(1);
    let folder = PathBuf::from(args.next().unwrap_or_else(|| "target/tree-commit".into()));
    let sizes: Vec<u64> = args
        .map(|n| n.parse().expect("a number of records"))
        .collect();
    let sizes = if sizes.is_empty() {
        vec![10_000, 1_000_000]
    } else {
        sizes
    };
    std::fs::create_dir_all(&folder).expect("folder can be made");
    for records in sizes {
        measure(&folder, records);
    }
}

fn key(n: u64) -> [u8; 17] {
    let mut key = [0; 17];
    key[..8].copy_from_slice(&n.to_be_bytes());
    key[8] = b'_';
    key
}

fn value(n: u64) -> Vec<u8> {
    (0..VALUE_BYTES as u64)
        .map(|i| (n.wrapping_mul(31) + i) as u8)
        .collect()
}

/// Appends records `from..to` and returns when each phase was reached, counted from the start.
fn append(tree: &mut Tree, from: u64, to: u64) -> Vec<(CommitPhase, Duration)> {
    let records: Vec<_> = (from..to).map(|n| (key(n), value(n))).collect();
    let begun = Instant::now();
    let mut batch = WriteBatch::new();
    batch.extend(
        b"key",
        records
            .iter()
            .map(|(k, v)| (k.as_slice(), Some(v.as_slice()))),
    );
    batch.put(b"meta", b"consistent_index", &records[0].0[..8]);
    let mut phases = Vec::with_capacity(4);
    tree.commit_observed(&batch, &mut |phase| phases.push((phase, begun.elapsed())))
        .expect("commits");
    phases
}

fn measure(folder: &std::path::Path, records: u64) {
    for name in ["db", "db.sum"] {
        let _ = std::fs::remove_file(folder.join(name));
    }
    let open = || {
        let files = TreeFiles::open(folder).expect("opens");
        Tree::open(files, TreeOptions::default()).expect("opens")
    };
    let (mut tree, ..) = open();
    let begun = Instant::now();
    let mut next = 0;
    while next < records {
        let to = records.min(next + 10_000);
        append(&mut tree, next, to);
        next = to;
    }
    println!(
        "== {records} records of {VALUE_BYTES} B, loaded in {:?}",
        begun.elapsed()
    );
    println!("{:?}", tree.stats());
    drop(tree);

    for _ in 0..3 {
        let begun = Instant::now();
        let (tree, _, report) = open();
        println!(
            "open: {:?}, {} pages in use, {:?}",
            begun.elapsed(),
            report.pages_in_use,
            report.sums
        );
        drop(tree);
    }

    let (mut tree, snapshot, _) = open();
    reads(&snapshot, records);
    drop(snapshot);
    for count in [100, 1_000, 10_000] {
        let mut rounds: Vec<Vec<(CommitPhase, Duration)>> = Vec::new();
        for _ in 0..ROUNDS {
            rounds.push(append(&mut tree, next, next + count));
            next += count;
        }
        rounds.sort_by_key(|phases| phases.last().expect("four phases").1);
        let show = |phases: &[(CommitPhase, Duration)]| {
            phases
                .iter()
                .map(|(p, t)| format!("{p:?} {t:?}"))
                .collect::<Vec<_>>()
                .join(", ")
        };
        println!("commit {count}: median {}", show(&rounds[ROUNDS / 2]));
        println!("commit {count}: slowest {}", show(&rounds[ROUNDS - 1]));
    }
    // Compaction's shape: deletes scattered over old records, together with some appends.
    let gone: Vec<_> = (0..10_000u64)
        .map(|n| key(n * (records / 10_000).max(1)))
        .collect();
    let begun = Instant::now();
    let mut batch = WriteBatch::new();
    for key in &gone {
        batch.delete(b"key", key);
    }
    let mut phases = Vec::new();
    tree.commit_observed(&batch, &mut |phase| phases.push((phase, begun.elapsed())))
        .expect("commits");
    println!("delete {} scattered: {phases:?}", gone.len());
    println!("{:?}", tree.stats());
}

fn reads(snapshot: &Snapshot, records: u64) {
    const GETS: u64 = 1_000_000;
    let bucket = snapshot.bucket(b"key").expect("sound").expect("there");
    let mut state = 1u64;
    let mut sum = 0u64;
    let begun = Instant::now();
    for _ in 0..GETS {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let value = bucket
            .get(&key((state >> 33) % records))
            .expect("sound")
            .expect("there");
        sum += u64::from(value[7]);
    }
    println!("get: {:?} each (hash {sum})", begun.elapsed() / GETS as u32);
    let begun = Instant::now();
    let mut cursor = bucket.iter().expect("sound");
    let (mut count, mut bytes) = (0u64, 0u64);
    while let Some((key, value)) = cursor.next().expect("sound") {
        count += 1;
        bytes += (key.len() + usize::from(value[0])) as u64;
    }
    println!(
        "scan: {count} records in {:?} (hash {bytes})",
        begun.elapsed()
    );
}
