//! What an observer outside the cluster has seen so far, and what must never be seen.
//!
//! Always true: a breach once seen stays. Called by the model after every step with the member that the step changed.

use std::sync::Arc;

use bytes::Bytes;
use consensus::{Entry, LogIndex, MemberId, ReadState, Term};

use crate::member::{FIRST, Member};

/// What must never be seen (paper figure 3; section 8 for reads).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Breach {
    /// Two members lead in one term.
    ElectionSafety,
    /// A leader changed or dropped an entry of its own log.
    LeaderAppendOnly,
    /// Two logs agree on an entry and not on all before it.
    LogMatching,
    /// A member was elected without an entry that an earlier term had committed.
    LeaderCompleteness,
    /// Two members know different entries as committed at one index.
    StateMachineSafety,
    /// A read may start before something that was committed when it was asked for.
    StaleRead,
}

/// An entry that some member knew to be committed.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Committed {
    term: Term,
    payload: Bytes,
    /// The term of the member that knew it first: the leader's, for nobody knows earlier.
    known_in: Term,
}

/// A read that was asked for and not answered.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Asked {
    member: MemberId,
    life: u64,
    context: u64,
    /// What was committed then; the answer must not be below.
    floor: LogIndex,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Oracle {
    leaders: Vec<(Term, MemberId)>,
    /// From [`FIRST`] on.
    committed: Vec<Committed>,
    asked: Vec<Asked>,
    answered: usize,
    /// One bit a [`Breach`].
    breaches: u8,
}

impl Oracle {
    pub fn has_seen(&self, breach: Breach) -> bool {
        self.breaches & (1 << breach as u8) != 0
    }

    /// How many reads were answered.
    pub fn answered(&self) -> usize {
        self.answered
    }

    /// How many proposals are known to be committed.
    pub fn writes(&self) -> usize {
        self.committed
            .iter()
            .filter(|entry| !entry.payload.is_empty())
            .count()
    }

    /// How many terms had a leader.
    pub fn leaders(&self) -> usize {
        self.leaders.len()
    }

    fn breach_if(&mut self, is_breach: bool, what: Breach) {
        if is_breach {
            self.breaches |= 1 << what as u8;
        }
    }

    /// A read was asked of `member`.
    pub fn ask(&mut self, member: &Member, context: u64) {
        self.asked.push(Asked {
            member: member.raft().status().id,
            life: member.life(),
            context,
            floor: LogIndex(FIRST - 1 + self.committed.len() as u64),
        });
    }

    /// `member` changed from `before`; `reads` were answered.
    pub fn observe(
        &mut self,
        before: &Member,
        member: &Member,
        reads: &[ReadState],
        all: &[Arc<Member>],
    ) {
        self.observe_leader(before, member);
        self.observe_commit(member);
        for other in all {
            let is_other = other.raft().status().id != member.raft().status().id;
            self.breach_if(
                is_other && !do_match(member.log(), other.log()),
                Breach::LogMatching,
            );
        }
        for read in reads {
            self.observe_read(member, *read);
        }
        // A read of an earlier life is never answered.
        let (id, life) = (member.raft().status().id, member.life());
        self.asked
            .retain(|asked| asked.member != id || asked.life == life);
    }

    fn observe_leader(&mut self, before: &Member, member: &Member) {
        if !member.is_leader() {
            return;
        }
        let (status, past) = (member.raft().status(), before.raft().status());
        if before.is_leader() && past.term == status.term && before.life() == member.life() {
            let is_kept = member.log().starts_with(before.log());
            return self.breach_if(!is_kept, Breach::LeaderAppendOnly);
        }
        let is_second = self.leaders.iter().any(|(term, _)| *term == status.term);
        self.breach_if(is_second, Breach::ElectionSafety);
        self.leaders.push((status.term, status.id));
        self.leaders.sort_unstable();
        let is_complete = self.committed.iter().enumerate().all(|(slot, entry)| {
            entry.known_in >= status.term
                || member
                    .log()
                    .get(slot)
                    .is_some_and(|own| is_same(own, entry))
        });
        self.breach_if(!is_complete, Breach::LeaderCompleteness);
    }

    fn observe_commit(&mut self, member: &Member) {
        let status = member.raft().status();
        let known = status.commit.since(LogIndex(FIRST - 1)) as usize;
        for (slot, own) in member.log()[..known].iter().enumerate() {
            match self.committed.get(slot) {
                Some(entry) => self.breach_if(!is_same(own, entry), Breach::StateMachineSafety),
                None => self.committed.push(Committed {
                    term: own.term,
                    payload: own.payload.clone(),
                    known_in: status.term,
                }),
            }
        }
    }

    fn observe_read(&mut self, member: &Member, read: ReadState) {
        let id = member.raft().status().id;
        let slot = self.asked.iter().position(|asked| {
            (asked.member, asked.life, asked.context) == (id, member.life(), read.context)
        });
        let asked = self.asked.remove(slot.expect("an answer has a question"));
        self.answered += 1;
        self.breach_if(read.index < asked.floor, Breach::StaleRead);
    }
}

fn is_same(own: &Entry, entry: &Committed) -> bool {
    (own.term, &own.payload) == (entry.term, &entry.payload)
}

/// If both hold an entry of one term at one index, they hold the same through there (paper section 5.3).
fn do_match(left: &[Entry], right: &[Entry]) -> bool {
    let pairs = || left.iter().zip(right);
    match pairs().rposition(|(l, r)| l.term == r.term) {
        Some(last) => left[..=last] == right[..=last],
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(list: &[(u64, &'static str)]) -> Vec<Entry> {
        let entry = |(slot, (term, payload)): (usize, &(u64, &'static str))| Entry {
            term: Term(*term),
            index: LogIndex(FIRST + slot as u64),
            kind: consensus::EntryKind::Normal,
            payload: Bytes::from_static(payload.as_bytes()),
        };
        list.iter().enumerate().map(entry).collect()
    }

    #[test]
    fn logs_that_agree_on_an_entry_agree_before_it() {
        let check = |left: &[_], right: &[_], expected| {
            assert_eq!(
                do_match(&log(left), &log(right)),
                expected,
                "{left:?} {right:?}"
            );
        };
        check(&[], &[(1, "a")], true);
        check(&[(1, "a"), (2, "b")], &[(1, "a"), (3, "c")], true);
        check(&[(2, "a")], &[(2, "b")], false);
        check(&[(1, "a"), (3, "c")], &[(2, "b"), (3, "c")], false);
        check(&[(1, "a"), (3, "c"), (3, "d")], &[(1, "a"), (3, "c")], true);
    }
}
