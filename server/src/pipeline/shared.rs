//! The few words that all cores read.
//!
//! Always true here: each word has one writing stage, named at the field; readers need no order
//! between different words. Nothing here is locked.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use arc_swap::ArcSwap;

use crate::apply::cluster::ClusterView;
use crate::auth::AuthShared;

/// How far the pipeline is.
#[derive(Default)]
pub struct Progress {
    /// Written by the log core.
    pub committed: AtomicU64,
    /// Written by the apply core.
    pub applied: AtomicU64,
    /// Written by the log core: the current term.
    pub term: AtomicU64,
    /// Written by the log core: the leader's member id, 0 for none.
    pub leader: AtomicU64,
    /// Written by the log core at every tick: the time. A leader that has not ticked lately may be none any more.
    pub ticked_ns: AtomicU64,
    /// Written by the apply core: group commits lag so far behind that no more may be proposed.
    pub is_congested: AtomicBool,
    /// Written by the tree thread: the tree file cannot grow because its disk is full.
    pub is_tree_disk_full: AtomicBool,
    /// Written by the apply core: high-water page times page size of the tree file.
    pub tree_bytes: AtomicI64,
    /// Written by the apply core: the same less free pages.
    pub tree_bytes_in_use: AtomicI64,
    /// Written by the start-up and shutdown code.
    pub is_stopping: AtomicBool,
}

/// What never changes while the member runs, and the progress words.
pub struct Shared {
    pub cluster_id: u64,
    pub member_id: u64,
    /// Tells this life of this member from others; see [`super::RequestId`].
    pub life: u16,
    /// The log's last entry when this life began. Entries up to it are of earlier lives, whatever their ids say:
    /// those have too few bits for chance alone.
    pub replayed_through: u64,
    pub progress: Progress,
    /// Replaced whole by the apply core.
    pub cluster: ArcSwap<ClusterView>,
    /// Users, roles and tokens.
    pub auth: AuthShared,
    /// For each net core: reads wait for the applied index to move, so ring when it does.
    pub waits_for_apply: Vec<AtomicBool>,
    /// For each net core: it has watchers, so ring when there is a new revision.
    pub watches: Vec<AtomicBool>,
    /// The next lease id that a net core chooses; see [`Shared::next_lease_id`].
    pub lease_ids: AtomicU64,
}

/// Where etcd begins to count the ids it chooses: 16 bits of the member's id, 40 of the time in milliseconds, a counter.
/// So ids of different members and lives do not meet.
pub fn lease_ids_from(member_id: u64, unix_ms: u64) -> u64 {
    member_id << 48 | (unix_ms & ((1 << 40) - 1)) << 8
}

impl Shared {
    pub fn applied(&self) -> u64 {
        self.progress.applied.load(Ordering::Acquire)
    }

    pub fn committed(&self) -> u64 {
        self.progress.committed.load(Ordering::Acquire)
    }

    pub fn term(&self) -> u64 {
        self.progress.term.load(Ordering::Relaxed)
    }

    pub fn leader(&self) -> u64 {
        self.progress.leader.load(Ordering::Relaxed)
    }

    /// A lease id that no other call of this member gets; positive.
    pub fn next_lease_id(&self) -> i64 {
        loop {
            // The counter runs over into the time, as etcd's does.
            let next = self.lease_ids.fetch_add(1, Ordering::Relaxed) + 1;
            let id = (next & (u64::MAX >> 1)) as i64;
            if id != 0 {
                return id;
            }
        }
    }

    pub fn tree_bytes(&self) -> i64 {
        self.progress.tree_bytes.load(Ordering::Relaxed)
    }

    pub fn tree_bytes_in_use(&self) -> i64 {
        self.progress.tree_bytes_in_use.load(Ordering::Relaxed)
    }

    pub fn is_stopping(&self) -> bool {
        self.progress.is_stopping.load(Ordering::Acquire)
    }
}
