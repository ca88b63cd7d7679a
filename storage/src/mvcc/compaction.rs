//! Compaction: which stored revisions go, in bounded slices between transactions.
//!
//! Kept are, per key, the newest revision at or below R if it is a put, or if it is a tombstone at exactly R; and
//! everything above R. The index knows every stored revision, so a slice reads no page: `Collect` goes over the
//! index and notes dead revisions, `Delete` puts them into batches in the file's order (neighbouring deletions
//! share pages), `Trim` shortens the index. If more are dead than fit `dead_revisions_max`, the lowest are
//! deleted first and `Collect` starts over above them.
//!
//! Invariants
//! - Nothing is deleted before the scheduled mark and every revision <= R are in the file, and no pinned scan
//!   reads below R.
//! - `finishedCompactRev` is in the batch of the last deletions. After a crash before that, the file's scheduled
//!   mark starts the compaction again; deleting what remains gives the same result.
//! - One compaction at a time; of those accepted meanwhile only the newest runs, which includes the others.
//!
//! Apply core; the caller paces it (budget and pauses).

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;

use super::index::{IndexWriter, RecordRef};
use super::meta;
use super::revision::Revision;
use super::store::Store;
use super::tree_seam::TreeSnapshot;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompactError {
    #[error("revision is already compacted (compact revision {compact_revision})")]
    Compacted { compact_revision: i64 },
    #[error("revision is in the future (current revision {revision})")]
    Future { revision: i64 },
}

/// What a slice of compaction did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompactProgress {
    /// No compaction under way.
    Idle,
    /// Nothing to do until the batch with the scheduled mark is committed, pinned scans below the revision
    /// have ended, or the waiting batches have shrunk.
    Waiting,
    /// Looked through or shortened a part of the index.
    Working,
    /// Deleted revisions.
    Deleting,
    /// The compaction's last slice. Its last deletions and `finishedCompactRev` are in a batch by now.
    Finished { revision: i64 },
}

pub(super) struct Compaction {
    /// Revision of the last finished compaction, -1 without one.
    finished: i64,
    /// Revisions deleted since the store was opened.
    deleted: u64,
    running: Option<Job>,
    queued: Option<Accepted>,
}

#[derive(Clone, Copy)]
struct Accepted {
    revision: i64,
    /// Batch with the scheduled mark.
    batch: u64,
}

struct Job {
    accepted: Accepted,
    stage: Stage,
}

enum Stage {
    /// Until the batch is in the file and no scan is below.
    Accepted,
    Collect {
        /// Keys below are done.
        from: Vec<u8>,
        /// The key `from` is done above this main revision.
        within: Option<i64>,
        /// Dead revisions in this window are noted.
        above: i64,
        through: i64,
        dead: BTreeSet<Dead>,
    },
    Delete {
        through: i64,
        dead: BTreeSet<Dead>,
    },
    Trim {
        from: Vec<u8>,
    },
}

/// A stored revision to be deleted, and whether it is a tombstone.
type Dead = (Revision, bool);

impl Compaction {
    /// `resumed`: a compaction whose mark is in the file, but not its end.
    pub(super) fn opened(finished: i64, resumed: Option<i64>) -> Self {
        let running = resumed.map(|revision| Job {
            accepted: Accepted { revision, batch: 0 },
            stage: Stage::Accepted,
        });
        Self {
            finished,
            deleted: 0,
            running,
            queued: None,
        }
    }
}

impl<T: TreeSnapshot> Store<T> {
    /// Accepts a compaction: readers below `revision` fail from now on, the mark goes into the live batch and
    /// `must_commit` becomes true.
    pub fn compact(&mut self, revision: i64) -> Result<(), CompactError> {
        if revision <= self.compact_revision {
            return Err(CompactError::Compacted {
                compact_revision: self.compact_revision,
            });
        }
        if revision > self.current {
            return Err(CompactError::Future {
                revision: self.current,
            });
        }
        self.compact_revision = revision;
        self.shared
            .compact_revision
            .store(revision, Ordering::SeqCst);
        meta::set_scheduled_compaction(&mut self.live.small, revision);
        self.live.must_commit = true;
        let accepted = Accepted {
            revision,
            batch: self.live.sequence,
        };
        if self.compaction.running.is_some() {
            self.compaction.queued = Some(accepted);
        } else {
            self.compaction.running = Some(Job::new(accepted));
        }
        Ok(())
    }

    /// Whether an accepted compaction has not finished.
    pub fn is_compacting(&self) -> bool {
        self.compaction.running.is_some()
    }

    /// Revisions that compactions have deleted since the store was opened.
    pub fn compacted_revisions(&self) -> u64 {
        self.compaction.deleted
    }

    /// One bounded slice of the accepted compaction: about `budget` keys or revisions.
    pub fn compact_step(&mut self, budget: usize) -> CompactProgress {
        let budget = budget.max(1);
        let Some(mut job) = self.compaction.running.take() else {
            return CompactProgress::Idle;
        };
        let revision = job.accepted.revision;
        let progress = match job.stage {
            Stage::Accepted if self.may_start(job.accepted) => {
                job.stage = Stage::collect(i64::MIN, revision);
                CompactProgress::Working
            }
            Stage::Accepted => CompactProgress::Waiting,
            Stage::Collect { .. } => {
                let dead_max = self.options.dead_revisions_max.max(1);
                job.collect(&self.index, self.compaction.finished, dead_max, budget);
                CompactProgress::Working
            }
            Stage::Delete { .. } if self.is_congested() => CompactProgress::Waiting,
            Stage::Delete { .. } => {
                self.delete_dead(&mut job, budget);
                CompactProgress::Deleting
            }
            Stage::Trim { ref mut from } => match self.index.trim(from, revision, budget) {
                Some(next) => {
                    *from = next;
                    CompactProgress::Working
                }
                None => CompactProgress::Finished { revision },
            },
        };
        if matches!(progress, CompactProgress::Finished { .. }) {
            self.compaction.finished = revision;
            self.compaction.running = self.compaction.queued.take().map(Job::new);
        } else {
            self.compaction.running = Some(job);
        }
        progress
    }

    fn may_start(&self, accepted: Accepted) -> bool {
        accepted.batch <= self.committed && accepted.revision <= self.shared.pins.lowest()
    }

    fn delete_dead(&mut self, job: &mut Job, budget: usize) {
        let Stage::Delete { through, dead } = &mut job.stage else {
            return;
        };
        // Ascending, so that what a crash leaves of a key is always its newest part.
        for _ in 0..budget {
            let Some(next) = dead.pop_first() else { break };
            self.live.deletes.push(next);
            self.compaction.deleted += 1;
        }
        if !dead.is_empty() {
            return;
        }
        let revision = job.accepted.revision;
        if *through < revision {
            job.stage = Stage::collect(*through, revision);
            return;
        }
        meta::set_finished_compaction(&mut self.live.small, revision);
        self.live.must_commit = true;
        job.stage = Stage::Trim { from: Vec::new() };
    }
}

impl Stage {
    fn collect(above: i64, through: i64) -> Self {
        Self::Collect {
            from: Vec::new(),
            within: None,
            above,
            through,
            dead: BTreeSet::new(),
        }
    }
}

impl Job {
    fn new(accepted: Accepted) -> Self {
        Self {
            accepted,
            stage: Stage::Accepted,
        }
    }

    fn collect(&mut self, index: &IndexWriter, finished: i64, dead_max: usize, budget: usize) {
        let at = self.accepted.revision;
        let Stage::Collect {
            from,
            within,
            above,
            through,
            dead,
        } = &mut self.stage
        else {
            return;
        };
        let mut cursor = index.view().cursor(from);
        let mut budget_left = budget;
        loop {
            let Some(record) = cursor.next() else {
                self.stage = Stage::Delete {
                    through: *through,
                    dead: std::mem::take(dead),
                };
                return;
            };
            let window = Window {
                finished,
                at,
                above: *above,
                through: within.take().unwrap_or(*through).min(*through),
            };
            let unfinished = visit_dead(record, window, &mut budget_left, |revision, mark| {
                // The window's end may have moved down meanwhile.
                if revision.main <= *through {
                    dead.insert((revision, mark));
                    if dead.len() > dead_max {
                        drop_highest(dead, through);
                    }
                }
            });
            if unfinished.is_some() || budget_left == 0 {
                from.clear();
                from.extend_from_slice(record.key());
                *within = unfinished;
                if unfinished.is_none() {
                    from.push(0);
                }
                return;
            }
        }
    }
}

/// Drops the noted revisions of the highest main and ends the window below it. A window of one main revision is
/// left whole: one transaction bounds it.
fn drop_highest(dead: &mut BTreeSet<Dead>, through: &mut i64) {
    let (Some((first, _)), Some((last, _))) = (dead.first(), dead.last()) else {
        return;
    };
    if first.main == last.main {
        return;
    }
    *through = last.main - 1;
    while dead
        .last()
        .is_some_and(|(revision, _)| revision.main > *through)
    {
        dead.pop_last();
    }
}

struct Window {
    /// Of the last finished compaction.
    finished: i64,
    /// Of this one.
    at: i64,
    /// Only main revisions in this window are visited; those up to `above` were deleted by an earlier round.
    above: i64,
    through: i64,
}

/// Visits the stored revisions of a key that a compaction deletes, newest first; uses up `budget_left` and
/// returns where to go on if that ended it.
fn visit_dead(
    record: RecordRef<'_>,
    window: Window,
    budget_left: &mut usize,
    mut visit: impl FnMut(Revision, bool),
) -> Option<i64> {
    let Window {
        finished,
        at,
        above,
        through,
    } = window;
    // A key costs, however little of it is in the window.
    *budget_left = budget_left.saturating_sub(1);
    let newest = record.newest_at(at)?;
    let is_newest_kept = !newest.is_tombstone || newest.meta.mod_revision.main == at;
    let mut previous_main = i64::MAX;
    let mut unfinished = None;
    record.visit_back(through, |found| {
        let revision = found.meta.mod_revision;
        if revision.main <= above {
            return ControlFlow::Break(());
        }
        if *budget_left == 0 && previous_main != revision.main && previous_main != i64::MAX {
            unfinished = Some(revision.main);
            return ControlFlow::Break(());
        }
        *budget_left = budget_left.saturating_sub(1);
        previous_main = revision.main;
        // At or below the last compaction only one revision can still be stored: what that compaction kept.
        let is_below_finished = revision.main <= finished;
        let is_stored = !is_below_finished || !found.is_tombstone || revision.main == finished;
        let is_kept = is_newest_kept && revision == newest.meta.mod_revision;
        if is_stored && !is_kept {
            visit(revision, found.is_tombstone);
        }
        if is_below_finished {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    unfinished
}
