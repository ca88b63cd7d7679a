//! What a member should hold: the entries it appended, and a plain state machine over them.
//!
//! Always true: an entry's place in the ledger is its log index minus one; the state after an index follows from the
//! entries up to it alone, each applied once. Shares no code with the store but the encoding of one record.

use std::collections::BTreeMap;

use bytes::Bytes;
use storage::mvcc::{KeyValue, Revision};
use storage::wal::HardState;

/// SplitMix64.
#[derive(Clone)]
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// What an entry asks.
#[derive(Clone, Debug)]
pub enum Order {
    /// Entry 1: stands for the founders' agreement, is not in the log.
    Found,
    /// A leader's first entry.
    Nothing,
    Put {
        key: Vec<u8>,
        value: Vec<u8>,
        lease: i64,
    },
    /// From and to (not included).
    Delete(Vec<u8>, Vec<u8>),
    Compact(i64),
    /// Lease and time to live; refused if it exists.
    Grant(i64, i64),
    /// A lease that ends with its keys, if it exists.
    Revoke(i64),
}

#[derive(Clone, Debug)]
pub struct Appended {
    pub term: u64,
    pub order: Order,
    pub payload: Bytes,
}

/// Everything a member was told to keep, and what it said about it.
#[derive(Clone)]
pub struct Ledger {
    pub entries: Vec<Appended>,
    /// Highest index whose client has an answer.
    pub acknowledged: u64,
    /// Highest index that a finished group commit covers.
    pub persisted: u64,
    /// As of the newest durable write.
    pub hard_state: HardState,
}

impl Ledger {
    pub fn new() -> Ledger {
        let found = Appended {
            term: 1,
            order: Order::Found,
            payload: Bytes::new(),
        };
        Ledger {
            entries: vec![found],
            acknowledged: 0,
            persisted: 0,
            hard_state: HardState::default(),
        }
    }

    pub fn last(&self) -> u64 {
        self.entries.len() as u64
    }

    pub fn get(&self, index: u64) -> &Appended {
        &self.entries[index as usize - 1]
    }

    pub fn state(&self, through: u64) -> State {
        let mut state = State {
            revision: 1,
            ..State::default()
        };
        for entry in &self.entries[..through as usize] {
            state.apply(&entry.order);
        }
        state
    }
}

/// Revisions of a key, oldest first, with the stored record (`None`: tombstone).
type History = Vec<(Revision, Option<Vec<u8>>)>;

/// The store after some index.
#[derive(Clone, Default)]
pub struct State {
    pub history: BTreeMap<Vec<u8>, History>,
    pub revision: i64,
    /// Accepted, in order.
    pub compactions: Vec<i64>,
    /// Leases and their times to live.
    pub leases: BTreeMap<i64, i64>,
    /// Keys that ended with their lease.
    pub ended: i64,
}

impl State {
    pub fn compact_revision(&self) -> i64 {
        self.compactions.last().copied().unwrap_or(-1)
    }

    fn apply(&mut self, order: &Order) {
        match order {
            Order::Found | Order::Nothing => {}
            // With a lease that does not exist it is refused.
            Order::Put { key, value, lease } => {
                if *lease == 0 || self.leases.contains_key(lease) {
                    self.put(key, value, *lease);
                }
            }
            Order::Grant(id, ttl) => {
                self.leases.entry(*id).or_insert(*ttl);
            }
            Order::Revoke(id) => self.revoke(*id),
            Order::Delete(from, to) => self.delete(from, to),
            Order::Compact(revision) => {
                if self.compact_revision() < *revision && *revision <= self.revision {
                    self.compactions.push(*revision);
                }
            }
        }
    }

    fn put(&mut self, key: &[u8], value: &[u8], lease: i64) {
        self.revision += 1;
        let history = self.history.entry(key.to_vec()).or_default();
        let before = history.last().and_then(|(_, record)| record.as_deref());
        let before = before.map(|record| KeyValue::parse(record).expect("encoded here"));
        let record = KeyValue {
            key,
            create_revision: before.map_or(self.revision, |before| before.create_revision),
            mod_revision: self.revision,
            version: before.map_or(1, |before| before.version + 1),
            value,
            lease,
        };
        let record = record.encode();
        history.push((Revision::new(self.revision, 0), Some(record)));
    }

    fn delete(&mut self, from: &[u8], to: &[u8]) {
        let main = self.revision + 1;
        let mut sub = 0;
        for (_, history) in self.history.range_mut::<[u8], _>((
            std::ops::Bound::Included(from),
            std::ops::Bound::Excluded(to),
        )) {
            if history.last().is_some_and(|(_, record)| record.is_some()) {
                history.push((Revision::new(main, sub), None));
                sub += 1;
            }
        }
        self.revision += i64::from(sub > 0);
    }

    fn revoke(&mut self, id: i64) {
        if self.leases.remove(&id).is_none() {
            return;
        }
        let main = self.revision + 1;
        let mut sub = 0;
        for history in self.history.values_mut() {
            if lease_of(history) == Some(id) {
                history.push((Revision::new(main, sub), None));
                sub += 1;
            }
        }
        self.ended += sub;
        self.revision += i64::from(sub > 0);
    }

    /// Living keys with a lease, in order, each with its lease.
    pub fn attachments(&self) -> Vec<(Box<[u8]>, i64)> {
        let attached = self.history.iter().filter_map(|(key, history)| {
            let lease = lease_of(history).filter(|lease| *lease != 0)?;
            Some((key.as_slice().into(), lease))
        });
        attached.collect()
    }

    /// The key's record at a revision.
    pub fn at(&self, key: &[u8], at: i64) -> Option<&[u8]> {
        let history = self.history.get(key)?;
        let newest = history
            .iter()
            .rev()
            .find(|(revision, _)| revision.main <= at)?;
        newest.1.as_deref()
    }

    /// The `key` bucket once a compaction at `compact` has ended.
    pub fn bucket(&self, compact: i64) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let mut bucket = BTreeMap::new();
        for (key, history) in &self.history {
            let newest = history.iter().rposition(|(r, _)| r.main <= compact);
            for (place, (revision, record)) in history.iter().enumerate() {
                let is_kept = revision.main > compact
                    || (Some(place) == newest && (record.is_some() || revision.main == compact));
                if is_kept {
                    let tombstone = KeyValue {
                        key,
                        ..KeyValue::default()
                    };
                    let value = record.clone().unwrap_or_else(|| tombstone.encode());
                    bucket.insert(revision.key(record.is_none()).as_bytes().to_vec(), value);
                }
            }
        }
        bucket
    }
}

/// The lease of a living key.
fn lease_of(history: &History) -> Option<i64> {
    let record = history.last()?.1.as_deref()?;
    Some(KeyValue::parse(record).expect("encoded here").lease)
}
