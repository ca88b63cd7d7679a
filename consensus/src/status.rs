//! What the core tells about itself: roles, positions, followers. Read by status replies, metrics
//! and tests.

use crate::types::{LogIndex, MemberId, Term};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    Follower,
    /// Asking whether an election could be won.
    PreCandidate,
    Candidate,
    Leader,
}

/// A member's positions: `applied <= commit <= last_index`, and `durable <= last_index`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Status {
    pub id: MemberId,
    pub role: Role,
    pub term: Term,
    pub vote: Option<MemberId>,
    pub leader: Option<MemberId>,
    pub commit: LogIndex,
    pub applied: LogIndex,
    pub last_index: LogIndex,
    /// The entries through here are durable on this member.
    pub durable: LogIndex,
    /// The first entry that the log still holds.
    pub first_index: LogIndex,
    /// This member votes in the current membership.
    pub is_voter: bool,
    pub is_learner: bool,
    /// Where leadership is being handed to.
    pub transferee: Option<MemberId>,
    /// Bytes of entries kept in memory.
    pub cached_bytes: u64,
    /// Bytes of entries not yet committed.
    pub uncommitted_bytes: u64,
}

/// How a leader sends to one follower (thesis section 10.2.1: batching and pipelining).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProgressState {
    /// Looking for the last entry both agree on: one message at a time.
    Probe,
    /// Agreed: messages are pipelined up to the inflight limits.
    Replicate,
    /// The log no longer reaches back far enough; the state machine is being sent.
    Snapshot,
}

/// A leader's view of one member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FollowerStatus {
    pub id: MemberId,
    pub state: ProgressState,
    pub matched: LogIndex,
    pub next: LogIndex,
    /// Heard from since the last quorum check.
    pub is_active: bool,
    pub is_learner: bool,
}
