//! Elections: sections 5.1, 5.2 and 5.4.1; thesis 3.10, 6.2 and 9.6.

use consensus::*;

use crate::node::*;

#[test]
fn s5_1_a_higher_term_makes_a_leader_and_a_candidate_followers() {
    let mut leader = Node::leader(3);
    leader.step(TWO, 9, heartbeat(0));
    assert_eq!(
        (leader.status().role, leader.status().term),
        (Role::Follower, Term(9))
    );
    let mut candidate = Node::new(3);
    candidate.raft.campaign();
    candidate.step(TWO, 9, Body::VoteReply { granted: false });
    assert_eq!(
        (candidate.status().role, candidate.status().term),
        (Role::Follower, Term(9))
    );
}

#[test]
fn s5_1_a_stale_term_is_refused_and_told_the_present_one() {
    let mut node = Node::with_log(3, &[2], 5);
    node.step(TWO, 4, append(at(2, 2), &[4], 3));
    node.drain();
    assert_eq!(node.status().last_index, LogIndex(2));
    assert_eq!(node.sent[0].message.term, Term(5));
}

#[test]
fn s5_2_a_follower_campaigns_after_a_random_timeout() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..200 {
        let mut node = Node::with(3, |config, _| config.seed = seed);
        let ticks = (1..).find(|_| {
            node.raft.tick();
            node.status().role == Role::Candidate
        });
        seen.insert(ticks.unwrap());
    }
    assert!(
        seen.iter().all(|ticks| (T..2 * T).contains(ticks)),
        "{seen:?}"
    );
    assert!(seen.len() > 5, "{seen:?}");
}

#[test]
fn s5_2_a_candidate_raises_its_term_votes_for_itself_and_asks_all_once_that_is_durable() {
    let mut node = Node::with_log(3, &[1], 1);
    node.raft.campaign();
    let write = node.drain().write;
    let state = node.ready.hard_state.unwrap();
    assert_eq!((state.term, state.vote), (Term(2), Some(ME)));
    assert_eq!(node.sent.len(), 2);
    for out in &node.sent {
        assert_eq!(out.after, write);
        assert_eq!(out.message.body, vote(at(2, 1)));
    }
    // Nobody can have been asked yet: such an answer is not counted, nor is its own vote.
    node.step(TWO, 2, Body::VoteReply { granted: true });
    node.step(THREE, 2, Body::VoteReply { granted: true });
    assert_eq!(node.status().role, Role::Candidate);
    node.synced(write);
    assert_eq!(node.status().role, Role::Candidate);
    node.step(TWO, 2, Body::VoteReply { granted: true });
    assert_eq!(node.status().role, Role::Leader);
}

#[test]
fn s5_2_one_vote_a_term_first_come_first_served_and_durable_before_it_is_given() {
    let mut node = Node::new(3);
    node.step(TWO, 2, vote(at(1, 1)))
        .step(THREE, 2, vote(at(1, 1)))
        .step(TWO, 2, vote(at(1, 1)));
    let write = node.drain().write;
    assert_eq!(node.ready.hard_state.unwrap().vote, Some(TWO));
    let granted: Vec<_> = node
        .sent
        .iter()
        .map(|out| (out.to, out.after, &out.message.body))
        .collect();
    let (yes, no) = (
        Body::VoteReply { granted: true },
        Body::VoteReply { granted: false },
    );
    assert_eq!(
        granted,
        [(TWO, write, &yes), (THREE, write, &no), (TWO, write, &yes)]
    );
    // Also after a restart.
    let state = node.ready.hard_state.unwrap();
    let mut node = Node::with(3, |_, restored| restored.hard_state = state);
    assert_eq!(node.step(THREE, 2, vote(at(1, 1))).take(), [(THREE, no)]);
}

#[test]
fn s5_2_votes_decide_by_majority() {
    let check = |voters, yes: &[u64], no: &[u64], expected| {
        let mut node = Node::new(voters);
        node.raft.campaign();
        node.settle();
        for (list, granted) in [(yes, true), (no, false)] {
            for id in list {
                // Said twice, counted once.
                node.step(MemberId(*id), 2, Body::VoteReply { granted });
                node.step(MemberId(*id), 2, Body::VoteReply { granted });
            }
        }
        assert_eq!(node.status().role, expected, "{voters} {yes:?} {no:?}");
    };
    check(1, &[], &[], Role::Leader);
    check(3, &[2], &[], Role::Leader);
    check(3, &[], &[2], Role::Candidate);
    check(3, &[], &[2, 3], Role::Follower);
    check(5, &[2, 3], &[], Role::Leader);
    check(5, &[2], &[3, 4], Role::Candidate);
    check(5, &[2], &[3, 4, 5], Role::Follower);
    check(5, &[9], &[], Role::Candidate);
}

#[test]
fn s5_2_a_candidate_follows_the_leader_of_its_term() {
    let mut node = Node::new(3);
    node.raft.campaign();
    node.step(TWO, 2, heartbeat(0));
    assert_eq!(
        (node.status().role, node.status().leader),
        (Role::Follower, Some(TWO))
    );
}

#[test]
fn s5_2_a_split_vote_ends_in_a_new_term() {
    let mut node = Node::new(3);
    node.raft.campaign();
    node.tick(2 * T);
    assert_eq!(
        (node.status().role, node.status().term),
        (Role::Candidate, Term(3))
    );
}

#[test]
fn s5_2_a_leader_sends_heartbeats() {
    let mut node = Node::leader(3);
    node.tick(1);
    let beats = node.take();
    let is_beat = |body: &Body| matches!(body, Body::Heartbeat { .. });
    assert_eq!(beats.iter().filter(|(_, body)| is_beat(body)).count(), 2);
}

#[test]
fn s5_4_1_votes_go_to_logs_that_are_up_to_date() {
    let check = |terms: &[u64], last, granted| {
        let mut node = Node::with_log(3, terms, 4);
        let sent = node.step(TWO, 5, vote(last)).take();
        assert_eq!(
            sent[0],
            (TWO, Body::VoteReply { granted }),
            "{terms:?} {last:?}"
        );
    };
    check(&[2, 2], at(3, 2), true);
    check(&[2, 2], at(2, 2), false);
    check(&[2, 2], at(4, 2), true);
    check(&[2, 2], at(2, 3), true);
    check(&[2, 3], at(9, 2), false);
}

#[test]
fn t3_10_leadership_goes_to_a_member_that_caught_up() {
    let mut node = busy_leader();
    node.raft.propose("a".into()).unwrap();
    node.settle();
    node.take();
    node.raft.transfer_leadership(TWO).unwrap();
    assert!(node.take().is_empty(), "the target lacks an entry");
    assert_eq!(
        node.raft.propose("b".into()),
        Err(ProposeError::Transferring)
    );
    node.step(TWO, 2, ack(3));
    assert!(node.take().contains(&(TWO, Body::TimeoutNow)));
    // Nothing came of it: the leader goes on.
    node.tick(T);
    assert!(node.raft.propose("b".into()).is_ok());

    let mut target = Node::with(3, |config, _| {
        (config.pre_vote, config.check_quorum) = (true, true)
    });
    target.step(TWO, 2, heartbeat(0)).take();
    target.step(TWO, 2, Body::TimeoutNow);
    assert_eq!(target.status().role, Role::Candidate);
    assert!(matches!(
        target.take()[0].1,
        Body::Vote { transfer: true, .. }
    ));
}

#[test]
fn t6_2_a_leader_without_a_quorum_steps_down() {
    let mut node = Node::leader(3);
    let mut checked = Node::with(3, |config, _| config.check_quorum = true);
    checked.lead();
    for node in [&mut node, &mut checked] {
        node.tick(2 * T);
    }
    assert_eq!(node.status().role, Role::Leader);
    assert_eq!(checked.status().role, Role::Follower);
}

#[test]
fn t9_6_a_pre_vote_changes_nothing_until_it_is_won() {
    let pre = |config: &mut Config, _: &mut Restored| config.pre_vote = true;
    let mut node = Node::with(3, pre);
    node.raft.campaign();
    node.drain();
    assert_eq!(node.ready.write, WriteNumber::NONE);
    assert_eq!(
        (node.status().role, node.status().term),
        (Role::PreCandidate, Term(1))
    );
    assert!(node.sent.iter().all(|out| out.message.term == Term(2)));
    node.step(TWO, 2, Body::PreVoteReply { granted: true });
    assert_eq!(
        (node.status().role, node.status().term),
        (Role::Candidate, Term(2))
    );
    // The asked member neither votes nor raises its term, and refuses while it hears a leader.
    let mut asked = Node::with(3, pre);
    let granted = [(TWO, Body::PreVoteReply { granted: true })];
    assert_eq!(
        asked.step(TWO, 5, Body::PreVote { last: at(1, 1) }).take(),
        granted
    );
    assert_eq!((asked.status().term, asked.status().vote), (Term(1), None));
    asked.step(THREE, 1, heartbeat(0)).take();
    assert!(
        asked
            .step(TWO, 5, Body::PreVote { last: at(1, 1) })
            .take()
            .is_empty()
    );
}

#[test]
fn s5_2_a_server_starts_as_a_follower_and_stays_one_while_it_hears_a_leader() {
    let mut node = Node::new(3);
    assert_eq!(
        (node.status().role, node.status().leader),
        (Role::Follower, None)
    );
    for _ in 0..20 {
        node.tick(T - 1);
        node.step(TWO, 2, heartbeat(0));
    }
    assert_eq!(
        (node.status().role, node.status().leader),
        (Role::Follower, Some(TWO))
    );
    // An append is a leader's word as well.
    for _ in 0..20 {
        node.tick(T - 1);
        node.step(TWO, 2, append(at(1, 1), &[], 0));
    }
    assert_eq!(node.status().role, Role::Follower);
}

#[test]
fn s5_2_a_new_leader_speaks_at_once() {
    let mut node = Node::new(3);
    node.raft.campaign();
    node.settle();
    node.take();
    node.step(TWO, 2, Body::VoteReply { granted: true });
    let first = append(at(1, 1), &[2], 1);
    let sent = node.take();
    assert_eq!(sent.len(), 2, "{sent:?}");
    for (_, body) in sent {
        let (Body::Append { prev, entries, .. }, Body::Append { prev: after, .. }) =
            (body, first.clone())
        else {
            panic!("an append");
        };
        assert_eq!((prev, entries.len()), (after, 1));
        assert!(entries[0].payload.is_empty() && entries[0].term == Term(2));
    }
}

#[test]
fn s5_2_a_candidate_refuses_an_older_leader_and_goes_on() {
    let mut node = Node::with_log(3, &[2], 4);
    node.raft.campaign();
    node.settle();
    node.take();
    node.step(TWO, 4, heartbeat(2));
    assert_eq!(
        (node.status().role, node.status().term),
        (Role::Candidate, Term(5))
    );
    node.drain();
    assert_eq!(node.sent[0].message.term, Term(5));
}

#[test]
fn s5_2_the_timeout_is_drawn_anew_for_each_election() {
    let mut node = Node::new(3);
    let mut waits = std::collections::BTreeSet::new();
    for _ in 0..40 {
        let term = node.status().term;
        let ticks = (1..).find(|_| {
            node.raft.tick();
            node.status().term > term
        });
        waits.insert(ticks.unwrap());
    }
    assert!(waits.iter().all(|ticks| (T..2 * T).contains(ticks)));
    assert!(waits.len() > 5, "{waits:?}");
}

#[test]
fn t3_10_a_hand_over_goes_to_another_voter_or_nowhere() {
    let mut follower = Node::new(3);
    assert_eq!(
        follower.raft.transfer_leadership(TWO),
        Err(TransferError::NotLeader { leader: None })
    );
    let mut node = Node::with(3, |_, restored| {
        restored.membership = Membership::new([ME, TWO, THREE], [MemberId(4)]);
    });
    node.lead();
    let check = |node: &mut Node, to, expected| {
        assert_eq!(node.raft.transfer_leadership(to), Err(expected));
    };
    check(&mut node, ME, TransferError::AlreadyLeader);
    check(&mut node, MemberId(4), TransferError::NotVoter);
    check(&mut node, MemberId(9), TransferError::NotVoter);
    // Who is told to campaign by somebody else than its leader does not.
    follower.step(TWO, 2, heartbeat(0));
    follower.step(THREE, 2, Body::TimeoutNow);
    assert_eq!(follower.status().role, Role::Follower);
    assert_eq!(follower.raft.ignored().get(Ignored::NotTheLeader), 1);
}

/// The story `prevote.txt` shows it in full.
#[test]
fn t9_6_a_member_that_comes_back_does_not_unseat_the_leader() {
    let mut leader = Node::with(3, |config, _| {
        (config.pre_vote, config.check_quorum) = (true, true);
    });
    leader.raft.campaign();
    leader.step(TWO, 2, Body::PreVoteReply { granted: true });
    leader.settle();
    leader.step(TWO, 2, Body::VoteReply { granted: true });
    assert_eq!(leader.status().role, Role::Leader);
    leader.settle();
    leader.take();
    assert!(
        leader
            .step(THREE, 3, Body::PreVote { last: at(1, 1) })
            .take()
            .is_empty()
    );
    assert!(leader.step(THREE, 3, vote(at(9, 2))).take().is_empty());
    assert_eq!(
        (leader.status().role, leader.status().term),
        (Role::Leader, Term(2))
    );
    assert_eq!(leader.raft.ignored().get(Ignored::LeaderAlive), 2);
}
