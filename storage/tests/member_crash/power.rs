//! The power goes, or the process dies, before, in and after every operation: of a life, and of the recovery after it.

use storage::device::crash::{Crash, Fault, Operation};
use storage::device::{CrashDisk, Directory};

use super::member::{Habit, Halt, Member};
use super::model::Ledger;
use super::{crashes, goes_on, life};

/// A life on a new disk that ends in operation `at`.
fn cut_short(seed: u64, steps: usize, at: u64) -> (CrashDisk, Ledger) {
    let disk = CrashDisk::new();
    disk.inject(Fault::PowerLoss { at });
    let mut ledger = Ledger::new();
    match life(&disk, &mut ledger, Habit::Sound, seed, steps) {
        Err(Halt::Stopped(_)) => {}
        other => panic!("seed {seed}, operation {at}: {other:?}"),
    }
    (disk, ledger)
}

/// The operations of a life that nothing disturbs, which must have had everything in it.
fn whole(seed: u64, steps: usize) -> Vec<Operation> {
    let disk = CrashDisk::new();
    let mut ledger = Ledger::new();
    let lived = life(&disk, &mut ledger, Habit::Sound, seed, steps);
    lived.unwrap_or_else(|halt| panic!("seed {seed}: {halt:?}"));
    let state = ledger.state(ledger.last());
    assert!(1 < state.compactions.len(), "seed {seed} never compacts");
    let mut records = state.history.values().flatten();
    assert!(
        records.any(|(_, record)| record.is_none()),
        "seed {seed} never deletes"
    );
    assert!(0 < state.ended, "seed {seed}: no key ends with its lease");
    let journal = disk.journal();
    let is_meta = |operation: &&Operation| {
        matches!(operation, Operation::Write { name, offset, .. }
            if name == "snap/db" && *offset < 2048)
    };
    let commits = journal.iter().filter(is_meta).count();
    assert!(5 < commits, "seed {seed}: {commits} group commits");
    journal
}

fn recovers(disk: &CrashDisk, ledger: &Ledger, crash: Crash, what: &str) {
    let seed = ledger.last() * 31;
    let after = disk.restart(crash);
    if let Err(wrong) = goes_on(&after, &mut ledger.clone(), Habit::Sound, seed) {
        panic!("{what}, {crash:?}: {wrong}");
    }
}

#[test]
fn a_crash_in_every_operation_keeps_everything_acknowledged() {
    for seed in [1, 2] {
        let operations = whole(seed, 150).len() as u64;
        assert!(100 < operations, "too short a life: {operations}");
        for at in 0..operations {
            let (disk, ledger) = cut_short(seed, 150, at);
            for crash in crashes(at, 2) {
                recovers(
                    &disk,
                    &ledger,
                    crash,
                    &format!("seed {seed}, operation {at}"),
                );
            }
        }
    }
}

#[test]
fn a_crash_while_segments_come_and_go_keeps_everything_acknowledged() {
    let (seed, steps) = (3, 700);
    let journal = whole(seed, steps);
    let renames = |from_end: &str, to_end: &str| {
        let is_it = |operation: &&Operation| {
            matches!(operation, Operation::Name { from, to }
                if from.ends_with(from_end) && to.ends_with(to_end))
        };
        journal.iter().filter(is_it).count()
    };
    assert!(1 < renames(".preparing", ".segment"), "segments are made");
    assert!(0 < renames(".segment", ".spare"), "and released");
    assert!(0 < renames(".spare", ".segment"), "and used again");
    // Around each change of a name, and a sample of the rest.
    let is_chosen = |at: usize| {
        let around = at.saturating_sub(1)..(at + 2).min(journal.len());
        let has_name = |operation: &Operation| matches!(operation, Operation::Name { .. });
        at.is_multiple_of(41) || journal[around].iter().any(has_name)
    };
    for at in (0..journal.len()).filter(|at| is_chosen(*at)) {
        let (disk, ledger) = cut_short(seed, steps, at as u64);
        for crash in crashes(at as u64, 1) {
            recovers(&disk, &ledger, crash, &format!("operation {at}"));
        }
    }
}

/// Until it serves and a group commit or two have happened.
fn recover(disk: &CrashDisk, ledger: &mut Ledger, seed: u64) -> Result<(), Halt> {
    let mut member = Member::open(disk, ledger, Habit::Sound, seed)?;
    member.start(ledger)?;
    member.settle(ledger)
}

#[test]
fn a_crash_in_the_middle_of_recovery_is_recovered_from() {
    let (seed, steps) = (4, 150);
    let operations = whole(seed, steps).len() as u64;
    let mut cases = 0;
    for at in (0..operations).step_by(11) {
        let (disk, ledger) = cut_short(seed, steps, at);
        for crash in [Crash::ProcessOnly, Crash::LoseAll, Crash::Subset(at)] {
            let broken = disk.restart(crash);
            let trial = broken.restart(Crash::ProcessOnly);
            recover(&trial, &mut ledger.clone(), at).expect("a sound disk");
            for again_at in (at % 3..trial.operations()).step_by(3) {
                let trial = broken.restart(Crash::ProcessOnly);
                trial.inject(Fault::PowerLoss { at: again_at });
                let mut ledger = ledger.clone();
                match recover(&trial, &mut ledger, at) {
                    Err(Halt::Stopped(_)) => {}
                    other => panic!("operation {at}, {crash:?}, then {again_at}: {other:?}"),
                }
                let modes = [
                    Crash::LoseAll,
                    Crash::Subset(at + again_at),
                    Crash::ProcessOnly,
                    Crash::KeepAll,
                ];
                let then = modes[again_at as usize / 3 % modes.len()];
                let what = format!("operation {at}, {crash:?}, then {again_at} of recovery");
                recovers(&trial, &ledger, then, &what);
                cases += 1;
            }
        }
    }
    assert!(200 < cases, "{cases} recoveries were cut short");
}

/// A tree without a log, such as a restored backup: the member takes its data as its own.
#[test]
fn a_crash_while_a_tree_without_a_log_is_adopted_leaves_it_adoptable() {
    for seed in [7, 8] {
        let disk = CrashDisk::new();
        let mut ledger = Ledger::new();
        let lived = life(&disk, &mut ledger, Habit::Sound, seed, 60);
        lived.expect("a sound disk");
        let folder = disk.folder("wal");
        for file in folder.list().expect("a sound disk") {
            folder.remove(&file.name).expect("a sound disk");
        }
        Directory::sync(&folder).expect("a sound disk");
        let adopted = disk.restart(Crash::LoseAll);
        ledger.hard_state = Default::default();

        let trial = adopted.restart(Crash::LoseAll);
        recover(&trial, &mut ledger.clone(), seed).expect("adopted");
        for at in 0..trial.operations() {
            let trial = adopted.restart(Crash::LoseAll);
            trial.inject(Fault::PowerLoss { at });
            let mut ledger = ledger.clone();
            match recover(&trial, &mut ledger, seed) {
                Err(Halt::Stopped(_)) => {}
                other => panic!("operation {at}: {other:?}"),
            }
            for crash in crashes(at, 2) {
                recovers(&trial, &ledger, crash, &format!("adoption, operation {at}"));
            }
        }
    }
}
