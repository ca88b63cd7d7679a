//! Snapshots: section 7.

use consensus::*;

use crate::node::*;

fn snapshot(last: LogPosition) -> SnapshotMeta {
    SnapshotMeta {
        last,
        membership: Membership::new([ME, TWO, THREE], []),
    }
}

#[test]
fn s7_a_snapshot_replaces_the_log_and_is_acknowledged_when_durable() {
    let mut node = Node::with_log(3, &[2, 2], 3);
    node.step(
        TWO,
        3,
        Body::Snapshot {
            snapshot: snapshot(at(8, 3)),
        },
    );
    node.step(TWO, 3, append(at(8, 3), &[3], 9));
    let write = node.drain().write;
    assert_eq!(node.ready.install.as_ref().unwrap().last, at(8, 3));
    assert_eq!(node.ready.entries[0].index, LogIndex(9));
    assert!(node.sent.iter().all(|out| out.after == write));
    assert!(node.ready.committed.is_empty());
    node.synced(write);
    assert_eq!(
        (node.status().applied, node.status().durable),
        (LogIndex(8), LogIndex(9))
    );
    assert_eq!(node.drain().committed[0].index, LogIndex(9));
}

#[test]
fn s7_a_snapshot_of_what_is_there_keeps_the_log_and_an_old_one_does_nothing() {
    let mut node = Node::with_log(3, &[2, 2, 2], 3);
    node.step(
        TWO,
        3,
        Body::Snapshot {
            snapshot: snapshot(at(3, 2)),
        },
    );
    assert!(node.drain().install.is_none());
    assert_eq!(
        (node.status().commit, node.status().last_index),
        (LogIndex(3), LogIndex(4))
    );
    node.step(
        TWO,
        3,
        Body::Snapshot {
            snapshot: snapshot(at(2, 2)),
        },
    );
    assert!(node.drain().install.is_none());
    assert_eq!(node.raft.ignored().get(Ignored::OldSnapshot), 1);
}

#[test]
fn s7_a_leader_offers_a_snapshot_when_its_log_starts_later() {
    let mut node = Node::leader(3);
    let hint = LogPosition::ZERO;
    node.step(
        TWO,
        2,
        Body::AppendReject {
            rejected: LogIndex(1),
            hint,
            last: LogIndex::ZERO,
        },
    );
    node.drain();
    assert_eq!(
        node.ready.snapshots,
        [SnapshotRequest {
            to: TWO,
            at_least: LogIndex(1)
        }]
    );
    node.raft.on_snapshot_sent(TWO, Some(LogIndex(2)));
    node.step(TWO, 2, ack(2));
    let follower = node.raft.followers().find(|f| f.id == TWO).unwrap();
    assert_eq!(
        (follower.state, follower.next),
        (ProgressState::Replicate, LogIndex(3))
    );
}

/// A member alone, with `count` commands applied and the state machine durable through `checkpoint`.
fn alone(count: u64, checkpoint: u64) -> Option<LogPosition> {
    let mut node = Node::with(1, |_, _| {});
    node.settle();
    for _ in 0..count {
        node.raft.propose("x".into()).expect("it leads");
    }
    apply_all(&mut node);
    node.raft.on_checkpoint(LogIndex(checkpoint));
    node.drain().trim
}

#[test]
fn s7_the_log_is_trimmed_behind_the_checkpoint_and_keeps_a_tail() {
    // Entry 1 is the founding and the base. By default 10,000 entries make a trim, 5,000 stay.
    assert_eq!(alone(12_000, 10_000), None);
    assert_eq!(alone(12_000, 10_001), Some(at(5_001, 2)));
    assert_eq!(alone(12_000, 11_000), Some(at(6_000, 2)));
}

#[test]
fn s7_a_follower_that_is_late_holds_back_the_trim_for_a_while() {
    let trimmed = |matched, hold| {
        let mut node = Node::with(3, |config, _| {
            (config.trim_every_entries, config.trim_keep_entries) = (10, 4);
            config.trim_hold_entries_max = hold;
        });
        node.lead();
        for _ in 0..30 {
            node.raft.propose("x".into()).unwrap();
        }
        node.settle();
        node.step(TWO, 2, ack(32)).step(THREE, 2, ack(matched));
        apply_all(&mut node);
        node.raft.on_checkpoint(LogIndex(32));
        node.drain().trim.map(|trim| trim.index.0)
    };
    assert_eq!(trimmed(32, 100), Some(28));
    assert_eq!(trimmed(11, 100), Some(11));
    assert_eq!(trimmed(11, 15), Some(17));
}

#[test]
fn s7_a_member_restarts_behind_its_snapshot() {
    let mut node = Node::with(3, |_, restored| {
        restored.log_base = at(8, 3);
        restored.applied = LogIndex(8);
        restored.hard_state = HardState {
            term: Term(3),
            vote: None,
            commit: LogIndex(8),
        };
    });
    let status = node.status();
    assert_eq!(
        (status.last_index, status.commit, status.first_index),
        (LogIndex(8), LogIndex(8), LogIndex(9))
    );
    node.step(TWO, 3, append(at(8, 3), &[3], 8)).settle();
    assert_eq!(node.status().durable, LogIndex(9));
    node.take();
    // It judges candidates by the snapshot's end.
    let refused = Body::VoteReply { granted: false };
    assert_eq!(
        node.step(THREE, 4, vote(at(8, 3))).take()[0],
        (THREE, refused)
    );
}

/// Found by simulation: a crash may keep a snapshot without the hard state written after it.
#[test]
fn s7_a_snapshot_that_was_kept_alone_tells_its_term() {
    let node = Node::with(3, |_, restored| {
        restored.log_base = at(8, 5);
        restored.applied = LogIndex(8);
        restored.hard_state = HardState {
            term: Term(3),
            vote: Some(TWO),
            commit: LogIndex(2),
        };
    });
    let status = node.status();
    assert_eq!((status.term, status.vote), (Term(5), None));
    assert_eq!(status.commit, LogIndex(8));
}

#[test]
fn s7_no_snapshot_goes_to_a_member_that_is_not_heard() {
    let mut node = Node::with(3, |config, _| config.check_quorum = false);
    node.lead();
    node.tick(2 * T);
    node.take();
    let reject = Body::AppendReject {
        rejected: LogIndex(1),
        hint: LogPosition::ZERO,
        last: LogIndex::ZERO,
    };
    // Its word is what makes it active again.
    assert!(node.drain().snapshots.is_empty());
    node.step(TWO, 2, reject);
    assert_eq!(node.drain().snapshots.len(), 1);
}
