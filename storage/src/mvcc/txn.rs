//! One entry's changes: all or nothing, at one new main revision.
//!
//! Invariants
//! - Changes carry main `revision() + 1` and ascending subs; readers see none of them before `commit`.
//! - Dropped without `commit`, the transaction leaves the store as it was (but the entry counts as applied).
//!
//! Apply core. Checks nothing: leases, permissions, the duplicate rule and quotas are the caller's.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering;

use super::buffer::Mark;
use super::index::IndexView;
use super::key_value::{KeyMeta, KeyValue};
use super::range::KeyRange;
use super::read::Item;
use super::revision::Revision;
use super::state::{RecordSource, WriterSource};
use super::store::Store;
use super::tree_seam::{Bucket, TreeSnapshot};

pub struct WriteTxn<'s, T: TreeSnapshot> {
    store: &'s mut Store<T>,
    mark: Mark,
    changes: i64,
}

impl<'s, T: TreeSnapshot> WriteTxn<'s, T> {
    pub(super) fn new(store: &'s mut Store<T>) -> Self {
        let mark = store.live.records.mark();
        Self {
            store,
            mark,
            changes: 0,
        }
    }

    /// Revision before the transaction.
    pub fn revision(&self) -> i64 {
        self.store.current
    }

    pub fn compact_revision(&self) -> i64 {
        self.store.compact_revision
    }

    /// Whether anything has changed so far, so that reads see `revision() + 1`.
    pub fn has_changed(&self) -> bool {
        self.changes > 0
    }

    /// Newest state of a key, own writes included.
    pub fn get(&self, key: &[u8]) -> Option<Item<'_>> {
        self.get_at(key, self.own_revision())
    }

    /// State of a key at `at`, which is not below the compact revision; own writes are at `revision() + 1`.
    pub fn get_at(&self, key: &[u8], at: i64) -> Option<Item<'_>> {
        let (key, meta) = self.index_at(at).get(key, at)?;
        Some(self.item(key, meta))
    }

    /// Visits live keys at `at`, which is not below the compact revision, in key order until `visit` breaks.
    pub fn range(
        &self,
        range: KeyRange<'_>,
        at: i64,
        visit: &mut dyn FnMut(&Item<'_>) -> ControlFlow<()>,
    ) {
        if range.is_single() {
            if let Some(item) = self.get_at(range.key, at) {
                let _ = visit(&item);
            }
            return;
        }
        for record in self.index_at(at).cursor(range.key) {
            if !range.is_below_end(record.key()) {
                return;
            }
            if let Some(meta) = record.newest_at(at).and_then(|found| found.live())
                && visit(&self.item(record.key(), meta)).is_break()
            {
                return;
            }
        }
    }

    /// Live keys of an interval at `at`.
    pub fn count(&self, range: KeyRange<'_>, at: i64) -> usize {
        self.index_at(at)
            .count(range, range.key, at, usize::MAX)
            .count
    }

    /// The stored record behind numbers that this transaction returned.
    pub fn record(&self, meta: &KeyMeta) -> &[u8] {
        self.store.record(meta.mod_revision)
    }

    /// Writes a record; returns the new record's numbers and what the key's life was before.
    pub fn put(&mut self, key: &[u8], value: &[u8], lease: i64) -> (KeyMeta, Option<KeyMeta>) {
        let revision = Revision::new(self.store.current + 1, self.changes);
        let (meta, previous) = self.store.index.put(key, revision);
        self.changes += 1;
        let record = KeyValue {
            key,
            create_revision: meta.create_revision,
            mod_revision: revision.main,
            version: meta.version,
            value,
            lease,
        };
        self.append(revision, false, &record);
        (meta, previous)
    }

    /// Deletes the live keys of an interval in key order; `on_deleted` sees each previous record.
    pub fn delete_range(
        &mut self,
        range: KeyRange<'_>,
        on_deleted: &mut dyn FnMut(&Item<'_>),
    ) -> usize {
        let main = self.store.current + 1;
        let mut deleted = std::mem::take(&mut self.store.deleted);
        deleted.clear();
        self.store
            .index
            .delete_range(range, main, self.changes, &mut deleted);
        for ended in &deleted {
            let store = &mut *self.store;
            let key = ended.key(&store.index);
            let source = WriterSource {
                state: &store.state,
                live: &store.live.records,
            };
            on_deleted(&Item {
                key,
                meta: ended.meta,
                source: &source,
            });
            let record = KeyValue {
                key,
                ..KeyValue::default()
            };
            let revision = Revision::new(main, self.changes);
            store
                .live
                .records
                .append(revision, true, record.encoded_bytes(), |out| {
                    record.encode_into(out);
                });
            self.changes += 1;
        }
        let count = deleted.len();
        self.store.deleted = deleted;
        count
    }

    /// A small bucket's record, own changes included.
    pub fn get_bucket(&self, bucket: Bucket, key: &[u8]) -> Option<&[u8]> {
        self.store
            .txn_small
            .get(bucket, key)
            .unwrap_or_else(|| self.store.get_bucket(bucket, key))
    }

    pub fn put_bucket(&mut self, bucket: Bucket, key: &[u8], value: &[u8]) {
        self.store.txn_small.set(bucket, key, Some(value));
    }

    pub fn delete_bucket(&mut self, bucket: Bucket, key: &[u8]) {
        self.store.txn_small.set(bucket, key, None);
    }

    /// Publishes the changes; returns the store's revision afterwards.
    pub fn commit(mut self) -> i64 {
        let store = &mut *self.store;
        if self.changes > 0 {
            store.current += 1;
            store.live.records.publish();
            store.index.publish();
            let revision = &store.shared.revision;
            revision.store(store.current, Ordering::Release);
            // Nothing is left for `drop` to undo.
            self.changes = 0;
        }
        store.live.small.absorb(&mut store.txn_small);
        store.current
    }

    /// Undoes every change. Dropping the transaction does the same.
    pub fn abort(self) {}

    /// The index, for reads at `at`. Histories below the compact revision may be gone: asking for them is a bug
    /// of the caller, who has checked the request's revision.
    fn index_at(&self, at: i64) -> IndexView<'_> {
        let compact_revision = self.store.compact_revision;
        assert!(
            compact_revision <= at,
            "read at {at} after a compaction at {compact_revision}"
        );
        self.store.index.view()
    }

    fn own_revision(&self) -> i64 {
        self.store.current + i64::from(self.has_changed())
    }

    fn append(&mut self, revision: Revision, is_tombstone: bool, record: &KeyValue<'_>) {
        self.store
            .live
            .records
            .append(revision, is_tombstone, record.encoded_bytes(), |out| {
                record.encode_into(out);
            });
    }

    fn item<'v>(&'v self, key: &'v [u8], meta: KeyMeta) -> Item<'v> {
        Item {
            key,
            meta,
            source: &*self.store,
        }
    }
}

impl<T: TreeSnapshot> Drop for WriteTxn<'_, T> {
    fn drop(&mut self) {
        if self.changes > 0 {
            self.store.index.abort();
            self.store.live.records.truncate(self.mark);
        }
        self.store.txn_small.clear();
        self.store.publish_applied();
    }
}
