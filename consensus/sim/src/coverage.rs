//! What runs met. Silence is trusted only if they met what they are for.

use std::collections::BTreeMap;

use consensus::{Ignored, IgnoredCounts};

#[derive(Clone, Debug, Default)]
pub struct Coverage {
    counts: BTreeMap<&'static str, u64>,
    ignored: [u64; Ignored::COUNT],
}

impl Coverage {
    pub fn add(&mut self, what: &'static str, count: u64) {
        *self.counts.entry(what).or_default() += count;
    }

    pub fn add_ignored(&mut self, counts: IgnoredCounts) {
        for (sum, reason) in self.ignored.iter_mut().zip(Ignored::ALL) {
            *sum += counts.get(reason);
        }
    }

    pub fn merge(&mut self, other: &Coverage) {
        for (what, count) in &other.counts {
            self.add(what, *count);
        }
        for (sum, count) in self.ignored.iter_mut().zip(other.ignored) {
            *sum += count;
        }
    }

    pub fn get(&self, what: &str) -> u64 {
        self.counts.get(what).copied().unwrap_or_default()
    }

    pub fn ignored(&self, reason: Ignored) -> u64 {
        self.ignored[reason as usize]
    }

    /// Each count with its name, messages ignored last.
    pub fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self
            .counts
            .iter()
            .map(|(what, count)| format!("{count:>12} {what}"))
            .collect();
        lines.extend(
            Ignored::ALL
                .iter()
                .map(|reason| format!("{:>12} ignored: {reason:?}", self.ignored(*reason))),
        );
        lines
    }
}
