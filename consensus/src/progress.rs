//! What a leader knows about one follower, and how much it may send to it.
//!
//! Always true: `matched < next`; everything through `matched` is durable on the follower and equal
//! to the leader's log; `(matched, next)` is on the way in `Replicate`.
//!
//! Used by `raft/replication.rs` and its neighbours on a leader. Sends nothing itself.

use std::collections::VecDeque;

use crate::status::ProgressState;
use crate::types::{LogIndex, MemberId};

#[derive(Clone, Debug)]
pub(crate) struct Progress {
    pub(crate) id: MemberId,
    pub(crate) is_learner: bool,
    pub(crate) state: ProgressState,
    /// Durable on the follower through here.
    pub(crate) matched: LogIndex,
    /// The next entry to send.
    pub(crate) next: LogIndex,
    /// `Probe`: a probe is under way; the next heartbeat's answer allows another one.
    pub(crate) is_paused: bool,
    /// Heard from since the last quorum check.
    pub(crate) is_active: bool,
    /// The highest commit index sent along with entries that the follower has or gets.
    pub(crate) commit_sent: LogIndex,
    /// What the follower said it knows to be committed.
    pub(crate) commit_known: LogIndex,
    /// The last confirmation round answered.
    pub(crate) round: u64,
    /// The request whose entries from the log this follower waits for.
    pub(crate) loading: Option<u64>,
    /// The follower seems to lack something already sent: say again where we are.
    pub(crate) must_poke: bool,
    inflight: VecDeque<Inflight>,
    inflight_bytes: u64,
}

/// One append message with entries on the way.
#[derive(Clone, Debug)]
struct Inflight {
    last: LogIndex,
    bytes: u64,
}

impl Progress {
    pub(crate) fn new(id: MemberId, is_learner: bool, next: LogIndex) -> Progress {
        Progress {
            id,
            is_learner,
            state: ProgressState::Probe,
            matched: LogIndex::ZERO,
            next,
            is_paused: false,
            // Counts as heard from until the first quorum check: it had no chance to speak yet.
            is_active: true,
            commit_sent: LogIndex::ZERO,
            commit_known: LogIndex::ZERO,
            round: 0,
            loading: None,
            must_poke: false,
            inflight: VecDeque::new(),
            inflight_bytes: 0,
        }
    }

    pub(crate) fn become_probe(&mut self, next: LogIndex) {
        assert!(
            next > self.matched,
            "{next:?} is agreed already: {:?}",
            self.matched
        );
        self.reset(ProgressState::Probe);
        self.next = next;
    }

    pub(crate) fn become_replicate(&mut self) {
        self.reset(ProgressState::Replicate);
        self.next = self.matched.next();
    }

    pub(crate) fn become_snapshot(&mut self) {
        self.reset(ProgressState::Snapshot);
        self.next = self.matched.next();
    }

    fn reset(&mut self, state: ProgressState) {
        self.state = state;
        self.is_paused = false;
        self.loading = None;
        self.must_poke = false;
        self.commit_sent = LogIndex::ZERO;
        self.inflight.clear();
        self.inflight_bytes = 0;
    }

    /// Room for another message with entries.
    pub(crate) fn has_room(&self, messages_max: usize, entries_max: u64, bytes_max: u64) -> bool {
        self.inflight.is_empty()
            || (self.inflight.len() < messages_max
                && self.next.prev().since(self.matched) < entries_max
                && self.inflight_bytes < bytes_max)
    }

    /// A message with entries through `last` leaves.
    pub(crate) fn sent(&mut self, last: LogIndex, bytes: u64) {
        assert!(
            last >= self.next,
            "sent through {last:?}, next is {:?}",
            self.next
        );
        match self.state {
            ProgressState::Replicate => {
                self.inflight.push_back(Inflight { last, bytes });
                self.inflight_bytes += bytes;
                self.next = last.next();
            }
            // The position is only a guess: stay on it until the answer.
            ProgressState::Probe => self.is_paused = true,
            ProgressState::Snapshot => unreachable!("nothing is sent beside a snapshot"),
        }
    }

    /// Acknowledged through `matched`. Returns whether that is news.
    pub(crate) fn acknowledge(&mut self, matched: LogIndex) -> bool {
        if matched <= self.matched {
            return false;
        }
        self.matched = matched;
        self.next = self.next.max(matched.next());
        while self
            .inflight
            .front()
            .is_some_and(|sent| sent.last <= matched)
        {
            let sent = self.inflight.pop_front().expect("front was there");
            self.inflight_bytes -= sent.bytes;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_ends_at_each_bound_and_returns_with_answers() {
        let mut p = Progress::new(MemberId(2), false, LogIndex(1));
        p.become_replicate();
        p.sent(LogIndex(4), 400);
        assert!(p.has_room(2, 5, 500));
        assert!(!p.has_room(1, 5, 500));
        assert!(!p.has_room(2, 4, 500));
        assert!(!p.has_room(2, 5, 400));
        p.sent(LogIndex(6), 10);
        assert!(p.acknowledge(LogIndex(5)));
        assert_eq!((p.inflight.len(), p.inflight_bytes), (1, 10));
        assert!(!p.acknowledge(LogIndex(5)));
        assert!(p.acknowledge(LogIndex(9)));
        assert_eq!(
            (p.inflight.len(), p.inflight_bytes, p.next),
            (0, 0, LogIndex(10))
        );
    }

    #[test]
    fn a_probe_stays_where_it_is_and_pauses() {
        let mut p = Progress::new(MemberId(2), false, LogIndex(7));
        p.sent(LogIndex(9), 1);
        assert!(p.is_paused);
        assert_eq!(p.next, LogIndex(7));
    }
}
