//! One machine and its disk, driven as `consensus::ready` says: outputs are taken after every input, a message leaves once
//! the write it rests on is durable, and a crash loses whatever was not.
//!
//! [`Fault`] breaks one of these rules on purpose. The search must then find what the rule is for; if it does not, it is
//! blind.

use std::collections::VecDeque;

use consensus::{
    Config, Entry, HardState, LogIndex, MemberId, Membership, Message, Outgoing, Raft, ReadState,
    Ready, Restored, Role, WriteNumber,
};

use crate::encoding;

/// A rule that the driver breaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Messages leave before the write they rest on, so a crash forgets a vote that was given.
    VoteNotDurable,
    /// A write is called durable when it begins, so a crash loses entries that count as held.
    DiskLies,
    /// Heartbeats count as answered when they are sent, so a read is confirmed by nobody.
    ReadWithoutQuorum,
}

/// What survives a crash.
#[derive(Clone, Debug)]
pub struct Disk {
    hard_state: HardState,
    /// The log behind the founding.
    entries: Vec<Entry>,
}

/// A write on its way to the disk.
#[derive(Clone, Debug)]
struct Write {
    number: WriteNumber,
    hard_state: Option<HardState>,
    entries: Vec<Entry>,
}

#[derive(Clone, Debug)]
pub struct Member {
    raft: Raft,
    disk: Disk,
    writes: VecDeque<Write>,
    /// Messages that wait for a write.
    held: Vec<Outgoing>,
    /// The log as the machine has handed it out, behind the founding.
    log: Vec<Entry>,
    /// The machine was told that writes through here are durable.
    durable: WriteNumber,
    /// How often it was started.
    life: u64,
    encoded: u64,
}

/// What an input led to.
#[derive(Default, Debug)]
pub struct Outcome {
    pub sent: Vec<Outgoing>,
    pub reads: Vec<ReadState>,
}

/// The index of the first entry behind the founding.
pub const FIRST: u64 = 2;

fn founders() -> Membership {
    Membership::new([1, 2, 3].map(MemberId), [])
}

fn start(id: MemberId, life: u64, disk: &Disk) -> Raft {
    // A process draws its seed anew at every start.
    let mut config = Config::new(id, life);
    // Time stands still, so nothing may wait for it.
    (config.pre_vote, config.check_quorum) = (false, false);
    let mut restored = Restored::founding(founders());
    restored.hard_state = disk.hard_state;
    restored.entries.clone_from(&disk.entries);
    Raft::new(config, restored)
}

impl Member {
    pub fn new(id: MemberId) -> Member {
        let disk = Disk {
            hard_state: Restored::founding(founders()).hard_state,
            entries: Vec::new(),
        };
        let raft = start(id, 1, &disk);
        let mut member = Member {
            raft,
            disk,
            writes: VecDeque::new(),
            held: Vec::new(),
            log: Vec::new(),
            durable: WriteNumber::NONE,
            life: 1,
            encoded: 0,
        };
        member.encode();
        member
    }

    pub fn raft(&self) -> &Raft {
        &self.raft
    }

    /// The entries behind the founding, the first at [`FIRST`].
    pub fn log(&self) -> &[Entry] {
        &self.log
    }

    /// A number for the whole state.
    pub fn encoded(&self) -> u64 {
        self.encoded
    }

    pub fn life(&self) -> u64 {
        self.life
    }

    pub fn is_leader(&self) -> bool {
        self.raft.status().role == Role::Leader
    }

    pub fn is_writing(&self) -> bool {
        !self.writes.is_empty()
    }

    /// Gives the machine an input and takes its outputs until it has nothing more to say.
    pub fn input(&mut self, fault: Option<Fault>, input: impl FnOnce(&mut Raft)) -> Outcome {
        input(&mut self.raft);
        let mut outcome = Outcome::default();
        self.settle(fault, &mut outcome);
        outcome
    }

    /// The oldest write becomes durable.
    pub fn sync(&mut self, fault: Option<Fault>) -> Outcome {
        let mut outcome = Outcome::default();
        let write = self.writes.pop_front().expect("a write is under way");
        if let Some(hard_state) = write.hard_state {
            self.disk.hard_state = hard_state;
        }
        replace_suffix(&mut self.disk.entries, &write.entries);
        if fault != Some(Fault::DiskLies) {
            self.report(write.number, &mut outcome);
        }
        self.settle(fault, &mut outcome);
        outcome
    }

    /// The process dies and comes back with what was durable.
    pub fn crash(&mut self, fault: Option<Fault>) -> Outcome {
        self.life += 1;
        self.writes.clear();
        self.held.clear();
        self.durable = WriteNumber::NONE;
        self.log.clone_from(&self.disk.entries);
        let id = self.raft.status().id;
        self.raft = start(id, self.life, &self.disk);
        let mut outcome = Outcome::default();
        self.settle(fault, &mut outcome);
        outcome
    }

    fn report(&mut self, number: WriteNumber, outcome: &mut Outcome) {
        self.durable = number;
        self.raft.on_synced(number);
        let (free, held) = std::mem::take(&mut self.held)
            .into_iter()
            .partition(|out| out.after <= number);
        self.held = held;
        let free: Vec<Outgoing> = free;
        outcome.sent.extend(free);
    }

    fn settle(&mut self, fault: Option<Fault>, outcome: &mut Outcome) {
        let mut ready = Ready::new();
        loop {
            self.raft.ready(&mut ready);
            if ready.is_empty() {
                break;
            }
            assert!(ready.install.is_none() && ready.snapshots.is_empty());
            assert!(ready.loads.is_empty() && ready.trim.is_none());
            if ready.must_sync() {
                replace_suffix(&mut self.log, &ready.entries);
                self.writes.push_back(Write {
                    number: ready.write,
                    hard_state: ready.hard_state,
                    entries: std::mem::take(&mut ready.entries),
                });
            }
            let early = fault == Some(Fault::VoteNotDurable);
            for out in ready.messages.drain(..) {
                if early || out.after <= self.durable {
                    outcome.sent.push(out);
                } else {
                    self.held.push(out);
                }
            }
            outcome.reads.append(&mut ready.read_states);
            if let Some(last) = ready.committed.last() {
                self.raft.on_applied(last.index);
            }
            if fault == Some(Fault::DiskLies) && ready.must_sync() {
                self.report(ready.write, outcome);
            }
        }
        self.encode();
    }

    fn encode(&mut self) {
        let Member {
            raft,
            disk,
            writes,
            held,
            log,
            durable,
            life,
            encoded: _,
        } = self;
        self.encoded = encoding::machine(raft)
            ^ encoding::value(&(disk, writes, held, log, durable, life)).rotate_left(1);
    }
}

/// Writes `entries` where they belong and drops what came behind.
fn replace_suffix(log: &mut Vec<Entry>, entries: &[Entry]) {
    if let Some(first) = entries.first() {
        let kept = first.index.since(LogIndex(FIRST)) as usize;
        assert!(kept <= log.len(), "a gap before {:?}", first.index);
        log.truncate(kept);
        log.extend_from_slice(entries);
    }
}

/// A message on its way.
#[derive(Clone, PartialEq, Debug)]
pub struct Flight {
    pub message: Message,
    /// A number for the whole message.
    pub encoded: u64,
}

impl Flight {
    pub fn new(message: Message) -> Flight {
        let encoded = encoding::value(&message);
        Flight { message, encoded }
    }
}
