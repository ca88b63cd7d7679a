//! The state of a whole cluster, what may come next, and the properties of every state.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use consensus::{Body, LogIndex, MemberId, Message, Role};
use stateright::{Model, Property};

use crate::member::{Fault, Flight, Member, Outcome};
use crate::oracle::{Breach, Oracle};

/// One method a bound, so that bounds can be constants.
macro_rules! setters {
    ($($name:ident),*) => {$(
        pub const fn $name(mut self, value: u8) -> Bounds {
            self.$name = value;
            self
        }
    )*};
}

/// How often each thing may happen in one history. What is not bounded here is bounded by these: nothing sends without a
/// cause.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Bounds {
    /// Campaigns, so also the number of terms.
    pub campaigns: u8,
    /// So many members campaign, the first ones; the others only answer.
    pub candidates: u8,
    pub proposals: u8,
    pub reads: u8,
    /// Crashes with an immediate restart; writes under way are lost.
    pub crashes: u8,
    /// Links that lose everything on its way; a leader is told and sends again.
    pub losses: u8,
    /// Messages that overtake others on their link.
    pub overtakings: u8,
    /// Messages that arrive a second time.
    pub duplicates: u8,
    /// So many members, the last ones, have disks that finish their writes whenever they like; the others' do at once.
    pub slow_disks: u8,
}

impl Bounds {
    /// Nothing happens.
    pub const fn none() -> Bounds {
        Bounds {
            campaigns: 0,
            candidates: 0,
            proposals: 0,
            reads: 0,
            crashes: 0,
            losses: 0,
            overtakings: 0,
            duplicates: 0,
            slow_disks: 0,
        }
    }

    /// Sets the bound of this name; `false` when there is none.
    pub fn set(&mut self, name: &str, value: u8) -> bool {
        let bound = match name {
            "campaigns" => &mut self.campaigns,
            "candidates" => &mut self.candidates,
            "proposals" => &mut self.proposals,
            "reads" => &mut self.reads,
            "crashes" => &mut self.crashes,
            "losses" => &mut self.losses,
            "overtakings" => &mut self.overtakings,
            "duplicates" => &mut self.duplicates,
            "slow_disks" => &mut self.slow_disks,
            _ => return false,
        };
        *bound = value;
        true
    }

    setters!(
        campaigns,
        candidates,
        proposals,
        reads,
        crashes,
        losses,
        overtakings,
        duplicates,
        slow_disks
    );
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    Campaign(MemberId),
    /// The message at this place of a link arrives.
    Deliver(MemberId, MemberId, usize),
    /// The first message of a link arrives and stays on its way.
    Duplicate(MemberId, MemberId),
    Lose(MemberId, MemberId),
    /// The oldest write of this member becomes durable.
    Sync(MemberId),
    Propose(MemberId),
    Read(MemberId),
    Crash(MemberId),
}

#[derive(Clone, Debug)]
pub struct State {
    members: [Arc<Member>; 3],
    /// Messages on their way, by sender and receiver, in the order in which they left.
    links: [[Vec<Arc<Flight>>; 3]; 3],
    oracle: Arc<Oracle>,
    /// What is left of the bounds.
    left: Bounds,
}

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        for member in &self.members {
            member.encoded().hash(hasher);
        }
        for link in self.links.iter().flatten() {
            link.len().hash(hasher);
            link.iter().for_each(|flight| flight.encoded.hash(hasher));
        }
        self.oracle.hash(hasher);
        self.left.hash(hasher);
    }
}

impl PartialEq for State {
    fn eq(&self, other: &State) -> bool {
        let members = |state: &State| state.members.each_ref().map(|member| member.encoded());
        members(self) == members(other)
            && self.links == other.links
            && self.oracle == other.oracle
            && self.left == other.left
    }
}

/// What happened anywhere in the search, so that silence can be told from blindness.
#[derive(Default, Debug)]
pub struct Met {
    /// A member replaced entries that it had.
    pub replaced_suffixes: AtomicUsize,
    /// A crash lost a write.
    pub lost_writes: AtomicUsize,
}

#[derive(Debug)]
pub struct Cluster {
    pub bounds: Bounds,
    pub fault: Option<Fault>,
    pub met: Met,
}

impl Cluster {
    pub fn new(bounds: Bounds) -> Cluster {
        Cluster {
            bounds,
            fault: None,
            met: Met::default(),
        }
    }

    pub fn broken(bounds: Bounds, fault: Fault) -> Cluster {
        Cluster {
            fault: Some(fault),
            ..Cluster::new(bounds)
        }
    }

    /// Lets one member take an input, and the outside see what comes of it.
    fn turn(
        &self,
        state: &mut State,
        id: MemberId,
        input: impl FnOnce(&mut Member, Option<Fault>) -> Outcome,
    ) {
        let slot = slot(id);
        let before = Arc::clone(&state.members[slot]);
        let mut member = Member::clone(&before);
        let mut outcome = input(&mut member, self.fault);
        while id.0 + u64::from(self.bounds.slow_disks) <= 3 && member.is_writing() {
            let more = member.sync(self.fault);
            outcome.sent.extend(more.sent);
            outcome.reads.extend(more.reads);
        }
        if !member.log().starts_with(before.log()) {
            self.met.replaced_suffixes.fetch_add(1, Ordering::Relaxed);
        }
        Arc::make_mut(&mut state.oracle).observe(&before, &member, &outcome.reads, &state.members);
        for out in outcome.sent {
            self.send(state, id, out.to, out.message);
        }
        state.members[slot] = Arc::new(member);
    }

    fn send(&self, state: &mut State, from: MemberId, to: MemberId, message: Message) {
        let term = message.term;
        let (from, to, message) = match message.body {
            // The answer is made up here, and nobody was asked.
            Body::Heartbeat { round, .. } if self.fault == Some(Fault::ReadWithoutQuorum) => {
                let body = Body::HeartbeatAck {
                    round,
                    commit: LogIndex::ZERO,
                };
                (to, from, Message { term, body })
            }
            body => (from, to, Message { term, body }),
        };
        state.link(from, to).push(Arc::new(Flight::new(message)));
    }

    fn deliver(&self, state: &mut State, from: MemberId, to: MemberId, flight: &Flight) {
        let message = flight.message.clone();
        self.turn(state, to, |member, fault| {
            member.input(fault, |raft| raft.step(from, message))
        });
    }
}

fn slot(id: MemberId) -> usize {
    id.0 as usize - 1
}

fn ids() -> impl Iterator<Item = MemberId> {
    (1..=3).map(MemberId)
}

impl Model for Cluster {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            members: [1, 2, 3].map(|id| Arc::new(Member::new(MemberId(id)))),
            links: Default::default(),
            oracle: Arc::default(),
            left: self.bounds,
        }]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        let left = &state.left;
        for id in ids() {
            let member = &state.members[slot(id)];
            let is_leader = member.is_leader();
            if member.is_writing() {
                steps.push(Step::Sync(id));
            }
            if left.campaigns > 0 && !is_leader && id.0 <= u64::from(self.bounds.candidates) {
                steps.push(Step::Campaign(id));
            }
            if left.proposals > 0 && is_leader {
                steps.push(Step::Propose(id));
            }
            if left.reads > 0 && (is_leader || member.raft().status().leader.is_some()) {
                steps.push(Step::Read(id));
            }
            if left.crashes > 0 {
                steps.push(Step::Crash(id));
            }
        }
        for (from, to) in ids().flat_map(|from| ids().map(move |to| (from, to))) {
            let waiting = state.links[slot(from)][slot(to)].len();
            let reach = if left.overtakings > 0 {
                waiting
            } else {
                waiting.min(1)
            };
            steps.extend((0..reach).map(|place| Step::Deliver(from, to, place)));
            if waiting > 0 && left.duplicates > 0 {
                steps.push(Step::Duplicate(from, to));
            }
            if waiting > 0 && left.losses > 0 {
                steps.push(Step::Lose(from, to));
            }
        }
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut state = last.clone();
        match step {
            Step::Campaign(id) => {
                state.left.campaigns -= 1;
                self.turn(&mut state, id, |m, fault| {
                    m.input(fault, |raft| raft.campaign())
                });
            }
            Step::Deliver(from, to, place) => {
                state.left.overtakings -= u8::from(place > 0);
                let flight = state.link(from, to).remove(place);
                self.deliver(&mut state, from, to, &flight);
            }
            Step::Duplicate(from, to) => {
                state.left.duplicates -= 1;
                let flight = Arc::clone(&state.link(from, to)[0]);
                self.deliver(&mut state, from, to, &flight);
            }
            Step::Lose(from, to) => {
                state.left.losses -= 1;
                state.link(from, to).clear();
                self.turn(&mut state, from, |member, fault| {
                    member.input(fault, |raft| raft.on_unreachable(to))
                });
            }
            Step::Sync(id) => self.turn(&mut state, id, Member::sync),
            Step::Propose(id) => {
                let payload = format!("{id}.{}", state.left.proposals);
                state.left.proposals -= 1;
                self.turn(&mut state, id, |m, fault| {
                    m.input(fault, |raft| {
                        // Refused while leadership is handed over, which nobody asks for here.
                        raft.propose(payload.into())
                            .expect("a leader takes a proposal");
                    })
                });
            }
            Step::Read(id) => {
                let context = u64::from(state.left.reads);
                state.left.reads -= 1;
                Arc::make_mut(&mut state.oracle).ask(&state.members[slot(id)], context);
                self.turn(&mut state, id, |m, fault| {
                    m.input(fault, |raft| {
                        raft.read_index(context).expect("a leader is known")
                    })
                });
            }
            Step::Crash(id) => {
                state.left.crashes -= 1;
                if state.members[slot(id)].is_writing() {
                    self.met.lost_writes.fetch_add(1, Ordering::Relaxed);
                }
                self.turn(&mut state, id, Member::crash);
            }
        }
        state.drop_dead_flights();
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Cluster>> {
        vec![
            Property::always("election safety", |_, s: &State| {
                !s.breached(Breach::ElectionSafety)
            }),
            Property::always("leader append-only", |_, s: &State| {
                !s.breached(Breach::LeaderAppendOnly)
            }),
            Property::always("log matching", |_, s: &State| {
                !s.breached(Breach::LogMatching)
            }),
            Property::always("leader completeness", |_, s: &State| {
                !s.breached(Breach::LeaderCompleteness)
            }),
            Property::always("state machine safety", |_, s: &State| {
                !s.breached(Breach::StateMachineSafety)
            }),
            Property::always("linearizable reads", |_, s: &State| {
                !s.breached(Breach::StaleRead)
            }),
            Property::sometimes("two terms have a leader", |_, s: &State| {
                s.oracle.leaders() >= 2
            }),
            Property::sometimes("two lead at one time", |_, s: &State| {
                s.members.iter().filter(|m| m.is_leader()).count() >= 2
            }),
            Property::sometimes("a write is committed", |_, s: &State| {
                s.oracle.writes() >= 1
            }),
            Property::sometimes("a read is answered", |_, s: &State| {
                s.oracle.answered() >= 1
            }),
        ]
    }
}

impl State {
    fn link(&mut self, from: MemberId, to: MemberId) -> &mut Vec<Arc<Flight>> {
        &mut self.links[slot(from)][slot(to)]
    }

    /// Answers to what nobody asks any more, now or later: losing them changes nothing, and saves the search from telling
    /// apart the states that differ by them. Not while a crash may take a member back to an older term.
    fn drop_dead_flights(&mut self) {
        if self.left.crashes > 0 {
            return;
        }
        for id in ids() {
            let status = self.members[slot(id)].raft().status();
            let is_wanted = |message: &Message| {
                let wants = match message.body {
                    Body::VoteReply { .. } => Role::Candidate,
                    Body::AppendAck { .. }
                    | Body::AppendReject { .. }
                    | Body::HeartbeatAck { .. } => Role::Leader,
                    _ => return true,
                };
                // A higher term is news whatever it comes with.
                message.term > status.term || (message.term == status.term && status.role == wants)
            };
            for link in &mut self.links {
                link[slot(id)].retain(|flight| is_wanted(&flight.message));
            }
        }
    }

    fn breached(&self, breach: Breach) -> bool {
        self.oracle.has_seen(breach)
    }
}
