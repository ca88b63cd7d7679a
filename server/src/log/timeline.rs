//! When entries of the log reached their stages, for the histograms.
//!
//! Always true here: there is one time for each entry from the oldest not yet committed to the newest
//! appended; it is when the entry was taken until it is durable, then when that was; 0 is unknown, as
//! for what another leader or an earlier life appended. As long as the log's own unapplied part, and
//! so bounded with it.
//!
//! Runs on the log core. Reads no clock.

use std::collections::VecDeque;

#[derive(Default)]
pub struct Timeline {
    /// Index of the first time.
    first: u64,
    at_ns: VecDeque<u64>,
    /// Times before this index say when the entry became durable.
    durable: u64,
}

impl Timeline {
    /// The entry at `index` was appended now. What was known from `index` on is overwritten.
    pub fn taken(&mut self, index: u64, now_ns: u64) {
        if self.at_ns.is_empty() || index < self.first {
            self.at_ns.clear();
            self.first = index;
        }
        self.durable = self.durable.min(index);
        let len = usize::try_from(index - self.first).expect("the log lies in memory");
        self.at_ns.resize(len, 0);
        self.at_ns.push_back(now_ns);
    }

    /// Everything through `index` is durable now; calls `waited` with the nanoseconds of each entry.
    pub fn synced(&mut self, index: u64, now_ns: u64, mut waited: impl FnMut(u64)) {
        let through = (index + 1).min(self.first + self.at_ns.len() as u64);
        for at in self.durable.max(self.first)..through {
            let taken_ns = &mut self.at_ns[(at - self.first) as usize];
            if *taken_ns != 0 {
                waited(now_ns.saturating_sub(*taken_ns));
                *taken_ns = now_ns;
            }
        }
        self.durable = self.durable.max(through);
    }

    /// The entry at `index` goes to apply: when it became durable, 0 if that is unknown or not yet.
    pub fn committed(&mut self, index: u64) -> u64 {
        let mut durable_ns = 0;
        while self.first <= index
            && let Some(at_ns) = self.at_ns.pop_front()
        {
            durable_ns = if self.first == index && index < self.durable {
                at_ns
            } else {
                0
            };
            self.first += 1;
        }
        durable_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn synced(timeline: &mut Timeline, index: u64, now_ns: u64) -> Vec<u64> {
        let mut waits = Vec::new();
        timeline.synced(index, now_ns, |waited| waits.push(waited));
        waits
    }

    #[test]
    fn each_entry_is_timed_once() {
        let mut timeline = Timeline::default();
        timeline.taken(7, 10);
        timeline.taken(8, 12);
        timeline.taken(9, 13);
        assert_eq!(synced(&mut timeline, 8, 20), [10, 8]);
        assert!(synced(&mut timeline, 8, 21).is_empty());
        assert_eq!(timeline.committed(7), 20);
        assert_eq!(synced(&mut timeline, 20, 30), [17]);
        assert_eq!(timeline.committed(9), 30);
        assert_eq!(timeline.committed(10), 0);
        timeline.taken(11, 40);
        assert_eq!(timeline.committed(11), 0, "committed by others first");
    }

    #[test]
    fn gaps_and_overwritten_entries_are_unknown() {
        let mut timeline = Timeline::default();
        timeline.taken(5, 10);
        timeline.taken(8, 11);
        assert_eq!(synced(&mut timeline, 8, 12), [2, 1]);
        timeline.taken(6, 20);
        assert_eq!(synced(&mut timeline, 6, 25), [5]);
        assert_eq!(timeline.committed(6), 25);
        assert_eq!(timeline.committed(8), 0);
    }
}
