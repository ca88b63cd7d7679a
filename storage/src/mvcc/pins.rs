//! Revisions that scans under way still read.
//!
//! A range is worked off in slices; a compaction accepted between two of them must not disturb it, as it does not
//! in etcd. So a scan claims a slot for its revision, and a compaction waits with its deletions until no slot
//! holds a lower one. New reads below the compact revision fail at once all the same.
//!
//! Invariant: a claim stores its slot and then looks at the compact revision; a compaction stores the compact
//! revision and then looks at the slots. Both are sequentially consistent, so one of them sees the other.
//!
//! Readers on any core claim, the apply core looks. All slots taken: the scan runs unpinned and answers
//! `Compacted` should a compaction pass it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

/// Scans that can be pinned at a time.
const PINS_MAX: usize = 1024;
const FREE: i64 = i64::MAX;

pub(super) struct Pins {
    slots: Box<[AtomicI64]>,
    /// Where the next claim begins to look; a hint.
    next: AtomicUsize,
}

impl Default for Pins {
    fn default() -> Self {
        Self {
            slots: (0..PINS_MAX).map(|_| AtomicI64::new(FREE)).collect(),
            next: AtomicUsize::new(0),
        }
    }
}

impl Pins {
    /// The caller then checks the compact revision, and drops the pin if it is already above.
    pub(super) fn claim(self: &Arc<Self>, revision: i64) -> Option<Pin> {
        let start = self.next.fetch_add(1, Ordering::Relaxed);
        (0..PINS_MAX)
            .map(|step| start.wrapping_add(step) % PINS_MAX)
            .find(|&slot| {
                self.slots[slot]
                    .compare_exchange(FREE, revision, Ordering::SeqCst, Ordering::Relaxed)
                    .is_ok()
            })
            .map(|slot| Pin {
                pins: Arc::clone(self),
                slot,
            })
    }

    /// The lowest pinned revision; `i64::MAX` without pins.
    pub(super) fn lowest(&self) -> i64 {
        self.slots
            .iter()
            .map(|slot| slot.load(Ordering::SeqCst))
            .min()
            .unwrap_or(FREE)
    }
}

/// Holds back deletions below its revision until dropped.
pub(super) struct Pin {
    pins: Arc<Pins>,
    slot: usize,
}

impl Pin {
    /// Lets go of what is below `revision`, which is not below the pin's own: a compaction that has looked meanwhile
    /// has seen a lower one.
    pub(super) fn move_to(&self, revision: i64) {
        self.pins.slots[self.slot].store(revision, Ordering::SeqCst);
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.pins.slots[self.slot].store(FREE, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_pin_counts_and_slots_run_out() {
        let pins = Arc::new(Pins::default());
        let high = pins.claim(9);
        let low = pins.claim(-1);
        assert_eq!(pins.lowest(), -1);
        drop(low);
        assert_eq!(pins.lowest(), 9);
        let rest: Vec<_> = (1..PINS_MAX).map(|_| pins.claim(20)).collect();
        assert!(rest.iter().all(Option::is_some));
        assert!(pins.claim(1).is_none());
        drop(high);
        assert!(pins.claim(1).is_some());
    }
}
