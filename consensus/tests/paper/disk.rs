//! Ours: the disk is a peer, a single voter needs nobody else, and memory is bounded.

use consensus::*;

use crate::node::*;

#[test]
fn a_leader_whose_disk_stands_still_hands_over_and_steps_down() {
    let mut node = busy_leader();
    node.raft.propose("a".into()).unwrap();
    node.drain();
    node.step(TWO, 2, ack(3)).step(THREE, 2, ack(3));
    node.take();
    node.tick(T / 2);
    assert!(node.take().contains(&(TWO, Body::TimeoutNow)));
    node.tick(T / 2);
    assert_eq!(
        (node.status().role, node.raft.disk_stalls()),
        (Role::Follower, 1)
    );
    // It does not campaign before its disk answers.
    node.tick(5 * T);
    assert_eq!(
        (node.status().role, node.status().term),
        (Role::Follower, Term(2))
    );
    node.raft.on_synced(node.write);
    node.tick(2 * T);
    assert_eq!(node.status().role, Role::Candidate);
}

#[test]
fn the_only_voter_leads_at_once_and_commits_what_is_durable() {
    let mut node = Node::with(1, |config, _| {
        (config.pre_vote, config.check_quorum) = (true, true);
    });
    let write = node.drain().write;
    assert_eq!(node.status().role, Role::Candidate);
    node.raft.on_synced(write);
    assert_eq!(node.status().role, Role::Leader);
    // A read waits for the first commit, then needs nobody.
    node.raft.read_index(1).unwrap();
    let write = node.drain().write;
    assert!(node.ready.read_states.is_empty() && node.sent.is_empty());
    node.raft.on_synced(write);
    node.drain();
    assert_eq!(
        node.ready.read_states,
        [ReadState {
            context: 1,
            index: LogIndex(2)
        }]
    );
    assert_eq!(node.ready.committed.len(), 1);
    node.raft.on_applied(LogIndex(2));
    node.raft.read_index(2).unwrap();
    assert_eq!(node.drain().read_states.len(), 1);
    // Several writes under way; the second one's completion covers both.
    node.raft.propose("a".into()).unwrap();
    let third = node.drain().write;
    node.raft
        .propose_batch(&mut vec!["b".into(), "c".into()])
        .unwrap();
    let fourth = node.drain().write;
    assert!(third < fourth);
    node.raft.on_synced(fourth);
    node.raft.on_synced(third);
    let committed: Vec<_> = node.drain().committed.iter().map(|e| e.index.0).collect();
    assert_eq!(committed, [3, 4, 5]);
    // Time alone changes nothing.
    node.tick(10 * T);
    assert_eq!(node.status().role, Role::Leader);
    assert!(node.drain().is_empty());
}

#[test]
fn what_is_not_committed_is_bounded() {
    let mut node = Node::with(3, |config, _| config.uncommitted_bytes_max = 300);
    node.lead();
    let results: Vec<_> = (0..4)
        .map(|_| node.raft.propose(vec![0; 36].into()).is_ok())
        .collect();
    assert_eq!(results, [true, true, false, false]);
    assert_eq!(node.raft.propose("a".into()), Err(ProposeError::Full));
    node.settle();
    node.step(TWO, 2, ack(4));
    assert!(
        node.raft.propose(vec![0; 9999].into()).is_ok(),
        "one always fits"
    );
}
