//! The atomics behind every metric.
//!
//! Always true here: a `Counter` or `Histogram` has one writing thread, so adding is a plain load and
//! store; a `Gauge` may be set by anyone, the last one wins. Readers on other threads see whole values.
//! Counts wrap only after 2^64 events. Knows no names and no text.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

/// Counts up. One writer.
#[derive(Default, Debug)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn inc(&self) {
        self.add(1);
    }

    pub fn add(&self, count: u64) {
        // Not a fetch_add: with one writer nothing is lost, and no cache line is locked.
        self.0.store(
            self.0.load(Ordering::Relaxed).wrapping_add(count),
            Ordering::Relaxed,
        );
    }

    /// For totals that are counted elsewhere.
    pub fn set(&self, count: u64) {
        self.0.store(count, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A value that goes up and down. Set by whoever owns the fact.
#[derive(Default, Debug)]
pub struct Gauge(AtomicI64);

impl Gauge {
    pub fn set(&self, value: i64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Counts in both directions; unlike a counter's, this addition is safe from several threads.
    pub fn add(&self, difference: i64) {
        self.0.fetch_add(difference, Ordering::Relaxed);
    }

    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counts observations in buckets with fixed upper bounds, and adds them up. One writer.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [f64],
    /// One for each bound and one for what lies above; each counts its own range only.
    buckets: Box<[Counter]>,
    /// The bits of an `f64`.
    sum: AtomicU64,
}

impl Histogram {
    pub(super) fn new(bounds: &'static [f64]) -> Histogram {
        let buckets = (0..=bounds.len()).map(|_| Counter::default()).collect();
        Histogram {
            bounds,
            buckets,
            sum: AtomicU64::new(0),
        }
    }

    pub(super) fn bounds(&self) -> &'static [f64] {
        self.bounds
    }

    pub fn observe(&self, duration: Duration) {
        self.observe_value(duration.as_secs_f64());
    }

    /// For histograms of other things than seconds.
    pub fn observe_value(&self, value: f64) {
        let slot = self.bounds.partition_point(|bound| *bound < value);
        self.buckets[slot].inc();
        let sum = f64::from_bits(self.sum.load(Ordering::Relaxed)) + value;
        self.sum.store(sum.to_bits(), Ordering::Relaxed);
    }
}

/// A histogram's content at one moment, or the sum of several.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct HistogramTotals {
    pub(super) bounds: &'static [f64],
    pub(super) buckets: Vec<u64>,
    pub(super) sum: f64,
}

impl HistogramTotals {
    pub(super) fn new(bounds: &'static [f64]) -> HistogramTotals {
        HistogramTotals {
            bounds,
            buckets: vec![0; bounds.len() + 1],
            sum: 0.0,
        }
    }

    pub(super) fn add(&mut self, histogram: &Histogram) {
        assert_eq!(
            self.buckets.len(),
            histogram.buckets.len(),
            "one family has one set of bounds"
        );
        for (total, bucket) in self.buckets.iter_mut().zip(&histogram.buckets) {
            *total += bucket.get();
        }
        self.sum += f64::from_bits(histogram.sum.load(Ordering::Relaxed));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.buckets.iter().all(|count| *count == 0)
    }
}

/// `COUNT` bounds, each `factor` times the one before, multiplied up as Prometheus clients do.
pub(super) const fn exponential<const COUNT: usize>(start: f64, factor: f64) -> [f64; COUNT] {
    let mut bounds = [0.0; COUNT];
    let mut bound = start;
    let mut slot = 0;
    while slot < COUNT {
        bounds[slot] = bound;
        bound *= factor;
        slot += 1;
    }
    bounds
}

#[cfg(test)]
mod tests {
    use super::*;

    static BOUNDS: [f64; 3] = exponential(1.0, 2.0);

    #[test]
    fn observations_fall_at_or_below_their_bound() {
        let histogram = Histogram::new(&BOUNDS);
        for value in [0.5, 1.0, 1.5, 4.0, 4.5, 100.0] {
            histogram.observe_value(value);
        }
        let mut totals = HistogramTotals::new(&BOUNDS);
        totals.add(&histogram);
        totals.add(&histogram);
        assert_eq!(
            (totals.buckets.as_slice(), totals.sum),
            ([4, 2, 2, 4].as_slice(), 223.0)
        );
    }

    #[test]
    fn gauges_move_both_ways_and_counters_up() {
        let (gauge, counter) = (Gauge::default(), Counter::default());
        gauge.set(5);
        gauge.add(-7);
        counter.inc();
        counter.add(2);
        assert_eq!((gauge.get(), counter.get()), (-2, 3));
    }
}
