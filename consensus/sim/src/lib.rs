//! Whole clusters of the Raft core in one thread and virtual time, under every fault at once.
//!
//! A seed decides everything: the cluster, its settings, what goes wrong when, what clients ask
//! ([`plan`]). Members are the core behind a driver that obeys the order contract and nothing more
//! ([`driver`], [`work`]), on disks that lose what was not synced ([`disk`]) and links that lose, double,
//! delay and reorder ([`network`]). After every step an oracle checks what must hold ([`oracle`]);
//! at the end the cluster must show that it lives ([`finish`]), and what clients saw must have an
//! order in time ([`linear`]).
//!
//! *Invariants:* the same seed gives the same events, on every machine; the core is driven only
//! through its public interface, as a server would.
//!
//! Used by the suite of `consensus` and by `cargo xtask simulate`; no part of the server. The same
//! sources are built a second time against a core that can be told to do something wrong
//! (`consensus/sabotage`).

#![forbid(unsafe_code)]

pub mod cli;
pub mod clients;
pub mod coverage;
pub mod disk;
pub mod driver;
pub mod faults;
pub mod finish;
pub mod linear;
pub mod machine;
pub mod many;
pub mod member;
pub mod network;
pub mod oracle;
pub mod panics;
pub mod plan;
pub mod random;
pub mod trace;
pub mod work;
pub mod world;

use coverage::Coverage;
pub use oracle::Property;
pub use plan::{Options, Plan};
use trace::Trace;
use world::World;

/// How a run ended.
#[derive(Debug)]
pub struct Outcome {
    pub seed: u64,
    /// What was broken, if anything.
    pub failure: Option<Failure>,
    pub coverage: Coverage,
    /// Stands for everything that happened, in order.
    pub hash: u64,
    /// Events handled.
    pub events: u64,
    /// Every event in words, if that was asked for.
    pub lines: Vec<String>,
}

#[derive(Clone, Debug)]
pub struct Failure {
    pub property: Property,
    /// When, in units of virtual time.
    pub at: u64,
    pub what: String,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (property, at) = (self.property, trace::time(self.at));
        write!(f, "{property:?} broken at {at}: {}", self.what)
    }
}

/// One run of `seed`; with `is_told` every event is put into words.
pub fn run(seed: u64, options: Options, is_told: bool) -> Outcome {
    let mut world = World::new(Plan::drawn(seed, options), Trace::new(is_told));
    let quiet_at = world.plan.quiet_at;
    let ended = panics::caught(|| world.run_until(quiet_at).and_then(|()| world.finish()));
    let failure = match ended {
        Ok(Ok(())) => None,
        Ok(Err(violation)) => Some((violation.property, violation.what)),
        Err(assertion) => Some((Property::Assertion, assertion)),
    };
    let at = world.now;
    Outcome {
        seed,
        failure: failure.map(|(property, what)| Failure { property, at, what }),
        coverage: world.coverage,
        hash: world.trace.hash(),
        events: world.events,
        lines: world.trace.into_lines(),
    }
}
