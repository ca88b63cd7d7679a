//! What can go wrong with the log, one enum per thing a caller does.
//!
//! What is always true here
//! - Each message says what failed, where, and what to do.
//! - Damage names segment and offset. Nothing here is returned for a merely torn tail, which
//!   recovery cuts off and reports.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::types::{LogIndex, SegmentSequence};

/// What to do about a damaged log; part of every such message.
pub const REMEDY: &str = "restore this member from a backup";

/// Bounds that do not fit each other.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum OptionsError {
    /// Segments are written in whole blocks.
    #[error("wal segment size {segment_bytes} is not a multiple of 4096; choose one that is")]
    SegmentNotInBlocks { segment_bytes: u64 },
    /// Groups are written in whole blocks.
    #[error("wal group size {group_bytes} is not a positive multiple of 4096; choose one that is")]
    GroupNotInBlocks { group_bytes: usize },
    /// The largest entry would never fit.
    #[error(
        "wal segment size {segment_bytes} cannot hold the largest entry; use at least {wanted}"
    )]
    SegmentTooSmall { segment_bytes: u64, wanted: u64 },
    /// The largest entry could never be accepted.
    #[error(
        "wal backlog of {pending_bytes_max} bytes cannot hold one entry; use at least {wanted}"
    )]
    PendingTooSmall {
        pending_bytes_max: usize,
        wanted: usize,
    },
}

/// Why a log was not opened or created.
#[derive(Debug, Error)]
pub enum OpenError {
    /// See [`OptionsError`].
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// The folder holds no log.
    #[error("{path}: no write-ahead log here; {REMEDY}, or check the wal-dir setting")]
    Missing { path: PathBuf },
    /// `create` found a log.
    #[error(
        "{path}: already holds a write-ahead log ({name}); use an empty folder or keep this one"
    )]
    AlreadyExists { path: PathBuf, name: String },
    /// Another process has it.
    #[error(
        "{path}: another process is using this log; stop it, or give this member a folder of its own"
    )]
    Locked { path: PathBuf },
    /// Something of another program lies in the folder.
    #[error("{path}/{name}: {what}; move it elsewhere, or point wal-dir at a folder of its own")]
    Foreign {
        path: PathBuf,
        name: String,
        what: &'static str,
    },
    /// A segment between two others is gone.
    #[error("{path}: wal segment {segment} is missing between its neighbours; {REMEDY}")]
    Gap {
        path: PathBuf,
        segment: SegmentSequence,
    },
    /// Bytes that were acknowledged are not what was written.
    #[error("{path}: wal segment {segment}: at byte {offset} {what}; {REMEDY}")]
    Damaged {
        path: PathBuf,
        segment: SegmentSequence,
        offset: u64,
        what: String,
    },
    /// The log is whole but ends before what others know to be acknowledged.
    #[error(
        "{path}: wal segment {segment}: the log ends at byte {offset} with index {last}, but index \
         {wanted} was acknowledged ({source_of_truth}); {REMEDY}"
    )]
    EndsTooEarly {
        path: PathBuf,
        segment: SegmentSequence,
        offset: u64,
        last: LogIndex,
        wanted: LogIndex,
        source_of_truth: &'static str,
    },
    /// The file was written by a version we do not know.
    #[error(
        "{path}: wal segment {segment}: format version {version} is not known to this program; use the version that wrote it"
    )]
    Version {
        path: PathBuf,
        segment: SegmentSequence,
        version: u32,
    },
    /// Metadata too large.
    #[error("wal metadata of {bytes} bytes exceeds 4096; shorten it")]
    MetadataTooLarge { bytes: usize },
    /// Mark too large.
    #[error("wal snapshot mark of {bytes} bytes exceeds 65536; shorten its data")]
    MarkTooLarge { bytes: usize },
    /// The disk said no.
    #[error("{path}: cannot {doing}: {source}; {remedy}")]
    Io {
        path: PathBuf,
        doing: String,
        source: io::Error,
        remedy: &'static str,
    },
}

/// Why a record was not accepted. Nothing changed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum AppendError {
    /// The backlog is at its bound; try again after the next [`super::Synced`].
    #[error("wal backlog holds {pending_bytes} bytes, its limit; the disk is not keeping up")]
    Full { pending_bytes: usize },
    /// Larger than a segment may hold.
    #[error("wal record of {bytes} bytes exceeds the limit of {bytes_max}")]
    TooLarge { bytes: usize, bytes_max: usize },
    /// A write failed earlier; the log accepts nothing more.
    #[error("wal is stopped after a failed write; restart this member")]
    Stopped,
}

/// Why the log stopped. The first one is kept and returned ever after.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum LogError {
    /// A group write failed or was short. Whether its bytes are on disk is unknown.
    #[error(
        "{path}: wal segment {segment}: write of {bytes} bytes at byte {offset} failed: {cause}; \
         the log has stopped and will not retry; check the disk, then restart this member"
    )]
    Write {
        path: PathBuf,
        segment: SegmentSequence,
        offset: u64,
        bytes: usize,
        cause: String,
    },
    /// The next segment could not be made and the current one is full; a full disk stops the log
    /// only when it is being closed.
    #[error("{path}: wal segment {segment} could not be prepared: {cause}; {remedy}")]
    Prepare {
        path: PathBuf,
        segment: SegmentSequence,
        cause: String,
        remedy: &'static str,
    },
    /// A segment no longer needed could not be given back.
    #[error("{path}: wal segment {segment} could not be released: {cause}; {remedy}")]
    Release {
        path: PathBuf,
        segment: SegmentSequence,
        cause: String,
        remedy: &'static str,
    },
    /// The ring itself failed.
    #[error("{path}: the log's ring failed: {cause}; restart this member")]
    Queue { path: PathBuf, cause: String },
}

/// The remedy for a disk's refusal.
pub(super) fn remedy_for(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "create the folder, or check the wal-dir setting",
        io::ErrorKind::PermissionDenied => {
            "give the user this member runs as read and write permission"
        }
        io::ErrorKind::ReadOnlyFilesystem => "mount the file system read-write",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "free space on this file system"
        }
        io::ErrorKind::NotADirectory => "point wal-dir at a folder",
        io::ErrorKind::OutOfMemory => "a limit of this process is too low, see above",
        _ => "check the disk and the kernel log",
    }
}
