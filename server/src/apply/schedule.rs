//! When a leader compacts by itself: etcd's periodic rule, without a clock.
//!
//! Always true here: `sample` is called once each sample interval and says whether a compaction is due
//! then, and to which revision. The caller proposes it and reports whether that worked.

use std::collections::VecDeque;
use std::time::Duration;

/// Samples in one interval between compactions.
const SAMPLES_PER_INTERVAL: u32 = 10;
/// The longest interval between compactions.
const INTERVAL_MAX: Duration = Duration::from_secs(3600);

/// Keeps a period of history: compacts first when one period has passed, then each period or hour,
/// whichever is shorter, always to the revision of one period ago. A failure is tried again at the
/// next sample; nothing is done while that revision has not moved.
pub struct PeriodicRule {
    sample_interval: Duration,
    samples_max: usize,
    samples: VecDeque<i64>,
    /// Samples since the last compaction, or since the start.
    since_success: u32,
    /// How many must pass: a whole period at first, then an interval.
    wanted: u32,
    last: i64,
}

impl PeriodicRule {
    pub fn new(period: Duration) -> PeriodicRule {
        let sample_interval = period.min(INTERVAL_MAX) / SAMPLES_PER_INTERVAL;
        let in_period = period.as_nanos() / sample_interval.as_nanos().max(1);
        let in_period = u32::try_from(in_period).unwrap_or(u32::MAX);
        PeriodicRule {
            sample_interval,
            samples_max: in_period as usize + 1,
            samples: VecDeque::new(),
            since_success: 0,
            wanted: in_period,
            last: 0,
        }
    }

    /// Time from one sample to the next.
    pub fn sample_interval(&self) -> Duration {
        self.sample_interval
    }

    /// Remembers the revision at the beginning of an interval.
    pub fn begin(&mut self, revision: i64) {
        self.samples.push_back(revision);
        if self.samples.len() > self.samples_max {
            self.samples.pop_front();
        }
    }

    /// At the end of the interval: the revision to compact to, if a compaction is due.
    pub fn end(&mut self) -> Option<i64> {
        self.since_success = self.since_success.saturating_add(1);
        let revision = *self.samples.front()?;
        if self.since_success < self.wanted || revision == self.last {
            return None;
        }
        self.wanted = SAMPLES_PER_INTERVAL;
        Some(revision)
    }

    /// The compaction that was due has been accepted.
    pub fn succeeded(&mut self, revision: i64) {
        self.last = revision;
        self.since_success = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `hours` with one new revision a minute; returns (minute, revision) of each compaction.
    fn run(period: Duration, hours: u64) -> Vec<(u64, i64)> {
        let mut rule = PeriodicRule::new(period);
        let step = rule.sample_interval().as_secs() / 60;
        let mut compacted = Vec::new();
        let mut minute = 0;
        while minute < hours * 60 {
            rule.begin(minute as i64 + 1);
            minute += step;
            if let Some(revision) = rule.end() {
                rule.succeeded(revision);
                compacted.push((minute, revision));
            }
        }
        compacted
    }

    #[test]
    fn an_hour_is_kept_and_compacted_hourly() {
        assert_eq!(
            run(Duration::from_secs(3600), 3),
            [(60, 1), (120, 55), (180, 115)]
        );
    }

    #[test]
    fn a_long_period_is_compacted_hourly_after_it_has_passed() {
        let compacted = run(Duration::from_secs(5 * 3600), 8);
        assert_eq!(compacted, [(300, 1), (360, 55), (420, 115), (480, 175)]);
    }

    #[test]
    fn a_failure_is_tried_again_at_the_next_sample() {
        let mut rule = PeriodicRule::new(Duration::from_secs(600));
        let due: Vec<Option<i64>> = (0..12)
            .map(|at| {
                rule.begin(at + 1);
                rule.end()
            })
            .collect();
        assert_eq!(due[8], None);
        assert_eq!(&due[9..], [Some(1), Some(1), Some(2)]);
    }

    #[test]
    fn a_quiet_store_is_left_alone() {
        let mut rule = PeriodicRule::new(Duration::from_secs(600));
        let mut compactions = 0;
        for _ in 0..100 {
            rule.begin(7);
            if let Some(revision) = rule.end() {
                rule.succeeded(revision);
                compactions += 1;
            }
        }
        assert_eq!(compactions, 1);
    }
}
