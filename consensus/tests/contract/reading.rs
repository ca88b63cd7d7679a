//! Reads: their bound, their rounds, those of other members, and leases.

use consensus::*;

use crate::node::*;

/// The rounds of the heartbeats sent since the last look.
fn rounds(node: &mut Node) -> Vec<u64> {
    let sent = node.take().into_iter().filter_map(|(_, body)| match body {
        Body::Heartbeat { round, .. } => Some(round),
        _ => None,
    });
    sent.collect()
}

fn answer(node: &mut Node, from: MemberId, round: u64) {
    let commit = LogIndex::ZERO;
    node.step(from, 2, Body::HeartbeatAck { round, commit });
}

/// The contexts answered since the last look.
fn answered(node: &mut Node) -> Vec<u64> {
    node.drain()
        .read_states
        .iter()
        .map(|read| read.context)
        .collect()
}

#[test]
fn reads_that_wait_are_bounded() {
    let mut node = Node::with(3, |config, _| config.reads_pending_max = 2);
    node.lead();
    let ask = |node: &mut Node, context| node.raft.read_index(context);
    // They wait for the first commit of the term, then for a round.
    assert_eq!((ask(&mut node, 1), ask(&mut node, 2)), (Ok(()), Ok(())));
    assert_eq!(ask(&mut node, 3), Err(ReadError::Full));
    node.step(TWO, 2, ack(2));
    assert_eq!(ask(&mut node, 3), Err(ReadError::Full));
    assert_eq!(rounds(&mut node), [1, 1]);
    answer(&mut node, TWO, 1);
    assert_eq!(answered(&mut node), [1, 2]);
    assert_eq!((ask(&mut node, 4), ask(&mut node, 5)), (Ok(()), Ok(())));
    assert_eq!(ask(&mut node, 6), Err(ReadError::Full));
}

#[test]
fn reads_asked_of_the_leader_are_bounded() {
    let mut node = Node::with(3, |config, _| config.reads_pending_max = 2);
    node.step(TWO, 2, heartbeat(0));
    let results: Vec<bool> = (1..4)
        .map(|context| node.raft.read_index(context).is_ok())
        .collect();
    assert_eq!(results, [true, true, false]);
}

#[test]
fn a_read_of_another_member_is_answered_to_it() {
    let ask = |context| Body::ReadIndex {
        incarnation: 5,
        context,
    };
    let reply = |context, index: Option<u64>| {
        let index = index.map(LogIndex);
        (
            TWO,
            Body::ReadIndexReply {
                incarnation: 5,
                context,
                index,
            },
        )
    };
    let mut node = Node::with(3, |config, _| config.reads_pending_max = 1);
    node.lead();
    node.step(TWO, 2, ack(2)).step(THREE, 2, ack(2)).take();
    node.step(TWO, 2, ask(9));
    assert_eq!(node.raft.ignored().get(Ignored::ReadRefused), 0);
    node.step(TWO, 2, ask(10));
    assert_eq!(node.raft.ignored().get(Ignored::ReadRefused), 1);
    let sent = node.take();
    assert!(
        sent.contains(&reply(10, None)) && !sent.contains(&reply(9, None)),
        "{sent:?}"
    );
    answer(&mut node, THREE, 1);
    assert_eq!(node.take(), [reply(9, Some(2))]);
    // Nobody but a leader answers.
    let mut other = Node::new(3);
    other.step(TWO, 2, ask(9));
    assert_eq!(other.take(), [reply(9, None)]);
    assert_eq!(other.raft.ignored().get(Ignored::NotLeader), 1);
}

#[test]
fn a_round_counts_when_a_quorum_answered_it() {
    let mut node = Node::leader(5);
    node.step(TWO, 2, ack(2)).step(THREE, 2, ack(2)).take();
    node.raft.read_index(1).unwrap();
    assert_eq!(rounds(&mut node), [1; 4]);
    answer(&mut node, TWO, 1);
    assert_eq!(answered(&mut node), []);
    answer(&mut node, TWO, 1);
    assert_eq!(answered(&mut node), []);
    answer(&mut node, MemberId(5), 1);
    assert_eq!(answered(&mut node), [1]);
}

#[test]
fn heartbeats_repeat_the_round_under_way_and_begin_none_for_nobody() {
    let mut node = Node::leader(3);
    node.step(TWO, 2, ack(2)).step(THREE, 2, ack(2)).take();
    node.tick(1);
    assert_eq!(rounds(&mut node), [0, 0]);
    node.raft.read_index(1).unwrap();
    assert_eq!(rounds(&mut node), [1, 1]);
    node.tick(1);
    assert_eq!(
        rounds(&mut node),
        [1, 1],
        "the same round, in case it was lost"
    );
    // The next read waits for another round; a heartbeat that is due anyway begins it.
    node.raft.read_index(2).unwrap();
    assert_eq!(rounds(&mut node), []);
    node.tick(1);
    assert_eq!(rounds(&mut node), [2, 2], "once to each");
    answer(&mut node, TWO, 2);
    assert_eq!(answered(&mut node), [1, 2]);
}

#[test]
fn a_read_whose_answer_is_lost_fails_after_two_election_timeouts() {
    let mut node = Node::new(3);
    node.step(TWO, 2, heartbeat(0)).take();
    let pass = |node: &mut Node, ticks: u32| {
        let mut failed = Vec::new();
        for _ in 0..ticks {
            node.tick(1);
            node.step(TWO, 2, heartbeat(0)).drain();
            failed.append(&mut node.ready.reads_failed);
        }
        failed
    };
    pass(&mut node, 3);
    node.raft.read_index(7).unwrap();
    assert_eq!(pass(&mut node, 2 * T - 1), []);
    assert_eq!(pass(&mut node, 1), [7]);
}

/// A leader of three with lease reads that holds a lease.
fn lease_holder() -> Node {
    let mut node = Node::with(3, |config, _| {
        (config.check_quorum, config.lease_reads) = (true, true);
    });
    node.tick(T);
    node.lead();
    node.step(TWO, 2, ack(2)).step(THREE, 2, ack(2));
    apply_all(&mut node);
    node.take();
    renew(&mut node);
    assert!(has_lease(&mut node, 1));
    node
}

/// A heartbeat goes out and is answered.
fn renew(node: &mut Node) {
    node.tick(1);
    let round = *rounds(node).last().expect("a heartbeat");
    answer(node, TWO, round);
}

/// Whether a read is answered at once.
fn has_lease(node: &mut Node, context: u64) -> bool {
    node.raft.read_index(context).expect("a leader takes it");
    answered(node).contains(&context)
}

#[test]
fn no_lease_in_a_term_in_which_another_member_was_told_to_campaign() {
    let mut node = lease_holder();
    node.raft.transfer_leadership(TWO).unwrap();
    assert!(node.take().contains(&(TWO, Body::TimeoutNow)));
    assert!(!has_lease(&mut node, 2));
    // Not even when the hand-over failed: the message may arrive late.
    for _ in 0..2 * T {
        renew(&mut node);
    }
    assert_eq!(node.status().transferee, None);
    assert!(!has_lease(&mut node, 3));
}

#[test]
fn a_lease_ends_when_the_members_change_and_is_renewed_by_the_new_ones() {
    let mut node = lease_holder();
    let add = ConfChange::simple(ConfStep::AddVoter(MemberId(4)));
    node.raft.propose_conf_change(&add).unwrap();
    node.settle();
    node.step(TWO, 2, ack(3));
    assert!(
        !has_lease(&mut node, 2),
        "the change is committed and not applied here"
    );
    node.raft.apply_conf_change(LogIndex(3), Some(&add));
    node.raft.on_applied(LogIndex(3));
    assert!(
        !has_lease(&mut node, 3),
        "the promises were made by the old quorum"
    );
    node.take();
    node.tick(1);
    let round = *rounds(&mut node).last().expect("a heartbeat");
    for from in [TWO, THREE] {
        answer(&mut node, from, round);
    }
    assert!(has_lease(&mut node, 4));
}

#[test]
fn rounds_that_nobody_answers_shorten_no_later_lease() {
    // More rounds than are remembered: the oldest are forgotten, the newest counts.
    let mut node = Node::with(3, |config, _| {
        (config.check_quorum, config.lease_reads) = (true, true);
        (config.election_ticks, config.lease_margin_ticks) = (200, 150);
    });
    node.tick(200);
    node.lead();
    node.step(TWO, 2, ack(2)).step(THREE, 2, ack(2)).take();
    let beat = |node: &mut Node| {
        node.tick(1);
        *rounds(node).last().expect("a heartbeat")
    };
    let begun: Vec<u64> = (0..100).map(|_| beat(&mut node)).collect();
    answer(&mut node, TWO, begun[30]);
    assert!(!has_lease(&mut node, 1), "that round is forgotten");
    let begun: Vec<u64> = (0..100).map(|_| beat(&mut node)).collect();
    // 40 ticks ago; a lease lasts 50 from when its round began.
    answer(&mut node, TWO, begun[59]);
    assert!(has_lease(&mut node, 2));
    node.tick(9);
    assert!(has_lease(&mut node, 3));
    node.tick(1);
    assert!(!has_lease(&mut node, 4));
}
