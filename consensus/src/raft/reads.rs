//! Linearizable reads without the log (thesis section 6.4): the read index, confirmed by a round of
//! heartbeats.
//!
//! Why it is safe. A read may start at the leader's commit index as of its arrival, if nobody else
//! had committed more by then. The leader makes sure of both halves of that:
//! - its own commit index is current only once it has committed an entry of its own term; until
//!   then reads wait;
//! - no later leader existed at the read's arrival if a quorum, *after* that arrival, still
//!   answered in our term: a round of heartbeats carries a number, and a read waits for a round
//!   that began after it arrived.
//!
//! One round serves every read that waited; while one is under way the next ones gather. With
//! leases a round's confirmation holds for a while: until the first follower could vote for someone
//! else.
//!
//! Invariant: rounds in `queue` ascend, so confirmation takes a prefix.

use std::collections::VecDeque;

use super::Raft;
use crate::error::ReadError;
use crate::ignored::Ignored;
use crate::message::Body;
use crate::quorum;
use crate::ready::{ReadState, WriteNumber};
use crate::status::Role;
use crate::types::{LogIndex, MemberId};

#[derive(Clone, Debug, Default)]
pub(super) struct Reads {
    /// Leader: reads that wait for the first commit of this term; no index yet.
    parked: VecDeque<Read>,
    /// Leader: reads that wait for a round.
    queue: VecDeque<Read>,
    /// The last round begun.
    round: u64,
    /// The last round that a quorum answered.
    confirmed: u64,
    /// When the rounds not yet confirmed began; kept for leases only. At most one an elapsed tick
    /// and read burst.
    began: VecDeque<(u64, u64)>,
    /// The tick at which the leader's lease ends.
    lease_end: u64,
    /// The leader asked another member to campaign: followers may vote in spite of the lease, in
    /// this term.
    is_lease_void: bool,
    /// Elsewhere: reads asked of the leader, with the tick they were asked at.
    asked: VecDeque<(u64, u64)>,
    /// Results for the next `Ready`.
    pub(super) states: Vec<ReadState>,
    pub(super) failed: Vec<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Read {
    from: MemberId,
    incarnation: u64,
    context: u64,
    index: LogIndex,
    round: u64,
}

impl Reads {
    fn len(&self) -> usize {
        self.parked.len() + self.queue.len()
    }

    /// The last round begun.
    pub(super) fn round(&self) -> u64 {
        self.round
    }

    /// No lease for the rest of this term.
    pub(super) fn void_lease(&mut self) {
        self.is_lease_void = true;
    }

    /// The present lease ends; rounds that begin from now on may renew it.
    pub(super) fn end_lease(&mut self) {
        self.lease_end = 0;
        self.began.clear();
    }
}

/// Rounds whose beginning is remembered for leases; older ones are forgotten, which only shortens a
/// lease.
const LEASE_ROUNDS_MAX: usize = 64;

impl Raft {
    /// Asks where a linearizable read may start; answered by `Ready::read_states` or
    /// `Ready::reads_failed`. `context` names the read and is not used again in this process. One
    /// context may stand for many reads.
    pub fn read_index(&mut self, context: u64) -> Result<(), ReadError> {
        if self.role == Role::Leader {
            let read = self.own_read(context);
            return if self.admit_read(read) {
                Ok(())
            } else {
                Err(ReadError::Full)
            };
        }
        let Some(leader) = self.leader else {
            return Err(ReadError::NoLeader);
        };
        if self.reads.asked.len() >= self.config.reads_pending_max {
            return Err(ReadError::Full);
        }
        self.reads.asked.push_back((context, self.now));
        let body = Body::ReadIndex {
            incarnation: self.incarnation,
            context,
        };
        self.send(leader, WriteNumber::NONE, body);
        Ok(())
    }

    fn own_read(&self, context: u64) -> Read {
        let (from, incarnation) = (self.config.id, self.incarnation);
        Read {
            from,
            incarnation,
            context,
            index: LogIndex::ZERO,
            round: 0,
        }
    }

    pub(super) fn on_read_index(&mut self, from: MemberId, incarnation: u64, context: u64) {
        if self.role != Role::Leader {
            self.ignored.count(Ignored::NotLeader);
            let body = Body::ReadIndexReply {
                incarnation,
                context,
                index: None,
            };
            return self.send(from, WriteNumber::NONE, body);
        }
        let read = Read {
            from,
            incarnation,
            context,
            index: LogIndex::ZERO,
            round: 0,
        };
        if !self.admit_read(read) {
            self.ignored.count(Ignored::ReadRefused);
            let body = Body::ReadIndexReply {
                incarnation,
                context,
                index: None,
            };
            self.send(from, WriteNumber::NONE, body);
        }
    }

    fn admit_read(&mut self, mut read: Read) -> bool {
        assert!(self.role == Role::Leader);
        let is_free = is_sabotaged!(self.config, ReadWithoutQuorum);
        if self.has_committed_in_term() && (self.has_lease() || is_free) {
            read.index = self.log.commit();
            self.answer_read(read);
            return true;
        }
        if self.reads.len() >= self.config.reads_pending_max {
            return false;
        }
        let is_early = is_sabotaged!(self.config, ReadBeforeFirstCommit);
        if self.has_committed_in_term() || is_early {
            self.queue_read(read);
        } else {
            self.reads.parked.push_back(read);
        }
        true
    }

    fn queue_read(&mut self, mut read: Read) {
        read.index = self.log.commit();
        // The round under way may have begun before this read arrived: only the next one counts.
        read.round = self.reads.round + 1;
        if is_sabotaged!(self.config, ReadJoinsRound) && self.reads.confirmed < self.reads.round {
            read.round = self.reads.round;
        }
        self.reads.queue.push_back(read);
    }

    /// The first commit of the term: the commit index is current from here on.
    pub(super) fn unpark_reads(&mut self) {
        while let Some(read) = self.reads.parked.pop_front() {
            self.queue_read(read);
        }
    }

    /// Begins a round if reads wait for one and none is under way (or `is_due`: the heartbeat goes
    /// out anyway).
    pub(super) fn begin_read_round(&mut self, is_due: bool) {
        let waits = self
            .reads
            .queue
            .back()
            .is_some_and(|read| read.round > self.reads.round);
        let is_under_way = self
            .reads
            .queue
            .front()
            .is_some_and(|read| read.round <= self.reads.round);
        let wants = waits && (is_due || !is_under_way);
        if wants || (is_due && self.config.lease_reads) {
            self.reads.round += 1;
            if self.config.lease_reads {
                if self.reads.began.len() >= LEASE_ROUNDS_MAX {
                    self.reads.began.pop_front();
                }
                self.reads.began.push_back((self.reads.round, self.now));
            }
            if wants && !is_due {
                self.send_heartbeats();
            }
            self.confirm_reads();
        }
    }

    pub(super) fn confirm_reads(&mut self) {
        let round = quorum::reached(&self.membership, |id| {
            if id == self.config.id {
                self.reads.round
            } else {
                self.progress_round(id)
            }
        });
        assert!(round <= self.reads.round, "round {round} was never begun");
        if round <= self.reads.confirmed {
            return;
        }
        self.reads.confirmed = round;
        while self
            .reads
            .queue
            .front()
            .is_some_and(|read| read.round <= round)
        {
            let read = self.reads.queue.pop_front().expect("front was there");
            self.answer_read(read);
        }
        while let Some(&(began, tick)) = self.reads.began.front().filter(|(r, _)| *r <= round) {
            assert!(began <= round);
            self.reads.lease_end =
                tick + u64::from(self.config.election_ticks - self.config.lease_margin_ticks);
            self.reads.began.pop_front();
        }
    }

    /// No lease while this leader's membership is about to change: members that applied the change
    /// already decide by another quorum than the one that promised. None either for a leader that
    /// is no voter.
    fn has_lease(&self) -> bool {
        self.config.lease_reads
            && !self.reads.is_lease_void
            && self.now < self.reads.lease_end
            && self.leaving.is_none()
            && !self.log.has_committed_conf_change()
    }

    fn answer_read(&mut self, read: Read) {
        if read.from == self.config.id {
            let Read { context, index, .. } = read;
            self.reads.states.push(ReadState { context, index });
        } else {
            let Read {
                incarnation,
                context,
                index,
                ..
            } = read;
            let body = Body::ReadIndexReply {
                incarnation,
                context,
                index: Some(index),
            };
            self.send(read.from, WriteNumber::NONE, body);
        }
    }

    pub(super) fn on_read_index_reply(
        &mut self,
        from: MemberId,
        incarnation: u64,
        context: u64,
        index: Option<LogIndex>,
    ) {
        // A context of an earlier incarnation may be in use again for a later read: its old answer
        // is too old.
        let slot = self
            .reads
            .asked
            .iter()
            .position(|(asked, _)| *asked == context);
        let (true, Some(slot)) = (incarnation == self.incarnation, slot) else {
            return self.ignored.count(Ignored::Stale);
        };
        if self.leader != Some(from) {
            return self.ignored.count(Ignored::NotTheLeader);
        }
        self.reads.asked.remove(slot);
        match index {
            Some(index) => self.reads.states.push(ReadState { context, index }),
            None => self.reads.failed.push(context),
        }
    }

    /// Asked reads whose question or answer was lost fail after two election timeouts.
    pub(super) fn age_reads(&mut self) {
        let limit = 2 * u64::from(self.config.election_ticks);
        while self
            .reads
            .asked
            .front()
            .is_some_and(|(_, tick)| self.now - tick >= limit)
        {
            let (context, _) = self.reads.asked.pop_front().expect("front was there");
            self.reads.failed.push(context);
        }
    }

    /// Leadership changed: whatever waited here fails; rounds of another term are never counted
    /// again.
    pub(super) fn fail_reads(&mut self) {
        let Reads {
            parked,
            queue,
            asked,
            failed,
            ..
        } = &mut self.reads;
        let own = parked
            .drain(..)
            .chain(queue.drain(..))
            .filter(|r| r.from == self.config.id);
        failed.extend(own.map(|read| read.context));
        failed.extend(asked.drain(..).map(|(context, _)| context));
        self.reads.began.clear();
        self.reads.lease_end = 0;
        self.reads.is_lease_void = false;
        self.reads.round = 0;
        self.reads.confirmed = 0;
    }
}
