//! Handing over leadership: on request, because this leader was removed, or because its disk stands
//! still (thesis section 3.10).
//!
//! Always true: while a hand-over is under way no proposal is taken, so the target can catch up; it
//! is given up after an election timeout. The target campaigns like any candidate: a hand-over can
//! fail, it cannot harm.

use super::Raft;
use crate::error::TransferError;
use crate::ignored::Ignored;
use crate::message::Body;
use crate::ready::WriteNumber;
use crate::status::Role;
use crate::types::{LogIndex, MemberId};

#[derive(Clone, Copy, Debug)]
pub(super) struct Transfer {
    pub(super) to: MemberId,
    elapsed: u32,
    /// The target was told to campaign.
    is_told: bool,
}

impl Raft {
    /// Hands leadership to `to` once its log has caught up; given up after an election timeout.
    pub fn transfer_leadership(&mut self, to: MemberId) -> Result<(), TransferError> {
        if self.role != Role::Leader {
            return Err(TransferError::NotLeader {
                leader: self.leader,
            });
        }
        if to == self.config.id {
            return Err(TransferError::AlreadyLeader);
        }
        if !self.membership.is_voter(to) {
            return Err(TransferError::NotVoter);
        }
        self.begin_transfer(to);
        Ok(())
    }

    fn begin_transfer(&mut self, to: MemberId) {
        assert!(self.role == Role::Leader && to != self.config.id);
        if self.transfer.is_none_or(|transfer| transfer.to != to) {
            self.transfer = Some(Transfer {
                to,
                elapsed: 0,
                is_told: false,
            });
        }
        self.continue_transfer(to);
    }

    /// `from` said where it is: if it is the target and has everything, it may campaign. Once
    /// removed, this leader begins here to hand over.
    pub(super) fn continue_transfer(&mut self, from: MemberId) {
        if self.transfer.is_none() && self.leaving.is_some() {
            return self.begin_leaving();
        }
        let Some(transfer) = self.transfer.filter(|t| t.to == from && !t.is_told) else {
            return;
        };
        let Some(p) = self.progress.iter().find(|p| p.id == transfer.to) else {
            return;
        };
        let knows_removal = self
            .leaving
            .is_none_or(|removed_at| p.commit_known >= removed_at);
        if p.matched == self.log.last_index() && knows_removal {
            self.transfer = Some(Transfer {
                is_told: true,
                ..transfer
            });
            // From now on followers may vote for the target although they hear from us: no read may
            // rest on their promise for the rest of this term, even if the hand-over fails, for the
            // message may arrive late.
            if !is_sabotaged!(self.config, LeaseOutlivesHandOver) {
                self.reads.void_lease();
            }
            self.send(transfer.to, WriteNumber::NONE, Body::TimeoutNow);
        }
    }

    pub(super) fn tick_transfer(&mut self) {
        if let Some(transfer) = &mut self.transfer {
            transfer.elapsed += 1;
            if transfer.elapsed >= self.config.election_ticks {
                self.transfer = None;
            }
        }
        if self.transfer.is_none() && self.leaving.is_some() {
            self.begin_leaving();
        }
    }

    /// This leader is no longer a voter as of `removed_at`, which is committed. The others may not
    /// know that yet: if it fell silent now, two members that became one could not even elect the
    /// one left, which still counts on our vote. So it leads on, without counting itself, until a
    /// voter knows of the removal, and hands over to that one.
    fn begin_leaving(&mut self) {
        let removed_at = self.leaving.expect("called while leaving");
        let fit = self.best_voter(|p| p.commit_known >= removed_at);
        if let Some(to) = fit {
            self.begin_transfer(to);
        }
    }

    /// The active voter with the longest log among those that `fits`.
    fn best_voter(&self, fits: impl Fn(&crate::progress::Progress) -> bool) -> Option<MemberId> {
        let voters = self
            .progress
            .iter()
            .filter(|p| p.is_active && self.membership.is_voter(p.id) && fits(p));
        voters
            .max_by_key(|p| (p.matched, std::cmp::Reverse(p.id)))
            .map(|p| p.id)
    }

    /// A leader whose disk stands still can neither count itself nor apply: hand over, then step
    /// down.
    pub(super) fn tick_disk_stall(&mut self) {
        let is_blind = is_sabotaged!(self.config, StalledLeaderStays);
        if self.membership.is_sole_voter(self.config.id) || !self.is_disk_stalled() || is_blind {
            return;
        }
        let age = self.writes.oldest_age(self.now);
        if age >= 2 * self.disk_stall_ticks() {
            self.stalls += 1;
            self.become_follower(self.term, None);
        } else if self.transfer.is_none()
            && let Some(to) = self.best_voter(|_| true)
        {
            self.begin_transfer(to);
        }
    }

    pub(super) fn is_disk_stalled(&self) -> bool {
        !self.membership.is_sole_voter(self.config.id)
            && self.writes.oldest_age(self.now) >= self.disk_stall_ticks()
    }

    fn disk_stall_ticks(&self) -> u64 {
        let half = (self.config.election_ticks / 2).max(1);
        u64::from(self.config.disk_stall_ticks.min(half))
    }

    /// How often this member stopped leading because its disk did not answer.
    pub fn disk_stalls(&self) -> u64 {
        self.stalls
    }

    pub(super) fn on_timeout_now(&mut self, from: MemberId) {
        if self.role != Role::Follower || self.leader != Some(from) {
            return self.ignored.count(Ignored::NotTheLeader);
        }
        if !self.can_campaign() {
            return self.ignored.count(Ignored::CannotCampaign);
        }
        // No pre-vote: the leader itself asked for this.
        self.become_candidate(true);
    }

    /// A membership change took effect at `index`: the target may be gone, and so may we.
    pub(super) fn check_transfer_after_change(&mut self, index: LogIndex) {
        if self
            .transfer
            .is_some_and(|transfer| !self.membership.is_voter(transfer.to))
        {
            self.transfer = None;
        }
        if self.membership.is_voter(self.config.id) {
            self.leaving = None;
        } else if self.leaving.is_none() {
            self.leaving = Some(index);
        }
    }
}
