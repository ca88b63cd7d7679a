//! The log on a disk that loses power: before, in and after every operation, also during recovery.
//!
//! Every check is the same: what is recovered equals the log after some record that is no older
//! than the newest acknowledged one; then the log goes on and can be opened again. The disk itself
//! panics if an acknowledged byte is written a second time.

#![allow(clippy::unwrap_used)]

mod wal_support;

use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use storage::device::CrashDisk;
use storage::device::crash::{Crash, Fault, Operation};
use storage::wal::{LogError, OpenError};
use wal_support::{Append, Model, Pair, create};

/// Runs until the power goes; returns the states that may be recovered.
fn story(disk: &CrashDisk) -> Vec<Model> {
    let before = vec![Model::default()];
    if create(disk).is_err() {
        return before;
    }
    let Ok((mut pair, _)) = Pair::open(Arc::new(disk.clone()), &before) else {
        return before;
    };
    let outcome = tell(&mut pair);
    let candidates = pair.candidates().to_vec();
    if outcome.is_ok() {
        assert_eq!(candidates.len(), 1);
    }
    candidates
}

fn tell(pair: &mut Pair) -> Result<(), LogError> {
    pair.append(&Append::Entry { back: 0, bytes: 10 });
    pair.append(&Append::HardState);
    pair.sync()?;
    for round in 0..24 {
        for step in 0..3 {
            pair.append(&Append::Entry {
                back: 0,
                bytes: 1500 * (round % 7) + step,
            });
            // Something arrives while the write is under way.
            if step == 1 {
                pair.submit()?;
            }
        }
        pair.append(&Append::HardState);
        pair.sync()?;
        match round {
            3 => pair.append(&Append::Entry {
                back: 2,
                bytes: 5000,
            }),
            5 => pair.append(&Append::Entry {
                back: 0,
                bytes: 19_000,
            }),
            6 | 10 | 13 | 16 | 20 => pair.append(&Append::Compact { keep: 2 }),
            8 => pair.append(&Append::Install { ahead: 7 }),
            _ => {}
        }
        pair.sync()?;
        pair.trim();
        pair.log.run_chores();
        pair.poll()?;
    }
    Ok(())
}

/// Opens after a crash, checks, goes on, closes, opens again.
fn check_and_go_on(disk: &CrashDisk, candidates: &[Model]) {
    let disk = Arc::new(disk.clone());
    let mut pair = match Pair::open(disk.clone(), candidates) {
        Ok((pair, _)) => pair,
        Err(OpenError::Missing { .. }) if candidates == [Model::default()] => return,
        Err(error) => panic!("{error}"),
    };
    pair.append(&Append::Entry {
        back: 0,
        bytes: 3000,
    });
    pair.append(&Append::HardState);
    pair.sync().unwrap();
    let last = pair.candidates().to_vec();
    drop(pair);
    let (_, recovered) = Pair::open(disk, &last).unwrap();
    assert_eq!(recovered.report.torn, None, "the cut was durable");
}

const SEEDS: u64 = 5;

fn crashes(seed: u64) -> impl Iterator<Item = Crash> {
    let subsets = (0..SEEDS).map(move |slot| Crash::Subset(seed.wrapping_mul(1000) + slot));
    [Crash::LoseAll, Crash::KeepAll, Crash::ProcessOnly]
        .into_iter()
        .chain(subsets)
}

#[test]
fn a_crash_in_every_operation_keeps_what_was_acknowledged() {
    let whole = CrashDisk::new();
    story(&whole);
    let operations = whole.operations();
    let submits = whole
        .journal()
        .iter()
        .filter(|op| matches!(op, Operation::Submit { .. }))
        .count();
    assert!(30 < submits, "the story is too short: {submits} writes");
    let journal = whole.journal();
    let recycles = journal.iter().filter(|operation| match operation {
        Operation::Name { from, to } => from.ends_with(".spare") && to.ends_with(".segment"),
        _ => false,
    });
    assert!(1 < recycles.count(), "segments are recycled");
    for at in 0..operations {
        let disk = CrashDisk::new();
        disk.inject(Fault::PowerLoss { at });
        let candidates = story(&disk);
        for crash in crashes(at) {
            check_and_go_on(&disk.restart(crash), &candidates);
        }
    }
}

#[test]
fn a_crash_in_every_operation_of_recovery_loses_nothing() {
    let whole = CrashDisk::new();
    story(&whole);
    let groups = whole
        .journal()
        .into_iter()
        .enumerate()
        .filter_map(|(at, operation)| {
            matches!(operation, Operation::Submit { .. }).then_some(at as u64)
        });
    let mut recoveries_with_cut = 0;
    for at in groups.step_by(3) {
        let disk = CrashDisk::new();
        disk.inject(Fault::PowerLoss { at });
        let candidates = story(&disk);
        for crash in crashes(at) {
            let torn = disk.restart(crash);
            let trial = torn.restart(Crash::ProcessOnly);
            let (pair, recovered) = Pair::open(Arc::new(trial.clone()), &candidates).unwrap();
            recoveries_with_cut += u32::from(recovered.report.torn.is_some());
            drop(pair);
            for second in 0..trial.operations() {
                let again = torn.restart(Crash::ProcessOnly);
                again.inject(Fault::PowerLoss { at: second });
                assert!(Pair::open(Arc::new(again.clone()), &candidates).is_err());
                for crash in [
                    Crash::LoseAll,
                    Crash::KeepAll,
                    Crash::Subset(at * 31 + second),
                ] {
                    check_and_go_on(&again.restart(crash), &candidates);
                }
            }
        }
    }
    assert!(
        10 < recoveries_with_cut,
        "only {recoveries_with_cut} torn tails were met"
    );
}

#[test]
fn what_a_dead_process_left_is_durable_before_the_log_goes_on() {
    let whole = CrashDisk::new();
    story(&whole);
    let journal = whole.journal();
    let places = journal
        .iter()
        .enumerate()
        .filter_map(|(at, operation)| match operation {
            Operation::Name { .. } | Operation::SyncDirectory | Operation::Sync { .. } => Some(at),
            _ => None,
        });
    for at in places {
        let disk = CrashDisk::new();
        disk.inject(Fault::PowerLoss { at: at as u64 });
        let candidates = story(&disk);
        let disk = disk.restart(Crash::ProcessOnly);
        let opened = Pair::open(Arc::new(disk.clone()), &candidates);
        let Ok((mut pair, _)) = opened else { continue };
        // Into whatever segment was ready, and no chore that would make its name durable.
        loop {
            pair.append(&Append::Entry {
                back: 0,
                bytes: 17_000,
            });
            while pair.submit().unwrap() {
                pair.poll().unwrap();
            }
            if pair.log.has_pending() {
                break;
            }
        }
        check_and_go_on(&disk.restart(Crash::LoseAll), pair.candidates());
    }
}

#[test]
fn the_first_failed_write_stops_the_log_for_good() {
    let whole = CrashDisk::new();
    story(&whole);
    let journal = whole.journal();
    let places = journal
        .iter()
        .enumerate()
        .filter_map(|(at, operation)| match operation {
            Operation::Submit { .. } | Operation::Complete { .. } => Some(at as u64),
            _ => None,
        });
    for at in places.step_by(5) {
        let disk = CrashDisk::new();
        disk.inject(Fault::Error {
            at,
            errno: libc::EIO,
        });
        create(&disk).unwrap();
        let (mut pair, _) = Pair::open(Arc::new(disk.clone()), &[Model::default()]).unwrap();
        let first = tell(&mut pair).unwrap_err();
        assert!(matches!(first, LogError::Write { .. }), "{first}");
        assert!(first.to_string().contains("will not retry"), "{first}");
        let operations = disk.operations();
        let states = pair.states.len();
        pair.append(&Append::HardState);
        assert_eq!(pair.states.len(), states, "a stopped log accepts nothing");
        assert_eq!(pair.submit().unwrap_err(), first);
        assert_eq!(pair.poll().unwrap_err(), first);
        assert_eq!(
            disk.operations(),
            operations,
            "a stopped log touches nothing"
        );
        let candidates = pair.candidates().to_vec();
        drop(pair);
        check_and_go_on(&disk.restart(Crash::Subset(at)), &candidates);
    }
}

/// A log on a disk without room for a second segment, filled until that one is needed.
fn fill(disk: &CrashDisk) -> Pair {
    let segment_bytes = wal_support::options().segment_bytes;
    create(disk).unwrap();
    disk.limit_space(Some(segment_bytes + 1000));
    let (mut pair, _) = Pair::open(Arc::new(disk.clone()), &[Model::default()]).unwrap();
    let entry = Append::Entry {
        back: 0,
        bytes: 6000,
    };
    let reserve_bytes = segment_bytes / 2;
    while !pair.log.lacks_room(reserve_bytes) {
        pair.append(&entry);
        pair.sync().unwrap();
    }
    let left = pair.log.writer().room_bytes();
    assert!(
        reserve_bytes - (8 << 10) <= left && left < reserve_bytes,
        "{left} bytes left"
    );
    while !pair.log.writer().is_waiting_for_segment() {
        pair.append(&entry);
        pair.log.run_chores();
        pair.submit().unwrap();
        pair.poll().unwrap();
    }
    assert!(15 < pair.synced, "the segment was filled: {}", pair.synced);
    pair
}

#[test]
fn a_full_disk_holds_up_what_needs_the_next_segment_until_there_is_room() {
    let disk = CrashDisk::new();
    let mut pair = fill(&disk);
    let synced = pair.synced;
    for _ in 0..5 {
        pair.log.run_chores();
        pair.submit().unwrap();
        pair.poll().unwrap();
    }
    assert_eq!(pair.synced, synced, "nothing more is acknowledged");
    disk.limit_space(None);
    pair.sync().unwrap();
    assert!(synced < pair.synced);
    assert!(!pair.log.lacks_room(u64::MAX));
    let candidates = pair.candidates().to_vec();
    drop(pair);
    check_and_go_on(&disk.restart(Crash::LoseAll), &candidates);
}

#[test]
fn a_full_disk_is_named_when_a_log_that_needs_room_is_closed() {
    let disk = CrashDisk::new();
    let pair = fill(&disk);
    let candidates = pair.candidates().to_vec();
    let text = pair.log.close(|| 0).unwrap_err().to_string();
    assert!(
        text.contains("0000000000000002") && text.contains("free space"),
        "{text}"
    );
    let disk = disk.restart(Crash::LoseAll);
    disk.limit_space(None);
    check_and_go_on(&disk, &candidates);
}

#[test]
fn a_full_disk_at_creation_leaves_no_log_and_no_files() {
    let disk = CrashDisk::new();
    disk.limit_space(Some(10_000));
    let text = create(&disk).unwrap_err().to_string();
    assert!(text.contains("free space"), "{text}");
    disk.limit_space(None);
    create(&disk).unwrap();
    Pair::open(Arc::new(disk), &[Model::default()])
        .map(drop)
        .unwrap();
}

#[test]
fn a_stalled_disk_holds_up_the_next_group_and_gathers_what_arrives() {
    let disk = CrashDisk::new();
    create(&disk).unwrap();
    let (mut pair, _) = Pair::open(Arc::new(disk.clone()), &[Model::default()]).unwrap();
    disk.stall(true);
    pair.append(&Append::Entry {
        back: 0,
        bytes: 100,
    });
    assert!(pair.submit().unwrap());
    for _ in 0..20 {
        pair.append(&Append::Entry {
            back: 0,
            bytes: 100,
        });
        assert!(!pair.submit().unwrap(), "one write at a time");
        pair.poll().unwrap();
    }
    assert_eq!(pair.synced, 0);
    disk.stall(false);
    pair.poll().unwrap();
    assert_eq!(pair.synced, 1);
    assert!(pair.submit().unwrap());
    pair.poll().unwrap();
    assert_eq!(pair.synced, 21, "all that waited went with one write");
}

#[derive(Clone, Debug)]
enum Step {
    Append(Append),
    Submit,
    Poll,
    Sync,
    Trim,
    Chores,
    Crash(Crash),
    Close,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let append = prop_oneof![
        8 => (0..4u64, 0..9000usize).prop_map(|(back, bytes)| Append::Entry {
            back: back.saturating_sub(2),
            bytes,
        }),
        1 => (9000..20_000usize).prop_map(|bytes| Append::Entry { back: 0, bytes }),
        3 => Just(Append::HardState),
        1 => (0..5u64).prop_map(|keep| Append::Compact { keep }),
        1 => (1..5u64).prop_map(|ahead| Append::Install { ahead }),
    ];
    let crash = prop_oneof![
        Just(Crash::LoseAll),
        Just(Crash::KeepAll),
        Just(Crash::ProcessOnly),
        any::<u64>().prop_map(Crash::Subset),
        any::<u64>().prop_map(Crash::Subset),
    ];
    let step = prop_oneof![
        10 => append.prop_map(Step::Append),
        4 => Just(Step::Submit),
        4 => Just(Step::Poll),
        3 => Just(Step::Sync),
        2 => Just(Step::Trim),
        2 => Just(Step::Chores),
        1 => crash.prop_map(Step::Crash),
        1 => Just(Step::Close),
    ];
    proptest::collection::vec(step, 1..150)
}

/// Fixed, so that a run repeats. Change it, and raise `cases`, to search elsewhere.
const SEED: u64 = 20;

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, rng_seed: RngSeed::Fixed(SEED), ..Default::default() })]

    #[test]
    fn any_mix_of_appends_and_crashes_matches_the_model(steps in steps()) {
        let mut disk = CrashDisk::new();
        create(&disk).unwrap();
        let (mut pair, _) = Pair::open(Arc::new(disk.clone()), &[Model::default()]).unwrap();
        for step in &steps {
            match step {
                Step::Append(what) => pair.append(what),
                Step::Submit => drop(pair.submit().unwrap()),
                Step::Poll => pair.poll().unwrap(),
                Step::Sync => pair.sync().unwrap(),
                Step::Trim => pair.trim(),
                Step::Chores => pair.log.run_chores(),
                Step::Crash(crash) => {
                    let candidates = pair.candidates().to_vec();
                    disk = disk.restart(*crash);
                    (pair, _) = Pair::open(Arc::new(disk.clone()), &candidates).unwrap();
                }
                Step::Close => {
                    let last = pair.last().clone();
                    pair.log.close(|| 0).unwrap();
                    let opened = Pair::open(Arc::new(disk.clone()), &[last]).unwrap();
                    prop_assert!(opened.1.report.was_closed);
                    pair = opened.0;
                }
            }
        }
    }
}
