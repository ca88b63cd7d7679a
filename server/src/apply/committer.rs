//! The tree thread: builds and writes group commits beside the cores, and scrubs the file between them.
//!
//! A commit of 10,000 changes costs milliseconds of computing and two syncs. On a core that serves
//! requests each slice of it would stand in somebody's way, so it runs on a thread of its own at the
//! lowest priority, which the kernel takes off the processor the moment a core has work.
//!
//! Always true here: at most one commit is under way; the frozen batch it works on is not touched by
//! anybody else; the first failure is final and the apply core stops the member for it. A full disk
//! is not one: nothing was written yet, so that commit is tried again until it succeeds or the member
//! stops, and meanwhile the log core refuses writes. What is not committed is in the log.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use storage::mvcc::{Applied, Frozen};
use storage::tree::{
    CommitPhase, DefragStep, Defragmentation, Scrubber, Snapshot, Tree, TreeError, TreeStats,
    WriteBatch,
};
use wire::error::EtcdError;

use crate::pipeline::Shared;
use crate::runtime::BellRinger;

/// Between commits this many pages are checked against their sums in each [`SCRUB_INTERVAL`]: a
/// tree of 1 GiB in about an hour.
const SCRUB_PAGES: u64 = 64;
const SCRUB_INTERVAL: Duration = Duration::from_secs(1);
/// Pause before a commit that found no room on the disk is tried again.
const NO_SPACE_PAUSE: Duration = Duration::from_secs(1);

/// What one commit of a defragmentation moves, and the leaves it looks at to find that. Writing so much takes a few milliseconds.
const MOVED_BYTES_MAX: u64 = 1536 << 10;
const SEEN_LEAVES_MAX: u64 = 4096;

/// What a commit does beside its batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Moving {
    No,
    /// The first step of a defragmentation.
    Begin,
    /// The next one.
    On,
}

/// Something to commit.
struct Work {
    frozen: Option<Frozen>,
    moving: Moving,
}

/// A finished commit.
pub struct Committed {
    pub snapshot: Snapshot,
    pub stats: TreeStats,
    /// What the file now holds; `None` if there was no batch.
    pub applied: Option<Applied>,
    /// How far the defragmentation is, if this was a step of it.
    pub moved: Option<Result<DefragStep, EtcdError>>,
    /// What it wrote, for the log.
    pub changes: usize,
    pub took: Duration,
    /// Building pages, writing them, and the two syncs.
    pub phases: [Duration; 4],
}

/// The apply core's end.
pub struct Committer {
    work: SyncSender<Work>,
    committed: Receiver<Result<Committed, TreeError>>,
    is_busy: bool,
}

impl Committer {
    /// Starts the thread; `ringer` wakes the apply core when a commit is finished.
    pub fn start(
        tree: Tree,
        ringer: BellRinger,
        shared: Arc<Shared>,
        cpus: Vec<usize>,
    ) -> std::io::Result<Committer> {
        let (to_thread, work) = sync_channel::<Work>(1);
        let (results, committed) = sync_channel(1);
        // It ends when this side is dropped; a panic of it ends the process.
        std::thread::Builder::new().name("tree".to_owned()).spawn(move || {
            yield_to_cores(&cpus);
            let mut tree = tree;
            let mut scrubber = Scrubber::new();
            let mut is_locked = tree.stats().is_memory_locked;
            let mut defragmentation = None;
            loop {
                let Work { frozen, moving } = match work.recv_timeout(SCRUB_INTERVAL) {
                    Ok(work) => work,
                    Err(RecvTimeoutError::Disconnected) => return,
                    Err(RecvTimeoutError::Timeout) => {
                        let Err(damage) = scrubber.step(&tree, SCRUB_PAGES) else { continue };
                        // The member must not serve such a page as truth: this is final.
                        if results.send(Err(damage)).is_ok() {
                            ringer.ring();
                        }
                        return;
                    }
                };
                if moving == Moving::Begin {
                    let pages = MOVED_BYTES_MAX / tree.stats().page_bytes;
                    defragmentation = Some(Defragmentation::new(pages.max(1), SEEN_LEAVES_MAX));
                }
                let moves = defragmentation.as_mut().filter(|_| moving != Moving::No);
                let result = commit(&mut tree, frozen.as_ref(), moves, &shared);
                if std::mem::replace(&mut is_locked, tree.stats().is_memory_locked)
                    && !tree.stats().is_memory_locked
                {
                    tracing::warn!(
                        "the tree file grew beyond the memory that may be locked: not all of it stays in memory; raise \
                         LimitMEMLOCK (ulimit -l) and restart"
                    );
                }
                let is_final =
                    matches!(&result, Err(error) if !matches!(error, TreeError::NoSpace { .. }));
                if results.send(result).is_err() {
                    return;
                }
                ringer.ring();
                if is_final {
                    return;
                }
            }
        })?;
        Ok(Committer {
            work: to_thread,
            committed,
            is_busy: false,
        })
    }

    pub fn is_busy(&self) -> bool {
        self.is_busy
    }

    /// Hands over a batch, or a step of a defragmentation, or both. Only when not busy.
    pub fn commit(&mut self, frozen: Option<Frozen>, moving: Moving) {
        assert!(!self.is_busy, "one commit at a time");
        self.is_busy = true;
        self.work
            .send(Work { frozen, moving })
            .expect("the tree thread lives until its first failure");
    }

    /// The result, once there is one. [`TreeError::NoSpace`] only when the member stops.
    pub fn poll(&mut self) -> Option<Result<Committed, TreeError>> {
        let result = self.committed.try_recv().ok()?;
        self.is_busy = false;
        Some(result)
    }

    /// Waits for the commit under way; for shutdown.
    pub fn wait(&mut self) -> Option<Result<Committed, TreeError>> {
        if !self.is_busy {
            return None;
        }
        self.is_busy = false;
        self.committed.recv().ok()
    }
}

fn commit(
    tree: &mut Tree,
    frozen: Option<&Frozen>,
    mut moves: Option<&mut Defragmentation>,
    shared: &Shared,
) -> Result<Committed, TreeError> {
    let is_disk_full = &shared.progress.is_tree_disk_full;
    let mut warned = false;
    let mut moved = None;
    let changes = frozen.map(Frozen::changes);
    let mut batch = WriteBatch::new();
    if let Some(changes) = &changes {
        changes.fill(&mut batch);
    }
    loop {
        let started = Instant::now();
        let mut phases = [Duration::ZERO; 4];
        let mut last = started;
        let mut observe = |phase| {
            let now = Instant::now();
            phases[match phase {
                CommitPhase::Built => 0,
                CommitPhase::Written => 1,
                CommitPhase::Synced => 2,
                CommitPhase::Published => 3,
            }] += now - last;
            last = now;
        };
        let mut result = match &mut moves {
            Some(moves) => tree.commit_and_move(&batch, moves, &mut observe),
            None => tree.commit_observed(&batch, &mut observe),
        };
        if let Some(moves) = moves.take() {
            moved = Some(Ok(moves.step()));
            if let Err(TreeError::NoSpace { .. }) = result {
                // The batch alone may still fit.
                moved = Some(Err(EtcdError::NoSpace));
                result = tree.commit_observed(&batch, &mut observe);
            }
        }
        match result {
            Err(error @ TreeError::NoSpace { .. }) => {
                if !warned {
                    tracing::error!(
                        error = %error,
                        "the tree file cannot grow: the disk is full; reads go on, and the commit is tried again until space comes back"
                    );
                    warned = true;
                    is_disk_full.store(true, Ordering::Relaxed);
                }
                if shared.is_stopping() {
                    return Err(error);
                }
                std::thread::sleep(NO_SPACE_PAUSE);
            }
            Err(error) => return Err(error),
            Ok(snapshot) => {
                if warned {
                    is_disk_full.store(false, Ordering::Relaxed);
                }
                return Ok(Committed {
                    snapshot,
                    stats: tree.stats(),
                    applied: frozen.map(Frozen::applied),
                    moved,
                    changes: frozen.map_or(0, Frozen::len),
                    took: started.elapsed(),
                    phases,
                });
            }
        }
    }
}

/// Makes the present thread one that works beside the cores: on any of their processors, and only when they leave it time.
pub fn yield_to_cores(cpus: &[usize]) {
    lower_priority();
    run_anywhere(cpus);
}

/// The thread that starts this one is pinned; commits may run on any core of the member.
fn run_anywhere(cpus: &[usize]) {
    // SAFETY: the set is a plain bit mask; bits beyond it are left out; this thread alone changes.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        for &cpu in cpus.iter().filter(|&&cpu| cpu < libc::CPU_SETSIZE as usize) {
            libc::CPU_SET(cpu, &mut set);
        }
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set);
    }
}

/// Gives way to every core: batch scheduling, nice 19, lowest best-effort I/O priority. Where the
/// system refuses, commits merely compete a little more.
fn lower_priority() {
    const IOPRIO_WHO_PROCESS: libc::c_int = 1;
    const IOPRIO_BEST_EFFORT_LOWEST: libc::c_int = 2 << 13 | 7;
    // SAFETY: these calls take numbers and one plain struct by pointer, and change this thread only.
    unsafe {
        let parameters: libc::sched_param = std::mem::zeroed();
        libc::sched_setscheduler(0, libc::SCHED_BATCH, &parameters);
        libc::setpriority(libc::PRIO_PROCESS, 0, 19);
        libc::syscall(
            libc::SYS_ioprio_set,
            IOPRIO_WHO_PROCESS,
            0,
            IOPRIO_BEST_EFFORT_LOWEST,
        );
    }
}
