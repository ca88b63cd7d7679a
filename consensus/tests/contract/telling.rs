//! What the core tells: what was ignored, whether there is anything to do, names in logs; and what it refuses to start with.

use std::panic::{AssertUnwindSafe, catch_unwind};

use consensus::*;

use crate::node::*;

#[test]
fn each_ignored_message_counts_once_under_its_reason() {
    let mut node = Node::with(3, |config, _| config.term_jump_max = 100);
    assert_eq!(node.raft.ignored().total(), 0);
    let check = |node: &mut Node, reason| {
        for each in Ignored::ALL {
            let expected = u64::from(each == reason);
            assert_eq!(
                node.raft.ignored().get(each),
                expected,
                "{each:?} for {reason:?}"
            );
        }
        assert_eq!(node.raft.ignored().total(), 1);
    };
    let mut fresh = Node::new(3);
    fresh.step(ME, 1, heartbeat(0));
    check(&mut fresh, Ignored::FromSelf);
    let mut fresh = Node::new(3);
    fresh.step(MemberId::NONE, 1, heartbeat(0));
    check(&mut fresh, Ignored::FromSelf);
    // Answers come from members only; a leader may be newer than our membership.
    let mut fresh = Node::new(3);
    fresh.step(
        MemberId(9),
        1,
        Body::HeartbeatAck {
            round: 0,
            commit: LogIndex::ZERO,
        },
    );
    check(&mut fresh, Ignored::UnknownMember);
    fresh.step(MemberId(9), 2, heartbeat(0));
    assert_eq!(fresh.status().leader, Some(MemberId(9)));
    // The highest term that is believed, and the first that is not.
    node.step(TWO, 101, heartbeat(0));
    assert_eq!(node.status().term, Term(101));
    node.step(TWO, 202, heartbeat(0));
    assert_eq!(node.status().term, Term(101));
    check(&mut node, Ignored::TermTooFar);
}

/// However far up its peers drive the term, a member can campaign in the next one.
#[test]
fn no_term_is_the_last_one() {
    let mut node = Node::with(3, |config, _| config.term_jump_max = u64::MAX);
    let most = u64::MAX / 2;
    for term in [most + 1, u64::MAX] {
        node.step(TWO, term, heartbeat(0));
    }
    assert_eq!(node.status().term, Term(1));
    assert_eq!(node.raft.ignored().get(Ignored::TermTooFar), 2);
    node.step(TWO, most, heartbeat(0));
    assert_eq!(node.status().term, Term(most));
    node.tick(2 * T);
    assert_eq!(node.status().role, Role::Candidate);
    assert_eq!(node.status().term, Term(most + 1));
}

#[test]
fn a_second_leader_in_one_term_is_ignored() {
    let mut node = Node::new(3);
    node.step(TWO, 2, heartbeat(0)).step(THREE, 2, heartbeat(0));
    assert_eq!(node.raft.ignored().get(Ignored::NotTheLeader), 1);
    assert_eq!(node.status().leader, Some(TWO));
    let mut leader = Node::leader(3);
    leader.step(TWO, 2, heartbeat(0));
    assert_eq!(leader.raft.ignored().get(Ignored::NotTheLeader), 1);
    assert_eq!(leader.status().role, Role::Leader);
}

#[test]
fn who_asks_in_an_old_term_learns_the_present_one() {
    let check = |body: Body, answer: Option<Body>| {
        let mut node = Node::with_log(3, &[2], 5);
        node.step(TWO, 4, body.clone()).drain();
        let sent: Vec<_> = node.sent.iter().map(|out| &out.message).collect();
        let answer = answer.map(|body| Message {
            term: Term(5),
            body,
        });
        assert_eq!(sent, answer.iter().collect::<Vec<_>>(), "{body:?}");
    };
    let beat = Body::HeartbeatAck {
        round: 0,
        commit: LogIndex::ZERO,
    };
    check(heartbeat(0), Some(beat));
    check(vote(at(9, 4)), Some(Body::VoteReply { granted: false }));
    check(Body::VoteReply { granted: true }, None);
    check(ack(2), None);
}

#[test]
fn there_is_something_to_do_when_any_field_says_so() {
    let mut ready = Ready::new();
    assert!(ready.is_empty() && !ready.must_sync());
    let check = |fill: &dyn Fn(&mut Ready), must_sync| {
        let mut ready = Ready::new();
        fill(&mut ready);
        assert!(!ready.is_empty(), "{ready:?}");
        assert_eq!(ready.must_sync(), must_sync, "{ready:?}");
        ready.clear();
        assert!(ready.is_empty(), "{ready:?}");
    };
    let entry = || entries(2, &[1]).remove(0);
    check(&|ready| ready.write = WriteNumber(1), true);
    check(
        &|ready| {
            let message = Message {
                term: Term(1),
                body: Body::TimeoutNow,
            };
            ready.messages.push(Outgoing {
                to: TWO,
                after: WriteNumber::NONE,
                message,
            });
        },
        false,
    );
    check(&|ready| ready.committed.push(entry()), false);
    check(
        &|ready| {
            ready.read_states.push(ReadState {
                context: 1,
                index: LogIndex(1),
            })
        },
        false,
    );
    check(&|ready| ready.reads_failed.push(1), false);
    let load = LoadRequest {
        id: 1,
        from: LogIndex(1),
        through: LogIndex(1),
        bytes_max: 1,
    };
    check(&|ready| ready.loads.push(load), false);
    check(
        &|ready| {
            ready.snapshots.push(SnapshotRequest {
                to: TWO,
                at_least: LogIndex(1),
            })
        },
        false,
    );
    check(&|ready| ready.trim = Some(at(1, 1)), false);
    let leadership = Leadership {
        role: Role::Follower,
        term: Term(1),
        leader: None,
    };
    check(&|ready| ready.leadership = Some(leadership), false);
    ready.clear();
}

#[test]
fn a_change_of_leadership_is_told_once() {
    let mut node = Node::new(3);
    assert_eq!(node.drain().leadership, None);
    node.step(TWO, 2, heartbeat(0));
    let expected = Leadership {
        role: Role::Follower,
        term: Term(2),
        leader: Some(TWO),
    };
    assert_eq!(node.drain().leadership, Some(expected));
    assert_eq!(node.drain().leadership, None);
}

#[test]
fn ids_read_as_people_write_them() {
    let debug = format!("{:?} {:?} {:?}", Term(7), LogIndex(12), MemberId(0x1f));
    assert_eq!(debug, "t7 i12 m1f");
    let display = format!("{} {} {}", Term(7), LogIndex(12), MemberId(0x1f));
    assert_eq!(display, "7 12 1f");
}

fn refuses(tune: impl Fn(&mut Config, &mut Restored)) -> bool {
    catch_unwind(AssertUnwindSafe(|| Node::with(3, &tune))).is_err()
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    let cases: [fn(&mut Config); 12] = [
        |config| config.id = MemberId::NONE,
        |config| config.heartbeat_ticks = 0,
        |config| config.heartbeat_ticks = config.election_ticks,
        |config| config.disk_stall_ticks = 0,
        |config| config.lease_reads = true,
        |config| {
            (config.lease_reads, config.check_quorum) = (true, true);
            config.lease_margin_ticks = config.election_ticks;
        },
        |config| config.inflight_messages_max = 0,
        |config| config.inflight_entries_max = 0,
        |config| config.message_entries_max = 0,
        |config| config.apply_entries_max = 0,
        |config| config.reads_pending_max = 0,
        |config| config.trim_keep_entries = config.trim_every_entries + 1,
    ];
    for (number, case) in cases.iter().enumerate() {
        assert!(refuses(|config, _| case(config)), "case {number}");
    }
    assert!(!refuses(
        |config, _| config.trim_keep_entries = config.trim_every_entries
    ));
}

/// Memberships that break one promise each; the last lists fit.
fn malformed() -> Vec<Membership> {
    let ids = |list: &[u64]| -> Vec<MemberId> { list.iter().copied().map(MemberId).collect() };
    let members = |voters: &[u64], outgoing: &[u64], learners: &[u64], next: &[u64]| Membership {
        voters: ids(voters),
        voters_outgoing: ids(outgoing),
        learners: ids(learners),
        learners_next: ids(next),
        auto_leave: false,
    };
    vec![
        members(&[2, 1], &[], &[], &[]),
        members(&[1, 1], &[], &[], &[]),
        members(&[0, 1], &[], &[], &[]),
        members(&[1, 2], &[3, 1], &[], &[]),
        members(&[1], &[], &[3, 2], &[]),
        members(&[1], &[], &[0], &[]),
        // A learner that votes.
        members(&[1, 2], &[], &[2], &[]),
        members(&[1], &[2], &[2], &[]),
        // A learner to be that votes in the incoming half, or does not vote in the outgoing one.
        members(&[1, 2], &[1, 2], &[], &[2]),
        members(&[1], &[2], &[], &[3]),
        // Nobody is left to decide.
        members(&[], &[1, 2], &[], &[]),
        Membership {
            auto_leave: true,
            ..members(&[1], &[], &[], &[])
        },
    ]
}

#[test]
fn a_membership_that_breaks_its_promises_is_neither_restored_nor_installed() {
    for membership in malformed() {
        assert!(
            refuses(|_, restored| restored.membership = membership.clone()),
            "{membership:?}"
        );
        let mut node = Node::new(3);
        let snapshot = SnapshotMeta {
            last: at(8, 1),
            membership: membership.clone(),
        };
        node.step(TWO, 1, Body::Snapshot { snapshot });
        assert!(node.drain().install.is_none(), "{membership:?}");
        assert_eq!(
            node.raft.ignored().get(Ignored::MalformedEntries),
            1,
            "{membership:?}"
        );
    }
    // A joint state with a learner to be and one that ends by itself is fine.
    let ids = |list: &[u64]| -> Vec<MemberId> { list.iter().copied().map(MemberId).collect() };
    let joint = Membership {
        voters: ids(&[1, 2]),
        voters_outgoing: ids(&[1, 3]),
        learners: ids(&[4]),
        learners_next: ids(&[3]),
        auto_leave: true,
    };
    assert!(!refuses(|_, restored| restored.membership = joint.clone()));
    assert!(joint.is_learner(MemberId(4)) && !joint.is_learner(MemberId(3)));
    assert!(joint.contains(MemberId(4)) && !joint.contains(MemberId(5)));
}

#[test]
fn a_snapshot_is_wanted_beyond_what_is_committed_and_held_and_by_its_members() {
    let node = Node::with(3, |_, restored| {
        restored.entries = entries(2, &[1, 1, 1]);
        restored.hard_state.commit = LogIndex(3);
    });
    let wants = |last, member| {
        let membership = Membership::new([member, TWO], []);
        node.raft.wants_snapshot(&SnapshotMeta { last, membership })
    };
    assert!(wants(at(5, 1), ME));
    assert!(wants(at(4, 2), ME), "another entry than ours");
    assert!(!wants(at(4, 1), ME), "held already");
    assert!(!wants(at(5, 1), THREE), "of others");
    assert!(!wants(at(3, 2), ME), "committed, whatever the term");
    assert!(!wants(at(2, 2), ME));
}

#[test]
fn a_sole_voter_decides_in_both_halves() {
    let members = |outgoing: &[u64]| Membership {
        voters: vec![ME],
        voters_outgoing: outgoing.iter().copied().map(MemberId).collect(),
        ..Membership::default()
    };
    assert!(members(&[]).is_sole_voter(ME) && members(&[1]).is_sole_voter(ME));
    assert!(!members(&[2]).is_sole_voter(ME) && !members(&[1, 2]).is_sole_voter(ME));
    assert!(!members(&[]).is_sole_voter(TWO));
}

#[test]
fn a_change_without_steps_fits_any_membership() {
    let plain = Membership::new([ME, TWO], []);
    let step = ConfStep::AddVoter(THREE);
    let joint = plain.after(&ConfChange::joint(vec![step], true)).unwrap();
    let empty = ConfChange {
        steps: Vec::new(),
        ..ConfChange::simple(step)
    };
    assert_eq!(plain.after(&empty), Ok(plain.clone()));
    assert_eq!(joint.after(&empty), Ok(joint.clone()));
}

#[test]
fn the_longest_change_is_read_back_and_a_longer_one_is_not() {
    let steps = |count: u64| {
        (1..=count)
            .map(|id| ConfStep::Remove(MemberId(id)))
            .collect()
    };
    let change = ConfChange::joint(steps(1024), false);
    let bytes = change.encode();
    assert_eq!(ConfChange::decode(&bytes), Ok(change));
    let mut longer = bytes.to_vec();
    longer[2..4].copy_from_slice(&1025_u16.to_le_bytes());
    longer.extend([2, 1, 0, 0, 0, 0, 0, 0, 0]);
    assert!(ConfChange::decode(&longer.into()).is_err());
}
