//! Group commits: batches go to the tree thread, and what it has made durable is published.
//!
//! Always true here: one commit at a time; nothing waits for it except the end of the member. The
//! thread itself is [`super::committer`].

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use storage::mvcc::Applied;
use storage::tree::{Snapshot, TreeError};

use crate::fatal::fatal;
use crate::pipeline::ToLog;

use super::committer::{Committed, Moving};
use super::stage::ApplyStage;

impl ApplyStage {
    /// Hands the live batch to the tree thread, unless one is under way or nothing has changed.
    pub(super) fn start_commit(&mut self) {
        if self.committer.is_busy() {
            return;
        }
        if let Some(frozen) = self.store.freeze() {
            self.commits_begun += 1;
            self.committer.commit(Some(frozen), Moving::No);
        }
    }

    pub(super) fn take_committed(&mut self) {
        match self.committer.poll() {
            None => {}
            Some(Ok(committed)) => self.on_committed(committed),
            // The member stops; what is not committed is in the log.
            Some(Err(TreeError::NoSpace { .. })) => {}
            Some(Err(error)) => fatal("the tree file cannot be written", &error),
        }
    }

    fn on_committed(&mut self, committed: Committed) {
        let [built, written, synced, published] = committed.phases;
        let histograms = &self.metrics.histograms;
        histograms.disk_backend_commit.observe(committed.took);
        histograms.disk_backend_commit_spill.observe(built);
        histograms
            .disk_backend_commit_write
            .observe(written + synced + published);
        self.publish_sizes(
            committed.stats.high_water_bytes() as i64,
            committed.stats.in_use_bytes() as i64,
        );
        tracing::debug!(changes = committed.changes, took = ?committed.took, "committed");
        match committed.applied {
            Some(applied) => self.on_persisted(committed.snapshot, applied),
            None => self.store.on_moved(committed.snapshot),
        }
        self.on_moved(committed.took, committed.moved);
    }

    /// The tree file holds the frozen batch.
    fn on_persisted(&mut self, snapshot: Snapshot, applied: Applied) {
        self.store.on_committed(snapshot);
        self.persisted = applied;
        self.to_log.push(ToLog::Persisted {
            index: applied.index,
        });
        self.commits_done += 1;
        if let Some((revision, commit)) = self.compacted
            && commit <= self.commits_done
        {
            self.compacted = None;
            self.answer_physical(revision);
        }
        self.compaction.notify();
        self.serve_states();
    }

    /// Tells the net cores whether group commits lag too far behind.
    pub(super) fn publish_congestion(&mut self) {
        let is_congested = self.store.is_congested();
        if is_congested != self.is_congested {
            self.is_congested = is_congested;
            self.shared
                .progress
                .is_congested
                .store(is_congested, Ordering::Relaxed);
        }
    }

    pub fn publish_sizes(&self, total: i64, in_use: i64) {
        self.shared
            .progress
            .tree_bytes
            .store(total, Ordering::Relaxed);
        self.shared
            .progress
            .tree_bytes_in_use
            .store(in_use, Ordering::Relaxed);
    }

    /// Commits everything and waits for it; the last thing the stage does.
    pub fn close(stage: &Rc<RefCell<ApplyStage>>) {
        let stage = &mut *stage.borrow_mut();
        while stage.pass() {}
        for _ in 0..2 {
            if !stage.finish_commit() {
                return;
            }
            stage.start_commit();
        }
        stage.finish_commit();
    }

    /// Waits for the commit under way; false when the disk is too full for it.
    fn finish_commit(&mut self) -> bool {
        match self.committer.wait() {
            Some(Ok(committed)) => self.on_committed(committed),
            Some(Err(error @ TreeError::NoSpace { .. })) => {
                tracing::warn!(
                    error = %error,
                    "stopping without a last group commit; the next start applies the log instead"
                );
                return false;
            }
            Some(Err(error)) => fatal("the tree file cannot be written", &error),
            None => {}
        }
        true
    }
}
