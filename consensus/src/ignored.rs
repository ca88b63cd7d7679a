//! Why a peer's message was ignored, counted. Peers may be wrong, late or hostile; none of it stops
//! this member.
//!
//! Always true: a counted message changed no state beyond what its term alone is entitled to.

/// One reason; the discriminant is its slot in [`IgnoredCounts`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub enum Ignored {
    /// The sender is this member or member 0.
    FromSelf,
    /// The term is behind ours.
    OldTerm,
    /// The term is further ahead than `Config::term_jump_max`, or no real term gets there.
    TermTooFar,
    /// A vote was asked for while a leader is alive.
    LeaderAlive,
    /// An answer from a member that this leader does not replicate to.
    UnknownMember,
    /// An answer to a question we no longer ask: wrong role, other round, already known.
    Stale,
    /// A second leader's message in one term, or a leader's message to the leader of that term.
    NotTheLeader,
    /// Indexes that no correct member could send: acknowledging entries that do not exist,
    /// rejecting agreed ones.
    ImpossibleIndex,
    /// Entries that are not contiguous or whose terms run backwards or ahead of the message.
    MalformedEntries,
    /// An append that would overwrite what is committed here.
    ConflictsWithCommitted,
    /// A snapshot that is behind what is committed here, or does not name this member.
    OldSnapshot,
    /// A message only a leader can serve.
    NotLeader,
    /// A hand-over this member cannot follow: it does not vote or has a membership change to apply.
    CannotCampaign,
    /// A proposal from another member that was refused (full, handing over, not allowed).
    ProposalRefused,
    /// A read from another member that was refused because the queue is full.
    ReadRefused,
}

impl Ignored {
    pub const COUNT: usize = 15;

    pub const ALL: [Ignored; Ignored::COUNT] = [
        Ignored::FromSelf,
        Ignored::OldTerm,
        Ignored::TermTooFar,
        Ignored::LeaderAlive,
        Ignored::UnknownMember,
        Ignored::Stale,
        Ignored::NotTheLeader,
        Ignored::ImpossibleIndex,
        Ignored::MalformedEntries,
        Ignored::ConflictsWithCommitted,
        Ignored::OldSnapshot,
        Ignored::NotLeader,
        Ignored::CannotCampaign,
        Ignored::ProposalRefused,
        Ignored::ReadRefused,
    ];
}

/// How often each reason occurred since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct IgnoredCounts([u64; Ignored::COUNT]);

impl IgnoredCounts {
    pub fn get(&self, reason: Ignored) -> u64 {
        self.0[reason as usize]
    }

    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    pub(crate) fn count(&mut self, reason: Ignored) {
        self.0[reason as usize] += 1;
    }
}
