//! The writer's half of the index: puts, deletes, and the undo of both until they are published.
//!
//! Invariants
//! - Until `publish` readers see the old root; what was appended to records is above every revision they ask for.
//! - `fresh` are the nodes built and `retired` the ones replaced since the last `publish`; `undo` is the way back
//!   through the records, newest last. All three are empty between transactions.
//!
//! Apply core only.

use std::sync::Arc;

use crossbeam_epoch::{self as epoch, Guard};

use super::node::{self, NODE_RECORDS_MAX, NodePtr, NodeRef, Slot};
use super::record::{self, Found, RecordPtr, RecordRef};
use super::{Index, IndexView, LEVELS_MAX};
use crate::mvcc::key_value::KeyMeta;
use crate::mvcc::range::KeyRange;
use crate::mvcc::revision::Revision;

pub(in crate::mvcc) struct IndexWriter {
    pub(super) index: Arc<Index>,
    pub(super) root: NodePtr,
    pub(super) fresh: Vec<NodePtr>,
    pub(super) retired: Vec<NodePtr>,
    pub(super) retired_records: Vec<RecordPtr>,
    undo: Vec<Undo>,
    /// Reused to rebuild a node.
    slots: Vec<Slot>,
    /// Revision of the last trim; see `RecordRef::append`.
    pub(super) floor: i64,
}

// SAFETY: the pointers lead to memory that this writer alone changes; the index behind `Arc` is shared by rules
// of its own.
unsafe impl Send for IndexWriter {}

enum Undo {
    Append(RecordPtr),
    NewRecord(RecordPtr),
}

/// A key whose life a delete has ended.
pub(in crate::mvcc) struct Deleted {
    record: RecordPtr,
    /// The life's last put.
    pub(in crate::mvcc) meta: KeyMeta,
}

// SAFETY: as for the writer, in whose hands alone it is used.
unsafe impl Send for Deleted {}

impl Deleted {
    /// The key; records of deleted keys live on until a compaction, which does not run inside a transaction.
    pub(in crate::mvcc) fn key<'w>(&self, _writer: &'w IndexWriter) -> &'w [u8] {
        // SAFETY: records are unlinked by sweeps and by `abort` only, and both need the writer exclusively.
        unsafe { RecordRef::<'w>::new(self.record) }.key()
    }
}

/// What became of a node on the path upward.
enum Replaced {
    One(NodePtr),
    Two(NodePtr, NodePtr),
}

impl IndexWriter {
    pub(super) fn new(root: NodePtr) -> Self {
        Self {
            index: Arc::new(Index::new(root)),
            root,
            fresh: Vec::new(),
            retired: Vec::new(),
            retired_records: Vec::new(),
            undo: Vec::new(),
            slots: Vec::with_capacity(NODE_RECORDS_MAX + 1),
            floor: -1,
        }
    }

    pub(in crate::mvcc) fn index(&self) -> &Arc<Index> {
        &self.index
    }

    /// The newest state, unpublished changes included. The writer's borrow keeps it from being unlinked.
    pub(in crate::mvcc) fn view(&self) -> IndexView<'_> {
        IndexView {
            // SAFETY: only `&mut self` methods unlink anything from the writer's own root.
            root: unsafe { NodeRef::new(self.root) },
            marker: std::marker::PhantomData,
        }
    }

    pub(in crate::mvcc) fn is_clean(&self) -> bool {
        self.fresh.is_empty() && self.undo.is_empty()
    }

    /// Adds a put at `revision`; returns the life it continues and the put's own numbers.
    pub(in crate::mvcc) fn put(
        &mut self,
        key: &[u8],
        revision: Revision,
    ) -> (KeyMeta, Option<KeyMeta>) {
        let guard = &epoch::pin();
        let (path, leaf, place) = self.descend(key, guard);
        let position = match place {
            Ok(position) => position,
            Err(position) => {
                let meta = KeyMeta {
                    create_revision: revision.main,
                    mod_revision: revision,
                    version: 1,
                };
                self.insert(key, meta, path, leaf, position);
                return (meta, None);
            }
        };
        let record = leaf.record(position);
        let previous = record.newest().live();
        // SAFETY: the writer is `&mut self`; revisions of a store only grow.
        unsafe { record.append(revision, false, self.floor) };
        self.undo.push(Undo::Append(record.ptr()));
        if previous.is_none() {
            // A dead key comes to life: the counts on its path change.
            let node = self.keep(node::with_count(leaf, leaf.live() + 1, revision.main));
            self.retired.push(leaf.ptr());
            self.replace_path(path, Replaced::One(node), revision.main);
        }
        (record.newest().meta, previous)
    }

    /// Ends the life of every living key in `range`, in key order: the n-th gets a tombstone at
    /// `(main, first_sub + n)` and is pushed to `deleted`.
    pub(in crate::mvcc) fn delete_range(
        &mut self,
        range: KeyRange<'_>,
        main: i64,
        first_sub: i64,
        deleted: &mut Vec<Deleted>,
    ) {
        let guard = &epoch::pin();
        let mut killing = Killing {
            range,
            main,
            next_sub: first_sub,
            deleted,
        };
        // SAFETY: the writer's root is alive while pinned.
        let root = unsafe { IndexView::new(self.root, guard) }.root;
        if let Some(root) = self.kill(root, Some(range.key), &mut killing) {
            self.root = root;
        }
    }

    /// Makes everything since the last publication visible to readers that ask for its revision.
    pub(in crate::mvcc) fn publish(&mut self) {
        self.undo.clear();
        if self.fresh.is_empty() {
            return;
        }
        self.fresh.clear();
        self.index.publish(self.root);
        let guard = &epoch::pin();
        for node in self.retired.drain(..) {
            // SAFETY: replaced on the way to the root just published; pushed once.
            unsafe { node::retire(node, guard) };
        }
        for record in self.retired_records.drain(..) {
            // SAFETY: removed or replaced in the tree just published; pushed once.
            unsafe { record::retire(record, guard) };
        }
    }

    /// Takes back everything since the last publication.
    pub(in crate::mvcc) fn abort(&mut self) {
        let guard = &epoch::pin();
        while let Some(undo) = self.undo.pop() {
            // SAFETY: newest first, so each step undoes the record's newest change; records that are new were
            // reachable from unpublished nodes only.
            unsafe {
                match undo {
                    Undo::Append(record) => RecordRef::new(record).undo_append(guard),
                    Undo::NewRecord(record) => record::free(record),
                }
            }
        }
        for node in self.fresh.drain(..) {
            // SAFETY: never published; the root goes back to the published one below.
            unsafe { node::free(node) };
        }
        self.retired.clear();
        debug_assert!(
            self.retired_records.is_empty(),
            "sweeps are published whole"
        );
        let root = self.index.root.load(std::sync::atomic::Ordering::Relaxed);
        self.root = NodePtr::new(root).expect("there is always a root");
    }

    /// Remembers a node built in this transaction.
    pub(super) fn keep(&mut self, node: NodePtr) -> NodePtr {
        self.fresh.push(node);
        node
    }

    fn descend<'g>(
        &self,
        key: &[u8],
        guard: &'g Guard,
    ) -> (Path<'g>, NodeRef<'g>, Result<usize, usize>) {
        // SAFETY: the writer's root is alive, and what is unlinked from it stays while `guard` pins.
        let mut node = unsafe { IndexView::new(self.root, guard) }.root;
        let mut path = Path {
            steps: [None; LEVELS_MAX],
            depth: 0,
        };
        while !node.is_leaf() {
            let position = node.route(key);
            path.steps[path.depth] = Some((node, position));
            path.depth += 1;
            node = node.child(position);
        }
        (path, node, node.search(key))
    }

    fn insert(
        &mut self,
        key: &[u8],
        meta: KeyMeta,
        path: Path<'_>,
        leaf: NodeRef<'_>,
        position: usize,
    ) {
        let first = Found {
            meta,
            is_tombstone: false,
        };
        let record = record::allocate(key, first);
        self.undo.push(Undo::NewRecord(record));
        let slot = Slot {
            record,
            child: None,
        };
        let main = meta.mod_revision.main;
        let replaced = if leaf.len() < NODE_RECORDS_MAX {
            let live = leaf.live() + 1;
            let node = node::with_inserted(leaf, position, key, slot, live, main);
            let node = node.unwrap_or_else(|| {
                self.slots.clear();
                self.slots.extend((0..leaf.len()).map(|p| leaf.slot(p)));
                self.slots.insert(position, slot);
                // SAFETY: slots of a live node and a new record.
                unsafe { node::build(0, &self.slots, live, main) }
            });
            Replaced::One(self.keep(node))
        } else {
            self.slots.clear();
            self.slots.extend((0..leaf.len()).map(|p| leaf.slot(p)));
            self.slots.insert(position, slot);
            self.split(0, main)
        };
        self.retired.push(leaf.ptr());
        self.replace_path(path, replaced, main);
    }

    /// Builds two nodes from `self.slots`. Keys that arrive in ascending order leave full nodes behind.
    fn split(&mut self, level: u16, main: i64) -> Replaced {
        let slots = std::mem::take(&mut self.slots);
        let last_is_new = slots.last().is_some_and(|slot| match slot.child {
            // SAFETY: slots hold live nodes.
            Some(child) => unsafe { NodeRef::new(child) }.len() <= 1,
            None => matches!(self.undo.last(), Some(Undo::NewRecord(new)) if *new == slot.record),
        });
        let middle = if last_is_new {
            slots.len() - 1
        } else {
            slots.len() / 2
        };
        let mut half = |slots: &[Slot]| {
            let live = slots.iter().map(live_of).sum();
            // SAFETY: slots of a live node and one new record or node.
            let node = unsafe { node::build(level, slots, live, main) };
            self.keep(node)
        };
        let replaced = Replaced::Two(half(&slots[..middle]), half(&slots[middle..]));
        self.slots = slots;
        replaced
    }

    /// Replaces the path's nodes from the leaf's parent up to the root.
    fn replace_path(&mut self, path: Path<'_>, mut replaced: Replaced, main: i64) {
        for (parent, position) in path.steps[..path.depth].iter().rev().flatten().copied() {
            replaced = self.replace_child(parent, position, replaced, main);
            self.retired.push(parent.ptr());
        }
        self.root = match replaced {
            Replaced::One(node) => node,
            Replaced::Two(left, right) => {
                let slots = [slot_of(left), slot_of(right)];
                let live = slots.iter().map(live_of).sum();
                // SAFETY: just built.
                let level = unsafe { NodeRef::new(left) }.level() + 1;
                assert!(usize::from(level) < LEVELS_MAX, "the tree is too deep");
                // SAFETY: just built.
                let root = unsafe { node::build(level, &slots, live, main) };
                self.keep(root)
            }
        };
    }

    fn replace_child(
        &mut self,
        parent: NodeRef<'_>,
        position: usize,
        replaced: Replaced,
        main: i64,
    ) -> Replaced {
        let live_before = parent.child(position).live();
        match replaced {
            Replaced::One(node) => {
                let slot = slot_of(node);
                let live = parent.live() - live_before + live_of(&slot);
                let node = if slot.record == parent.slot(position).record {
                    node::with_child(parent, position, slot, live, main)
                } else {
                    self.slots.clear();
                    self.slots.extend((0..parent.len()).map(|p| parent.slot(p)));
                    self.slots[position] = slot;
                    // SAFETY: slots of a live node and the child just built.
                    unsafe { node::build(parent.level(), &self.slots, live, main) }
                };
                Replaced::One(self.keep(node))
            }
            Replaced::Two(left, right) => {
                let (left, right) = (slot_of(left), slot_of(right));
                self.slots.clear();
                self.slots.extend((0..parent.len()).map(|p| parent.slot(p)));
                self.slots[position] = left;
                self.slots.insert(position + 1, right);
                if self.slots.len() > NODE_RECORDS_MAX {
                    return self.split(parent.level(), main);
                }
                let live = parent.live() - live_before + live_of(&left) + live_of(&right);
                // SAFETY: slots of a live node and the children just built.
                let node = unsafe { node::build(parent.level(), &self.slots, live, main) };
                Replaced::One(self.keep(node))
            }
        }
    }

    /// The node that replaces `node` after its keys in the range have died; `None` if none did.
    fn kill(
        &mut self,
        node: NodeRef<'_>,
        from: Option<&[u8]>,
        killing: &mut Killing<'_, '_>,
    ) -> Option<NodePtr> {
        let before = killing.deleted.len();
        if node.is_leaf() {
            let start = from.map_or(0, |from| node.search(from).unwrap_or_else(|p| p));
            for position in start..node.len() {
                let record = node.record(position);
                if !killing.range.is_below_end(record.key()) {
                    break;
                }
                let Some(meta) = record.newest().live() else {
                    continue;
                };
                let revision = Revision::new(killing.main, killing.next_sub);
                // SAFETY: the writer is `&mut self`; revisions of a store only grow.
                unsafe { record.append(revision, true, self.floor) };
                self.undo.push(Undo::Append(record.ptr()));
                killing.next_sub += 1;
                killing.deleted.push(Deleted {
                    record: record.ptr(),
                    meta,
                });
            }
            let count = (killing.deleted.len() - before) as u64;
            if count == 0 {
                return None;
            }
            self.retired.push(node.ptr());
            let copy = node::with_count(node, node.live() - count, killing.main);
            return Some(self.keep(copy));
        }
        let start = from.map_or(0, |from| node.route(from));
        let mut slots = Vec::new();
        for position in start..node.len() {
            let smallest = node.record(position);
            if position > start && !killing.range.is_below_end(smallest.key()) {
                break;
            }
            // Children without living keys have nothing to kill.
            if node.child(position).live() == 0 {
                continue;
            }
            let child_from = from.filter(|_| position == start);
            if let Some(child) = self.kill(node.child(position), child_from, killing) {
                if slots.is_empty() {
                    slots.extend((0..node.len()).map(|p| node.slot(p)));
                }
                slots[position] = slot_of(child);
            }
        }
        if slots.is_empty() {
            return None;
        }
        let count = (killing.deleted.len() - before) as u64;
        self.retired.push(node.ptr());
        // SAFETY: slots of a live node and children just built.
        let copy = unsafe { node::build(node.level(), &slots, node.live() - count, killing.main) };
        Some(self.keep(copy))
    }
}

impl Drop for IndexWriter {
    fn drop(&mut self) {
        self.abort();
    }
}

struct Path<'g> {
    steps: [Option<(NodeRef<'g>, usize)>; LEVELS_MAX],
    depth: usize,
}

struct Killing<'r, 'd> {
    range: KeyRange<'r>,
    main: i64,
    next_sub: i64,
    deleted: &'d mut Vec<Deleted>,
}

/// The slot by which a parent refers to `node`, which is not empty.
pub(super) fn slot_of(node: NodePtr) -> Slot {
    // SAFETY: callers pass nodes they have just built or replaced in this transaction.
    let record = unsafe { NodeRef::new(node) }.slot(0).record;
    Slot {
        record,
        child: Some(node),
    }
}

/// Living keys behind a slot.
pub(super) fn live_of(slot: &Slot) -> u64 {
    match slot.child {
        // SAFETY: slots the writer handles lead to live nodes.
        Some(child) => unsafe { NodeRef::new(child) }.live(),
        None => {
            // SAFETY: as above.
            let record = unsafe { RecordRef::new(slot.record) };
            u64::from(!record.newest().is_tombstone)
        }
    }
}
