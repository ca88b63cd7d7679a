//! Defragmentation: space comes back a few pages with each commit, beside the requests.
//!
//! Always true here: one runs at a time, and who asks meanwhile is answered with it; each commit moves a bounded number of pages, takes
//! along what waits to be committed, and is followed by a pause as long as itself, so that the disk is the log's for at least half the
//! time; while commits lag behind none of them moves anything. Nothing of it is in the log: it is this member's own affair.
//!
//! Which pages move is [`storage::tree::Defragmentation`]'s business, on the tree thread.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use storage::tree::DefragStep;
use wire::error::EtcdError;

use crate::pipeline::{DefragAsk, Inbox, ToNet};
use crate::runtime::{Signal, sleep};

use super::committer::Moving;
use super::stage::ApplyStage;

/// Calls of all net cores that may wait; more are refused.
const WAITING_MAX: usize = 1024;
/// Shortest and longest pause after a commit.
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(100);
/// How long a state that a backup holds is waited for: longer than a client may stall one.
const HELD_PATIENCE_NS: u64 = 150_000_000_000;

/// The apply core's part.
pub struct Defrag {
    /// By net core.
    asks: Vec<Inbox<DefragAsk>>,
    /// Net core and call.
    waiting: Vec<(usize, DefragAsk)>,
    running: Option<Running>,
    /// Wakes the task.
    signal: Signal,
}

struct Running {
    since_ns: u64,
    /// The next commit is its first.
    is_new: bool,
    /// Sizes at its begin.
    total: i64,
    in_use: i64,
    /// Before the next commit.
    pause: Option<Duration>,
    /// Since when a reader has held what it needs.
    held_since_ns: Option<u64>,
}

impl Defrag {
    pub fn new(asks: Vec<Inbox<DefragAsk>>) -> Defrag {
        Defrag {
            asks,
            waiting: Vec::new(),
            running: None,
            signal: Signal::new(),
        }
    }
}

impl ApplyStage {
    /// Takes what net cores ask.
    pub(super) fn take_defrag_asks(&mut self) {
        for net in 0..self.defrag.asks.len() {
            while let Some(ask) = self.defrag.asks[net].pop() {
                if self.defrag.waiting.len() == WAITING_MAX {
                    let result = Err(EtcdError::TooManyRequests);
                    self.to_net[net].push(ToNet::Defragmented { ask, result });
                    continue;
                }
                tracing::info!("starting defragment");
                self.defrag.waiting.push((net, ask));
                self.defrag.signal.notify();
            }
        }
    }

    /// The background task.
    pub async fn defragment(stage: Rc<RefCell<ApplyStage>>) {
        let signal = stage.borrow().defrag.signal.clone();
        loop {
            let pause = stage.borrow_mut().defragment_step();
            match pause {
                Some(pause) => sleep(pause).await,
                None => signal.wait().await,
            }
        }
    }

    /// Begins the next commit, or says how long to wait for it; `None` until the signal.
    fn defragment_step(&mut self) -> Option<Duration> {
        if self.defrag.running.is_none() {
            if self.defrag.waiting.is_empty() {
                return None;
            }
            self.begin_defragmentation();
        }
        let running = self.defrag.running.as_mut()?;
        if self.shared.is_stopping() {
            self.end_defragmentation(Err(EtcdError::Stopped));
            return None;
        }
        if let Some(pause) = running.pause.take() {
            return Some(pause);
        }
        let progress = &self.shared.progress;
        if progress.is_tree_disk_full.load(Ordering::Relaxed) {
            self.end_defragmentation(Err(EtcdError::NoSpace));
            return None;
        }
        if self.committer.is_busy() {
            return None;
        }
        let is_behind = self.store.pending_changes() >= self.settings.commit_changes_max;
        if is_behind || self.is_congested {
            self.start_commit();
            return None;
        }
        let moving = match std::mem::replace(&mut running.is_new, false) {
            true => Moving::Begin,
            false => Moving::On,
        };
        let frozen = self.store.freeze();
        self.commits_begun += u64::from(frozen.is_some());
        self.committer.commit(frozen, moving);
        None
    }

    fn begin_defragmentation(&mut self) {
        let progress = &self.shared.progress;
        let running = Running {
            since_ns: self.clock.now_ns(),
            is_new: true,
            total: progress.tree_bytes.load(Ordering::Relaxed),
            in_use: progress.tree_bytes_in_use.load(Ordering::Relaxed),
            pause: None,
            held_since_ns: None,
        };
        self.metrics.gauges().disk_defrag_inflight.set(1);
        tracing::info!(
            "current-db-size-bytes" = running.total,
            "current-db-size-in-use-bytes" = running.in_use,
            "defragmenting"
        );
        self.defrag.running = Some(running);
    }

    /// A commit is over; `moved` is what it says of the defragmentation, if it moved anything for it.
    pub(super) fn on_moved(
        &mut self,
        took: Duration,
        moved: Option<Result<DefragStep, EtcdError>>,
    ) {
        let Some(running) = &mut self.defrag.running else {
            return;
        };
        self.defrag.signal.notify();
        let Some(moved) = moved else { return };
        running.pause = Some(took.clamp(PAUSE_MIN, PAUSE_MAX));
        let result = match moved {
            Ok(DefragStep::Working) => {
                running.held_since_ns = None;
                return;
            }
            Ok(DefragStep::Waiting) => {
                running.pause = Some(PAUSE_MAX);
                let now_ns = self.clock.now_ns();
                let since_ns = *running.held_since_ns.get_or_insert(now_ns);
                if now_ns.saturating_sub(since_ns) < HELD_PATIENCE_NS {
                    return;
                }
                tracing::warn!(
                    "a reader of an older state, such as a backup, holds the file's length; defragment again when it is done"
                );
                Ok(())
            }
            Ok(DefragStep::Done) => Ok(()),
            Err(error) => Err(error),
        };
        self.end_defragmentation(result);
    }

    fn end_defragmentation(&mut self, result: Result<(), EtcdError>) {
        let Some(running) = self.defrag.running.take() else {
            return;
        };
        self.metrics.gauges().disk_defrag_inflight.set(0);
        let took = Duration::from_nanos(self.clock.now_ns().saturating_sub(running.since_ns));
        if let Err(error) = result {
            tracing::warn!(error = error.text(), took = ?took, "failed to defragment");
        } else {
            self.metrics.histograms.disk_backend_defrag.observe(took);
            let progress = &self.shared.progress;
            let total = progress.tree_bytes.load(Ordering::Relaxed);
            let in_use = progress.tree_bytes_in_use.load(Ordering::Relaxed);
            tracing::info!(
                "current-db-size-bytes-diff" = total - running.total,
                "current-db-size-bytes" = total,
                "current-db-size-in-use-bytes-diff" = in_use - running.in_use,
                "current-db-size-in-use-bytes" = in_use,
                took = ?took,
                "finished defragmenting directory"
            );
            tracing::info!("finished defragment");
        }
        for (net, ask) in std::mem::take(&mut self.defrag.waiting) {
            self.to_net[net].push(ToNet::Defragmented { ask, result });
        }
        self.finish_pass();
    }
}
