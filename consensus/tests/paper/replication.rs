//! Log replication and commitment: sections 5.3, 5.4.2 and 5.4.3.

use consensus::*;

use crate::node::*;

#[test]
fn s5_3_a_leader_sends_and_writes_in_parallel_and_counts_itself_when_durable() {
    let mut node = Node::leader(3);
    assert_eq!(node.raft.propose("a".into()), Ok(LogIndex(3)));
    node.step(TWO, 2, ack(2)).step(THREE, 2, ack(2));
    let write = node.drain().write;
    assert_eq!(node.ready.entries.len(), 1);
    let appends: Vec<_> = node.sent.drain(..).collect();
    assert_eq!(appends.len(), 2);
    assert!(appends.iter().all(|out| out.after == WriteNumber::NONE));
    node.step(TWO, 2, ack(3));
    assert_eq!(
        node.status().commit,
        LogIndex(2),
        "the leader's own copy is not durable"
    );
    node.raft.on_synced(write);
    assert_eq!(node.status().commit, LogIndex(3));
    assert_eq!(node.drain().committed.len(), 1);
}

#[test]
fn s5_3_two_followers_commit_without_the_leaders_disk_which_applies_later() {
    let mut node = Node::leader(3);
    node.raft.propose("a".into()).unwrap();
    let write = node.drain().write;
    node.step(TWO, 2, ack(3)).step(THREE, 2, ack(3));
    assert_eq!(node.status().commit, LogIndex(3));
    assert_eq!(
        node.drain().committed.last().map(|e| e.index),
        Some(LogIndex(2))
    );
    node.raft.on_synced(write);
    assert_eq!(
        node.drain().committed.last().map(|e| e.index),
        Some(LogIndex(3))
    );
}

#[test]
fn s5_3_a_follower_acknowledges_what_is_durable() {
    let mut node = Node::new(3);
    node.step(TWO, 2, append(at(1, 1), &[2, 2], 2));
    let write = node.drain().write;
    assert_eq!(node.ready.entries.len(), 2);
    let out = &node.sent[0];
    assert_eq!((out.to, out.after), (TWO, write));
    assert_eq!(
        out.message.body,
        Body::AppendAck {
            matched: LogIndex(3),
            commit: LogIndex(2)
        }
    );
    assert!(node.ready.committed.is_empty(), "not durable, not applied");
    node.raft.on_synced(write);
    assert_eq!(node.drain().committed.len(), 1);
}

#[test]
fn s5_3_a_late_write_of_replaced_entries_acknowledges_nothing_of_the_new_ones() {
    let mut node = Node::new(3);
    let first = node
        .step(TWO, 2, append(at(1, 1), &[2, 2, 2], 1))
        .drain()
        .write;
    let second = node
        .step(THREE, 3, append(at(2, 2), &[3, 3], 4))
        .drain()
        .write;
    assert!(node.ready.truncates && node.ready.entries[0].index == LogIndex(3));
    node.raft.on_synced(first);
    assert_eq!(node.status().durable, LogIndex(2));
    assert_eq!(node.drain().committed.len(), 1);
    node.raft.on_synced(second);
    assert_eq!(node.status().durable, LogIndex(4));
}

#[test]
fn s5_3_consistency_check_and_conflicts() {
    // The follower's log: founding, then terms 2 2 3.
    let check = |prev, terms: &[u64], accepted: bool, expected: &[u64]| {
        let mut node = Node::with_log(3, &[2, 2, 3], 4);
        let sent = node.step(TWO, 4, append(prev, terms, 0)).take();
        assert_eq!(
            matches!(sent[0].1, Body::AppendAck { .. }),
            accepted,
            "{prev:?} {terms:?}"
        );
        assert_eq!(node.terms(), expected, "{prev:?} {terms:?}");
    };
    check(at(4, 3), &[4], true, &[2, 2, 3, 4]);
    check(at(5, 4), &[4], false, &[2, 2, 3]);
    check(at(4, 2), &[4], false, &[2, 2, 3]);
    // A conflict removes the entry and all that follow.
    check(at(2, 2), &[4], true, &[2, 4]);
    check(at(1, 1), &[4], true, &[4]);
    // Entries that agree stay, also those behind: the message may be an old one.
    check(at(2, 2), &[2], true, &[2, 2, 3]);
    check(at(1, 1), &[2, 2, 3, 3], true, &[2, 2, 3, 3]);
}

#[test]
fn s5_3_a_follower_commits_no_further_than_it_agreed() {
    let mut node = Node::with_log(3, &[2, 2, 2], 3);
    node.step(TWO, 3, append(at(2, 2), &[2], 9));
    assert_eq!(node.status().commit, LogIndex(3));
}

#[test]
fn s5_3_backtracking_takes_one_round_a_term() {
    // The leader holds 500 entries of term 4 where the follower holds 300 of term 2 and 3.
    let mut leader = Node::with_log(3, &[&[2; 10][..], &[4; 500]].concat(), 4);
    let follower_terms = [&[2; 100][..], &[3; 200]].concat();
    let mut follower = Node::with_log(3, &follower_terms, 4);
    leader.lead();
    let mut rounds = 0;
    // Whatever the leader sends to TWO, the follower answers.
    leader.tick(1);
    leader.step(
        TWO,
        5,
        Body::HeartbeatAck {
            round: 0,
            commit: LogIndex::ZERO,
        },
    );
    while follower.status().last_index != leader.status().last_index {
        rounds += 1;
        assert!(rounds < 6, "{:?}", follower.terms().len());
        let sent: Vec<_> = leader
            .take()
            .into_iter()
            .filter(|(to, _)| *to == TWO)
            .collect();
        for (_, body) in sent {
            follower.step(MemberId(9), 5, body);
        }
        follower.settle();
        for out in std::mem::take(&mut follower.sent) {
            leader.step(TWO, 5, out.message.body);
        }
    }
    assert_eq!(follower.terms(), leader.terms());
}
/// Figure 8: an entry of an earlier term on a majority is not committed by counting; one of the own
/// term is, and takes the earlier ones along.
#[test]
fn s5_4_2_only_entries_of_the_own_term_commit_by_counting() {
    let mut node = Node::with_log(3, &[2], 3);
    node.lead();
    node.step(TWO, 4, ack(2)).step(THREE, 4, ack(2));
    assert_eq!(node.status().commit, LogIndex(1));
    node.step(TWO, 4, ack(3));
    assert_eq!(node.status().commit, LogIndex(3));
}

#[test]
fn s5_4_3_committed_entries_are_never_replaced() {
    let mut node = Node::with_log(3, &[2, 2], 2);
    node.step(TWO, 2, heartbeat(3));
    node.step(THREE, 3, append(at(1, 1), &[3], 1));
    assert_eq!(node.terms(), [2, 2]);
    assert_eq!(node.raft.ignored().get(Ignored::ConflictsWithCommitted), 1);
}
