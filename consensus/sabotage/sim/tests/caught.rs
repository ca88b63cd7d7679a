//! Every deliberate fault is caught, by which check and within how many seeds. What the simulator
//! would not see if it were there, it does not prove absent.
//!
//! Each fault is looked for twice: with all checks, and with those alone that judge what members and
//! clients end up with. The second takes more seeds, and shows that the direct checks are no
//! substitute for the properties: those fail as well.

use consensus::Sabotage::{self, *};
use consensus_sim_sabotaged::Property::*;
use consensus_sim_sabotaged::many::{cores, run_many};
use consensus_sim_sabotaged::{Options, Property};

/// A fault; by what it may be caught with all checks, and within how many seeds; the same for the
/// end-to-end checks. 0 seeds: those alone take too long for a suite (`docs/consensus-proof.md` has
/// the number). First findings lie at a fourth of these bounds or earlier.
type Row = (Sabotage, &'static [Property], u64, &'static [Property], u64);

/// What is wrong with logs, wherever it shows first.
const LOG: &[Property] = &[
    ElectionSafety,
    LeaderAppendOnly,
    LogMatching,
    LeaderCompleteness,
    StateMachineSafety,
    CommittedStays,
    Monotonic,
    CommitDurable,
    Progress,
];

#[rustfmt::skip]
const ROWS: [Row; 27] = [
    (VoteNotDurable, &[DurableBeforeSent], 200, LOG, 2000),
    (AckNotDurable, &[DurableBeforeSent], 200, LOG, 300),
    (LeaderCountsUnsynced, &[CommitDurable], 200, LOG, 200),
    (CommitOlderTerm, &[ReadIndex, LeaderCompleteness, CommittedStays], 1600, &[Linearizable, LeaderCompleteness, CommittedStays], 9400),
    (VoteTwice, LOG, 200, LOG, 200),
    (VoteForAnyLog, LOG, 300, LOG, 300),
    (AppendUnchecked, LOG, 300, LOG, 300),
    (TruncateBelowCommit, LOG, 200, LOG, 200),
    (CommitUnmatched, LOG, 200, LOG, 200),
    (OverwrittenWriteCounts, &[Assertion, CommitDurable, DurableBeforeSent], 500, &[Assertion], 500),
    (ProposalTwice, &[AtMostOnce], 300, &[AtMostOnce], 300),
    (OldSnapshotTaken, LOG, 500, LOG, 500),
    (ReadWithoutQuorum, &[ReadIndex], 300, &[Linearizable], 2000),
    (ReadBeforeFirstCommit, &[ReadIndex], 300, &[Linearizable], 300),
    (ReadJoinsRound, &[ReadIndex], 2200, &[Linearizable], 0),
    (LeaseUnpromised, &[ReadIndex], 400, &[Linearizable], 400),
    (LeaseForgotten, &[ReadIndex], 400, &[Linearizable], 400),
    (LeaseOutlivesPause, &[ReadIndex], 400, &[Linearizable], 4600),
    (LeaseOutlivesHandOver, &[ReadIndex], 6300, &[Linearizable], 6300),
    (JointByOneMajority, &[CommitDurable], 400, LOG, 2800),
    (LearnerCounts, &[CommitDurable], 200, LOG, 200),
    (ChangeBeforeApplied, LOG, 900, LOG, 900),
    (CommitIndexNotWritten, LOG, 2200, LOG, 2200),
    (CampaignBeforeApplied, LOG, 2500, LOG, 2500),
    (RemovedVotesByCommit, LOG, 18_200, LOG, 0),
    (StalledLeaderStays, &[StalledLeader], 300, &[StalledLeader], 300),
    (PreVoteAlways, &[Calm], 600, &[Calm], 600),
];

fn options(sabotage: Option<Sabotage>, end_to_end: bool) -> Options {
    Options {
        sabotage,
        end_to_end,
        ..Options::default()
    }
}

#[test]
fn every_fault_is_caught() {
    let mut missed = Vec::new();
    for (sabotage, by, within, by_end_to_end, within_end_to_end) in ROWS {
        for (by, within, end_to_end) in [
            (by, within, false),
            (by_end_to_end, within_end_to_end, true),
        ] {
            let summary = run_many(
                0..within,
                cores(),
                options(Some(sabotage), end_to_end),
                |_| {},
            );
            match summary.first_failure {
                Some((seed, failure)) if by.contains(&failure.property) => {
                    println!("{sabotage:?}: {:?} at seed {seed}", failure.property);
                }
                Some((seed, failure)) => {
                    missed.push(format!(
                        "{sabotage:?} by another check, seed {seed}: {failure}"
                    ));
                }
                None if within == 0 => {}
                None => missed.push(format!("{sabotage:?} passed {within} seeds")),
            }
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

#[test]
fn every_fault_has_its_row() {
    for sabotage in Sabotage::ALL {
        let rows = ROWS.iter().filter(|row| row.0 == sabotage).count();
        assert_eq!(rows, 1, "{sabotage:?}");
    }
}

/// Without a fault this build of the core is the one that the server has: same seeds, same traces.
#[test]
fn without_a_fault_nothing_is_caught() {
    let summary = run_many(0..200, cores(), options(None, false), |_| {});
    assert!(
        summary.first_failure.is_none(),
        "{:?}",
        summary.first_failure
    );
}
