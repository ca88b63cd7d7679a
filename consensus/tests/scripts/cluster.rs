//! Members that do what a story says and nothing by themselves: no time passes, no message arrives
//! and no disk gets stuck but by a command. Says what happens as it happens.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use consensus::*;
use consensus_sim::trace::{describe, members as say_members};

/// What survives a crash.
#[derive(Clone, Debug)]
pub struct Disk {
    pub state: HardState,
    pub base: LogPosition,
    pub entries: Vec<Entry>,
    pub applied: LogIndex,
    pub membership: Membership,
}

struct Write {
    number: WriteNumber,
    install: Option<SnapshotMeta>,
    state: Option<HardState>,
    entries: Vec<Entry>,
}

pub struct Member {
    pub config: Config,
    pub raft: Option<Raft>,
    pub disk: Disk,
    writes: VecDeque<Write>,
    synced: WriteNumber,
    held: VecDeque<Outgoing>,
    pub is_disk_stuck: bool,
    is_told_stuck: bool,
}

pub struct Packet {
    pub from: u64,
    pub to: u64,
    pub message: Message,
}

#[derive(Default)]
pub struct Cluster {
    pub members: BTreeMap<u64, Member>,
    pub under_way: VecDeque<Packet>,
    pub cut: BTreeSet<(u64, u64)>,
    pub said: Vec<String>,
    pub reads: Vec<String>,
}

impl Member {
    pub fn new(config: Config, start: Restored) -> Member {
        let disk = Disk {
            state: start.hard_state,
            base: start.log_base,
            entries: start.entries,
            applied: start.applied,
            membership: start.membership,
        };
        let mut member = Member {
            config,
            raft: None,
            disk,
            writes: VecDeque::new(),
            synced: WriteNumber::NONE,
            held: VecDeque::new(),
            is_disk_stuck: false,
            is_told_stuck: false,
        };
        member.start();
        member
    }

    pub fn start(&mut self) {
        let restored = Restored {
            hard_state: self.disk.state,
            log_base: self.disk.base,
            term_starts: Vec::new(),
            entries: self.disk.entries.clone(),
            applied: self.disk.applied,
            membership: self.disk.membership.clone(),
        };
        self.synced = WriteNumber::NONE;
        self.raft = Some(Raft::new(self.config.clone(), restored));
    }

    pub fn crash(&mut self) {
        self.raft = None;
        self.writes.clear();
        self.held.clear();
        self.config.seed += 1;
    }

    fn carry_out(&mut self, write: Write) {
        if let Some(snapshot) = write.install {
            self.disk.base = snapshot.last;
            self.disk.entries.clear();
            self.disk.applied = snapshot.last.index;
            self.disk.membership = snapshot.membership;
        }
        self.disk.state = write.state.unwrap_or(self.disk.state);
        for entry in write.entries {
            let slot = (entry.index.since(self.disk.base.index) - 1) as usize;
            self.disk.entries.truncate(slot);
            self.disk.entries.push(entry);
        }
    }
}

/// A payload as a story wrote it.
fn text(payload: &Bytes) -> String {
    String::from_utf8_lossy(payload).into_owned()
}

/// An entry in a few words.
pub fn say_entry(entry: &Entry) -> String {
    let at = format!("{}.{:?}", entry.index, entry.term);
    match entry.kind {
        EntryKind::Normal if entry.payload.is_empty() => format!("{at} (start of term)"),
        EntryKind::Normal => format!("{at} \"{}\"", text(&entry.payload)),
        EntryKind::ConfChange => match ConfChange::decode(&entry.payload) {
            Ok(change) => format!("{at} ({})", say_change(&change)),
            Err(error) => format!("{at} ({error})"),
        },
    }
}

fn say_change(change: &ConfChange) -> String {
    let steps: Vec<String> = change
        .steps
        .iter()
        .map(|step| match step {
            ConfStep::AddVoter(id) => format!("add {id}"),
            ConfStep::AddLearner(id) => format!("learner {id}"),
            ConfStep::Remove(id) => format!("remove {id}"),
        })
        .collect();
    let steps = steps.join(" ");
    match change.transition {
        Transition::Simple => steps,
        Transition::Joint { auto_leave: true } => format!("joint, ends by itself: {steps}"),
        Transition::Joint { auto_leave: false } => format!("joint: {steps}"),
        Transition::LeaveJoint => "end of joint".to_owned(),
    }
}

impl Cluster {
    pub fn say(&mut self, line: String) {
        self.said.push(line);
    }

    pub fn raft(&mut self, id: u64) -> &mut Raft {
        let member = self.members.get_mut(&id).expect("a member of the story");
        member.raft.as_mut().expect("it runs")
    }

    /// Everything `id` has to do by itself: its writes (unless its disk is stuck), what may leave,
    /// what is to be applied.
    pub fn settle(&mut self, id: u64) {
        let mut ready = Ready::new();
        loop {
            let member = self.members.get_mut(&id).expect("a member of the story");
            let Some(raft) = member.raft.as_mut() else {
                return;
            };
            raft.ready(&mut ready);
            if ready.is_empty() {
                break;
            }
            self.take(id, &mut ready);
            self.sync(id);
            self.release(id);
        }
        self.sync(id);
        self.release(id);
    }

    fn take(&mut self, id: u64, ready: &mut Ready) {
        if let Some(now) = ready.leadership {
            let role = match now.role {
                Role::Follower => "follower",
                Role::PreCandidate => "asks whether it could win",
                Role::Candidate => "candidate",
                Role::Leader => "leader",
            };
            let leader = match now.leader {
                Some(leader) if leader.0 != id => format!(" of {leader}"),
                _ => String::new(),
            };
            self.say(format!("{id}: {role}{leader} in {:?}", now.term));
        }
        let member = self.members.get_mut(&id).expect("a member of the story");
        if ready.write != WriteNumber::NONE {
            member.writes.push_back(Write {
                number: ready.write,
                install: ready.install.take(),
                state: ready.hard_state,
                entries: std::mem::take(&mut ready.entries),
            });
        }
        member.held.extend(ready.messages.drain(..));
        for entry in std::mem::take(&mut ready.committed) {
            self.apply(id, &entry);
        }
        for read in ready.read_states.drain(..) {
            let name = self.reads[read.context as usize].clone();
            self.say(format!("{id}: read {name} may start at {}", read.index));
        }
        for context in ready.reads_failed.drain(..) {
            let name = self.reads[context as usize].clone();
            self.say(format!("{id}: read {name} failed"));
        }
        for load in ready.loads.drain(..) {
            let member = self.members.get_mut(&id).expect("a member of the story");
            let base = member.disk.base.index;
            let range = load.from.since(base) as usize - 1..load.through.since(base) as usize;
            let entries = member.disk.entries[range].to_vec();
            self.raft(id).on_entries_loaded(load.id, entries);
        }
        for request in ready.snapshots.drain(..) {
            self.send_snapshot(id, request);
        }
        if let Some(trim) = ready.trim {
            let disk = &mut self
                .members
                .get_mut(&id)
                .expect("a member of the story")
                .disk;
            disk.entries
                .drain(..trim.index.since(disk.base.index) as usize);
            disk.base = trim;
            self.say(format!("{id}: its log now begins behind {}", trim.index));
        }
    }

    fn apply(&mut self, id: u64, entry: &Entry) {
        self.say(format!("{id}: applies {}", say_entry(entry)));
        let raft = self.raft(id);
        if entry.kind == EntryKind::ConfChange {
            let change = ConfChange::decode(&entry.payload).ok();
            let now = say_members(raft.apply_conf_change(entry.index, change.as_ref()));
            self.say(format!("{id}: {now}"));
        }
        self.raft(id).on_applied(entry.index);
    }

    fn send_snapshot(&mut self, id: u64, request: SnapshotRequest) {
        let raft = self.raft(id);
        let applied = raft.status().applied;
        let snapshot = raft.snapshot_meta(applied).expect("of the state applied");
        let message = Message {
            term: raft.status().term,
            body: Body::Snapshot { snapshot },
        };
        self.post(id, request.to.0, message);
        self.raft(id).on_snapshot_sent(request.to, Some(applied));
    }

    /// Lets the disk of `id` finish what it holds, unless it is stuck.
    fn sync(&mut self, id: u64) {
        let member = self.members.get_mut(&id).expect("a member of the story");
        if member.is_disk_stuck {
            let is_news = !member.writes.is_empty() && !member.is_told_stuck;
            if is_news {
                member.is_told_stuck = true;
                self.say(format!("{id}: its disk does not answer"));
            }
            return;
        }
        member.is_told_stuck = false;
        let mut number = WriteNumber::NONE;
        while let Some(write) = member.writes.pop_front() {
            number = write.number;
            member.carry_out(write);
        }
        if number > member.synced {
            member.synced = number;
            self.raft(id).on_synced(number);
        }
    }

    /// Sends what its write allows.
    fn release(&mut self, id: u64) {
        let member = self.members.get_mut(&id).expect("a member of the story");
        let held = std::mem::take(&mut member.held);
        let synced = member.synced;
        for out in held {
            if out.after <= synced {
                self.post(id, out.to.0, out.message);
            } else {
                let member = self.members.get_mut(&id).expect("a member of the story");
                member.held.push_back(out);
            }
        }
    }

    fn post(&mut self, from: u64, to: u64, message: Message) {
        let what = describe(&message);
        if self.cut.contains(&(from, to)) || !self.members.contains_key(&to) {
            self.say(format!("{from} -> {to}: {what}  (lost)"));
            return;
        }
        self.say(format!("{from} -> {to}: {what}"));
        self.under_way.push_back(Packet { from, to, message });
    }

    /// The oldest message that `fits` arrives; `false` if there is none.
    pub fn deliver_one(&mut self, fits: impl Fn(&Packet) -> bool) -> bool {
        let Some(slot) = self.under_way.iter().position(fits) else {
            return false;
        };
        let packet = self.under_way.remove(slot).expect("found");
        let member = self.members.get_mut(&packet.to).expect("posted to one");
        match member.raft.as_mut() {
            None => self.say(format!("{} is down", packet.to)),
            Some(raft) => {
                let before = raft.ignored();
                raft.step(MemberId(packet.from), packet.message);
                let after = raft.ignored();
                for reason in Ignored::ALL {
                    if after.get(reason) > before.get(reason) {
                        self.say(format!("{}: ignored, {reason:?}", packet.to));
                    }
                }
                self.settle(packet.to);
            }
        }
        true
    }
}
