//! What must hold whatever goes wrong, checked after every step of every member.
//!
//! The oracle sees everything at once, as no member can: it keeps the history that was committed
//! and compares. Each [`Property`] says where it is from. It reads the members through their public
//! interface and looks at their disks; it changes nothing.

use std::collections::BTreeMap;

use consensus::*;

use crate::disk::Disk;
use crate::machine::Machine;
use crate::member::{Member, Process};
use crate::network::{Slot, id_of, slot_of};
use crate::random::fold;
use crate::trace::members;

/// What is checked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Property {
    /// At most one leader a term (paper figure 3).
    ElectionSafety,
    /// A leader never overwrites or deletes entries in its log (paper figure 3).
    LeaderAppendOnly,
    /// Two logs with an entry of one index and term are equal through it (paper figure 3).
    LogMatching,
    /// A leader's log holds what was committed in earlier terms (paper figure 3).
    LeaderCompleteness,
    /// No two members apply different entries at one index (paper figure 3).
    StateMachineSafety,
    /// A committed entry is never lost or changed.
    CommittedStays,
    /// What a leader commits is durable on a quorum of its membership at that moment.
    CommitDurable,
    /// Term, vote, commit and applied index never go back.
    Monotonic,
    /// A promise leaves a member after the write that holds it.
    DurableBeforeSent,
    /// What the core hands out obeys the order contract of `Ready`.
    Contract,
    /// A proposal is applied once at most.
    AtMostOnce,
    /// A read's index covers everything committed anywhere when the read was asked.
    ReadIndex,
    /// What clients saw has an order in time.
    Linearizable,
    /// A leader whose disk stands still does not lead on for longer than an election timeout.
    StalledLeader,
    /// Once faults end, the cluster elects a leader and serves.
    Progress,
    /// Once faults end and a leader is there, nobody unseats it.
    Calm,
    /// An assertion of the core.
    Assertion,
}

/// A property that was broken, and how.
#[derive(Clone, Debug)]
pub struct Violation {
    pub property: Property,
    pub what: String,
}

pub fn broken<T>(property: Property, what: String) -> Result<T, Violation> {
    Err(Violation { property, what })
}

/// The entry at one index of one term, wherever it is seen.
#[derive(Clone, Copy, Debug)]
struct Known {
    term: Term,
    /// Digest of the log through this entry.
    chain: u64,
}

/// What a member showed last.
#[derive(Clone, Copy, Debug)]
struct Seen {
    status: Status,
    /// When it leads: the last entry it had handed out in this term.
    led_through: Option<(Term, LogIndex)>,
}

#[derive(Debug)]
pub struct Oracle {
    end_to_end: bool,
    leaders: BTreeMap<Term, Slot>,
    /// Every entry ever seen at an index; slot 0 is index 1.
    known: Vec<Vec<Known>>,
    /// Every committed entry: its term, and the term it was committed in.
    committed: Vec<(Term, Term)>,
    /// The digest of the machine after every applied entry.
    digests: Vec<u64>,
    /// Operations applied.
    operations: Vec<bool>,
    /// What each read must cover.
    reads: BTreeMap<u64, LogIndex>,
    seen: Vec<Option<Seen>>,
    /// The highest term and its vote that each member ever showed to be durable.
    durable: Vec<HardState>,
}

impl Oracle {
    pub fn new(machines: usize, founding: &Machine, end_to_end: bool) -> Oracle {
        let known = Known {
            term: Term(1),
            chain: 1,
        };
        Oracle {
            end_to_end,
            leaders: BTreeMap::new(),
            known: vec![vec![known]],
            committed: vec![(Term(1), Term(1))],
            digests: vec![founding.digest],
            operations: Vec::new(),
            reads: BTreeMap::new(),
            seen: vec![None; machines],
            durable: vec![HardState::default(); machines],
        }
    }

    pub fn committed(&self) -> LogIndex {
        LogIndex(self.committed.len() as u64)
    }

    pub fn terms(&self) -> usize {
        self.leaders.len()
    }

    // ---- reads ----

    pub fn read_asked(&mut self, operation: u64) {
        self.reads.insert(operation, self.committed());
    }

    pub fn read_answered(&mut self, slot: Slot, read: ReadState) -> Result<(), Violation> {
        let Some(floor) = self.reads.remove(&read.context) else {
            let what = format!("member {} answered {read:?} unasked", id_of(slot));
            return broken(Property::Contract, what);
        };
        if read.index < floor && !self.end_to_end {
            let what = format!(
                "member {}: read {} may start at {}, but {floor} was committed when it was asked",
                id_of(slot),
                read.context,
                read.index
            );
            return broken(Property::ReadIndex, what);
        }
        Ok(())
    }

    pub fn read_failed(&mut self, slot: Slot, context: u64) -> Result<(), Violation> {
        match self.reads.remove(&context) {
            Some(_) => Ok(()),
            None => broken(
                Property::Contract,
                format!("member {} failed read {context} unasked", id_of(slot)),
            ),
        }
    }

    pub fn read_dropped(&mut self, operation: u64) {
        self.reads.remove(&operation);
    }

    // ---- what the core hands out ----

    /// The entries of a `Ready`, before they are written.
    pub fn handed_out(&mut self, slot: Slot, raft: &Raft, ready: &Ready) -> Result<(), Violation> {
        let has_write =
            ready.install.is_some() || ready.hard_state.is_some() || !ready.entries.is_empty();
        if has_write != (ready.write != WriteNumber::NONE) {
            return broken(Property::Contract, format!("write number of {ready:?}"));
        }
        let Some(first) = ready.entries.first() else {
            return Ok(());
        };
        self.check_append_only(slot, raft, ready)?;
        let before = first.index.prev();
        let term = match &ready.install {
            Some(install) if install.last.index == before => Some(install.last.term),
            _ => raft.term_at(before),
        };
        let mut chain = term.and_then(|term| self.chain_of(before, term));
        let mut expected = first.index;
        for entry in &ready.entries {
            if entry.index != expected {
                return broken(
                    Property::Contract,
                    format!("{entry:?} where {expected} is due"),
                );
            }
            expected = expected.next();
            let Some(known) = chain else {
                let what = format!(
                    "member {}: entry {} follows one that was never seen",
                    id_of(slot),
                    entry.index
                );
                return broken(Property::LogMatching, what);
            };
            chain = Some(self.learn(slot, entry, known)?);
        }
        Ok(())
    }

    fn check_append_only(
        &mut self,
        slot: Slot,
        raft: &Raft,
        ready: &Ready,
    ) -> Result<(), Violation> {
        let status = raft.status();
        if status.role != Role::Leader {
            return Ok(());
        }
        let first = ready.entries[0].index;
        let Some(seen) = &mut self.seen[slot] else {
            return Ok(());
        };
        let through = match seen.led_through {
            Some((term, through)) if term == status.term => through,
            _ => LogIndex::ZERO,
        };
        if first <= through {
            let what = format!(
                "leader {} of {:?} wrote {first} again, it had written through {through}",
                id_of(slot),
                status.term
            );
            return broken(Property::LeaderAppendOnly, what);
        }
        seen.led_through = Some((status.term, status.last_index));
        Ok(())
    }

    fn chain_of(&self, index: LogIndex, term: Term) -> Option<u64> {
        let known = self.known.get((index.0 as usize).checked_sub(1)?)?;
        known.iter().find(|k| k.term == term).map(|k| k.chain)
    }

    /// An entry behind the log that `before` stands for.
    fn learn(&mut self, slot: Slot, entry: &Entry, before: u64) -> Result<u64, Violation> {
        let content = entry
            .payload
            .chunks(8)
            .fold(entry.kind as u64 + 1, |digest, chunk| {
                let mut word = [0; 8];
                word[..chunk.len()].copy_from_slice(chunk);
                fold(digest, u64::from_le_bytes(word))
            });
        let chain = fold(fold(before, entry.term.0), content);
        let at = entry.index.0 as usize - 1;
        if self.known.len() <= at {
            self.known.resize(at + 1, Vec::new());
        }
        match self.known[at].iter().find(|k| k.term == entry.term) {
            Some(known) if known.chain == chain => {}
            Some(_) => {
                let what = format!(
                    "member {}: the log through {} of {:?} is not the one seen before",
                    id_of(slot),
                    entry.index,
                    entry.term
                );
                return broken(Property::LogMatching, what);
            }
            None => self.known[at].push(Known {
                term: entry.term,
                chain,
            }),
        }
        Ok(chain)
    }

    /// A message leaves a member; what it promises must be on the disk.
    pub fn sent(&self, process: &Process, disk: &Disk, out: &Outgoing) -> Result<(), Violation> {
        if self.end_to_end {
            return Ok(());
        }
        let (term, state) = (out.message.term, disk.state);
        let id = process.raft.status().id;
        // A snapshot is of its last entry's term at least.
        let has_term = state.term.max(disk.base.term) >= term;
        let has_vote = |vote| state.term > term || (state.term == term && state.vote == Some(vote));
        let is_kept = match &out.message.body {
            Body::Vote { .. } => has_vote(id),
            Body::VoteReply { granted: true } => has_vote(out.to),
            Body::AppendAck { matched, .. } => {
                // A later term may have replaced what was acknowledged in an earlier one.
                let is_current = process.raft.status().term == term;
                has_term
                    && (!is_current
                        || process
                            .raft
                            .term_at(*matched)
                            .is_none_or(|at| disk.holds(LogPosition::new(*matched, at))))
            }
            Body::VoteReply { granted: false }
            | Body::AppendReject { .. }
            | Body::HeartbeatAck { .. } => has_term,
            _ => true,
        };
        if is_kept {
            return Ok(());
        }
        let what = format!(
            "member {id} says {:?} to {} in {term:?}, its disk ends at {:?} with {state:?}",
            out.message.body,
            out.to,
            disk.last()
        );
        broken(Property::DurableBeforeSent, what)
    }

    // ---- what a member applied ----

    /// A member's machine stands at `machine`; `operation` is what the entry carried.
    pub fn applied(
        &mut self,
        slot: Slot,
        machine: &Machine,
        operation: Option<u64>,
    ) -> Result<(), Violation> {
        let at = machine.applied.0 as usize - 1;
        match self.digests.get(at) {
            Some(digest) if *digest == machine.digest => return Ok(()),
            Some(_) => {
                let what = format!("member {} applied another entry {}", id_of(slot), at + 1);
                return broken(Property::StateMachineSafety, what);
            }
            None => {}
        }
        if at != self.digests.len() || machine.applied > self.committed() {
            let what = format!(
                "member {} applied {}, committed is {}",
                id_of(slot),
                machine.applied,
                self.committed()
            );
            return broken(Property::StateMachineSafety, what);
        }
        self.digests.push(machine.digest);
        if let Some(operation) = operation {
            let at = operation as usize;
            if self.operations.len() <= at {
                self.operations.resize(at + 1, false);
            }
            if std::mem::replace(&mut self.operations[at], true) {
                let what = format!("operation {operation} was applied twice");
                return broken(Property::AtMostOnce, what);
            }
        }
        Ok(())
    }

    // ---- what a member shows ----

    /// Called when a member starts anew: a new process begins anew, but for what was durable.
    pub fn started(&mut self, slot: Slot) {
        self.seen[slot] = None;
    }

    /// Called after every input to a member.
    pub fn observe(&mut self, slot: Slot, members: &[Member]) -> Result<(), Violation> {
        let Some(raft) = members[slot].raft() else {
            return Ok(());
        };
        let status = raft.status();
        let before = self.seen[slot];
        if let Some(before) = before {
            if before.status == status {
                return Ok(());
            }
            check_forward(&before.status, &status)?;
        } else {
            self.check_kept(slot, &members[slot].disk, &status)?;
        }
        let led_through = before.and_then(|before| before.led_through);
        self.seen[slot] = Some(Seen {
            status,
            led_through,
        });
        let commit_before = before.map_or(LogIndex::ZERO, |b| b.status.commit);
        self.check_committed(slot, commit_before, &status, members)?;
        if status.role == Role::Leader {
            let leader = *self.leaders.entry(status.term).or_insert(slot);
            if leader != slot {
                let what = format!(
                    "{:?} has two leaders, {} and {}",
                    status.term,
                    id_of(leader),
                    id_of(slot)
                );
                return broken(Property::ElectionSafety, what);
            }
            let is_new = before.is_none_or(|b| b.status.role != Role::Leader);
            if is_new {
                self.check_complete(raft, &status)?;
            }
        }
        Ok(())
    }

    /// A write became durable.
    pub fn synced(&mut self, slot: Slot, disk: &Disk) {
        self.durable[slot] = disk.state;
    }

    /// A member that starts knows what it had made durable.
    fn check_kept(&self, slot: Slot, disk: &Disk, status: &Status) -> Result<(), Violation> {
        let kept = self.durable[slot];
        let is_kept = kept.term < disk.state.term
            || (kept.term == disk.state.term
                && (kept.vote.is_none() || kept.vote == disk.state.vote));
        if is_kept && status.term >= disk.state.term {
            return Ok(());
        }
        let what = format!(
            "member {} started with {status:?} after {kept:?}",
            id_of(slot)
        );
        broken(Property::Monotonic, what)
    }

    fn check_committed(
        &mut self,
        slot: Slot,
        before: LogIndex,
        status: &Status,
        members: &[Member],
    ) -> Result<(), Violation> {
        let raft = members[slot].raft().expect("up");
        let mut is_first_new = true;
        for index in (before.0 + 1).max(status.first_index.0)..=status.commit.0 {
            let Some(term) = raft.term_at(LogIndex(index)) else {
                let what = format!("member {}: committed {index} is gone", id_of(slot));
                return broken(Property::CommittedStays, what);
            };
            match self.committed.get(index as usize - 1) {
                Some((known, _)) if *known == term => {}
                Some((known, _)) => {
                    let what = format!(
                        "member {} committed {index} of {term:?}; it was of {known:?}",
                        id_of(slot)
                    );
                    return broken(Property::CommittedStays, what);
                }
                None => {
                    if is_first_new && status.role == Role::Leader && !self.end_to_end {
                        is_first_new = false;
                        check_durable(raft, status.commit, members)?;
                    }
                    if index as usize != self.committed.len() + 1 {
                        let what = format!("{index} was committed before its predecessor");
                        return broken(Property::CommittedStays, what);
                    }
                    self.committed.push((term, status.term));
                }
            }
        }
        Ok(())
    }

    fn check_complete(&self, raft: &Raft, status: &Status) -> Result<(), Violation> {
        for index in status.first_index.0..=self.committed.len() as u64 {
            let (term, committed_in) = self.committed[index as usize - 1];
            // What was committed in a later term than this (already deposed) leader's is not its
            // concern.
            if committed_in < status.term && raft.term_at(LogIndex(index)) != Some(term) {
                let what = format!(
                    "leader {} of {:?} lacks {index} of {term:?}, committed in {committed_in:?}",
                    status.id, status.term
                );
                return broken(Property::LeaderCompleteness, what);
            }
        }
        Ok(())
    }

    /// At the end: everybody in `membership` applied everything, and applied the same.
    pub fn check_equal(&self, members: &[Member], membership: &Membership) -> Result<(), String> {
        for id in membership.members() {
            let process = members[slot_of(id)].process.as_ref();
            let applied = process.map(|process| process.machine.applied);
            if applied != Some(self.committed()) {
                return Err(format!(
                    "member {id} applied {applied:?} of {}",
                    self.committed()
                ));
            }
        }
        Ok(())
    }
}

/// Positions and promises of one process only grow.
fn check_forward(before: &Status, status: &Status) -> Result<(), Violation> {
    let is_vote_kept = before.vote.is_none() || before.vote == status.vote;
    let is_forward = before.commit <= status.commit
        && before.applied <= status.applied
        && before.first_index <= status.first_index
        && (before.term < status.term || (before.term == status.term && is_vote_kept));
    if is_forward {
        return Ok(());
    }
    broken(
        Property::Monotonic,
        format!("went back from {before:?} to {status:?}"),
    )
}

/// Entries of one leader commit together: the last of them was counted, the others lie before it.
fn check_durable(raft: &Raft, through: LogIndex, all: &[Member]) -> Result<(), Violation> {
    let Some(term) = raft.term_at(through) else {
        return broken(Property::CommittedStays, format!("{through} is gone"));
    };
    let has = |id: MemberId| all[slot_of(id)].disk.holds(LogPosition::new(through, term));
    let membership = raft.membership();
    if quorum::is_majority(&membership.voters, has)
        && quorum::is_majority(&membership.voters_outgoing, has)
    {
        return Ok(());
    }
    let what = format!(
        "leader {} committed {through} of {term:?} without a durable quorum of {}",
        raft.status().id,
        members(membership)
    );
    broken(Property::CommitDurable, what)
}
