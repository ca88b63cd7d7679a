//! The term of every entry in the log, as runs: one element for each term, however many entries it
//! has.
//!
//! Always true: runs ascend in index and term. So the core can answer "which term had entry i" for
//! the whole log without reading a disk, which makes consistency checks and backtracking immediate.

use std::collections::VecDeque;

use crate::types::{LogIndex, LogPosition, Term};

#[derive(Clone, Debug)]
pub(super) struct Terms {
    /// The position before the first run.
    base: LogPosition,
    /// The first entry of each term. One element for each term present in the log, so never more
    /// than entries.
    runs: VecDeque<LogPosition>,
}

impl Terms {
    pub(super) fn new(base: LogPosition) -> Terms {
        Terms {
            base,
            runs: VecDeque::new(),
        }
    }

    /// The last entry's term.
    pub(super) fn last(&self) -> Term {
        self.runs.back().map_or(self.base.term, |run| run.term)
    }

    /// Notes that the entry at `position` follows the present last one.
    pub(super) fn push(&mut self, position: LogPosition) {
        let last = self.last();
        assert!(
            position.term >= last && position.index > self.base.index,
            "terms run backwards: {position:?} after term {last:?}, base {:?}",
            self.base
        );
        // The first run may carry on the base's term; it gets an element too, which keeps lookups
        // uniform.
        if self.runs.back().is_none_or(|run| run.term < position.term) {
            self.runs.push_back(position);
        }
    }

    /// The term at `index`, which is in `base ..= last index`.
    pub(super) fn at(&self, index: LogIndex) -> Term {
        if index == self.base.index {
            return self.base.term;
        }
        // Nearly every question is about the newest term.
        match self.runs.back() {
            Some(run) if run.index <= index => run.term,
            _ => {
                let after = self.runs.partition_point(|run| run.index <= index);
                assert!(after > 0, "{index:?} is before the log's first term");
                self.runs[after - 1].term
            }
        }
    }

    /// The last position at or below `index` (which is not past the last entry) whose term is at
    /// most `term`; the base if there is none above it.
    pub(super) fn last_not_above(&self, index: LogIndex, term: Term) -> LogPosition {
        let mut end = index;
        for run in self.runs.iter().rev() {
            if run.index > end {
                continue;
            }
            if run.term <= term {
                return LogPosition::new(end, run.term);
            }
            end = run.index.prev();
        }
        self.base
    }

    /// Forgets everything from `index` on.
    pub(super) fn truncate_from(&mut self, index: LogIndex) {
        while self.runs.back().is_some_and(|run| run.index >= index) {
            self.runs.pop_back();
        }
    }

    /// Forgets everything through `base`, which becomes the new base.
    pub(super) fn trim_through(&mut self, base: LogPosition, last_index: LogIndex) {
        self.base = base;
        while self
            .runs
            .get(1)
            .is_some_and(|run| run.index <= base.index.next())
        {
            self.runs.pop_front();
        }
        if base.index >= last_index {
            self.runs.clear();
        } else if let Some(first) = self.runs.front_mut() {
            first.index = first.index.max(base.index.next());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(list: &[u64]) -> Terms {
        let mut terms = Terms::new(LogPosition::new(LogIndex(10), Term(1)));
        for (slot, term) in list.iter().enumerate() {
            terms.push(LogPosition::new(LogIndex(11 + slot as u64), Term(*term)));
        }
        terms
    }

    #[test]
    fn knows_every_term() {
        let list = [1, 1, 2, 2, 2, 5, 7, 7];
        let terms = terms(&list);
        assert_eq!(terms.at(LogIndex(10)), Term(1));
        for (slot, term) in list.iter().enumerate() {
            assert_eq!(terms.at(LogIndex(11 + slot as u64)), Term(*term));
        }
        assert_eq!(terms.runs.len(), 4);
    }

    #[test]
    fn finds_the_last_not_above() {
        let terms = terms(&[1, 1, 2, 2, 2, 5, 7, 7]);
        let check = |index, term, expected_index, expected_term| {
            assert_eq!(
                terms.last_not_above(LogIndex(index), Term(term)),
                LogPosition::new(LogIndex(expected_index), Term(expected_term)),
                "{index} {term}"
            );
        };
        check(18, 9, 18, 7);
        check(18, 7, 18, 7);
        check(18, 6, 16, 5);
        check(18, 4, 15, 2);
        check(14, 4, 14, 2);
        check(18, 1, 12, 1);
        check(18, 0, 10, 1);
        check(10, 9, 10, 1);
    }

    #[test]
    fn trims_and_truncates() {
        let list = [1, 1, 2, 2, 2, 5, 7, 7];
        for cut in 10..=18u64 {
            let mut trimmed = terms(&list);
            let base = LogPosition::new(LogIndex(cut), trimmed.at(LogIndex(cut)));
            trimmed.trim_through(base, LogIndex(18));
            for index in cut..=18 {
                assert_eq!(
                    trimmed.at(LogIndex(index)),
                    terms(&list).at(LogIndex(index)),
                    "{cut}"
                );
            }
            let mut cut_off = terms(&list);
            cut_off.truncate_from(LogIndex(cut + 1));
            assert_eq!(cut_off.last(), terms(&list).at(LogIndex(cut)), "{cut}");
            for index in 10..=cut {
                assert_eq!(
                    cut_off.at(LogIndex(index)),
                    terms(&list).at(LogIndex(index)),
                    "{cut}"
                );
            }
        }
    }
}
