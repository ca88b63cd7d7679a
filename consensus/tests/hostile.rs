//! Whatever a peer says, a member does not panic: messages without sense in every role, from known
//! and unknown senders, with old, present and absurd terms and indexes; and the messages of a
//! cluster at work, lost, doubled, out of order, played back later, to the wrong member, and with a
//! number changed. Each is answered, or ignored and counted.

use std::collections::VecDeque;

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

fn kind() -> impl Strategy<Value = EntryKind> {
    prop_oneof![Just(EntryKind::Normal), Just(EntryKind::ConfChange)]
}

/// Payloads that mean nothing, and some that decode as a membership change.
fn payload() -> impl Strategy<Value = bytes::Bytes> {
    let change = (0..3u8, 1..6u64).prop_map(|(step, id)| {
        let id = MemberId(id);
        let step = match step {
            0 => ConfStep::AddVoter(id),
            1 => ConfStep::AddLearner(id),
            _ => ConfStep::Remove(id),
        };
        ConfChange::simple(step).encode()
    });
    prop_oneof![
        (0..9usize).prop_map(|len| vec![1; len].into()),
        change,
        Just(ConfChange::leave_joint().encode()),
    ]
}

fn entry() -> impl Strategy<Value = Entry> {
    (position(), kind(), payload()).prop_map(|(at, kind, payload)| Entry {
        term: at.term,
        index: at.index,
        kind,
        payload,
    })
}

/// Entries that follow `prev`, so that some appends are taken.
fn chain() -> impl Strategy<Value = Body> {
    let entries = proptest::collection::vec((kind(), payload()), 0..4);
    (position(), index(), entries, 0..3u64).prop_map(|(prev, commit, entries, raise)| {
        let entry = |(n, (kind, payload))| Entry {
            term: Term(prev.term.0.saturating_add(raise)),
            index: LogIndex(prev.index.0.wrapping_add(n)),
            kind,
            payload,
        };
        Body::Append {
            prev,
            commit,
            entries: (1..).zip(entries).map(entry).collect(),
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

/// Every kind of message there is.
fn body() -> impl Strategy<Value = Body> {
    let flag = any::<bool>;
    let proposal = (kind(), payload()).prop_map(|(kind, payload)| Proposal { kind, payload });
    prop_oneof![
        1 => position().prop_map(|last| Body::PreVote { last }),
        1 => flag().prop_map(|granted| Body::PreVoteReply { granted }),
        1 => (position(), flag()).prop_map(|(last, transfer)| Body::Vote { last, transfer }),
        1 => flag().prop_map(|granted| Body::VoteReply { granted }),
        1 => (position(), index(), proptest::collection::vec(entry(), 0..3))
            .prop_map(|(prev, commit, entries)| Body::Append { prev, commit, entries }),
        4 => chain(),
        1 => position().prop_map(|at| Body::Committed { at }),
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
        1 => (number(), number(), proptest::collection::vec(proposal, 0..3)).prop_map(
            |(incarnation, batch, proposals)| Body::Propose { incarnation, batch, proposals }
        ),
        1 => (number(), flag())
            .prop_map(|(batch, accepted)| Body::ProposeReply { batch, accepted }),
    ]
}

/// A member and a driver that keeps the contract.
struct Member {
    raft: Raft,
    ready: Ready,
    write: WriteNumber,
    held: VecDeque<Outgoing>,
    context: u64,
}

impl Member {
    fn new(id: u64, members: &Membership, checks: bool, lease: bool) -> Member {
        let mut config = Config::new(MemberId(id), id);
        (config.check_quorum, config.pre_vote) = (checks, checks);
        config.lease_reads = lease && checks;
        config.cache_bytes_max = 200;
        (config.trim_every_entries, config.trim_keep_entries) = (4, 1);
        config.forward_entries_max = 3;
        config.reads_pending_max = 3;
        Member {
            raft: Raft::new(config, Restored::founding(members.clone())),
            ready: Ready::new(),
            write: WriteNumber::NONE,
            held: VecDeque::new(),
            context: 0,
        }
    }

    /// Takes what there is to do and does it, but for the write.
    fn drain(&mut self) {
        self.raft.ready(&mut self.ready);
        self.write = self.write.max(self.ready.write);
        self.held.extend(self.ready.messages.drain(..));
        for entry in &self.ready.committed {
            if entry.kind == EntryKind::ConfChange {
                let change = ConfChange::decode(&entry.payload).ok();
                self.raft.apply_conf_change(entry.index, change.as_ref());
            }
            self.raft.on_applied(entry.index);
        }
        for load in &self.ready.loads {
            self.raft.on_entries_loaded(load.id, Vec::new());
        }
        for (slot, request) in self.ready.snapshots.iter().enumerate() {
            let at = (slot % 2 == 0).then_some(request.at_least);
            self.raft.on_snapshot_sent(request.to, at);
        }
    }

    fn sync(&mut self) {
        self.raft.on_synced(std::mem::take(&mut self.write));
    }

    /// Everybody grants, asked or not.
    fn grant(&mut self) {
        for from in 2..4 {
            let term = self.raft.status().term;
            for (term, body) in [
                (term.next(), Body::PreVoteReply { granted: true }),
                (term, Body::VoteReply { granted: true }),
            ] {
                self.raft.step(MemberId(from), Message { term, body });
            }
        }
    }

    fn act(&mut self, act: Act) {
        let raft = &mut self.raft;
        match act {
            Act::Tick(ticks) => (0..ticks).for_each(|_| raft.tick()),
            Act::Drain => self.drain(),
            Act::Sync => self.sync(),
            Act::Lead => {
                raft.campaign();
                for _ in 0..3 {
                    self.drain();
                    self.sync();
                    self.grant();
                }
            }
            Act::Propose => {
                if raft.propose("x".into()).is_err() && raft.status().role != Role::Leader {
                    let _ = raft.forward("x".into());
                }
            }
            Act::Change(id) => {
                let step = match id % 3 {
                    0 => ConfStep::AddVoter(MemberId(id)),
                    1 => ConfStep::AddLearner(MemberId(id)),
                    _ => ConfStep::Remove(MemberId(id)),
                };
                let _ = raft.propose_conf_change(&ConfChange::simple(step));
            }
            Act::Read => {
                self.context += 1;
                let _ = raft.read_index(self.context);
            }
            Act::Transfer(to) => drop(raft.transfer_leadership(MemberId(to))),
            Act::Checkpoint => {
                let applied = raft.status().applied;
                raft.on_checkpoint(applied);
            }
            Act::Wake => raft.on_woken(),
            Act::Unreachable(id) => raft.on_unreachable(MemberId(id)),
        }
    }
}

#[derive(Clone, Debug)]
enum Act {
    Tick(u8),
    Drain,
    Sync,
    Lead,
    Propose,
    Change(u64),
    Read,
    Transfer(u64),
    Checkpoint,
    Wake,
    Unreachable(u64),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        2 => (1..30u8).prop_map(Act::Tick),
        6 => Just(Act::Drain),
        4 => Just(Act::Sync),
        2 => Just(Act::Lead),
        3 => Just(Act::Propose),
        1 => (0..6u64).prop_map(Act::Change),
        2 => Just(Act::Read),
        1 => (0..6u64).prop_map(Act::Transfer),
        1 => Just(Act::Checkpoint),
        1 => Just(Act::Wake),
        1 => (0..6u64).prop_map(Act::Unreachable),
    ]
}

#[derive(Clone, Debug)]
enum Input {
    Step(u64, Option<u64>, Body),
    Act(Act),
}

fn input() -> impl Strategy<Value = Input> {
    let term =
        prop_oneof![6 => Just(None), 3 => (0..10u64).prop_map(Some), 1 => number().prop_map(Some)];
    prop_oneof![
        1 => (0..5u64, term, body()).prop_map(|(from, term, body)| Input::Step(from, term, body)),
        1 => act().prop_map(Input::Act),
    ]
}

/// What to do with a cluster at work.
#[derive(Clone, Debug)]
enum Twist {
    /// A message under way arrives, by its place among them.
    Deliver(usize),
    Lose(usize),
    /// One that was said at any time arrives, at any member.
    Replay(usize, u64),
    /// The same with another term and another number in it.
    Change(usize, u64, i64, i64),
    Act(u64, Act),
}

fn twist() -> impl Strategy<Value = Twist> {
    let any_place = || 0..1000usize;
    prop_oneof![
        12 => any_place().prop_map(Twist::Deliver),
        1 => any_place().prop_map(Twist::Lose),
        3 => (any_place(), 1..4u64).prop_map(|(place, to)| Twist::Replay(place, to)),
        2 => (any_place(), 1..4u64, -1..3i64, -3..4i64)
            .prop_map(|(place, to, term, by)| Twist::Change(place, to, term, by)),
        8 => (1..4u64, act()).prop_map(|(id, act)| Twist::Act(id, act)),
    ]
}

/// Moves the numbers of a message.
fn changed(message: &Message, term: i64, by: i64) -> Message {
    let mut message = message.clone();
    message.term = Term(message.term.0.saturating_add_signed(term));
    let index = |index: &mut LogIndex| *index = LogIndex(index.0.saturating_add_signed(by));
    match &mut message.body {
        Body::PreVote { last } | Body::Vote { last, .. } => index(&mut last.index),
        Body::Committed { at } => index(&mut at.index),
        Body::Append {
            prev,
            commit,
            entries,
        } => {
            index(&mut prev.index);
            index(commit);
            if by > 0 {
                entries.iter_mut().for_each(|entry| index(&mut entry.index));
            }
        }
        Body::AppendAck { matched, commit } => {
            index(matched);
            index(commit);
        }
        Body::AppendReject {
            rejected,
            hint,
            last,
        } => {
            index(rejected);
            index(&mut hint.index);
            index(last);
        }
        Body::Heartbeat { commit, round } | Body::HeartbeatAck { round, commit } => {
            index(commit);
            *round = round.saturating_add_signed(by);
        }
        Body::Snapshot { snapshot } => index(&mut snapshot.last.index),
        Body::ReadIndexReply {
            index: Some(at), ..
        } => index(at),
        Body::ReadIndex { context, .. } => *context = context.saturating_add_signed(by),
        Body::Propose { batch, .. } | Body::ProposeReply { batch, .. } => {
            *batch = batch.saturating_add_signed(by);
        }
        Body::PreVoteReply { granted } | Body::VoteReply { granted } => *granted = !*granted,
        Body::ReadIndexReply { index: None, .. } | Body::TimeoutNow => {}
    }
    message
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn no_message_panics(
        inputs in proptest::collection::vec(input(), 1..160),
        checks: bool,
        lease: bool,
    ) {
        let members = Membership::new([1, 2, 3].map(MemberId), [MemberId(4)]);
        let mut member = Member::new(1, &members, checks, lease);
        for input in inputs {
            match input {
                Input::Step(from, term, body) => {
                    let term = term.map_or(member.raft.status().term, Term);
                    member.raft.step(MemberId(from), Message { term, body });
                }
                Input::Act(act) => member.act(act),
            }
        }
    }

    #[test]
    fn no_play_back_panics(
        twists in proptest::collection::vec(twist(), 1..400),
        checks: bool,
        lease: bool,
    ) {
        let ids = [1, 2, 3];
        let membership = Membership::new(ids.map(MemberId), []);
        let mut members = ids.map(|id| Member::new(id, &membership, checks, lease));
        let mut under_way: Vec<(u64, u64, Message)> = Vec::new();
        let mut said: Vec<(u64, Message)> = Vec::new();
        for twist in twists {
            match twist {
                Twist::Deliver(place) if !under_way.is_empty() => {
                    let (from, to, message) = under_way.remove(place % under_way.len().min(4));
                    members[to as usize - 1].raft.step(MemberId(from), message);
                }
                Twist::Lose(place) if !under_way.is_empty() => {
                    under_way.remove(place % under_way.len());
                }
                Twist::Replay(place, to) if !said.is_empty() => {
                    let (from, message) = said[place % said.len()].clone();
                    members[to as usize - 1].raft.step(MemberId(from), message);
                }
                Twist::Change(place, to, term, by) if !said.is_empty() => {
                    let (from, message) = &said[place % said.len()];
                    let message = changed(message, term, by);
                    members[to as usize - 1].raft.step(MemberId(*from), message);
                }
                Twist::Act(id, act) => members[id as usize - 1].act(act),
                _ => {}
            }
            for member in &mut members {
                let from = member.raft.status().id.0;
                for out in member.held.drain(..) {
                    said.push((from, out.message.clone()));
                    if (1..=3).contains(&out.to.0) {
                        under_way.push((from, out.to.0, out.message));
                    }
                }
            }
        }
    }
}

/// One member that leads term 2 of three, and hears each kind of nonsense: what it is counted as.
#[test]
fn each_kind_of_nonsense_is_counted() {
    let lead = || {
        let members = Membership::new([1, 2, 3].map(MemberId), []);
        let mut member = Member::new(1, &members, false, false);
        member.act(Act::Lead);
        assert_eq!(member.raft.status().role, Role::Leader);
        member
    };
    let check = |from, term, body: Body, reason| {
        let mut member = lead();
        let before = (member.raft.status(), member.raft.ignored());
        let term = Term(term);
        let said = body.clone();
        member.raft.step(MemberId(from), Message { term, body });
        let after = (member.raft.status(), member.raft.ignored());
        assert_eq!(before.0, after.0, "{said:?}");
        assert_eq!(after.1.get(reason), before.1.get(reason) + 1, "{said:?}");
        assert_eq!(after.1.total(), before.1.total() + 1, "{said:?}");
    };
    let at = |index, term| LogPosition::new(LogIndex(index), Term(term));
    let (zero, beat) = (LogIndex::ZERO, |commit| Body::Heartbeat {
        commit: LogIndex(commit),
        round: 0,
    });
    let ack = |matched| Body::AppendAck {
        matched: LogIndex(matched),
        commit: zero,
    };
    check(1, 2, beat(0), Ignored::FromSelf);
    check(0, 2, beat(0), Ignored::FromSelf);
    check(2, 1, beat(0), Ignored::OldTerm);
    check(2, u64::MAX, beat(0), Ignored::TermTooFar);
    check(9, 2, ack(2), Ignored::UnknownMember);
    check(
        9,
        2,
        Body::VoteReply { granted: true },
        Ignored::UnknownMember,
    );
    check(2, 2, Body::VoteReply { granted: true }, Ignored::Stale);
    check(2, 2, beat(0), Ignored::NotTheLeader);
    check(2, 2, ack(99), Ignored::ImpossibleIndex);
    let answer = |round| Body::HeartbeatAck {
        round,
        commit: zero,
    };
    check(2, 2, answer(99), Ignored::ImpossibleIndex);
    let reject = |rejected, hint, last| Body::AppendReject {
        rejected: LogIndex(rejected),
        hint,
        last: LogIndex(last),
    };
    check(2, 2, reject(1, at(5, 1), 5), Ignored::ImpossibleIndex);
    check(2, 2, reject(0, at(0, 0), 0), Ignored::Stale);
    check(2, 2, Body::Committed { at: at(2, 2) }, Ignored::Stale);
    let gap = Entry {
        term: Term(2),
        index: LogIndex(9),
        kind: EntryKind::Normal,
        payload: "x".into(),
    };
    let append = |prev, entries| Body::Append {
        prev,
        commit: zero,
        entries,
    };
    check(2, 2, append(at(2, 2), vec![gap]), Ignored::MalformedEntries);
    check(
        2,
        2,
        append(at(u64::MAX, 2), vec![]),
        Ignored::MalformedEntries,
    );
    let snapshot = |last| Body::Snapshot {
        snapshot: SnapshotMeta {
            last,
            membership: Membership::new([MemberId(1)], []),
        },
    };
    check(2, 2, snapshot(at(u64::MAX, 2)), Ignored::MalformedEntries);
    check(2, 2, snapshot(at(9, 7)), Ignored::MalformedEntries);
    check(2, 2, Body::TimeoutNow, Ignored::NotTheLeader);
    let reply = Body::ReadIndexReply {
        incarnation: 0,
        context: 1,
        index: Some(LogIndex(9)),
    };
    check(2, 2, reply, Ignored::Stale);
    let done = Body::ProposeReply {
        batch: 7,
        accepted: false,
    };
    check(2, 2, done, Ignored::Stale);
    let empty = Body::Propose {
        incarnation: 1,
        batch: 1,
        proposals: vec![Proposal {
            kind: EntryKind::Normal,
            payload: "".into(),
        }],
    };
    check(2, 2, empty, Ignored::ProposalRefused);
}
