//! When two machines count as the same: their whole state is, apart from what cannot show while time stands still.
//!
//! The state is taken from the derived `Debug` of `Raft`, so a field added there is part of it without anybody thinking of
//! it. Only the fields named here are left out; if one of them is renamed the search stops instead of going on with a coarser
//! or finer idea of "the same".

use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};

use consensus::Raft;

/// The same in all states, counted for people only, or about time: how each begins in the text, and how it ends.
const LEFT_OUT: &[(&str, &str)] = &[
    ("config: Config {", "}, "),
    ("random: Random(", "), "),
    ("now: ", ", "),
    ("election_elapsed: ", ", "),
    ("election_timeout: ", ", "),
    ("ignored: IgnoredCounts([", "]), "),
    ("spare: [", "] }"),
];

/// A number for the whole state of a machine.
pub fn machine(raft: &Raft) -> u64 {
    let text = format!("{raft:?}");
    let mut hasher = DefaultHasher::new();
    let mut rest = text.as_str();
    for (start, end) in LEFT_OUT {
        let at = rest
            .find(start)
            .unwrap_or_else(|| panic!("no field {start:?} left in {rest}"));
        rest[..at].hash(&mut hasher);
        let body = &rest[at + start.len()..];
        let len = body
            .find(end)
            .unwrap_or_else(|| panic!("no end of {start:?} in {body}"));
        rest = &body[len + end.len()..];
    }
    rest.hash(&mut hasher);
    hasher.finish()
}

/// A number for anything small.
pub fn value(of: &impl Debug) -> u64 {
    let mut hasher = DefaultHasher::new();
    format!("{of:?}").hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use consensus::{Config, MemberId, Membership, Restored};

    use super::*;

    fn fresh(seed: u64) -> Raft {
        let voters = [1, 2, 3].map(MemberId);
        let config = Config {
            pre_vote: false,
            ..Config::new(MemberId(1), seed)
        };
        Raft::new(config, Restored::founding(Membership::new(voters, [])))
    }

    #[test]
    fn time_does_not_show_and_all_else_does() {
        let mut raft = fresh(1);
        let before = machine(&raft);
        raft.tick();
        assert_eq!(machine(&raft), before);
        raft.campaign();
        assert_ne!(machine(&raft), before);
        // The number of the incarnation is part of what a read is known by.
        assert_ne!(machine(&fresh(2)), before);
    }
}
