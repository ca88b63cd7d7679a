//! Whole clusters under every fault at once, a seed each; the oracle checks every step, and at the
//! end the cluster must recover. A failure names the seed; see `sim` for how to replay it.

mod sim;

use consensus::*;
use sim::random::Random;
use sim::{Faults, Sim};

fn tune(seed: u64) -> impl Fn(&mut Config) {
    move |config| {
        config.pre_vote = seed % 4 != 3;
        config.check_quorum = seed % 5 != 4;
        config.lease_reads = config.check_quorum && seed.is_multiple_of(3);
    }
}

/// One run; says what it met.
fn run(seed: u64) -> Result<Sim, String> {
    let mut random = Random::new(seed ^ 0xfa17);
    let faults = Faults::drawn(&mut random);
    let voters = [1, 2, 3, 3, 5][random.below(5) as usize];
    let mut sim = Sim::new(seed, voters, faults, tune(seed));
    sim.run(1500).and_then(|()| sim.recover())?;
    Ok(sim)
}

/// Names the seed whatever ends the run, an assertion of the core included.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let seed = self.0;
            eprintln!(
                "replay: CONSENSUS_SEED={seed} cargo test -p consensus --test simulation one_seed"
            );
        }
    }
}

fn check(seed: u64) -> Sim {
    let _named = Named(seed);
    run(seed).unwrap_or_else(|what| panic!("seed {seed}: {what}"))
}

#[test]
fn many_seeds() {
    let (mut terms, mut reads, mut installs, mut loads) = (0, 0, 0, 0);
    let (mut crashes, mut changes, mut committed) = (0, 0, 0);
    for seed in 0..120 {
        let sim = check(seed);
        terms += sim.oracle.terms();
        reads += sim.oracle.reads_answered;
        installs += sim.oracle.snapshots_installed;
        loads += sim.oracle.loads;
        crashes += sim.oracle.crashes;
        changes += sim.oracle.membership_changes();
        committed += sim.oracle.committed().0;
    }
    println!(
        "committed {committed}, terms {terms}, reads {reads}, installs {installs}, loads {loads}, \
         crashes {crashes}, membership changes {changes}"
    );
    // Silence is trusted only if the runs met what they are for.
    assert!(
        terms > 300 && reads > 1_000 && committed > 5_000,
        "too quiet"
    );
    assert!(
        installs > 10 && loads > 10 && crashes > 100 && changes > 60,
        "too quiet"
    );
}

/// The canary: with disks that call a write durable before it is, something acknowledged gets lost,
/// and the oracle must see it.
#[test]
fn a_lying_disk_is_noticed() {
    let noticed = (0..40u64).any(|seed| {
        let outcome = std::panic::catch_unwind(|| {
            let mut faults = Faults::drawn(&mut Random::new(seed));
            (faults.lying_disk, faults.crash, faults.write_steps_max) = (true, 8, 20);
            Sim::new(seed, 3, faults, |_| {}).run(1500)
        });
        !matches!(outcome, Ok(Ok(())))
    });
    assert!(noticed, "40 runs with lying disks passed for correct");
}

/// Replays `CONSENSUS_SEED`, or a range of seeds given as `CONSENSUS_SEED=from..to`.
#[test]
fn one_seed() {
    let Ok(seeds) = std::env::var("CONSENSUS_SEED") else {
        return;
    };
    match seeds.split_once("..") {
        Some((from, to)) => {
            for seed in from.parse().unwrap()..to.parse().unwrap() {
                check(seed);
            }
        }
        None => drop(check(seeds.parse().unwrap())),
    }
}
