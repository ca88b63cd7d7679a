//! The end of a run: everything works again, and the cluster must show that it lives.

use consensus::*;

use crate::clients::Outcome;
use crate::network::{Slot, id_of, slot_of};
use crate::oracle::{Property, Violation, broken};
use crate::plan::TICK;
use crate::world::{Event, World};

/// Election timeouts until a leader is there and everybody has everything.
const SETTLE_TIMEOUTS: u64 = 60;

/// Election timeouts until a write and a read at every member are answered.
const SERVE_TIMEOUTS: u64 = 10;

/// Election timeouts for which a member is deaf; enough for it to campaign.
const CALM_TIMEOUTS: u64 = 3;

impl World {
    /// Ends all faults and checks what must then follow.
    pub fn finish(&mut self) -> Result<(), Violation> {
        self.end_faults()?;
        self.settle()?;
        self.serve()?;
        self.stay_calm()?;
        if let Err(what) = self.clients.check() {
            return broken(Property::Linearizable, what);
        }
        for slot in 0..self.members.len() {
            self.count_process(slot);
        }
        let answered = self.clients.answered() as u64;
        self.coverage.add("operations answered", answered);
        self.coverage
            .add("entries committed", self.oracle.committed().0);
        self.coverage
            .add("terms with a leader", self.oracle.terms() as u64);
        Ok(())
    }

    fn end_faults(&mut self) -> Result<(), Violation> {
        self.is_quiet = true;
        self.note(&[20], || "faults end".to_owned());
        self.network.heal_all();
        for slot in 0..self.members.len() {
            // A member that cannot win raises the term with each try where nobody is asked first. One
            // that can, and that the other does not know, wins when its next try comes sooner: it does
            // not where one clock runs at twice the speed of the other.
            if !self.plan.config.pre_vote {
                self.members[slot].tick_every = TICK;
            }
            let (now, disk) = (self.now, &mut self.members[slot].disk);
            disk.stalled_until = disk.stalled_until.min(now);
            disk.slow_until = disk.slow_until.min(now);
            if let Some(process) = &mut self.members[slot].process {
                process.apply_stalled_until = process.apply_stalled_until.min(now);
            }
            self.wake(slot)?;
            if self.members[slot].process.is_none() {
                self.start(slot);
            }
        }
        Ok(())
    }

    fn timeout(&self) -> u64 {
        // Ticks may be slow.
        let ticks = u64::from(self.plan.config.election_ticks);
        ticks * TICK * (1000 + self.plan.clock_spread) / 1000
    }

    /// Runs until `done` finds nothing missing, within so many election timeouts; otherwise what is
    /// missing breaks [`Property::Progress`].
    fn wait_for(
        &mut self,
        timeouts: u64,
        done: impl Fn(&World) -> Result<(), String>,
    ) -> Result<u64, Violation> {
        let (began, end) = (self.now, self.now + timeouts * self.timeout());
        loop {
            let missing = match done(self) {
                Ok(()) => return Ok((self.now - began) / self.timeout()),
                Err(missing) => missing,
            };
            if self.now >= end {
                let states: Vec<String> = (0..self.members.len())
                    .map(|slot| self.describe_member(slot))
                    .collect();
                let what = format!(
                    "after {timeouts} election timeouts: {missing}\n  {}",
                    states.join("\n  ")
                );
                return broken(Property::Progress, what);
            }
            self.run_until(self.now + TICK / 2)?;
            self.tend()?;
        }
    }

    /// What an operator does: end a joint membership that does not end by itself, and switch off
    /// members that were removed where nothing else would keep those that do not know it from
    /// disturbing (thesis section 4.2.3: pre-vote and check-quorum do).
    fn tend(&mut self) -> Result<(), Violation> {
        let Some(leader) = self.leader() else {
            // Nobody can tell who is a member.
            for slot in 0..self.members.len() {
                if self.members[slot].process.is_none() {
                    self.start(slot);
                }
            }
            return Ok(());
        };
        let raft = &mut self.process(leader).raft;
        let membership = raft.membership().clone();
        if membership.is_joint() && !membership.auto_leave {
            // Refused while a change is under way; then it is tried again.
            let _ = raft.propose_conf_change(&ConfChange::leave_joint());
            self.input_done(leader)?;
        }
        if self.is_safe_from_disturbance() {
            return Ok(());
        }
        for slot in 0..self.members.len() {
            let is_member = membership.contains(id_of(slot));
            match self.members[slot].process.is_some() {
                true if !is_member && slot != leader => self.switch_off(slot),
                false if is_member => self.start(slot),
                _ => {}
            }
        }
        Ok(())
    }

    /// Nobody who does not hear the leader can unseat it.
    fn is_safe_from_disturbance(&self) -> bool {
        self.plan.config.pre_vote && self.plan.config.check_quorum
    }

    /// A leader, and everybody has and applied what it has.
    fn settle(&mut self) -> Result<(), Violation> {
        let took = self.wait_for(SETTLE_TIMEOUTS, World::missing)?;
        self.coverage.add("election timeouts until settled", took);
        Ok(())
    }

    /// What the cluster lacks to be settled.
    fn missing(&self) -> Result<(), String> {
        let leader = self.leader().ok_or("there is no leader")?;
        let raft = self.members[leader].raft().ok_or("the leader is down")?;
        let status = raft.status();
        let membership = raft.membership();
        if membership.is_joint() {
            return Err("the membership is joint".into());
        }
        if !status.is_voter {
            return Err(format!("leader {} is no voter", status.id));
        }
        if let Some(to) = status.transferee {
            return Err(format!("leader {} hands over to {to}", status.id));
        }
        if status.commit != status.last_index {
            return Err(format!("{} is not committed", status.last_index));
        }
        for id in membership.members() {
            let other = self.members[slot_of(id)].raft();
            let Some(other) = other.map(Raft::status) else {
                return Err(format!("member {id} is down"));
            };
            if other.leader != Some(status.id) || other.applied != status.commit {
                return Err(format!(
                    "member {id} follows {:?} and applied {} of {}",
                    other.leader, other.applied, status.commit
                ));
            }
        }
        self.oracle.check_equal(&self.members, membership)
    }

    /// A write and then a read at every member.
    fn serve(&mut self) -> Result<(), Violation> {
        let leader = self.leader().expect("settled");
        let members = self.process(leader).raft.membership().members();
        for reads in [0, 1000] {
            for id in &members {
                self.serve_one(slot_of(*id), reads)?;
            }
        }
        self.wait_for(SERVE_TIMEOUTS, World::missing)?;
        Ok(())
    }

    /// Asks at one member until it is answered: a hand-over that was begun before refuses for a
    /// while, and what was forwarded then is lost without a word.
    fn serve_one(&mut self, slot: Slot, reads: u64) -> Result<(), Violation> {
        let (nobody, end) = (
            self.plan.clients,
            self.now + SERVE_TIMEOUTS * self.timeout(),
        );
        while self.is_member(slot)
            && let Some(operation) = self
                .clients
                .ask(nobody, slot, reads, true, &mut self.random)
        {
            self.plan_in(1, Event::Ask { slot, operation });
            self.plan_in(2 * self.timeout(), Event::GiveUp { operation });
            let outcome = |world: &World| world.clients.ops[operation as usize].outcome;
            let left = (end.saturating_sub(self.now)) / self.timeout();
            self.wait_for(left, |world| {
                let op = world.clients.ops[operation as usize];
                match op.outcome {
                    Outcome::Open => Err(format!("{:?} at {} waits", op.ask, id_of(slot))),
                    _ => Ok(()),
                }
            })?;
            if matches!(outcome(self), Outcome::Done(_)) {
                return Ok(());
            }
            self.run_until(self.now + TICK)?;
        }
        Ok(())
    }

    /// A change that was on its way when faults ended may have removed a member since.
    fn is_member(&self, slot: Slot) -> bool {
        let leader = self.leader().and_then(|leader| self.members[leader].raft());
        leader.is_none_or(|raft| raft.membership().contains(id_of(slot)))
    }

    /// With pre-vote and check-quorum nobody unseats a leader that a quorum hears: neither a member
    /// that is deaf for a while, nor the same when it hears again.
    fn stay_calm(&mut self) -> Result<(), Violation> {
        if !self.is_safe_from_disturbance() {
            return Ok(());
        }
        // What a leader missed while faults lasted may still cost it its office.
        self.run_until(self.now + 2 * self.timeout())?;
        self.wait_for(SETTLE_TIMEOUTS, World::missing)?;
        let leader = self.leader().expect("settled");
        let before = self.process(leader).raft.status();
        let machines = self.members.len();
        let deaf = (leader + 1 + self.random.below(machines as u64) as usize) % machines;
        let voters = self.process(leader).raft.membership().voters.len();
        let has_quorum =
            voters >= 3 || !self.process(leader).raft.membership().is_voter(id_of(deaf));
        let cut = self
            .network
            .cut(machines, |_, to| has_quorum && to == deaf && deaf != leader);
        self.note(&[22, deaf as u64], || {
            format!("{} hears nothing", id_of(deaf))
        });
        self.run_until(self.now + CALM_TIMEOUTS * self.timeout())?;
        self.network.heal(cut);
        self.note(&[23, deaf as u64], || {
            format!("{} hears again", id_of(deaf))
        });
        self.run_until(self.now + self.timeout())?;
        let after = self.process(leader).raft.status();
        if (after.role, after.term) != (before.role, before.term) {
            let what = format!("leader {} was unseated: {after:?}", before.id);
            return broken(Property::Calm, what);
        }
        Ok(())
    }
}
