//! The writer's side: the apply core owns the one `Store`.
//!
//! Invariants
//! - `current` is the revision published to readers, except inside a transaction's commit.
//! - At most one batch is frozen; what is pending, frozen and in the tree makes up the whole store.
//! - `compact_revision` never moves back and is published before anything below it goes.
//!
//! Deterministic: the same calls with the same trees give the same batches. Does no I/O, knows no clock: when to
//! freeze and how fast to compact is the caller's decision.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use arc_swap::ArcSwap;

use super::batch::{Frozen, LiveBatch, SmallChanges};
use super::compaction::Compaction;
use super::index::{Deleted, IndexWriter};
use super::meta::{self, LogTie};
use super::open::{self, Opened};
use super::pins::Pins;
use super::read::Reader;
use super::revision::Revision;
use super::state::{RecordSource, Shared, State, WriterSource, damaged};
use super::tree_seam::{Bucket, TreeDamage, TreeSnapshot};
use super::txn::WriteTxn;

/// A raft position whose effects are in the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    pub index: u64,
    pub term: u64,
}

#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes waiting for a group commit (live and frozen) above which `is_congested`. The store never refuses
    /// an entry that the cluster has committed; the caller stops proposing until commits catch up.
    pub waiting_bytes_max: usize,
    /// The same for the number of changes.
    pub waiting_changes_max: usize,
    /// Dead revisions a compaction remembers at a time (some 40 bytes each); with more it deletes the lowest and
    /// goes over the index again.
    pub dead_revisions_max: usize,
    /// Threads that may help to build the index at open.
    pub open_threads_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            waiting_bytes_max: 256 << 20,
            waiting_changes_max: 1 << 20,
            dead_revisions_max: 256 << 10,
            open_threads_max: 2,
        }
    }
}

/// What `open` found in the file.
#[derive(Clone, Debug, Default)]
pub struct OpenReport {
    pub applied: Applied,
    /// JSON text as stored.
    pub conf_state: Option<String>,
    pub storage_version: Option<String>,
    /// Keys the index knows, dead ones that wait for a compaction included.
    pub keys: usize,
    pub revisions: usize,
    /// Attachments of live keys, in key order.
    pub lease_keys: Vec<(Box<[u8]>, i64)>,
    /// A compaction that a crash interrupted; `compact_step` continues it.
    pub resumed_compaction: Option<i64>,
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(
        "tree file: bucket key: key {key:02x?} is not a revision; restore this member from a backup"
    )]
    BadRevisionKey { key: Vec<u8> },
    #[error(
        "tree file: bucket key: revision {main}_{sub} holds no readable record; restore this member from a backup"
    )]
    BadRecord { main: i64, sub: i64 },
    #[error(
        "tree file: bucket meta: the {length} bytes of {key} cannot be read; restore this member from a backup"
    )]
    BadMeta { key: &'static str, length: usize },
    #[error("tree file: {0}; restore this member from a backup")]
    Damaged(#[source] TreeDamage),
}

pub struct Store<T: TreeSnapshot> {
    pub(super) options: Options,
    pub(super) shared: Arc<Shared<T>>,
    /// What `shared.state` holds, without a load.
    pub(super) state: Arc<State<T>>,
    pub(super) index: IndexWriter,
    pub(super) live: LiveBatch,
    frozen: Option<Frozen>,
    pub(super) current: i64,
    pub(super) compact_revision: i64,
    applied: Applied,
    /// As of the last freeze.
    applied_frozen: Applied,
    /// The log whose entries are applied here; named in every commit.
    log_id: Option<u64>,
    /// Sequence of the newest batch that is in the tree.
    pub(super) committed: u64,
    pub(super) compaction: Compaction,
    /// Small buckets' changes of the open transaction.
    pub(super) txn_small: SmallChanges,
    /// Reused by deletes.
    pub(super) deleted: Vec<Deleted>,
}

impl<T: TreeSnapshot> Store<T> {
    /// Builds the index in one pass over the `key` bucket.
    pub fn open(tree: T, options: Options) -> Result<(Self, Reader<T>, OpenReport), OpenError> {
        let Opened {
            index,
            current,
            compact_revision,
            compaction,
            report,
        } = open::open(&tree, &options)?;
        let live = LiveBatch::new(current, 1);
        let state = Arc::new(State {
            tree,
            frozen: None,
            live: Arc::clone(live.records.buffer()),
        });
        let shared = Arc::new(Shared {
            index: Arc::clone(index.index()),
            state: ArcSwap::new(Arc::clone(&state)),
            pins: Arc::new(Pins::default()),
            revision: AtomicI64::new(current),
            compact_revision: AtomicI64::new(compact_revision),
            applied_index: AtomicU64::new(report.applied.index),
        });
        let store = Self {
            options,
            shared: Arc::clone(&shared),
            state,
            index,
            live,
            frozen: None,
            current,
            compact_revision,
            applied: report.applied,
            applied_frozen: report.applied,
            log_id: None,
            committed: 0,
            compaction,
            txn_small: SmallChanges::default(),
            deleted: Vec::new(),
        };
        Ok((store, Reader { shared }, report))
    }

    /// Starts the application of one entry. `applied` counts as applied whether the transaction commits or not.
    pub fn begin(&mut self, applied: Applied) -> WriteTxn<'_, T> {
        assert!(self.index.is_clean(), "one transaction at a time");
        self.advance_applied(applied);
        WriteTxn::new(self)
    }

    /// For entries that change nothing in the store.
    pub fn set_applied(&mut self, applied: Applied) {
        self.advance_applied(applied);
        self.publish_applied();
    }

    pub fn applied(&self) -> Applied {
        self.applied
    }

    pub fn revision(&self) -> i64 {
        self.current
    }

    /// -1 before the first compaction.
    pub fn compact_revision(&self) -> i64 {
        self.compact_revision
    }

    /// ConfState JSON, to be written with the next commit.
    pub fn set_conf_state(&mut self, json: &str) {
        meta::set_conf_state(&mut self.live.small, json);
    }

    /// `None` removes it, as a downgrade below 3.6 does.
    pub fn set_storage_version(&mut self, version: Option<&str>) {
        meta::set_storage_version(&mut self.live.small, version);
    }

    /// Every commit from now on names this log, so that another one is noticed at the next start. `None`, for a log that has
    /// no id of its own, forgets the one named before.
    pub fn set_log(&mut self, log_id: Option<u64>) {
        self.log_id = log_id;
        if log_id.is_none() && meta::names_log(self) {
            meta::forget_log(&mut self.live.small);
        }
    }

    /// A small bucket's record as of now (batches, then tree).
    pub fn get_bucket(&self, bucket: Bucket, key: &[u8]) -> Option<&[u8]> {
        let frozen = self.frozen.as_ref();
        self.live
            .small
            .get(bucket, key)
            .or_else(|| frozen?.small().get(bucket, key))
            .unwrap_or_else(|| {
                let value = self.state.tree.get(bucket, key);
                value.unwrap_or_else(|damage| damaged(&damage))
            })
    }

    /// The tree the store last committed to or opened; for reading whole small buckets at start.
    pub fn tree(&self) -> &T {
        &self.state.tree
    }

    /// Changes waiting in the live batch (the 10,000 rule).
    pub fn pending_changes(&self) -> usize {
        self.live.changes()
    }

    pub fn pending_bytes(&self) -> usize {
        self.live.bytes()
    }

    /// The live batch holds something that must not wait for the timer.
    pub fn must_commit(&self) -> bool {
        self.live.must_commit
    }

    /// Asks for a commit without waiting for the timer (auth switched, backup wanted).
    pub fn force_commit(&mut self) {
        self.live.must_commit = true;
    }

    /// Live and frozen batches together are over their bounds: stop proposing.
    pub fn is_congested(&self) -> bool {
        let frozen = self.frozen.as_ref();
        let bytes = self.live.bytes() + frozen.map_or(0, Frozen::bytes);
        let changes = self.live.changes() + frozen.map_or(0, Frozen::len);
        bytes > self.options.waiting_bytes_max || changes > self.options.waiting_changes_max
    }

    /// Closes the live batch for a group commit; `None` if one is under way or nothing is waiting.
    pub fn freeze(&mut self) -> Option<Frozen> {
        let is_idle = self.live.changes() == 0
            && !self.live.must_commit
            && self.applied == self.applied_frozen;
        if self.frozen.is_some() || is_idle {
            return None;
        }
        meta::set_applied(&mut self.live.small, self.applied);
        if let Some(log_id) = self.log_id {
            let applied = self.applied;
            meta::set_log(&mut self.live.small, LogTie { log_id, applied });
        }
        self.applied_frozen = self.applied;
        let next = LiveBatch::new(self.current, self.live.sequence + 1);
        let frozen = std::mem::replace(&mut self.live, next).freeze(self.applied);
        self.publish_state(State {
            tree: self.state.tree.clone(),
            frozen: Some(Arc::clone(frozen.records())),
            live: Arc::clone(self.live.records.buffer()),
        });
        self.frozen = Some(frozen.clone());
        Some(frozen)
    }

    /// The frozen batch is durable and visible in `tree`.
    pub fn on_committed(&mut self, tree: T) {
        let frozen = self.frozen.take().expect("a commit ends a freeze");
        self.committed = frozen.sequence();
        self.publish_state(State {
            tree,
            frozen: None,
            live: Arc::clone(&self.state.live),
        });
    }

    /// The same store in another place of the file: a commit that had no batch.
    pub fn on_moved(&mut self, tree: T) {
        assert!(self.frozen.is_none(), "a frozen batch goes with its commit");
        self.publish_state(State {
            tree,
            frozen: None,
            live: Arc::clone(&self.state.live),
        });
    }

    pub(super) fn publish_applied(&self) {
        self.shared
            .applied_index
            .store(self.applied.index, Ordering::Release);
    }

    pub(super) fn source(&self) -> WriterSource<'_, T> {
        WriterSource {
            state: &self.state,
            live: &self.live.records,
        }
    }

    fn advance_applied(&mut self, applied: Applied) {
        assert!(
            self.applied.index <= applied.index,
            "entry {} applied after {}",
            applied.index,
            self.applied.index
        );
        self.applied = applied;
    }

    fn publish_state(&mut self, state: State<T>) {
        self.state = Arc::new(state);
        self.shared.state.store(Arc::clone(&self.state));
    }
}

impl<T: TreeSnapshot> RecordSource for Store<T> {
    fn record(&self, revision: Revision) -> &[u8] {
        self.source().find(revision)
    }
}
