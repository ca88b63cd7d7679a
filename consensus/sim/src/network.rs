//! The links between members: what is cut, and when what is sent arrives.
//!
//! Always true: a message that is delivered is the one that was sent. Packets under way when a link
//! is cut still arrive.

use std::sync::Arc;

use consensus::{MemberId, Message};

use crate::machine::Machine;
use crate::plan::Plan;
use crate::random::Random;

/// Members at most.
pub const MACHINES_MAX: usize = 8;

/// Where a member stands in every list of the simulator.
pub type Slot = usize;

pub fn slot_of(id: MemberId) -> Slot {
    id.0 as usize - 1
}

pub fn id_of(slot: Slot) -> MemberId {
    MemberId(slot as u64 + 1)
}

#[derive(Clone, Debug)]
pub struct Packet {
    pub from: Slot,
    pub to: Slot,
    pub message: Message,
    /// The data that comes along with a snapshot message.
    pub snapshot: Option<Arc<Machine>>,
    pub sent_at: u64,
}

/// What becomes of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    Lost,
    Arrives(u64),
    Twice(u64, u64),
}

/// A reason for links to be cut; several may hold at once.
#[derive(Debug)]
struct Cut {
    number: u64,
    links: [[bool; MACHINES_MAX]; MACHINES_MAX],
}

#[derive(Debug, Default)]
pub struct Network {
    cuts: Vec<Cut>,
    last_number: u64,
    /// The latest arrival on each link, for links that keep order.
    latest: [[u64; MACHINES_MAX]; MACHINES_MAX],
    /// Everything takes this much longer, until then.
    pub storm: (u64, u64),
}

impl Network {
    /// Cuts the links from `a` to `b` that `is_cut` names; returns the number to heal it by.
    pub fn cut(&mut self, machines: usize, mut is_cut: impl FnMut(Slot, Slot) -> bool) -> u64 {
        let mut links = [[false; MACHINES_MAX]; MACHINES_MAX];
        for (from, row) in links.iter_mut().enumerate().take(machines) {
            for (to, link) in row.iter_mut().enumerate().take(machines) {
                *link = from != to && is_cut(from, to);
            }
        }
        self.last_number += 1;
        let number = self.last_number;
        self.cuts.push(Cut { number, links });
        number
    }

    pub fn heal(&mut self, number: u64) {
        self.cuts.retain(|cut| cut.number != number);
    }

    pub fn heal_all(&mut self) {
        self.cuts.clear();
        self.storm = (0, 0);
    }

    pub fn is_cut(&self, from: Slot, to: Slot) -> bool {
        self.cuts.iter().any(|cut| cut.links[from][to])
    }

    /// Decides about a packet that leaves now.
    pub fn fate(
        &mut self,
        packet: &Packet,
        now: u64,
        plan: &Plan,
        is_quiet: bool,
        random: &mut Random,
    ) -> Fate {
        let (from, to) = (packet.from, packet.to);
        if is_quiet {
            if self.is_cut(from, to) {
                return Fate::Lost;
            }
            return Fate::Arrives(now + 10 + random.below(plan.delay_max.min(200)));
        }
        if self.is_cut(from, to) || random.chance(plan.loss) {
            return Fate::Lost;
        }
        let delay = |random: &mut Random| {
            let stretch = if random.chance(plan.late) { 50 } else { 1 };
            let base = 5 + random.below(plan.delay_max * stretch);
            match self.storm {
                (until, extra) if now < until => base + random.below(extra),
                _ => base,
            }
        };
        let mut at = now + delay(random);
        // A snapshot is long; it takes its time.
        if packet.snapshot.is_some() {
            at += random.below(plan.delay_max * 10);
        } else if plan.is_ordered {
            at = at.max(self.latest[from][to] + 1);
            self.latest[from][to] = at;
        }
        if packet.snapshot.is_none() && random.chance(plan.duplicate) {
            // The copy may come very late.
            let copy = now + delay(random) * (1 + random.below(20));
            return Fate::Twice(at, copy);
        }
        Fate::Arrives(at)
    }
}
