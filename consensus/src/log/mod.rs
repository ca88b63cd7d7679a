//! The log as the core sees it: positions, the terms of all entries, and the recent entries
//! themselves.
//!
//! Invariants
//! - `base <= applied <= applying <= commit <= last`, `handed <= last`, `durable <= handed`; while
//!   a snapshot is being installed `durable` is behind `base`.
//! - Nothing at or below `commit` is ever truncated.
//! - Entries above `applied`, above `durable` or not handed to the disk are in memory; older ones
//!   may be on disk only.
//!
//! Called by the protocol modules under `raft/`. Knows no roles, sends nothing, reads no disk.

mod terms;

use std::collections::VecDeque;

use self::terms::Terms;
use crate::types::{ENTRY_OVERHEAD_BYTES, Entry, EntryKind, LogIndex, LogPosition, Term};

#[derive(Clone, Debug)]
pub(crate) struct Log {
    /// The position before the first entry that the disk can still give.
    base: LogPosition,
    terms: Terms,
    /// The recent entries, contiguous through `last`.
    tail: VecDeque<Slot>,
    /// The index of the first entry in `tail`; `last + 1` when it is empty.
    tail_first: LogIndex,
    /// Running cost before `tail`'s first entry.
    tail_cost: u64,
    last: LogIndex,
    handed: LogIndex,
    durable: LogIndex,
    commit: LogIndex,
    applying: LogIndex,
    applied: LogIndex,
    /// The indexes of membership changes above `applied`, ascending. One at a time may be proposed,
    /// so this is short.
    conf_changes: VecDeque<LogIndex>,
    cache_bytes_max: u64,
}

/// An entry and the running cost of the log through it, so that the cost of any stretch is one
/// subtraction.
#[derive(Clone, Debug)]
struct Slot {
    entry: Entry,
    cost_end: u64,
}

// An entry of the ring is one cache line.
const _: () = assert!(size_of::<Slot>() <= 64);

impl Log {
    pub(crate) fn new(
        base: LogPosition,
        term_starts: &[LogPosition],
        entries: Vec<Entry>,
        applied: LogIndex,
        commit: LogIndex,
        cache_bytes_max: u64,
    ) -> Log {
        let first = entries
            .first()
            .map_or(base.index.next(), |entry| entry.index);
        assert!(
            term_starts.is_empty() || !entries.is_empty(),
            "the restored log has terms and no last entry"
        );
        let mut terms = Terms::new(base);
        for start in term_starts {
            assert!(
                start.index < first,
                "term start {start:?} is not below entry {first:?}"
            );
            terms.push(*start);
        }
        assert!(
            first == base.index.next()
                || term_starts
                    .first()
                    .is_some_and(|start| start.index == base.index.next()),
            "the terms between {base:?} and entry {first:?} are unknown"
        );
        let mut log = Log {
            base,
            terms,
            tail: VecDeque::new(),
            tail_first: first,
            tail_cost: 0,
            last: first.prev(),
            handed: LogIndex::ZERO,
            durable: LogIndex::ZERO,
            commit: applied,
            applying: applied,
            applied,
            conf_changes: VecDeque::new(),
            cache_bytes_max,
        };
        for entry in entries {
            log.append(entry);
        }
        assert!(
            applied >= base.index && applied <= log.last && applied.next() >= log.tail_first,
            "applied {applied:?} is outside the restored log {base:?} .. {:?}",
            log.last
        );
        log.handed = log.last;
        log.durable = log.last;
        // The commit index travels in the write of the entries it covers; a torn write may have
        // kept it alone.
        log.commit = commit.min(log.last).max(applied);
        while log
            .conf_changes
            .front()
            .is_some_and(|index| *index <= applied)
        {
            log.conf_changes.pop_front();
        }
        log
    }

    pub(crate) fn base(&self) -> LogPosition {
        self.base
    }

    pub(crate) fn last(&self) -> LogPosition {
        LogPosition::new(self.last, self.terms.last())
    }

    pub(crate) fn last_index(&self) -> LogIndex {
        self.last
    }

    pub(crate) fn handed(&self) -> LogIndex {
        self.handed
    }

    pub(crate) fn durable(&self) -> LogIndex {
        self.durable
    }

    pub(crate) fn commit(&self) -> LogIndex {
        self.commit
    }

    pub(crate) fn applied(&self) -> LogIndex {
        self.applied
    }

    /// The first entry that is in memory.
    pub(crate) fn tail_first(&self) -> LogIndex {
        self.tail_first
    }

    /// The term at `index`; `None` before the log's base and after its end.
    pub(crate) fn term_at(&self, index: LogIndex) -> Option<Term> {
        (self.base.index <= index && index <= self.last).then(|| self.terms.at(index))
    }

    /// Whether the log holds exactly this entry.
    pub(crate) fn matches(&self, position: LogPosition) -> bool {
        self.term_at(position.index) == Some(position.term)
    }

    /// The last entry at or below `index` that may agree with a log whose entry at `index` has
    /// `term` (paper section 5.3, "fast backtracking").
    pub(crate) fn last_not_above(&self, index: LogIndex, term: Term) -> LogPosition {
        self.terms.last_not_above(index.min(self.last), term)
    }

    pub(crate) fn append(&mut self, entry: Entry) {
        assert!(
            entry.index == self.last.next(),
            "entry {:?} does not follow {:?}",
            entry.index,
            self.last
        );
        self.terms.push(entry.position());
        if entry.kind == EntryKind::ConfChange {
            self.conf_changes.push_back(entry.index);
        }
        self.last = entry.index;
        let cost_end = self.cost_through_last() + entry.cost_bytes();
        self.tail.push_back(Slot { entry, cost_end });
    }

    /// Drops the suffix from `index` on. Writes under way that hold it no longer count for it.
    pub(crate) fn truncate_from(&mut self, index: LogIndex) {
        assert!(
            cfg!(feature = "sabotage") || (index > self.commit && index <= self.last),
            "truncation from {index:?}, commit {:?}, last {:?}",
            self.commit,
            self.last
        );
        // Above the commit index everything is in memory.
        assert!(
            index >= self.tail_first,
            "truncation from {index:?} reaches below the tail"
        );
        self.tail.truncate(index.since(self.tail_first) as usize);
        self.terms.truncate_from(index);
        while self.conf_changes.back().is_some_and(|at| *at >= index) {
            self.conf_changes.pop_back();
        }
        self.last = index.prev();
        self.handed = self.handed.min(self.last);
        self.durable = self.durable.min(self.last);
        #[cfg(feature = "sabotage")]
        {
            self.commit = self.commit.min(self.last);
        }
    }

    /// Starts anew behind a snapshot. Nothing is durable until the install is reported.
    pub(crate) fn restore(&mut self, base: LogPosition) {
        assert!(
            cfg!(feature = "sabotage") || base.index > self.commit,
            "snapshot {base:?} is behind commit {:?}",
            self.commit
        );
        self.base = base;
        self.terms = Terms::new(base);
        self.tail.clear();
        self.tail_cost = 0;
        self.tail_first = base.index.next();
        self.last = base.index;
        self.handed = base.index;
        self.durable = LogIndex::ZERO;
        self.commit = base.index;
        self.applying = base.index;
        self.conf_changes.clear();
    }

    pub(crate) fn commit_to(&mut self, index: LogIndex) {
        assert!(
            index <= self.last,
            "commit {index:?} is past the last entry {:?}",
            self.last
        );
        self.commit = self.commit.max(index);
    }

    pub(crate) fn set_durable(&mut self, index: LogIndex) {
        assert!(
            index <= self.handed,
            "durable {index:?} was never handed out: {:?}",
            self.handed
        );
        self.durable = self.durable.max(index);
    }

    /// Copies the entries not yet handed to the disk, or the first of them.
    pub(crate) fn hand_out(&mut self, only_first: bool, out: &mut Vec<Entry>) {
        let from = self.slot(self.handed.next());
        let count = if only_first { 1 } else { usize::MAX };
        let rest = self.tail.range(from..).take(count);
        out.extend(rest.map(|slot| slot.entry.clone()));
        self.handed = self.handed.plus(out.len() as u64);
    }

    pub(crate) fn has_unhanded(&self) -> bool {
        self.handed < self.last
    }

    /// Copies entries to apply: committed, durable here, within both bounds of what may be under
    /// way.
    pub(crate) fn hand_to_apply(&mut self, entries_max: u64, bytes_max: u64, out: &mut Vec<Entry>) {
        let through = self
            .commit
            .min(self.durable)
            .min(self.applied.plus(entries_max));
        if through <= self.applying {
            return;
        }
        let from = self.slot(self.applying.next());
        let room_end = self.cost_through(self.applied).saturating_add(bytes_max);
        let is_idle = self.applying == self.applied;
        for slot in self.tail.range(from..self.slot(through.next())) {
            if slot.cost_end > room_end && !(is_idle && out.is_empty()) {
                break;
            }
            out.push(slot.entry.clone());
        }
        self.applying = self.applying.plus(out.len() as u64);
    }

    /// Everything through `index` was applied.
    pub(crate) fn set_applied(&mut self, index: LogIndex) {
        assert!(
            index <= self.applying,
            "applied {index:?}, handed out {:?}",
            self.applying
        );
        assert!(
            index >= self.applied,
            "applied {index:?} after {:?}",
            self.applied
        );
        self.applied = index;
        let pending = self.conf_changes.front();
        assert!(
            pending.is_none_or(|at| *at > self.applied),
            "membership change at {pending:?} was passed over by applied {index:?}"
        );
        self.evict();
    }

    /// The state machine was replaced by the snapshot that ends at `index`.
    pub(crate) fn set_installed(&mut self, index: LogIndex) {
        assert!(
            index <= self.applying,
            "installed {index:?} beyond {:?}",
            self.applying
        );
        self.applied = self.applied.max(index);
        self.evict();
    }

    /// Copies entries from `from` (in memory) on into `out`: at least one, then while both bounds
    /// hold. Returns their cost.
    pub(crate) fn copy_from(
        &self,
        from: LogIndex,
        entries_max: u64,
        bytes_max: u64,
        out: &mut Vec<Entry>,
    ) -> u64 {
        let start = self.cost_through(from.prev());
        let end = from.prev().plus(entries_max.max(1)).min(self.last);
        let at_most = end
            .since(from.prev())
            .min(bytes_max / ENTRY_OVERHEAD_BYTES + 1);
        out.reserve(at_most as usize);
        let mut cost = 0;
        for slot in self.tail.range(self.slot(from)..self.slot(end.next())) {
            if slot.cost_end - start > bytes_max && !out.is_empty() {
                break;
            }
            cost = slot.cost_end - start;
            out.push(slot.entry.clone());
        }
        cost
    }

    /// What the entries after the commit index cost.
    pub(crate) fn uncommitted_bytes(&self) -> u64 {
        self.cost_through_last() - self.cost_through(self.commit)
    }

    pub(crate) fn cached_bytes(&self) -> u64 {
        self.cost_through_last() - self.tail_cost
    }

    /// Whether a membership change is committed and not applied.
    pub(crate) fn has_committed_conf_change(&self) -> bool {
        self.conf_changes
            .front()
            .is_some_and(|index| *index <= self.commit)
    }

    /// Whether a membership change is in the log and not applied.
    pub(crate) fn has_pending_conf_change(&self) -> bool {
        !self.conf_changes.is_empty()
    }

    /// The membership change at `index` took effect.
    pub(crate) fn conf_change_applied(&mut self, index: LogIndex) {
        let front = self.conf_changes.pop_front();
        assert!(
            front == Some(index),
            "membership change at {index:?} applied, next is {front:?}"
        );
    }

    /// Gives up the entries through `index`, which must be applied and durable.
    pub(crate) fn trim_through(&mut self, index: LogIndex) -> LogPosition {
        assert!(
            self.base.index < index && index <= self.applied && index <= self.durable,
            "trim through {index:?}: base {:?}, applied {:?}, durable {:?}",
            self.base,
            self.applied,
            self.durable
        );
        let base = LogPosition::new(index, self.terms.at(index));
        self.base = base;
        self.terms.trim_through(base, self.last);
        while self.tail_first <= index && !self.tail.is_empty() {
            self.evict_one();
        }
        self.tail_first = self.tail_first.max(index.next());
        base
    }

    /// Keeps the memory of old entries within its bound.
    fn evict(&mut self) {
        let evictable = self.applied.min(self.durable);
        while self.cached_bytes() > self.cache_bytes_max && self.tail_first <= evictable {
            self.evict_one();
        }
    }

    fn evict_one(&mut self) {
        let slot = self
            .tail
            .pop_front()
            .expect("an entry at or below the last is in the tail");
        self.tail_cost = slot.cost_end;
        self.tail_first = self.tail_first.next();
    }

    /// The running cost through `index`, which is in the tail or right before it.
    fn cost_through(&self, index: LogIndex) -> u64 {
        if index < self.tail_first {
            self.tail_cost
        } else {
            self.tail[self.slot(index)].cost_end
        }
    }

    fn cost_through_last(&self) -> u64 {
        self.tail
            .back()
            .map_or(self.tail_cost, |slot| slot.cost_end)
    }

    /// Where `index` is in the tail; its length for the index after the last.
    fn slot(&self, index: LogIndex) -> usize {
        assert!(
            index >= self.tail_first && index <= self.last.next(),
            "entry {index:?} is not in memory: {:?} ..= {:?}",
            self.tail_first,
            self.last
        );
        index.since(self.tail_first) as usize
    }
}
