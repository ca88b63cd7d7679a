//! Memory and space: what is kept, handed out and given up, at the exact bounds.

use consensus::*;

use crate::node::*;

/// Follows TWO; its log holds `count` more entries of term 2 behind the founding, committed and durable. Each counts for 65.
fn follower(count: usize, tune: impl Fn(&mut Config)) -> Node {
    let mut node = Node::with(3, |config, _| tune(config));
    let commit = 1 + count as u64;
    node.step(TWO, 2, append(at(1, 1), &vec![2; count], commit));
    let write = node.drain().write;
    node.raft.on_synced(write);
    node
}

/// The indexes handed out to be applied.
fn committed(node: &mut Node) -> Vec<u64> {
    node.drain()
        .committed
        .iter()
        .map(|entry| entry.index.0)
        .collect()
}

#[test]
fn entries_to_apply_are_bounded_in_number() {
    let mut node = follower(5, |config| config.apply_entries_max = 2);
    assert_eq!(committed(&mut node), [2, 3]);
    assert_eq!(committed(&mut node), []);
    node.raft.on_applied(LogIndex(2));
    assert_eq!(node.status().applied, LogIndex(2));
    assert_eq!(committed(&mut node), [4]);
    node.raft.on_applied(LogIndex(4));
    assert_eq!(committed(&mut node), [5, 6]);
}

#[test]
fn entries_to_apply_are_bounded_in_bytes_and_one_always_goes() {
    let mut node = follower(5, |config| config.apply_bytes_max = 130);
    assert_eq!(committed(&mut node), [2, 3], "exactly the bound fits");
    assert_eq!(committed(&mut node), []);
    node.raft.on_applied(LogIndex(2));
    assert_eq!(committed(&mut node), [4]);
    node.raft.on_applied(LogIndex(4));
    assert_eq!(committed(&mut node), [5, 6]);
    let mut node = follower(3, |config| config.apply_bytes_max = 1);
    for index in 2..=4 {
        assert_eq!(committed(&mut node), [index]);
        assert_eq!(committed(&mut node), [], "not while one is being applied");
        node.raft.on_applied(LogIndex(index));
    }
}

#[test]
fn applied_entries_leave_memory_when_they_exceed_its_bound() {
    let cached_after = |bytes_max, applied| {
        let mut node = follower(8, |config| config.cache_bytes_max = bytes_max);
        assert_eq!(committed(&mut node).len(), 8);
        assert_eq!(node.status().cached_bytes, 8 * 65, "not applied, so kept");
        node.raft.on_applied(LogIndex(applied));
        node.status().cached_bytes
    };
    assert_eq!(cached_after(195, 9), 3 * 65);
    assert_eq!(cached_after(194, 9), 2 * 65);
    assert_eq!(cached_after(0, 9), 0);
    assert_eq!(cached_after(0, 6), 3 * 65);
    assert_eq!(cached_after(9999, 9), 8 * 65);
}

/// Applies everything and reports this checkpoint; what may be trimmed.
fn checkpoint(node: &mut Node, index: u64) -> Option<u64> {
    if let Some(last) = committed(node).last() {
        node.raft.on_applied(LogIndex(*last));
    }
    node.raft.on_checkpoint(LogIndex(index));
    node.drain().trim.map(|position| position.index.0)
}

fn short(config: &mut Config) {
    (config.trim_every_entries, config.trim_keep_entries) = (10, 4);
}

#[test]
fn the_log_is_trimmed_when_enough_lies_behind_the_checkpoint() {
    let mut node = follower(12, short);
    assert_eq!(checkpoint(&mut node, 10), None);
    assert_eq!(checkpoint(&mut node, 11), Some(7));
    let status = node.status();
    assert_eq!(
        (status.first_index, status.cached_bytes),
        (LogIndex(8), 6 * 65)
    );
    assert_eq!(node.raft.term_at(LogIndex(7)), Some(Term(2)));
    assert_eq!(node.raft.term_at(LogIndex(6)), None);
    assert_eq!(checkpoint(&mut node, 13), None);
}

#[test]
fn a_trimmed_log_gives_hints_no_lower_than_its_base() {
    let mut node = follower(12, short);
    checkpoint(&mut node, 11);
    node.step(TWO, 2, append(at(13, 2), &[2, 2], 13)).settle();
    node.sent.clear();
    node.step(TWO, 3, append(at(20, 1), &[], 1)).drain();
    let Body::AppendReject { hint, .. } = node.sent[0].message.body else {
        panic!("{:?}", node.sent)
    };
    assert_eq!(hint, at(7, 2));
}

/// Leads three with 12 applied entries behind the founding, of which TWO and THREE hold these.
fn leader(two: u64, three: Option<u64>, tune: impl Fn(&mut Config)) -> Node {
    let mut node = Node::with(3, |config, _| {
        config.check_quorum = true;
        short(config);
        tune(config);
    });
    node.lead();
    node.step(TWO, 2, ack(2));
    for _ in 0..11 {
        node.raft.propose("x".into()).expect("a leader takes it");
    }
    apply_all(&mut node);
    // Two quorum checks: whoever says nothing is not active.
    for _ in 0..2 * T {
        node.tick(1);
        apply_all(&mut node);
        node.step(TWO, 2, ack(two));
        if let Some(three) = three {
            node.step(THREE, 2, ack(three));
        }
    }
    apply_all(&mut node);
    node
}

#[test]
fn an_active_follower_holds_back_the_trim_within_a_bound() {
    let trim = |node: &mut Node| {
        assert_eq!(node.status().commit, LogIndex(13));
        checkpoint(node, 13)
    };
    assert_eq!(trim(&mut leader(13, Some(13), |_| {})), Some(9));
    assert_eq!(trim(&mut leader(13, Some(5), |_| {})), Some(5));
    assert_eq!(
        trim(&mut leader(13, Some(5), |config| config
            .trim_hold_entries_max =
            6)),
        Some(7)
    );
    assert_eq!(
        trim(&mut leader(13, None, |_| {})),
        Some(9),
        "who is away holds back nothing"
    );
}

#[test]
fn a_trim_that_is_held_back_waits_until_it_is_worth_the_while() {
    // An eighth of what lies between the two bounds: 4.
    let trim = |three| {
        let mut node = leader(13, Some(three), |config| {
            (config.trim_every_entries, config.trim_keep_entries) = (40, 8);
        });
        for _ in 0..40 {
            node.raft.propose("x".into()).unwrap();
        }
        apply_all(&mut node);
        node.step(TWO, 2, ack(53));
        apply_all(&mut node);
        assert_eq!(node.status().commit, LogIndex(53));
        checkpoint(&mut node, 53)
    };
    assert_eq!(trim(4), None);
    assert_eq!(trim(5), Some(5));
}

#[test]
fn a_snapshot_is_described_where_its_membership_is_known() {
    let mut node = Node::with(3, |_, restored| {
        restored.entries = entries(2, &[1; 5]);
        (restored.applied, restored.hard_state.commit) = (LogIndex(3), LogIndex(6));
    });
    assert_eq!(committed(&mut node), [4, 5, 6]);
    node.raft.on_applied(LogIndex(5));
    let index_of = |index| {
        node.raft
            .snapshot_meta(LogIndex(index))
            .map(|meta| meta.last)
    };
    assert_eq!(index_of(2), None, "the membership may have been another");
    assert_eq!(index_of(3), Some(at(3, 1)));
    assert_eq!(index_of(5), Some(at(5, 1)));
    assert_eq!(index_of(6), None, "not applied");
    let meta = node.raft.snapshot_meta(LogIndex(4)).expect("in between");
    assert_eq!(meta.membership, Membership::new([ME, TWO, THREE], []));
}

#[test]
fn a_snapshot_at_the_commit_index_is_old() {
    let mut node = follower(3, |_| {});
    let membership = Membership::new([ME, TWO, THREE], []);
    let snapshot = SnapshotMeta {
        last: at(4, 2),
        membership,
    };
    node.step(TWO, 2, Body::Snapshot { snapshot });
    assert_eq!(node.raft.ignored().get(Ignored::OldSnapshot), 1);
}

#[test]
fn a_commit_index_is_written_along_with_entries_when_it_moved() {
    let mut node = Node::new(3);
    node.step(TWO, 2, append(at(1, 1), &[2], 1));
    assert!(node.drain().hard_state.is_some(), "the term");
    node.step(TWO, 2, append(at(2, 2), &[2], 2));
    assert_eq!(
        node.drain().hard_state.map(|state| state.commit),
        Some(LogIndex(2))
    );
    node.step(TWO, 2, append(at(3, 2), &[2], 2));
    assert_eq!(
        (node.drain().hard_state, node.ready.entries.len()),
        (None, 1)
    );
    // Alone it is not worth a write.
    node.step(TWO, 2, heartbeat(4));
    assert_eq!(node.drain().write, WriteNumber::NONE);
    assert_eq!(node.status().commit, LogIndex(4));
}
