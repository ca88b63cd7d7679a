//! Log replication: what a leader sends, what a follower takes, and what counts as committed (paper
//! section 5.3, 5.4).
//!
//! Invariants
//! - A follower acknowledges entries only after the write that holds them.
//! - A leader commits by counting only entries of its own term (paper section 5.4.2, figure 8), and
//!   counts itself by what is durable here, like any other member.
//! - Nothing committed is overwritten: an append that would is ignored and counted, whoever sent
//!   it.
//!
//! Appends leave in `pump`, once a `Ready`, so that everything proposed in between shares one
//! message a follower.

use super::Raft;
use crate::ignored::Ignored;
use crate::message::Body;
use crate::quorum;
use crate::ready::{LoadRequest, WriteNumber};
use crate::status::{ProgressState, Role};
use crate::types::{Entry, LogIndex, LogPosition, MemberId};

/// No real log gets here; a message that names such an index is broken.
pub(super) const INDEX_MAX: LogIndex = LogIndex(u64::MAX / 2);

/// Empty entry buffers kept for reuse. More are freed.
const SPARE_MAX: usize = 64;

/// Larger buffers are freed rather than kept.
const SPARE_ENTRIES_MAX: usize = 1024;

impl Raft {
    // ---- the leader's side: sending ----

    /// Sends to every follower what it lacks, within its limits.
    pub(super) fn pump_all(&mut self) {
        for slot in 0..self.progress.len() {
            while self.pump(slot) {}
        }
    }

    /// Sends one message to one follower if there is something to say and room for it.
    fn pump(&mut self, slot: usize) -> bool {
        let (last, commit, tail_first) = (
            self.log.last_index(),
            self.log.commit(),
            self.log.tail_first(),
        );
        let config = &self.config;
        let p = &mut self.progress[slot];
        if p.loading.is_some() || p.is_paused || p.state == ProgressState::Snapshot {
            return false;
        }
        let is_probe = p.state == ProgressState::Probe;
        let has_entries = p.next <= last
            && p.has_room(
                config.inflight_messages_max,
                config.inflight_entries_max,
                config.inflight_bytes_max,
            );
        let tells_commit = p.commit_sent < commit && p.commit_sent < p.next.prev();
        if !(has_entries || tells_commit || is_probe || p.must_poke) {
            return false;
        }
        let Some(prev_term) = self.log.term_at(p.next.prev()) else {
            self.want_snapshot(slot);
            return false;
        };
        if has_entries && p.next < tail_first {
            self.load_id += 1;
            p.loading = Some(self.load_id);
            self.loads_open.push(self.load_id);
            self.loads.push(LoadRequest {
                id: self.load_id,
                from: p.next,
                through: tail_first
                    .prev()
                    .min(p.next.prev().plus(config.message_entries_max)),
                bytes_max: config.message_bytes_max,
            });
            return false;
        }
        let prev = LogPosition::new(p.next.prev(), prev_term);
        let mut entries = self.spare.pop().unwrap_or_default();
        let mut bytes = 0;
        if has_entries {
            bytes = self.log.copy_from(
                p.next,
                config.message_entries_max,
                config.message_bytes_max,
                &mut entries,
            );
        }
        self.send_append(slot, prev, entries, bytes);
        true
    }

    fn send_append(&mut self, slot: usize, prev: LogPosition, entries: Vec<Entry>, bytes: u64) {
        let commit = self.log.commit();
        let p = &mut self.progress[slot];
        p.must_poke = false;
        if let Some(entry) = entries.last() {
            p.sent(entry.index, bytes);
        }
        // A probe without entries is a probe all the same.
        p.is_paused = p.state == ProgressState::Probe;
        p.commit_sent = commit.min(entries.last().map_or(prev.index, |entry| entry.index));
        let to = p.id;
        self.send(
            to,
            WriteNumber::NONE,
            Body::Append {
                prev,
                commit,
                entries,
            },
        );
    }

    /// The answer to a [`LoadRequest`]; empty when the log could not give the first entry. Asserts
    /// that there was such a request, not yet answered, and that these are its entries.
    pub fn on_entries_loaded(&mut self, id: u64, entries: Vec<Entry>) {
        let open = self.loads_open.iter().position(|open| *open == id);
        let open = open.unwrap_or_else(|| panic!("load {id} is not open"));
        self.loads_open.swap_remove(open);
        // The follower may be gone, or may have moved on; so may we.
        let Some(slot) = self.progress.iter().position(|p| p.loading == Some(id)) else {
            return;
        };
        assert!(self.role == Role::Leader, "only a leader asks for entries");
        self.progress[slot].loading = None;
        let next = self.progress[slot].next;
        let prev_term = self.log.term_at(next.prev());
        let (Some(prev_term), Some(_)) = (prev_term, entries.first()) else {
            return self.want_snapshot(slot);
        };
        if entries[0].index != next {
            // An acknowledgement overtook the load. What it skipped need not be sent.
            return;
        }
        let prev = LogPosition::new(next.prev(), prev_term);
        assert!(
            is_chain(prev, &entries) && entries.iter().all(|e| self.log.matches(e.position())),
            "entries loaded from {:?} are not those of the log",
            next
        );
        let bytes = entries.iter().map(Entry::cost_bytes).sum();
        self.send_append(slot, prev, entries, bytes);
    }

    /// The link to `to` lost messages: what is on the way will not arrive.
    pub fn on_unreachable(&mut self, to: MemberId) {
        if let Some(p) = self.progress_mut(to)
            && p.state == ProgressState::Replicate
        {
            let next = p.matched.next();
            p.become_probe(next);
        }
    }

    /// Gives back an emptied buffer of a sent append message, so that the next one need not
    /// allocate.
    pub fn recycle(&mut self, mut entries: Vec<Entry>) {
        let is_worth_it = (1..=SPARE_ENTRIES_MAX).contains(&entries.capacity());
        if self.spare.len() < SPARE_MAX && is_worth_it {
            entries.clear();
            self.spare.push(entries);
        }
    }

    /// An empty buffer for the entries of a message that arrives; `step` takes it back. So a link need
    /// not allocate for each message either.
    pub fn buffer(&mut self) -> Vec<Entry> {
        self.spare.pop().unwrap_or_default()
    }

    pub(super) fn send_heartbeats(&mut self) {
        let round = self.reads.round();
        for slot in 0..self.progress.len() {
            let p = &self.progress[slot];
            // Only what the follower is known to have: its log may differ above.
            let known = match is_sabotaged!(self.config, CommitUnmatched) {
                true => self.log.last_index(),
                false => p.matched,
            };
            let body = Body::Heartbeat {
                commit: self.log.commit().min(known),
                round,
            };
            self.send(p.id, WriteNumber::NONE, body);
        }
    }

    // ---- the leader's side: answers ----

    pub(super) fn on_append_ack(&mut self, from: MemberId, matched: LogIndex, commit: LogIndex) {
        let (last, base) = (self.log.last_index(), self.log.base().index);
        let Some(p) = self.answering(from) else {
            return;
        };
        if matched > last || commit > last {
            return self.ignored.count(Ignored::ImpossibleIndex);
        }
        p.is_active = true;
        p.commit_known = p.commit_known.max(commit);
        let is_news = p.acknowledge(matched);
        match p.state {
            // Any answer that agrees ends the probing, except one that says less than is known.
            ProgressState::Probe if matched == p.matched => p.become_replicate(),
            ProgressState::Snapshot if p.matched >= base => p.become_replicate(),
            _ => {}
        }
        if is_news {
            self.maybe_commit();
        }
        self.continue_transfer(from);
    }

    pub(super) fn on_append_reject(
        &mut self,
        from: MemberId,
        rejected: LogIndex,
        hint: LogPosition,
        follower_last: LogIndex,
    ) {
        let (last, base) = (self.log.last_index(), self.log.base().index);
        let Some(p) = self.answering(from) else {
            return;
        };
        p.is_active = true;
        if rejected > last || hint.index > rejected || follower_last < hint.index {
            return self.ignored.count(Ignored::ImpossibleIndex);
        }
        let is_open = match p.state {
            ProgressState::Probe => p.next.prev() == rejected,
            ProgressState::Replicate => true,
            ProgressState::Snapshot => false,
        };
        if !is_open || rejected <= p.matched {
            return self.ignored.count(Ignored::Stale);
        }
        // The last of our entries that may agree: at or below the hint, and of no later term. Below
        // the log's base nothing is known, and nothing could be sent either.
        let agreed = if hint.index < base {
            hint.index
        } else {
            self.log.last_not_above(hint.index, hint.term).index
        };
        let p = self.progress_mut(from).expect("found above");
        let next = agreed.next().min(rejected).max(p.matched.next());
        p.become_probe(next);
    }

    pub(super) fn on_heartbeat_ack(&mut self, from: MemberId, round: u64, commit: LogIndex) {
        let (last, begun) = (self.log.last_index(), self.reads.round());
        let Some(p) = self.answering(from) else {
            return;
        };
        if round > begun || commit > last {
            return self.ignored.count(Ignored::ImpossibleIndex);
        }
        p.is_active = true;
        p.commit_known = p.commit_known.max(commit);
        p.round = p.round.max(round);
        // A lost append or answer shows here: say again where we are.
        p.is_paused = false;
        p.must_poke = p.state == ProgressState::Replicate && p.matched < last;
        self.confirm_reads();
        self.continue_transfer(from);
    }

    /// The follower that answers, if this leader has it.
    fn answering(&mut self, from: MemberId) -> Option<&mut crate::progress::Progress> {
        if self.role != Role::Leader {
            self.ignored.count(Ignored::Stale);
            return None;
        }
        let slot = self.progress.iter().position(|p| p.id == from);
        if slot.is_none() {
            self.ignored.count(Ignored::UnknownMember);
        }
        slot.map(|slot| &mut self.progress[slot])
    }

    /// Commits what a quorum holds durably, if it is of this term.
    pub(super) fn maybe_commit(&mut self) {
        assert!(self.role == Role::Leader, "only a leader counts");
        #[cfg(feature = "sabotage")]
        let membership = &self.sabotaged_membership();
        #[cfg(not(feature = "sabotage"))]
        let membership = &self.membership;
        let reached = LogIndex(quorum::reached(membership, |id| {
            if id == self.config.id && is_sabotaged!(self.config, LeaderCountsUnsynced) {
                self.log.last_index().0
            } else if id == self.config.id {
                self.log.durable().0
            } else {
                self.progress
                    .iter()
                    .find(|p| p.id == id)
                    .map_or(0, |p| p.matched.0)
            }
        }));
        let counts_older = is_sabotaged!(self.config, CommitOlderTerm);
        if reached <= self.log.commit() || (reached < self.term_start && !counts_older) {
            return;
        }
        assert!(
            self.log.term_at(reached) == Some(self.term) || counts_older,
            "{reached:?} is not of our term"
        );
        let was_current = self.has_committed_in_term();
        self.log.commit_to(reached);
        if !was_current {
            self.unpark_reads();
        }
    }

    #[cfg(feature = "sabotage")]
    fn sabotaged_membership(&self) -> crate::Membership {
        let mut membership = self.membership.clone();
        if is_sabotaged!(self.config, JointByOneMajority) {
            membership.voters_outgoing.clear();
        }
        if is_sabotaged!(self.config, LearnerCounts) {
            membership.voters.append(&mut membership.learners);
        }
        membership
    }

    /// This leader committed an entry of its own term, so its commit index is not behind anybody's.
    pub(super) fn has_committed_in_term(&self) -> bool {
        self.role == Role::Leader && self.log.commit() >= self.term_start
    }

    // ---- the follower's side ----

    pub(super) fn on_append(
        &mut self,
        from: MemberId,
        prev: LogPosition,
        commit: LogIndex,
        mut entries: Vec<Entry>,
    ) {
        if !is_chain(prev, &entries) || entries.last().is_some_and(|e| e.term > self.term) {
            return self.ignored.count(Ignored::MalformedEntries);
        }
        if !self.accept_leader(from) {
            return;
        }
        let through = prev.index.plus(entries.len() as u64);
        let committed = self.log.commit();
        // Whatever is committed here is in the leader's log (leader completeness, paper section
        // 5.4.3).
        let is_foreign = |at: LogPosition| {
            at.index <= committed && self.log.term_at(at.index).is_some_and(|t| t != at.term)
        };
        if is_foreign(prev) || entries.iter().any(|e| is_foreign(e.position())) {
            return self.ignored.count(Ignored::ConflictsWithCommitted);
        }
        let is_unchecked =
            is_sabotaged!(self.config, AppendUnchecked) && prev.index <= self.log.last_index();
        if prev.index > committed && !self.log.matches(prev) && !is_unchecked {
            let last = self.log.last_index();
            let hint = self.log.last_not_above(prev.index, prev.term);
            let body = Body::AppendReject {
                rejected: prev.index,
                hint,
                last,
            };
            return self.send(from, self.writes.after_state(), body);
        }
        let cut = prev.index.next();
        let is_behind = cut >= self.log.tail_first() && cut <= self.log.last_index();
        if is_sabotaged!(self.config, TruncateBelowCommit) && is_behind {
            self.truncates |= cut <= self.log.handed();
            self.log.truncate_from(cut);
            self.writes.cut(prev.index);
        }
        let committed = self.log.commit();
        self.take_entries(committed, &mut entries);
        self.recycle(entries);

        let matched = through.max(committed);
        self.log.commit_to(commit.min(through).max(committed));
        self.acknowledge(from, matched);
    }

    /// Appends what is new, after cutting off what differs.
    fn take_entries(&mut self, committed: LogIndex, entries: &mut Vec<Entry>) {
        for entry in entries.drain(..) {
            if entry.index <= committed || self.log.matches(entry.position()) {
                continue;
            }
            if entry.index <= self.log.last_index() {
                assert!(
                    entry.index > self.log.commit(),
                    "{:?} is committed",
                    entry.index
                );
                self.truncates |= entry.index <= self.log.handed();
                self.log.truncate_from(entry.index);
                if !is_sabotaged!(self.config, OverwrittenWriteCounts) {
                    self.writes.cut(entry.index.prev());
                }
            }
            self.log.append(entry);
        }
    }

    /// Acknowledges the log through `matched` once it is durable. An acknowledgement that has not
    /// left yet and says less is replaced.
    pub(super) fn acknowledge(&mut self, to: MemberId, matched: LogIndex) {
        let (handed, durable) = (self.log.handed(), self.log.durable());
        let after = self
            .writes
            .after_entries(matched, handed, durable, self.truncates);
        let commit = self.log.commit();
        if let Some(last) = self.messages.last_mut()
            && last.to == to
            && last.message.term == self.term
            && let Body::AppendAck {
                matched: earlier,
                commit: earlier_commit,
            } = &mut last.message.body
            && *earlier <= matched
        {
            *earlier = matched;
            *earlier_commit = commit;
            last.after = last.after.max(after);
            return;
        }
        self.send(to, after, Body::AppendAck { matched, commit });
    }

    pub(super) fn on_heartbeat(&mut self, from: MemberId, commit: LogIndex, round: u64) {
        if !self.accept_leader(from) {
            return;
        }
        if commit > self.log.last_index() {
            // We acknowledged more than we have: this log lost entries. It cannot be repaired from
            // here.
            self.ignored.count(Ignored::ImpossibleIndex);
        } else {
            self.log.commit_to(commit);
        }
        let body = Body::HeartbeatAck {
            round,
            commit: self.log.commit(),
        };
        self.send(from, self.writes.after_state(), body);
    }
}

/// Whether `entries` follow `prev` without gap and with terms that do not run backwards.
fn is_chain(prev: LogPosition, entries: &[Entry]) -> bool {
    let mut last = prev;
    prev.index < INDEX_MAX
        && entries.iter().all(|entry| {
            let follows = entry.index == last.index.next() && entry.term >= last.term;
            last = entry.position();
            follows
        })
}
