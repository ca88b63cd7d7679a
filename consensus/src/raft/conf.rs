//! Membership changes in the running machine (paper section 6, thesis chapter 4).
//!
//! A change takes effect on a member when that member *applies* it, not when it appends it; nothing
//! must be rolled back when a log is truncated. This is safe because of four rules, each kept here
//! or where it says:
//!
//! 1. A leader proposes a change only when every change in its log is applied and it has committed
//!    an entry of its own term (`forward.rs`). So while change k is in the log unapplied anywhere,
//!    k-1 is committed.
//! 2. A follower that holds entry k knows, durably, that k-1 is committed: the commit index came
//!    with the append, and the write that holds the entry holds it too (`Ready::hard_state`).
//! 3. A member that knows of a committed change which it has not applied does not campaign
//!    (`election.rs`). So a candidate's membership is at most one change behind the newest entry in
//!    its log.
//! 4. A candidate that lacks entry k wins no quorum of membership k-1, which committed it;
//!    neighbouring memberships overlap (`membership/change.rs`), so no quorum of its own either.
//!
//! Hence any two elections, and any election and any commit, are decided in overlapping quorums.
//!
//! A member may need the vote of one that was removed: it holds the removal and does not know that
//! it is committed. If the removed one has the longer log, it refuses, and may not campaign itself.
//! So whoever refuses for its log also says what it knows to be committed (`election.rs`); that
//! makes the other one apply the removal, and it needs that vote no more.

use super::Raft;
use crate::membership::{ConfChange, Membership};
use crate::progress::Progress;
use crate::status::Role;
use crate::types::{EntryKind, LogIndex};

impl Raft {
    /// The conf-change entry at `index` is being applied. `change` is `None` when the driver
    /// refuses it, or could not decode it (then it changes nothing; every member must decide
    /// alike). Returns the membership as of there, which the driver keeps with its applied state.
    /// Entries behind a snapshot that was taken meanwhile change nothing.
    pub fn apply_conf_change(
        &mut self,
        index: LogIndex,
        change: Option<&ConfChange>,
    ) -> &Membership {
        if index <= self.membership_index {
            return &self.membership;
        }
        self.log.conf_change_applied(index);
        self.membership_index = index;
        // A change that does not fit the membership changes nothing, on every member alike.
        if let Some(Ok(next)) = change.map(|change| self.membership.after(change))
            && next != self.membership
        {
            self.membership = next;
            self.on_membership(index);
        }
        &self.membership
    }

    fn on_membership(&mut self, index: LogIndex) {
        if self.role != Role::Leader {
            // A campaign under the old membership would be counted by the new one.
            if matches!(self.role, Role::PreCandidate | Role::Candidate) {
                self.become_follower(self.term, None);
            }
            return;
        }
        let members = self.membership.members();
        self.progress
            .retain(|p| members.binary_search(&p.id).is_ok());
        let next = self.log.last_index().next();
        for id in members {
            let is_learner = self.membership.is_learner(id);
            match self.progress.iter_mut().find(|p| p.id == id) {
                Some(p) => p.is_learner = is_learner,
                None if id == self.config.id => {}
                None => self.progress.push(Progress::new(id, is_learner, next)),
            }
        }
        self.progress.sort_unstable_by_key(|p| p.id);
        // A promise of the old members' quorum says nothing about later ones'.
        self.reads.end_lease();
        self.check_transfer_after_change(index);
        // The quorum may have become smaller.
        self.maybe_commit();
        self.confirm_reads();
    }

    /// Ends a joint state that is to end by itself, when its beginning is applied.
    pub(super) fn maybe_leave_joint(&mut self) {
        let is_due = self.membership.auto_leave
            && !self.log.has_pending_conf_change()
            && self.has_committed_in_term();
        if is_due {
            self.append_own(EntryKind::ConfChange, ConfChange::leave_joint().encode());
        }
    }
}
