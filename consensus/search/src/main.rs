//! A search with other bounds than those of the tests, as far as time and memory go.
//!
//! `cargo run --release -- campaigns=3 candidates=3 proposals=1 states=20000000`: each bound of `Bounds` by name, those not
//! named are zero; `states` ends the search early (and says so), `threads` is 1 by default.

use std::process::ExitCode;

use consensus_search::{Bounds, Cluster};
use stateright::{Checker, Model};

fn main() -> ExitCode {
    let (mut bounds, mut states, mut threads) = (Bounds::none(), usize::MAX, 1);
    for word in std::env::args().skip(1) {
        let set = word
            .split_once('=')
            .and_then(|(name, value)| Some((name, value.parse().ok()?)));
        match set {
            Some(("states", value)) => states = value,
            Some(("threads", value)) => threads = value,
            Some((name, value)) if bounds.set(name, value as u8) => {}
            _ => {
                eprintln!("{word}: no such bound; there are states, threads, and {bounds:?}");
                return ExitCode::from(2);
            }
        }
    }
    let began = std::time::Instant::now();
    let checker = Cluster::new(bounds)
        .checker()
        .target_state_count(states)
        .threads(threads)
        .spawn_bfs()
        .join();
    println!("{bounds:?}");
    println!(
        "{} states, {} steps between them, the longest way {}, {:.0?}{}",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
        began.elapsed(),
        if checker.state_count() < states {
            ""
        } else {
            "; ended before all was seen"
        }
    );
    println!("{:?}", checker.model().met);
    let mut holds = true;
    for (name, path) in checker.discoveries() {
        let is_failure = checker
            .model()
            .property(name)
            .expectation
            .discovery_is_failure();
        holds &= !is_failure;
        let way = path.into_actions();
        println!(
            "{}{name}: after {} steps: {way:?}",
            if is_failure { "FAILS: " } else { "" },
            way.len()
        );
    }
    if holds {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
