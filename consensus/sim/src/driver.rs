//! What a member's driver does with each input: it obeys the order contract of `Ready` and nothing
//! more, so that every delay the contract allows happens.

use consensus::*;

use crate::clients::Outcome;
use crate::disk::Write;
use crate::machine::Machine;
use crate::member::Process;
use crate::network::{Packet, Slot, id_of, slot_of};
use crate::oracle::{Property, Violation, broken};
use crate::plan::TICK;
use crate::trace::{describe, members};
use crate::world::{Event, World};

/// Ticks that a driver makes up for; if more are missing, the process stood still.
const MISSED_MAX: u64 = 2;

impl World {
    /// The running process at `slot`.
    pub fn process(&mut self, slot: Slot) -> &mut Process {
        self.members[slot].process.as_mut().expect("it runs")
    }

    pub fn start(&mut self, slot: Slot) {
        self.members[slot].start(&mut self.random);
        self.oracle.started(slot);
        let life = self.members[slot].life;
        self.note(&[2, slot as u64, u64::from(life)], || {
            format!("{} starts", id_of(slot))
        });
        let first = self.now + self.random.below(self.members[slot].tick_every);
        self.members[slot].next_tick_at = first;
        self.plan_at(first, Event::Tick { slot, life });
        self.wake_driver(slot);
    }

    /// Something arrived: the driver will look at it soon.
    fn wake_driver(&mut self, slot: Slot) {
        let life = self.members[slot].life;
        let delay = if self.is_quiet {
            self.random.below(10)
        } else {
            self.random.below(self.plan.turn_max)
        };
        let process = self.process(slot);
        if !std::mem::replace(&mut process.is_turn_due, true) {
            self.plan_in(delay, Event::Turn { slot, life });
        }
    }

    /// After an input: what it changed is looked at, and the driver will come by.
    pub fn input_done(&mut self, slot: Slot) -> Result<(), Violation> {
        self.wake_driver(slot);
        self.observe(slot)
    }

    pub fn tick(&mut self, slot: Slot) -> Result<(), Violation> {
        self.count_tick(slot)?;
        let member = &self.members[slot];
        let (at, life) = (member.next_tick_at, member.life);
        self.plan_at(at, Event::Tick { slot, life });
        Ok(())
    }

    fn count_tick(&mut self, slot: Slot) -> Result<(), Violation> {
        let member = &mut self.members[slot];
        member.next_tick_at += member.tick_every;
        let process = member.process.as_mut().expect("it runs");
        process.ticks += 1;
        process.raft.tick();
        self.check_stall(slot)?;
        self.input_done(slot)
    }

    /// A leader whose disk does not answer must be gone within an election timeout.
    fn check_stall(&mut self, slot: Slot) -> Result<(), Violation> {
        let member = &self.members[slot];
        let process = member.process.as_ref().expect("it runs");
        let status = process.raft.status();
        if status.role != Role::Leader || process.raft.membership().is_sole_voter(status.id) {
            return Ok(());
        }
        let age = member
            .disk
            .oldest_tick()
            .map_or(0, |tick| process.ticks - tick);
        if age > u64::from(self.plan.config.election_ticks) {
            let what = format!(
                "member {} leads on, its disk has not answered for {age} ticks",
                status.id
            );
            return broken(Property::StalledLeader, what);
        }
        Ok(())
    }

    pub fn deliver(&mut self, slot: Slot, place: usize) -> Result<(), Violation> {
        let packet = self.take_packet(place);
        // What is under way when faults end arrives soon or not at all.
        let is_left_over = self.is_quiet && packet.sent_at < self.plan.quiet_at;
        if is_left_over && self.now > self.plan.quiet_at + 2 * TICK {
            return Ok(());
        }
        if self.members[slot].process.is_none() {
            return Ok(());
        }
        let is_coin = self.random.chance(500);
        let process = self.members[slot].process.as_mut().expect("it runs");
        if let (Body::Snapshot { snapshot }, Some(data)) = (&packet.message.body, packet.snapshot) {
            // A driver may ask before it takes the data, or leave it to the core.
            if is_coin && !process.raft.wants_snapshot(snapshot) {
                return Ok(());
            }
            process.received.push((snapshot.last, data));
        }
        process.raft.step(id_of(packet.from), packet.message);
        self.input_done(slot)
    }

    /// Takes what the core put out and carries it on.
    pub fn turn(&mut self, slot: Slot) -> Result<(), Violation> {
        let process = self.process(slot);
        process.is_turn_due = false;
        let mut ready = std::mem::take(&mut process.ready);
        process.raft.ready(&mut ready);
        let process = self.members[slot].process.as_ref().expect("it runs");
        self.oracle.handed_out(slot, &process.raft, &ready)?;
        let is_done = ready.is_empty();
        self.say_leadership(slot, &ready);
        self.begin_write(slot, &mut ready)?;
        let process = self.members[slot].process.as_mut().expect("it runs");
        process.held.extend(ready.messages.drain(..));
        process.to_apply.extend(ready.committed.drain(..));
        for read in ready.read_states.drain(..) {
            self.oracle.read_answered(slot, read)?;
            process.reads.push((read.index, read.context));
        }
        for context in ready.reads_failed.drain(..) {
            self.oracle.read_failed(slot, context)?;
            self.end_operation(context, Outcome::Refused);
        }
        for load in ready.loads.drain(..) {
            let life = self.members[slot].life;
            let delay = self.random.below(1 + self.plan.write_max);
            self.plan_in(delay, Event::Loaded { slot, life, load });
        }
        for request in std::mem::take(&mut ready.snapshots) {
            self.send_snapshot(slot, request)?;
        }
        if let Some(trim) = ready.trim {
            self.members[slot].disk.trim(trim);
            self.coverage.add("log trims", 1);
        }
        self.process(slot).ready = ready;
        self.answer_reads(slot);
        self.plan_apply(slot);
        self.release(slot)?;
        if !is_done {
            self.wake_driver(slot);
        }
        self.observe(slot)
    }

    fn say_leadership(&mut self, slot: Slot, ready: &Ready) {
        let Some(now) = ready.leadership else {
            return;
        };
        if now.role == Role::Leader {
            self.coverage.add("leaders", 1);
        }
        let role = now.role as u64;
        self.note(&[3, slot as u64, now.term.0, role], || {
            let who = now
                .leader
                .map_or("nobody".to_owned(), |leader| leader.to_string());
            format!(
                "{}: {:?} in {:?}, leader {who}",
                id_of(slot),
                now.role,
                now.term
            )
        });
    }

    fn begin_write(&mut self, slot: Slot, ready: &mut Ready) -> Result<(), Violation> {
        if ready.write == WriteNumber::NONE {
            return Ok(());
        }
        let process = self.members[slot].process.as_mut().expect("it runs");
        let mut install = None;
        if let Some(meta) = &ready.install {
            let received = &mut process.received;
            let data = received.iter().find(|(last, _)| *last == meta.last);
            let Some((_, machine)) = data else {
                let what = format!("install of {meta:?}, which never arrived");
                return broken(Property::Contract, what);
            };
            install = Some(machine.clone());
            received.clear();
            self.coverage.add("snapshots taken", 1);
        }
        let write = Write::new(ready, install, process.ticks);
        self.members[slot].disk.push(write);
        self.begin_group(slot);
        Ok(())
    }

    /// The device takes on what waits, if it is free.
    pub fn begin_group(&mut self, slot: Slot) {
        let disk = &mut self.members[slot].disk;
        if !disk.is_idle() || !disk.begin(&mut self.random) {
            return;
        }
        let most = if self.is_quiet {
            50
        } else {
            self.plan.write_max
        };
        let mut took = 5 + self.random.below(most);
        if self.now < disk.slow_until {
            took = 10 * took + 500;
        }
        let at = (self.now + took).max(disk.stalled_until + self.random.below(100));
        let life = self.members[slot].life;
        self.plan_at(at, Event::WriteDone { slot, life });
    }

    pub fn write_done(&mut self, slot: Slot) -> Result<(), Violation> {
        let member = &mut self.members[slot];
        if self.now < member.disk.stalled_until {
            let (at, life) = (member.disk.stalled_until, member.life);
            self.plan_at(at, Event::WriteDone { slot, life });
            return Ok(());
        }
        let (number, _) = member.disk.finish();
        self.oracle.synced(slot, &member.disk);
        let life = member.life;
        self.note(&[4, slot as u64, number.0], || {
            format!("{}: write {} is durable", id_of(slot), number.0)
        });
        self.handle(Event::Synced { slot, life, number })?;
        self.begin_group(slot);
        Ok(())
    }

    pub fn synced(&mut self, slot: Slot, number: WriteNumber) -> Result<(), Violation> {
        let durable = self.members[slot].disk.machine.clone();
        let process = self.process(slot);
        process.synced = number;
        // The state machine stands at an installed snapshot before that is reported.
        if process.machine.applied < durable.applied {
            process.machine = Machine::clone(&durable);
            process
                .to_apply
                .retain(|entry| entry.index > durable.applied);
            self.note(&[5, slot as u64, durable.applied.0], || {
                format!("{}: stands at snapshot {}", id_of(slot), durable.applied)
            });
            let process = self.members[slot].process.as_ref().expect("it runs");
            self.oracle.applied(slot, &process.machine, None)?;
        }
        self.process(slot).raft.on_synced(number);
        self.release(slot)?;
        self.input_done(slot)
    }

    /// Sends what its write allows.
    fn release(&mut self, slot: Slot) -> Result<(), Violation> {
        let mut held = std::mem::take(&mut self.process(slot).held);
        for _ in 0..held.len() {
            let Some(out) = held.pop_front() else { break };
            let member = &self.members[slot];
            let process = member.process.as_ref().expect("it runs");
            if out.after > process.synced {
                held.push_back(out);
                continue;
            }
            self.oracle.sent(process, &member.disk, &out)?;
            self.send(Packet {
                from: slot,
                to: slot_of(out.to),
                message: out.message,
                snapshot: None,
                sent_at: self.now,
            });
        }
        self.process(slot).held = held;
        Ok(())
    }

    /// The process moves again. A driver that finds time missing makes up for a tick or two;
    /// beyond that it says so. Either way before it looks at anything that arrived.
    pub fn wake(&mut self, slot: Slot) -> Result<(), Violation> {
        let now = self.now;
        let member = &mut self.members[slot];
        let Some(deferred) = member.deferred.take() else {
            return Ok(());
        };
        let now_life = member.life;
        let is_tick =
            |event: &Event| matches!(event, Event::Tick { life, .. } if *life == now_life);
        let missed = match deferred.iter().any(is_tick) {
            true => 1 + (now - member.next_tick_at) / member.tick_every,
            false => 0,
        };
        self.note(&[8, slot as u64, missed], || {
            format!("{} wakes, {missed} ticks missed", id_of(slot))
        });
        if missed > MISSED_MAX {
            self.members[slot].next_tick_at = now;
            self.process(slot).raft.on_woken();
        }
        for left in (0..missed.min(MISSED_MAX)).rev() {
            match left {
                0 => self.tick(slot)?,
                _ => self.count_tick(slot)?,
            }
        }
        for event in deferred.into_iter().filter(|event| !is_tick(event)) {
            self.handle(event)?;
        }
        Ok(())
    }

    /// What a member is doing, for the report of a failure.
    pub fn describe_member(&self, slot: Slot) -> String {
        let member = &self.members[slot];
        let Some(process) = &member.process else {
            return format!("{} is down, {:?}", id_of(slot), member.disk.state);
        };
        let followers: Vec<String> = process
            .raft
            .followers()
            .map(|f| format!("{} {:?} {}/{}", f.id, f.state, f.matched, f.next))
            .collect();
        format!(
            "{:?}{}\n    {}; followers: {}; {:?}",
            process.raft.status(),
            if member.is_paused() { " paused" } else { "" },
            members(process.raft.membership()),
            followers.join(", "),
            process.held.front().map(|out| describe(&out.message)),
        )
    }
}
