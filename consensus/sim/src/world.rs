//! One run: the queue of events in virtual time, and what each event does.
//!
//! Always true: one thread, no clock, and every choice drawn from the seed; events of one moment
//! happen in the order they were planned in. A process that stands still gets nothing; what arrives
//! waits, and its disk goes on.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use consensus::*;

use crate::clients::{Clients, Outcome};
use crate::coverage::Coverage;
use crate::machine::Machine;
use crate::member::Member;
use crate::network::{Fate, Network, Packet, Slot, id_of};
use crate::oracle::{Oracle, Violation};
use crate::plan::{Plan, TICK};
use crate::random::Random;
use crate::trace::{Trace, describe, fingerprint};

/// Something that happens at a moment. `life` names the process it is meant for.
#[derive(Clone, Copy, Debug)]
pub enum Event {
    Tick {
        slot: Slot,
        life: u32,
    },
    Deliver {
        slot: Slot,
        packet: usize,
    },
    Turn {
        slot: Slot,
        life: u32,
    },
    Apply {
        slot: Slot,
        life: u32,
    },
    /// The disk finished a group of writes.
    WriteDone {
        slot: Slot,
        life: u32,
    },
    /// The process hears of it.
    Synced {
        slot: Slot,
        life: u32,
        number: WriteNumber,
    },
    Loaded {
        slot: Slot,
        life: u32,
        load: LoadRequest,
    },
    /// A snapshot arrived at `to` or did not.
    SnapshotSent {
        slot: Slot,
        life: u32,
        to: Slot,
        index: Option<LogIndex>,
    },
    /// A client's question reaches a member.
    Ask {
        slot: Slot,
        operation: u64,
    },
    GiveUp {
        operation: u64,
    },
    Think {
        client: usize,
    },
    Fault,
    Restart {
        slot: Slot,
        life: u32,
    },
    Wake {
        slot: Slot,
        life: u32,
    },
    Heal {
        number: u64,
    },
    /// The member is told to campaign.
    Campaign {
        slot: Slot,
    },
}

impl Event {
    /// The process that must be running for this.
    fn process(self) -> Option<Slot> {
        match self {
            Event::Tick { slot, .. }
            | Event::Deliver { slot, .. }
            | Event::Turn { slot, .. }
            | Event::Apply { slot, .. }
            | Event::Synced { slot, .. }
            | Event::Loaded { slot, .. }
            | Event::SnapshotSent { slot, .. }
            | Event::Campaign { slot }
            | Event::Ask { slot, .. } => Some(slot),
            Event::WriteDone { .. }
            | Event::GiveUp { .. }
            | Event::Think { .. }
            | Event::Fault
            | Event::Restart { .. }
            | Event::Wake { .. }
            | Event::Heal { .. } => None,
        }
    }
}

#[derive(Debug)]
struct Planned {
    at: u64,
    order: u64,
    event: Event,
}

impl PartialEq for Planned {
    fn eq(&self, other: &Planned) -> bool {
        self.order == other.order
    }
}

impl Eq for Planned {}

impl PartialOrd for Planned {
    fn partial_cmp(&self, other: &Planned) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Planned {
    fn cmp(&self, other: &Planned) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

pub struct World {
    pub plan: Plan,
    pub random: Random,
    pub now: u64,
    queue: BinaryHeap<Reverse<Planned>>,
    order: u64,
    /// Packets under way; empty slots are in `free`.
    packets: Vec<Option<Packet>>,
    free: Vec<usize>,
    pub members: Vec<Member>,
    pub network: Network,
    pub clients: Clients,
    /// Where each client was answered last.
    pub homes: Vec<Option<Slot>>,
    pub oracle: Oracle,
    pub trace: Trace,
    pub coverage: Coverage,
    /// Faults are over.
    pub is_quiet: bool,
    pub events: u64,
}

impl World {
    pub fn new(plan: Plan, trace: Trace) -> World {
        let mut random = Random::new(plan.seed);
        let founders = Membership::new((0..plan.voters).map(id_of), []);
        let members: Vec<Member> = (0..plan.machines)
            .map(|slot| {
                let mut config = plan.config.clone();
                config.id = id_of(slot);
                #[cfg(feature = "sabotage")]
                {
                    config.sabotage = plan.options.sabotage;
                }
                let known = (slot < plan.voters).then(|| founders.clone());
                Member::new(slot, config, known, plan.options.lying_disk)
            })
            .collect();
        let founding = Machine::new(founders);
        let oracle = Oracle::new(plan.machines, &founding, plan.options.end_to_end);
        let mut world = World {
            now: 0,
            queue: BinaryHeap::with_capacity(256),
            order: 0,
            packets: Vec::new(),
            free: Vec::new(),
            members,
            network: Network::default(),
            clients: Clients::default(),
            homes: vec![None; plan.clients],
            oracle,
            trace,
            coverage: Coverage::default(),
            is_quiet: false,
            events: 0,
            random: Random::new(random.draw()),
            plan,
        };
        for slot in 0..world.plan.machines {
            world.set_clock(slot);
            world.start(slot);
        }
        for client in 0..world.plan.clients {
            let at = world.random.below(world.plan.think_max);
            world.plan_at(at, Event::Think { client });
        }
        let first = 5 * TICK;
        world.plan_at(first, Event::Fault);
        world
    }

    pub fn plan_at(&mut self, at: u64, event: Event) {
        self.order += 1;
        self.queue.push(Reverse(Planned {
            at: at.max(self.now),
            order: self.order,
            event,
        }));
    }

    pub fn plan_in(&mut self, delay: u64, event: Event) {
        self.plan_at(self.now + delay, event);
    }

    pub fn note(&mut self, words: &[u64], line: impl FnOnce() -> String) {
        self.trace.note(self.now, words, line);
    }

    /// Lets time pass until `end`.
    pub fn run_until(&mut self, end: u64) -> Result<(), Violation> {
        while let Some(Reverse(next)) = self.queue.peek()
            && next.at <= end
        {
            let Some(Reverse(planned)) = self.queue.pop() else {
                break;
            };
            self.now = planned.at;
            self.events += 1;
            self.handle(planned.event)?;
        }
        self.now = end;
        Ok(())
    }

    pub fn handle(&mut self, event: Event) -> Result<(), Violation> {
        if let Some(slot) = event.process()
            && let Some(deferred) = &mut self.members[slot].deferred
        {
            deferred.push(event);
            return Ok(());
        }
        match event {
            Event::Tick { slot, life } if self.is_alive(slot, life) => self.tick(slot),
            Event::Deliver { slot, packet } => self.deliver(slot, packet),
            Event::Turn { slot, life } if self.is_alive(slot, life) => self.turn(slot),
            Event::Apply { slot, life } if self.is_alive(slot, life) => self.apply(slot),
            Event::WriteDone { slot, life } if self.is_alive(slot, life) => self.write_done(slot),
            Event::Synced { slot, life, number } if self.is_alive(slot, life) => {
                self.synced(slot, number)
            }
            Event::Loaded { slot, life, load } if self.is_alive(slot, life) => {
                self.loaded(slot, load)
            }
            Event::SnapshotSent {
                slot,
                life,
                to,
                index,
            } if self.is_alive(slot, life) => self.snapshot_sent(slot, to, index),
            Event::Ask { slot, operation } => self.asked(slot, operation),
            Event::GiveUp { operation } => {
                self.end_operation(operation, Outcome::GivenUp);
                Ok(())
            }
            Event::Think { client } => {
                self.think(client);
                Ok(())
            }
            Event::Campaign { slot } => self.campaign(slot),
            Event::Fault => self.fault(),
            Event::Restart { slot, life }
                if self.members[slot].process.is_none() && self.members[slot].life == life =>
            {
                self.start(slot);
                Ok(())
            }
            Event::Wake { slot, life } if self.is_alive(slot, life) => self.wake(slot),
            Event::Heal { number } => {
                self.network.heal(number);
                Ok(())
            }
            // Meant for a process that is no more.
            _ => Ok(()),
        }
    }

    pub fn is_alive(&self, slot: Slot, life: u32) -> bool {
        let member = &self.members[slot];
        member.process.is_some() && member.life == life
    }

    pub fn observe(&mut self, slot: Slot) -> Result<(), Violation> {
        self.oracle.observe(slot, &self.members)
    }

    // ---- packets ----

    pub fn send(&mut self, packet: Packet) -> Fate {
        let fate = self.network.fate(
            &packet,
            self.now,
            &self.plan,
            self.is_quiet,
            &mut self.random,
        );
        let (from, to) = (packet.from, packet.to);
        let print = fingerprint(&packet.message);
        let words = [1, from as u64, to as u64, print];
        let message = &packet.message;
        self.trace.note(self.now, &words, || {
            let what = describe(message);
            let lost = if fate == Fate::Lost { "  (lost)" } else { "" };
            format!("{} -> {}  {what}{lost}", id_of(from), id_of(to))
        });
        match fate {
            Fate::Lost => {}
            Fate::Arrives(at) => self.put(packet, at),
            Fate::Twice(at, again) => {
                self.put(packet.clone(), again);
                self.put(packet, at);
            }
        }
        fate
    }

    fn put(&mut self, packet: Packet, at: u64) {
        let slot = packet.to;
        let place = match self.free.pop() {
            Some(place) => {
                self.packets[place] = Some(packet);
                place
            }
            None => {
                self.packets.push(Some(packet));
                self.packets.len() - 1
            }
        };
        self.plan_at(
            at,
            Event::Deliver {
                slot,
                packet: place,
            },
        );
    }

    pub fn take_packet(&mut self, place: usize) -> Packet {
        self.free.push(place);
        self.packets[place].take().expect("delivered once")
    }
}
