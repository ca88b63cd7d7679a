//! Elections: terms, votes, pre-votes, and becoming what one was elected to (paper section 5.2,
//! 5.4.1; thesis 9.6).
//!
//! Invariants
//! - A vote leaves this member, and a candidate asks for votes, only after the write that holds
//!   term and vote. That write comes after all entries handed out before it, so the log that a vote
//!   speaks for is durable as well.
//! - A candidate's own vote counts from that moment on, not earlier.
//! - A term has one leader: it won a quorum, and every member votes once a term.

use super::Raft;
use crate::ignored::Ignored;
use crate::message::{Body, Message};
use crate::progress::Progress;
use crate::quorum::{self, VoteOutcome};
use crate::ready::WriteNumber;
use crate::status::Role;
use crate::types::{EntryKind, LogPosition, MemberId, Term};

impl Raft {
    /// Campaigns now. Does nothing on a leader or a member that may not campaign.
    pub fn campaign(&mut self) {
        if self.role != Role::Leader && self.can_campaign() && !self.is_bound_by_lease() {
            self.start_campaign();
        }
    }

    /// Nobody else could answer, so there is nothing to wait for.
    pub(super) fn campaign_if_alone(&mut self) {
        if self.config.campaign_when_alone
            && self.role == Role::Follower
            && self.leader.is_none()
            && self.membership.is_sole_voter(self.config.id)
        {
            self.campaign();
        }
    }

    /// A campaign of a member that does not know the members, or is not one of them, would only
    /// disturb; one whose disk stands still could not win; a committed membership change must take
    /// effect first (see `conf.rs`).
    pub(super) fn can_campaign(&self) -> bool {
        self.membership.is_voter(self.config.id)
            && !self.is_installing()
            && (!self.log.has_committed_conf_change()
                || is_sabotaged!(self.config, CampaignBeforeApplied))
            && !self.is_disk_stalled()
    }

    /// Time ran out without a leader's word.
    pub(super) fn on_election_timeout(&mut self) {
        self.restart_election_timer();
        if self.can_campaign() && !self.is_bound_by_lease() {
            self.start_campaign();
        } else if self.role != Role::Follower || self.leader.is_some() {
            self.become_follower(self.term, None);
        }
    }

    fn start_campaign(&mut self) {
        if self.config.pre_vote {
            self.become_pre_candidate();
        } else {
            self.become_candidate(false);
        }
    }

    fn become_pre_candidate(&mut self) {
        assert!(self.role != Role::Leader, "a leader does not campaign");
        self.set_leader(None);
        self.role = Role::PreCandidate;
        self.restart_election_timer();
        self.votes.clear();
        self.votes.push((self.config.id, true));
        let body = Body::PreVote {
            last: self.log.last(),
        };
        self.ask_voters(self.term.next(), WriteNumber::NONE, body);
        self.count_votes();
    }

    pub(super) fn become_candidate(&mut self, transfer: bool) {
        assert!(self.role != Role::Leader, "a leader does not campaign");
        self.set_leader(None);
        self.role = Role::Candidate;
        self.term = self.term.next();
        self.vote = Some(self.config.id);
        self.writes.mark_state();
        self.restart_election_timer();
        self.votes.clear();
        let body = Body::Vote {
            last: self.log.last(),
            transfer,
        };
        self.ask_voters(self.term, self.writes.after_state(), body);
    }

    fn ask_voters(&mut self, term: Term, after: WriteNumber, body: Body) {
        for id in self.membership.members() {
            if id != self.config.id && self.membership.is_voter(id) {
                self.send_message(
                    id,
                    after,
                    Message {
                        term,
                        body: body.clone(),
                    },
                );
            }
        }
    }

    /// Term and vote became durable: a candidate's own vote counts.
    pub(super) fn on_state_synced(&mut self) {
        if self.role == Role::Candidate && !self.votes.iter().any(|(id, _)| *id == self.config.id) {
            assert!(self.vote == Some(self.config.id));
            self.votes.push((self.config.id, true));
            self.count_votes();
        }
    }

    fn count_votes(&mut self) {
        let votes = &self.votes;
        let outcome = quorum::outcome(&self.membership, |id| {
            votes
                .iter()
                .find(|(voter, _)| *voter == id)
                .map(|(_, granted)| *granted)
        });
        match (outcome, self.role) {
            (VoteOutcome::Won, Role::PreCandidate) => self.become_candidate(false),
            (VoteOutcome::Won, Role::Candidate) => self.become_leader(),
            (VoteOutcome::Won, _) => unreachable!("only candidates count votes"),
            (VoteOutcome::Lost, _) => self.become_follower(self.term, None),
            (VoteOutcome::Open, _) => {}
        }
    }

    fn become_leader(&mut self) {
        assert!(self.role == Role::Candidate && self.writes.is_state_durable());
        self.role = Role::Leader;
        self.set_leader(Some(self.config.id));
        self.election_elapsed = 0;
        self.heartbeat_elapsed = 0;
        let next = self.log.last_index().next();
        assert!(self.progress.is_empty() && self.transfer.is_none() && self.leaving.is_none());
        for id in self.membership.members() {
            if id != self.config.id {
                self.progress
                    .push(Progress::new(id, self.membership.is_learner(id), next));
            }
        }
        // Entries of earlier terms commit through one of this term (paper section 5.4.2), and reads
        // wait for it.
        self.term_start = self.append_own(EntryKind::Normal, bytes::Bytes::new());
    }

    /// Follows `leader`, or waits for one. A higher term forgets the vote.
    pub(super) fn become_follower(&mut self, term: Term, leader: Option<MemberId>) {
        assert!(
            term >= self.term,
            "terms do not go back: {term:?} after {:?}",
            self.term
        );
        if term > self.term {
            self.term = term;
            self.vote = None;
            self.writes.mark_state();
            self.set_leader(None);
        }
        if self.role != Role::Follower {
            // A follower's timer goes on: a candidate that cannot win must not hold back one that
            // can.
            self.restart_election_timer();
        }
        self.role = Role::Follower;
        self.progress.clear();
        self.transfer = None;
        self.leaving = None;
        self.taken.clear();
        self.votes.clear();
        self.set_leader(leader);
    }

    /// Changes the known leader; what was asked of the old one fails.
    fn set_leader(&mut self, leader: Option<MemberId>) {
        if self.leader != leader {
            self.leader = leader;
            self.fail_reads();
            self.drop_forwards();
        }
    }

    pub(super) fn restart_election_timer(&mut self) {
        self.election_elapsed = 0;
        let ticks = self.config.election_ticks;
        self.election_timeout = ticks + self.random.below(ticks);
    }

    /// Whether votes for others are to be refused because a leader is, or may be, at work.
    pub(super) fn is_leader_alive(&self) -> bool {
        self.is_bound_by_lease()
            || self.role == Role::Leader
            || (self.leader.is_some() && self.election_elapsed < self.config.election_ticks)
    }

    /// Whether this member's last word to a leader may still hold up that leader's lease. The
    /// promise outlasts what this member knows of the leader: a term learned from a stray message
    /// does not end it. After a restart nothing is known of promises made before, so one is
    /// assumed.
    fn is_bound_by_lease(&self) -> bool {
        self.config.lease_reads
            && !is_sabotaged!(self.config, LeaseUnpromised)
            && !is_sabotaged!(self.config, LeaseForgotten)
            && self.now < self.lease_promise_end
            && !self.membership.is_sole_voter(self.config.id)
    }

    /// A message from this term's leader; `false` when it cannot be that.
    pub(super) fn accept_leader(&mut self, from: MemberId) -> bool {
        if self.role == Role::Leader || self.leader.is_some_and(|leader| leader != from) {
            self.ignored.count(Ignored::NotTheLeader);
            return false;
        }
        if self.role != Role::Follower || self.leader.is_none() {
            self.become_follower(self.term, Some(from));
        }
        self.election_elapsed = 0;
        self.lease_promise_end = self.now + u64::from(self.config.election_ticks);
        true
    }

    /// `term` is the one the sender would take; it may be below, equal to or above ours.
    pub(super) fn on_pre_vote(&mut self, from: MemberId, term: Term, last: LogPosition) {
        let is_led = self.is_leader_alive() && !is_sabotaged!(self.config, PreVoteAlways);
        if term >= self.term && is_led {
            return self.ignored.count(Ignored::LeaderAlive);
        }
        let is_free = term > self.term || (term == self.term && self.may_vote_for(from));
        let is_up_to_date = self.is_up_to_date(last);
        let granted = is_free && is_up_to_date;
        let term = if granted { term } else { self.term };
        let after = if granted {
            WriteNumber::NONE
        } else {
            self.writes.after_state()
        };
        let message = Message {
            term,
            body: Body::PreVoteReply { granted },
        };
        self.send_message(from, after, message);
        if !is_up_to_date {
            self.tell_commit(from, last);
        }
    }

    pub(super) fn on_pre_vote_reply(&mut self, from: MemberId, term: Term, granted: bool) {
        if self.role != Role::PreCandidate || (granted && term != self.term.next()) {
            return self.ignored.count(Ignored::Stale);
        }
        self.record_vote(from, granted);
    }

    /// Whether a candidate whose log ends at `last` may lead, as far as this member can tell.
    fn is_up_to_date(&self, last: LogPosition) -> bool {
        last.is_up_to_date_with(self.log.last())
            || is_sabotaged!(self.config, VoteForAnyLog)
            || (is_sabotaged!(self.config, RemovedVotesByCommit)
                && !self.membership.is_voter(self.config.id)
                && !self.log.has_pending_conf_change()
                && last.index >= self.log.commit())
    }

    /// A candidate whose log is behind may still hold something it does not know to be committed,
    /// such as the very change after which it would not need this vote (`conf.rs`).
    fn tell_commit(&mut self, to: MemberId, last: LogPosition) {
        let commit = self.log.commit();
        if commit > last.index {
            return;
        }
        let term = self
            .log
            .term_at(commit)
            .expect("the log holds the term of its commit index");
        let at = LogPosition::new(commit, term);
        self.send(to, self.writes.after_state(), Body::Committed { at });
    }

    /// Another member knows this entry to be committed.
    pub(super) fn on_committed(&mut self, at: LogPosition) {
        if self.role == Role::Leader || at.index <= self.log.commit() || !self.log.matches(at) {
            return self.ignored.count(Ignored::Stale);
        }
        self.log.commit_to(at.index);
        if self.role != Role::Follower && self.log.has_committed_conf_change() {
            // It must take effect first.
            self.become_follower(self.term, None);
        }
    }

    fn may_vote_for(&self, candidate: MemberId) -> bool {
        let is_free = self.vote.is_none() && self.leader.is_none();
        is_free
            || self.vote == Some(candidate)
            || (is_sabotaged!(self.config, VoteTwice) && self.role == Role::Follower)
    }

    pub(super) fn on_vote(&mut self, from: MemberId, last: LogPosition) {
        let is_up_to_date = self.is_up_to_date(last);
        let granted = self.may_vote_for(from) && is_up_to_date;
        if granted {
            assert!(self.role != Role::Leader && self.role != Role::Candidate);
            if self.vote != Some(from) {
                self.vote = Some(from);
                self.writes.mark_state();
            }
            if self.role == Role::PreCandidate {
                self.become_follower(self.term, None);
            }
            self.restart_election_timer();
        }
        self.send(from, self.writes.after_state(), Body::VoteReply { granted });
        if !is_up_to_date {
            self.tell_commit(from, last);
        }
    }

    pub(super) fn on_vote_reply(&mut self, from: MemberId, granted: bool) {
        // Before the candidacy is durable nobody was asked, so nobody can have answered.
        if self.role != Role::Candidate || !self.writes.is_state_durable() {
            return self.ignored.count(Ignored::Stale);
        }
        self.record_vote(from, granted);
    }

    /// The first answer of each member counts.
    fn record_vote(&mut self, from: MemberId, granted: bool) {
        if !self.membership.is_voter(from) {
            return self.ignored.count(Ignored::UnknownMember);
        }
        if self.votes.iter().any(|(id, _)| *id == from) {
            return self.ignored.count(Ignored::Stale);
        }
        self.votes.push((from, granted));
        self.count_votes();
    }
}
