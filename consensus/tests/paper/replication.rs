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
    node.synced(write);
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
    node.synced(write);
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
    node.synced(write);
    assert_eq!(node.drain().committed.len(), 1);
}

#[test]
fn s5_3_a_late_write_of_replaced_entries_acknowledges_nothing_of_the_new_ones() {
    let mut node = Node::new(3);
    let first = node
        .step(TWO, 2, append(at(1, 1), &[2, 2, 2], 1))
        .drain()
        .write;
    node.step(THREE, 3, append(at(2, 2), &[3, 3], 4)).drain();
    assert!(node.ready.truncates && node.ready.entries[0].index == LogIndex(3));
    let second = node.drain().write;
    node.synced(first);
    assert_eq!(node.status().durable, LogIndex(2));
    assert_eq!(node.drain().committed.len(), 1);
    node.synced(second);
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

#[test]
fn s5_3_a_new_leader_begins_behind_its_last_entry() {
    let mut node = Node::with_log(3, &[2, 2], 3);
    node.lead();
    let next: Vec<_> = node.raft.followers().map(|f| f.next).collect();
    assert_eq!(next, [LogIndex(4), LogIndex(4)]);
}

/// Whatever is lost, once, is sent again when the follower is heard.
#[test]
fn s5_3_lost_appends_are_sent_again() {
    let (mut leader, mut follower) = (busy_leader(), Node::new(3));
    follower
        .step(MemberId(9), 2, append(at(1, 1), &[2], 2))
        .settle();
    follower.take();
    for word in ["a", "b", "c"] {
        leader.raft.propose(word.into()).unwrap();
        leader.settle();
        leader.take();
    }
    let mut rounds = 0;
    while follower.status().last_index != leader.status().last_index {
        rounds += 1;
        assert!(rounds < 6, "{:?}", follower.status());
        leader.tick(1);
        for (_, body) in leader.take().into_iter().filter(|(to, _)| *to == TWO) {
            follower.step(MemberId(9), 2, body);
        }
        follower.settle();
        for out in std::mem::take(&mut follower.sent) {
            leader.step(TWO, 2, out.message.body);
        }
    }
}

#[test]
fn s5_3_followers_learn_what_is_committed_from_appends_and_heartbeats() {
    let mut node = Node::new(3);
    node.step(TWO, 2, append(at(1, 1), &[2, 2, 2], 2)).settle();
    assert_eq!(node.status().commit, LogIndex(2));
    node.step(TWO, 2, heartbeat(3)).settle();
    assert_eq!(node.status().commit, LogIndex(3));
    node.step(TWO, 2, append(at(4, 2), &[], 4)).settle();
    assert_eq!(node.status().commit, LogIndex(4));
    // It never takes back what it knows.
    node.step(TWO, 2, heartbeat(2)).settle();
    assert_eq!(node.status().commit, LogIndex(4));
}

#[test]
fn s5_3_committed_entries_are_applied_in_order_and_once() {
    let mut node = Node::new(3);
    node.step(TWO, 2, append(at(1, 1), &[2, 2, 2], 3));
    let write = node.drain().write;
    node.synced(write);
    let applied = |node: &mut Node| -> Vec<u64> {
        node.drain().committed.iter().map(|e| e.index.0).collect()
    };
    assert_eq!(applied(&mut node), [2, 3]);
    assert!(applied(&mut node).is_empty());
    node.step(TWO, 2, heartbeat(4));
    assert_eq!(applied(&mut node), [4]);
}

#[test]
fn s5_3_a_leader_never_changes_its_own_log() {
    let mut node = busy_leader();
    let before = node.terms();
    node.step(TWO, 2, append(at(1, 1), &[1, 1], 1));
    assert_eq!((node.terms(), node.status().role), (before, Role::Leader));
    assert_eq!(node.raft.ignored().get(Ignored::NotTheLeader), 1);
}

#[test]
fn s5_5_an_append_that_comes_twice_changes_nothing() {
    let mut node = Node::new(3);
    let body = append(at(1, 1), &[2, 2], 2);
    node.step(TWO, 2, body.clone()).settle();
    let (before, sent) = (node.status(), node.take());
    node.step(TWO, 2, body);
    assert_eq!(node.drain().write, WriteNumber::NONE);
    let again: Vec<_> = node.take();
    assert_eq!(
        (node.status(), again.as_slice()),
        (before, &sent[sent.len() - 1..])
    );
}

#[test]
fn s5_5_a_member_that_restarts_goes_on_where_it_was() {
    let mut node = Node::with_log(3, &[2, 2, 3], 5);
    let status = node.status();
    assert_eq!(
        (status.term, status.role, status.last_index, status.durable),
        (Term(5), Role::Follower, LogIndex(4), LogIndex(4))
    );
    // What it had is acknowledged without being written again.
    node.step(TWO, 5, append(at(3, 2), &[3], 3));
    assert_eq!(node.drain().write, WriteNumber::NONE);
    assert_eq!(
        node.take(),
        [(
            TWO,
            Body::AppendAck {
                matched: LogIndex(4),
                commit: LogIndex(3)
            }
        )]
    );
}

/// How many appends with entries go to TWO.
fn appends(node: &mut Node) -> Vec<usize> {
    node.take()
        .into_iter()
        .filter_map(|(to, body)| match body {
            Body::Append { entries, .. } if to == TWO && !entries.is_empty() => Some(entries.len()),
            _ => None,
        })
        .collect()
}

/// A leader with these bounds whose follower TWO is in step, and ten proposals.
fn pipelining(tune: impl Fn(&mut Config)) -> Node {
    let mut node = Node::with(3, |config, _| tune(config));
    node.lead();
    node.step(TWO, 2, ack(2));
    node.take();
    for _ in 0..10 {
        node.raft.propose(vec![7; 36].into()).expect("it leads");
    }
    node
}

#[test]
fn t10_2_1_appends_are_batched_and_pipelined_within_their_bounds() {
    // Everything that waited shares one message.
    assert_eq!(appends(&mut pipelining(|_| {})), [10]);
    let mut node = pipelining(|config| config.message_entries_max = 4);
    assert_eq!(appends(&mut node), [4, 4, 2]);
    // An entry counts 64 bytes and its payload.
    let mut node = pipelining(|config| config.message_bytes_max = 300);
    assert_eq!(appends(&mut node), [3, 3, 3, 1]);

    let one = |config: &mut Config| config.message_entries_max = 1;
    let mut node = pipelining(|config| {
        one(config);
        config.inflight_messages_max = 3;
    });
    assert_eq!(appends(&mut node), [1, 1, 1]);
    node.step(TWO, 2, ack(4));
    assert_eq!(appends(&mut node), [1, 1], "two were answered");
    let mut node = pipelining(|config| {
        one(config);
        config.inflight_entries_max = 2;
    });
    assert_eq!(appends(&mut node), [1, 1]);
    let mut node = pipelining(|config| {
        one(config);
        config.inflight_bytes_max = 150;
    });
    assert_eq!(
        appends(&mut node),
        [1, 1],
        "the second one passes the bound"
    );
    node.step(TWO, 2, ack(3));
    assert_eq!(appends(&mut node), [1]);
}

#[test]
fn t10_2_1_a_follower_whose_log_is_unknown_gets_one_message_at_a_time() {
    let mut node = Node::leader(3);
    node.raft.propose("a".into()).unwrap();
    node.settle();
    assert!(
        appends(&mut node).is_empty(),
        "the first one is not answered"
    );
    let follower = node.raft.followers().find(|f| f.id == TWO).unwrap();
    assert_eq!(follower.state, ProgressState::Probe);
    node.step(TWO, 2, ack(2));
    assert_eq!(appends(&mut node), [1]);
    let follower = node.raft.followers().find(|f| f.id == TWO).unwrap();
    assert_eq!(follower.state, ProgressState::Replicate);
    // A link that broke makes it unknown again.
    node.raft.on_unreachable(TWO);
    let follower = node.raft.followers().find(|f| f.id == TWO).unwrap();
    assert_eq!(follower.state, ProgressState::Probe);
}

/// Entries that left memory come back from the log as an output and an input.
#[test]
fn t10_2_1_old_entries_are_asked_for_and_sent_when_they_come() {
    let mut node = Node::with(3, |config, _| config.cache_bytes_max = 1);
    node.lead();
    node.step(THREE, 2, ack(2));
    for word in ["a", "b", "c"] {
        node.raft.propose(word.into()).unwrap();
    }
    node.settle();
    let all = node.written.clone();
    node.step(THREE, 2, ack(5));
    apply_all(&mut node);
    node.take();
    // TWO has nothing but the founding, and what was sent to it was lost.
    let round = Body::HeartbeatAck {
        round: 0,
        commit: LogIndex::ZERO,
    };
    node.step(TWO, 2, round);
    node.drain();
    let [load] = node.ready.loads[..] else {
        panic!("{:?}", node.ready)
    };
    assert_eq!(load.from, LogIndex(2));
    let entries: Vec<Entry> = all
        .iter()
        .filter(|e| load.from <= e.index && e.index <= load.through)
        .cloned()
        .collect();
    let count = entries.len();
    node.take();
    node.raft.on_entries_loaded(load.id, entries);
    assert_eq!(appends(&mut node), [count]);
}
