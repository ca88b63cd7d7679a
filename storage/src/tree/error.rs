//! What can go wrong with the tree file, by operation.
//!
//! [`PageDamage`] is small and `Copy`: it is what a read returns, and names the page. [`TreeError`] adds the file and
//! the remedy: it is what opening and committing return. Nothing here is logged; the caller does that once.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::format::{PageNumber, TxId};

/// A page that does not hold what its place in the tree says it must.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("page {page}: {what}")]
pub struct PageDamage {
    /// The page at fault; its byte offset is this times the page size.
    pub page: PageNumber,
    /// What about it cannot be true.
    pub what: &'static str,
}

impl PageDamage {
    pub(crate) fn new(page: PageNumber, what: &'static str) -> PageDamage {
        PageDamage { page, what }
    }
}

/// Why the tree could not be created, opened or committed to.
#[derive(Debug, Error)]
pub enum TreeError {
    /// The file is locked by another process (this server, or a tool that uses bbolt).
    #[error("tree file {path}: another process holds its lock; stop that process first")]
    Locked { path: PathBuf },
    /// No valid meta page: not a bbolt file, or both roots are gone.
    #[error(
        "tree file {path}: neither meta page is valid ({what}); \
         restore it from a backup, or move db and db.sum away if the log holds everything since the member was founded"
    )]
    NoMeta { path: PathBuf, what: &'static str },
    /// A page that the tree needs is damaged.
    #[error(
        "tree file {path}: {damage} (byte offset {offset}); \
         restore it from a backup, or move db and db.sum away if the log holds everything since the member was founded"
    )]
    Damaged {
        path: PathBuf,
        offset: u64,
        damage: PageDamage,
    },
    /// The file ends before its high-water mark.
    #[error(
        "tree file {path}: {have} bytes long but its pages end at {need}; \
         restore it from a backup, or move db and db.sum away if the log holds everything since the member was founded"
    )]
    Truncated { path: PathBuf, have: u64, need: u64 },
    /// The file could not grow. Nothing was written and the published state stands: commit again when there is room.
    #[error(
        "tree file {path}: no space to grow to {need} bytes; free some and the commit is retried"
    )]
    NoSpace { path: PathBuf, need: u64 },
    /// A change in the batch that no file of this format can hold, or that would overwrite a nested bucket.
    #[error("write batch: {what}")]
    BadChange { what: &'static str },
    /// A write or sync failed, in this commit or in an earlier one. The first such failure stays for good: what
    /// the device holds is unknown until the file is opened again.
    #[error("tree file {path}: {operation} failed in transaction {txid}: {message}")]
    Failed {
        path: PathBuf,
        operation: &'static str,
        txid: TxId,
        message: String,
    },
    /// Any other failure of the file system before something was written.
    #[error("tree file {path}: {operation}: {source}")]
    Io {
        path: PathBuf,
        operation: &'static str,
        #[source]
        source: io::Error,
    },
}

pub(crate) fn io_error(path: &Path, operation: &'static str, source: io::Error) -> TreeError {
    TreeError::Io {
        path: path.to_owned(),
        operation,
        source,
    }
}

pub(crate) fn damaged(path: &Path, page_bytes: u64, damage: PageDamage) -> TreeError {
    let offset = damage.page.0.saturating_mul(page_bytes);
    TreeError::Damaged {
        path: path.to_owned(),
        offset,
        damage,
    }
}
