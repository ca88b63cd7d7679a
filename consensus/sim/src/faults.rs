//! What goes wrong and what is asked for while a run is not quiet, and what clients do.

use consensus::*;

use crate::clients::Outcome;
use crate::network::{Slot, id_of};
use crate::oracle::Violation;
use crate::plan::{Fault, TICK};
use crate::random::fold;
use crate::world::{Event, World};

impl World {
    // ---- clients ----

    /// A client asks its next question: mostly where it was answered last, for an old leader is found
    /// out by those that stay with it.
    pub fn think(&mut self, client: usize) {
        if self.is_quiet {
            return;
        }
        let slot = match self.homes[client] {
            Some(home) if self.random.chance(700) => home,
            _ => self.some_member(500),
        };
        let reads = self.plan.reads;
        let asked = self
            .clients
            .ask(client, slot, reads, false, &mut self.random);
        let Some(operation) = asked else { return };
        let delay = self.random.below(50);
        self.plan_in(delay, Event::Ask { slot, operation });
        let patience = self.random.between(5, 60) * TICK;
        self.plan_in(patience, Event::GiveUp { operation });
    }

    /// Notes the end of an operation; its client goes on.
    pub fn end_operation(&mut self, operation: u64, outcome: Outcome) {
        let Some(client) = self.clients.end(operation, outcome) else {
            return;
        };
        let words = [9, operation, u64::from(outcome == Outcome::Refused)];
        let op = self.clients.ops[operation as usize];
        self.note(&words, || {
            format!(
                "client {client}: operation {operation} ({:?} of register {} at {}) is {outcome:?}",
                op.ask,
                op.register,
                id_of(op.slot)
            )
        });
        if client < self.plan.clients {
            let is_answered = matches!(outcome, Outcome::Done(_));
            self.homes[client] = is_answered.then_some(op.slot);
            let pause = self.random.below(self.plan.think_max);
            self.plan_in(pause, Event::Think { client });
        }
    }

    // ---- choices ----

    /// The leader of the latest term.
    pub fn leader(&self) -> Option<Slot> {
        let leads = |slot: &Slot| {
            let status = self.members[*slot].raft().map(Raft::status)?;
            (status.role == Role::Leader).then_some((status.term, *slot))
        };
        let all = 0..self.members.len();
        all.filter_map(|slot| leads(&slot))
            .max()
            .map(|(_, slot)| slot)
    }

    /// A member, more often the leader.
    fn some_member(&mut self, leader_chance: u64) -> Slot {
        let any = self.random.below(self.members.len() as u64) as usize;
        match self.leader() {
            Some(leader) if self.random.chance(leader_chance) => leader,
            _ => any,
        }
    }

    fn duration(&mut self) -> u64 {
        self.random.between(TICK / 4, self.plan.fault_max)
    }

    pub fn set_clock(&mut self, slot: Slot) {
        let spread = self.plan.clock_spread;
        // Often as far off as may be: that is where a wrong bound shows.
        let off = match self.random.below(4) {
            0 => 0,
            1 => 2 * spread,
            _ => self.random.below(2 * spread + 1),
        };
        self.members[slot].tick_every = TICK * (1000 + off - spread) / 1000;
    }

    // ---- faults ----

    /// Something happens; the next one is planned.
    pub fn fault(&mut self) -> Result<(), Violation> {
        if self.is_quiet {
            return Ok(());
        }
        let pause = self.random.below(2 * self.plan.fault_every + 1);
        self.plan_in(pause, Event::Fault);
        let total: u64 = self.plan.weights.iter().sum();
        let mut ticket = self.random.below(total);
        for (fault, weight) in Fault::ALL.into_iter().zip(self.plan.weights) {
            if ticket < weight {
                return self.inject(fault);
            }
            ticket -= weight;
        }
        Ok(())
    }

    fn inject(&mut self, fault: Fault) -> Result<(), Violation> {
        let machines = self.members.len();
        match fault {
            Fault::Crash => {
                let slot = self.some_member(500);
                self.crash(slot);
            }
            Fault::PowerLoss => {
                for slot in 0..machines {
                    if self.random.chance(700) {
                        self.crash(slot);
                    }
                }
            }
            Fault::Pause => {
                let slot = self.some_member(600);
                self.pause(slot);
            }
            Fault::Partition => {
                let side: Vec<bool> = (0..machines).map(|_| self.random.chance(500)).collect();
                let is_one_way = self.random.chance(250);
                self.cut(|from, to| side[from] != side[to] && (side[from] || !is_one_way));
            }
            Fault::Isolate => {
                let alone = self.some_member(600);
                let kind = self.random.below(4);
                self.cut(|from, to| match kind {
                    0 => from == alone,
                    1 => to == alone,
                    _ => from == alone || to == alone,
                });
            }
            Fault::Links => {
                let bits = self.random.draw();
                self.cut(|from, to| bits >> (8 * from + to) & 1 == 1);
            }
            Fault::DiskStall => {
                let slot = self.some_member(600);
                let until = self.now + self.duration();
                self.members[slot].disk.stalled_until = until;
                self.coverage.add("disk stalls", 1);
                self.note(&[10, slot as u64, until], || {
                    format!("disk of {} stands still", id_of(slot))
                });
            }
            Fault::DiskSlow => {
                let slot = self.some_member(500);
                let until = self.now + self.duration();
                self.members[slot].disk.slow_until = until;
                self.note(&[11, slot as u64, until], || {
                    format!("disk of {} is slow", id_of(slot))
                });
            }
            Fault::ApplyStall => {
                let slot = self.some_member(500);
                let until = self.now + self.duration();
                if let Some(process) = &mut self.members[slot].process {
                    process.apply_stalled_until = until;
                }
                self.note(&[21, slot as u64, until], || {
                    format!("{} applies nothing for a while", id_of(slot))
                });
            }
            Fault::Storm => {
                let until = self.now + self.duration();
                let extra = TICK * self.random.between(1, 12);
                self.network.storm = (until, extra);
                self.note(&[12, until, extra], || "the network is slow".to_owned());
            }
            Fault::ClockRate => {
                let slot = self.some_member(500);
                self.set_clock(slot);
                let every = self.members[slot].tick_every;
                self.note(&[13, slot as u64, every], || {
                    format!("clock of {} ticks every {every}", id_of(slot))
                });
            }
            Fault::Transfer => return self.transfer(),
            Fault::Campaign => {
                let slot = self.some_member(0);
                return self.campaign(slot);
            }
            Fault::Coup => self.coup(),
            Fault::Change => {
                let count = self.random.pick(&[1, 1, 1, 3]);
                for _ in 0..count {
                    self.change()?;
                }
            }
        }
        Ok(())
    }

    pub fn campaign(&mut self, slot: Slot) -> Result<(), Violation> {
        let is_quiet = self.is_quiet;
        let Some(process) = self.running(slot).filter(|_| !is_quiet) else {
            return Ok(());
        };
        process.raft.campaign();
        self.note(&[14, slot as u64], || {
            format!("{} is told to campaign", id_of(slot))
        });
        self.input_done(slot)
    }

    /// Silences the leader and sends the others after its office, while clients still know it.
    fn coup(&mut self) {
        let Some(leader) = self.leader() else { return };
        match self.random.below(3) {
            0 => self.pause(leader),
            1 => self.cut(|from, _| from == leader),
            _ => self.cut(|from, to| from == leader || to == leader),
        }
        for slot in 0..self.members.len() {
            if slot != leader && self.random.chance(500) {
                let soon = self.random.below(3 * TICK);
                self.plan_in(soon, Event::Campaign { slot });
            }
        }
        self.coverage.add("coups", 1);
    }

    /// The process at `slot`, if it runs and is not paused.
    fn running(&mut self, slot: Slot) -> Option<&mut crate::member::Process> {
        let member = &mut self.members[slot];
        match member.is_paused() {
            true => None,
            false => member.process.as_mut(),
        }
    }

    fn crash(&mut self, slot: Slot) {
        if self.members[slot].process.is_none() {
            return;
        }
        self.coverage.add("crashes", 1);
        self.switch_off(slot);
        let life = self.members[slot].life;
        // Often it is started again at once.
        let down = match self.random.chance(400) {
            true => self.random.below(TICK),
            false => self.duration(),
        };
        self.plan_in(down, Event::Restart { slot, life });
    }

    /// The process dies, and everything that was on its way into it.
    pub fn switch_off(&mut self, slot: Slot) {
        self.count_process(slot);
        let member = &mut self.members[slot];
        let dropped = member.deferred.take().unwrap_or_default();
        if member.crash(&mut self.random) {
            self.coverage.add("writes torn", 1);
        }
        for event in dropped {
            if let Event::Deliver { packet, .. } = event {
                self.take_packet(packet);
            }
        }
        self.note(&[15, slot as u64], || format!("{} crashes", id_of(slot)));
    }

    /// Adds what the process at `slot` counted.
    pub fn count_process(&mut self, slot: Slot) {
        let Some(raft) = self.members[slot].raft() else {
            return;
        };
        let (ignored, stalls) = (raft.ignored(), raft.disk_stalls());
        self.coverage.add_ignored(ignored);
        self.coverage
            .add("leaders that gave up a stalled disk", stalls);
    }

    fn pause(&mut self, slot: Slot) {
        let member = &mut self.members[slot];
        if member.process.is_none() || member.is_paused() {
            return;
        }
        member.deferred = Some(Vec::new());
        let life = member.life;
        self.coverage.add("pauses", 1);
        self.note(&[16, slot as u64], || {
            format!("{} stands still", id_of(slot))
        });
        let still = self.duration();
        self.plan_in(still, Event::Wake { slot, life });
    }

    fn cut(&mut self, is_cut: impl FnMut(Slot, Slot) -> bool) {
        let machines = self.members.len();
        let number = self.network.cut(machines, is_cut);
        let heals_in = self.duration();
        self.coverage.add("partitions", 1);
        self.plan_in(heals_in, Event::Heal { number });
        let mut links = Vec::new();
        for from in 0..machines {
            for to in 0..machines {
                if self.network.is_cut(from, to) {
                    links.push((from, to));
                }
            }
        }
        let digest = links.iter().fold(number, |digest, (from, to)| {
            fold(digest, (8 * from + to) as u64)
        });
        self.note(&[17, digest], || {
            let words: Vec<String> = links
                .iter()
                .map(|(from, to)| format!("{}->{}", id_of(*from), id_of(*to)))
                .collect();
            format!("links cut: {}", words.join(" "))
        });
    }

    fn transfer(&mut self) -> Result<(), Violation> {
        let to = self.some_member(0);
        let Some(slot) = self.leader() else {
            return Ok(());
        };
        let Some(process) = self.running(slot) else {
            return Ok(());
        };
        if process.raft.transfer_leadership(id_of(to)).is_ok() {
            self.coverage.add("transfers", 1);
        }
        self.note(&[18, slot as u64, to as u64], || {
            format!("{} is asked to hand over to {}", id_of(slot), id_of(to))
        });
        self.input_done(slot)
    }

    fn change(&mut self) -> Result<(), Violation> {
        let change = self.some_change();
        let slot = self.some_member(800);
        let digest = change
            .encode()
            .iter()
            .fold(0, |digest, byte| fold(digest, u64::from(*byte)));
        let Some(process) = self.running(slot) else {
            return Ok(());
        };
        let raft = &mut process.raft;
        let taken = match raft.propose_conf_change(&change) {
            Err(ProposeError::NotLeader { leader: Some(_) }) => {
                raft.forward_conf_change(&change).is_ok()
            }
            taken => taken.is_ok(),
        };
        self.note(&[19, slot as u64, digest, u64::from(taken)], || {
            let fate = if taken { "" } else { " and refuses" };
            format!(
                "{} is asked for {:?} {:?}{fate}",
                id_of(slot),
                change.transition,
                change.steps
            )
        });
        self.input_done(slot)
    }

    /// A change that makes sense for the members there are, most of the time.
    fn some_change(&mut self) -> ConfChange {
        let leader = self.leader();
        let raft = leader.and_then(|leader| self.members[leader].raft());
        let membership = raft.map_or(Membership::default(), |raft| raft.membership().clone());
        let machines = self.members.len() as u64;
        let r = &mut self.random;
        let mut step = || {
            let id = match leader {
                Some(leader) if r.chance(150) => id_of(leader),
                _ => id_of(r.below(machines) as usize),
            };
            let coin = r.below(10);
            match () {
                () if membership.is_learner(id) && coin < 6 => ConfStep::AddVoter(id),
                () if membership.is_voter(id) && coin < 6 => ConfStep::Remove(id),
                () if membership.is_voter(id) => ConfStep::AddLearner(id),
                () if coin < 5 => ConfStep::AddVoter(id),
                () if coin < 9 => ConfStep::AddLearner(id),
                () => ConfStep::Remove(id),
            }
        };
        let mut steps = vec![step(), step(), step()];
        match r.below(6) {
            0..=2 => ConfChange::simple(steps[0]),
            3 => ConfChange::joint(steps, true),
            4 => {
                steps.truncate(2);
                ConfChange::joint(steps, false)
            }
            _ if membership.is_joint() => ConfChange::leave_joint(),
            _ => ConfChange::simple(steps[0]),
        }
    }
}
