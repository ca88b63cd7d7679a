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
    node.raft.on_synced(write);
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
