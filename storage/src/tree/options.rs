//! How a tree is opened, and what it tells about itself: plain data.
//!
//! Nothing here does anything. Bounds and defaults are stated at their fields.

use super::format::TxId;

/// How to open a tree.
#[derive(Debug, Clone)]
pub struct TreeOptions {
    /// Page size of a new file, a power of two; an existing file keeps its own. Default 4096.
    pub page_bytes: u32,
    /// Address space reserved for the map; growing past it makes a new, larger map. Default 10 GiB, as etcd.
    pub map_bytes: u64,
    /// The file grows in steps of this, so that most commits leave its length alone. Default 16 MiB.
    pub grow_bytes: u64,
    /// Bring the whole file into memory at open. Default on.
    pub populate: bool,
    /// Keep it there with `mlock`. Default off.
    pub lock_memory: bool,
}

impl Default for TreeOptions {
    fn default() -> TreeOptions {
        TreeOptions {
            page_bytes: 4096,
            map_bytes: 10 << 30,
            grow_bytes: 16 << 20,
            populate: true,
            lock_memory: false,
        }
    }
}

/// What opening found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenReport {
    pub txid: TxId,
    pub page_bytes: u32,
    pub pages_high_water: u64,
    pub pages_in_use: u64,
    pub pages_free: u64,
    /// True when one meta page was invalid, so that the newest commit may be missing. A crash in the middle of a
    /// commit leaves this; the log holds what is missing.
    pub meta_invalid: bool,
    pub sums: SumsState,
}

/// How the page sums were found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SumsState {
    /// Every page in use matched its sum.
    Verified,
    /// That many sectors of the side file were damaged and have been computed anew from their pages; every other
    /// page in use matched.
    SectorsRebuilt(u64),
    /// The side file did not belong to this state of the tree file (missing, or another program wrote the tree):
    /// all sums were computed anew, so damage done before that cannot be seen.
    Rebuilt,
}

/// A point a commit has reached; the caller puts the time to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitPhase {
    /// New pages are built in memory.
    Built,
    /// Pages and sums are handed to the kernel.
    Written,
    /// Pages and sums are durable.
    Synced,
    /// The meta page is durable: the commit will survive.
    Published,
}

/// Sizes of the tree file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TreeStats {
    pub txid: TxId,
    pub page_bytes: u64,
    /// Length of the file.
    pub file_bytes: u64,
    /// Every page of the file is kept in memory; false if that was not asked for, or failed when the file grew.
    pub is_memory_locked: bool,
    /// Pages ever used; times the page size this is what etcd reports as the size.
    pub pages_high_water: u64,
    /// Pages that can be written now.
    pub pages_free: u64,
    /// Pages no longer in the tree that wait for readers or for the older root to be replaced.
    pub pages_pending: u64,
    /// Snapshots that readers hold, the current one not counted.
    pub snapshots_held: usize,
}

impl TreeStats {
    pub fn high_water_bytes(&self) -> u64 {
        self.pages_high_water * self.page_bytes
    }

    /// Bytes of pages in the tree and of the two meta pages.
    pub fn in_use_bytes(&self) -> u64 {
        (self.pages_high_water - self.pages_free - self.pages_pending) * self.page_bytes
    }
}
