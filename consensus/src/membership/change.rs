//! Computes the membership that a change leads to.
//!
//! Always true: two memberships that follow each other have overlapping majorities. A simple change
//! moves at most one voter; anything larger goes through a joint state that needs both majorities
//! (paper section 6).

use bytes::Bytes;

use super::Membership;
use crate::error::ConfChangeError;
use crate::types::MemberId;

/// One step of a change.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ConfStep {
    /// Adds a voter, or promotes a learner.
    AddVoter(MemberId),
    /// Adds a learner, or demotes a voter.
    AddLearner(MemberId),
    Remove(MemberId),
}

/// How the steps take effect.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Transition {
    /// At once. May move one voter at most; without steps it changes nobody (the context may matter
    /// to the driver).
    Simple,
    /// Through a joint state; `auto_leave`: the leader ends it by itself.
    Joint { auto_leave: bool },
    /// Ends the joint state. Carries no steps.
    LeaveJoint,
}

/// A membership change as it stands in the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfChange {
    pub transition: Transition,
    pub steps: Vec<ConfStep>,
    /// The driver's own words (addresses, names); the core does not look inside.
    pub context: Bytes,
}

impl ConfStep {
    pub fn member(self) -> MemberId {
        match self {
            ConfStep::AddVoter(id) | ConfStep::AddLearner(id) | ConfStep::Remove(id) => id,
        }
    }
}

impl ConfChange {
    pub fn simple(step: ConfStep) -> ConfChange {
        ConfChange {
            transition: Transition::Simple,
            steps: vec![step],
            context: Bytes::new(),
        }
    }

    pub fn joint(steps: Vec<ConfStep>, auto_leave: bool) -> ConfChange {
        ConfChange {
            transition: Transition::Joint { auto_leave },
            steps,
            context: Bytes::new(),
        }
    }

    pub fn leave_joint() -> ConfChange {
        ConfChange {
            transition: Transition::LeaveJoint,
            steps: Vec::new(),
            context: Bytes::new(),
        }
    }
}

impl Membership {
    /// The membership after `change`, or why it cannot follow this one.
    pub fn after(&self, change: &ConfChange) -> Result<Membership, ConfChangeError> {
        let mut named: Vec<MemberId> = change.steps.iter().map(|step| step.member()).collect();
        if named.contains(&MemberId::NONE) {
            return Err(ConfChangeError::NoMember);
        }
        named.sort_unstable();
        if named.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(ConfChangeError::Repeated);
        }
        let next = match change.transition {
            Transition::Simple if change.steps.is_empty() => return Ok(self.clone()),
            Transition::Simple if self.is_joint() => return Err(ConfChangeError::Joint),
            Transition::Simple => {
                let mut next = self.clone();
                next.take(&change.steps);
                if moved_voters(&self.voters, &next.voters) > 1 {
                    return Err(ConfChangeError::TooManySteps);
                }
                next
            }
            Transition::Joint { .. } if self.is_joint() => return Err(ConfChangeError::Joint),
            Transition::Joint { auto_leave } => {
                let mut next = self.clone();
                next.voters_outgoing = self.voters.clone();
                next.auto_leave = auto_leave;
                next.take(&change.steps);
                next
            }
            Transition::LeaveJoint if !self.is_joint() => return Err(ConfChangeError::NotJoint),
            Transition::LeaveJoint => {
                let mut next = self.clone();
                next.voters_outgoing.clear();
                next.auto_leave = false;
                for id in std::mem::take(&mut next.learners_next) {
                    insert(&mut next.learners, id);
                }
                next
            }
        };
        if next.voters.is_empty() {
            return Err(ConfChangeError::NoVoters);
        }
        next.check();
        Ok(next)
    }

    fn take(&mut self, steps: &[ConfStep]) {
        for &step in steps {
            match step {
                ConfStep::AddVoter(id) => {
                    remove(&mut self.learners, id);
                    remove(&mut self.learners_next, id);
                    insert(&mut self.voters, id);
                }
                ConfStep::AddLearner(id) => {
                    remove(&mut self.voters, id);
                    // Whoever still votes in the outgoing half becomes a learner only when that
                    // half is gone.
                    if self.voters_outgoing.binary_search(&id).is_ok() {
                        insert(&mut self.learners_next, id);
                    } else {
                        insert(&mut self.learners, id);
                    }
                }
                ConfStep::Remove(id) => {
                    remove(&mut self.voters, id);
                    remove(&mut self.learners, id);
                    remove(&mut self.learners_next, id);
                }
            }
        }
    }

    /// Asserts what the module promises about a membership.
    pub(crate) fn check(&self) {
        assert!(
            self.is_well_formed(),
            "members do not fit together: {self:?}"
        );
    }

    /// Whether the module's promises hold; a peer's membership may break them.
    pub(crate) fn is_well_formed(&self) -> bool {
        let lists = [
            &self.voters,
            &self.voters_outgoing,
            &self.learners,
            &self.learners_next,
        ];
        lists.iter().all(|list| {
            list.windows(2).all(|pair| pair[0] < pair[1]) && list.first() != Some(&MemberId::NONE)
        }) && self.learners.iter().all(|id| !self.is_voter(*id))
            && self.learners_next.iter().all(|id| {
                self.voters.binary_search(id).is_err()
                    && self.voters_outgoing.binary_search(id).is_ok()
            })
            && (self.is_joint() || !self.auto_leave)
            && (!self.is_joint() || !self.voters.is_empty())
    }
}

fn insert(list: &mut Vec<MemberId>, id: MemberId) {
    if let Err(slot) = list.binary_search(&id) {
        list.insert(slot, id);
    }
}

fn remove(list: &mut Vec<MemberId>, id: MemberId) {
    if let Ok(slot) = list.binary_search(&id) {
        list.remove(slot);
    }
}

/// How many ids are in exactly one of the two sorted lists.
fn moved_voters(before: &[MemberId], after: &[MemberId]) -> usize {
    let gone = before
        .iter()
        .filter(|id| after.binary_search(id).is_err())
        .count();
    let come = after
        .iter()
        .filter(|id| before.binary_search(id).is_err())
        .count();
    gone + come
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quorum;

    fn ids(list: &[u64]) -> Vec<MemberId> {
        list.iter().copied().map(MemberId).collect()
    }

    fn plain(voters: &[u64], learners: &[u64]) -> Membership {
        Membership::new(ids(voters), ids(learners))
    }

    #[test]
    fn simple_changes_move_one_voter() {
        let m = plain(&[1, 2, 3], &[4]);
        let check = |step, voters: &[u64], learners: &[u64]| {
            assert_eq!(
                m.after(&ConfChange::simple(step)),
                Ok(plain(voters, learners)),
                "{step:?}"
            );
        };
        check(ConfStep::AddVoter(MemberId(5)), &[1, 2, 3, 5], &[4]);
        check(ConfStep::AddVoter(MemberId(4)), &[1, 2, 3, 4], &[]);
        check(ConfStep::AddVoter(MemberId(1)), &[1, 2, 3], &[4]);
        check(ConfStep::AddLearner(MemberId(2)), &[1, 3], &[2, 4]);
        check(ConfStep::AddLearner(MemberId(4)), &[1, 2, 3], &[4]);
        check(ConfStep::Remove(MemberId(3)), &[1, 2], &[4]);
        check(ConfStep::Remove(MemberId(4)), &[1, 2, 3], &[]);
        check(ConfStep::Remove(MemberId(9)), &[1, 2, 3], &[4]);
    }

    #[test]
    fn refusals() {
        let m = plain(&[1], &[]);
        let check = |m: &Membership, change: ConfChange, error| {
            assert_eq!(m.after(&change), Err(error), "{change:?}");
        };
        let add = |id| ConfStep::AddVoter(MemberId(id));
        check(
            &m,
            ConfChange::simple(ConfStep::Remove(MemberId(1))),
            ConfChangeError::NoVoters,
        );
        check(&m, ConfChange::simple(add(0)), ConfChangeError::NoMember);
        check(&m, ConfChange::leave_joint(), ConfChangeError::NotJoint);
        let mut two = ConfChange::simple(add(2));
        two.steps.push(add(3));
        check(&m, two, ConfChangeError::TooManySteps);
        check(
            &m,
            ConfChange::joint(vec![add(2), add(2)], true),
            ConfChangeError::Repeated,
        );
        let joint = m.after(&ConfChange::joint(vec![add(2)], true)).unwrap();
        check(
            &joint,
            ConfChange::joint(vec![add(3)], true),
            ConfChangeError::Joint,
        );
        check(&joint, ConfChange::simple(add(3)), ConfChangeError::Joint);
    }

    #[test]
    fn joint_swaps_everybody_and_demotes_late() {
        let m = plain(&[1, 2, 3], &[]);
        let steps = vec![
            ConfStep::AddVoter(MemberId(4)),
            ConfStep::AddVoter(MemberId(5)),
            ConfStep::AddLearner(MemberId(1)),
            ConfStep::Remove(MemberId(2)),
            ConfStep::Remove(MemberId(3)),
        ];
        let joint = m.after(&ConfChange::joint(steps, false)).unwrap();
        assert_eq!(joint.voters, ids(&[4, 5]));
        assert_eq!(joint.voters_outgoing, ids(&[1, 2, 3]));
        assert_eq!(joint.learners_next, ids(&[1]));
        assert!(joint.is_voter(MemberId(1)) && !joint.is_learner(MemberId(1)));
        assert_eq!(joint.members(), ids(&[1, 2, 3, 4, 5]));
        assert_eq!(
            joint.after(&ConfChange::leave_joint()),
            Ok(plain(&[4, 5], &[1]))
        );
    }

    /// Every pair of memberships that may follow each other shares a member in any two majorities.
    #[test]
    fn neighbours_overlap() {
        for before in 1u64..32 {
            let voters: Vec<u64> = (1..=5)
                .filter(|bit| before & (1 << (bit - 1)) != 0)
                .collect();
            let m = plain(&voters, &[]);
            for id in 1..=5 {
                for step in [
                    ConfStep::AddVoter(MemberId(id)),
                    ConfStep::Remove(MemberId(id)),
                ] {
                    let Ok(next) = m.after(&ConfChange::simple(step)) else {
                        continue;
                    };
                    for yes in 0u64..32 {
                        let has = |id: MemberId| yes & (1 << (id.0 - 1)) != 0;
                        let won = quorum::is_majority(&m.voters, has);
                        let other = quorum::is_majority(&next.voters, |id| !has(id));
                        assert!(!(won && other), "{m:?} {next:?} {yes:b}");
                    }
                }
            }
        }
    }
}
