//! The key index: from key to history, one writer, readers on every core, no lock.
//!
//! A B+tree in memory whose nodes are copied on write and published by one atomic root; records are stable
//! objects that grow in place. A put to a living key appends to its record and leaves the tree alone. A key that
//! comes to life or dies copies the path to its leaf, because every node counts its living keys: that makes the
//! count of an interval at a recent revision logarithmic.
//!
//! Invariants
//! - The published root shows every change of every published revision. What is newer than the revision a
//!   reader asks for, it skips.
//! - Whatever is unlinked is retired through the epoch, so a pinned reader's view stays whole.
//!
//! Why not a lock-free skip list or in-place B-link tree: a copied node needs no validation on the read side and
//! carries exact counts; the path copy costs the writer about a microsecond, for new and dying keys only.
//!
//! The apply core owns the one `IndexWriter`. Knows neither values nor the tree file.

mod bulk;
mod count;
mod cursor;
mod node;
mod record;
mod sweep;
mod writer;

use std::marker::PhantomData;
use std::sync::atomic::{AtomicPtr, Ordering};

use crossbeam_epoch::{self as epoch, Guard};

pub(super) use bulk::{LoadedRevision, Loader};
pub(super) use cursor::Cursor;
pub(super) use record::RecordRef;
pub(super) use writer::{Deleted, IndexWriter};

use node::{NodePtr, NodeRef};

use super::key_value::KeyMeta;

/// Levels of the tree; 64^4 is 16 M keys at full fill, so this is never reached.
const LEVELS_MAX: usize = 24;

/// The published root.
pub(super) struct Index {
    root: AtomicPtr<node::Head>,
}

// SAFETY: the tree behind the root is immutable but for record tails, which are published with release stores;
// memory is freed through the epoch, or by `drop`, which nobody else can run beside.
unsafe impl Send for Index {}
// SAFETY: as above.
unsafe impl Sync for Index {}

impl Index {
    /// Pins the calling thread and loads the root.
    pub(super) fn pin(&self) -> PinnedIndex {
        let guard = epoch::pin();
        let root = self.root.load(Ordering::Acquire);
        PinnedIndex { guard, root }
    }

    fn new(root: NodePtr) -> Self {
        Self {
            root: AtomicPtr::new(root.as_ptr()),
        }
    }

    fn publish(&self, root: NodePtr) {
        self.root.store(root.as_ptr(), Ordering::Release);
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        let root = NodePtr::new(*self.root.get_mut()).expect("there is always a root");
        // SAFETY: no reader is left (they hold an `Index` by reference or count), retired objects are not
        // reachable from the root, and the writer has nothing unpublished when it goes.
        unsafe { free_tree(root) }
    }
}

/// # Safety
/// Nobody else can reach anything under `root`.
unsafe fn free_tree(root: NodePtr) {
    // SAFETY: alive and exclusive by the caller's promise; every child and record has one parent.
    unsafe {
        let node = NodeRef::new(root);
        for position in 0..node.len() {
            if node.is_leaf() {
                record::free(node.record(position).ptr());
            } else {
                free_tree(node.child(position).ptr());
            }
        }
        node::free(root);
    }
}

/// A root that stays whole while this lives. Not to be held across slices: it holds back reclamation.
pub(super) struct PinnedIndex {
    guard: Guard,
    root: *mut node::Head,
}

impl PinnedIndex {
    pub(super) fn view(&self) -> IndexView<'_> {
        let root = NodePtr::new(self.root).expect("there is always a root");
        // SAFETY: loaded under `guard`, which the view borrows.
        unsafe { IndexView::new(root, &self.guard) }
    }
}

/// One state of the tree.
#[derive(Clone, Copy)]
pub(super) struct IndexView<'g> {
    root: NodeRef<'g>,
    marker: PhantomData<&'g Guard>,
}

impl<'g> IndexView<'g> {
    /// # Safety
    /// `root` was loaded under `guard`, or the writer that owns it is pinned by `guard`.
    unsafe fn new(root: NodePtr, _guard: &'g Guard) -> Self {
        Self {
            // SAFETY: by the caller's promise.
            root: unsafe { NodeRef::new(root) },
            marker: PhantomData,
        }
    }

    pub(super) fn record(self, key: &[u8]) -> Option<RecordRef<'g>> {
        let mut node = self.root;
        while !node.is_leaf() {
            node = node.child(node.route(key));
        }
        node.search(key).ok().map(|position| node.record(position))
    }

    /// The key's life at `at`, which is not below the compact revision.
    pub(super) fn get(self, key: &[u8], at: i64) -> Option<(&'g [u8], KeyMeta)> {
        let record = self.record(key)?;
        let meta = record.newest_at(at)?.live()?;
        Some((record.key(), meta))
    }

    /// Records from the first key >= `from` on.
    pub(super) fn cursor(self, from: &[u8]) -> Cursor<'g> {
        Cursor::seek(self.root, from)
    }
}

#[cfg(test)]
mod tests;
