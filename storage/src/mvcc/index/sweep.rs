//! Compaction's pass over the index: shortens histories, drops dead keys, joins nodes that became small.
//!
//! Always true: what a reader at or above the compact revision sees is the same before and after each slice.
//! Apply core, between transactions; each slice is published when it ends. Does not touch the file: which
//! revisions go there is decided, from the same histories, before they are shortened.

use crossbeam_epoch::{self as epoch, Guard};

use super::IndexView;
use super::node::{self, NODE_RECORDS_MAX, NodePtr, NodeRef, Slot};
use super::record::Trimmed;
use super::writer::{IndexWriter, slot_of};

/// Neighbours that fit into one node with room to grow are joined.
const JOINED_RECORDS_MAX: usize = NODE_RECORDS_MAX * 5 / 8;

impl IndexWriter {
    /// Trims about `budget` keys from the first key >= `from` on; returns the key to go on from.
    pub(in crate::mvcc) fn trim(&mut self, from: &[u8], at: i64, budget: usize) -> Option<Vec<u8>> {
        assert!(self.is_clean(), "no trim inside a transaction");
        self.floor = at;
        let guard = &epoch::pin();
        let mut sweep = Sweep {
            at,
            budget: budget.max(1),
            resume: None,
        };
        // SAFETY: the writer's root is alive while pinned.
        let root = unsafe { IndexView::new(self.root, guard) }.root;
        if let Swept::Changed(root) = self.sweep(root, from, &mut sweep, guard) {
            self.root = match root {
                Some(root) => self.without_lone_branches(root, guard),
                None => {
                    // SAFETY: no slots.
                    let empty = unsafe { node::build(0, &[], 0, at) };
                    self.keep(empty)
                }
            };
        }
        self.publish();
        sweep.resume
    }

    fn sweep<'g>(
        &mut self,
        node: NodeRef<'g>,
        from: &[u8],
        sweep: &mut Sweep,
        guard: &'g Guard,
    ) -> Swept {
        if node.is_leaf() {
            return self.sweep_leaf(node, sweep, guard);
        }
        let start = node.route(from);
        let mut slots: Vec<Option<Slot>> = Vec::new();
        for position in start..node.len() {
            if sweep.budget == 0 && position > start {
                sweep.resume = Some(node.record(position).key().to_vec());
            }
            if sweep.resume.is_some() {
                break;
            }
            if let Swept::Changed(child) = self.sweep(node.child(position), from, sweep, guard) {
                if slots.is_empty() {
                    slots.extend((0..node.len()).map(|p| Some(node.slot(p))));
                }
                slots[position] = child.map(slot_of);
            }
        }
        if slots.is_empty() {
            return Swept::Same;
        }
        self.retired.push(node.ptr());
        let joined = self.join_small(slots, node.level() - 1, guard);
        if joined.is_empty() {
            return Swept::Changed(None);
        }
        // SAFETY: slots of a live node, or built in this slice. Only dead keys have gone: the count stays.
        let copy = unsafe { node::build(node.level(), &joined, node.live(), node.changed()) };
        Swept::Changed(Some(self.keep(copy)))
    }

    fn sweep_leaf(&mut self, leaf: NodeRef<'_>, sweep: &mut Sweep, guard: &Guard) -> Swept {
        sweep.budget = sweep.budget.saturating_sub(leaf.len());
        let mut slots = Vec::with_capacity(leaf.len());
        let mut is_changed = false;
        for position in 0..leaf.len() {
            let record = leaf.record(position);
            // SAFETY: the writer, between transactions; the caller lets no reader below `at` begin.
            let record = match unsafe { record.trim(sweep.at, guard) } {
                Trimmed::Keep => Some(record.ptr()),
                Trimmed::Remove => None,
                Trimmed::Replace(new) => Some(new),
            };
            if record != Some(leaf.record(position).ptr()) {
                is_changed = true;
                self.retired_records.push(leaf.record(position).ptr());
            }
            slots.extend(record.map(|record| Slot {
                record,
                child: None,
            }));
        }
        if !is_changed {
            return Swept::Same;
        }
        self.retired.push(leaf.ptr());
        if slots.is_empty() {
            return Swept::Changed(None);
        }
        // SAFETY: records of a live leaf or new ones.
        let copy = unsafe { node::build(0, &slots, leaf.live(), leaf.changed()) };
        Swept::Changed(Some(self.keep(copy)))
    }

    /// Joins neighbouring children of `level` where both fit into one.
    fn join_small(&mut self, slots: Vec<Option<Slot>>, level: u16, guard: &Guard) -> Vec<Slot> {
        let mut joined: Vec<Slot> = Vec::with_capacity(slots.len());
        for slot in slots.into_iter().flatten() {
            let right = child_of(&slot, guard);
            let left = joined.last().map(|left| child_of(left, guard));
            let Some(left) = left.filter(|left| left.len() + right.len() <= JOINED_RECORDS_MAX)
            else {
                joined.push(slot);
                continue;
            };
            let both: Vec<Slot> = (0..left.len())
                .map(|p| left.slot(p))
                .chain((0..right.len()).map(|p| right.slot(p)))
                .collect();
            let live = left.live() + right.live();
            let changed = left.changed().max(right.changed());
            // SAFETY: slots of live nodes.
            let node = self.keep(unsafe { node::build(level, &both, live, changed) });
            self.retired.extend([left.ptr(), right.ptr()]);
            joined.pop();
            joined.push(slot_of(node));
        }
        joined
    }

    fn without_lone_branches(&mut self, mut root: NodePtr, guard: &Guard) -> NodePtr {
        loop {
            // SAFETY: built in this slice or alive while pinned.
            let node = unsafe { IndexView::new(root, guard) }.root;
            if node.is_leaf() || node.len() > 1 {
                return root;
            }
            self.retired.push(root);
            root = node.child(0).ptr();
        }
    }
}

fn child_of<'g>(slot: &Slot, guard: &'g Guard) -> NodeRef<'g> {
    let child = slot.child.expect("slots of branches have children");
    // SAFETY: slots that a sweep handles lead to nodes that are alive while pinned.
    unsafe { IndexView::new(child, guard) }.root
}

struct Sweep {
    at: i64,
    budget: usize,
    resume: Option<Vec<u8>>,
}

enum Swept {
    Same,
    Changed(Option<NodePtr>),
}
