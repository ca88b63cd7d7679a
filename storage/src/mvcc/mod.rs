//! The MVCC store: etcd's revisions over an in-memory key index, an append-only batch buffer and the tree file.
//!
//! One writer (`Store`, on the apply core) and any number of readers (`Reader`, on any core) work at the same
//! time; no lock is shared between them. A put goes to the index and the live buffer and is visible to readers
//! with one store of the published revision; the tree file follows in group commits off the path.
//!
//! In reading order: `revision`, `key_value`, `range` (formats), `tree_seam` (what is needed of the file),
//! `index` (key to revisions), `buffer`, `batch` (what is not yet in the file), `store`, `txn`, `compaction`
//! (the writer), `read`, `scan`, `history`, `hash` (the readers).
//!
//! Deterministic: no clock, no randomness, no order of a hash map. Leases, watchers and auth live elsewhere.

mod batch;
mod buffer;
mod compaction;
mod hash;
mod history;
mod index;
mod key_value;
mod memory_tree;
mod meta;
mod open;
mod pins;
mod range;
mod read;
mod revision;
mod scan;
mod state;
mod store;
mod tree_file;
mod tree_seam;
mod txn;

pub use batch::{Changes, Frozen};
pub use compaction::{CompactError, CompactProgress};
pub use hash::HashJob;
pub use history::{Hold, StoredChange};
pub use key_value::{KeyMeta, KeyValue};
pub use memory_tree::MemoryTree;
pub use meta::{LogTie, StoredMeta};
pub use range::KeyRange;
pub use read::{Item, ReadError, ReadView, Reader};
pub use revision::{Revision, RevisionKey};
pub use scan::{Progress, Scan, ScanMode};
pub use store::{Applied, OpenError, OpenReport, Options, Store};
pub use tree_seam::{Bucket, Change, TreeDamage, TreeSnapshot};
pub use txn::WriteTxn;
