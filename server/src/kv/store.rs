//! What key-value semantics need of a multi-version store.
//!
//! Always true: an interval has etcd's three forms (see [`KeyRange`]); items come in ascending key order; revisions are
//! main revisions. Implemented over the MVCC store, and by a model in tests. Does not say how data is kept.

use std::ops::ControlFlow;

use wire::error::EtcdError;
use wire::kv::KeyValueParts;

/// `[key, end)` in etcd's form: empty `end` is exactly `key`, one zero byte is no upper limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeyRange<'a> {
    pub key: &'a [u8],
    pub end: &'a [u8],
}

impl<'a> KeyRange<'a> {
    pub fn new(key: &'a [u8], end: &'a [u8]) -> Self {
        KeyRange { key, end }
    }

    /// Whether the interval is one key, present or not.
    pub fn is_single(&self) -> bool {
        self.end.is_empty()
    }

    pub fn contains(&self, key: &[u8]) -> bool {
        match self.end {
            b"" => key == self.key,
            b"\0" => self.key <= key,
            end => self.key <= key && key < end,
        }
    }
}

/// What the index knows of a live key.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct KeyMeta {
    pub create_revision: i64,
    pub mod_revision: i64,
    pub version: i64,
}

/// One live key at the revision asked for.
pub trait StoredItem {
    fn key(&self) -> &[u8];
    fn meta(&self) -> KeyMeta;
    /// The encoded `mvccpb.KeyValue`. May have to be looked up, so it is asked for only when needed.
    fn record(&self) -> &[u8];
}

/// Reads an item's record.
///
/// Records were encoded by the store itself and its pages are checked against damage, so one that cannot be read is a
/// bug or memory gone bad: serving on would hand out wrong data.
pub fn read_record(record: &[u8]) -> KeyValueParts<'_> {
    KeyValueParts::decode(record).expect("a stored record is an encoded KeyValue")
}

/// Why a read cannot be answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadError {
    Compacted,
    FutureRevision,
}

impl From<ReadError> for EtcdError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Compacted => EtcdError::Compacted,
            ReadError::FutureRevision => EtcdError::FutureRevision,
        }
    }
}

/// What a scan hands out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ScanMode {
    /// Up to `limit` items (0 = all); the rest of the interval is counted.
    Items { limit: usize },
    /// Nothing; the interval is counted.
    Count,
}

/// Whether a piece of work needs another step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    More,
    Done,
}

/// Called for each item that was deleted, as it was.
pub type Shown<'a> = &'a mut dyn FnMut(&dyn StoredItem);

/// Takes an item; `Break` ends the step after it.
pub type Visit<'a> = &'a mut dyn FnMut(&dyn StoredItem) -> ControlFlow<()>;

/// A store that can be read in slices.
pub trait ReadStore {
    /// A range under way: its fixed revision, its position, its count.
    type Scan;

    /// Newest revision.
    fn revision(&self) -> i64;

    /// -1 before the first compaction.
    fn compact_revision(&self) -> i64;

    /// Begins a scan at revision `at`, or at the newest, fixed now, if `at` <= 0.
    fn scan(&self, range: KeyRange<'_>, at: i64, mode: ScanMode) -> Result<Self::Scan, ReadError>;

    /// Works off about `budget` keys. `range` is the one the scan was begun with.
    fn step(
        &self,
        scan: &mut Self::Scan,
        range: KeyRange<'_>,
        budget: usize,
        visit: Visit<'_>,
    ) -> Result<Progress, ReadError>;

    /// Revision the scan reads at.
    fn scan_at(&self, scan: &Self::Scan) -> i64;

    /// Newest revision when the scan began.
    fn scan_revision(&self, scan: &Self::Scan) -> i64;

    /// Live keys in the interval; final once `step` said `Done`.
    fn scan_count(&self, scan: &Self::Scan) -> usize;

    /// Shows the key's item at revision `at` (newest if `at` <= 0) to `visit`, if it is live there.
    fn get(
        &self,
        key: &[u8],
        at: i64,
        visit: &mut dyn FnMut(&dyn StoredItem),
    ) -> Result<(), ReadError>;
}

/// The single writer's transaction: all its changes become visible at one new revision.
pub trait WriteTxn {
    /// Revision before the transaction.
    fn revision(&self) -> i64;

    /// -1 before the first compaction.
    fn compact_revision(&self) -> i64;

    /// Whether anything was changed so far; if so, reads see `revision() + 1`.
    fn has_changed(&self) -> bool;

    /// Shows the key's newest item, own writes included, to `visit`, if it is live.
    fn get(&self, key: &[u8], visit: &mut dyn FnMut(&dyn StoredItem));

    /// Shows the key's item at revision `at` > 0. Own writes are at `revision() + 1`.
    fn get_at(&self, key: &[u8], at: i64, visit: &mut dyn FnMut(&dyn StoredItem));

    /// Visits the live keys at revision `at` > 0, not below the compact revision, until `visit` breaks.
    fn range(&self, range: KeyRange<'_>, at: i64, visit: Visit<'_>);

    /// Live keys at revision `at` > 0.
    fn count(&self, range: KeyRange<'_>, at: i64) -> usize;

    fn put(&mut self, key: &[u8], value: &[u8], lease: i64);

    /// Deletes the interval's live keys in key order, showing the items as they were to who wants them;
    /// returns how many.
    fn delete_range(&mut self, range: KeyRange<'_>, on_deleted: Option<Shown<'_>>) -> usize;

    /// Whether a lease with this id exists.
    fn has_lease(&self, lease: i64) -> bool;
}

/// Newest revision a transaction can read: its own, once it has changed something.
pub fn newest_revision<W: WriteTxn>(txn: &W) -> i64 {
    txn.revision() + i64::from(txn.has_changed())
}

/// Reads a write transaction through the interface of [`ReadStore`]; every step runs to the end.
pub struct TxnReads<'a, W>(pub &'a W);

/// A scan of [`TxnReads`].
#[derive(Clone, Copy, Debug)]
pub struct TxnScan {
    at: i64,
    revision: i64,
    mode: ScanMode,
    count: usize,
}

impl<W: WriteTxn> ReadStore for TxnReads<'_, W> {
    type Scan = TxnScan;

    fn revision(&self) -> i64 {
        newest_revision(self.0)
    }

    fn compact_revision(&self) -> i64 {
        self.0.compact_revision()
    }

    fn scan(&self, _: KeyRange<'_>, at: i64, mode: ScanMode) -> Result<TxnScan, ReadError> {
        let revision = self.revision();
        if at > revision {
            return Err(ReadError::FutureRevision);
        }
        let at = if at <= 0 { revision } else { at };
        if at < self.compact_revision() {
            return Err(ReadError::Compacted);
        }
        Ok(TxnScan {
            at,
            revision,
            mode,
            count: 0,
        })
    }

    fn step(
        &self,
        scan: &mut TxnScan,
        range: KeyRange<'_>,
        _budget: usize,
        visit: Visit<'_>,
    ) -> Result<Progress, ReadError> {
        let limit = match scan.mode {
            ScanMode::Count => {
                scan.count = self.0.count(range, scan.at);
                return Ok(Progress::Done);
            }
            ScanMode::Items { limit: 0 } => usize::MAX,
            ScanMode::Items { limit } => limit,
        };
        let mut seen = 0;
        self.0.range(range, scan.at, &mut |item| {
            if seen == limit {
                // One more than wanted is there, so the rest has to be counted.
                seen += 1;
                return ControlFlow::Break(());
            }
            seen += 1;
            // The visitor's wish to pause is not heard: nothing else may run inside a transaction.
            let _ = visit(item);
            ControlFlow::Continue(())
        });
        scan.count = if seen > limit {
            self.0.count(range, scan.at)
        } else {
            seen
        };
        Ok(Progress::Done)
    }

    fn scan_at(&self, scan: &TxnScan) -> i64 {
        scan.at
    }

    fn scan_revision(&self, scan: &TxnScan) -> i64 {
        scan.revision
    }

    fn scan_count(&self, scan: &TxnScan) -> usize {
        scan.count
    }

    fn get(
        &self,
        key: &[u8],
        at: i64,
        visit: &mut dyn FnMut(&dyn StoredItem),
    ) -> Result<(), ReadError> {
        if at <= 0 {
            self.0.get(key, visit)
        } else {
            self.0.get_at(key, at, visit)
        }
        Ok(())
    }
}
