//! Elections at their edges: what a vote and a pre-vote depend on, timers, and who may campaign.

use consensus::*;

use crate::node::*;

#[test]
fn a_pre_vote_goes_to_whom_a_vote_could_go() {
    // Asked in term 3 with a log that ends at (3, 2).
    let check = |voted: Option<MemberId>, term, last, granted: bool| {
        let mut node = Node::with(3, |_, restored| {
            restored.hard_state.term = Term(3);
            restored.hard_state.vote = voted;
            restored.entries = entries(2, &[2, 2]);
        });
        node.step(TWO, term, Body::PreVote { last }).drain();
        let message = node.sent[0].message.clone();
        // A grant names the term it is for, a refusal our own.
        let said = if granted { Term(term) } else { Term(3) };
        let expected = Message {
            term: said,
            body: Body::PreVoteReply { granted },
        };
        assert_eq!(message, expected, "{voted:?} {term} {last:?}");
        assert_eq!(node.status().term, Term(3));
    };
    check(None, 4, at(3, 2), true);
    check(Some(THREE), 4, at(3, 2), true);
    check(None, 3, at(3, 2), true);
    check(Some(TWO), 3, at(3, 2), true);
    check(Some(THREE), 3, at(3, 2), false);
    check(None, 2, at(3, 2), false);
    check(None, 4, at(2, 2), false);
    check(None, 3, at(2, 2), false);
    check(None, 2, at(2, 2), false);
}

/// A grant for another term counts for nothing, and a refusal for nothing beyond the pre-vote.
#[test]
fn an_answer_to_a_pre_vote_counts_for_that_pre_vote_alone() {
    let reply = |granted| Body::PreVoteReply { granted };
    let mut node = Node::with(3, |config, _| config.pre_vote = true);
    node.raft.campaign();
    for term in [1, 3] {
        node.step(TWO, term, reply(true));
        assert_eq!(node.status().role, Role::PreCandidate);
    }
    node.step(TWO, 2, reply(true)).settle();
    for id in [TWO, THREE] {
        node.step(id, 2, reply(false));
        assert_eq!(node.status().role, Role::Candidate);
    }
    node.step(TWO, 2, Body::VoteReply { granted: true });
    node.step(THREE, 2, reply(false));
    assert_eq!(node.status().role, Role::Leader);
    assert_eq!(node.raft.ignored().get(Ignored::Stale), 5);
}

/// What others know to be committed is committed here as well. It costs neither a follower its leader,
/// whatever was committed, nor a candidate its campaign, if no change of members was.
#[test]
fn news_of_a_commit_is_no_reason_to_change_roles() {
    let change = ConfChange::simple(ConfStep::AddVoter(MemberId(4)));
    let mut node = Node::with(3, |_, restored| {
        restored.entries = entries(2, &[1]);
        restored.entries[0].kind = EntryKind::ConfChange;
        restored.entries[0].payload = change.encode();
    });
    node.step(TWO, 1, heartbeat(0));
    node.step(THREE, 1, Body::Committed { at: at(2, 1) });
    let status = node.status();
    assert_eq!((status.commit, status.leader), (LogIndex(2), Some(TWO)));
    let mut node = Node::with_log(3, &[1, 1], 1);
    node.raft.campaign();
    node.settle();
    node.step(THREE, 2, Body::Committed { at: at(3, 1) });
    let status = node.status();
    assert_eq!((status.commit, status.role), (LogIndex(3), Role::Candidate));
}

#[test]
fn a_lost_campaign_keeps_the_vote() {
    let mut node = Node::new(5);
    node.raft.campaign();
    node.settle();
    for id in 2..5 {
        node.step(MemberId(id), 2, Body::VoteReply { granted: false });
    }
    assert_eq!(
        (node.status().role, node.status().vote),
        (Role::Follower, Some(ME))
    );
    node.take();
    let no = [(MemberId(5), Body::VoteReply { granted: false })];
    assert_eq!(node.step(MemberId(5), 2, vote(at(9, 2))).take(), no);
}

#[test]
fn a_member_that_grants_a_vote_gives_up_its_own_campaign() {
    let mut node = Node::with(3, |config, restored| {
        config.pre_vote = true;
        restored.hard_state.term = Term(3);
    });
    node.raft.campaign();
    assert_eq!(node.status().role, Role::PreCandidate);
    node.step(TWO, 3, vote(at(9, 2)));
    assert_eq!(
        (node.status().role, node.status().vote),
        (Role::Follower, Some(TWO))
    );
    node.step(THREE, 4, Body::PreVoteReply { granted: true });
    assert_eq!(node.status().term, Term(3));
}

#[test]
fn a_term_learned_on_the_way_does_not_restart_a_followers_timer() {
    let campaigns_after = |disturbed_at: Option<u32>| {
        let mut node = Node::new(3);
        let ticks = 0..;
        let found = ticks.take(100).find(|tick| {
            if disturbed_at == Some(*tick) {
                node.step(THREE, 5, Body::VoteReply { granted: false });
            }
            node.tick(1);
            node.status().role == Role::Candidate
        });
        found.expect("it campaigns")
    };
    let alone = campaigns_after(None);
    for tick in 0..alone {
        assert_eq!(campaigns_after(Some(tick)), alone, "disturbed at {tick}");
    }
}

#[test]
fn a_leader_counts_as_alive_for_exactly_one_election_timeout() {
    // A seed with which the member itself waits longer than that.
    let follower = |ticks| {
        (0..100).find_map(|seed| {
            let mut node = Node::with(3, |config, _| {
                (config.check_quorum, config.seed) = (true, seed);
            });
            node.step(TWO, 2, heartbeat(0)).take();
            node.tick(T);
            if node.status().role != Role::Follower {
                return None;
            }
            node.step(TWO, 2, heartbeat(0)).take();
            node.tick(ticks);
            Some(node)
        })
    };
    let asks = |ticks| {
        let mut node = follower(ticks).expect("some seed waits longer");
        node.step(THREE, 3, vote(at(9, 2))).take().len()
    };
    assert_eq!((asks(T - 1), asks(T)), (0, 1));
}

/// A follower first looks at what arrived while it stood still; a leader's quorum has no more time
/// than before.
#[test]
fn who_wakes_is_not_impatient_and_gets_no_more_time_as_a_leader() {
    let mut node = Node::new(3);
    for _ in 0..5 {
        node.tick(T - 1);
        node.raft.on_woken();
    }
    assert_eq!(node.status().role, Role::Follower);
    node.tick(2 * T);
    assert_eq!(node.status().role, Role::Candidate);
    let mut node = Node::with(3, |config, _| config.check_quorum = true);
    node.lead();
    node.tick(2 * T - 1);
    node.raft.on_woken();
    assert_eq!(node.status().role, Role::Leader);
    node.tick(1);
    assert_eq!(node.status().role, Role::Follower);
}

#[test]
fn a_member_that_cannot_campaign_forgets_a_silent_leader() {
    let mut learner = Node::with(3, |config, restored| {
        config.id = MemberId(4);
        restored.membership = Membership::new([ME, TWO, THREE], [MemberId(4)]);
    });
    learner.step(TWO, 2, heartbeat(0));
    assert_eq!(learner.status().leader, Some(TWO));
    learner.tick(2 * T);
    assert_eq!(
        (learner.status().leader, learner.status().role),
        (None, Role::Follower)
    );
}

#[test]
fn a_candidate_whose_disk_stands_still_gives_up() {
    let mut node = Node::new(3);
    node.raft.campaign();
    node.drain();
    node.tick(3 * T);
    assert_eq!(
        (node.status().role, node.status().term),
        (Role::Follower, Term(2))
    );
}

#[test]
fn a_snapshot_on_its_way_to_the_disk_forbids_a_campaign() {
    let mut node = Node::new(3);
    let snapshot = SnapshotMeta {
        last: at(8, 1),
        membership: Membership::new([ME, TWO, THREE], []),
    };
    node.step(TWO, 1, Body::Snapshot { snapshot });
    node.raft.campaign();
    assert_eq!(node.status().role, Role::Follower, "taken, not handed out");
    let write = node.drain().write;
    node.raft.campaign();
    assert_eq!(
        node.status().role,
        Role::Follower,
        "handed out, not durable"
    );
    node.raft.on_synced(write);
    node.raft.campaign();
    assert_eq!(node.status().role, Role::Candidate);
}

#[test]
fn only_the_leader_may_ask_for_a_campaign() {
    let mut node = Node::new(3);
    node.step(TWO, 2, heartbeat(0)).take();
    node.step(THREE, 2, Body::TimeoutNow);
    assert_eq!(node.status().role, Role::Follower);
    assert_eq!(node.raft.ignored().get(Ignored::NotTheLeader), 1);
    // A learner cannot follow the leader's wish.
    let mut learner = Node::with(3, |config, restored| {
        config.id = MemberId(4);
        restored.membership = Membership::new([ME, TWO, THREE], [MemberId(4)]);
    });
    learner
        .step(TWO, 2, heartbeat(0))
        .step(TWO, 2, Body::TimeoutNow);
    assert_eq!(learner.raft.ignored().get(Ignored::CannotCampaign), 1);
}

#[test]
fn a_quorum_counts_those_who_spoke() {
    // Of five, a leader that hears from one other has no quorum; from two it has.
    let role_after = |speakers: &[u64]| {
        let mut node = Node::with(5, |config, _| config.check_quorum = true);
        node.lead();
        for _ in 0..3 * T {
            node.tick(1);
            for id in speakers {
                let commit = LogIndex::ZERO;
                node.step(MemberId(*id), 2, Body::HeartbeatAck { round: 0, commit });
            }
        }
        node.status().role
    };
    assert_eq!(role_after(&[2]), Role::Follower);
    assert_eq!(role_after(&[2, 4]), Role::Leader);
}

#[test]
fn an_answer_waits_for_the_write_only_while_there_is_one() {
    let mut node = Node::new(3);
    node.step(TWO, 2, vote(at(9, 1))).settle();
    node.sent.clear();
    node.step(THREE, 2, vote(at(9, 1))).drain();
    assert_eq!(node.sent[0].after, WriteNumber::NONE);
}
