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
    node.synced(node.write);
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
    node.synced(write);
    assert_eq!(node.status().role, Role::Leader);
    // A read waits for the first commit, then needs nobody.
    node.raft.read_index(1).unwrap();
    let write = node.drain().write;
    assert!(node.ready.read_states.is_empty() && node.sent.is_empty());
    node.synced(write);
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
    node.synced(fourth);
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

/// Found by simulation. A member holds entry 3 of term 3 and takes 3 and 4 of term 4, with commit
/// 4. If a crash tore that write behind its hard state, the old entry 3 would pass for committed.
#[test]
fn a_write_that_replaces_entries_does_not_commit_what_it_replaces() {
    let mut node = Node::with_log(3, &[2, 3], 4);
    node.step(TWO, 4, append(at(2, 2), &[4, 4], 4));
    let first = node.drain().write;
    let state = node.ready.hard_state.expect("the commit index moved");
    let written: Vec<_> = node.ready.entries.iter().map(|e| e.index.0).collect();
    assert!(node.ready.truncates);
    assert_eq!((state.commit, written), (LogIndex(2), vec![3]));
    let second = node.drain().write;
    let state = node.ready.hard_state.expect("the rest of it");
    let written: Vec<_> = node.ready.entries.iter().map(|e| e.index.0).collect();
    assert!(!node.ready.truncates);
    assert_eq!((state.commit, written), (LogIndex(4), vec![4]));
    // Both entries are acknowledged once both are durable.
    let acked = &node.sent[0];
    assert_eq!(
        (acked.after, &acked.message.body),
        (
            second,
            &Body::AppendAck {
                matched: LogIndex(4),
                commit: LogIndex(4)
            }
        )
    );
    node.synced(first);
    assert_eq!(node.status().durable, LogIndex(3));
    node.synced(second);
    assert_eq!(node.status().durable, LogIndex(4));
}

#[test]
fn a_stalled_leader_that_nobody_can_follow_steps_down_within_an_election_timeout() {
    let mut node = busy_leader();
    node.raft.propose("a".into()).unwrap();
    // Nobody answers and the disk does not either.
    node.drain();
    node.tick(T - 1);
    assert_eq!(node.status().role, Role::Leader);
    node.tick(1);
    assert_eq!(node.status().role, Role::Follower);
    // It rejoins when the disk is back.
    node.step(TWO, 3, append(at(2, 2), &[3], 2));
    assert_eq!(node.status().leader, Some(TWO));
    node.settle();
    assert_eq!(node.terms(), [2, 3]);
}

#[test]
fn a_slow_write_holds_up_neither_heartbeats_nor_appends() {
    let mut node = busy_leader();
    node.raft.propose("a".into()).unwrap();
    node.take();
    node.tick(1);
    node.raft.propose("b".into()).unwrap();
    let sent = node.take();
    let is_beat = |(_, body): &&(MemberId, Body)| matches!(body, Body::Heartbeat { .. });
    assert_eq!(sent.iter().filter(is_beat).count(), 2);
    assert_eq!(sent.len(), 4, "and the entry to both: {sent:?}");
}

#[test]
fn s8_a_forwarded_proposal_that_comes_twice_is_taken_once() {
    let mut node = busy_leader();
    let proposal = |batch, word: &'static str| Body::Propose {
        incarnation: 5,
        batch,
        proposals: vec![Proposal {
            kind: EntryKind::Normal,
            payload: word.into(),
        }],
    };
    node.step(TWO, 2, proposal(1, "a"));
    let before = node.raft.ignored().get(Ignored::Stale);
    node.step(TWO, 2, proposal(1, "a"));
    assert_eq!(node.status().last_index, LogIndex(3));
    assert_eq!(node.raft.ignored().get(Ignored::Stale), before + 1);
    // One that was overtaken is still taken, and another process counts for itself.
    node.step(TWO, 2, proposal(3, "c"))
        .step(TWO, 2, proposal(2, "b"));
    node.step(THREE, 2, proposal(1, "d"));
    assert_eq!(node.status().last_index, LogIndex(6));
    node.step(TWO, 2, proposal(2, "b"));
    assert_eq!(node.status().last_index, LogIndex(6));
}

#[test]
fn s8_proposals_are_forwarded_within_a_bound() {
    let mut node = Node::with(3, |config, _| {
        (config.forward_entries_max, config.forward_bytes_max) = (2, 10_000);
    });
    assert_eq!(node.raft.forward("a".into()), Err(ProposeError::NoLeader));
    node.step(TWO, 2, heartbeat(0));
    assert_eq!(node.raft.forward("a".into()), Ok(TWO));
    assert_eq!(node.raft.forward("b".into()), Ok(TWO));
    assert_eq!(node.raft.forward("c".into()), Err(ProposeError::Full));
    let sent = node.take();
    let Some((
        TWO,
        Body::Propose {
            batch, proposals, ..
        },
    )) = sent.last()
    else {
        panic!("{sent:?}")
    };
    assert_eq!(proposals.len(), 2, "one message for both");
    // The answer makes room, and so does time when the answer was lost.
    let reply = Body::ProposeReply {
        batch: *batch,
        accepted: true,
    };
    node.step(TWO, 2, reply);
    assert_eq!(node.raft.forward("c".into()), Ok(TWO));
    assert_eq!(node.raft.forward("d".into()), Ok(TWO));
    node.take();
    assert_eq!(node.raft.forward("e".into()), Err(ProposeError::Full));
    for _ in 0..2 * T {
        node.tick(1);
        node.step(TWO, 2, heartbeat(0));
    }
    assert_eq!(node.raft.forward("e".into()), Ok(TWO));
}

#[test]
fn the_stall_bound_fits_into_a_short_election_timeout() {
    let mut node = Node::with(3, |config, _| {
        (config.election_ticks, config.disk_stall_ticks) = (6, 100);
    });
    node.lead();
    node.raft.propose("a".into()).unwrap();
    node.drain();
    node.tick(5);
    assert_eq!(node.status().role, Role::Leader);
    node.tick(1);
    assert_eq!(node.status().role, Role::Follower);
}

/// To the disk, to every peer and to apply: the bytes that were proposed, at the same place.
#[test]
fn payloads_are_shared_and_never_copied() {
    let payload = bytes::Bytes::from(vec![7; 300]);
    let place = payload.as_ptr();
    let mut node = busy_leader();
    node.raft.propose(payload).unwrap();
    let write = node.drain().write;
    assert_eq!(node.ready.entries[0].payload.as_ptr(), place);
    let mut count = 0;
    for out in &node.sent {
        if let Body::Append { entries, .. } = &out.message.body {
            count += 1;
            assert_eq!(entries[0].payload.as_ptr(), place);
        }
    }
    assert_eq!(count, 2);
    node.synced(write);
    node.step(TWO, 2, ack(3));
    assert_eq!(node.drain().committed[0].payload.as_ptr(), place);
    // And on a follower.
    let mut follower = Node::new(3);
    let body = append(at(1, 1), &[2], 2);
    let Body::Append { entries, .. } = &body else {
        panic!("an append")
    };
    let place = entries[0].payload.as_ptr();
    let write = follower.step(TWO, 2, body).drain().write;
    assert_eq!(follower.ready.entries[0].payload.as_ptr(), place);
    follower.synced(write);
    assert_eq!(follower.drain().committed[0].payload.as_ptr(), place);
}
