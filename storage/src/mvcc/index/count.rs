//! Counts the living keys of an interval at a revision without visiting those whose count a node knows.
//!
//! Always true: a node that lies inside the interval and has not `changed` after the revision is worth its
//! `live`; everything else is looked at key by key.
//! Any core, under an epoch guard, in slices.

use super::IndexView;
use super::node::NodeRef;
use super::record::RecordRef;
use crate::mvcc::range::KeyRange;

/// Result of a slice: the keys counted, and the key to go on from if the budget ran out.
pub(in crate::mvcc) struct CountSlice<'g> {
    pub(in crate::mvcc) count: usize,
    pub(in crate::mvcc) resume: Option<RecordRef<'g>>,
}

impl<'g> IndexView<'g> {
    /// Counts keys of `range` from `from` (>= `range.key`) on, alive at `at`; `budget` bounds the nodes and
    /// records looked at (one leaf is always finished).
    pub(in crate::mvcc) fn count(
        self,
        range: KeyRange<'_>,
        from: &[u8],
        at: i64,
        budget: usize,
    ) -> CountSlice<'g> {
        if range.is_single() {
            let is_live = range.contains(from) && self.get(from, at).is_some();
            return CountSlice {
                count: usize::from(is_live),
                resume: None,
            };
        }
        let mut counting = Counting {
            range,
            at,
            budget: budget.max(1),
            count: 0,
            resume: None,
        };
        // An interval that reaches over the end of the keys must not look like one that ends inside.
        counting.node(self.root, Some(from), false);
        CountSlice {
            count: counting.count,
            resume: counting.resume,
        }
    }
}

struct Counting<'g, 'r> {
    range: KeyRange<'r>,
    at: i64,
    budget: usize,
    count: usize,
    resume: Option<RecordRef<'g>>,
}

impl<'g> Counting<'g, '_> {
    /// `from`: keys below it do not count (`None`: all of the node's are at or above the start).
    /// `is_below_end`: all of the node's keys are known to be below the end. False when to stop.
    fn node(&mut self, node: NodeRef<'g>, from: Option<&[u8]>, is_below_end: bool) -> bool {
        let is_below_end = is_below_end || self.range.has_no_upper_limit();
        if from.is_none() && is_below_end && node.changed() <= self.at {
            self.count += node.live() as usize;
            self.budget = self.budget.saturating_sub(1);
            return true;
        }
        if node.is_leaf() {
            self.leaf(node, from, is_below_end)
        } else {
            self.branch(node, from, is_below_end)
        }
    }

    fn leaf(&mut self, node: NodeRef<'g>, from: Option<&[u8]>, is_below_end: bool) -> bool {
        let start = from.map_or(0, |from| node.search(from).unwrap_or_else(|p| p));
        self.budget = self.budget.saturating_sub(node.len() - start + 1);
        for position in start..node.len() {
            let record = node.record(position);
            if !is_below_end && !self.range.is_below_end(record.key()) {
                return false;
            }
            let is_live = record
                .newest_at(self.at)
                .is_some_and(|found| !found.is_tombstone);
            self.count += usize::from(is_live);
        }
        true
    }

    fn branch(&mut self, node: NodeRef<'g>, from: Option<&[u8]>, is_below_end: bool) -> bool {
        let start = from.map_or(0, |from| node.route(from));
        for position in start..node.len() {
            let smallest = node.record(position);
            if !is_below_end && !self.range.is_below_end(smallest.key()) && position > start {
                return false;
            }
            // The first child of a slice is always entered, so that every slice makes progress.
            if self.budget == 0 {
                self.resume = Some(smallest);
                return false;
            }
            let child_from = from.filter(|&from| position == start && smallest.key() < from);
            let is_child_below_end = is_below_end
                || (position + 1 < node.len()
                    && self.range.is_below_end(node.record(position + 1).key()));
            if !self.node(node.child(position), child_from, is_child_below_end) {
                return false;
            }
        }
        true
    }
}
