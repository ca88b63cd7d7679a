//! Linearizable reads and leases: section 8, thesis 6.4.

use consensus::*;

use crate::node::*;

#[test]
fn s8_a_read_waits_for_the_first_commit_of_the_term_and_for_a_round() {
    let mut node = Node::leader(3);
    node.raft.read_index(77).unwrap();
    assert!(node.drain().read_states.is_empty());
    assert!(node.take().is_empty(), "no round before the first commit");
    node.step(TWO, 2, ack(2));
    let round = |node: &mut Node| {
        node.take().iter().rev().find_map(|(_, body)| match body {
            Body::Heartbeat { round, .. } => Some(*round),
            _ => None,
        })
    };
    let first = round(&mut node).expect("a round begins");
    // A read that comes during the round needs the next one.
    node.raft.read_index(78).unwrap();
    assert_eq!(round(&mut node), None);
    node.step(
        TWO,
        2,
        Body::HeartbeatAck {
            round: first,
            commit: LogIndex::ZERO,
        },
    );
    node.raft.ready(&mut node.ready);
    assert_eq!(
        node.ready.read_states,
        [ReadState {
            context: 77,
            index: LogIndex(2)
        }]
    );
    node.step(
        TWO,
        2,
        Body::HeartbeatAck {
            round: first,
            commit: LogIndex::ZERO,
        },
    );
    assert!(node.drain().read_states.is_empty());
    node.step(
        THREE,
        2,
        Body::HeartbeatAck {
            round: first + 1,
            commit: LogIndex::ZERO,
        },
    );
    node.drain();
    assert_eq!(
        node.ready.read_states,
        [ReadState {
            context: 78,
            index: LogIndex(2)
        }]
    );
}

#[test]
fn s8_reads_fail_when_leadership_is_lost_and_are_forwarded_elsewhere() {
    let mut node = Node::leader(3);
    node.raft.read_index(77).unwrap();
    node.step(TWO, 3, heartbeat(0));
    assert_eq!(node.drain().reads_failed, [77]);
    node.raft.read_index(78).unwrap();
    let sent = node.take();
    let (
        TWO,
        Body::ReadIndex {
            incarnation,
            context: 78,
        },
    ) = sent[sent.len() - 1].clone()
    else {
        panic!("{sent:?}")
    };
    let reply = |incarnation| Body::ReadIndexReply {
        incarnation,
        context: 78,
        index: Some(LogIndex(5)),
    };
    assert!(
        node.step(TWO, 3, reply(incarnation + 1))
            .drain()
            .read_states
            .is_empty()
    );
    let expected = [ReadState {
        context: 78,
        index: LogIndex(5),
    }];
    assert_eq!(
        node.step(TWO, 3, reply(incarnation)).drain().read_states,
        expected
    );
    assert_eq!(Node::new(3).raft.read_index(1), Err(ReadError::NoLeader));
}

/// Found by simulation: a member forgot the leader it had promised to follow and voted against its
/// lease.
#[test]
fn t6_4_1_a_promise_to_a_lease_outlasts_the_knowledge_of_the_leader() {
    let mut node = Node::with(3, |config, _| {
        (config.check_quorum, config.lease_reads) = (true, true);
    });
    node.tick(T);
    node.step(TWO, 2, heartbeat(0)).take();
    node.step(THREE, 5, Body::VoteReply { granted: false });
    assert_eq!((node.status().term, node.status().leader), (Term(5), None));
    node.raft.campaign();
    assert!(node.step(THREE, 5, vote(at(9, 2))).take().is_empty());
    node.tick(T - 1);
    assert!(node.step(THREE, 5, vote(at(9, 2))).take().is_empty());
    node.tick(1);
    let granted = [(THREE, Body::VoteReply { granted: true })];
    assert_eq!(node.step(THREE, 5, vote(at(9, 2))).take(), granted);
}

#[test]
fn t6_4_1_a_lease_answers_at_once_and_ends_before_the_promises_do() {
    let mut node = Node::with(3, |config, _| {
        (config.check_quorum, config.lease_reads) = (true, true);
    });
    node.tick(T);
    node.lead();
    node.step(TWO, 2, ack(2));
    node.tick(1);
    let beat = node
        .take()
        .into_iter()
        .rev()
        .find_map(|(_, body)| match body {
            Body::Heartbeat { round, .. } => Some(round),
            _ => None,
        });
    node.step(
        TWO,
        2,
        Body::HeartbeatAck {
            round: beat.unwrap(),
            commit: LogIndex::ZERO,
        },
    );
    let mut answered = |context| {
        node.raft.read_index(context).unwrap();
        node.tick(1);
        node.drain();
        node.ready
            .read_states
            .iter()
            .any(|read| read.context == context)
    };
    let held = (1..=T as u64)
        .take_while(|context| answered(*context))
        .count() as u32;
    assert_eq!(
        held,
        T - 2,
        "the lease is shorter than the promise by its margin"
    );
}
