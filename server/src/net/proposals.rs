//! Proposals of one net core that wait for their answer.
//!
//! Always true here: sequences are handed out in order and never twice; one that waits long holds up
//! no other. At most [`PROPOSALS_MAX`] wait; then clients get `etcdserver: too many requests`.

use rustc_hash::FxHashMap;
use wire::error::EtcdError;
use wire::grpc::{MethodId, StreamId};

use super::books::{Ended, Work};
use super::connection::ConnectionKey;

/// Proposals of one net core that may wait at the same time.
pub const PROPOSALS_MAX: usize = 32_768;

/// Who gets the answer.
#[derive(Clone, Copy, Debug)]
pub struct Pending {
    pub connection: ConnectionKey,
    pub stream: StreamId,
    pub method: MethodId,
    pub started_ns: u64,
    pub deadline_ns: u64,
    /// Answers the call in place of the reply: a write refused for space waits for its alarm.
    pub verdict: Option<EtcdError>,
}

impl Pending {
    /// For the books: `success` if it was applied.
    pub fn ended(&self, success: bool) -> Ended {
        Ended {
            connection: self.connection,
            method: self.method,
            work: Work::Write { success },
            started_ns: self.started_ns,
        }
    }
}

#[derive(Default)]
pub struct Proposals {
    next: u64,
    waiting: FxHashMap<u64, Pending>,
    /// No deadline is earlier.
    looks_at_ns: u64,
}

impl Proposals {
    /// Whether one more may wait.
    pub fn has_room(&self) -> bool {
        self.waiting.len() < PROPOSALS_MAX
    }

    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The sequence that the next [`Proposals::insert`] will give.
    pub fn next_sequence(&self) -> u64 {
        self.next
    }

    pub fn insert(&mut self, pending: Pending) -> u64 {
        assert!(self.has_room(), "the caller asked for room first");
        let sequence = self.next;
        self.next += 1;
        if self.waiting.is_empty() || pending.deadline_ns < self.looks_at_ns {
            self.looks_at_ns = pending.deadline_ns;
        }
        self.waiting.insert(sequence, pending);
        sequence
    }

    /// The newest proposal has no deadline: it waits for more than consensus.
    pub fn lift_deadline(&mut self) {
        if let Some(pending) = self
            .next
            .checked_sub(1)
            .and_then(|last| self.waiting.get_mut(&last))
        {
            pending.deadline_ns = u64::MAX;
        }
    }

    /// Takes the proposal out; `None` when it was answered or timed out before, or never was.
    pub fn take(&mut self, sequence: u64) -> Option<Pending> {
        self.waiting.remove(&sequence)
    }

    /// Takes out the proposals whose deadline is past, oldest first. Looks at all of them when some
    /// deadline may have passed: seldom, as all but the oldest have been answered long before.
    pub fn take_expired(&mut self, now_ns: u64) -> Vec<Pending> {
        if self.waiting.is_empty() || now_ns < self.looks_at_ns {
            return Vec::new();
        }
        let mut expired: Vec<u64> = self
            .waiting
            .iter()
            .filter(|(_, pending)| pending.deadline_ns <= now_ns)
            .map(|(sequence, _)| *sequence)
            .collect();
        expired.sort_unstable();
        let expired = expired
            .iter()
            .filter_map(|sequence| self.waiting.remove(sequence))
            .collect();
        let deadlines = self.waiting.values().map(|pending| pending.deadline_ns);
        self.looks_at_ns = deadlines.min().unwrap_or(u64::MAX);
        expired
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(deadline_ns: u64) -> Pending {
        Pending {
            connection: ConnectionKey::default(),
            stream: StreamId(1),
            method: MethodId(0),
            started_ns: 0,
            deadline_ns,
            verdict: None,
        }
    }

    #[test]
    fn answers_in_any_order_and_only_once() {
        let mut proposals = Proposals::default();
        let sequences: Vec<u64> = (0..5).map(|at| proposals.insert(pending(at))).collect();
        assert_eq!(sequences, [0, 1, 2, 3, 4]);
        assert!(proposals.take(2).is_some());
        assert!(proposals.take(2).is_none());
        assert!(proposals.take(0).is_some());
        assert!(proposals.take(9).is_none());
        assert_eq!(proposals.waiting(), 3);
        assert_eq!(proposals.insert(pending(9)), 5);
    }

    #[test]
    fn expiry_takes_the_oldest_first() {
        let mut proposals = Proposals::default();
        for deadline in [10, 20, 30] {
            proposals.insert(pending(deadline));
        }
        proposals.take(0);
        assert!(proposals.take_expired(19).is_empty());
        let expired = proposals.take_expired(25);
        assert_eq!(
            expired.iter().map(|p| p.deadline_ns).collect::<Vec<_>>(),
            [20]
        );
        assert!(proposals.take_expired(25).is_empty());
        assert_eq!(proposals.waiting(), 1);
    }

    #[test]
    fn one_that_waits_long_holds_up_no_other() {
        let mut proposals = Proposals::default();
        let slow = proposals.insert(pending(u64::MAX));
        for at in 0..3 * PROPOSALS_MAX as u64 {
            assert!(proposals.has_room());
            let sequence = proposals.insert(pending(at));
            proposals.take(sequence);
        }
        assert_eq!(proposals.waiting(), 1);
        assert!(proposals.take(slow).is_some());
    }
}
