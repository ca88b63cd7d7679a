//! One member: the core, its disk, its state machine, and the driver between them, which obeys the
//! order contract and nothing more: every delay the contract allows happens.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};

use consensus::*;

use super::Faults;
use super::network::Packet;
use super::oracle::Oracle;
use super::random::Random;

/// The state machine: a digest of everything applied, and the membership.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct App {
    pub applied: LogIndex,
    pub digest: u64,
    pub membership: Membership,
}

impl App {
    /// The state machine of a founder, or of a member that is yet to join.
    pub fn new(membership: Membership) -> App {
        let applied = LogIndex(u64::from(!membership.voters.is_empty()));
        App {
            applied,
            digest: 0,
            membership,
        }
    }

    fn apply(&mut self, entry: &Entry) -> Option<ConfChange> {
        assert_eq!(
            entry.index,
            self.applied.next(),
            "entries are applied in order"
        );
        let mut hasher = DefaultHasher::new();
        (self.digest, entry.term, entry.index, &entry.payload[..]).hash(&mut hasher);
        self.digest = hasher.finish();
        self.applied = entry.index;
        if entry.kind == EntryKind::Normal {
            return None;
        }
        let change = ConfChange::decode(&entry.payload).expect("written by us");
        if let Ok(next) = self.membership.after(&change) {
            self.membership = next;
        }
        Some(change)
    }
}

/// What survives a crash.
#[derive(Clone, Debug)]
pub struct Disk {
    pub state: HardState,
    pub base: LogPosition,
    pub entries: Vec<Entry>,
    /// The durable checkpoint of the state machine.
    pub app: App,
}

impl Disk {
    pub fn last(&self) -> LogPosition {
        self.entries.last().map_or(self.base, Entry::position)
    }

    pub fn holds(&self, position: LogPosition) -> bool {
        // What a snapshot or trim covers was committed, and is in the checkpoint.
        position.index <= self.base.index
            || self
                .entries
                .get((position.index.since(self.base.index) - 1) as usize)
                .is_some_and(|entry| entry.position() == position)
    }

    /// Carries out a write, of its entries only the first `kept`.
    fn carry_out(&mut self, write: &Write, kept: usize) {
        if let Some(app) = &write.install {
            self.base = write.install_at;
            self.entries.clear();
            self.app = app.clone();
        }
        if let Some(state) = write.state {
            self.state = state;
        }
        for entry in &write.entries[..kept] {
            if entry.index <= self.base.index {
                continue;
            }
            let slot = (entry.index.since(self.base.index) - 1) as usize;
            assert!(slot <= self.entries.len(), "a gap before {:?}", entry.index);
            self.entries.truncate(slot);
            self.entries.push(entry.clone());
        }
    }
}

struct Write {
    number: WriteNumber,
    install: Option<App>,
    install_at: LogPosition,
    state: Option<HardState>,
    entries: Vec<Entry>,
    done_at: u64,
    /// What follows a trim need not be written before.
    trim: Option<LogPosition>,
}

pub struct Member {
    pub id: MemberId,
    config: Config,
    raft: Option<Raft>,
    ready: Ready,
    pub disk: Disk,
    pub app: App,
    writes: VecDeque<Write>,
    /// Messages that wait for a write.
    held: VecDeque<Outgoing>,
    synced: WriteNumber,
    to_apply: VecDeque<Entry>,
    loads: Vec<(u64, LoadRequest)>,
    snapshots: Vec<SnapshotRequest>,
    received: Vec<(LogPosition, App)>,
    pub outbox: Vec<Packet>,
    next_tick: u64,
    stalled_until: u64,
    has_crashed: bool,
}

impl Member {
    pub fn new(config: Config, membership: Membership, random: &mut Random) -> Member {
        let app = App::new(membership.clone());
        let start = match membership.voters.is_empty() {
            true => Restored::joining(),
            false => Restored::founding(membership),
        };
        let disk = Disk {
            state: start.hard_state,
            base: start.log_base,
            entries: Vec::new(),
            app: app.clone(),
        };
        let mut member = Member {
            id: config.id,
            config,
            raft: None,
            ready: Ready::new(),
            disk,
            app,
            writes: VecDeque::new(),
            held: VecDeque::new(),
            synced: WriteNumber::NONE,
            to_apply: VecDeque::new(),
            loads: Vec::new(),
            snapshots: Vec::new(),
            received: Vec::new(),
            outbox: Vec::new(),
            next_tick: 0,
            stalled_until: 0,
            has_crashed: false,
        };
        member.restart(random);
        member
    }

    pub fn is_up(&self) -> bool {
        self.raft.is_some()
    }

    pub fn raft(&self) -> &Raft {
        self.raft.as_ref().expect("the member is up")
    }

    pub fn raft_mut(&mut self) -> &mut Raft {
        self.raft.as_mut().expect("the member is up")
    }

    pub fn describe(&self) -> String {
        match &self.raft {
            None => format!("{:?} is down", self.id),
            Some(raft) => format!(
                "{:?} {:?} {:?} {:?}",
                raft.status(),
                raft.membership(),
                raft.followers().collect::<Vec<_>>(),
                raft.ignored()
            ),
        }
    }

    pub fn stall(&mut self, until: u64) {
        self.stalled_until = until;
    }

    pub fn unstall(&mut self) {
        self.stalled_until = 0;
    }

    /// Everything not durable is lost; of the writes under way some prefix may have reached the
    /// disk, the last of those in part.
    pub fn crash(&mut self, random: &mut Random) {
        let kept = random.below(self.writes.len() as u64 + 1);
        for _ in 0..kept {
            let write = self.writes.pop_front().expect("counted");
            let all = write.entries.len();
            let is_last_torn = random.chance(300) && write.install.is_none();
            let entries = if is_last_torn {
                random.below(all as u64 + 1) as usize
            } else {
                all
            };
            self.disk.carry_out(&write, entries);
            if is_last_torn {
                break;
            }
        }
        self.writes.clear();
        self.raft = None;
        self.has_crashed = true;
        self.held.clear();
        self.to_apply.clear();
        self.loads.clear();
        self.snapshots.clear();
        self.received.clear();
        self.outbox.clear();
    }

    pub fn restart(&mut self, random: &mut Random) {
        self.app = self.disk.app.clone();
        self.synced = WriteNumber::NONE;
        self.config.seed = random.next();
        let applied = self.app.applied;
        // The driver may give any suffix that reaches back to what is not applied and has the last
        // entry.
        let all = self.disk.entries.len() as u64;
        let needed = applied
            .since(self.disk.base.index)
            .min(all.saturating_sub(1));
        let skip = random.below(needed + 1) as usize;
        let mut term_starts: Vec<LogPosition> = Vec::new();
        for entry in &self.disk.entries[..skip] {
            if term_starts
                .last()
                .is_none_or(|start| start.term != entry.term)
            {
                term_starts.push(entry.position());
            }
        }
        let restored = Restored {
            hard_state: self.disk.state,
            log_base: self.disk.base,
            term_starts,
            entries: self.disk.entries[skip..].to_vec(),
            applied,
            membership: self.app.membership.clone(),
        };
        self.raft = Some(Raft::new(self.config.clone(), restored));
    }

    pub fn receive(&mut self, packet: Packet) {
        if let (Body::Snapshot { snapshot }, Some(app)) = (&packet.message.body, packet.snapshot) {
            if !self.raft().wants_snapshot(snapshot) && snapshot.last.index.0 % 2 == 0 {
                return;
            }
            self.received.push((snapshot.last, app));
        }
        self.raft_mut().step(packet.from, packet.message);
    }

    pub fn maybe_tick(&mut self, now: u64, tick_steps: u64, random: &mut Random) {
        if now >= self.next_tick {
            // Clocks differ a little.
            self.next_tick = now + tick_steps - tick_steps / 10 + random.below(tick_steps / 5 + 1);
            self.raft_mut().tick();
        }
    }

    /// The driver's loop, once: inputs from disk and state machine, then what is ready.
    pub fn run(
        &mut self,
        now: u64,
        faults: &Faults,
        random: &mut Random,
        oracle: &mut Oracle,
    ) -> Result<(), String> {
        if std::mem::take(&mut self.has_crashed) {
            oracle.crashed(self.id);
        }
        self.finish_writes(now);
        if random.chance(faults.apply) {
            self.apply_some(random, oracle)?;
        }
        self.answer_loads(now, random, oracle);
        self.send_snapshots();
        if random.chance(900) {
            self.drain(now, faults, random, oracle)?;
        }
        self.release();
        Ok(())
    }

    fn finish_writes(&mut self, now: u64) {
        if now < self.stalled_until {
            return;
        }
        let mut done = WriteNumber::NONE;
        while self
            .writes
            .front()
            .is_some_and(|write| write.done_at <= now)
        {
            let write = self.writes.pop_front().expect("front was there");
            self.disk.carry_out(&write, write.entries.len());
            if let Some(app) = &write.install {
                if self.app.applied < app.applied {
                    self.app = app.clone();
                }
                self.to_apply.retain(|entry| entry.index > app.applied);
            }
            done = write.number;
        }
        if done != WriteNumber::NONE {
            self.synced = self.synced.max(done);
            self.raft_mut().on_synced(done);
        }
    }

    fn apply_some(&mut self, random: &mut Random, oracle: &mut Oracle) -> Result<(), String> {
        for _ in 0..random.below(12) {
            let Some(entry) = self.to_apply.pop_front() else {
                break;
            };
            let change = self.app.apply(&entry);
            oracle.applied(self.id, &self.app)?;
            let raft = self.raft.as_mut().expect("up");
            if entry.kind == EntryKind::ConfChange {
                raft.apply_conf_change(entry.index, change.as_ref());
            }
            raft.on_applied(entry.index);
        }
        // Now and then the state machine becomes durable.
        if random.chance(30) && self.disk.app.applied < self.app.applied {
            self.disk.app = self.app.clone();
            let applied = self.app.applied;
            self.raft_mut().on_checkpoint(applied);
        }
        Ok(())
    }

    fn answer_loads(&mut self, now: u64, random: &mut Random, oracle: &mut Oracle) {
        let (due, later) = self.loads.drain(..).partition(|(at, _)| *at <= now);
        self.loads = later;
        for (_, load) in due as Vec<(u64, LoadRequest)> {
            oracle.loads += 1;
            let from = load.from.since(self.disk.base.index) as usize;
            let mut entries = Vec::new();
            if load.from > self.disk.base.index && !random.chance(20) {
                let through = load.through.since(self.disk.base.index) as usize;
                let through = through - random.below((through - from) as u64 + 1) as usize;
                entries = self.disk.entries[from - 1..through].to_vec();
            }
            self.raft_mut().on_entries_loaded(load.id, entries);
        }
    }

    fn send_snapshots(&mut self) {
        for request in std::mem::take(&mut self.snapshots) {
            let meta = self.raft().snapshot_meta(self.app.applied);
            let Some(snapshot) = meta.filter(|meta| meta.last.index >= request.at_least) else {
                self.raft_mut().on_snapshot_sent(request.to, None);
                continue;
            };
            assert_eq!(
                snapshot.membership, self.app.membership,
                "membership of the snapshot"
            );
            let message = Message {
                term: self.raft().status().term,
                body: Body::Snapshot { snapshot },
            };
            self.outbox.push(Packet {
                from: self.id,
                to: request.to,
                message,
                snapshot: Some(self.app.clone()),
                is_lost: false,
            });
        }
    }

    fn drain(
        &mut self,
        now: u64,
        faults: &Faults,
        random: &mut Random,
        oracle: &mut Oracle,
    ) -> Result<(), String> {
        let mut ready = std::mem::take(&mut self.ready);
        self.raft_mut().ready(&mut ready);
        if ready.write != WriteNumber::NONE {
            let mut install = None;
            let mut install_at = LogPosition::ZERO;
            if let Some(meta) = &ready.install {
                oracle.snapshots_installed += 1;
                let data = self.received.iter().find(|(last, _)| *last == meta.last);
                install = Some(
                    data.expect("only received snapshots are installed")
                        .1
                        .clone(),
                );
                install_at = meta.last;
                self.received.clear();
            }
            let earlier = self.writes.back().map_or(0, |write| write.done_at);
            let done_at = (now + random.below(faults.write_steps_max)).max(earlier);
            self.writes.push_back(Write {
                number: ready.write,
                install,
                install_at,
                state: ready.hard_state,
                entries: ready.entries.clone(),
                done_at,
                trim: None,
            });
            if faults.lying_disk {
                self.synced = ready.write;
                self.raft_mut().on_synced(ready.write);
            }
        } else {
            assert!(ready.entries.is_empty() && ready.hard_state.is_none());
        }
        self.held.extend(ready.messages.drain(..));
        self.to_apply.extend(ready.committed.drain(..));
        for read in ready.read_states.drain(..) {
            oracle.read_answered(self.id, read)?;
        }
        for context in ready.reads_failed.drain(..) {
            oracle.read_failed(self.id, context)?;
        }
        for load in ready.loads.drain(..) {
            self.loads.push((now + random.below(10), load));
        }
        self.snapshots.append(&mut ready.snapshots);
        if let Some(trim) = ready.trim {
            assert!(
                trim.index <= self.disk.app.applied,
                "trim past the durable checkpoint"
            );
            let cut = trim.index.since(self.disk.base.index) as usize;
            assert_eq!(self.disk.entries[cut - 1].position(), trim);
            self.disk.entries.drain(..cut);
            self.disk.base = trim;
        }
        self.ready = ready;
        Ok(())
    }

    /// Sends what its write allows.
    fn release(&mut self) {
        let held = std::mem::take(&mut self.held);
        for out in held {
            if out.after <= self.synced {
                self.outbox.push(Packet {
                    from: self.id,
                    to: out.to,
                    message: out.message,
                    snapshot: None,
                    is_lost: false,
                });
            } else {
                self.held.push_back(out);
            }
        }
    }
}
