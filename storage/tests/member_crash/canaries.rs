//! Members that break one rule are caught by the very checks that sound ones pass.

use storage::device::CrashDisk;
use storage::device::crash::Fault;

use super::member::{Habit, Halt};
use super::model::Ledger;
use super::{crashes, goes_on, life};

/// What the checks say of a member with this habit, over crashes in every few operations of its life.
fn caught(habit: Habit, steps: usize) -> Vec<String> {
    let mut said = Vec::new();
    for at in (0..).step_by(5) {
        let disk = CrashDisk::new();
        disk.inject(Fault::PowerLoss { at });
        let mut ledger = Ledger::new();
        match life(&disk, &mut ledger, habit, 1, steps) {
            Err(Halt::Stopped(_)) => {}
            Err(Halt::Wrong(what)) => said.push(what),
            Ok(()) => break,
        }
        for crash in crashes(at, 0) {
            // The member that comes after is in order: only what the habit left behind counts.
            let after = match habit {
                Habit::AppliesAgain => habit,
                _ => Habit::Sound,
            };
            let gone_on = goes_on(&disk.restart(crash), &mut ledger.clone(), after, at);
            said.extend(gone_on.err());
        }
    }
    said
}

fn assert_caught(habit: Habit, steps: usize, sign: &str) {
    let said = caught(habit, steps);
    assert!(
        said.iter().any(|what| what.contains(sign)),
        "{habit:?}: nothing of {sign:?} in {said:#?}"
    );
}

#[test]
fn a_sound_member_raises_no_alarm() {
    assert_eq!(caught(Habit::Sound, 150), Vec::<String>::new());
}

#[test]
fn acknowledging_before_the_log_is_durable_is_caught() {
    assert_caught(Habit::AcknowledgesBeforeDurable, 150, "was acknowledged");
}

#[test]
fn applying_what_the_tree_holds_already_is_caught() {
    assert_caught(Habit::AppliesAgain, 150, "the revision is");
}

#[test]
fn a_consistent_index_that_lands_before_its_data_is_caught() {
    assert_caught(
        Habit::CommitsIndexBeforeData,
        150,
        "is missing or different",
    );
}

#[test]
fn data_that_lands_before_its_consistent_index_is_caught() {
    assert_caught(Habit::CommitsDataBeforeIndex, 150, "does not belong there");
}

#[test]
fn trimming_the_log_ahead_of_the_tree_is_caught() {
    assert_caught(Habit::TrimsAheadOfTree, 150, "the log was given up to");
}
