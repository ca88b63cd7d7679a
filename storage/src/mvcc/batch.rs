//! A group commit in the making: the live batch that the apply core fills, and the frozen one on its way to the
//! tree file.
//!
//! Invariants
//! - A frozen batch never changes. It is one transaction of the file: records, deletions, small buckets and the
//!   consistent index land together or not at all.
//! - Deletions in `key` are of revisions that were in the file before the batch began, so they lie below its puts.
//!
//! The apply core owns `LiveBatch`; `Frozen` goes to the tree thread. Does not write anything itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::buffer::{AppendBuffer, BufferWriter};
use super::revision::{PUT_KEY_BYTES, Revision, RevisionKey, TOMBSTONE_KEY_BYTES};
use super::store::Applied;
use super::tree_seam::{Bucket, Change};

type BucketChanges = BTreeMap<Box<[u8]>, Option<Box<[u8]>>>;

/// Newest change of each record outside `key`; `None` deletes it.
#[derive(Default)]
pub(super) struct SmallChanges {
    buckets: [BucketChanges; Bucket::ALL.len()],
    changes: usize,
    bytes: usize,
}

impl SmallChanges {
    pub(super) fn set(&mut self, bucket: Bucket, key: &[u8], value: Option<&[u8]>) {
        assert!(bucket != Bucket::Key, "revisions go through transactions");
        self.bytes += key.len() + value.map_or(0, <[u8]>::len);
        let records = &mut self.buckets[bucket as usize];
        if records.insert(key.into(), value.map(Into::into)).is_none() {
            self.changes += 1;
        }
    }

    /// `Some(None)`: deleted here; `None`: not changed here.
    pub(super) fn get(&self, bucket: Bucket, key: &[u8]) -> Option<Option<&[u8]>> {
        let value = self.buckets[bucket as usize].get(key)?;
        Some(value.as_deref())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.changes == 0
    }

    /// Takes over the changes of `newer`, which is empty afterwards.
    pub(super) fn absorb(&mut self, newer: &mut Self) {
        if newer.is_empty() {
            return;
        }
        for (records, newer) in self.buckets.iter_mut().zip(&mut newer.buckets) {
            while let Some((key, value)) = newer.pop_first() {
                if records.insert(key, value).is_none() {
                    self.changes += 1;
                }
            }
        }
        self.bytes += newer.bytes;
        newer.changes = 0;
        newer.bytes = 0;
    }

    pub(super) fn clear(&mut self) {
        if !self.is_empty() {
            *self = Self::default();
        }
    }
}

/// Everything since the last freeze.
pub(super) struct LiveBatch {
    pub(super) records: BufferWriter,
    pub(super) deletes: Vec<(Revision, bool)>,
    pub(super) small: SmallChanges,
    /// Something here must not wait for the commit timer.
    pub(super) must_commit: bool,
    /// Counts batches from 1.
    pub(super) sequence: u64,
}

impl LiveBatch {
    pub(super) fn new(floor: i64, sequence: u64) -> Self {
        Self {
            records: BufferWriter::new(floor),
            deletes: Vec::new(),
            small: SmallChanges::default(),
            must_commit: false,
            sequence,
        }
    }

    pub(super) fn changes(&self) -> usize {
        self.records.len() + self.deletes.len() + self.small.changes
    }

    pub(super) fn bytes(&self) -> usize {
        self.records.len() * PUT_KEY_BYTES
            + self.records.bytes()
            + self.deletes.len() * TOMBSTONE_KEY_BYTES
            + self.small.bytes
    }

    pub(super) fn freeze(mut self, applied: Applied) -> Frozen {
        self.deletes.sort_unstable();
        Frozen {
            inner: Arc::new(Inner {
                applied,
                changes: self.changes(),
                bytes: self.bytes(),
                records: self.records.buffer().clone(),
                deletes: self.deletes,
                small: self.small,
                sequence: self.sequence,
            }),
        }
    }
}

/// Everything that changed since the last group commit, handed to the tree thread. Must land whole, in one
/// transaction of the file: data, small buckets, consistent index, term and confState together.
#[derive(Clone)]
pub struct Frozen {
    inner: Arc<Inner>,
}

struct Inner {
    applied: Applied,
    changes: usize,
    bytes: usize,
    records: Arc<AppendBuffer>,
    deletes: Vec<(Revision, bool)>,
    small: SmallChanges,
    sequence: u64,
}

impl Frozen {
    /// The last raft entry whose effects are in this commit.
    pub fn applied(&self) -> Applied {
        self.inner.applied
    }

    /// Number of changes.
    pub fn len(&self) -> usize {
        self.inner.changes
    }

    /// A commit may carry nothing but the consistent index.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// About the bytes of keys and values in this commit.
    pub fn bytes(&self) -> usize {
        self.inner.bytes
    }

    /// The changes, ready to be borrowed by a write batch. Encodes every revision key: for the tree thread.
    pub fn changes(&self) -> Changes<'_> {
        let deletes = self.inner.deletes.iter();
        let records = self.inner.records.records(None);
        Changes {
            frozen: &self.inner,
            keys: deletes
                .map(|(revision, is_tombstone)| revision.key(*is_tombstone))
                .chain(records.map(|record| record.revision.key(record.is_tombstone)))
                .collect(),
        }
    }

    pub(super) fn records(&self) -> &Arc<AppendBuffer> {
        &self.inner.records
    }

    pub(super) fn small(&self) -> &SmallChanges {
        &self.inner.small
    }

    pub(super) fn sequence(&self) -> u64 {
        self.inner.sequence
    }
}

/// The changes of a frozen batch with their keys in the file's form.
pub struct Changes<'f> {
    frozen: &'f Inner,
    /// Of deletions, then of records.
    keys: Vec<RevisionKey>,
}

impl Changes<'_> {
    /// Visits the changes bucket by bucket in the file's order, in key order inside each bucket, each key once.
    pub fn for_each<'c>(&'c self, mut visit: impl FnMut(Change<'c>)) {
        for bucket in Bucket::ALL {
            if bucket == Bucket::Key {
                self.for_each_revision(&mut visit);
            }
            for (key, value) in &self.frozen.small.buckets[bucket as usize] {
                visit(match value {
                    Some(value) => Change::Put { bucket, key, value },
                    None => Change::Delete { bucket, key },
                });
            }
        }
    }

    fn for_each_revision<'c>(&'c self, visit: &mut impl FnMut(Change<'c>)) {
        let bucket = Bucket::Key;
        let (deleted, put) = self.keys.split_at(self.frozen.deletes.len());
        for key in deleted {
            visit(Change::Delete {
                bucket,
                key: key.as_bytes(),
            });
        }
        for (key, record) in put.iter().zip(self.frozen.records.records(None)) {
            visit(Change::Put {
                bucket,
                key: key.as_bytes(),
                value: record.bytes,
            });
        }
    }
}
