//! Measures how long the log takes to make one group durable, beside a plain
//! `pwritev2(RWF_DSYNC)` of the same size to a file prepared the same way.
//!
//! `cargo run --release -p storage --example wal_latency -- FOLDER [GROUPS]`
//!
//! Rounds of the two alternate, because a shared disk drifts. Prints percentiles in microseconds
//! and the number of groups that took longer than a millisecond. Not a test: figures are kept in
//! `docs/`.

use std::fs::OpenOptions;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Instant;

use storage::device::{AlignedBuffer, BLOCK_BYTES};
use storage::wal::{self, Evidence, LogIndex, Options, Term};

const ROUNDS: usize = 5;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments
        .next()
        .ok_or("usage: wal_latency FOLDER [GROUPS]")?;
    let groups: usize = arguments.next().map_or(Ok(2000), |text| text.parse())?;
    let folder = Path::new(&folder);
    for group_bytes in [BLOCK_BYTES, 64 << 10] {
        let mut ring = Vec::new();
        let mut plain = Vec::new();
        for round in 0..ROUNDS {
            let place = folder.join(format!("wal-{group_bytes}-{round}"));
            ring.extend(through_log(&place, groups / ROUNDS, group_bytes)?);
            plain.extend(through_pwritev2(&place, groups / ROUNDS, group_bytes)?);
            std::fs::remove_dir_all(&place)?;
        }
        report("log", group_bytes, &mut ring);
        report("pwritev2", group_bytes, &mut plain);
    }
    Ok(())
}

fn through_log(
    place: &Path,
    groups: usize,
    group_bytes: usize,
) -> Result<Vec<u64>, Box<dyn std::error::Error>> {
    let directory = wal::create_folder(place)?;
    let options = Options::default();
    wal::create(&*directory, &options, b"latency", 1)?;
    let (mut log, recovered) = wal::open(directory, &options, Evidence::default())?;
    if group_bytes == BLOCK_BYTES {
        println!(
            "{}: driver {}, direct {}, {:?}",
            place.display(),
            recovered.report.driver,
            recovered.report.is_direct,
            recovered.report.notes
        );
    }
    let clock = Instant::now();
    let now = || clock.elapsed().as_nanos() as u64;
    // The next segment is being prepared just after opening; that is its own experiment.
    while log.writer().wants_preparation() {
        log.poll(now())?;
    }
    // Group header and record header come off; a payload in multiples of 16 needs no padding.
    let payload = vec![0x5a; group_bytes - 64 - 32];
    let mut latencies = Vec::with_capacity(groups);
    for index in 1..=groups as u64 {
        log.append_entry(Term(1), LogIndex(index), 0, &payload)?;
        loop {
            log.submit(now())?;
            log.wait()?;
            if let Some(synced) = log.poll(now())? {
                assert_eq!(synced.through_index, LogIndex(index));
                latencies.push(synced.latency_ns);
                break;
            }
        }
    }
    log.close(now)?;
    Ok(latencies)
}

fn through_pwritev2(place: &Path, groups: usize, bytes: usize) -> std::io::Result<Vec<u64>> {
    let path = place.join("0000000000000001.segment");
    let open = |flags| {
        OpenOptions::new()
            .write(true)
            .custom_flags(flags)
            .open(&path)
    };
    let file = open(libc::O_DIRECT).or_else(|_| open(0))?;
    let buffer = AlignedBuffer::new(bytes);
    let piece = libc::iovec {
        iov_base: buffer.as_ptr().cast_mut().cast(),
        iov_len: bytes,
    };
    let mut latencies = Vec::with_capacity(groups);
    for group in 0..groups {
        let offset = (BLOCK_BYTES + group * bytes) as i64;
        let began = Instant::now();
        // SAFETY: `piece` names memory of `buffer`, which outlives the call and is only read.
        let wrote = unsafe { libc::pwritev2(file.as_raw_fd(), &piece, 1, offset, libc::RWF_DSYNC) };
        if wrote != bytes as isize {
            return Err(std::io::Error::last_os_error());
        }
        latencies.push(began.elapsed().as_nanos() as u64);
    }
    Ok(latencies)
}

fn report(what: &str, group_bytes: usize, latencies: &mut [u64]) {
    latencies.sort_unstable();
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize] as f64 / 1e3;
    let slow = latencies.iter().filter(|&&ns| 1_000_000 < ns).count();
    println!(
        "{what:>9} {group_bytes:>6} B  n {:>6}  p10 {:>7.1}  p50 {:>7.1}  p90 {:>7.1}  p99 {:>7.1}  p99.9 \
         {:>8.1}  max {:>8.1} us  over 1 ms: {slow}",
        latencies.len(),
        at(0.10),
        at(0.50),
        at(0.90),
        at(0.99),
        at(0.999),
        at(1.0),
    );
}
