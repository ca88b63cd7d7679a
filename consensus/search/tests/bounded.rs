//! All states within bounds keep every property; and the same search finds what a broken driver leads to, so its silence
//! means something.

use std::sync::atomic::Ordering;

use consensus_search::{Bounds, Cluster, Fault};
use stateright::{Checker, HasDiscoveries, Model};

/// Two members may campaign; everybody answers.
const TWO_TERMS: Bounds = Bounds::none().campaigns(2).candidates(2);

/// Searches everything within `bounds`. `wanted` must be met on the way.
fn search(bounds: Bounds, wanted: &[&'static str]) -> impl Checker<Cluster> {
    // One thread a search: the tests already run side by side.
    let checker = Cluster::new(bounds).checker().threads(1).spawn_bfs().join();
    println!(
        "{bounds:?}: {} states, {} steps between them, the longest way {}",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth()
    );
    for (name, path) in checker.discoveries() {
        let is_failure = checker
            .model()
            .property(name)
            .expectation
            .discovery_is_failure();
        assert!(
            !is_failure,
            "{name} does not hold after\n{:#?}",
            path.into_actions()
        );
    }
    for name in wanted {
        assert!(
            checker.discovery(name).is_some(),
            "too quiet: not once {name}"
        );
    }
    checker
}

#[test]
fn logs_and_terms() {
    let checker = search(
        TWO_TERMS.proposals(1),
        &[
            "two terms have a leader",
            "two lead at one time",
            "a write is committed",
        ],
    );
    assert!(
        checker
            .model()
            .met
            .replaced_suffixes
            .load(Ordering::Relaxed)
            > 0
    );
}

#[test]
fn reads_across_a_change_of_leader() {
    search(
        TWO_TERMS.reads(1),
        &[
            "two terms have a leader",
            "two lead at one time",
            "a read is answered",
        ],
    );
}

#[test]
fn a_crash_that_loses_what_was_not_durable() {
    let checker = search(
        TWO_TERMS.crashes(1).slow_disks(1),
        &["two terms have a leader", "two lead at one time"],
    );
    assert!(checker.model().met.lost_writes.load(Ordering::Relaxed) > 0);
}

#[test]
fn a_message_that_arrives_twice_or_early() {
    search(TWO_TERMS.duplicates(1), &["two terms have a leader"]);
    search(TWO_TERMS.overtakings(1), &["two terms have a leader"]);
}

#[test]
fn a_link_that_loses_what_is_on_its_way() {
    search(TWO_TERMS.losses(1), &["two terms have a leader"]);
}

/// Searches with a rule broken; `property` must fail.
fn must_be_found(bounds: Bounds, fault: Fault, property: &'static str) {
    let checker = Cluster::broken(bounds, fault)
        .checker()
        .threads(1)
        .finish_when(HasDiscoveries::AllOf([property].into()))
        .spawn_bfs()
        .join();
    let found = checker.discovery(property);
    let way = found.unwrap_or_else(|| panic!("{fault:?} passed for correct"));
    println!("{fault:?} breaks {property} after {:?}", way.into_actions());
}

#[test]
fn a_vote_that_a_crash_forgets_is_found() {
    let bounds = TWO_TERMS.crashes(1).slow_disks(1);
    must_be_found(bounds, Fault::VoteNotDurable, "election safety");
}

#[test]
fn two_leaders_of_one_term_make_logs_that_do_not_match() {
    let bounds = TWO_TERMS.crashes(1).slow_disks(1).proposals(2);
    must_be_found(bounds, Fault::VoteNotDurable, "log matching");
}

#[test]
fn an_acknowledged_entry_that_a_crash_loses_is_found() {
    let bounds = TWO_TERMS.crashes(1).slow_disks(1);
    must_be_found(bounds, Fault::DiskLies, "leader completeness");
}

#[test]
fn a_read_that_nobody_confirmed_is_found() {
    must_be_found(
        TWO_TERMS.reads(1),
        Fault::ReadWithoutQuorum,
        "linearizable reads",
    );
}
