//! The words of the log: identities, records as callers see them, options, results.
//!
//! What is always true here
//! - Plain data; nothing in this file touches a disk, a clock or another type's insides.
//! - An index of 0 means "none"; the first entry is 1.
//!
//! Used by every file of the log and by its callers. Does not define how anything is encoded.

use std::fmt;

use bytes::Bytes;

use super::error::OptionsError;
use super::format::{GROUP_HEADER_BYTES, RECORD_HEADER_BYTES};
use crate::device::BLOCK_BYTES;

/// A Raft term.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term(pub u64);

/// A position in the log; the first entry is 1, and 0 means none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogIndex(pub u64);

/// The member voted for in a term; 0 means none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vote(pub u64);

/// Counts segments from 1 and is never used twice in the life of a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentSequence(pub u64);

/// Counts records appended since the log was opened; returned by each append, named again when they
/// are durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

impl LogIndex {
    /// The index after this one.
    pub fn next(self) -> LogIndex {
        LogIndex(self.0 + 1)
    }
}

impl SegmentSequence {
    /// The sequence after this one.
    pub fn next(self) -> SegmentSequence {
        SegmentSequence(self.0 + 1)
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for LogIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for SegmentSequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What Raft must remember before it answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// Latest term seen.
    pub term: Term,
    /// Who got our vote in it.
    pub vote: Vote,
    /// Highest index known committed. Never above the last appended entry.
    pub commit: LogIndex,
}

/// What a snapshot mark does to the log before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MarkKind {
    /// State up to the mark is safe elsewhere; entries after it stay valid.
    Compaction,
    /// State was received from another member; the log restarts right after the mark and every
    /// entry before it in the file is void.
    Install,
}

/// Says that state up to an index is durable outside the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotMark {
    /// Last index the state covers.
    pub index: LogIndex,
    /// Term of that entry.
    pub term: Term,
    /// Whether entries after it survive.
    pub kind: MarkKind,
    /// Opaque to the log (the members at that index); at most [`MARK_BYTES_MAX`].
    pub data: Bytes,
}

/// One log entry. The payload starts 16-byte aligned in memory and in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Term it was proposed in.
    pub term: Term,
    /// Its place in the log.
    pub index: LogIndex,
    /// Opaque to the log.
    pub kind: u8,
    /// Opaque to the log.
    pub payload: Bytes,
}

/// Largest metadata record.
pub const METADATA_BYTES_MAX: usize = 4096;

/// Largest data of a snapshot mark.
pub const MARK_BYTES_MAX: usize = 64 * 1024;

/// Who prepares and releases segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Helper {
    /// A thread of the log's own, named `wal-segments`.
    Thread,
    /// The caller, in [`super::Log::run_chores`]; for simulation, where threads do not exist.
    Caller,
}

/// How a log is laid out and bounded.
#[derive(Clone, Debug)]
pub struct Options {
    /// Size of a segment file; 64 MiB. A log keeps the size it was created with for each segment
    /// that exists; spare files of another size are removed.
    pub segment_bytes: u64,
    /// Size of one group buffer; 256 KiB. A fuller group becomes two; a larger entry gets a group
    /// of its own in a buffer of its own.
    pub group_bytes: usize,
    /// Registered group buffers; 4. When all are taken, further groups use unregistered memory.
    pub buffers: u16,
    /// Largest entry payload; 16 MiB. A larger one is refused with `AppendError::TooLarge`.
    pub entry_bytes_max: usize,
    /// Bytes appended and not yet given to the disk, at most; 64 MiB. Beyond it appends are refused
    /// with `AppendError::Full`, and the caller pushes back.
    pub pending_bytes_max: usize,
    /// Released segments kept for reuse; 2. Further ones are removed.
    pub spares_max: usize,
    /// Who prepares and releases segments.
    pub helper: Helper,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            segment_bytes: 64 << 20,
            group_bytes: 256 << 10,
            buffers: 4,
            entry_bytes_max: 16 << 20,
            pending_bytes_max: 64 << 20,
            spares_max: 2,
            helper: Helper::Thread,
        }
    }
}

impl Options {
    /// Checks that the bounds fit each other.
    pub fn check(&self) -> Result<(), OptionsError> {
        let block = BLOCK_BYTES as u64;
        if !self.segment_bytes.is_multiple_of(block) {
            return Err(OptionsError::SegmentNotInBlocks {
                segment_bytes: self.segment_bytes,
            });
        }
        if self.group_bytes < BLOCK_BYTES || !self.group_bytes.is_multiple_of(BLOCK_BYTES) {
            return Err(OptionsError::GroupNotInBlocks {
                group_bytes: self.group_bytes,
            });
        }
        // A fresh segment holds its header, its first group and the largest other group.
        let alone = |payload: usize| {
            (GROUP_HEADER_BYTES + RECORD_HEADER_BYTES + payload + 16).next_multiple_of(BLOCK_BYTES)
        };
        let largest = self
            .group_bytes
            .max(alone(self.entry_bytes_max))
            .max(alone(MARK_BYTES_MAX));
        let first = alone(METADATA_BYTES_MAX + MARK_BYTES_MAX + 4 * RECORD_HEADER_BYTES);
        let wanted = block + (first + largest) as u64;
        if self.segment_bytes < wanted {
            return Err(OptionsError::SegmentTooSmall {
                segment_bytes: self.segment_bytes,
                wanted,
            });
        }
        if self.pending_bytes_max < largest {
            return Err(OptionsError::PendingTooSmall {
                pending_bytes_max: self.pending_bytes_max,
                wanted: largest,
            });
        }
        Ok(())
    }
}

/// What others know about the log, to catch an end that comes too early.
#[derive(Clone, Copy, Debug, Default)]
pub struct Evidence {
    /// The highest index known to have been acknowledged, as the tree's consistent index says.
    /// A log that ends before it has lost acknowledged entries and is refused.
    pub applied_index_min: LogIndex,
    /// Entries below this are checked but not handed back. 0 and 1 hand back everything.
    pub entries_from: LogIndex,
}

/// What [`super::open`] found.
#[derive(Debug)]
pub struct Recovered {
    /// As given to [`super::create`].
    pub metadata: Bytes,
    /// The newest hard state; zeros if none was ever written.
    pub hard_state: HardState,
    /// The newest snapshot mark, if any.
    pub mark: Option<SnapshotMark>,
    /// Every retained entry from [`Evidence::entries_from`] on, each index once, without gaps.
    pub entries: Vec<Entry>,
    /// Last index of the log: the last entry, or the mark if nothing follows it.
    pub last_index: LogIndex,
    /// Term of `last_index`, 0 for an empty log.
    pub last_term: Term,
    /// For the start-up message.
    pub report: OpenReport,
}

/// What opening did and how the log will write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// Segments that hold groups.
    pub segments: usize,
    /// Groups read.
    pub groups: u64,
    /// Segment in which the log goes on, and where.
    pub tail: (SegmentSequence, u64),
    /// What was cut off, if the last write was torn.
    pub torn: Option<TornTail>,
    /// Whether the log was closed in good order.
    pub was_closed: bool,
    /// Whether groups bypass the page cache.
    pub is_direct: bool,
    /// Which driver writes groups.
    pub driver: &'static str,
    /// Sentences an operator should see: what fell back and why.
    pub notes: Vec<String>,
}

/// A write that had not been acknowledged when the member stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// Segment it was cut from.
    pub segment: SegmentSequence,
    /// First byte of it.
    pub offset: u64,
    /// How much of it had reached the disk, as far as can be seen.
    pub bytes: u64,
}

/// Everything up to here is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synced {
    /// Every record up to this one, as numbered by the appends.
    pub position: Position,
    /// Last index of the log as of that record, with its term (an index alone is ambiguous while
    /// suffixes are being replaced).
    pub through_index: LogIndex,
    /// Term of that entry.
    pub through_term: Term,
    /// Hard state as of that record.
    pub hard_state: HardState,
    /// Bytes the disk wrote for it, padding included.
    pub bytes: u64,
    /// From submission to completion, by the clock the caller passed in.
    pub latency_ns: u64,
}
