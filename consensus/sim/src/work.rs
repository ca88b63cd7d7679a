//! What a member's driver does with entries to apply, reads, loads and snapshots, and what clients ask
//! of it.

use std::sync::Arc;

use consensus::*;

use crate::clients::Outcome;
use crate::machine::Applied;
use crate::network::{Fate, Packet, Slot, id_of, slot_of};
use crate::oracle::{Property, Violation, broken};
use crate::trace::members;
use crate::world::{Event, World};

impl World {
    pub fn plan_apply(&mut self, slot: Slot) {
        let life = self.members[slot].life;
        let delay = if self.is_quiet {
            self.random.below(20)
        } else {
            self.random.below(self.plan.apply_max)
        };
        let at = self.now + delay;
        let process = self.process(slot);
        let at = at.max(process.apply_stalled_until);
        if !process.to_apply.is_empty() && !std::mem::replace(&mut process.is_apply_due, true) {
            self.plan_at(at, Event::Apply { slot, life });
        }
    }

    pub fn apply(&mut self, slot: Slot) -> Result<(), Violation> {
        let now = self.now;
        let process = self.process(slot);
        process.is_apply_due = false;
        if now < process.apply_stalled_until {
            self.plan_apply(slot);
            return Ok(());
        }
        let some = 1 + self.random.below(12);
        let is_each_told = self.random.chance(500);
        let mut applied = LogIndex::ZERO;
        for _ in 0..some {
            let process = self.members[slot].process.as_mut().expect("it runs");
            let Some(entry) = process.to_apply.pop_front() else {
                break;
            };
            let effect = process.machine.apply(&entry);
            applied = entry.index;
            let operation = match &effect {
                Applied::Command { command, .. } => Some(command.operation),
                _ => None,
            };
            self.oracle.applied(slot, &process.machine, operation)?;
            let words = [6, slot as u64, entry.index.0, process.machine.digest];
            self.note(&words, || {
                format!("{}: applies {} {effect:?}", id_of(slot), entry.index)
            });
            self.took_effect(slot, entry.index, &effect)?;
            if is_each_told {
                self.process(slot).raft.on_applied(applied);
                self.observe(slot)?;
            }
        }
        if applied > LogIndex::ZERO && !is_each_told {
            self.process(slot).raft.on_applied(applied);
        }
        self.checkpoint(slot);
        self.answer_reads(slot);
        self.plan_apply(slot);
        self.input_done(slot)
    }

    fn took_effect(
        &mut self,
        slot: Slot,
        index: LogIndex,
        effect: &Applied,
    ) -> Result<(), Violation> {
        match effect {
            Applied::Nothing => Ok(()),
            Applied::Command { command, before } => {
                let op = self.clients.ops[command.operation as usize];
                if op.slot == slot && op.life == self.members[slot].life {
                    self.end_operation(command.operation, Outcome::Done(*before));
                }
                Ok(())
            }
            Applied::Change(change) => {
                let raft = &mut self.process(slot).raft;
                let before = raft.membership().clone();
                let after = raft.apply_conf_change(index, change.as_ref()).clone();
                if after != before {
                    self.count_change(slot, &before, &after);
                    self.note(&[7, slot as u64, index.0], || {
                        format!("{}: now {}", id_of(slot), members(&after))
                    });
                }
                self.observe(slot)
            }
        }
    }

    fn count_change(&mut self, slot: Slot, before: &Membership, after: &Membership) {
        let me = id_of(slot);
        let is_leader = self.process(slot).raft.status().role == Role::Leader;
        if !is_leader {
            return;
        }
        self.coverage.add("membership changes", 1);
        if after.is_joint() {
            self.coverage.add("joint memberships", 1);
        }
        if before.is_joint() && !after.is_joint() {
            self.coverage.add("joint memberships left", 1);
        }
        if before
            .learners
            .iter()
            .any(|id| after.voters.binary_search(id).is_ok())
        {
            self.coverage.add("learners promoted", 1);
        }
        if before.is_voter(me) && !after.is_voter(me) {
            self.coverage.add("leaders removed", 1);
        }
    }

    /// Now and then the state machine becomes durable.
    fn checkpoint(&mut self, slot: Slot) {
        if !self.random.chance(100) {
            return;
        }
        let member = &mut self.members[slot];
        let process = member.process.as_mut().expect("it runs");
        let applied = process.machine.applied;
        if member.disk.machine.applied < applied {
            member.disk.machine = Arc::new(process.machine.clone());
            process.raft.on_checkpoint(applied);
        }
    }

    /// Answers the confirmed reads whose index is applied.
    pub fn answer_reads(&mut self, slot: Slot) {
        let process = self.process(slot);
        if process.reads.is_empty() {
            return;
        }
        let applied = process.machine.applied;
        let mut due: Vec<u64> = Vec::new();
        process.reads.retain(|(index, operation)| {
            let waits = *index > applied;
            if !waits {
                due.push(*operation);
            }
            waits
        });
        for operation in due {
            let register = self.clients.ops[operation as usize].register;
            let value = self.process(slot).machine.registers[usize::from(register)];
            self.coverage.add("reads answered", 1);
            self.end_operation(operation, Outcome::Done(value));
        }
    }

    pub fn loaded(&mut self, slot: Slot, load: LoadRequest) -> Result<(), Violation> {
        self.coverage.add("entries loaded back", 1);
        let mut through = load.through.0;
        // A prefix is a full answer, and so is a failure.
        through -= self.random.below(through - load.from.0 + 1);
        let disk = &self.members[slot].disk;
        let entries = match self.random.chance(20) && !self.is_quiet {
            true => Vec::new(),
            false => disk.read(load.from, LogIndex(through)),
        };
        self.process(slot).raft.on_entries_loaded(load.id, entries);
        self.input_done(slot)
    }

    pub fn send_snapshot(&mut self, slot: Slot, request: SnapshotRequest) -> Result<(), Violation> {
        let to = slot_of(request.to);
        let process = self.process(slot);
        let applied = process.machine.applied;
        let meta = process.raft.snapshot_meta(applied);
        let Some(snapshot) = meta.filter(|meta| meta.last.index >= request.at_least) else {
            process.raft.on_snapshot_sent(request.to, None);
            return self.input_done(slot);
        };
        if snapshot.membership != process.machine.membership {
            let what = format!("membership of {snapshot:?} is not the state machine's");
            return broken(Property::StateMachineSafety, what);
        }
        let term = process.raft.status().term;
        let data = Arc::new(process.machine.clone());
        let fate = self.send(Packet {
            from: slot,
            to,
            message: Message {
                term,
                body: Body::Snapshot { snapshot },
            },
            snapshot: Some(data),
            sent_at: self.now,
        });
        let (at, index) = match fate {
            Fate::Arrives(at) | Fate::Twice(at, _) => (at + 1, Some(applied)),
            Fate::Lost => (self.now + self.plan.delay_max, None),
        };
        let life = self.members[slot].life;
        self.plan_at(
            at,
            Event::SnapshotSent {
                slot,
                life,
                to,
                index,
            },
        );
        Ok(())
    }

    pub fn snapshot_sent(
        &mut self,
        slot: Slot,
        to: Slot,
        index: Option<LogIndex>,
    ) -> Result<(), Violation> {
        // Who is down took nothing.
        let index = index.filter(|_| self.members[to].process.is_some());
        self.process(slot).raft.on_snapshot_sent(id_of(to), index);
        self.input_done(slot)
    }

    /// A client's question arrived.
    pub fn asked(&mut self, slot: Slot, operation: u64) -> Result<(), Violation> {
        let life = self.members[slot].life;
        if self.members[slot].process.is_none() {
            self.end_operation(operation, Outcome::Refused);
            return Ok(());
        }
        self.clients.ops[operation as usize].life = life;
        let Some(command) = self.clients.command(operation) else {
            // Noted first: the core may answer at once.
            self.oracle.read_asked(operation);
            if self.process(slot).raft.read_index(operation).is_err() {
                self.oracle.read_dropped(operation);
                self.end_operation(operation, Outcome::Refused);
            }
            return self.input_done(slot);
        };
        let filler = self.random.below(100) as usize;
        let payload = command.encode(filler);
        let raft = &mut self.process(slot).raft;
        let taken = match raft.propose(payload.clone()) {
            Err(ProposeError::NotLeader { leader: Some(_) }) => {
                let is_sent = raft.forward(payload).is_ok();
                self.coverage.add("proposals forwarded", u64::from(is_sent));
                is_sent
            }
            taken => taken.is_ok(),
        };
        if !taken {
            self.end_operation(operation, Outcome::Refused);
        }
        self.input_done(slot)
    }
}
