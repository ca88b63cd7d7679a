//! Whole clusters under every fault at once, a seed each (`consensus-sim`); see there for what may
//! go wrong and what is checked.

use consensus::Ignored;
use consensus_sim::many::{cores, run_many};
use consensus_sim::plan::Fault;
use consensus_sim::{Options, Property, run};

/// Seeds of one run of the suite, or as many as the variable says: mutants need fewer.
fn seeds() -> u64 {
    let asked = std::env::var("PILASTER_SIM_SEEDS").ok();
    asked.map_or(5_000, |text| {
        text.parse().expect("PILASTER_SIM_SEEDS is a number")
    })
}

#[test]
fn every_property_holds() {
    let count = seeds();
    let summary = run_many(0..count, cores(), Options::default(), |_| {});
    if let Some((seed, failure)) = summary.first_failure {
        panic!("seed {seed}: {failure}\nreplay: cargo xtask simulate --seed {seed}");
    }
    assert_eq!(summary.passed, count);
    for line in summary.coverage.lines() {
        println!("{line}");
    }
    // Silence is trusted only if the runs met what they are for: so much for each thousand seeds.
    let met = |what: &str, least: u64| {
        let count = summary.coverage.get(what) * 1000 / count.max(1);
        assert!(count >= least, "too quiet: {what} {count}, not {least}");
    };
    met("coups", 500);
    met("crashes", 4000);
    met("disk stalls", 1000);
    met("entries committed", 20_000);
    met("entries loaded back", 500);
    met("joint memberships", 50);
    met("joint memberships left", 50);
    met("leaders removed", 50);
    met("leaders that gave up a stalled disk", 20);
    met("learners promoted", 5);
    met("log trims", 500);
    met("membership changes", 300);
    met("operations answered", 30_000);
    met("partitions", 4000);
    met("pauses", 1000);
    met("proposals forwarded", 5000);
    met("reads answered", 15_000);
    met("snapshots taken", 50);
    met("terms with a leader", 3000);
    met("transfers", 300);
    met("writes torn", 50);
    for reason in [
        Ignored::OldTerm,
        Ignored::LeaderAlive,
        Ignored::UnknownMember,
        Ignored::Stale,
        Ignored::NotTheLeader,
        Ignored::NotLeader,
        Ignored::OldSnapshot,
        Ignored::CannotCampaign,
        Ignored::ProposalRefused,
    ] {
        let count = summary.coverage.ignored(reason);
        assert!(count > 0 || seeds() < 2_000, "never ignored: {reason:?}");
    }
    // Correct members never say anything impossible to each other.
    for reason in [
        Ignored::FromSelf,
        Ignored::TermTooFar,
        Ignored::ImpossibleIndex,
        Ignored::MalformedEntries,
        Ignored::ConflictsWithCommitted,
    ] {
        assert_eq!(summary.coverage.ignored(reason), 0, "{reason:?}");
    }
    assert_eq!(
        Fault::ALL.len(),
        15,
        "a new kind of fault wants a line above"
    );
}

/// One seed is one run, whatever else the process does and whether or not it is told.
#[test]
fn the_same_seed_does_the_same() {
    for seed in 0..40 {
        let told = run(seed, Options::default(), true);
        let other_thread = std::thread::spawn(move || run(seed, Options::default(), false));
        let again = other_thread.join().expect("no panic");
        assert_eq!(
            (told.hash, told.events),
            (again.hash, again.events),
            "seed {seed}"
        );
        assert!(told.lines.len() > 50 && again.lines.is_empty());
    }
    assert_ne!(
        run(1, Options::default(), false).hash,
        run(2, Options::default(), false).hash
    );
}

/// The canary: disks that lose what they called durable cannot be survived, and it must be seen;
/// also by those checks alone that look at what members and clients end up with.
#[test]
fn a_lying_disk_is_noticed() {
    for end_to_end in [false, true] {
        let mut options = Options::default();
        (options.lying_disk, options.end_to_end) = (true, end_to_end);
        let summary = run_many(0..500, cores(), options, |_| {});
        let (seed, failure) = summary.first_failure.expect("a lying disk is noticed");
        println!("seed {seed}: {failure}");
    }
}

/// Seeds that once found something wrong in the core. What they found also has a test that shows it
/// step by step (named in `docs/consensus-proof.md`): a seed means another run once the simulator
/// changes.
#[test]
fn seeds_that_found_something_pass() {
    for seed in FOUND {
        let outcome = run(seed, Options::default(), false);
        if let Some(failure) = outcome.failure {
            panic!("seed {seed}: {failure}\nreplay: cargo xtask simulate --seed {seed}");
        }
    }
}

/// In the order of the list in `docs/consensus-proof.md`.
const FOUND: [u64; 3] = [13, 68_999, 20_293];

/// A failure names what was broken.
#[test]
fn a_failure_says_what_where_and_when() {
    let options = Options {
        lying_disk: true,
        ..Options::default()
    };
    let failed = (0..500).find_map(|seed| run(seed, options, false).failure);
    let failure = failed.expect("a lying disk is noticed");
    assert!(failure.at > 0 && !failure.what.is_empty());
    assert!(failure.property != Property::Progress, "{failure}");
}
