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

fn answer(round: u64) -> Body {
    Body::HeartbeatAck {
        round,
        commit: LogIndex::ZERO,
    }
}

#[test]
fn t6_4_one_round_serves_every_read_that_waited() {
    let mut node = busy_leader();
    for context in 1..=5 {
        node.raft.read_index(context).unwrap();
    }
    let beats = node.take();
    assert_eq!(beats.len(), 2, "one round for all: {beats:?}");
    for context in 6..=9 {
        node.raft.read_index(context).unwrap();
    }
    assert!(node.take().is_empty(), "the next ones gather");
    node.step(TWO, 2, answer(1));
    let states = |node: &mut Node| -> Vec<u64> {
        node.drain().read_states.iter().map(|r| r.context).collect()
    };
    assert_eq!(states(&mut node), [1, 2, 3, 4, 5]);
    assert!(
        node.sent
            .iter()
            .any(|out| matches!(out.message.body, Body::Heartbeat { round: 2, .. }))
    );
    node.step(TWO, 2, answer(2));
    assert_eq!(states(&mut node), [6, 7, 8, 9]);
}

#[test]
fn t6_4_reads_that_wait_are_bounded() {
    let mut node = Node::with(3, |config, _| config.reads_pending_max = 2);
    node.lead();
    assert!(node.raft.read_index(1).is_ok() && node.raft.read_index(2).is_ok());
    assert_eq!(node.raft.read_index(3), Err(ReadError::Full));
    // Another member's read is refused in words.
    node.step(
        TWO,
        2,
        Body::ReadIndex {
            incarnation: 1,
            context: 7,
        },
    );
    let refused = Body::ReadIndexReply {
        incarnation: 1,
        context: 7,
        index: None,
    };
    assert!(node.take().contains(&(TWO, refused)));
    assert_eq!(node.raft.ignored().get(Ignored::ReadRefused), 1);
}

/// A process that stood still wakes as the leader it was, while others have elected another one and
/// committed. Answers that it finds waiting are to questions from before.
#[test]
fn t6_4_a_leader_that_stood_still_serves_no_stale_read() {
    let mut node = busy_leader();
    node.raft.read_index(1).unwrap();
    node.take();
    // It stood still here. On waking it gets a read, and finds an answer that had arrived.
    node.raft.on_woken();
    node.raft.read_index(2).unwrap();
    node.step(TWO, 2, answer(1));
    let states: Vec<_> = node.drain().read_states.iter().map(|r| r.context).collect();
    assert_eq!(states, [1], "only the read that was asked before");
    // What it then hears from the others ends its leadership, and the read.
    node.step(THREE, 3, answer(0));
    assert_eq!(node.drain().reads_failed, [2]);
}

/// A leader with a lease that lasts for some ticks yet.
fn leased() -> Node {
    let mut node = Node::with(3, |config, _| {
        (config.check_quorum, config.lease_reads) = (true, true);
    });
    node.tick(T);
    node.lead();
    node.step(TWO, 2, ack(2)).step(THREE, 2, ack(2));
    apply_all(&mut node);
    node.tick(1);
    let beat = node
        .take()
        .into_iter()
        .rev()
        .find_map(|(_, body)| match body {
            Body::Heartbeat { round, .. } => Some(round),
            _ => None,
        });
    node.step(TWO, 2, answer(beat.expect("a heartbeat")));
    assert!(is_served(&mut node, 1000));
    node
}

/// Whether a read is answered without asking anybody.
fn is_served(node: &mut Node, context: u64) -> bool {
    node.raft.read_index(context).expect("room for a read");
    node.drain();
    node.ready
        .read_states
        .iter()
        .any(|read| read.context == context)
}

#[test]
fn t6_4_1_a_lease_does_not_outlive_a_pause() {
    let mut node = leased();
    node.raft.on_woken();
    assert!(!is_served(&mut node, 1));
}

#[test]
fn t6_4_1_a_lease_does_not_outlive_a_hand_over() {
    let mut node = leased();
    node.raft.transfer_leadership(TWO).unwrap();
    assert!(node.take().contains(&(TWO, Body::TimeoutNow)));
    assert!(!is_served(&mut node, 1));
    // Nor is it renewed in this term: the message may arrive late.
    node.tick(T);
    node.step(TWO, 2, answer(20)).step(THREE, 2, answer(20));
    assert!(!is_served(&mut node, 2));
}

#[test]
fn t6_4_1_there_is_no_lease_while_the_members_change() {
    let mut node = leased();
    let change = ConfChange::simple(ConfStep::AddVoter(MemberId(4)));
    node.raft.propose_conf_change(&change).unwrap();
    node.settle();
    assert!(is_served(&mut node, 1), "not committed yet");
    node.step(TWO, 2, ack(3));
    assert!(!is_served(&mut node, 2));
    apply_all(&mut node);
    assert!(!is_served(&mut node, 3), "the new members promised nothing");
}

/// The promise to the last leader may have been made by the process before this one.
#[test]
fn t6_4_1_a_promise_is_kept_across_a_restart() {
    let mut node = Node::with(3, |config, _| {
        (config.check_quorum, config.lease_reads) = (true, true);
    });
    node.raft.campaign();
    assert!(node.step(THREE, 5, vote(at(9, 2))).take().is_empty());
    node.tick(T);
    let granted = [(THREE, Body::VoteReply { granted: true })];
    assert_eq!(node.step(THREE, 5, vote(at(9, 2))).take(), granted);
}
