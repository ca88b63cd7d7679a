//! Raft as a pure state machine, complete for many members and cheap for one.
//!
//! Inputs go in (`tick`, `step`, `propose`, `read_index`, results of the disk), a [`Ready`] comes
//! out: what to write, send, apply and answer. The disk is one more peer that answers when it is
//! done: entries go to followers and to the disk in parallel, and the leader counts itself only
//! once its own write is durable. Old entries are asked for and arrive as an input. The driver is
//! correct if it obeys the order contract in [`ready`].
//!
//! *Invariants:* nothing here reads a clock, a file, a socket or a global random source; the same
//! inputs give the same outputs; a peer's message never panics; a call of the driver that breaks
//! the contract always does.
//!
//! Called by the driver of the log core, which owns the only [`Raft`]. Does not know what an entry
//! means.
//!
//! ```
//! use consensus::*;
//! let me = MemberId(1);
//! let mut raft = Raft::new(Config::new(me, 42), Restored::founding(Membership::new([me], [])));
//! let mut ready = Ready::new();
//! // The only voter campaigns at once; its vote counts when it is durable.
//! raft.ready(&mut ready);
//! raft.on_synced(ready.write);
//! assert_eq!(raft.status().role, Role::Leader);
//! // Entry 1 is the founding, 2 the leader's own at the start of its term, 3 ours; one write.
//! assert_eq!(raft.propose("put".into()), Ok(LogIndex(3)));
//! raft.ready(&mut ready);
//! assert_eq!(ready.entries.len(), 2);
//! raft.on_synced(ready.write);
//! raft.ready(&mut ready);
//! assert_eq!(ready.committed.len(), 2);
//! raft.on_applied(LogIndex(3));
//! ```

#![forbid(unsafe_code)]

// The vocabulary.
mod config;
mod error;
mod ignored;
pub mod message;
pub mod ready;
mod status;
mod types;

// Pure parts that need no instance.
pub mod membership;
pub mod quorum;
mod random;

/// Whether the core was told to do `$which` wrong: never, but in the copy that the simulator breaks
/// on purpose (`sabotage.rs`).
#[cfg(not(feature = "sabotage"))]
macro_rules! is_sabotaged {
    ($config:expr, $which:ident) => {
        crate::never()
    };
}
/// A function, so that a condition with it reads like any other; nothing is left of it.
#[cfg(not(feature = "sabotage"))]
#[inline(always)]
const fn never() -> bool {
    false
}
#[cfg(feature = "sabotage")]
macro_rules! is_sabotaged {
    ($config:expr, $which:ident) => {
        $config.sabotage == Some(crate::sabotage::Sabotage::$which)
    };
}
#[cfg(feature = "sabotage")]
mod sabotage;

// The machine.
mod log;
mod progress;
mod raft;

pub use config::Config;
pub use error::{ConfChangeError, DecodeError, ProposeError, ReadError, TransferError};
pub use ignored::{Ignored, IgnoredCounts};
pub use membership::{ConfChange, ConfStep, Membership, Transition};
pub use message::{Body, Message, Proposal, SnapshotMeta};
pub use raft::{Raft, Restored};
pub use ready::{
    Leadership, LoadRequest, Outgoing, ReadState, Ready, SnapshotRequest, WriteNumber,
};
#[cfg(feature = "sabotage")]
pub use sabotage::Sabotage;
pub use status::{FollowerStatus, ProgressState, Role, Status};
pub use types::{
    ENTRY_OVERHEAD_BYTES, Entry, EntryKind, HardState, LogIndex, LogPosition, MemberId, Term,
};
