//! Handing over, leaving, a disk that stands still, and joint states that end by themselves.

use consensus::*;

use crate::node::*;

fn told(node: &mut Node) -> Vec<MemberId> {
    let sent = node.take().into_iter();
    sent.filter(|(_, body)| *body == Body::TimeoutNow)
        .map(|(to, _)| to)
        .collect()
}

#[test]
fn a_target_is_told_once() {
    let mut node = busy_leader();
    node.raft.transfer_leadership(TWO).unwrap();
    assert_eq!(told(&mut node), [TWO]);
    node.step(TWO, 2, ack(2)).step(THREE, 2, ack(2));
    node.raft.transfer_leadership(TWO).unwrap();
    assert_eq!(told(&mut node), []);
}

#[test]
fn only_the_target_is_told_and_a_new_target_replaces_it() {
    let mut node = busy_leader();
    node.raft.propose("a".into()).unwrap();
    node.settle();
    node.take();
    node.raft.transfer_leadership(TWO).unwrap();
    node.step(THREE, 2, ack(3));
    assert_eq!(told(&mut node), [], "it is not the target");
    assert_eq!(node.status().transferee, Some(TWO));
    node.raft.transfer_leadership(THREE).unwrap();
    assert_eq!(node.status().transferee, Some(THREE));
    assert_eq!(told(&mut node), [THREE]);
}

#[test]
fn a_hand_over_is_given_up_after_one_election_timeout_whoever_asks_again() {
    let mut node = busy_leader();
    node.raft.transfer_leadership(TWO).unwrap();
    node.tick(T - 1);
    assert_eq!(
        node.raft.propose("a".into()),
        Err(ProposeError::Transferring)
    );
    node.raft.transfer_leadership(TWO).unwrap();
    node.tick(1);
    assert_eq!(node.status().transferee, None);
    assert!(node.raft.propose("a".into()).is_ok());
    let check = |to, error| assert_eq!(Node::leader(3).raft.transfer_leadership(to), Err(error));
    check(ME, TransferError::AlreadyLeader);
    check(MemberId(9), TransferError::NotVoter);
    let refused = TransferError::NotLeader { leader: None };
    assert_eq!(Node::new(3).raft.transfer_leadership(TWO), Err(refused));
}

#[test]
fn a_target_that_is_removed_is_no_target_and_one_that_stays_is() {
    let removed = |id| {
        let mut node = busy_leader();
        let change = ConfChange::simple(ConfStep::Remove(id));
        node.raft.propose_conf_change(&change).unwrap();
        node.settle();
        node.raft.transfer_leadership(TWO).unwrap();
        node.step(THREE, 2, ack(3));
        apply_all(&mut node);
        node.status().transferee
    };
    assert_eq!(removed(TWO), None);
    assert_eq!(removed(THREE), Some(TWO));
}

/// A leader of five, its disk just about to count as stalled; the followers hold these many entries.
fn stalled(matched: [u64; 4], silent: &[u64]) -> Node {
    let mut node = Node::with(5, |config, restored| {
        config.check_quorum = true;
        // FIVE only learns.
        restored.membership = Membership::new([1, 2, 3, 4].map(MemberId), [MemberId(5)]);
    });
    node.lead();
    for _ in 0..4 {
        node.raft.propose("a".into()).expect("a leader takes it");
    }
    node.drain();
    let speak = |node: &mut Node| {
        for (id, matched) in (2..).zip(matched) {
            if !silent.contains(&id) {
                node.step(MemberId(id), 2, ack(matched));
            }
        }
    };
    // Long enough for a quorum check to notice who is silent, and no write finishes.
    for _ in 0..T {
        node.raft.on_synced(node.write);
        node.tick(1);
        speak(&mut node);
        node.raft.propose("b".into()).expect("a leader takes it");
        node.drain();
    }
    node.sent.clear();
    node
}

#[test]
fn a_stalled_leader_hands_over_to_the_active_voter_with_the_longest_log() {
    let target = |matched, silent: &[u64]| {
        let mut node = stalled(matched, silent);
        node.tick(T / 2);
        node.status().transferee
    };
    assert_eq!(target([4, 5, 3, 2], &[]), Some(THREE));
    assert_eq!(
        target([4, 4, 3, 2], &[]),
        Some(TWO),
        "the lower id of equals"
    );
    assert_eq!(
        target([4, 4, 3, 6], &[]),
        Some(TWO),
        "a learner cannot lead"
    );
    assert_eq!(
        target([4, 5, 3, 2], &[3]),
        Some(TWO),
        "a silent one cannot either"
    );
}

#[test]
fn a_stalled_leader_steps_down_after_twice_the_bound() {
    let mut node = busy_leader();
    node.raft.propose("a".into()).unwrap();
    node.drain();
    node.tick(T - 1);
    assert_eq!(
        (node.status().role, node.raft.disk_stalls()),
        (Role::Leader, 0)
    );
    node.tick(1);
    assert_eq!(
        (node.status().role, node.raft.disk_stalls()),
        (Role::Follower, 1)
    );
}

#[test]
fn a_joint_state_that_is_to_end_by_itself_does_so_once() {
    let mut node = busy_leader();
    let change = ConfChange::joint(vec![ConfStep::Remove(THREE)], true);
    node.raft.propose_conf_change(&change).unwrap();
    node.settle();
    assert_eq!(
        node.status().last_index,
        LogIndex(3),
        "not before it is applied"
    );
    node.step(TWO, 2, ack(3));
    apply_all(&mut node);
    assert!(node.raft.membership().is_joint());
    assert_eq!(node.status().last_index, LogIndex(4));
    node.step(TWO, 2, ack(4));
    apply_all(&mut node);
    assert_eq!(*node.raft.membership(), Membership::new([ME, TWO], []));
    assert_eq!(node.status().last_index, LogIndex(4));
}

#[test]
fn a_committed_change_forbids_a_campaign_until_it_is_applied() {
    let mut node = Node::with(3, |_, restored| {
        restored.entries = entries(2, &[1]);
        restored.entries[0].kind = EntryKind::ConfChange;
        restored.entries[0].payload =
            ConfChange::simple(ConfStep::AddLearner(MemberId(4))).encode();
    });
    node.raft.campaign();
    assert_eq!(
        node.status().role,
        Role::Candidate,
        "it is not known to be committed"
    );
    let mut node = Node::with(3, |_, restored| {
        restored.entries = entries(2, &[1]);
        restored.entries[0].kind = EntryKind::ConfChange;
        restored.entries[0].payload =
            ConfChange::simple(ConfStep::AddLearner(MemberId(4))).encode();
        restored.hard_state.commit = LogIndex(2);
    });
    node.raft.campaign();
    assert_eq!(node.status().role, Role::Follower);
    apply_all(&mut node);
    node.raft.campaign();
    assert_eq!(node.status().role, Role::Candidate);
}

#[test]
fn a_change_that_was_replaced_is_no_longer_pending() {
    let mut node = Node::new(3);
    let mut change = entries(2, &[2]);
    change[0].kind = EntryKind::ConfChange;
    let add = ConfChange::simple(ConfStep::AddVoter(MemberId(4)));
    change[0].payload = add.encode();
    let (prev, commit) = (at(1, 1), LogIndex(1));
    node.step(
        TWO,
        2,
        Body::Append {
            prev,
            commit,
            entries: change,
        },
    )
    .settle();
    node.step(THREE, 3, append(at(1, 1), &[3], 1)).settle();
    node.lead();
    node.step(TWO, 4, ack(3));
    apply_all(&mut node);
    assert_eq!(node.status().applied, LogIndex(3));
    assert_eq!(node.raft.propose_conf_change(&add), Ok(LogIndex(4)));
}
