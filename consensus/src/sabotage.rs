//! What the core can be told to do wrong, to show that the simulator would see it.
//!
//! Always true: this file and every place that looks at it exist only in the copy of the core under
//! `consensus/sabotage`, which the simulator alone uses; the package `consensus` does not declare
//! the feature, so nothing that is built into the server can have it.

/// One fault, each a mistake that an implementation of Raft has made or could make.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Sabotage {
    /// A vote leaves before it is durable.
    VoteNotDurable,
    /// A follower acknowledges entries before they are durable.
    AckNotDurable,
    /// A leader counts itself before its own write is durable.
    LeaderCountsUnsynced,
    /// An entry of an earlier term is committed by counting (figure 8).
    CommitOlderTerm,
    /// A member votes again in a term it has voted in.
    VoteTwice,
    /// A vote goes to a candidate whose log is behind.
    VoteForAnyLog,
    /// A follower takes entries without looking at what they follow.
    AppendUnchecked,
    /// A follower drops whatever lies behind an append, also when that is an old one.
    TruncateBelowCommit,
    /// A heartbeat tells a commit index beyond what the follower is known to have.
    CommitUnmatched,
    /// A late write of entries that were replaced counts for those that replaced them.
    OverwrittenWriteCounts,
    /// A forwarded proposal that arrives twice is taken twice.
    ProposalTwice,
    /// A snapshot older than the log is installed.
    OldSnapshotTaken,
    /// A read index is given without asking a quorum.
    ReadWithoutQuorum,
    /// A read index is given before the term's first entry is committed.
    ReadBeforeFirstCommit,
    /// A read is confirmed by a round that began before it arrived.
    ReadJoinsRound,
    /// Followers vote although they promised the leader its lease.
    LeaseUnpromised,
    /// Followers forget their promise together with the leader: a stray message of a later term is
    /// enough, or a restart.
    LeaseForgotten,
    /// A leader that stood still goes on by its lease when it wakes.
    LeaseOutlivesPause,
    /// A leader that asked another to campaign goes on by its lease.
    LeaseOutlivesHandOver,
    /// In a joint membership the incoming majority commits alone.
    JointByOneMajority,
    /// A learner counts towards what is committed.
    LearnerCounts,
    /// A change is proposed before the one before it is applied.
    ChangeBeforeApplied,
    /// Entries are written without the commit index that came with them.
    CommitIndexNotWritten,
    /// A member campaigns with a committed change that it has not applied.
    CampaignBeforeApplied,
    /// Whoever was removed votes by what it knows to be committed, not by its whole log.
    RemovedVotesByCommit,
    /// A leader whose disk stands still leads on.
    StalledLeaderStays,
    /// Pre-votes are granted although a leader is heard.
    PreVoteAlways,
}

impl Sabotage {
    pub const ALL: [Sabotage; 27] = [
        Sabotage::VoteNotDurable,
        Sabotage::AckNotDurable,
        Sabotage::LeaderCountsUnsynced,
        Sabotage::CommitOlderTerm,
        Sabotage::VoteTwice,
        Sabotage::VoteForAnyLog,
        Sabotage::AppendUnchecked,
        Sabotage::TruncateBelowCommit,
        Sabotage::CommitUnmatched,
        Sabotage::OverwrittenWriteCounts,
        Sabotage::ProposalTwice,
        Sabotage::OldSnapshotTaken,
        Sabotage::ReadWithoutQuorum,
        Sabotage::ReadBeforeFirstCommit,
        Sabotage::ReadJoinsRound,
        Sabotage::LeaseUnpromised,
        Sabotage::LeaseForgotten,
        Sabotage::LeaseOutlivesPause,
        Sabotage::LeaseOutlivesHandOver,
        Sabotage::JointByOneMajority,
        Sabotage::LearnerCounts,
        Sabotage::ChangeBeforeApplied,
        Sabotage::CommitIndexNotWritten,
        Sabotage::CampaignBeforeApplied,
        Sabotage::RemovedVotesByCommit,
        Sabotage::StalledLeaderStays,
        Sabotage::PreVoteAlways,
    ];
}
