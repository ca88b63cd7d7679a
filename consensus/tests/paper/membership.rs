//! Membership changes: section 6.

use consensus::*;

use crate::node::*;

#[test]
fn s6_votes_are_ignored_while_a_leader_is_heard() {
    let mut node = Node::with(3, |config, _| config.check_quorum = true);
    node.step(TWO, 2, heartbeat(0)).take();
    assert!(node.step(THREE, 7, vote(at(9, 6))).take().is_empty());
    assert_eq!(node.status().term, Term(2));
    // Unless the leader itself wished for the election.
    node.step(
        THREE,
        7,
        Body::Vote {
            last: at(9, 6),
            transfer: true,
        },
    );
    assert_eq!(node.take(), [(THREE, Body::VoteReply { granted: true })]);
}

#[test]
fn s6_a_joint_membership_needs_both_majorities() {
    let mut node = busy_leader();
    let steps = [4, 5, 6].map(|id| ConfStep::AddVoter(MemberId(id)));
    let mut steps = steps.to_vec();
    steps.extend([TWO, THREE].map(ConfStep::Remove));
    node.raft
        .propose_conf_change(&ConfChange::joint(steps, false))
        .unwrap();
    node.settle();
    node.step(TWO, 2, ack(3));
    apply_all(&mut node);
    assert!(node.raft.membership().is_joint());
    node.raft.propose("a".into()).unwrap();
    node.settle();
    node.step(TWO, 2, ack(4));
    assert_eq!(
        node.status().commit,
        LogIndex(3),
        "the incoming half has not agreed"
    );
    node.step(MemberId(4), 2, ack(4))
        .step(MemberId(5), 2, ack(4));
    assert_eq!(node.status().commit, LogIndex(4));
}

#[test]
fn s6_one_change_at_a_time_and_none_before_the_first_commit_of_a_term() {
    let add = ConfChange::simple(ConfStep::AddVoter(MemberId(4)));
    let mut fresh = Node::leader(3);
    assert_eq!(
        fresh.raft.propose_conf_change(&add),
        Err(ProposeError::ConfChangePending)
    );
    let mut node = busy_leader();
    node.raft.propose_conf_change(&add).unwrap();
    assert_eq!(
        node.raft.propose_conf_change(&add),
        Err(ProposeError::ConfChangePending)
    );
}

#[test]
fn s6_a_removed_leader_leads_until_a_voter_knows_and_then_hands_over() {
    let mut node = busy_leader();
    node.raft
        .propose_conf_change(&ConfChange::simple(ConfStep::Remove(ME)))
        .unwrap();
    node.settle();
    node.step(TWO, 2, ack(3));
    apply_all(&mut node);
    assert!(!node.status().is_voter && node.status().role == Role::Leader);
    assert_eq!(
        node.raft.propose("a".into()),
        Err(ProposeError::Transferring)
    );
    node.take();
    node.step(
        TWO,
        2,
        Body::AppendAck {
            matched: LogIndex(3),
            commit: LogIndex(3),
        },
    );
    assert_eq!(node.take(), [(TWO, Body::TimeoutNow)]);
    // And falls silent.
    node.step(
        TWO,
        3,
        Body::Vote {
            last: at(3, 2),
            transfer: true,
        },
    );
    node.settle();
    node.take();
    node.tick(5 * T);
    assert!(node.take().is_empty());
}

/// Found by simulation: the removed leader fell with an entry behind its removal, and refused the
/// one voter left.
#[test]
fn s6_a_removed_member_with_a_longer_log_still_votes() {
    let check = |tail_kind, granted| {
        let mut node = Node::with(3, |_, restored| {
            restored.membership = Membership::new([TWO], []);
            restored.entries = entries(2, &[1, 1]);
            restored.entries[1].kind = tail_kind;
            (restored.applied, restored.hard_state.commit) = (LogIndex(2), LogIndex(2));
        });
        let sent = node.step(TWO, 2, vote(at(2, 1))).take();
        assert_eq!(sent, [(TWO, Body::VoteReply { granted })]);
    };
    check(EntryKind::Normal, true);
    // A change behind the removal may have made it a voter again: then its whole log counts.
    check(EntryKind::ConfChange, false);
}

#[test]
fn s6_a_learner_neither_campaigns_nor_counts() {
    let mut learner = Node::with(3, |config, restored| {
        config.id = MemberId(4);
        restored.membership = Membership::new([ME, TWO, THREE], [MemberId(4)]);
    });
    learner.tick(5 * T);
    assert!(learner.take().is_empty());
    let mut node = Node::with(3, |_, restored| {
        restored.membership = Membership::new([ME, TWO, THREE], [MemberId(4)]);
    });
    node.lead();
    node.step(MemberId(4), 2, ack(2));
    assert_eq!(node.status().commit, LogIndex(1));
}
