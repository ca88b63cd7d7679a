//! Where a request's time goes: one histogram per stage, owned by a core.
//!
//! Always true here: recording touches memory of the owning core only; the scraper reads a copy that the
//! core publishes (about once a second), so it never waits for the core nor the core for it. Two
//! significant digits, from a microsecond to a minute; what lies outside counts as the end it is nearest.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use hdrhistogram::Histogram;

/// A piece of a request's way through the pipeline.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// From the parsed request to the log core taking it.
    Queue,
    /// Until its entry is durable here.
    Log,
    /// Until a quorum holds it and apply takes it.
    Commit,
    /// Until the state machine has its result.
    Apply,
    /// Until the reply is in the connection's output.
    Answer,
    /// A write from parsed to answered.
    Write,
    /// A read from parsed to answered.
    Read,
}

impl Stage {
    pub(super) const ALL: [Stage; 7] = [
        Stage::Answer,
        Stage::Apply,
        Stage::Commit,
        Stage::Log,
        Stage::Queue,
        Stage::Read,
        Stage::Write,
    ];

    pub(super) fn text(self) -> &'static str {
        match self {
            Stage::Queue => "queue",
            Stage::Log => "log",
            Stage::Commit => "commit",
            Stage::Apply => "apply",
            Stage::Answer => "answer",
            Stage::Write => "write",
            Stage::Read => "read",
        }
    }
}

const NANOSECONDS_MIN: u64 = 1_000;
const NANOSECONDS_MAX: u64 = 60_000_000_000;
const DIGITS: u8 = 2;

/// The owner's side.
pub(super) struct StageRecorder {
    stages: [Recording; Stage::ALL.len()],
}

#[derive(Clone)]
pub(super) struct Recording {
    pub(super) histogram: Histogram<u64>,
    pub(super) sum_ns: u64,
}

impl StageRecorder {
    pub(super) fn new() -> StageRecorder {
        let stages = std::array::from_fn(|_| Recording {
            histogram: Histogram::new_with_bounds(NANOSECONDS_MIN, NANOSECONDS_MAX, DIGITS)
                .expect("the bounds are in order"),
            sum_ns: 0,
        });
        StageRecorder { stages }
    }

    pub(super) fn record(&mut self, stage: Stage, duration: Duration) {
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let recording = &mut self.stages[stage as usize];
        recording
            .histogram
            .saturating_record(ns.min(NANOSECONDS_MAX));
        recording.sum_ns = recording.sum_ns.wrapping_add(ns);
    }

    pub(super) fn publish(&self, slot: &StageSlot) {
        slot.0.store(Some(Arc::new(self.stages.clone())));
    }
}

/// The scraper's side: what the core published last.
#[derive(Default)]
pub(super) struct StageSlot(ArcSwapOption<[Recording; Stage::ALL.len()]>);

impl StageSlot {
    /// Stages that have seen a request, in order of their text.
    pub(super) fn read(&self) -> Vec<(Stage, Recording)> {
        let Some(stages) = self.0.load_full() else {
            return Vec::new();
        };
        Stage::ALL
            .into_iter()
            .map(|stage| (stage, stages[stage as usize].clone()))
            .filter(|(_, recording)| !recording.histogram.is_empty())
            .collect()
    }
}
