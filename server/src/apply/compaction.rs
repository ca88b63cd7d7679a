//! Compaction: in slices beside the requests, and by itself on a schedule.
//!
//! Always true here: one slice at a time, with a pause after it, so that compaction of any size never
//! holds the core; what a crash interrupted goes on at the next start; scheduled compactions go
//! through the log like a client's, and only a leader proposes them.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use storage::command::{Body, Compact};
use storage::mvcc::{CompactError, CompactProgress};
use wire::error::EtcdError;
use wire::kv::put_compaction_response;

use crate::config::AutoCompaction;
use crate::pipeline::RequestId;
use crate::runtime::sleep;

use super::alarms::CORRUPT;
use super::schedule::PeriodicRule;
use super::stage::ApplyStage;

/// etcd looks at the revision rule this often.
const REVISION_INTERVAL: Duration = Duration::from_secs(5 * 60);

/// A compaction whose client waits until the old revisions are gone.
pub(super) struct PhysicalWait {
    pub revision: i64,
    pub id: RequestId,
    /// What it is told then.
    pub result: Result<(), EtcdError>,
}

/// A compaction under way, for the metrics.
pub(super) struct Compacting {
    since_ns: u64,
    /// The longest slice of work on the index.
    index_pause_ns: u64,
}

impl ApplyStage {
    /// `None` when the reply follows once the old revisions are gone.
    pub(super) fn compact(
        &mut self,
        revision: i64,
        physical: bool,
        id: RequestId,
    ) -> Option<Result<(), EtcdError>> {
        if self.has_alarm(CORRUPT) {
            return Some(Err(EtcdError::Corrupt));
        }
        let result = match self.store.compact(revision) {
            Ok(()) => {
                tracing::info!(revision, "compacting");
                // etcd reads a key here, to learn the revision.
                self.metrics.counters.mvcc_range.inc();
                self.compaction.notify();
                Ok(())
            }
            Err(CompactError::Compacted { .. }) => Err(EtcdError::Compacted),
            Err(CompactError::Future { .. }) => Err(EtcdError::FutureRevision),
        };
        let waits = match result {
            Ok(()) => true,
            // As in etcd, who is refused because another compaction came first is told so when the
            // compactions under way are done: the revisions it wanted gone are gone then.
            Err(EtcdError::Compacted) => self.is_compacting(),
            Err(_) => false,
        };
        if physical && waits {
            let revision = self.store.compact_revision();
            self.physical.push(PhysicalWait {
                revision,
                id,
                result,
            });
            return None;
        }
        let header = self.header();
        put_compaction_response(&mut self.scratch, &header);
        Some(result)
    }

    /// Whether old revisions are still to go from the tree file.
    fn is_compacting(&self) -> bool {
        self.store.is_compacting() || self.compacted.is_some()
    }

    /// The deletions through `revision` are all in a batch: who waited is answered when the commit
    /// that takes the last of them is done.
    pub(super) fn on_compacted(&mut self, revision: i64) {
        let was_busy = self.committer.is_busy();
        self.start_commit();
        // Behind a commit that is under way the last deletions may still lie in the live batch.
        let is_next = was_busy && self.store.pending_changes() > 0;
        let commit = self.commits_begun + u64::from(is_next);
        if commit <= self.commits_done {
            self.answer_physical(revision);
        } else {
            self.compacted = Some((revision, commit));
        }
    }

    /// The old revisions through `revision` are gone from the tree file: answers who waited.
    pub(super) fn answer_physical(&mut self, revision: i64) {
        let (done, waiting) = std::mem::take(&mut self.physical)
            .into_iter()
            .partition(|wait: &PhysicalWait| wait.revision <= revision);
        self.physical = waiting;
        for wait in done {
            self.scratch.clear();
            let header = self.header();
            put_compaction_response(&mut self.scratch, &header);
            self.reply(wait.id, wait.result);
        }
    }

    /// The background task that removes what compactions made obsolete.
    pub async fn compact_in_slices(stage: Rc<RefCell<ApplyStage>>) {
        let (budget, pause, signal) = {
            let stage = stage.borrow();
            let settings = stage.settings();
            (
                settings.compaction_keys,
                settings.compaction_pause,
                stage.compaction.clone(),
            )
        };
        loop {
            let progress = stage.borrow_mut().compaction_slice(budget);
            match progress {
                CompactProgress::Working | CompactProgress::Deleting => sleep(pause).await,
                CompactProgress::Idle | CompactProgress::Waiting => signal.wait().await,
                CompactProgress::Finished { .. } => {}
            }
        }
    }

    fn compaction_slice(&mut self, budget: usize) -> CompactProgress {
        let begun_ns = self.clock.now_ns();
        let progress = self.store.compact_step(budget);
        self.book_slice(begun_ns, progress);
        if let CompactProgress::Finished { revision } = progress {
            tracing::info!(revision, "finished compaction");
            self.on_compacted(revision);
        }
        if self.store.must_commit() {
            self.start_commit();
        }
        self.finish_pass();
        progress
    }

    /// As etcd counts: a pause for each batch of deletions, and one for the index, here its longest.
    fn book_slice(&mut self, begun_ns: u64, progress: CompactProgress) {
        if let CompactProgress::Idle | CompactProgress::Waiting = progress {
            return;
        }
        let milliseconds = |ns: u64| ns as f64 / 1e6;
        let now_ns = self.clock.now_ns();
        let histograms = &self.metrics.histograms;
        let slice_ns = now_ns - begun_ns;
        let compacting = self.compacting.get_or_insert(Compacting {
            since_ns: begun_ns,
            index_pause_ns: 0,
        });
        if progress == CompactProgress::Deleting {
            let pause = milliseconds(slice_ns);
            histograms.mvcc_db_compaction_pause_ms.observe_value(pause);
        } else {
            compacting.index_pause_ns = compacting.index_pause_ns.max(slice_ns);
        }
        let counters = &self.metrics.counters;
        counters
            .mvcc_db_compaction_keys
            .set(self.store.compacted_revisions());
        if let CompactProgress::Finished { .. } = progress {
            let pause = milliseconds(compacting.index_pause_ns);
            let all = milliseconds(now_ns - compacting.since_ns);
            histograms
                .mvcc_index_compaction_pause_ms
                .observe_value(pause);
            histograms.mvcc_db_compaction_total_ms.observe_value(all);
            let unix = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default();
            self.metrics
                .gauges()
                .mvcc_db_compaction_last
                .set(unix.as_secs() as i64);
            self.compacting = None;
        }
    }

    /// Proposes compactions by etcd's two rules.
    pub async fn compact_by_schedule(stage: Rc<RefCell<ApplyStage>>, rule: AutoCompaction) {
        match rule {
            AutoCompaction::Off => {}
            AutoCompaction::Revision(kept) => loop {
                sleep(REVISION_INTERVAL).await;
                let mut stage = stage.borrow_mut();
                let revision = stage.store.revision() - kept;
                stage.propose_compaction(revision);
            },
            AutoCompaction::Periodic(period) => Self::compact_periodically(stage, period).await,
        }
    }

    async fn compact_periodically(stage: Rc<RefCell<ApplyStage>>, period: Duration) {
        let mut rule = PeriodicRule::new(period);
        loop {
            rule.begin(stage.borrow().store.revision());
            sleep(rule.sample_interval()).await;
            if let Some(revision) = rule.end()
                && stage.borrow_mut().propose_compaction(revision)
            {
                rule.succeeded(revision);
            }
        }
    }

    fn propose_compaction(&mut self, revision: i64) -> bool {
        let leads = self.shared.leader() == self.shared.member_id;
        if !leads || revision <= 0 || revision <= self.store.compact_revision() {
            return false;
        }
        self.propose(Body::Compact(Compact {
            revision,
            physical: false,
        }));
        self.finish_pass();
        true
    }
}
