//! The leases that exist and the keys attached to them.
//!
//! Invariants
//! - A key is attached to at most one lease, and that lease exists; both sides name each other.
//! - The table changes by applied entries alone. No result depends on the order of the hash map, whose seed is an
//!   input: keys come from clients, who must not be able to choose colliding ones.
//! - What the tree file holds of a lease is [`LeaseTable::record`]; attachments are in the keys' own records.
//!
//! Apply core. Knows no time: when a lease ends is the clock's business.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, Hasher};
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use thiserror::Error;

use super::record::LeaseRecord;
use super::{LeaseId, bucket_key};
use crate::mvcc::{Bucket, TreeDamage, TreeSnapshot};

/// The longest time to live that can be granted, in seconds (some 285 years; etcd's number).
pub const LEASE_TTL_MAX: i64 = 9_000_000_000;

/// Why an entry about a lease has no effect.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum LeaseError {
    #[error("requested lease not found")]
    NotFound,
    #[error("lease already exists")]
    Exists,
    #[error("too large lease TTL")]
    TtlTooLarge,
}

/// Why the bucket cannot be read.
#[derive(Debug, Error)]
pub enum LeaseLoadError {
    #[error(
        "tree file: bucket lease: key {key:02x?} holds no readable lease; restore this member from a backup"
    )]
    BadRecord { key: Vec<u8> },
    #[error("tree file: {0}; restore this member from a backup")]
    Damaged(#[source] TreeDamage),
}

/// What was found at open.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct LoadReport {
    pub leases: usize,
    pub attached_keys: usize,
    /// Living keys whose record names a lease that does not exist. They stay as they are, as with etcd.
    pub dangling_keys: usize,
}

/// A lease that was just granted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Granted {
    pub ttl_s: i64,
}

#[derive(Debug)]
struct Lease {
    /// As granted and as stored.
    ttl_s: i64,
    /// The last checkpoint; 0 for none.
    remaining_ttl_s: i64,
    keys: Vec<Arc<[u8]>>,
}

/// Where a key is attached.
#[derive(Clone, Copy, Debug)]
struct Attachment {
    lease: LeaseId,
    /// In the lease's list of keys.
    place: usize,
}

#[derive(Clone, Copy, Debug)]
struct Seeded(u64);

impl BuildHasher for Seeded {
    type Hasher = DefaultHasher;

    fn build_hasher(&self) -> DefaultHasher {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.0);
        hasher
    }
}

#[derive(Debug)]
pub struct LeaseTable {
    leases: BTreeMap<LeaseId, Lease>,
    attachments: HashMap<Arc<[u8]>, Attachment, Seeded>,
    /// Shorter times to live count as this one: leases of a file that was written under another configuration. Not
    /// stored.
    ttl_min_s: i64,
}

impl LeaseTable {
    /// An empty table. `seed` spreads the keys and has no other effect.
    pub fn new(ttl_min_s: i64, seed: u64) -> LeaseTable {
        LeaseTable {
            leases: BTreeMap::new(),
            attachments: HashMap::with_hasher(Seeded(seed)),
            ttl_min_s,
        }
    }

    /// Reads the leases of a tree file and attaches `keys`: the living keys whose records name a lease.
    ///
    /// # Errors
    /// A record that cannot be read, or a damaged file.
    pub fn load(
        tree: &impl TreeSnapshot,
        keys: Vec<(Box<[u8]>, i64)>,
        ttl_min_s: i64,
        seed: u64,
    ) -> Result<(LeaseTable, LoadReport), LeaseLoadError> {
        let mut table = LeaseTable::new(ttl_min_s, seed);
        let mut bad = None;
        let scanned = tree.scan(
            Bucket::Lease,
            b"",
            &mut |key, value| match LeaseRecord::decode(value) {
                Some(record) if !record.id.is_none() && key == bucket_key(record.id) => {
                    table.leases.insert(
                        record.id,
                        Lease {
                            ttl_s: record.ttl_s,
                            remaining_ttl_s: record.remaining_ttl_s,
                            keys: Vec::new(),
                        },
                    );
                    ControlFlow::Continue(())
                }
                _ => {
                    bad = Some(key.to_vec());
                    ControlFlow::Break(())
                }
            },
        );
        scanned.map_err(LeaseLoadError::Damaged)?;
        if let Some(key) = bad {
            return Err(LeaseLoadError::BadRecord { key });
        }
        let mut report = LoadReport {
            leases: table.leases.len(),
            ..LoadReport::default()
        };
        for (key, lease) in keys {
            if table.attach(Arc::from(key), LeaseId(lease)) {
                report.attached_keys += 1;
            } else {
                report.dangling_keys += 1;
            }
        }
        Ok((table, report))
    }

    pub fn len(&self) -> usize {
        self.leases.len()
    }

    pub fn is_empty(&self) -> bool {
        self.leases.is_empty()
    }

    /// Keys that are attached to any lease.
    pub fn attached_keys(&self) -> usize {
        self.attachments.len()
    }

    pub fn contains(&self, id: LeaseId) -> bool {
        self.leases.contains_key(&id)
    }

    /// The lease's whole time to live in seconds; `None` if there is no such lease.
    pub fn ttl_s(&self, id: LeaseId) -> Option<i64> {
        Some(self.leases.get(&id)?.ttl_s.max(self.ttl_min_s))
    }

    /// The last checkpoint in seconds, 0 for none; `None` if there is no such lease.
    pub fn checkpoint_s(&self, id: LeaseId) -> Option<i64> {
        Some(self.leases.get(&id)?.remaining_ttl_s)
    }

    /// What a new leader gives the lease: the last checkpoint, or all of it.
    pub fn remaining_ttl_s(&self, id: LeaseId) -> Option<i64> {
        match self.checkpoint_s(id)? {
            checkpoint if checkpoint > 0 => Some(checkpoint),
            _ => self.ttl_s(id),
        }
    }

    /// How the lease is stored; `None` if there is no such lease.
    pub fn record(&self, id: LeaseId) -> Option<LeaseRecord> {
        let lease = self.leases.get(&id)?;
        Some(LeaseRecord {
            id,
            ttl_s: lease.ttl_s,
            remaining_ttl_s: lease.remaining_ttl_s,
        })
    }

    /// Ids above `after` (all for `None`), ascending.
    pub fn ids_after(&self, after: Option<LeaseId>) -> impl Iterator<Item = LeaseId> + '_ {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.leases
            .range((from, Bound::Unbounded))
            .map(|(id, _)| *id)
    }

    /// Attached keys in no particular order; none for a lease that does not exist.
    pub fn keys(&self, id: LeaseId) -> &[Arc<[u8]>] {
        self.leases.get(&id).map_or(&[], |lease| &lease.keys)
    }

    /// The lease a key is attached to, or none.
    pub fn lease_of(&self, key: &[u8]) -> LeaseId {
        self.attachments
            .get(key)
            .map_or(LeaseId::NONE, |attachment| attachment.lease)
    }

    /// # Errors
    /// In etcd's order: no id (nobody proposes that), too long, in use.
    pub fn grant(&mut self, id: LeaseId, ttl_s: i64) -> Result<Granted, LeaseError> {
        if id.is_none() {
            return Err(LeaseError::NotFound);
        }
        if ttl_s > LEASE_TTL_MAX {
            return Err(LeaseError::TtlTooLarge);
        }
        if self.contains(id) {
            return Err(LeaseError::Exists);
        }
        self.leases.insert(
            id,
            Lease {
                ttl_s,
                remaining_ttl_s: 0,
                keys: Vec::new(),
            },
        );
        let ttl_s = ttl_s.max(self.ttl_min_s);
        Ok(Granted { ttl_s })
    }

    /// Forgets a lease; its keys, in ascending order, are to be deleted in the same transaction of the store.
    ///
    /// # Errors
    /// There is no such lease.
    pub fn revoke(&mut self, id: LeaseId) -> Result<Vec<Arc<[u8]>>, LeaseError> {
        let mut keys = self.leases.remove(&id).ok_or(LeaseError::NotFound)?.keys;
        for key in &keys {
            let attachment = self.attachments.remove(&**key);
            assert!(
                attachment.is_some_and(|attachment| attachment.lease == id),
                "both sides of an attachment name each other"
            );
        }
        keys.sort_unstable();
        Ok(keys)
    }

    /// Notes the remaining time of a lease; false if there is no such lease, which is no error (it ended meanwhile).
    pub fn checkpoint(&mut self, id: LeaseId, remaining_ttl_s: i64) -> bool {
        match self.leases.get_mut(&id) {
            Some(lease) => {
                lease.remaining_ttl_s = remaining_ttl_s;
                true
            }
            None => false,
        }
    }

    /// A key was written with `lease` or without one.
    ///
    /// False if the lease does not exist: the key is then attached to none.
    pub fn on_put(&mut self, key: &[u8], lease: LeaseId) -> bool {
        if lease.is_none() && self.attachments.is_empty() {
            return true;
        }
        let shared = match self.attachments.get_key_value(key) {
            Some((_, held)) if held.lease == lease => return true,
            Some((shared, _)) => {
                let shared = Arc::clone(shared);
                self.on_delete(key);
                shared
            }
            None if lease.is_none() => return true,
            None => Arc::from(key),
        };
        lease.is_none() || self.attach(shared, lease)
    }

    /// A key was deleted.
    pub fn on_delete(&mut self, key: &[u8]) {
        if self.attachments.is_empty() {
            return;
        }
        let Some(gone) = self.attachments.remove(key) else {
            return;
        };
        let lease = self
            .leases
            .get_mut(&gone.lease)
            .expect("a key is attached to a lease that exists");
        lease.keys.swap_remove(gone.place);
        if let Some(moved) = lease.keys.get(gone.place) {
            self.attachments
                .get_mut(&**moved)
                .expect("both sides of an attachment name each other")
                .place = gone.place;
        }
    }

    /// Attaches a key that is attached to nothing; false if there is no such lease.
    fn attach(&mut self, key: Arc<[u8]>, id: LeaseId) -> bool {
        let Some(lease) = self.leases.get_mut(&id) else {
            return false;
        };
        let attachment = Attachment {
            lease: id,
            place: lease.keys.len(),
        };
        lease.keys.push(Arc::clone(&key));
        let before = self.attachments.insert(key, attachment);
        assert!(before.is_none(), "a key is attached to one lease");
        true
    }
}

#[cfg(test)]
mod tests;
