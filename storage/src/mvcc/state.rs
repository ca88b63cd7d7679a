//! What writer and readers share: the published revision, the index root, and where records lie.
//!
//! Invariants
//! - A published revision's records are in the `State` that is published with it or before it: above the live
//!   buffer's floor in the live one, above the frozen one's floor in that, below in the tree.
//! - Order of publication: records, index root, revision, applied index. Readers load revision, state, root and
//!   then the compact revision; so a reader that finds its revision not compacted holds all it needs.
//!
//! Any core; only the apply core stores.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64};

use arc_swap::ArcSwap;

use super::buffer::{AppendBuffer, BufferWriter};
use super::index::Index;
use super::pins::Pins;
use super::revision::Revision;
use super::tree_seam::{Bucket, TreeDamage, TreeSnapshot};

pub(super) struct Shared<T> {
    pub(super) index: Arc<Index>,
    pub(super) state: ArcSwap<State<T>>,
    pub(super) pins: Arc<Pins>,
    pub(super) revision: AtomicI64,
    pub(super) compact_revision: AtomicI64,
    pub(super) applied_index: AtomicU64,
}

/// Where the records of revisions lie.
pub(super) struct State<T> {
    pub(super) tree: T,
    pub(super) frozen: Option<Arc<AppendBuffer>>,
    pub(super) live: Arc<AppendBuffer>,
}

/// Gives the stored record of a put that the index knows.
pub(super) trait RecordSource {
    fn record(&self, revision: Revision) -> &[u8];
}

impl<T: TreeSnapshot> State<T> {
    /// The stored record of a put; `live` looks into the live buffer.
    fn find<'s>(
        &'s self,
        revision: Revision,
        live: impl FnOnce() -> Option<&'s [u8]>,
    ) -> Option<&'s [u8]> {
        if revision.main > self.live.floor() {
            return live();
        }
        match &self.frozen {
            Some(frozen) if revision.main > frozen.floor() => {
                frozen.get(revision).map(|record| record.bytes)
            }
            _ => {
                let record = self.tree.get(Bucket::Key, &revision.put_key());
                record.unwrap_or_else(|damage| damaged(&damage))
            }
        }
    }
}

impl<T: TreeSnapshot> RecordSource for State<T> {
    fn record(&self, revision: Revision) -> &[u8] {
        let found = self.find(revision, || {
            self.live.get(revision).map(|record| record.bytes)
        });
        found.unwrap_or_else(|| missing(revision))
    }
}

/// The writer's view, which includes unpublished records.
pub(super) struct WriterSource<'s, T> {
    pub(super) state: &'s State<T>,
    pub(super) live: &'s BufferWriter,
}

impl<'s, T: TreeSnapshot> WriterSource<'s, T> {
    pub(super) fn find(&self, revision: Revision) -> &'s [u8] {
        let live = self.live;
        let found = self
            .state
            .find(revision, || live.get(revision).map(|record| record.bytes));
        found.unwrap_or_else(|| missing(revision))
    }
}

impl<T: TreeSnapshot> RecordSource for WriterSource<'_, T> {
    fn record(&self, revision: Revision) -> &[u8] {
        self.find(revision)
    }
}

/// The file was whole at open: the ground has moved. Serving on would serve guesses.
pub(super) fn damaged(damage: &TreeDamage) -> ! {
    panic!("tree file: {damage}; this member stops; restore it from a backup")
}

fn missing(revision: Revision) -> ! {
    let Revision { main, sub } = revision;
    panic!(
        "the index knows revision {main}_{sub}, but neither batch nor tree file holds its record"
    )
}
