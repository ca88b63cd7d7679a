//! Whether a log and a tree file belong together.
//!
//! Always true here: what is accepted can be handed to Raft and to the log's writer, none of whose assertions it breaks; what
//! is refused was read and not changed. Two things are asked:
//!
//! - *Identity*: each commit to the tree file names the log its entries came from (`storage::mvcc::LogTie`). A tree file
//!   that another program changed since, or that came from elsewhere, names no log or another one.
//! - *Position*: the log must hold the tree's consistent index with the same term, or begin right behind it, and its terms
//!   must not run backwards from there.
//!
//! A log that was never used (made behind exactly this tree's position, no entry, no vote) fits any tree: a crash between
//! the making of a log and the first commit leaves just that. An empty tree fits a log that was founded, because then the
//! log holds everything. Files of earlier releases carry no ids; for them position decides alone.
//!
//! Pure: facts in, verdict out.

use consensus::LogPosition;
use storage::mvcc::{Applied, LogTie};
use storage::wal;
use thiserror::Error;

use super::metadata::{LogIdentity, Origin};

/// What the tree file says.
#[derive(Clone, Copy, Debug)]
pub struct TreeFacts {
    /// Its consistent index; the founders' agreement in a tree that nothing was applied to.
    pub applied: Applied,
    pub tie: Option<LogTie>,
    /// Nothing was applied and nothing is stored.
    pub is_empty: bool,
}

/// What the log says.
#[derive(Clone, Copy, Debug)]
pub struct LogFacts<'l> {
    pub identity: Option<LogIdentity>,
    pub mark: Option<Applied>,
    /// A hard state was written: the member has voted or led.
    pub has_hard_state: bool,
    /// From the tree's consistent index on, as far as retained.
    pub entries: &'l [wal::Entry],
    pub last_index: u64,
}

/// How they fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// They name each other, or both are of a release without ids.
    Known,
    /// The tree file does not name this log yet; it must, durably, before the log takes its first entry.
    New,
}

/// Why they do not.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Misfit {
    #[error("the tree file was written with another log ({written:016x})")]
    OtherLog { written: u64 },
    #[error(
        "another program has changed the tree file since it was written with a log (etcd ran on it, or `etcdutl snapshot restore` made it)"
    )]
    Changed,
    #[error(
        "the tree file was written without a log of this program (by etcd, or restored from a backup), and the log holds entries up to {last_index}"
    )]
    Unnamed { last_index: u64 },
    #[error("the tree file is new, and the log began behind another one that is not here")]
    AdoptedElsewhere,
    #[error(
        "the log holds nothing before entry {first}, but the tree file ends at {applied}: it is of an older state"
    )]
    Older { first: u64, applied: u64 },
    #[error("entry {index} is of term {in_log} in the log and of term {in_tree} in the tree file")]
    OtherTerm {
        index: u64,
        in_log: u64,
        in_tree: u64,
    },
    #[error("entry {index} of term {term} in the log cannot follow term {before}")]
    TermsRunBackwards { index: u64, term: u64, before: u64 },
}

/// Decides. A log that ends before the tree's consistent index is left to the log's own check.
pub fn judge(tree: &TreeFacts, log: &LogFacts<'_>) -> Result<Fit, Misfit> {
    let fit = judge_identity(tree, log)?;
    judge_position(tree.applied, log)?;
    Ok(fit)
}

fn judge_identity(tree: &TreeFacts, log: &LogFacts<'_>) -> Result<Fit, Misfit> {
    let current = tree.tie.filter(|tie| tie.applied == tree.applied);
    match (log.identity, current) {
        (Some(identity), Some(tie)) if identity.id == tie.log_id => return Ok(Fit::Known),
        (None, None) if tree.tie.is_none() => return Ok(Fit::Known),
        _ => {}
    }
    let Some(identity) = log.identity else {
        let written = tree.tie.map_or(0, |tie| tie.log_id);
        return Err(Misfit::OtherLog { written });
    };
    if is_unused(tree.applied, log) {
        return Ok(Fit::New);
    }
    match (current, tree.tie, identity.origin) {
        (Some(tie), ..) => Err(Misfit::OtherLog {
            written: tie.log_id,
        }),
        (None, Some(_), _) => Err(Misfit::Changed),
        (None, None, Origin::Founded) if tree.is_empty => Ok(Fit::New),
        (None, None, Origin::Adopted) if tree.is_empty => Err(Misfit::AdoptedElsewhere),
        (None, None, _) => Err(Misfit::Unnamed {
            last_index: log.last_index,
        }),
    }
}

/// Made behind this position, and nothing written since.
fn is_unused(applied: Applied, log: &LogFacts<'_>) -> bool {
    log.mark == Some(applied) && log.last_index == applied.index && !log.has_hard_state
}

fn judge_position(applied: Applied, log: &LogFacts<'_>) -> Result<(), Misfit> {
    let other_term = |in_log: u64| Misfit::OtherTerm {
        index: applied.index,
        in_log,
        in_tree: applied.term,
    };
    if let Some(mark) = log.mark {
        if applied.index < mark.index {
            return Err(Misfit::Older {
                first: mark.index + 1,
                applied: applied.index,
            });
        }
        if mark.index == applied.index && mark.term != applied.term {
            return Err(other_term(mark.term));
        }
    }
    let mut before = applied.term;
    for entry in log.entries {
        let (index, term) = (entry.index.0, entry.term.0);
        if index < applied.index {
            continue;
        }
        if index == applied.index && term != applied.term {
            return Err(other_term(term));
        }
        if term < before {
            return Err(Misfit::TermsRunBackwards {
                index,
                term,
                before,
            });
        }
        before = term;
    }
    match log.entries.first().map(|entry| entry.index.0) {
        Some(first) if applied.index + 1 < first => Err(Misfit::Older {
            first,
            applied: applied.index,
        }),
        _ => Ok(()),
    }
}

/// The position as Raft knows it.
pub fn position(applied: Applied) -> LogPosition {
    LogPosition::new(
        consensus::LogIndex(applied.index),
        consensus::Term(applied.term),
    )
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use consensus::{MemberId, Raft};
    use proptest::prelude::*;

    use super::*;
    use crate::start::open::restored;

    fn at(index: u64, term: u64) -> Applied {
        Applied { index, term }
    }

    fn tie(log_id: u64, applied: Applied) -> Option<LogTie> {
        Some(LogTie { log_id, applied })
    }

    fn tree(applied: Applied, tie: Option<LogTie>) -> TreeFacts {
        TreeFacts {
            applied,
            tie,
            is_empty: false,
        }
    }

    fn entries(list: &[(u64, u64)]) -> Vec<wal::Entry> {
        let entry = |(index, term): &(u64, u64)| wal::Entry {
            term: wal::Term(*term),
            index: wal::LogIndex(*index),
            kind: 0,
            payload: Bytes::new(),
        };
        list.iter().map(entry).collect()
    }

    /// A log with id 7 that began behind (1, 1) and was used.
    fn log(entries: &[wal::Entry]) -> LogFacts<'_> {
        LogFacts {
            identity: Some(LogIdentity {
                id: 7,
                origin: Origin::Founded,
            }),
            mark: Some(at(1, 1)),
            has_hard_state: true,
            entries,
            last_index: entries.last().map_or(1, |last| last.index.0),
        }
    }

    #[test]
    fn a_log_is_known_by_its_id_and_only_while_nobody_else_moved_the_index() {
        let held = entries(&[(5, 2), (6, 2), (7, 3)]);
        let here = at(5, 2);
        let check = |tie, expected| assert_eq!(judge(&tree(here, tie), &log(&held)), expected);
        check(tie(7, here), Ok(Fit::Known));
        check(tie(8, here), Err(Misfit::OtherLog { written: 8 }));
        check(tie(7, at(4, 2)), Err(Misfit::Changed));
        check(tie(7, at(5, 1)), Err(Misfit::Changed));
        check(None, Err(Misfit::Unnamed { last_index: 7 }));
        // Neither has an id: files of an earlier release.
        let old = LogFacts {
            identity: None,
            ..log(&held)
        };
        assert_eq!(judge(&tree(here, None), &old), Ok(Fit::Known));
        let other = judge(&tree(here, tie(8, here)), &old);
        assert_eq!(other, Err(Misfit::OtherLog { written: 8 }));
    }

    #[test]
    fn a_log_that_was_never_used_fits_the_tree_it_was_made_for() {
        let unused = LogFacts {
            mark: Some(at(5, 2)),
            has_hard_state: false,
            last_index: 5,
            ..log(&[])
        };
        // As a start leaves it that was cut short; the tree may be a backup that names its old log.
        for named in [None, tie(8, at(5, 2)), tie(7, at(4, 2))] {
            assert_eq!(judge(&tree(at(5, 2), named), &unused), Ok(Fit::New));
        }
        assert!(judge(&tree(at(6, 2), None), &unused).is_err());
        let voted = LogFacts {
            has_hard_state: true,
            ..unused
        };
        assert!(judge(&tree(at(5, 2), None), &voted).is_err());
    }

    #[test]
    fn a_founded_log_stands_for_a_lost_tree_and_an_adopted_one_does_not() {
        let held = entries(&[(2, 2), (3, 2)]);
        let lost = TreeFacts {
            applied: at(1, 1),
            tie: None,
            is_empty: true,
        };
        assert_eq!(judge(&lost, &log(&held)), Ok(Fit::New));
        let adopted = LogFacts {
            identity: Some(LogIdentity {
                id: 7,
                origin: Origin::Adopted,
            }),
            ..log(&held)
        };
        assert_eq!(judge(&lost, &adopted), Err(Misfit::AdoptedElsewhere));
        let trimmed = LogFacts {
            mark: Some(at(2, 2)),
            ..log(&held[1..])
        };
        let older = Misfit::Older {
            first: 3,
            applied: 1,
        };
        assert_eq!(judge(&lost, &trimmed), Err(older));
    }

    #[test]
    fn a_log_that_cannot_continue_the_tree_is_refused_whatever_it_names() {
        let here = at(5, 3);
        let check = |list: &[(u64, u64)], mark: Applied, expected: Misfit| {
            let held = entries(list);
            let log = LogFacts {
                mark: Some(mark),
                ..log(&held)
            };
            assert_eq!(judge(&tree(here, tie(7, here)), &log), Err(expected));
        };
        let other_term = |in_log| Misfit::OtherTerm {
            index: 5,
            in_log,
            in_tree: 3,
        };
        check(&[(5, 2), (6, 3)], at(1, 1), other_term(2));
        check(&[(6, 3)], at(5, 2), other_term(2));
        let backwards = |index, term, before| Misfit::TermsRunBackwards {
            index,
            term,
            before,
        };
        check(&[(6, 2)], at(4, 2), backwards(6, 2, 3));
        check(&[(5, 3), (6, 4), (7, 3)], at(1, 1), backwards(7, 3, 4));
        let older = |first| Misfit::Older { first, applied: 5 };
        check(&[(8, 3)], at(7, 3), older(8));
        check(&[], at(9, 3), older(10));
    }

    proptest! {
        /// Whatever is accepted, Raft takes: none of its assertions fails.
        #[test]
        fn what_is_accepted_can_be_restored(
            index in 1u64..6,
            term in 0u64..4,
            tie_term in 0u64..4,
            names in 0u64..3,
            identity in proptest::option::of(any::<bool>()),
            is_empty: bool,
            mark in proptest::option::of((0u64..7, 0u64..4)),
            first in 0u64..3,
            terms in proptest::collection::vec(0u64..4, 0..6),
            hard in (0u64..5, 0u64..3, 0u64..9),
        ) {
            let applied = at(index, term);
            let tie = (names != 0).then_some(LogTie {
                log_id: 6 + names,
                applied: at(index, tie_term),
            });
            let tree = TreeFacts { applied, tie, is_empty };
            // As the log hands them over: without gaps, and what is missing before them covered by the mark.
            let mark = mark.map(|(index, term)| at(index, term));
            let covered = mark.map_or(0, |mark| mark.index);
            let begin = index.max(first).max(1).min(covered.max(index) + 1);
            let list: Vec<(u64, u64)> = (begin..).zip(terms).collect();
            let held = entries(&list);
            let last_index = list.last().map_or(covered, |(index, _)| *index).max(covered);
            let state = wal::HardState {
                term: wal::Term(hard.0),
                vote: wal::Vote(hard.1),
                commit: wal::LogIndex(hard.2.min(last_index)),
            };
            let origin = |founded| if founded { Origin::Founded } else { Origin::Adopted };
            let log = LogFacts {
                identity: identity.map(|founded| LogIdentity { id: 7, origin: origin(founded) }),
                mark,
                has_hard_state: state != wal::HardState::default(),
                entries: &held,
                last_index,
            };
            // The log refuses by itself what ends before the tree.
            if judge(&tree, &log).is_ok() && applied.index <= last_index {
                let me = MemberId(1);
                let restored = restored(me, state, &held, applied);
                Raft::new(consensus::Config::new(me, 1), restored);
            }
        }
    }
}
