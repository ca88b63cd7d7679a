//! Joins the key-value semantics to the MVCC store.
//!
//! Always true here: nothing is decided; names of one side are translated to those of the other.

use std::cell::Cell;
use std::ops::ControlFlow;

use storage::lease::{LeaseId, LeaseTable};
use storage::mvcc::{self, Item, Reader, Scan, TreeSnapshot};

use crate::kv::store::{
    KeyMeta, KeyRange, Progress, ReadError, ReadStore, ScanMode, Shown, StoredItem, Visit, WriteTxn,
};

/// The readers' side.
pub struct Reads<'a, T: TreeSnapshot> {
    pub reader: &'a Reader<T>,
    /// Counts what the store is asked for.
    pub ranges: &'a Cell<u64>,
    /// Whether scans that begin here hold a later compaction up until they end; without it a later
    /// step can find its revision compacted.
    pub is_pinned: bool,
}

/// The writer's side: one entry's transaction.
pub struct Writes<'s, T: TreeSnapshot> {
    pub txn: mvcc::WriteTxn<'s, T>,
    /// Keys are attached and detached as they are written: once a command changes anything it does not fail.
    leases: &'s mut LeaseTable,
    compact_revision: i64,
    pub counts: WriteCounts,
}

impl<'s, T: TreeSnapshot> Writes<'s, T> {
    pub fn new(
        store: &'s mut mvcc::Store<T>,
        leases: &'s mut LeaseTable,
        applied: mvcc::Applied,
    ) -> Self {
        Writes {
            compact_revision: store.compact_revision(),
            txn: store.begin(applied),
            leases,
            counts: WriteCounts::default(),
        }
    }
}

/// What one transaction asked of the store, as etcd's metrics count it.
#[derive(Default)]
pub struct WriteCounts {
    pub ranges: Cell<u64>,
    pub puts: u64,
    pub deletes: u64,
    pub put_bytes: u64,
}

fn count(counter: &Cell<u64>) {
    counter.set(counter.get() + 1);
}

struct Stored<'a, 'v>(&'a Item<'v>);

impl StoredItem for Stored<'_, '_> {
    fn key(&self) -> &[u8] {
        self.0.key
    }

    fn meta(&self) -> KeyMeta {
        KeyMeta {
            create_revision: self.0.meta.create_revision,
            mod_revision: self.0.meta.mod_revision.main,
            version: self.0.meta.version,
        }
    }

    fn record(&self) -> &[u8] {
        self.0.record()
    }
}

fn interval<'a>(range: KeyRange<'a>) -> mvcc::KeyRange<'a> {
    mvcc::KeyRange::new(range.key, range.end)
}

fn refusal(error: mvcc::ReadError) -> ReadError {
    match error {
        mvcc::ReadError::Compacted { .. } => ReadError::Compacted,
        mvcc::ReadError::Future { .. } => ReadError::FutureRevision,
    }
}

impl<T: TreeSnapshot> ReadStore for Reads<'_, T> {
    type Scan = Scan;

    fn revision(&self) -> i64 {
        self.reader.revision()
    }

    fn compact_revision(&self) -> i64 {
        self.reader.compact_revision()
    }

    fn scan(&self, range: KeyRange<'_>, at: i64, mode: ScanMode) -> Result<Scan, ReadError> {
        count(self.ranges);
        let mode = match mode {
            ScanMode::Items { limit } => mvcc::ScanMode::Items { limit },
            ScanMode::Count => mvcc::ScanMode::Count,
        };
        if !self.is_pinned {
            let view = self.reader.view();
            return Scan::unpinned(&view, interval(range), at, mode).map_err(refusal);
        }
        Scan::new(self.reader, interval(range), at, mode).map_err(refusal)
    }

    fn step(
        &self,
        scan: &mut Scan,
        _range: KeyRange<'_>,
        budget: usize,
        visit: Visit<'_>,
    ) -> Result<Progress, ReadError> {
        let progress = scan.step(self.reader, budget, &mut |item| visit(&Stored(item)));
        match progress.map_err(refusal)? {
            mvcc::Progress::More => Ok(Progress::More),
            mvcc::Progress::Done => Ok(Progress::Done),
        }
    }

    fn scan_at(&self, scan: &Scan) -> i64 {
        scan.at()
    }

    fn scan_revision(&self, scan: &Scan) -> i64 {
        scan.revision()
    }

    fn scan_count(&self, scan: &Scan) -> usize {
        scan.count()
    }

    fn get(
        &self,
        key: &[u8],
        at: i64,
        visit: &mut dyn FnMut(&dyn StoredItem),
    ) -> Result<(), ReadError> {
        count(self.ranges);
        let view = self.reader.view();
        if let Some(item) = view.get(key, at).map_err(refusal)? {
            visit(&Stored(&item));
        }
        Ok(())
    }
}

impl<T: TreeSnapshot> WriteTxn for Writes<'_, T> {
    fn revision(&self) -> i64 {
        self.txn.revision()
    }

    fn compact_revision(&self) -> i64 {
        self.compact_revision
    }

    fn has_changed(&self) -> bool {
        self.txn.has_changed()
    }

    fn get(&self, key: &[u8], visit: &mut dyn FnMut(&dyn StoredItem)) {
        count(&self.counts.ranges);
        if let Some(item) = self.txn.get(key) {
            visit(&Stored(&item));
        }
    }

    fn get_at(&self, key: &[u8], at: i64, visit: &mut dyn FnMut(&dyn StoredItem)) {
        count(&self.counts.ranges);
        if let Some(item) = self.txn.get_at(key, at) {
            visit(&Stored(&item));
        }
    }

    fn range(&self, range: KeyRange<'_>, at: i64, visit: Visit<'_>) {
        count(&self.counts.ranges);
        self.txn
            .range(interval(range), at, &mut |item| -> ControlFlow<()> {
                visit(&Stored(item))
            });
    }

    fn count(&self, range: KeyRange<'_>, at: i64) -> usize {
        count(&self.counts.ranges);
        self.txn.count(interval(range), at)
    }

    fn put(&mut self, key: &[u8], value: &[u8], lease: i64) {
        self.counts.puts += 1;
        self.counts.put_bytes += (key.len() + value.len()) as u64;
        self.txn.put(key, value, lease);
        self.leases.on_put(key, LeaseId(lease));
    }

    fn delete_range(&mut self, range: KeyRange<'_>, mut on_deleted: Option<Shown<'_>>) -> usize {
        self.counts.deletes += 1;
        if on_deleted.is_some() {
            // etcd ranges over what it is to show.
            count(&self.counts.ranges);
        }
        let leases = &mut *self.leases;
        self.txn.delete_range(interval(range), &mut |item| {
            leases.on_delete(item.key);
            if let Some(show) = &mut on_deleted {
                show(&Stored(item));
            }
        })
    }

    fn has_lease(&self, lease: i64) -> bool {
        self.leases.contains(LeaseId(lease))
    }
}
