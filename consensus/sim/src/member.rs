//! One member: its process (core, state machine and what the driver holds) and its disk.
//!
//! Always true: a process is gone with all it held when it crashes; the disk and the clock stay.

use std::collections::VecDeque;
use std::sync::Arc;

use consensus::*;

use crate::disk::Disk;
use crate::machine::Machine;
use crate::network::Slot;
use crate::random::Random;
use crate::world::Event;

pub struct Member {
    pub slot: Slot,
    config: Config,
    pub process: Option<Process>,
    /// Counts the processes, so that what was meant for an earlier one is recognised.
    pub life: u32,
    pub disk: Disk,
    /// Units of time between two ticks of its clock.
    pub tick_every: u64,
    pub next_tick_at: u64,
    /// What arrived while the process stood still.
    pub deferred: Option<Vec<Event>>,
}

/// What dies in a crash.
pub struct Process {
    pub raft: Raft,
    pub ready: Ready,
    pub machine: Machine,
    /// Messages that wait for a write.
    pub held: VecDeque<Outgoing>,
    pub synced: WriteNumber,
    pub to_apply: VecDeque<Entry>,
    /// Confirmed reads that wait for the state machine: from which index on, and the operation.
    pub reads: Vec<(LogIndex, u64)>,
    /// Data of snapshots that arrived.
    pub received: Vec<(LogPosition, Arc<Machine>)>,
    pub is_turn_due: bool,
    pub is_apply_due: bool,
    /// Nothing is applied before.
    pub apply_stalled_until: u64,
    pub ticks: u64,
}

impl Member {
    pub fn new(
        slot: Slot,
        config: Config,
        founders: Option<Membership>,
        is_disk_lying: bool,
    ) -> Member {
        let machine = Machine::new(founders.clone().unwrap_or_default());
        let start = match founders {
            None => Restored::joining(),
            Some(founders) => Restored::founding(founders),
        };
        Member {
            slot,
            config,
            process: None,
            life: 0,
            disk: Disk::new(&start, machine, is_disk_lying),
            tick_every: 1,
            next_tick_at: 0,
            deferred: None,
        }
    }

    pub fn id(&self) -> MemberId {
        self.config.id
    }

    pub fn raft(&self) -> Option<&Raft> {
        self.process.as_ref().map(|process| &process.raft)
    }

    pub fn is_paused(&self) -> bool {
        self.deferred.is_some()
    }

    pub fn start(&mut self, random: &mut Random) {
        assert!(self.process.is_none(), "one process a member");
        self.config.seed = random.draw();
        let restored = self.disk.restore(random);
        self.process = Some(Process {
            raft: Raft::new(self.config.clone(), restored),
            ready: Ready::new(),
            machine: Machine::clone(&self.disk.machine),
            held: VecDeque::new(),
            synced: WriteNumber::NONE,
            to_apply: VecDeque::new(),
            reads: Vec::new(),
            received: Vec::new(),
            is_turn_due: false,
            is_apply_due: false,
            apply_stalled_until: 0,
            ticks: 0,
        });
    }

    /// Returns whether a write was torn. The events that waited are the caller's to drop.
    pub fn crash(&mut self, random: &mut Random) -> bool {
        self.process = None;
        self.life += 1;
        self.disk.crash(random)
    }
}
