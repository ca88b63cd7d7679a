//! Whatever a peer says, a member does not panic: messages without sense in every role, from known
//! and unknown senders, with old, present and absurd terms and indexes.

use consensus::*;
use proptest::prelude::*;

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0..12u64, 1 => any::<u64>(), 1 => Just(u64::MAX)]
}

fn index() -> impl Strategy<Value = LogIndex> {
    number().prop_map(LogIndex)
}

fn position() -> impl Strategy<Value = LogPosition> {
    (number(), number()).prop_map(|(i, t)| LogPosition::new(LogIndex(i), Term(t)))
}

fn entry() -> impl Strategy<Value = Entry> {
    (position(), any::<bool>(), 0..3usize).prop_map(|(at, is_normal, len)| Entry {
        term: at.term,
        index: at.index,
        kind: if is_normal {
            EntryKind::Normal
        } else {
            EntryKind::ConfChange
        },
        payload: vec![1; len].into(),
    })
}

/// Entries that follow `prev`, so that some appends are taken.
fn chain() -> impl Strategy<Value = Body> {
    (position(), index(), 0..4u64, 0..3u64).prop_map(|(prev, commit, count, raise)| {
        let entry = |n| Entry {
            term: Term(prev.term.0.saturating_add(raise)),
            index: LogIndex(prev.index.0.wrapping_add(n)),
            kind: EntryKind::Normal,
            payload: "x".into(),
        };
        Body::Append {
            prev,
            commit,
            entries: (1..=count).map(entry).collect(),
        }
    })
}

fn members() -> impl Strategy<Value = Membership> {
    let list = || proptest::collection::vec((0..5u64).prop_map(MemberId), 0..4);
    (list(), list(), list(), list(), any::<bool>(), any::<bool>()).prop_map(
        |(voters, voters_outgoing, learners, learners_next, auto_leave, is_sane)| {
            if is_sane {
                return Membership::new(voters, learners);
            }
            Membership {
                voters,
                voters_outgoing,
                learners,
                learners_next,
                auto_leave,
            }
        },
    )
}

fn body() -> impl Strategy<Value = Body> {
    let flag = any::<bool>;
    let proposal = (flag(), 0..9usize).prop_map(|(is_normal, len)| Proposal {
        kind: if is_normal {
            EntryKind::Normal
        } else {
            EntryKind::ConfChange
        },
        payload: vec![1; len].into(),
    });
    prop_oneof![
        1 => position().prop_map(|last| Body::PreVote { last }),
        1 => flag().prop_map(|granted| Body::PreVoteReply { granted }),
        1 => (position(), flag()).prop_map(|(last, transfer)| Body::Vote { last, transfer }),
        1 => flag().prop_map(|granted| Body::VoteReply { granted }),
        1 => (position(), index(), proptest::collection::vec(entry(), 0..3))
            .prop_map(|(prev, commit, entries)| Body::Append { prev, commit, entries }),
        4 => chain(),
        3 => (index(), index()).prop_map(|(matched, commit)| Body::AppendAck { matched, commit }),
        3 => (index(), position(), index())
            .prop_map(|(rejected, hint, last)| Body::AppendReject { rejected, hint, last }),
        1 => (index(), number()).prop_map(|(commit, round)| Body::Heartbeat { commit, round }),
        1 => (number(), index()).prop_map(|(round, commit)| Body::HeartbeatAck { round, commit }),
        1 => (position(), members()).prop_map(|(last, membership)| Body::Snapshot {
            snapshot: SnapshotMeta { last, membership },
        }),
        1 => Just(Body::TimeoutNow),
        1 => (number(), number())
            .prop_map(|(incarnation, context)| Body::ReadIndex { incarnation, context }),
        1 => (number(), number(), proptest::option::of(index())).prop_map(
            |(incarnation, context, index)| Body::ReadIndexReply { incarnation, context, index }
        ),
        1 => (number(), proptest::collection::vec(proposal, 0..3))
            .prop_map(|(batch, proposals)| Body::Propose { batch, proposals }),
        1 => (number(), flag())
            .prop_map(|(batch, accepted)| Body::ProposeReply { batch, accepted }),
    ]
}

#[derive(Clone, Debug)]
enum Input {
    Step(u64, Option<u64>, Body),
    Tick(u8),
    Ready,
    Synced,
    Lead,
    /// Everybody grants, asked or not.
    Grant,
    Propose,
}

fn input() -> impl Strategy<Value = Input> {
    let term =
        prop_oneof![6 => Just(None), 3 => (0..10u64).prop_map(Some), 1 => number().prop_map(Some)];
    prop_oneof![
        12 => (0..5u64, term, body()).prop_map(|(from, term, body)| Input::Step(from, term, body)),
        1 => (1..30u8).prop_map(Input::Tick),
        3 => Just(Input::Ready),
        2 => Just(Input::Synced),
        1 => Just(Input::Lead),
        1 => Just(Input::Grant),
        1 => Just(Input::Propose),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_message_panics(inputs in proptest::collection::vec(input(), 1..120), checks: bool) {
        let me = MemberId(1);
        let mut config = Config::new(me, 3);
        (config.check_quorum, config.pre_vote) = (checks, checks);
        let members = Membership::new([me, MemberId(2), MemberId(3)], [MemberId(4)]);
        let mut raft = Raft::new(config, Restored::founding(members));
        let mut ready = Ready::new();
        let mut write = WriteNumber::NONE;
        for input in inputs {
            match input {
                Input::Step(from, term, body) => {
                    let term = term.map_or(raft.status().term, Term);
                    raft.step(MemberId(from), Message { term, body });
                }
                Input::Tick(ticks) => (0..ticks).for_each(|_| raft.tick()),
                Input::Ready => {
                    raft.ready(&mut ready);
                    write = write.max(ready.write);
                    for entry in &ready.committed {
                        if entry.kind == EntryKind::ConfChange {
                            let change = ConfChange::decode(&entry.payload).ok();
                            raft.apply_conf_change(entry.index, change.as_ref());
                        }
                        raft.on_applied(entry.index);
                    }
                    for load in &ready.loads {
                        raft.on_entries_loaded(load.id, Vec::new());
                    }
                }
                Input::Synced => raft.on_synced(write),
                Input::Lead => {
                    raft.campaign();
                    for _ in 0..3 {
                        raft.ready(&mut ready);
                        write = write.max(ready.write);
                        raft.on_synced(write);
                        let term = raft.status().term;
                        for (term, body) in [
                            (term.next(), Body::PreVoteReply { granted: true }),
                            (term, Body::VoteReply { granted: true }),
                        ] {
                            raft.step(MemberId(2), Message { term, body });
                        }
                    }
                }
                Input::Grant => {
                    for from in 2..4 {
                        let term = raft.status().term;
                        for (term, body) in [
                            (term.next(), Body::PreVoteReply { granted: true }),
                            (term, Body::VoteReply { granted: true }),
                        ] {
                            raft.step(MemberId(from), Message { term, body });
                        }
                    }
                }
                Input::Propose => drop(raft.propose("x".into())),
            }
        }
    }
}
