//! Many seeds on all cores, and the first that fails.
//!
//! Always true: the seed reported is the lowest failing one of the range, however many threads ran.
//! The only room of the simulator that knows threads and a clock; a run knows neither.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::coverage::Coverage;
use crate::plan::Options;
use crate::{Failure, run};

#[derive(Debug, Default)]
pub struct Summary {
    /// Runs that ended without a failure.
    pub passed: u64,
    pub events: u64,
    pub coverage: Coverage,
    /// Of all runs that passed, whatever their order.
    pub hash: u64,
    pub first_failure: Option<(u64, Failure)>,
    pub took: Duration,
}

/// Runs `seeds` on `threads` threads and stops at the first failure. `told` hears, about once a
/// second, how many runs have ended.
pub fn run_many(
    seeds: std::ops::Range<u64>,
    threads: usize,
    options: Options,
    told: impl Fn(u64) + Sync,
) -> Summary {
    let began = Instant::now();
    let next = AtomicU64::new(seeds.start);
    let failed = AtomicU64::new(u64::MAX);
    let ended = AtomicU64::new(0);
    let sum = Mutex::new(Summary::default());
    let work = |is_first: bool| {
        let mut own = Summary::default();
        let mut told_at = began;
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end || seed > failed.load(Ordering::Relaxed) {
                break;
            }
            let outcome = run(seed, options, false);
            ended.fetch_add(1, Ordering::Relaxed);
            own.events += outcome.events;
            match outcome.failure {
                None => {
                    own.passed += 1;
                    own.hash ^= crate::random::fold(seed, outcome.hash);
                    own.coverage.merge(&outcome.coverage);
                }
                Some(failure) => {
                    failed.fetch_min(seed, Ordering::Relaxed);
                    if own.first_failure.as_ref().is_none_or(|(at, _)| seed < *at) {
                        own.first_failure = Some((seed, failure));
                    }
                }
            }
            if is_first && told_at.elapsed() >= Duration::from_secs(1) {
                told_at = Instant::now();
                told(ended.load(Ordering::Relaxed));
            }
        }
        let mut sum = sum.lock().expect("no thread panics with the sum");
        sum.passed += own.passed;
        sum.events += own.events;
        sum.hash ^= own.hash;
        sum.coverage.merge(&own.coverage);
        if let Some((seed, failure)) = own.first_failure
            && sum.first_failure.as_ref().is_none_or(|(at, _)| seed < *at)
        {
            sum.first_failure = Some((seed, failure));
        }
    };
    std::thread::scope(|scope| {
        for thread in 0..threads.max(1) {
            let work = &work;
            scope.spawn(move || work(thread == 0));
        }
    });
    let mut sum = sum.into_inner().expect("all threads have ended");
    sum.took = began.elapsed();
    sum
}

/// The cores this process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
