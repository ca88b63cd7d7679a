//! Who belongs to the cluster, and how that may change (paper section 6, thesis chapter 4).
//!
//! Pure values: no Raft instance is needed to compute the next membership. Changes take effect when
//! they are *applied*, not when they are appended; why that is safe stands in `raft/conf.rs`.
//!
//! Always true of a `Membership` made here: the lists are sorted and free of repeats; nobody is
//! both learner and voter of the incoming half; whoever is in `learners_next` is a voter of the
//! outgoing half only.

mod change;
mod codec;

pub use change::{ConfChange, ConfStep, Transition};

use crate::types::MemberId;

/// The members of the cluster. In a joint state (`voters_outgoing` not empty) every decision needs
/// a majority of both halves.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Membership {
    /// The voters; in a joint state those of the incoming half.
    pub voters: Vec<MemberId>,
    /// The voters of the outgoing half; empty outside a joint state.
    pub voters_outgoing: Vec<MemberId>,
    /// Receive the log and do not vote.
    pub learners: Vec<MemberId>,
    /// Outgoing voters that become learners when the joint state ends.
    pub learners_next: Vec<MemberId>,
    /// The leader ends the joint state by itself.
    pub auto_leave: bool,
}

impl Membership {
    /// A plain membership; lists in any order.
    pub fn new(
        voters: impl IntoIterator<Item = MemberId>,
        learners: impl IntoIterator<Item = MemberId>,
    ) -> Membership {
        let mut membership = Membership {
            voters: voters.into_iter().collect(),
            learners: learners.into_iter().collect(),
            ..Membership::default()
        };
        membership.voters.sort_unstable();
        membership.voters.dedup();
        membership.learners.sort_unstable();
        membership.learners.dedup();
        membership
            .learners
            .retain(|id| membership.voters.binary_search(id).is_err());
        membership
    }

    pub fn is_joint(&self) -> bool {
        !self.voters_outgoing.is_empty()
    }

    /// Votes in either half.
    pub fn is_voter(&self, id: MemberId) -> bool {
        self.voters.binary_search(&id).is_ok() || self.voters_outgoing.binary_search(&id).is_ok()
    }

    /// Receives the log without a vote.
    pub fn is_learner(&self, id: MemberId) -> bool {
        self.learners.binary_search(&id).is_ok()
    }

    pub fn contains(&self, id: MemberId) -> bool {
        self.is_voter(id) || self.is_learner(id)
    }

    /// `id` decides everything alone.
    pub fn is_sole_voter(&self, id: MemberId) -> bool {
        self.voters == [id] && (self.voters_outgoing.is_empty() || self.voters_outgoing == [id])
    }

    /// Everyone who receives the log, each once, in order of their ids.
    pub fn members(&self) -> Vec<MemberId> {
        let mut all = Vec::with_capacity(
            self.voters.len() + self.voters_outgoing.len() + self.learners.len(),
        );
        all.extend_from_slice(&self.voters);
        all.extend_from_slice(&self.voters_outgoing);
        all.extend_from_slice(&self.learners);
        all.sort_unstable();
        all.dedup();
        all
    }
}
