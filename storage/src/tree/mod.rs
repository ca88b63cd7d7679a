//! The B+tree file: bbolt's format, read through a memory map, written copy-on-write one whole batch at a time.
//!
//! Always true here
//! - A page that any live [`Snapshot`] can reach is never written again until that snapshot is gone.
//! - A [`WriteBatch`] lands whole or not at all, whatever instant the process dies at.
//! - No byte of the file is trusted: every length, position and page number is checked before it is followed.
//!
//! [`Tree`] is owned by the tree thread, which may block on the disk. [`Snapshot`] is `Send + Sync + Clone` and read
//! on any core without a lock. Nothing here knows what a key or a value means, and nothing here reads a clock.
//!
//! Reading order: [`format`] (bytes), [`page`] (one checked page), [`source`] (where pages come from), [`snapshot`]
//! (reading), [`batch`] (what changes), [`edit`] and [`pack`] (how a batch changes a tree), [`free`] (which pages are free),
//! [`sums`] (the side file), [`files`] and [`options`], [`open`] (start and recovery), [`writer`] (the commit), [`check`],
//! [`scrub`], [`backup`] and [`content_hash`] (whole states, for clients), [`defrag`] (which leaves commits move to the front).
//! The byte maps and crash cases are in `docs/format-tree.md` and `docs/format-sums.md`.

mod backup;
pub mod batch;
pub mod check;
mod content_hash;
mod defrag;
mod edit;
pub mod error;
pub mod files;
pub mod format;
mod free;
mod map;
mod open;
pub mod options;
mod pack;
pub mod page;
pub mod scrub;
pub mod snapshot;
pub mod source;
mod sums;
mod walk;
pub mod writer;

pub use backup::{Backup, BackupFile};
pub use batch::WriteBatch;
pub use check::{CheckReport, check};
pub use content_hash::ContentHash;
pub use defrag::{DefragStep, Defragmentation};
pub use error::{PageDamage, TreeError};
pub use files::TreeFiles;
pub use format::{PageNumber, TxId};
pub use options::{CommitPhase, OpenReport, SumsState, TreeOptions, TreeStats};
pub use scrub::{ScrubStep, Scrubber};
pub use snapshot::{BucketRef, Cursor, Snapshot};
pub use walk::Counts;
pub use writer::{ReadTree, Tree};
