//! A member's disk: what survives a crash, and the writes that have not made it there yet.
//!
//! Always true: writes become durable in order; a crash keeps a prefix of what the device had
//! begun, perhaps the last of it in part, and nothing of what it had not.

use std::collections::VecDeque;
use std::sync::Arc;

use consensus::{Entry, HardState, LogIndex, LogPosition, Ready, Restored, WriteNumber};

use crate::machine::Machine;
use crate::random::Random;

/// One write of the order contract.
#[derive(Debug)]
pub struct Write {
    pub number: WriteNumber,
    pub install: Option<Arc<Machine>>,
    install_at: LogPosition,
    state: Option<HardState>,
    entries: Vec<Entry>,
    /// The member's own tick when it was handed out.
    pub tick: u64,
}

impl Write {
    /// The write of `ready`; `install` is the data of the snapshot it names.
    pub fn new(ready: &mut Ready, install: Option<Arc<Machine>>, tick: u64) -> Write {
        Write {
            number: ready.write,
            install,
            install_at: ready.install.as_ref().map_or(LogPosition::ZERO, |s| s.last),
            state: ready.hard_state,
            entries: ready.entries.drain(..).collect(),
            tick,
        }
    }

    /// What a crash may tear it into.
    fn pieces(&self) -> usize {
        usize::from(self.install.is_some()) + usize::from(self.state.is_some()) + self.entries.len()
    }
}

#[derive(Debug)]
pub struct Disk {
    pub state: HardState,
    pub base: LogPosition,
    entries: Vec<Entry>,
    /// The durable checkpoint of the state machine.
    pub machine: Arc<Machine>,
    queue: VecDeque<Write>,
    /// How many of `queue` the device works on.
    busy: usize,
    pub stalled_until: u64,
    pub slow_until: u64,
    /// A disk that lies: what it had before the last write it called durable.
    before: Option<Box<Content>>,
    is_lying: bool,
}

#[derive(Clone, Debug)]
struct Content {
    state: HardState,
    base: LogPosition,
    entries: Vec<Entry>,
    machine: Arc<Machine>,
}

impl Disk {
    pub fn new(start: &Restored, machine: Machine, is_lying: bool) -> Disk {
        Disk {
            state: start.hard_state,
            base: start.log_base,
            entries: Vec::new(),
            machine: Arc::new(machine),
            queue: VecDeque::new(),
            busy: 0,
            stalled_until: 0,
            slow_until: 0,
            before: None,
            is_lying,
        }
    }

    /// Whether the entry at `position` is durable. What a snapshot or trim covers was committed and
    /// is in the checkpoint.
    pub fn holds(&self, position: LogPosition) -> bool {
        position.index <= self.base.index
            || self
                .entries
                .get((position.index.since(self.base.index) - 1) as usize)
                .is_some_and(|entry| entry.position() == position)
    }

    pub fn last(&self) -> LogPosition {
        self.entries.last().map_or(self.base, Entry::position)
    }

    pub fn push(&mut self, write: Write) {
        self.queue.push_back(write);
    }

    pub fn is_idle(&self) -> bool {
        self.busy == 0
    }

    /// When the oldest write that is not durable was handed out.
    pub fn oldest_tick(&self) -> Option<u64> {
        self.queue.front().map(|write| write.tick)
    }

    /// The device takes on some of what waits; `false` if nothing does.
    pub fn begin(&mut self, random: &mut Random) -> bool {
        assert!(self.busy == 0, "one group at a time");
        self.busy = match self.queue.len() {
            0 => return false,
            all if random.chance(700) => all,
            all => random.between(1, all as u64) as usize,
        };
        true
    }

    /// The group under way is durable: its last number, and the last snapshot it installed.
    pub fn finish(&mut self) -> (WriteNumber, Option<Arc<Machine>>) {
        if self.is_lying {
            self.before = Some(Box::new(Content {
                state: self.state,
                base: self.base,
                entries: self.entries.clone(),
                machine: self.machine.clone(),
            }));
        }
        let mut done = (WriteNumber::NONE, None);
        for _ in 0..std::mem::take(&mut self.busy) {
            let write = self.queue.pop_front().expect("counted");
            self.carry_out(&write, write.pieces());
            done = (write.number, write.install.or(done.1));
        }
        done
    }

    /// Everything not durable is lost, but for a prefix of the group under way. Returns whether the
    /// last write kept was torn.
    pub fn crash(&mut self, random: &mut Random) -> bool {
        let mut kept = random.below(self.busy as u64 + 1);
        if let Some(before) = self.before.take() {
            (self.state, self.base) = (before.state, before.base);
            (self.entries, self.machine) = (before.entries, before.machine);
            kept = 0;
        }
        let mut is_torn = false;
        for _ in 0..kept {
            let write = self.queue.pop_front().expect("counted");
            is_torn = random.chance(400);
            if is_torn {
                let pieces = random.below(write.pieces() as u64) as usize;
                self.carry_out(&write, pieces);
                break;
            }
            self.carry_out(&write, write.pieces());
        }
        self.queue.clear();
        self.busy = 0;
        is_torn
    }

    /// Carries out the first `pieces` of a write, in the order of the contract.
    fn carry_out(&mut self, write: &Write, mut pieces: usize) {
        let mut is_kept = || {
            let is_kept = pieces > 0;
            pieces = pieces.saturating_sub(1);
            is_kept
        };
        if let Some(machine) = write.install.as_ref().filter(|_| is_kept()) {
            self.base = write.install_at;
            self.entries.clear();
            self.machine = machine.clone();
        }
        if let Some(state) = write.state.filter(|_| is_kept()) {
            self.state = state;
        }
        for entry in &write.entries {
            if !is_kept() {
                break;
            }
            if entry.index <= self.base.index {
                continue;
            }
            let slot = (entry.index.since(self.base.index) - 1) as usize;
            assert!(slot <= self.entries.len(), "a gap before {:?}", entry.index);
            self.entries.truncate(slot);
            self.entries.push(entry.clone());
        }
    }

    /// Entries `from ..= through`, or nothing if the log begins later.
    pub fn read(&self, from: LogIndex, through: LogIndex) -> Vec<Entry> {
        if from <= self.base.index {
            return Vec::new();
        }
        let first = (from.since(self.base.index) - 1) as usize;
        let end = through.since(self.base.index) as usize;
        self.entries[first..end].to_vec()
    }

    /// Gives up the log through `base`.
    pub fn trim(&mut self, base: LogPosition) {
        assert!(
            base.index <= self.machine.applied,
            "trim through {base:?} past the durable checkpoint {:?}",
            self.machine.applied
        );
        let cut = base.index.since(self.base.index) as usize;
        assert_eq!(self.entries[cut - 1].position(), base, "trim");
        self.entries.drain(..cut);
        self.base = base;
    }

    /// What a process finds when it starts: any suffix of the log that reaches back to what is not
    /// applied and has the last entry, and where terms begin before that.
    pub fn restore(&self, random: &mut Random) -> Restored {
        let applied = self.machine.applied;
        let needed = applied
            .since(self.base.index)
            .min((self.entries.len() as u64).saturating_sub(1));
        let skip = random.below(needed + 1) as usize;
        let mut term_starts: Vec<LogPosition> = Vec::new();
        for entry in &self.entries[..skip] {
            if term_starts
                .last()
                .is_none_or(|start| start.term != entry.term)
            {
                term_starts.push(entry.position());
            }
        }
        Restored {
            hard_state: self.state,
            log_base: self.base,
            term_starts,
            entries: self.entries[skip..].to_vec(),
            applied,
            membership: self.machine.membership.clone(),
        }
    }
}
