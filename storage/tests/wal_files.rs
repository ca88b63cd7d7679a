//! The log's files: golden bytes, damage in every byte, recycled segments, foreign files, and a
//! round trip through the real ring.

#![allow(clippy::unwrap_used)]

mod wal_support;

use std::path::Path;
use std::sync::Arc;

use storage::device::{CrashDisk, Directory, MemoryDisk, RealDirectory};
use storage::wal::{
    self, Evidence, HardState, LogIndex, OpenError, Options, Recovered, Term, Vote,
};
use wal_support::{Append, LOG_ID, METADATA, Model, Pair, create, options};

const FIRST: &str = "0000000000000001.segment";
const SECOND: &str = "0000000000000002.segment";

/// A small log: a few groups in the first segment, the last of them of more than one block.
fn small_log(disk: &MemoryDisk) -> Vec<Model> {
    create(disk).unwrap();
    let (mut pair, _) = Pair::open(Arc::new(disk.clone()), &[Model::default()]).unwrap();
    for bytes in [40, 700, 5000] {
        pair.append(&Append::Entry { back: 0, bytes });
        pair.append(&Append::HardState);
        pair.sync().unwrap();
    }
    pair.states
}

fn open(disk: &MemoryDisk, states: &[Model]) -> Result<(), OpenError> {
    Pair::open(Arc::new(disk.clone()), states).map(drop)
}

/// Blocks of the first segment that hold something, header included.
fn used_bytes(disk: &MemoryDisk) -> usize {
    let bytes = disk.file(FIRST).unwrap().contents();
    bytes.iter().rposition(|&byte| byte != 0).unwrap() + 1
}

#[test]
fn the_bytes_of_a_log_are_those_of_the_golden_file() {
    let disk = MemoryDisk::new();
    create(&disk).unwrap();
    let (mut log, _) = wal::open(Arc::new(disk.clone()), &options(), Evidence::default()).unwrap();
    log.append_entry(Term(1), LogIndex(1), 9, b"the first entry")
        .unwrap();
    let commit = LogIndex(1);
    log.append_hard_state(HardState {
        term: Term(1),
        vote: Vote(7),
        commit,
    })
    .unwrap();
    log.append_entry(Term(1), LogIndex(2), 0, b"").unwrap();
    log.append_snapshot_mark(wal_support::mark(1, 1, wal::MarkKind::Compaction))
        .unwrap();
    log.close(|| 0).unwrap();

    // One line per 16 bytes that are not all zero; fill is left out.
    let bytes = disk.file(FIRST).unwrap().contents();
    let mut text = String::from("# Bytes of a small log; fill and zeros are left out.\n");
    for (line, piece) in bytes.chunks(16).enumerate() {
        if piece.iter().all(|&byte| byte == 0) || piece.iter().all(|&byte| byte == 0xa5) {
            continue;
        }
        text += &format!("{:06x}", line * 16);
        for byte in piece {
            text += &format!(" {byte:02x}");
        }
        text.push('\n');
    }
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wal_golden.txt");
    if std::env::var_os("PILASTER_REWRITE_GOLDEN").is_some() {
        std::fs::write(&golden, &text).unwrap();
    }
    let wanted = std::fs::read_to_string(&golden).unwrap();
    assert_eq!(
        text, wanted,
        "set PILASTER_REWRITE_GOLDEN=1 to rewrite it on purpose"
    );
}

#[test]
fn a_flipped_byte_is_an_error_with_its_place_or_changes_nothing() {
    let disk = MemoryDisk::new();
    let states = small_log(&disk);
    let last = states.len() - 1;
    let used = used_bytes(&disk);
    assert!(4 * 4096 < used, "the log has {used} bytes");
    let file = disk.file(FIRST).unwrap();
    let whole = file.contents();
    let (mut refused, mut same) = (0, 0);
    // Past the end too: a byte there belongs to nothing.
    for at in 0..used + 5000 {
        // Fill and what lies beyond are thousands of bytes alike; every seventh will do.
        let is_alike = used <= at || whole[at] == 0xa5 && whole[at.saturating_sub(1)] == 0xa5;
        if is_alike && !at.is_multiple_of(7) {
            continue;
        }
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        file.set_contents(bytes);
        match Pair::open(Arc::new(disk.clone()), &states[last..]) {
            Ok(_) => same += 1,
            Err(OpenError::Damaged {
                ref segment,
                offset,
                ..
            }) => {
                assert_eq!(segment.0, 1);
                let distance = offset.abs_diff(at as u64);
                assert!(distance < 3 * 4096, "byte {at}, reported at {offset}");
                refused += 1;
            }
            Err(other) => panic!("byte {at}: {other}"),
        }
    }
    assert!(5500 < refused, "{refused} refused, {same} harmless");
}

#[test]
fn a_flipped_byte_in_a_recycled_segment_never_gives_wrong_data() {
    // Old content hides the difference between a torn and a damaged last group, so here the last
    // group may be cut off; its hard state and everything before must still be right or refused.
    let disk = MemoryDisk::new();
    create(&disk).unwrap();
    let (mut pair, _) = Pair::open(Arc::new(disk.clone()), &[Model::default()]).unwrap();
    let name = loop {
        pair.append(&Append::Entry {
            back: 0,
            bytes: 7000,
        });
        pair.append(&Append::HardState);
        pair.append(&Append::Compact { keep: 1 });
        pair.sync().unwrap();
        pair.trim();
        let newest = pair.log.writer().retained().last().unwrap().0;
        if 4 < newest.0 {
            break format!("{newest}.segment");
        }
    };
    for bytes in [10, 600] {
        pair.append(&Append::Entry { back: 0, bytes });
        pair.sync().unwrap();
    }
    let states = pair.states;
    drop(pair.log);
    let disk = disk.fork();
    let file = disk.file(&name).unwrap();
    let whole = file.contents();
    assert_eq!(whole[40], 0, "the segment was recycled");
    let mut cut = 0;
    for at in (0..30 << 10).step_by(5) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        file.set_contents(bytes);
        // A trial leaves its cut behind, so each starts from a copy.
        let trial = disk.fork();
        match Pair::open(Arc::new(trial), &states) {
            Ok((pair, _)) => cut += u32::from(pair.last() != states.last().unwrap()),
            Err(OpenError::Damaged { .. } | OpenError::EndsTooEarly { .. }) => {}
            Err(other) => panic!("byte {at}: {other}"),
        }
    }
    assert!(0 < cut, "a damaged last group was cut off at least once");
}

#[test]
fn a_group_missing_at_the_seam_of_two_segments_is_damage() {
    let disk = MemoryDisk::new();
    create(&disk).unwrap();
    let (mut pair, _) = Pair::open(Arc::new(disk.clone()), &[Model::default()]).unwrap();
    let mut seam = 0;
    while pair.log.writer().retained().len() < 2 {
        seam = pair.log.writer().offset();
        pair.append(&Append::Entry {
            back: 0,
            bytes: 7000,
        });
        pair.sync().unwrap();
    }
    pair.append(&Append::Entry {
        back: 0,
        bytes: 7000,
    });
    pair.sync().unwrap();
    let states = pair.states;
    drop(pair.log);
    // The last group of the first segment, the first group of the second, its second, both sides.
    let last = (FIRST, seam as usize - 8192, 8192);
    let first = (SECOND, 4096, 4096);
    let second = (SECOND, 8192, 8192);
    let cases: [&[(&str, usize, usize)]; 4] = [&[last], &[first], &[second], &[last, first]];
    for wiped in cases {
        let trial = disk.fork();
        for &(name, at, bytes) in wiped {
            let file = trial.file(name).unwrap();
            let mut contents = file.contents();
            contents[at..at + bytes].fill(0);
            file.set_contents(contents);
        }
        match open(&trial, &states) {
            Err(OpenError::Damaged {
                segment, offset, ..
            }) => {
                let place = (format!("{segment}.segment"), offset as usize);
                let named = wiped
                    .iter()
                    .any(|&(name, at, _)| place == (name.to_owned(), at));
                assert!(named, "{wiped:?} reported as {place:?}");
            }
            other => panic!("{wiped:?}: {other:?}"),
        }
    }
}

#[test]
fn the_end_is_checked_against_what_the_tree_has_applied() {
    let disk = MemoryDisk::new();
    let states = small_log(&disk);
    let last = LogIndex(states.last().unwrap().last);
    for (applied_index_min, fits) in [(last, true), (last.next(), false)] {
        let evidence = Evidence {
            applied_index_min,
            ..Evidence::default()
        };
        let opened = wal::open(Arc::new(disk.clone()), &options(), evidence);
        match opened {
            Ok(_) => assert!(fits),
            Err(error) => {
                assert!(!fits);
                let text = error.to_string();
                assert!(text.contains("index 4 was acknowledged"), "{text}");
                assert!(text.contains("from a backup"), "{text}");
            }
        }
    }
}

#[test]
fn a_closed_log_notices_that_its_last_group_is_gone() {
    let disk = MemoryDisk::new();
    let states = small_log(&disk);
    let (pair, _) = Pair::open(Arc::new(disk.clone()), &states[states.len() - 1..]).unwrap();
    let (_, tail) = {
        let report = wal_tail(&pair);
        pair.log.close(|| 0).unwrap();
        report
    };
    // Wipe the group before the seal, as if it had never been written.
    let file = disk.file(FIRST).unwrap();
    let mut bytes = file.contents();
    bytes[tail as usize - 8192..tail as usize].fill(0);
    file.set_contents(bytes);
    let text = open(&disk, &states).unwrap_err().to_string();
    assert!(text.contains("was written after it"), "{text}");
}

fn wal_tail(pair: &Pair) -> (u64, u64) {
    let segment = pair.log.writer().retained().last().unwrap().0;
    (segment.0, pair.log.writer().offset())
}

#[test]
fn segments_are_recycled_and_old_content_stays_dead() {
    let disk = CrashDisk::new();
    create(&disk).unwrap();
    let (mut pair, _) = Pair::open(Arc::new(disk.clone()), &[Model::default()]).unwrap();
    for round in 0..400 {
        pair.append(&Append::Entry {
            back: 0,
            bytes: 4000 + 10 * (round % 300),
        });
        pair.append(&Append::HardState);
        if round % 20 == 19 {
            pair.append(&Append::Compact { keep: 5 });
        }
        pair.sync().unwrap();
        pair.trim();
        if round % 7 == 0 {
            let last = pair.candidates().to_vec();
            drop(pair);
            (pair, _) = Pair::open(Arc::new(disk.clone()), &last).unwrap();
        }
    }
    let names: Vec<_> = disk
        .list()
        .unwrap()
        .into_iter()
        .map(|file| file.name)
        .collect();
    assert!(names.len() < 8, "segments pile up: {names:?}");
    let newest = names
        .iter()
        .rfind(|name| name.ends_with(".segment"))
        .unwrap();
    assert!("0000000000000010.segment" < newest.as_str(), "{names:?}");
}

#[test]
fn foreign_files_and_missing_segments_are_named() {
    let make = |name: &str| {
        let disk = MemoryDisk::new();
        let states = small_log(&disk);
        disk.insert(name, vec![1, 2, 3]);
        open(&disk, &states).unwrap_err().to_string()
    };
    let text = make("0000000000000000-0000000000000000.wal");
    assert!(
        text.contains("0000000000000000-0000000000000000.wal") && text.contains("etcd"),
        "{text}"
    );
    assert!(make("notes.txt").contains("memory/notes.txt"));
    let text = make("0000000000000004.segment");
    assert!(text.contains("0000000000000003 is missing"), "{text}");
    assert!(make(SECOND).contains("segment header"));

    let empty = MemoryDisk::new();
    assert!(!wal::exists(&empty).unwrap());
    assert!(matches!(open(&empty, &[]), Err(OpenError::Missing { .. })));
    create(&empty).unwrap();
    assert!(wal::exists(&empty).unwrap());
    assert!(matches!(
        create(&empty),
        Err(OpenError::AlreadyExists { .. })
    ));
}

#[test]
fn a_later_format_version_is_refused_by_number() {
    let disk = MemoryDisk::new();
    let states = small_log(&disk);
    let file = disk.file(FIRST).unwrap();
    let mut bytes = file.contents();
    bytes[8] = 2;
    let checksum = crc32c::crc32c(&bytes[..44]);
    bytes[44..48].copy_from_slice(&checksum.to_le_bytes());
    file.set_contents(bytes);
    assert!(matches!(
        open(&disk, &states),
        Err(OpenError::Version { version: 2, .. })
    ));
}

#[test]
fn a_real_folder_round_trips_rolls_and_is_locked() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("wal");
    let missing = wal::open_folder(&place).err().unwrap().to_string();
    assert!(missing.contains("create the folder"), "{missing}");
    std::fs::write(folder.path().join("file"), b"").unwrap();
    let no_folder = wal::open_folder(&folder.path().join("file"))
        .err()
        .unwrap()
        .to_string();
    assert!(
        no_folder.contains("point wal-dir at a folder"),
        "{no_folder}"
    );

    let directory = wal::create_folder(&place).unwrap();
    round_trip(directory.clone());
    let first = wal::open(directory.clone(), &options(), Evidence::default()).unwrap();
    let second = wal::open(directory, &options(), Evidence::default());
    assert!(matches!(second, Err(OpenError::Locked { .. })));
    drop(first);
}

#[test]
fn where_direct_io_is_refused_the_log_works_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let directory = RealDirectory::open(folder.path()).unwrap().without_direct();
    let recovered = round_trip(Arc::new(directory));
    assert!(!recovered.report.is_direct);
    assert_eq!(recovered.report.driver, "io_uring");
    let notes = recovered.report.notes.join(" ");
    assert!(notes.contains("refuses direct I/O"), "{notes}");
}

#[test]
fn where_io_uring_is_refused_a_thread_writes_and_the_log_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let directory = RealDirectory::open(folder.path()).unwrap().without_ring();
    let recovered = round_trip(Arc::new(directory));
    assert_eq!(recovered.report.driver, "thread");
    let notes = recovered.report.notes.join(" ");
    assert!(notes.contains("a thread writes the log"), "{notes}");
}

/// Fills several segments, closes, opens again.
fn round_trip(directory: Arc<dyn Directory>) -> Recovered {
    let options = Options {
        helper: wal::Helper::Thread,
        ..options()
    };
    wal::create(&*directory, &options, METADATA, LOG_ID).unwrap();
    let before = [Model::default()];
    let (mut pair, _) = Pair::open_with(directory.clone(), &before, &options).unwrap();
    for round in 0..60 {
        pair.append(&Append::Entry {
            back: 0,
            bytes: 17_000,
        });
        pair.append(&Append::HardState);
        pair.append(&Append::Compact { keep: 3 });
        while pair.synced + 1 < pair.states.len() {
            pair.submit().unwrap();
            pair.log.wait().unwrap();
            pair.poll().unwrap();
        }
        if round % 8 == 0 {
            pair.trim();
        }
    }
    let last = pair.candidates().to_vec();
    pair.log.close(|| 0).unwrap();
    let (pair, recovered) = Pair::open_with(directory, &last, &options).unwrap();
    assert!(recovered.report.was_closed);
    let newest = pair.log.writer().retained().last().unwrap().0;
    assert!(5 < newest.0, "segments were used: {newest}");
    recovered
}
