//! Majorities, without a Raft instance: who won, and what a majority has reached.
//!
//! Always true: an empty set of voters agrees to everything, so that the absent outgoing half of a
//! plain membership never stands in the way. Whoever asks makes sure that at least one half has
//! voters.

use crate::membership::Membership;
use crate::types::MemberId;

/// How many of `voters` make a majority.
pub fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

/// Whether a majority of `voters` says yes.
pub fn is_majority(voters: &[MemberId], yes: impl Fn(MemberId) -> bool) -> bool {
    voters.is_empty() || voters.iter().filter(|id| yes(**id)).count() >= majority(voters.len())
}

/// The outcome of a vote.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VoteOutcome {
    Won,
    /// Cannot be won any more.
    Lost,
    Open,
}

/// Counts the votes of one half; `vote` says what a member answered, if it did.
fn outcome_of_half(voters: &[MemberId], vote: &impl Fn(MemberId) -> Option<bool>) -> VoteOutcome {
    if voters.is_empty() {
        return VoteOutcome::Won;
    }
    let needed = majority(voters.len());
    let (mut yes, mut open) = (0, 0);
    for id in voters {
        match vote(*id) {
            Some(true) => yes += 1,
            None => open += 1,
            Some(false) => {}
        }
    }
    if yes >= needed {
        VoteOutcome::Won
    } else if yes + open < needed {
        VoteOutcome::Lost
    } else {
        VoteOutcome::Open
    }
}

/// Counts votes: a joint membership is won in both halves or not at all.
pub fn outcome(members: &Membership, vote: impl Fn(MemberId) -> Option<bool>) -> VoteOutcome {
    let incoming = outcome_of_half(&members.voters, &vote);
    let outgoing = outcome_of_half(&members.voters_outgoing, &vote);
    match (incoming, outgoing) {
        (VoteOutcome::Won, VoteOutcome::Won) => VoteOutcome::Won,
        (VoteOutcome::Lost, _) | (_, VoteOutcome::Lost) => VoteOutcome::Lost,
        _ => VoteOutcome::Open,
    }
}

/// Voters whose positions are sorted without allocating.
const INLINE_VOTERS: usize = 16;

/// The highest position that a majority of `voters` has reached; `u64::MAX` without voters.
fn reached_by_half(voters: &[MemberId], position: &impl Fn(MemberId) -> u64) -> u64 {
    match voters {
        [] => u64::MAX,
        [only] => position(*only),
        _ if voters.len() <= INLINE_VOTERS => {
            let mut positions = [0; INLINE_VOTERS];
            for (slot, id) in positions.iter_mut().zip(voters) {
                *slot = position(*id);
            }
            nth_from_top(&mut positions[..voters.len()])
        }
        _ => nth_from_top(&mut voters.iter().map(|id| position(*id)).collect::<Vec<_>>()),
    }
}

fn nth_from_top(positions: &mut [u64]) -> u64 {
    positions.sort_unstable();
    positions[positions.len() - majority(positions.len())]
}

/// The highest position that a quorum has reached: of both halves in a joint membership.
pub fn reached(members: &Membership, position: impl Fn(MemberId) -> u64) -> u64 {
    reached_by_half(&members.voters, &position)
        .min(reached_by_half(&members.voters_outgoing, &position))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn members(incoming: &[u64], outgoing: &[u64]) -> Membership {
        let mut members = Membership::new(incoming.iter().copied().map(MemberId), []);
        members.voters_outgoing = outgoing.iter().copied().map(MemberId).collect();
        members
    }

    #[test]
    fn positions() {
        let check = |incoming: &[u64], outgoing: &[u64], expected| {
            // A member's position is its id times ten.
            assert_eq!(
                reached(&members(incoming, outgoing), |id| id.0 * 10),
                expected
            );
        };
        check(&[1], &[], 10);
        check(&[1, 2], &[], 10);
        check(&[1, 2, 3], &[], 20);
        check(&[1, 2, 3, 4], &[], 20);
        check(&[1, 2, 3, 4, 5], &[], 30);
        check(&[4, 5, 6], &[1, 2, 3], 20);
        check(&[1, 2, 3], &[4, 5, 6], 20);
    }

    #[test]
    fn votes() {
        use VoteOutcome::*;
        let check = |incoming: &[u64], outgoing: &[u64], yes: &[u64], no: &[u64], expected| {
            let vote = |id: MemberId| match () {
                () if yes.contains(&id.0) => Some(true),
                () if no.contains(&id.0) => Some(false),
                () => None,
            };
            assert_eq!(outcome(&members(incoming, outgoing), vote), expected);
        };
        check(&[1], &[], &[1], &[], Won);
        check(&[1, 2], &[], &[1], &[], Open);
        check(&[1, 2], &[], &[1], &[2], Lost);
        check(&[1, 2, 3], &[], &[1, 2], &[], Won);
        check(&[1, 2, 3], &[], &[1], &[2], Open);
        check(&[1, 2, 3], &[], &[1], &[2, 3], Lost);
        check(&[1, 2, 3], &[4], &[1, 2], &[], Open);
        check(&[1, 2, 3], &[4], &[1, 2], &[4], Lost);
        check(&[1, 2, 3], &[4], &[1, 2, 4], &[], Won);
    }

    proptest! {
        /// The sorting way agrees with the definition: the highest position with a majority at or
        /// above it.
        #[test]
        fn agrees_with_the_definition(
            positions in proptest::collection::vec(0u64..20, 1..24),
            split in 0usize..24,
        ) {
            let all: Vec<u64> = (0..positions.len() as u64).collect();
            let split = split.min(all.len() - 1);
            let members = members(&all[split..], &all[..split]);
            let at = |id: MemberId| positions[id.0 as usize];
            let holds = |p: u64| {
                is_majority(&members.voters, |id| at(id) >= p)
                    && is_majority(&members.voters_outgoing, |id| at(id) >= p)
            };
            let expected = (0u64..20).rev().find(|p| holds(*p)).unwrap();
            prop_assert_eq!(reached(&members, at), expected);
        }
    }
}
