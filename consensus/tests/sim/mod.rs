//! A whole cluster in one thread and virtual time: members with disks that lose what was not
//! synced, a network that loses, doubles, delays and reorders, clients that write and read, and an
//! oracle that checks every step.
//!
//! Always true: a seed decides everything. A failing run names its seed; `CONSENSUS_SEED=n cargo
//! test -p consensus --test simulation one_seed` replays it. Drives only the public interface, as a
//! server would. Does not model a disk that lies or damages what was synced (but for the canary
//! that must be caught).

#![allow(dead_code)]

pub mod member;
pub mod network;
pub mod oracle;
pub mod random;

use std::collections::BTreeMap;

use bytes::Bytes;
use consensus::*;

use member::Member;
use network::{Network, Packet};
use oracle::Oracle;
use random::Random;

/// What may go wrong, and how often: chances are per mille and step.
#[derive(Clone, Debug)]
pub struct Faults {
    pub drop: u64,
    pub duplicate: u64,
    pub delay_max: u64,
    pub crash: u64,
    pub restart: u64,
    pub partition: u64,
    pub heal: u64,
    pub write_steps_max: u64,
    pub stall: u64,
    pub conf_change: u64,
    pub transfer: u64,
    pub campaign: u64,
    /// Packets that take up to fifty times as long.
    pub late: u64,
    /// How often a member gets to apply something.
    pub apply: u64,
    /// The disk says "durable" before it is. Raft cannot survive this: the oracle must notice.
    pub lying_disk: bool,
}

impl Faults {
    pub fn none() -> Faults {
        Faults {
            drop: 0,
            duplicate: 0,
            delay_max: 1,
            crash: 0,
            restart: 1000,
            partition: 0,
            heal: 1000,
            write_steps_max: 1,
            stall: 0,
            conf_change: 0,
            transfer: 0,
            campaign: 0,
            late: 0,
            apply: 1000,
            lying_disk: false,
        }
    }

    /// Some mixture of everything. Each fault is calm in most runs and wild in some: what breaks a
    /// protocol is rarely everything at once, but two things at the wrong time.
    pub fn drawn(random: &mut Random) -> Faults {
        let mut wild = |calm: u64, wild: u64| {
            let bound = if random.chance(250) { wild } else { calm };
            random.below(bound + 1)
        };
        Faults {
            drop: wild(40, 200),
            duplicate: wild(30, 150),
            delay_max: 1 + wild(8, 60),
            crash: wild(2, 8),
            restart: 5 + wild(30, 100),
            partition: wild(4, 12),
            heal: 5 + wild(15, 30),
            write_steps_max: 1 + wild(8, 120),
            stall: wild(2, 6),
            conf_change: wild(8, 40),
            transfer: wild(3, 12),
            campaign: wild(2, 40),
            late: wild(0, 100),
            apply: 1000 - wild(300, 990),
            lying_disk: false,
        }
    }
}

pub struct Sim {
    pub random: Random,
    pub faults: Faults,
    pub now: u64,
    pub members: BTreeMap<MemberId, Member>,
    pub network: Network,
    pub oracle: Oracle,
    next_payload: u64,
    next_context: u64,
    load_chance: u64,
    /// Steps in one tick.
    pub tick_steps: u64,
}

/// Every machine the cluster may ever have.
pub const POOL: u64 = 6;

impl Sim {
    /// A cluster of `voters` members and some machines that may join later.
    pub fn new(seed: u64, voters: u64, faults: Faults, tune: impl Fn(&mut Config)) -> Sim {
        let mut random = Random::new(seed);
        let membership = Membership::new((1..=voters).map(MemberId), []);
        let mut members = BTreeMap::new();
        for id in (1..=POOL.max(voters)).map(MemberId) {
            let mut config = Config::new(id, random.next());
            // Small bounds, so that a short run meets all of them.
            config.inflight_messages_max = 4;
            config.inflight_entries_max = 40;
            config.message_entries_max = 8;
            config.message_bytes_max = 600;
            config.inflight_bytes_max = 4000;
            config.cache_bytes_max = 1500;
            config.apply_entries_max = 16;
            config.uncommitted_bytes_max = 8000;
            config.forward_entries_max = 20;
            config.trim_every_entries = 40;
            config.trim_keep_entries = 20;
            config.trim_hold_entries_max = 60;
            tune(&mut config);
            let known = if id.0 <= voters {
                membership.clone()
            } else {
                Membership::default()
            };
            members.insert(id, Member::new(config, known, &mut random));
        }
        Sim {
            random,
            faults,
            now: 0,
            members,
            network: Network::default(),
            oracle: Oracle::new(membership),
            next_payload: 1,
            next_context: 1,
            load_chance: 300,
            tick_steps: 10,
        }
    }

    /// One step of virtual time. `Err` says which property broke.
    pub fn step(&mut self) -> Result<(), String> {
        self.now += 1;
        self.inject();
        self.client_load();
        while let Some(packet) = self.network.due(self.now) {
            self.deliver(packet);
        }
        let ids: Vec<MemberId> = self.members.keys().copied().collect();
        for id in ids {
            let member = self.members.get_mut(&id).expect("known");
            if !member.is_up() {
                continue;
            }
            member.maybe_tick(self.now, self.tick_steps, &mut self.random);
            member.run(self.now, &self.faults, &mut self.random, &mut self.oracle)?;
            let packets = std::mem::take(&mut member.outbox);
            for packet in packets {
                self.network
                    .send(packet, self.now, &self.faults, &mut self.random);
            }
        }
        self.oracle.check(&self.members)
    }

    pub fn run(&mut self, steps: u64) -> Result<(), String> {
        for _ in 0..steps {
            self.step()
                .map_err(|what| format!("step {}: {what}", self.now))?;
        }
        Ok(())
    }

    /// Runs until `done`, or fails after `steps`.
    pub fn run_until(
        &mut self,
        steps: u64,
        what: &str,
        done: impl Fn(&Sim) -> bool,
    ) -> Result<(), String> {
        for _ in 0..steps {
            if done(self) {
                return Ok(());
            }
            self.step()
                .map_err(|what| format!("step {}: {what}", self.now))?;
        }
        let states: Vec<_> = self.members.values().map(|m| m.describe()).collect();
        Err(format!(
            "step {}: never {what}:\n{}",
            self.now,
            states.join("\n")
        ))
    }

    /// Everything works again: the cluster must elect a leader, take a write and bring it to every
    /// member.
    pub fn recover(&mut self) -> Result<(), String> {
        self.faults = Faults::none();
        self.network.heal();
        for member in self.members.values_mut() {
            if !member.is_up() {
                member.restart(&mut self.random);
            }
            member.unstall();
        }
        self.load_chance = 0;
        // Long enough for pending transfers, joint states and snapshots to come to their end.
        self.run(600)?;
        self.run_until(3000, "a leader", |sim| sim.leader().is_some())?;
        let mut index = None;
        for _ in 0..400 {
            if let Some(leader) = self.leader()
                && let Ok(at) = self.propose_at(leader)
            {
                index = Some(at);
                break;
            }
            self.run(10)?;
        }
        let index = index.ok_or("no proposal was taken after recovery")?;
        self.run_until(3000, "applied everywhere", |sim| {
            let Some(leader) = sim.leader() else {
                return false;
            };
            let members = sim.members[&leader].raft().membership().members();
            members
                .iter()
                .all(|id| sim.members[id].app.applied >= index)
        })
    }

    /// The leader with the highest term.
    pub fn leader(&self) -> Option<MemberId> {
        let up = self
            .members
            .values()
            .filter(|m| m.is_up())
            .map(|m| m.raft().status());
        up.filter(|s| s.role == Role::Leader)
            .max_by_key(|s| s.term)
            .map(|s| s.id)
    }

    pub fn propose_at(&mut self, id: MemberId) -> Result<LogIndex, ProposeError> {
        let payload = self.payload();
        self.members
            .get_mut(&id)
            .expect("known")
            .raft_mut()
            .propose(payload)
    }

    fn payload(&mut self) -> Bytes {
        self.next_payload += 1;
        let mut payload = self.next_payload.to_le_bytes().to_vec();
        payload.resize(8 + self.random.below(120) as usize, 7);
        payload.into()
    }

    fn up(&mut self) -> Option<MemberId> {
        let up: Vec<MemberId> = self
            .members
            .values()
            .filter(|m| m.is_up())
            .map(|m| m.id)
            .collect();
        (!up.is_empty()).then(|| up[self.random.below(up.len() as u64) as usize])
    }

    fn client_load(&mut self) {
        if !self.random.chance(self.load_chance) {
            return;
        }
        let Some(id) = self.up() else { return };
        for _ in 0..1 + self.random.below(3) {
            let payload = self.payload();
            let raft = self.members.get_mut(&id).expect("known").raft_mut();
            let proposed = raft.propose(payload.clone());
            if let Err(ProposeError::NotLeader { leader: Some(_) }) = proposed {
                let _ = raft.forward(payload);
            }
        }
        if let Some(id) = self.up() {
            self.next_context += 1;
            let member = self.members.get_mut(&id).expect("known");
            if member.raft_mut().read_index(self.next_context).is_ok() {
                self.oracle.read_asked(id, self.next_context);
            }
        }
    }

    fn inject(&mut self) {
        let faults = self.faults.clone();
        let r = &mut self.random;
        let ids: Vec<MemberId> = self.members.keys().copied().collect();
        let any = ids[r.below(ids.len() as u64) as usize];
        if r.chance(faults.partition) {
            self.network.partition(&ids, r);
        }
        if r.chance(faults.heal) {
            self.network.heal();
        }
        if r.chance(faults.stall) {
            self.members
                .get_mut(&any)
                .expect("known")
                .stall(self.now + r.below(300));
        }
        for member in self.members.values_mut() {
            if member.is_up() && r.chance(faults.crash) {
                member.crash(r);
            } else if !member.is_up() && r.chance(faults.restart) {
                member.restart(r);
            }
        }
        if r.chance(faults.campaign)
            && let Some(id) = self.up()
        {
            self.members
                .get_mut(&id)
                .expect("known")
                .raft_mut()
                .campaign();
        }
        let r = &mut self.random;
        if r.chance(faults.transfer)
            && let Some(id) = self.leader()
        {
            let _ = self
                .members
                .get_mut(&id)
                .expect("known")
                .raft_mut()
                .transfer_leadership(any);
        }
        if self.random.chance(faults.conf_change)
            && let Some(id) = self.leader()
        {
            let change = self.some_change(&ids);
            let _ = self
                .members
                .get_mut(&id)
                .expect("known")
                .raft_mut()
                .propose_conf_change(&change);
        }
    }

    fn some_change(&mut self, ids: &[MemberId]) -> ConfChange {
        let r = &mut self.random;
        let mut step = || {
            let id = ids[r.below(ids.len() as u64) as usize];
            match r.below(5) {
                0 | 1 => ConfStep::AddVoter(id),
                2 => ConfStep::AddLearner(id),
                _ => ConfStep::Remove(id),
            }
        };
        let steps = [step(), step(), step()];
        match r.below(5) {
            0 | 1 => ConfChange::simple(steps[0]),
            2 => ConfChange::joint(steps.to_vec(), true),
            3 => ConfChange::joint(steps[..2].to_vec(), false),
            _ => ConfChange::leave_joint(),
        }
    }

    fn deliver(&mut self, packet: Packet) {
        if let Some(sender) = packet.snapshot_sender() {
            let taken = self.members[&packet.to].is_up() && !packet.is_lost;
            if let Some(member) = self.members.get_mut(&sender).filter(|m| m.is_up()) {
                let index = taken.then_some(packet.snapshot.as_ref().expect("a snapshot").applied);
                member.raft_mut().on_snapshot_sent(packet.to, index);
            }
        }
        let member = self.members.get_mut(&packet.to).expect("known");
        if member.is_up() && !packet.is_lost {
            member.receive(packet);
        }
    }
}
