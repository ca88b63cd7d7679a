//! The readers' side: a handle that any core may hold, and short views through it.
//!
//! Always true: a view shows one published revision whole, whatever the writer does meanwhile.
//! Any core. Takes no lock and never waits for the writer.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::index::{IndexView, PinnedIndex};
use super::key_value::KeyMeta;
use super::pins::Pin;
use super::state::{RecordSource, Shared, State};
use super::tree_seam::TreeSnapshot;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    #[error("revision has been compacted (compact revision {compact_revision})")]
    Compacted { compact_revision: i64 },
    #[error("revision is in the future (current revision {revision})")]
    Future { revision: i64 },
}

/// One live key at the asked revision.
#[derive(Clone, Copy)]
pub struct Item<'v> {
    pub key: &'v [u8],
    pub meta: KeyMeta,
    pub(super) source: &'v dyn RecordSource,
}

impl<'v> Item<'v> {
    /// The stored `mvccpb.KeyValue` bytes; looked up only when asked for.
    pub fn record(&self) -> &'v [u8] {
        self.source.record(self.meta.mod_revision)
    }
}

/// Handle to the published state.
pub struct Reader<T> {
    pub(super) shared: Arc<Shared<T>>,
}

impl<T> Clone for Reader<T> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<T: TreeSnapshot> Reader<T> {
    /// A consistent view; keep it for one slice of work only (it holds back memory and page reclamation).
    pub fn view(&self) -> ReadView<T> {
        loop {
            let revision = self.revision();
            let state = self.shared.state.load();
            let index = self.shared.index.pin();
            // Last: if this does not pass a revision now, state and root were loaded before any of its records went.
            let compact_revision = self.compact_revision();
            // Commits and a compaction may overtake a reader that is put aside in here. What it loaded first is then
            // no longer the newest, and a read of the newest must not be refused as compacted.
            if compact_revision <= revision {
                return ReadView {
                    revision,
                    compact_revision,
                    state,
                    index,
                };
            }
        }
    }

    pub fn revision(&self) -> i64 {
        self.shared.revision.load(Ordering::Acquire)
    }

    /// -1 before the first compaction.
    pub fn compact_revision(&self) -> i64 {
        self.shared.compact_revision.load(Ordering::SeqCst)
    }

    /// Raft index of the newest entry whose effects a view shows.
    pub fn applied_index(&self) -> u64 {
        self.shared.applied_index.load(Ordering::Acquire)
    }

    pub(super) fn pin(&self, revision: i64) -> Option<Pin> {
        self.shared.pins.claim(revision)
    }
}

pub struct ReadView<T: TreeSnapshot> {
    pub revision: i64,
    pub compact_revision: i64,
    state: arc_swap::Guard<Arc<State<T>>>,
    index: PinnedIndex,
}

impl<T: TreeSnapshot> ReadView<T> {
    /// `at` <= 0 reads the newest.
    pub fn get(&self, key: &[u8], at: i64) -> Result<Option<Item<'_>>, ReadError> {
        let at = self.resolve(at)?;
        let found = self.index().get(key, at);
        Ok(found.map(|(key, meta)| self.item(key, meta)))
    }

    /// The revision that a read at `at` uses.
    pub fn resolve(&self, at: i64) -> Result<i64, ReadError> {
        if at > self.revision {
            return Err(ReadError::Future {
                revision: self.revision,
            });
        }
        let at = if at <= 0 { self.revision } else { at };
        self.check_not_compacted(at)?;
        Ok(at)
    }

    pub(super) fn check_not_compacted(&self, at: i64) -> Result<(), ReadError> {
        if at < self.compact_revision {
            return Err(ReadError::Compacted {
                compact_revision: self.compact_revision,
            });
        }
        Ok(())
    }

    pub(super) fn index(&self) -> IndexView<'_> {
        self.index.view()
    }

    pub(super) fn state(&self) -> &State<T> {
        &self.state
    }

    pub(super) fn item<'v>(&'v self, key: &'v [u8], meta: KeyMeta) -> Item<'v> {
        Item {
            key,
            meta,
            source: &**self.state,
        }
    }
}
