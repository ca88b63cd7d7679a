//! The links: every packet may be lost, doubled, late, or overtaken; partitions cut members off,
//! also one way.

use std::collections::{BTreeMap, BTreeSet};

use consensus::*;

use super::Faults;
use super::member::App;
use super::random::Random;

#[derive(Clone, Debug)]
pub struct Packet {
    pub from: MemberId,
    pub to: MemberId,
    pub message: Message,
    /// The data that comes along with a snapshot message.
    pub snapshot: Option<App>,
    /// A snapshot whose transfer fails: the sender learns of it.
    pub is_lost: bool,
}

impl Packet {
    pub fn snapshot_sender(&self) -> Option<MemberId> {
        self.snapshot.as_ref().map(|_| self.from)
    }
}

#[derive(Default)]
pub struct Network {
    under_way: BTreeMap<(u64, u64), Packet>,
    sequence: u64,
    cut: BTreeSet<(MemberId, MemberId)>,
    pub sent: u64,
}

impl Network {
    pub fn send(&mut self, mut packet: Packet, now: u64, faults: &Faults, random: &mut Random) {
        self.sent += 1;
        let is_cut = self.cut.contains(&(packet.from, packet.to));
        if is_cut || random.chance(faults.drop) {
            if packet.snapshot.is_none() {
                return;
            }
            packet.is_lost = true;
        }
        if packet.snapshot.is_none() && random.chance(faults.duplicate) {
            // A copy may come very late.
            self.put(
                packet.clone(),
                now + 1 + random.below(faults.delay_max * 20),
            );
        }
        let stretch = if random.chance(faults.late) { 50 } else { 1 };
        self.put(packet, now + 1 + random.below(faults.delay_max * stretch));
    }

    fn put(&mut self, packet: Packet, at: u64) {
        self.sequence += 1;
        self.under_way.insert((at, self.sequence), packet);
    }

    pub fn due(&mut self, now: u64) -> Option<Packet> {
        let entry = self
            .under_way
            .first_entry()
            .filter(|entry| entry.key().0 <= now)?;
        Some(entry.remove())
    }

    pub fn cut(&mut self, from: MemberId, to: MemberId) {
        self.cut.insert((from, to));
    }

    pub fn isolate(&mut self, id: MemberId, others: impl IntoIterator<Item = MemberId>) {
        for other in others {
            self.cut(id, other);
            self.cut(other, id);
        }
    }

    /// Two random sides; sometimes only one direction is cut.
    pub fn partition(&mut self, ids: &[MemberId], random: &mut Random) {
        let side: Vec<bool> = ids.iter().map(|_| random.chance(500)).collect();
        let one_way = random.chance(250);
        for (a, id_a) in ids.iter().enumerate() {
            for (b, id_b) in ids.iter().enumerate() {
                if side[a] != side[b] && (side[a] || !one_way) {
                    self.cut(*id_a, *id_b);
                }
            }
        }
    }

    pub fn heal(&mut self) {
        self.cut.clear();
    }
}
