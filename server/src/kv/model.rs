//! A store simple enough to be obviously right, for tests of the semantics above it.
//!
//! Always true: every version of every key is kept in order; reads go through the versions one by one. Checks what is
//! asked of it more strictly than the traits demand, so that wrong use fails a test.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use wire::kv::KeyValueParts;

use super::store::{
    KeyMeta, KeyRange, Progress, ReadError, ReadStore, ScanMode, Shown, StoredItem, Visit, WriteTxn,
};

/// One revision of one key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Version {
    pub(super) revision: i64,
    pub(super) sub: usize,
    /// `None` for a tombstone.
    pub(super) record: Option<Record>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Record {
    pub(super) meta: KeyMeta,
    pub(super) value: Vec<u8>,
    pub(super) lease: i64,
    encoded: Vec<u8>,
}

/// The whole store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct ModelStore {
    pub(super) keys: BTreeMap<Vec<u8>, Vec<Version>>,
    pub(super) revision: i64,
    pub(super) compact_revision: i64,
    pub(super) leases: BTreeSet<i64>,
}

impl Default for ModelStore {
    fn default() -> Self {
        ModelStore {
            keys: BTreeMap::new(),
            revision: 1,
            compact_revision: -1,
            leases: BTreeSet::new(),
        }
    }
}

struct ModelItem<'a> {
    key: &'a [u8],
    record: &'a Record,
}

impl StoredItem for ModelItem<'_> {
    fn key(&self) -> &[u8] {
        self.key
    }

    fn meta(&self) -> KeyMeta {
        self.record.meta
    }

    fn record(&self) -> &[u8] {
        &self.record.encoded
    }
}

impl ModelStore {
    pub(super) fn live(&self, key: &[u8], at: i64) -> Option<&Record> {
        let version = self
            .keys
            .get(key)?
            .iter()
            .rfind(|version| version.revision <= at)?;
        version.record.as_ref()
    }

    /// Live keys of an interval at a revision.
    pub(super) fn live_range(&self, range: KeyRange<'_>, at: i64) -> Vec<(&[u8], &Record)> {
        self.keys
            .keys()
            .filter(|key| range.contains(key))
            .filter_map(|key| Some((key.as_slice(), self.live(key, at)?)))
            .collect()
    }

    pub(super) fn begin(&mut self) -> ModelTxn<'_> {
        ModelTxn {
            store: self,
            changes: 0,
            calls: Cell::new(0),
        }
    }

    /// A put on its own.
    pub(super) fn put(&mut self, key: &[u8], value: &[u8], lease: i64) {
        let mut txn = self.begin();
        txn.put(key, value, lease);
        txn.commit();
    }

    pub(super) fn delete(&mut self, key: &[u8]) {
        let mut txn = self.begin();
        txn.delete_range(KeyRange::new(key, b""), None);
        txn.commit();
    }
}

/// A scan that knows where it is.
pub(super) struct ModelScan {
    at: i64,
    revision: i64,
    mode: ScanMode,
    from: Option<Vec<u8>>,
    yielded: usize,
    count: usize,
    done: bool,
}

impl ReadStore for ModelStore {
    type Scan = ModelScan;

    fn revision(&self) -> i64 {
        self.revision
    }

    fn compact_revision(&self) -> i64 {
        self.compact_revision
    }

    fn scan(&self, _: KeyRange<'_>, at: i64, mode: ScanMode) -> Result<ModelScan, ReadError> {
        let at = self.resolve(at)?;
        let revision = self.revision;
        Ok(ModelScan {
            at,
            revision,
            mode,
            from: None,
            yielded: 0,
            count: 0,
            done: false,
        })
    }

    fn step(
        &self,
        scan: &mut ModelScan,
        range: KeyRange<'_>,
        budget: usize,
        visit: Visit<'_>,
    ) -> Result<Progress, ReadError> {
        assert!(!scan.done, "a scan that is done is not stepped again");
        self.resolve(scan.at)?;
        let live = self.live_range(range, scan.at);
        let next: Vec<_> = live
            .into_iter()
            .filter(|(key, _)| scan.from.as_deref().is_none_or(|from| from < *key))
            .collect();
        for (seen, (key, record)) in next.iter().enumerate() {
            if seen == budget {
                return Ok(Progress::More);
            }
            scan.from = Some(key.to_vec());
            scan.count += 1;
            let wanted = match scan.mode {
                ScanMode::Count => false,
                ScanMode::Items { limit } => limit == 0 || scan.yielded < limit,
            };
            if wanted {
                scan.yielded += 1;
                if visit(&ModelItem { key, record }).is_break() && seen + 1 < next.len() {
                    return Ok(Progress::More);
                }
            }
        }
        scan.done = true;
        Ok(Progress::Done)
    }

    fn scan_at(&self, scan: &ModelScan) -> i64 {
        scan.at
    }

    fn scan_revision(&self, scan: &ModelScan) -> i64 {
        scan.revision
    }

    fn scan_count(&self, scan: &ModelScan) -> usize {
        assert!(scan.done, "the count is final at the end");
        scan.count
    }

    fn get(
        &self,
        key: &[u8],
        at: i64,
        visit: &mut dyn FnMut(&dyn StoredItem),
    ) -> Result<(), ReadError> {
        let at = self.resolve(at)?;
        if let Some(record) = self.live(key, at) {
            visit(&ModelItem { key, record });
        }
        Ok(())
    }
}

impl ModelStore {
    fn resolve(&self, at: i64) -> Result<i64, ReadError> {
        if at > self.revision {
            return Err(ReadError::FutureRevision);
        }
        let at = if at <= 0 { self.revision } else { at };
        if at < self.compact_revision {
            return Err(ReadError::Compacted);
        }
        Ok(at)
    }
}

/// A transaction that writes through; tests compare whole stores to see that nothing was written.
pub(super) struct ModelTxn<'a> {
    pub(super) store: &'a mut ModelStore,
    changes: usize,
    /// Ranges read, so that tests can see what was skipped.
    pub(super) calls: Cell<usize>,
}

impl ModelTxn<'_> {
    pub(super) fn commit(self) {
        if self.changes > 0 {
            self.store.revision += 1;
        }
    }

    fn push(&mut self, key: &[u8], record: Option<Record>) {
        let version = Version {
            revision: self.store.revision + 1,
            sub: self.changes,
            record,
        };
        self.changes += 1;
        self.store
            .keys
            .entry(key.to_vec())
            .or_default()
            .push(version);
    }

    fn newest(&self) -> i64 {
        self.store.revision + i64::from(self.changes > 0)
    }
}

impl WriteTxn for ModelTxn<'_> {
    fn revision(&self) -> i64 {
        self.store.revision
    }

    fn compact_revision(&self) -> i64 {
        self.store.compact_revision
    }

    fn has_changed(&self) -> bool {
        self.changes > 0
    }

    fn get(&self, key: &[u8], visit: &mut dyn FnMut(&dyn StoredItem)) {
        self.get_at(key, self.newest(), visit);
    }

    fn get_at(&self, key: &[u8], at: i64, visit: &mut dyn FnMut(&dyn StoredItem)) {
        assert!(0 < at && at <= self.newest());
        if let Some(record) = self.store.live(key, at) {
            visit(&ModelItem { key, record });
        }
    }

    fn range(&self, range: KeyRange<'_>, at: i64, visit: Visit<'_>) {
        assert!(0 < at && at <= self.newest());
        self.calls.set(self.calls.get() + 1);
        for (key, record) in self.store.live_range(range, at) {
            if visit(&ModelItem { key, record }).is_break() {
                return;
            }
        }
    }

    fn count(&self, range: KeyRange<'_>, at: i64) -> usize {
        assert!(0 < at && at <= self.newest());
        self.store.live_range(range, at).len()
    }

    fn put(&mut self, key: &[u8], value: &[u8], lease: i64) {
        let revision = self.store.revision + 1;
        let before = self.store.live(key, revision).map(|record| record.meta);
        let meta = KeyMeta {
            create_revision: before.map_or(revision, |meta| meta.create_revision),
            mod_revision: revision,
            version: before.map_or(1, |meta| meta.version + 1),
        };
        let mut encoded = Vec::new();
        KeyValueParts {
            key,
            create_revision: meta.create_revision,
            mod_revision: meta.mod_revision,
            version: meta.version,
            value,
            lease,
        }
        .encode(&mut encoded);
        self.push(
            key,
            Some(Record {
                meta,
                value: value.to_vec(),
                lease,
                encoded,
            }),
        );
    }

    fn delete_range(&mut self, range: KeyRange<'_>, mut on_deleted: Option<Shown<'_>>) -> usize {
        let at = self.newest();
        let keys: Vec<Vec<u8>> = self
            .store
            .live_range(range, at)
            .iter()
            .map(|(key, _)| key.to_vec())
            .collect();
        for key in &keys {
            let record = self.store.live(key, at).expect("just listed").clone();
            if let Some(show) = &mut on_deleted {
                show(&ModelItem {
                    key,
                    record: &record,
                });
            }
            self.push(key, None);
        }
        keys.len()
    }

    fn has_lease(&self, lease: i64) -> bool {
        self.store.leases.contains(&lease)
    }
}
