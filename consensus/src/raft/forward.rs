//! Proposals: into the leader's log, or on their way to the leader from another member.
//!
//! Always true: a proposal is taken whole or refused whole; a refused one changed nothing.
//! Forwarded proposals are not repeated: whoever waits for one to apply times out, and may then
//! find that it was applied after all.

use std::collections::VecDeque;

use bytes::Bytes;

use super::Raft;
use crate::error::{ConfChangeError, ProposeError};
use crate::ignored::Ignored;
use crate::membership::{ConfChange, ConfStep};
use crate::message::{Body, Proposal};
use crate::ready::WriteNumber;
use crate::status::{ProgressState, Role};
use crate::types::{ENTRY_OVERHEAD_BYTES, Entry, EntryKind, LogIndex, MemberId};

/// Proposals of this member on their way to the leader.
#[derive(Clone, Debug, Default)]
pub(super) struct Forwards {
    /// Gathered since the last `Ready`; they leave as one message.
    batch: Vec<Proposal>,
    batch_bytes: u64,
    /// The number of the last batch sent. Never goes back, so answers to old batches find nothing.
    number: u64,
    /// Sent and not answered.
    sent: VecDeque<Sent>,
    entries: usize,
    bytes: u64,
}

#[derive(Clone, Debug)]
struct Sent {
    number: u64,
    entries: usize,
    bytes: u64,
    tick: u64,
}

/// Which batches a leader has seen in its term. A message may come twice; its proposals must not.
/// An earlier term's message is ignored for its term, so nothing need be remembered beyond it.
#[derive(Clone, Debug, Default)]
pub(super) struct Taken {
    senders: VecDeque<Sender>,
}

/// The batches of one process of one member.
#[derive(Clone, Debug)]
struct Sender {
    id: MemberId,
    incarnation: u64,
    highest: u64,
    /// Bit `n`: batch `highest - n` was seen.
    window: u64,
}

/// Processes remembered in one term. Beyond that the oldest is forgotten: it takes so many restarts
/// of other members under one leader, and a message that is late by all of them.
const SENDERS_MAX: usize = 256;

impl Taken {
    pub(super) fn clear(&mut self) {
        self.senders.clear();
    }

    /// Notes the batch; `false` if it was seen before, or may have been.
    fn is_new(&mut self, id: MemberId, incarnation: u64, batch: u64) -> bool {
        let known = self
            .senders
            .iter_mut()
            .find(|s| s.id == id && s.incarnation == incarnation);
        let Some(sender) = known else {
            if self.senders.len() >= SENDERS_MAX {
                self.senders.pop_front();
            }
            self.senders.push_back(Sender {
                id,
                incarnation,
                highest: batch,
                window: 1,
            });
            return true;
        };
        if batch > sender.highest {
            let shift = batch - sender.highest;
            sender.window = sender.window.checked_shl(shift.min(64) as u32).unwrap_or(0) | 1;
            sender.highest = batch;
            return true;
        }
        let behind = sender.highest - batch;
        let is_new = behind < 64 && sender.window & (1 << behind) == 0;
        sender.window |= 1_u64.checked_shl(behind.min(64) as u32).unwrap_or(0);
        is_new
    }
}

fn cost_bytes(payload: &Bytes) -> u64 {
    payload.len() as u64 + ENTRY_OVERHEAD_BYTES
}

impl Raft {
    /// Appends one command. Leader only; the payload is shared, not copied. An empty payload is
    /// refused by an assertion: it means the leader's own entry.
    pub fn propose(&mut self, payload: Bytes) -> Result<LogIndex, ProposeError> {
        assert!(
            !payload.is_empty(),
            "an empty proposal means the start of a term"
        );
        self.check_propose(cost_bytes(&payload))?;
        Ok(self.append_own(EntryKind::Normal, payload))
    }

    /// Appends several commands, all or none, drains `payloads` on success, and returns the index
    /// of the first.
    pub fn propose_batch(&mut self, payloads: &mut Vec<Bytes>) -> Result<LogIndex, ProposeError> {
        assert!(
            payloads.iter().all(|p| !p.is_empty()),
            "an empty proposal starts a term"
        );
        self.check_propose(payloads.iter().map(cost_bytes).sum())?;
        let first = self.log.last_index().next();
        for payload in payloads.drain(..) {
            self.append_own(EntryKind::Normal, payload);
        }
        Ok(first)
    }

    /// Appends a membership change. Leader only, one at a time.
    pub fn propose_conf_change(&mut self, change: &ConfChange) -> Result<LogIndex, ProposeError> {
        self.check_conf_change(change)?;
        let payload = change.encode();
        self.check_propose(cost_bytes(&payload))?;
        Ok(self.append_own(EntryKind::ConfChange, payload))
    }

    fn check_propose(&self, bytes: u64) -> Result<(), ProposeError> {
        if self.role != Role::Leader {
            return Err(ProposeError::NotLeader {
                leader: self.leader,
            });
        }
        if self.transfer.is_some() || self.leaving.is_some() {
            return Err(ProposeError::Transferring);
        }
        let waiting = self.log.uncommitted_bytes();
        if waiting > 0 && waiting + bytes > self.config.uncommitted_bytes_max {
            return Err(ProposeError::Full);
        }
        Ok(())
    }

    fn check_conf_change(&self, change: &ConfChange) -> Result<(), ProposeError> {
        if self.role != Role::Leader {
            return Err(ProposeError::NotLeader {
                leader: self.leader,
            });
        }
        let is_pending =
            self.log.has_pending_conf_change() && !is_sabotaged!(self.config, ChangeBeforeApplied);
        if is_pending || !self.has_committed_in_term() {
            return Err(ProposeError::ConfChangePending);
        }
        self.membership.after(change)?;
        for step in &change.steps {
            if let ConfStep::AddVoter(id) = *step
                && self.membership.is_learner(id)
                && !self.is_in_sync(id)
            {
                return Err(ConfChangeError::LearnerBehind.into());
            }
        }
        Ok(())
    }

    /// The rule for promoting a learner (thesis section 4.2.1): it is being heard, receives entries
    /// rather than a snapshot, and has nine tenths of the log, as with etcd. Otherwise its vote
    /// could be needed long before it can give any.
    fn is_in_sync(&self, learner: MemberId) -> bool {
        let last = self.log.last_index().0;
        self.progress.iter().any(|p| {
            p.id == learner
                && p.is_active
                && p.state == ProgressState::Replicate
                && p.matched.0 >= last - last / 10
        })
    }

    /// Appends an entry of this leader's term.
    pub(super) fn append_own(&mut self, kind: EntryKind, payload: Bytes) -> LogIndex {
        assert!(self.role == Role::Leader, "only a leader numbers entries");
        let index = self.log.last_index().next();
        self.log.append(Entry {
            term: self.term,
            index,
            kind,
            payload,
        });
        index
    }

    /// Sends a command to the leader, on a member that does not lead. Not repeated when lost.
    pub fn forward(&mut self, payload: Bytes) -> Result<MemberId, ProposeError> {
        assert!(
            !payload.is_empty(),
            "an empty proposal means the start of a term"
        );
        self.push_forward(Proposal {
            kind: EntryKind::Normal,
            payload,
        })
    }

    /// Sends a membership change to the leader.
    pub fn forward_conf_change(&mut self, change: &ConfChange) -> Result<MemberId, ProposeError> {
        // Travels alone, so that its refusal refuses nothing else.
        self.flush_forwards();
        let leader = self.push_forward(Proposal {
            kind: EntryKind::ConfChange,
            payload: change.encode(),
        })?;
        self.flush_forwards();
        Ok(leader)
    }

    fn push_forward(&mut self, proposal: Proposal) -> Result<MemberId, ProposeError> {
        let leader = self.leader.ok_or(ProposeError::NoLeader)?;
        assert!(
            leader != self.config.id,
            "the leader proposes, it does not forward"
        );
        let bytes = cost_bytes(&proposal.payload);
        let f = &mut self.forwards;
        let is_full = f.entries >= self.config.forward_entries_max
            || (f.bytes > 0 && f.bytes + bytes > self.config.forward_bytes_max);
        if is_full {
            return Err(ProposeError::Full);
        }
        f.entries += 1;
        f.bytes += bytes;
        f.batch_bytes += bytes;
        f.batch.push(proposal);
        Ok(leader)
    }

    /// Sends what was gathered.
    pub(super) fn flush_forwards(&mut self) {
        let f = &mut self.forwards;
        let Some(leader) = self.leader.filter(|_| !f.batch.is_empty()) else {
            return;
        };
        f.number += 1;
        let proposals = std::mem::take(&mut f.batch);
        let bytes = std::mem::take(&mut f.batch_bytes);
        let sent = Sent {
            number: f.number,
            entries: proposals.len(),
            bytes,
            tick: self.now,
        };
        let body = Body::Propose {
            incarnation: self.incarnation,
            batch: f.number,
            proposals,
        };
        f.sent.push_back(sent);
        self.send(leader, WriteNumber::NONE, body);
    }

    pub(super) fn on_propose(
        &mut self,
        from: MemberId,
        incarnation: u64,
        batch: u64,
        proposals: Vec<Proposal>,
    ) {
        if self.role == Role::Leader
            && !self.taken.is_new(from, incarnation, batch)
            && !is_sabotaged!(self.config, ProposalTwice)
        {
            return self.ignored.count(Ignored::Stale);
        }
        let accepted = self.take_proposals(proposals);
        if !accepted {
            let reason = if self.role == Role::Leader {
                Ignored::ProposalRefused
            } else {
                Ignored::NotLeader
            };
            self.ignored.count(reason);
        }
        self.send(
            from,
            WriteNumber::NONE,
            Body::ProposeReply { batch, accepted },
        );
    }

    fn take_proposals(&mut self, proposals: Vec<Proposal>) -> bool {
        let bytes = proposals.iter().map(|p| cost_bytes(&p.payload)).sum();
        if self.check_propose(bytes).is_err() || proposals.iter().any(|p| p.payload.is_empty()) {
            return false;
        }
        if proposals.iter().any(|p| p.kind == EntryKind::ConfChange) {
            let [only] = proposals.as_slice() else {
                return false;
            };
            let Ok(change) = ConfChange::decode(&only.payload) else {
                return false;
            };
            if self.check_conf_change(&change).is_err() {
                return false;
            }
        }
        for proposal in proposals {
            self.append_own(proposal.kind, proposal.payload);
        }
        true
    }

    pub(super) fn on_propose_reply(&mut self, batch: u64, accepted: bool) {
        let f = &mut self.forwards;
        let Some(slot) = f.sent.iter().position(|sent| sent.number == batch) else {
            return self.ignored.count(Ignored::Stale);
        };
        let sent = f.sent.remove(slot).expect("slot was found");
        f.entries -= sent.entries;
        f.bytes -= sent.bytes;
        if !accepted {
            self.forwards_refused += sent.entries as u64;
        }
    }

    /// Batches whose answer was lost stop counting after two election timeouts.
    pub(super) fn age_forwards(&mut self) {
        let limit = 2 * u64::from(self.config.election_ticks);
        let f = &mut self.forwards;
        while let Some(sent) = f.sent.front().filter(|sent| self.now - sent.tick >= limit) {
            f.entries -= sent.entries;
            f.bytes -= sent.bytes;
            f.sent.pop_front();
        }
    }

    /// Leadership changed: what was not sent is dropped, what was sent is not waited for.
    pub(super) fn drop_forwards(&mut self) {
        let f = &mut self.forwards;
        self.forwards_refused += f.batch.len() as u64;
        f.batch.clear();
        f.sent.clear();
        (f.batch_bytes, f.entries, f.bytes) = (0, 0, 0);
    }

    /// How many forwarded proposals are known not to have reached a leader's log.
    pub fn forwards_refused(&self) -> u64 {
        self.forwards_refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_new_once_in_whatever_order() {
        let mut taken = Taken::default();
        let mut check = |incarnation, batch, expected| {
            let is_new = taken.is_new(MemberId(2), incarnation, batch);
            assert_eq!(is_new, expected, "{incarnation} {batch}");
        };
        for (batch, expected) in [
            (5, true),
            (5, false),
            (3, true),
            (7, true),
            (3, false),
            (6, true),
        ] {
            check(1, batch, expected);
        }
        // A restarted member numbers from the start again; what its earlier process sent is still
        // known.
        check(2, 5, true);
        check(1, 7, false);
        // Too far back to be sure.
        check(1, 71, true);
        check(1, 8, true);
        check(1, 7, false);
        check(1, 4, false);
        check(1, 500, true);
        check(1, 71, false);
        check(1, u64::MAX, true);
        check(1, 500, false);
    }

    #[test]
    fn only_so_many_processes_are_remembered() {
        let mut taken = Taken::default();
        for incarnation in 0..2 * SENDERS_MAX as u64 {
            assert!(taken.is_new(MemberId(2), incarnation, 1));
        }
        assert_eq!(taken.senders.len(), SENDERS_MAX);
    }
}
