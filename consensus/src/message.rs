//! What members say to each other.
//!
//! Always true: a message is self-contained, and losing, doubling, delaying or reordering it harms
//! progress at most, never safety. The links turn these into frames and back; the core never sees
//! bytes of a frame.

use bytes::Bytes;

use crate::membership::Membership;
use crate::types::{Entry, EntryKind, LogIndex, LogPosition, Term};

#[derive(Clone, PartialEq, Debug)]
pub struct Message {
    /// The sender's term. For `PreVote` and a granted `PreVoteReply` the term the candidate would
    /// take.
    pub term: Term,
    pub body: Body,
}

#[derive(Clone, PartialEq, Debug)]
pub enum Body {
    /// "Would you vote for me?" Changes nothing at the receiver (thesis section 9.6).
    PreVote {
        last: LogPosition,
    },
    PreVoteReply {
        granted: bool,
    },
    /// RequestVote. `transfer`: the leader asked for this election, so its lease does not stand in
    /// the way.
    Vote {
        last: LogPosition,
        transfer: bool,
    },
    VoteReply {
        granted: bool,
    },
    /// Goes with the refusal of a vote for a log that is behind: the refusing member knows this entry
    /// to be committed, and the candidate may hold it without knowing (`raft/conf.rs`).
    Committed {
        at: LogPosition,
    },
    /// AppendEntries. `entries` follow `prev` without gap; empty tells the commit index or probes.
    Append {
        prev: LogPosition,
        commit: LogIndex,
        entries: Vec<Entry>,
    },
    /// The follower's log equals the leader's through `matched`, durably. `commit`: what it knows
    /// to be committed.
    AppendAck {
        matched: LogIndex,
        commit: LogIndex,
    },
    /// The follower has no such entry as `rejected`. `hint` is its last entry that may still agree:
    /// the last at or below `rejected` whose term is not above the one asked for.
    AppendReject {
        rejected: LogIndex,
        hint: LogPosition,
        last: LogIndex,
    },
    /// Keeps followers from campaigning. `round` confirms leadership to the reads that wait for it.
    Heartbeat {
        commit: LogIndex,
        round: u64,
    },
    HeartbeatAck {
        round: u64,
        commit: LogIndex,
    },
    /// Stepped into the receiver's core when all of the snapshot's data has arrived there.
    Snapshot {
        snapshot: SnapshotMeta,
    },
    /// "Campaign now": the last act of a leader that hands over.
    TimeoutNow,
    /// A member asks the leader where reads that arrived until now may start.
    ReadIndex {
        incarnation: u64,
        context: u64,
    },
    /// `index` is absent when the asked member does not lead.
    ReadIndexReply {
        incarnation: u64,
        context: u64,
        index: Option<LogIndex>,
    },
    /// Proposals made at a member that does not lead. `batch` numbers them at the sender's process,
    /// which `incarnation` names: so that a message that comes twice is taken once.
    Propose {
        incarnation: u64,
        batch: u64,
        proposals: Vec<Proposal>,
    },
    /// The batch was taken into the leader's log, or refused as a whole.
    ProposeReply {
        batch: u64,
        accepted: bool,
    },
}

impl Body {
    /// Whether only a leader or a candidate says this; such a sender may be unknown to a member
    /// whose membership is behind (paper section 6: servers take requests from members outside
    /// their own configuration).
    pub(crate) fn is_from_leader_or_candidate(&self) -> bool {
        matches!(
            self,
            Body::PreVote { .. }
                | Body::Vote { .. }
                | Body::Append { .. }
                | Body::Heartbeat { .. }
                | Body::Snapshot { .. }
                | Body::TimeoutNow
        )
    }
}

/// One proposal on its way to the leader.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Proposal {
    pub kind: EntryKind,
    pub payload: Bytes,
}

/// What a snapshot stands for: every entry through `last`, and the members as of there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotMeta {
    pub last: LogPosition,
    pub membership: Membership,
}
