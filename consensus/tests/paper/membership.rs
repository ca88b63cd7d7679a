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

fn joint(incoming: &[u64], outgoing: &[u64]) -> Membership {
    let ids = |list: &[u64]| list.iter().copied().map(MemberId).collect::<Vec<_>>();
    Membership {
        voters: ids(incoming),
        voters_outgoing: ids(outgoing),
        ..Membership::default()
    }
}

#[test]
fn s6_an_election_in_a_joint_membership_needs_both_majorities() {
    let mut node = Node::with(3, |_, restored| {
        restored.membership = joint(&[1, 4, 5], &[1, 2, 3]);
    });
    node.raft.campaign();
    node.settle();
    let asked: Vec<_> = node.take().into_iter().map(|(to, _)| to.0).collect();
    assert_eq!(asked, [2, 3, 4, 5]);
    node.step(TWO, 2, Body::VoteReply { granted: true });
    node.step(THREE, 2, Body::VoteReply { granted: true });
    assert_eq!(node.status().role, Role::Candidate);
    node.step(MemberId(4), 2, Body::VoteReply { granted: true });
    assert_eq!(node.status().role, Role::Leader);
}

#[test]
fn s6_a_joint_membership_needs_both_majorities_to_read_and_to_lead_on() {
    let mut node = Node::with(3, |config, restored| {
        config.check_quorum = true;
        restored.membership = joint(&[1, 4, 5], &[1, 2, 3]);
    });
    node.lead();
    for id in [2, 4] {
        node.step(MemberId(id), 2, ack(2));
    }
    node.raft.read_index(1).unwrap();
    node.settle();
    let answer = |round| Body::HeartbeatAck {
        round,
        commit: LogIndex::ZERO,
    };
    node.step(TWO, 2, answer(1)).step(THREE, 2, answer(1));
    assert!(node.drain().read_states.is_empty());
    node.step(MemberId(5), 2, answer(1));
    assert_eq!(node.drain().read_states.len(), 1);
    // The quorum of one half alone does not keep it in office.
    node.tick(T);
    for _ in 0..T {
        node.step(TWO, 2, answer(1)).step(THREE, 2, answer(1));
        node.tick(1);
    }
    assert_eq!(node.status().role, Role::Follower);
}

#[test]
fn s6_a_new_leader_ends_the_joint_membership_that_it_finds() {
    let mut node = Node::with(3, |_, restored| {
        restored.membership = joint(&[1, 2], &[1, 2, 3]);
        restored.membership.auto_leave = true;
    });
    node.lead();
    assert_eq!(
        node.status().last_index,
        LogIndex(2),
        "not before it commits"
    );
    node.step(TWO, 2, ack(2));
    node.settle();
    assert_eq!(node.status().last_index, LogIndex(3));
    node.step(TWO, 2, ack(3));
    apply_all(&mut node);
    assert_eq!(node.raft.membership(), &Membership::new([ME, TWO], []));
}

/// Rule 1 of `raft/conf.rs`.
#[test]
fn s6_the_next_change_waits_until_the_last_one_is_applied() {
    let add = |id| ConfChange::simple(ConfStep::AddVoter(MemberId(id)));
    let mut node = busy_leader();
    node.raft.propose_conf_change(&add(4)).unwrap();
    node.settle();
    node.step(TWO, 2, ack(3));
    node.synced(node.write);
    assert_eq!(node.status().commit, LogIndex(3));
    assert_eq!(
        node.raft.propose_conf_change(&add(5)),
        Err(ProposeError::ConfChangePending),
        "committed, not applied"
    );
    node.raft.apply_conf_change(LogIndex(3), Some(&add(4)));
    assert_eq!(node.raft.propose_conf_change(&add(5)), Ok(LogIndex(4)));
}

/// Rule 2: whoever holds an entry durably also knows durably what was committed when it came.
#[test]
fn s6_an_entry_is_never_durable_without_the_commit_index_it_came_with() {
    let mut node = Node::new(3);
    node.step(TWO, 2, append(at(1, 1), &[2, 2], 1)).settle();
    node.step(TWO, 2, append(at(3, 2), &[2], 3));
    node.drain();
    assert_eq!(node.ready.entries.len(), 1);
    assert_eq!(node.ready.hard_state.unwrap().commit, LogIndex(3));
    // A commit index alone is worth no write.
    node.step(TWO, 2, heartbeat(4));
    assert_eq!(node.drain().write, WriteNumber::NONE);
}

/// Rule 3.
#[test]
fn s6_a_member_with_a_committed_change_to_apply_does_not_campaign() {
    let change = ConfChange::simple(ConfStep::AddVoter(MemberId(4)));
    let mut node = Node::with(3, |_, restored| {
        restored.entries = entries(2, &[1]);
        restored.entries[0].kind = EntryKind::ConfChange;
        restored.entries[0].payload = change.encode();
        restored.hard_state.commit = LogIndex(2);
    });
    node.tick(4 * T);
    node.raft.campaign();
    node.step(TWO, 1, heartbeat(2))
        .step(TWO, 1, Body::TimeoutNow);
    assert_eq!(node.status().role, Role::Follower);
    assert_eq!(node.raft.ignored().get(Ignored::CannotCampaign), 1);
    apply_all(&mut node);
    node.raft.campaign();
    assert_eq!(node.status().role, Role::Candidate);
}

/// Found by simulation: the only voter left held the change that made it so, did not know that it
/// was committed, and asked a removed member with a longer log for its vote, for ever.
#[test]
fn s6_who_refuses_a_vote_for_its_log_says_what_it_knows_to_be_committed() {
    // A member that was removed by entry 2, and holds 3, which nobody else has.
    let mut removed = Node::with(2, |_, restored| {
        restored.membership = Membership::new([TWO], []);
        restored.entries = entries(2, &[1, 1]);
        (restored.applied, restored.hard_state.commit) = (LogIndex(2), LogIndex(2));
    });
    let sent = removed.step(TWO, 2, vote(at(2, 1))).take();
    let committed = Body::Committed { at: at(2, 1) };
    let refused = Body::VoteReply { granted: false };
    assert_eq!(sent, [(TWO, refused), (TWO, committed.clone())]);
    let sent = removed
        .step(TWO, 3, Body::PreVote { last: at(2, 1) })
        .take();
    assert_eq!(sent[1], (TWO, committed.clone()));
    // A candidate without that entry learns nothing from it, so it is not told.
    let sent = removed.step(TWO, 4, vote(at(1, 1))).take();
    assert_eq!(sent.len(), 1);

    // The candidate: the removal is its last entry.
    let change = ConfChange::simple(ConfStep::Remove(TWO));
    let mut candidate = Node::with(2, |_, restored| {
        restored.entries = entries(2, &[1]);
        restored.entries[0].kind = EntryKind::ConfChange;
        restored.entries[0].payload = change.encode();
    });
    candidate.raft.campaign();
    candidate.settle();
    candidate.step(TWO, 2, Body::Committed { at: at(2, 9) });
    assert_eq!(candidate.status().commit, LogIndex(1), "another entry 2");
    candidate.step(TWO, 2, committed);
    assert_eq!(
        (candidate.status().commit, candidate.status().role),
        (LogIndex(2), Role::Follower)
    );
    apply_all(&mut candidate);
    assert_eq!(candidate.status().role, Role::Leader, "the only voter");
}

#[test]
fn t4_2_1_a_learner_is_promoted_once_it_is_in_sync() {
    let promote = ConfChange::simple(ConfStep::AddVoter(MemberId(4)));
    let behind = Err(ConfChangeError::LearnerBehind.into());
    let mut node = Node::with(3, |_, restored| {
        restored.membership = Membership::new([ME, TWO, THREE], [MemberId(4)]);
    });
    node.lead();
    node.step(TWO, 2, ack(2));
    apply_all(&mut node);
    assert_eq!(node.raft.propose_conf_change(&promote), behind, "unknown");
    node.step(MemberId(4), 2, ack(2));
    for _ in 0..18 {
        node.raft.propose("a".into()).unwrap();
    }
    node.settle();
    node.step(MemberId(4), 2, ack(17));
    assert_eq!(node.raft.propose_conf_change(&promote), behind, "17 of 20");
    node.step(MemberId(4), 2, ack(18));
    assert_eq!(node.raft.propose_conf_change(&promote), Ok(LogIndex(21)));
    // A member that was none before may be added as a voter at once, as with etcd.
    let mut node = busy_leader();
    assert!(node.raft.propose_conf_change(&promote).is_ok());
}
