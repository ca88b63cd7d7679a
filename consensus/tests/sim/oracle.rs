//! What must hold whatever goes wrong (paper figure 3, and linearizable reads).
//!
//! - Election safety: a term has one leader.
//! - Leader completeness: a new leader's log holds everything committed.
//! - Log matching and state machine safety: an index is committed with one term, and applied with
//!   one content.
//! - Durability: what a leader commits is durable on a quorum of its membership at that moment, on
//!   real disks.
//! - Reads: a read's index covers everything committed anywhere when the read was asked.
//! - Positions never run backwards within a process, terms and votes not even across crashes.

use std::collections::BTreeMap;

use consensus::*;

use super::member::{App, Member};

pub struct Oracle {
    leaders: BTreeMap<Term, MemberId>,
    /// The term of every committed entry; slot 0 is index 1.
    committed: Vec<Term>,
    /// The state machine after every applied entry; slot 0 is the founding, index 1.
    states: Vec<App>,
    /// What each read must cover.
    reads: BTreeMap<(MemberId, u64), LogIndex>,
    seen: BTreeMap<MemberId, Status>,
    /// Each member's membership at the end of the step before.
    memberships: BTreeMap<MemberId, Membership>,
    pub reads_answered: u64,
    pub snapshots_installed: u64,
    pub loads: u64,
    pub crashes: u64,
}

impl Oracle {
    pub fn new(membership: Membership) -> Oracle {
        Oracle {
            leaders: BTreeMap::new(),
            committed: vec![Term(1)],
            states: vec![App::new(membership)],
            reads: BTreeMap::new(),
            seen: BTreeMap::new(),
            memberships: BTreeMap::new(),
            reads_answered: 0,
            snapshots_installed: 0,
            loads: 0,
            crashes: 0,
        }
    }

    pub fn committed(&self) -> LogIndex {
        LogIndex(self.committed.len() as u64)
    }

    pub fn terms(&self) -> usize {
        self.leaders.len()
    }

    pub fn membership_changes(&self) -> usize {
        self.states
            .windows(2)
            .filter(|w| w[0].membership != w[1].membership)
            .count()
    }

    pub fn read_asked(&mut self, id: MemberId, context: u64) {
        self.reads.insert((id, context), self.committed());
    }

    pub fn read_answered(&mut self, id: MemberId, read: ReadState) -> Result<(), String> {
        let Some(floor) = self.reads.remove(&(id, read.context)) else {
            return Err(format!(
                "{id:?} answered a read that nobody asked: {read:?}"
            ));
        };
        self.reads_answered += 1;
        if read.index < floor {
            return Err(format!(
                "{id:?}: stale read {read:?}, committed was {floor:?}"
            ));
        }
        Ok(())
    }

    pub fn read_failed(&mut self, id: MemberId, context: u64) -> Result<(), String> {
        let known = self.reads.remove(&(id, context));
        known
            .map(|_| ())
            .ok_or(format!("{id:?} failed a read that nobody asked: {context}"))
    }

    /// A member's state machine stands at `app`.
    pub fn applied(&mut self, id: MemberId, app: &App) -> Result<(), String> {
        let slot = app.applied.0 as usize - 1;
        match self.states.get(slot) {
            Some(state) if state == app => Ok(()),
            Some(state) => Err(format!("{id:?} applied {app:?}, others {state:?}")),
            None if slot == self.states.len() => {
                self.states.push(app.clone());
                Ok(())
            }
            None => Err(format!("{id:?} skipped to {:?}", app.applied)),
        }
    }

    /// Called when a member crashed: a new process begins anew, but for its term.
    pub fn crashed(&mut self, id: MemberId) {
        self.seen.remove(&id);
        self.crashes += 1;
    }

    pub fn check(&mut self, members: &BTreeMap<MemberId, Member>) -> Result<(), String> {
        for (id, member) in members.iter().filter(|(_, member)| member.is_up()) {
            let status = member.raft().status();
            let before = self.seen.insert(*id, status);
            let raft = member.raft();
            if let Some(before) = before {
                if before.commit > status.commit || before.applied > status.applied {
                    return Err(format!("{id:?} went back: {before:?} {status:?}"));
                }
                let is_vote_kept = before.vote.is_none() || before.vote == status.vote;
                if before.term > status.term || (before.term == status.term && !is_vote_kept) {
                    return Err(format!("{id:?} changed its vote: {before:?} {status:?}"));
                }
            }
            let commit_before = before.map_or(LogIndex::ZERO, |b| b.commit);
            for index in (commit_before.0 + 1).max(status.first_index.0)..=status.commit.0 {
                let term = raft
                    .term_at(LogIndex(index))
                    .ok_or("a committed entry is gone")?;
                match self.committed.get(index as usize - 1) {
                    Some(known) if *known == term => {}
                    Some(known) => {
                        return Err(format!(
                            "{id:?} committed {index} of {term:?}, not {known:?}"
                        ));
                    }
                    None => {
                        if status.role == Role::Leader {
                            self.check_durable(raft, LogIndex(index), term, members)?;
                        }
                        if index as usize != self.committed.len() + 1 {
                            return Err(format!("{id:?} committed {index} before its predecessor"));
                        }
                        self.committed.push(term);
                    }
                }
            }
            if status.role == Role::Leader {
                let leader = *self.leaders.entry(status.term).or_insert(*id);
                if leader != *id {
                    return Err(format!(
                        "{:?} has two leaders: {leader:?} {id:?}",
                        status.term
                    ));
                }
                if before.is_none_or(|b| b.role != Role::Leader) {
                    self.check_complete(raft, &status)?;
                }
            }
            self.memberships.insert(*id, raft.membership().clone());
        }
        Ok(())
    }

    fn check_complete(&self, raft: &Raft, status: &Status) -> Result<(), String> {
        for index in status.first_index.0..=self.committed.len() as u64 {
            let (known, own) = (
                self.committed[index as usize - 1],
                raft.term_at(LogIndex(index)),
            );
            // Entries committed in a later term than this (already deposed) leader's are not its
            // concern.
            if known < status.term && own != Some(known) {
                return Err(format!(
                    "leader {:?} lacks committed {index}: {own:?}",
                    status.id
                ));
            }
        }
        Ok(())
    }

    fn check_durable(
        &self,
        raft: &Raft,
        index: LogIndex,
        term: Term,
        members: &BTreeMap<MemberId, Member>,
    ) -> Result<(), String> {
        // Entries of one leader commit together: the last of them was counted, the others lie
        // before it.
        let has = |id: MemberId| members[&id].disk.holds(LogPosition::new(index, term));
        // Within the step the commit may have come before or after a membership change.
        let quorum = |m: &Membership| {
            quorum::is_majority(&m.voters, has) && quorum::is_majority(&m.voters_outgoing, has)
        };
        let before = self.memberships.get(&raft.status().id);
        if quorum(raft.membership()) || before.is_some_and(quorum) {
            return Ok(());
        }
        let m = raft.membership();
        Err(format!(
            "{index:?} of {term:?} was committed without a durable quorum of {m:?}"
        ))
    }
}
