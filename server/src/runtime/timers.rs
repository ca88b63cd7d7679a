//! Who sleeps on this core, and until when.
//!
//! Always true here: an entry belongs to one sleeping task, which takes it out if it is dropped.
//! Knows no clock; the executor says what time it is.

use std::collections::BTreeMap;
use std::task::Waker;
use std::time::Instant;

/// Names one sleeper: when it wakes, and a number that tells equal times apart.
pub(super) type TimerKey = (Instant, u64);

#[derive(Default)]
pub(super) struct Timers {
    sleepers: BTreeMap<TimerKey, Waker>,
    next_number: u64,
}

impl Timers {
    pub(super) fn add(&mut self, deadline: Instant, waker: Waker) -> TimerKey {
        let key = (deadline, self.next_number);
        self.next_number += 1;
        self.sleepers.insert(key, waker);
        key
    }

    /// Renews the waker of a sleeper that was polled again; false if it is due already.
    pub(super) fn renew(&mut self, key: &TimerKey, waker: &Waker) -> bool {
        match self.sleepers.get_mut(key) {
            Some(held) => {
                held.clone_from(waker);
                true
            }
            None => false,
        }
    }

    pub(super) fn remove(&mut self, key: &TimerKey) {
        self.sleepers.remove(key);
    }

    /// The earliest sleeper's time.
    pub(super) fn next(&self) -> Option<Instant> {
        self.sleepers.first_key_value().map(|((at, _), _)| *at)
    }

    /// Takes out one sleeper whose time has come.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Waker> {
        let first = self.sleepers.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn sleepers_wake_in_order_of_time_and_then_of_arrival() {
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        let mut timers = Timers::default();
        let late = timers.add(after(9), Waker::noop().clone());
        let dropped = timers.add(after(3), Waker::noop().clone());
        let first = timers.add(after(5), Waker::noop().clone());
        let second = timers.add(after(5), Waker::noop().clone());
        timers.remove(&dropped);

        assert_eq!(timers.next(), Some(after(5)));
        assert!(timers.take_due(after(4)).is_none());
        assert!(timers.take_due(after(6)).is_some());
        assert!(!timers.renew(&first, Waker::noop()), "the first came first");
        assert!(timers.renew(&second, Waker::noop()));
        assert!(timers.take_due(after(6)).is_some());
        assert!(timers.take_due(after(6)).is_none());
        assert!(timers.renew(&late, Waker::noop()));
        assert_eq!(timers.next(), Some(after(9)));
    }
}
