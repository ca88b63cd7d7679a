//! Proposals on their way to the leader.

use consensus::*;

use crate::node::*;

/// Follows TWO in term 2, nothing left to take.
fn follower(tune: impl Fn(&mut Config)) -> Node {
    let mut node = Node::with(3, |config, _| tune(config));
    node.step(TWO, 2, heartbeat(0)).settle();
    node.take();
    node
}

/// Forwards commands of this length until one is refused; how many were taken.
fn fill(node: &mut Node, len: usize) -> usize {
    let refused = (0..100).position(|_| {
        let result = node.raft.forward(vec![1; len].into());
        assert!(
            matches!(result, Ok(TWO) | Err(ProposeError::Full)),
            "{result:?}"
        );
        result.is_err()
    });
    refused.expect("the bound is below 100")
}

/// The batches sent to TWO since the last look: number and length.
fn batches(node: &mut Node) -> Vec<(u64, usize)> {
    let sent = node.take().into_iter().filter_map(|(to, body)| match body {
        Body::Propose {
            batch, proposals, ..
        } => {
            assert_eq!(to, TWO);
            Some((batch, proposals.len()))
        }
        _ => None,
    });
    sent.collect()
}

fn reply(node: &mut Node, batch: u64, accepted: bool) {
    node.step(TWO, 2, Body::ProposeReply { batch, accepted });
}

fn propose(batch: u64, proposals: Vec<Proposal>) -> Body {
    Body::Propose {
        incarnation: 1,
        batch,
        proposals,
    }
}

fn add_four() -> ConfChange {
    ConfChange::simple(ConfStep::AddVoter(MemberId(4)))
}

#[test]
fn proposals_gather_into_one_batch_and_a_change_travels_alone() {
    let mut node = follower(|_| {});
    for payload in ["a", "b"] {
        assert_eq!(node.raft.forward(payload.into()), Ok(TWO));
    }
    assert_eq!(batches(&mut node), [(1, 2)]);
    assert_eq!(batches(&mut node), []);
    node.raft.forward("c".into()).unwrap();
    assert_eq!(node.raft.forward_conf_change(&add_four()), Ok(TWO));
    node.raft.forward("d".into()).unwrap();
    assert_eq!(batches(&mut node), [(2, 1), (3, 1), (4, 1)]);
    assert_eq!(
        Node::new(3).raft.forward("a".into()),
        Err(ProposeError::NoLeader)
    );
}

#[test]
fn entries_without_an_answer_are_bounded() {
    let mut node = follower(|config| config.forward_entries_max = 3);
    assert_eq!(fill(&mut node, 1), 3);
    assert_eq!(batches(&mut node), [(1, 3)]);
    assert_eq!(fill(&mut node, 1), 0, "sent is not answered");
    reply(&mut node, 7, true);
    assert_eq!(node.raft.ignored().get(Ignored::Stale), 1);
    assert_eq!(fill(&mut node, 1), 0, "that was another batch");
    reply(&mut node, 1, true);
    assert_eq!(fill(&mut node, 1), 3);
}

#[test]
fn bytes_without_an_answer_are_bounded() {
    // A command of 36 bytes counts for 100.
    let mut node = follower(|config| config.forward_bytes_max = 200);
    assert_eq!(fill(&mut node, 36), 2, "exactly the bound fits");
    batches(&mut node);
    assert_eq!(fill(&mut node, 36), 0);
    reply(&mut node, 1, true);
    assert_eq!(fill(&mut node, 36), 2);
    let mut large = follower(|config| config.forward_bytes_max = 200);
    assert_eq!(fill(&mut large, 999), 1, "one always fits");
    assert_eq!(fill(&mut large, 1), 0);
}

#[test]
fn a_refused_batch_is_counted_whole() {
    let mut node = follower(|_| {});
    assert_eq!(node.raft.forwards_refused(), 0);
    for _ in 0..2 {
        for _ in 0..3 {
            node.raft.forward("a".into()).unwrap();
        }
        batches(&mut node);
    }
    reply(&mut node, 2, true);
    assert_eq!(node.raft.forwards_refused(), 0);
    reply(&mut node, 1, false);
    assert_eq!(node.raft.forwards_refused(), 3);
}

#[test]
fn a_batch_whose_answer_is_lost_stops_counting_after_two_election_timeouts() {
    let mut node = follower(|config| {
        (config.forward_entries_max, config.forward_bytes_max) = (3, 300);
    });
    let pass = |node: &mut Node, ticks: u32| {
        for _ in 0..ticks {
            node.tick(1);
            node.step(TWO, 2, heartbeat(0)).take();
        }
    };
    let send = |node: &mut Node| {
        let taken = fill(node, 36);
        batches(node);
        taken
    };
    pass(&mut node, 3);
    assert_eq!(send(&mut node), 3);
    pass(&mut node, 2 * T - 1);
    assert_eq!(send(&mut node), 0);
    pass(&mut node, 1);
    assert_eq!(send(&mut node), 3);
    // What aged was given back whole, in entries and in bytes.
    pass(&mut node, 2 * T);
    assert_eq!(send(&mut node), 3);
}

#[test]
fn a_new_leader_ends_what_was_asked_of_the_old_one() {
    let mut node = follower(|config| {
        (config.forward_entries_max, config.forward_bytes_max) = (3, 300);
    });
    fill(&mut node, 36);
    batches(&mut node);
    node.step(THREE, 3, heartbeat(0));
    assert_eq!(node.raft.forwards_refused(), 0, "it may have been taken");
    for _ in 0..3 {
        assert_eq!(node.raft.forward(vec![1; 36].into()), Ok(THREE));
    }
    node.step(TWO, 4, heartbeat(0));
    assert_eq!(node.raft.forwards_refused(), 3, "never sent");
    assert_eq!(batches(&mut node), []);
    assert_eq!(fill(&mut node, 36), 3);
}

#[test]
fn a_leader_takes_a_batch_whole_or_refuses_it_whole() {
    let normal = |payload: &'static str| Proposal {
        kind: EntryKind::Normal,
        payload: payload.into(),
    };
    let change = |payload: bytes::Bytes| Proposal {
        kind: EntryKind::ConfChange,
        payload,
    };
    let add = || change(add_four().encode());
    let mut batch = 0;
    let mut check = |node: &mut Node, proposals: Vec<Proposal>, accepted: bool| {
        batch += 1;
        let (count, last) = (proposals.len() as u64, node.status().last_index);
        let refused = node.raft.ignored().get(Ignored::ProposalRefused);
        let said = format!("{proposals:?}");
        node.step(TWO, 2, propose(batch, proposals));
        let answer = Body::ProposeReply { batch, accepted };
        assert!(node.take().contains(&(TWO, answer)), "{said}");
        let taken = if accepted { count } else { 0 };
        assert_eq!(node.status().last_index, last.plus(taken), "{said}");
        let now = node.raft.ignored().get(Ignored::ProposalRefused);
        assert_eq!(now - refused, u64::from(!accepted), "{said}");
    };
    let mut node = busy_leader();
    check(&mut node, vec![normal("a"), normal("b")], true);
    check(&mut node, vec![normal("a"), normal("")], false);
    check(&mut node, vec![normal("a"), add()], false);
    check(&mut node, vec![change("?".into())], false);
    check(&mut node, vec![add()], true);
    check(&mut node, vec![add()], false);
    check(&mut node, vec![normal("a")], true);
    // Who does not lead says so.
    let mut other = follower(|_| {});
    other.step(THREE, 2, propose(1, vec![normal("a")]));
    let (batch, accepted) = (1, false);
    assert_eq!(
        other.take(),
        [(THREE, Body::ProposeReply { batch, accepted })]
    );
    assert_eq!(other.raft.ignored().get(Ignored::NotLeader), 1);
    assert_eq!(other.raft.ignored().get(Ignored::ProposalRefused), 0);
}

#[test]
fn the_uncommitted_bound_is_met_exactly() {
    // The leader's own entry counts for 64, each of the others for 100.
    let mut node = Node::with(3, |config, _| config.uncommitted_bytes_max = 264);
    node.lead();
    let taken: Vec<bool> = (0..3)
        .map(|_| node.raft.propose(vec![1; 36].into()).is_ok())
        .collect();
    assert_eq!(taken, [true, true, false]);
}
