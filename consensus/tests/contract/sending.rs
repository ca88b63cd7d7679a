//! What a leader sends when: limits, probes, what is told again, loads from the log; and the answers it does not believe.

use consensus::*;

use crate::node::*;

/// The appends to `to` since the last look: the index before, and how many entries.
fn appends(node: &mut Node, to: MemberId) -> Vec<(u64, usize)> {
    let sent = node.take().into_iter().filter_map(|(id, body)| match body {
        Body::Append { prev, entries, .. } if id == to => Some((prev.index.0, entries.len())),
        _ => None,
    });
    sent.collect()
}

fn follower(node: &Node, id: MemberId) -> FollowerStatus {
    node.raft
        .followers()
        .find(|f| f.id == id)
        .expect("a follower")
}

fn propose(node: &mut Node, count: usize) {
    for _ in 0..count {
        node.raft.propose("x".into()).expect("a leader takes it");
    }
}

/// Leads three; all hold everything through index 2, and it is applied.
fn leader(tune: impl Fn(&mut Config)) -> Node {
    let mut node = Node::with(3, |config, _| tune(config));
    node.lead();
    node.step(TWO, 2, ack(2)).step(THREE, 2, ack(2));
    apply_all(&mut node);
    node.take();
    node
}

#[test]
fn one_message_holds_entries_within_both_bounds() {
    // "x" counts for 65.
    let sizes = |bytes_max, entries_max| {
        let mut node = leader(|config| {
            (config.message_bytes_max, config.message_entries_max) = (bytes_max, entries_max);
        });
        propose(&mut node, 5);
        appends(&mut node, TWO)
    };
    assert_eq!(sizes(130, 100), [(2, 2), (4, 2), (6, 1)]);
    assert_eq!(sizes(129, 100), [(2, 1), (3, 1), (4, 1), (5, 1), (6, 1)]);
    assert_eq!(
        sizes(1, 100),
        [(2, 1), (3, 1), (4, 1), (5, 1), (6, 1)],
        "one always goes"
    );
    assert_eq!(sizes(9999, 3), [(2, 3), (5, 2)]);
}

/// A bound at the highest value there is stands in nobody's way.
#[test]
fn a_bound_may_be_no_bound() {
    let mut node = leader(|config| {
        config.inflight_messages_max = usize::MAX;
        (config.inflight_entries_max, config.inflight_bytes_max) = (u64::MAX, u64::MAX);
        (config.message_entries_max, config.message_bytes_max) = (u64::MAX, u64::MAX);
        (config.apply_entries_max, config.apply_bytes_max) = (u64::MAX, u64::MAX);
        (config.uncommitted_bytes_max, config.cache_bytes_max) = (u64::MAX, u64::MAX);
        (config.trim_every_entries, config.trim_hold_entries_max) = (u64::MAX, u64::MAX);
    });
    let before = node.status();
    propose(&mut node, 5);
    let through = before.last_index.plus(5);
    assert_eq!(
        appends(&mut node, TWO).last().map(|(_, count)| *count),
        Some(5)
    );
    node.settle();
    node.step(TWO, 2, ack(through.0));
    node.drain();
    let handed = node.ready.committed.last().map(|entry| entry.index);
    assert_eq!(handed, Some(through));
    node.raft.on_applied(through);
    node.raft.on_checkpoint(through);
    assert_eq!(node.drain().trim, None);
    assert_eq!(node.status().applied, through);
}

#[test]
fn messages_on_the_way_are_bounded_three_ways() {
    let sent = |tune: &dyn Fn(&mut Config)| {
        let mut node = leader(|config| {
            config.message_entries_max = 2;
            tune(config);
        });
        propose(&mut node, 9);
        let before = appends(&mut node, TWO).len();
        // An answer to the first message makes room for one more.
        node.step(TWO, 2, ack(4));
        (
            before,
            appends(&mut node, TWO)
                .iter()
                .filter(|(_, entries)| *entries > 0)
                .count(),
        )
    };
    assert_eq!(sent(&|config| config.inflight_messages_max = 2), (2, 1));
    assert_eq!(sent(&|config| config.inflight_entries_max = 4), (2, 1));
    assert_eq!(sent(&|config| config.inflight_bytes_max = 260), (2, 1));
    assert_eq!(sent(&|config| config.inflight_bytes_max = 261), (3, 1));
}

#[test]
fn a_new_commit_index_is_told_once_to_those_who_can_use_it() {
    let mut node = leader(|config| config.inflight_messages_max = 1);
    assert_eq!(appends(&mut node, TWO), []);
    propose(&mut node, 1);
    assert_eq!(appends(&mut node, TWO), [(2, 1)]);
    propose(&mut node, 1);
    node.settle();
    node.sent.clear();
    // THREE holds both and commits them with us; TWO was sent the first alone.
    node.step(THREE, 2, ack(3));
    assert_eq!(appends(&mut node, TWO), [(3, 0)]);
    node.step(THREE, 2, ack(4));
    assert_eq!(
        appends(&mut node, TWO),
        [],
        "it has no further entry to commit"
    );
    assert_eq!(node.status().commit, LogIndex(4));
    node.step(TWO, 2, ack(3));
    assert_eq!(appends(&mut node, TWO), [(3, 1)]);
    node.step(TWO, 2, ack(4));
    assert_eq!(appends(&mut node, TWO), []);
}

#[test]
fn a_probe_waits_for_an_answer() {
    let mut node = Node::leader(3);
    propose(&mut node, 1);
    assert_eq!(appends(&mut node, TWO), []);
    let commit = LogIndex::ZERO;
    node.step(TWO, 2, Body::HeartbeatAck { round: 0, commit });
    assert_eq!(appends(&mut node, TWO), [(1, 2)]);
    assert_eq!(appends(&mut node, TWO), []);
}

#[test]
fn a_follower_that_seems_to_lack_something_is_told_where_we_are() {
    let mut node = leader(|_| {});
    let beat = |node: &mut Node| {
        let commit = LogIndex::ZERO;
        node.step(TWO, 2, Body::HeartbeatAck { round: 0, commit });
        appends(node, TWO)
    };
    assert_eq!(beat(&mut node), [], "it has everything");
    propose(&mut node, 1);
    appends(&mut node, TWO);
    assert_eq!(beat(&mut node), [(3, 0)]);
    assert_eq!(appends(&mut node, TWO), []);
}

#[test]
fn a_broken_link_sends_again_what_was_not_acknowledged() {
    let mut node = leader(|_| {});
    propose(&mut node, 2);
    assert_eq!(appends(&mut node, TWO), [(2, 2)]);
    node.raft.on_unreachable(TWO);
    let f = follower(&node, TWO);
    assert_eq!((f.state, f.next), (ProgressState::Probe, LogIndex(3)));
    assert_eq!(follower(&node, THREE).state, ProgressState::Replicate);
    assert_eq!(appends(&mut node, TWO), [(2, 2)]);
    // Who probes already goes on waiting.
    node.raft.on_unreachable(TWO);
    assert_eq!(appends(&mut node, TWO), []);
    // An older answer does not end the probing, the present one does.
    node.step(TWO, 2, ack(1));
    assert_eq!(follower(&node, TWO).state, ProgressState::Probe);
    node.step(TWO, 2, ack(2));
    assert_eq!(follower(&node, TWO).state, ProgressState::Replicate);
}

#[test]
fn a_rejection_is_believed_only_if_it_can_be_true() {
    // Entries 2..=5, of which TWO acknowledged 2; 3..=5 are on their way.
    let check = |rejected: u64, hint: u64, last: u64, ignored: Option<Ignored>, next: u64| {
        let mut node = leader(|_| {});
        propose(&mut node, 3);
        node.take();
        let before = node.raft.ignored();
        let (rejected, last) = (LogIndex(rejected), LogIndex(last));
        let hint = at(hint, if hint < 2 { hint } else { 2 });
        node.step(
            TWO,
            2,
            Body::AppendReject {
                rejected,
                hint,
                last,
            },
        );
        let said = format!("{rejected:?} {hint:?} {last:?}");
        let total = u64::from(ignored.is_some());
        assert_eq!(
            node.raft.ignored().total() - before.total(),
            total,
            "{said}"
        );
        if let Some(reason) = ignored {
            assert_eq!(
                node.raft.ignored().get(reason) - before.get(reason),
                1,
                "{said}"
            );
        }
        assert_eq!(follower(&node, TWO).next, LogIndex(next), "{said}");
    };
    check(5, 5, 5, None, 5);
    check(5, 3, 3, None, 4);
    check(4, 4, 4, None, 4);
    check(3, 2, 2, None, 3);
    check(6, 2, 2, Some(Ignored::ImpossibleIndex), 6);
    check(4, 5, 5, Some(Ignored::ImpossibleIndex), 6);
    check(5, 4, 3, Some(Ignored::ImpossibleIndex), 6);
    check(2, 1, 1, Some(Ignored::Stale), 6);
}

#[test]
fn a_rejection_of_another_probe_is_stale() {
    let mut node = Node::with_log(3, &[1, 1, 1], 1);
    node.lead();
    assert_eq!(follower(&node, TWO).next, LogIndex(5));
    let reject = |rejected| {
        let (hint, last) = (at(2, 1), LogIndex(2));
        Body::AppendReject {
            rejected: LogIndex(rejected),
            hint,
            last,
        }
    };
    let stale = |node: &Node| node.raft.ignored().get(Ignored::Stale);
    let before = stale(&node);
    node.step(TWO, 2, reject(3));
    assert_eq!(stale(&node), before + 1);
    node.step(TWO, 2, reject(4));
    assert_eq!(follower(&node, TWO).next, LogIndex(3));
}

#[test]
fn a_follower_whose_log_ends_before_ours_begins_needs_a_snapshot() {
    let mut node = Node::with(3, |_, restored| {
        (restored.log_base, restored.applied) = (at(5, 1), LogIndex(5));
        restored.hard_state.commit = LogIndex(5);
        restored.entries = entries(6, &[1, 1]);
    });
    node.lead();
    let (rejected, hint, last) = (LogIndex(7), at(3, 1), LogIndex(3));
    node.step(
        TWO,
        2,
        Body::AppendReject {
            rejected,
            hint,
            last,
        },
    );
    assert_eq!(follower(&node, TWO).next, LogIndex(4));
    assert_eq!(
        node.drain().snapshots,
        [SnapshotRequest {
            to: TWO,
            at_least: LogIndex(5)
        }]
    );
    assert_eq!(follower(&node, TWO).state, ProgressState::Snapshot);
    assert_eq!(node.drain().snapshots, [], "asked for once");
    // What it acknowledges below the base changes nothing, at the base it goes on.
    node.step(TWO, 2, ack(4));
    assert_eq!(follower(&node, TWO).state, ProgressState::Snapshot);
    node.step(TWO, 2, ack(5));
    let f = follower(&node, TWO);
    assert_eq!((f.state, f.next), (ProgressState::Replicate, LogIndex(6)));
    // A report that comes late changes nothing either.
    node.raft.on_snapshot_sent(TWO, None);
    assert_eq!(follower(&node, TWO).state, ProgressState::Replicate);
}

#[test]
fn after_a_snapshot_a_follower_is_probed_once_it_speaks() {
    let mut node = Node::leader(3);
    let (rejected, hint, last) = (LogIndex(1), LogPosition::ZERO, LogIndex::ZERO);
    node.step(
        TWO,
        2,
        Body::AppendReject {
            rejected,
            hint,
            last,
        },
    );
    assert_eq!(node.drain().snapshots.len(), 1);
    node.raft.on_snapshot_sent(TWO, Some(LogIndex(1)));
    let f = follower(&node, TWO);
    assert_eq!((f.state, f.next), (ProgressState::Probe, LogIndex(2)));
    assert_eq!(appends(&mut node, TWO), []);
    let commit = LogIndex::ZERO;
    node.step(TWO, 2, Body::HeartbeatAck { round: 0, commit });
    assert_eq!(appends(&mut node, TWO), [(1, 1)]);
}

#[test]
fn indexes_that_nobody_can_hold_are_not_believed() {
    let check = |body: Body, is_ignored| {
        let mut node = leader(|_| {});
        node.step(TWO, 2, body.clone());
        let count = node.raft.ignored().get(Ignored::ImpossibleIndex);
        assert_eq!(count, u64::from(is_ignored), "{body:?}");
    };
    let beat = |round, commit| Body::HeartbeatAck {
        round,
        commit: LogIndex(commit),
    };
    check(beat(0, 2), false);
    check(beat(0, 3), true);
    check(beat(1, 2), true);
    check(ack(2), false);
    check(ack(3), true);
    check(
        Body::AppendAck {
            matched: LogIndex(2),
            commit: LogIndex(3),
        },
        true,
    );
    // Nor are those at the end of all numbers.
    let far = u64::MAX / 2;
    let mut node = Node::new(3);
    let commit = LogIndex(1);
    let append = |index| Body::Append {
        prev: at(index, 1),
        commit,
        entries: Vec::new(),
    };
    node.step(TWO, 1, append(far));
    assert_eq!(node.raft.ignored().get(Ignored::MalformedEntries), 1);
    node.step(TWO, 1, append(far - 1));
    assert_eq!(node.raft.ignored().get(Ignored::MalformedEntries), 1);
    let membership = Membership::new([ME, TWO, THREE], []);
    node.step(
        TWO,
        1,
        Body::Snapshot {
            snapshot: SnapshotMeta {
                last: at(far, 1),
                membership,
            },
        },
    );
    assert_eq!(node.raft.ignored().get(Ignored::MalformedEntries), 2);
}

#[test]
fn an_acknowledgement_that_says_more_replaces_one_that_has_not_left() {
    let acks = |node: &mut Node| -> Vec<(u64, u64)> {
        node.drain();
        let acks = node
            .sent
            .drain(..)
            .filter_map(|out| match out.message.body {
                Body::AppendAck { matched, .. } => Some((out.message.term.0, matched.0)),
                _ => None,
            });
        acks.collect()
    };
    let mut node = Node::new(3);
    node.step(TWO, 2, append(at(1, 1), &[2], 1))
        .step(TWO, 2, append(at(2, 2), &[2], 1));
    assert_eq!(acks(&mut node), [(2, 3)]);
    // Less does not replace more, and another term's says something else.
    node.step(TWO, 2, append(at(3, 2), &[2], 1))
        .step(TWO, 2, append(at(1, 1), &[2], 1));
    assert_eq!(acks(&mut node), [(2, 4), (2, 2)]);
    node.step(TWO, 2, append(at(4, 2), &[2], 1))
        .step(TWO, 3, append(at(5, 2), &[3], 1));
    assert_eq!(acks(&mut node), [(2, 5), (3, 6)]);
    // Nor one to another member.
    node.step(TWO, 3, append(at(6, 3), &[], 1))
        .step(THREE, 4, append(at(6, 3), &[4], 1));
    assert_eq!(acks(&mut node), [(3, 6), (4, 7)]);
}

/// Leads, and keeps nothing in memory that is applied: entry 2, which THREE lacks, is on disk only.
fn forgetful() -> Node {
    let mut node = Node::with(3, |config, _| {
        config.cache_bytes_max = 0;
        (config.message_bytes_max, config.message_entries_max) = (1000, 10);
    });
    node.lead();
    node.step(TWO, 2, ack(2));
    apply_all(&mut node);
    node.take();
    let commit = LogIndex::ZERO;
    node.step(THREE, 2, Body::HeartbeatAck { round: 0, commit });
    node
}

fn load(id: u64, from: u64, through: u64) -> LoadRequest {
    let (from, through) = (LogIndex(from), LogIndex(through));
    LoadRequest {
        id,
        from,
        through,
        bytes_max: 1000,
    }
}

#[test]
fn old_entries_are_asked_of_the_log_once_and_sent() {
    let mut node = forgetful();
    assert_eq!(node.drain().loads, [load(1, 2, 2)]);
    assert_eq!(node.drain().loads, []);
    node.raft.on_entries_loaded(1, entries(2, &[2]));
    assert_eq!(appends(&mut node, THREE), [(1, 1)]);
    // Another question has another number.
    node.step(
        THREE,
        2,
        Body::HeartbeatAck {
            round: 0,
            commit: LogIndex::ZERO,
        },
    );
    assert_eq!(node.drain().loads, [load(2, 2, 2)]);
    // What the log cannot give must come as a snapshot.
    node.raft.on_entries_loaded(2, Vec::new());
    assert_eq!(
        node.drain().snapshots,
        [SnapshotRequest {
            to: THREE,
            at_least: LogIndex(1)
        }]
    );
}

#[test]
fn a_load_that_an_acknowledgement_overtook_sends_nothing() {
    let mut node = Node::with(3, |config, _| {
        (config.cache_bytes_max, config.inflight_messages_max) = (0, 1);
        (config.message_bytes_max, config.message_entries_max) = (1000, 1);
    });
    node.lead();
    node.step(TWO, 2, ack(2)).step(THREE, 2, ack(2));
    apply_all(&mut node);
    propose(&mut node, 4);
    node.settle();
    for index in 3..=6 {
        node.step(TWO, 2, ack(index));
    }
    apply_all(&mut node);
    node.take();
    // THREE got 3; 4 must be loaded. Before it comes THREE says that it has 4 already.
    node.step(THREE, 2, ack(3));
    assert_eq!(node.drain().loads, [load(1, 4, 4)]);
    node.step(THREE, 2, ack(4));
    node.raft.on_entries_loaded(1, entries(4, &[2]));
    node.sent.clear();
    assert_eq!(node.drain().loads, [load(2, 5, 5)]);
    node.raft.on_entries_loaded(2, entries(5, &[2]));
    assert_eq!(appends(&mut node, THREE), [(4, 1)]);
}

#[test]
fn emptied_buffers_are_used_again_within_a_bound() {
    let mut node = leader(|_| {});
    let mut reused = |capacity: usize, count: usize| {
        for _ in 0..count {
            node.raft.recycle(Vec::with_capacity(capacity));
        }
        let mut found = 0;
        for _ in 0..count {
            propose(&mut node, 1);
            for (_, body) in node.take() {
                if let Body::Append { entries, .. } = body {
                    found += usize::from(entries.capacity() == capacity);
                }
            }
        }
        found
    };
    assert_eq!(reused(1000, 80), 64);
    assert_eq!(reused(1024, 2), 2);
    assert_eq!(reused(5000, 2), 0, "too large to keep");
}

#[test]
fn a_buffer_is_no_larger_than_its_message() {
    let mut node = leader(|config| config.message_bytes_max = 640);
    propose(&mut node, 1000);
    for (_, body) in node.take() {
        if let Body::Append { entries, .. } = body {
            assert!(entries.capacity() <= 16, "{}", entries.capacity());
        }
    }
}

#[test]
fn an_answer_waits_for_the_write_that_holds_its_entries_and_for_no_later_one() {
    let mut node = Node::new(3);
    let first = node
        .step(TWO, 2, append(at(1, 1), &[2, 2], 1))
        .drain()
        .write;
    node.sent.clear();
    // The same again, and then one entry more.
    node.step(TWO, 2, append(at(1, 1), &[2], 1)).drain();
    assert_eq!(node.sent.pop().expect("an answer").after, first);
    let second = node.step(TWO, 2, append(at(3, 2), &[2], 1)).drain().write;
    assert_eq!(node.sent.pop().expect("an answer").after, second);
    node.step(TWO, 2, append(at(1, 1), &[2, 2], 1)).drain();
    assert_eq!(node.sent.pop().expect("an answer").after, first);
    node.raft.on_synced(first);
    node.step(TWO, 2, append(at(1, 1), &[2, 2], 1)).drain();
    assert_eq!(node.sent.pop().expect("an answer").after, WriteNumber::NONE);
}
