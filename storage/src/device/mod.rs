//! Files as the log and the tree see them, so that real and simulated disks share one surface.
//!
//! What is always true here
//! - Blocking calls ([`BlockFile`], [`Directory`]) are for startup and for helper threads only; a
//!   core that serves requests uses nothing but [`WriteQueue`].
//! - A buffer given to [`WriteQueue::submit_write`] belongs to the operation until its
//!   [`Completion`] hands it back. Nobody can touch, move or free it in between.
//! - A result is reported once. Nothing in this module retries a failed write or sync.
//!
//! In reading order: [`file`] (one file, blocking), [`directory`] (a flat folder of files),
//! [`queue`] (asynchronous durable writes), [`buffer`] (aligned memory), then the backends:
//! [`uring`] and [`thread`] (the real disk), [`memory`] (fast, forgets nothing), [`crash`] (keeps only what was
//! synced; of the rest any subset of sectors).
//!
//! Deliberately absent: any knowledge of records, segments, pages or what the bytes mean.

pub mod buffer;
pub mod crash;
pub mod directory;
pub mod file;
pub mod memory;
pub mod queue;
pub mod real;
pub mod thread;
pub mod uring;

pub use buffer::AlignedBuffer;
pub use crash::CrashDisk;
pub use directory::{Directory, DirectoryLock, Geometry, Listed};
pub use file::{BlockFile, RealFile};
pub use memory::{MemoryDisk, MemoryFile};
pub use queue::{Completion, FileSlot, GroupFile, QueueOptions, QueueReport, WriteOp, WriteQueue};
pub use real::RealDirectory;

/// Unit of everything the log writes with direct I/O, and of the crash model's blocks.
///
/// Fixed rather than probed: a device with 512-byte logical sectors usually rewrites 4096 inside,
/// and a rewrite of a physical block that holds acknowledged bytes is what we must avoid.
pub const BLOCK_BYTES: usize = 4096;

/// The largest piece a disk writes whole or not at all. Assumed, see `docs/format-log.md`.
pub const SECTOR_BYTES: usize = 512;

const _: () = assert!(BLOCK_BYTES.is_multiple_of(SECTOR_BYTES));
