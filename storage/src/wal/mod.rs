//! Write-ahead log: groups of checksummed records in recycled segments, one durable write a group.
//!
//! What is always true here
//! - Nothing is called durable before the disk said so; nothing acknowledged is written again.
//! - What was acknowledged is read back whole and in order, or opening fails and says where.
//! - An entry's payload lies 16-byte aligned in the file and in memory and is read in place.
//!
//! ```text
//! create ──> read ──> open ──> Recovered   once, at start
//!                       └────> Log: append… ─> submit ─> event_fd ─> poll ─> Synced      on the log core
//! ```
//!
//! In reading order: [`types`], [`format`], [`group`], [`writer`] (the state machine), [`log`] (its
//! driver), [`segments`] (files made ready and given back), [`scan`], [`reading`] and [`recover`]
//! (opening), [`error`]. The format and its crash cases: `docs/format-log.md`.
//!
//! Deliberately absent: Raft's rules, what an entry means, the network, clocks.

pub mod error;
pub mod format;
pub mod group;
pub mod log;
mod reading;
mod recover;
mod scan;
mod segments;
pub mod types;
pub mod writer;

pub use error::{AppendError, LogError, OpenError, OptionsError};
pub use log::{Log, LogStats};
pub use recover::{ReadLog, create, create_behind, create_folder, exists, open, open_folder, read};
pub use segments::is_name_of_log;
pub use types::{
    Entry, Evidence, HardState, Helper, LogIndex, MarkKind, OpenReport, Options, Position,
    Recovered, SegmentSequence, SnapshotMark, Synced, Term, TornTail, Vote,
};
pub use writer::{Writer, WriterStats};
