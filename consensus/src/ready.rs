//! What the driver must do next: `Ready`, and with it the order contract of the whole core.
//!
//! # The order contract
//!
//! Everything a member must remember goes to one ordered log. The part of a `Ready` that must reach
//! it (`install`, `hard_state`, `entries`, in this order) is one *write* with a number one above
//! the last. The driver
//!
//! 1. carries out writes in the order of their numbers; several may share one device write, none
//!    may overtake;
//! 2. calls [`crate::Raft::on_synced`] with number `n` once write `n` **and all before it** are
//!    durable, and must do so for every number in turn or for a later one that covers it. There is
//!    no deadline: ticks, messages and further calls of `ready` go on meanwhile, and every
//!    following `Ready` may carry further writes;
//! 3. sends a message of `messages` once `after` is durable; `WriteNumber::NONE` means now, before
//!    any write;
//! 4. applies `committed` in order, without gap, whenever it likes: these are durable here and on a
//!    quorum;
//! 5. answers a `read_states` entry once `index` is applied here.
//!
//! A crash may lose any write that was not reported durable, together with all that follow it, and
//! nothing else.
//!
//! Always true: no field asks for anything that was asked before. Filled by `Raft::ready` on the
//! log core into a buffer the driver keeps, so a steady state allocates nothing.

use crate::message::{Message, SnapshotMeta};
use crate::status::Role;
use crate::types::{Entry, HardState, LogIndex, LogPosition, MemberId, Term};

/// Numbers the writes handed out; the first is 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct WriteNumber(pub u64);

impl WriteNumber {
    /// No write: always durable.
    pub const NONE: WriteNumber = WriteNumber(0);
}

/// The outputs of the core since the last call. See the module's order contract.
#[derive(Debug, Default)]
pub struct Ready {
    /// The number of this `Ready`'s write; `NONE` when `install`, `hard_state` and `entries` are
    /// all empty.
    pub write: WriteNumber,
    /// First of the write: replace the state machine with this received snapshot and restart the
    /// log behind it. Durable means: the snapshot's data is, and after a crash the log starts at
    /// `last` and holds nothing from before. Entries still queued for apply may be applied before
    /// it or dropped. When `on_synced` reports this write, the state machine must stand at
    /// `last.index` or beyond.
    pub install: Option<SnapshotMeta>,
    /// Second of the write. Present whenever term or vote changed, and along with entries when the
    /// commit index moved: membership changes rely on an entry never being durable without the
    /// commit index it came with. A crash may keep it without the entries: it never covers what
    /// they replace.
    pub hard_state: Option<HardState>,
    /// Third of the write. Contiguous. When `entries[0].index` is not above the last entry written
    /// before, the log is truncated from there first (`truncates` says so): the old suffix must not
    /// come back after a crash. A crash may keep a part of the write: its fields in this order, of
    /// the entries the first.
    pub entries: Vec<Entry>,
    /// `entries` replaces a suffix of the log that was handed out earlier.
    pub truncates: bool,
    /// To send, each once its `after` is durable. Keep the order per receiver; drop freely when a
    /// link is down.
    pub messages: Vec<Outgoing>,
    /// To apply, in order. Already durable here and on a quorum; nothing further to wait for. A
    /// `ConfChange` entry is applied by [`crate::Raft::apply_conf_change`] before `on_applied`
    /// passes its index.
    pub committed: Vec<Entry>,
    /// Reads that may be answered once `index` is applied here.
    pub read_states: Vec<ReadState>,
    /// Contexts of reads that will not be answered (leader lost or unknown): fail or ask again.
    pub reads_failed: Vec<u64>,
    /// Old entries wanted from the log. Answer each with `on_entries_loaded`, in any order, at any
    /// time.
    pub loads: Vec<LoadRequest>,
    /// Followers that need the state machine itself. Answer each with `on_snapshot_sent`, at any
    /// time.
    pub snapshots: Vec<SnapshotRequest>,
    /// The log's entries through here are no longer wanted: their space may be reused, at any time.
    pub trim: Option<LogPosition>,
    /// Role, term or known leader changed.
    pub leadership: Option<Leadership>,
}

impl Ready {
    pub fn new() -> Ready {
        Ready::default()
    }

    /// Empties every field and keeps the buffers.
    pub fn clear(&mut self) {
        self.write = WriteNumber::NONE;
        self.install = None;
        self.hard_state = None;
        self.entries.clear();
        self.truncates = false;
        self.messages.clear();
        self.committed.clear();
        self.read_states.clear();
        self.reads_failed.clear();
        self.loads.clear();
        self.snapshots.clear();
        self.trim = None;
        self.leadership = None;
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.write == WriteNumber::NONE
            && self.messages.is_empty()
            && self.committed.is_empty()
            && self.read_states.is_empty()
            && self.reads_failed.is_empty()
            && self.loads.is_empty()
            && self.snapshots.is_empty()
            && self.trim.is_none()
            && self.leadership.is_none()
    }

    /// Whether there is a write that must be made durable.
    pub fn must_sync(&self) -> bool {
        self.write != WriteNumber::NONE
    }
}

/// A message and the write that must be durable before it leaves.
#[derive(Clone, PartialEq, Debug)]
pub struct Outgoing {
    pub to: MemberId,
    /// What the message claims rests on this write. `NONE`: send at once.
    pub after: WriteNumber,
    pub message: Message,
}

/// A read may be answered from any state that has applied `index`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReadState {
    pub context: u64,
    pub index: LogIndex,
}

/// Asks for entries `from ..= through`; a prefix of them (at least one) is a full answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LoadRequest {
    pub id: u64,
    pub from: LogIndex,
    pub through: LogIndex,
    /// Stop before the entry that would exceed this, unless it is the first.
    pub bytes_max: u64,
}

/// Asks the driver to send its state machine to `to`: a snapshot at any applied index that is at
/// least `at_least`, described by [`crate::Raft::snapshot_meta`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotRequest {
    pub to: MemberId,
    pub at_least: LogIndex,
}

/// Who leads, as far as this member knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leadership {
    pub role: Role,
    pub term: Term,
    pub leader: Option<MemberId>,
}
