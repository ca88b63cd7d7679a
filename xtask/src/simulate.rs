//! `cargo xtask simulate`: whole clusters of the Raft core under every fault, from seeds.
//!
//! Builds the simulator optimised and starts it; what it can be asked is its own to say
//! (`consensus/sim/src/cli.rs`). With `--sabotage` it is the one whose core does something wrong.

use crate::shell::{Done, cargo, output, root, run};

pub(crate) fn run_seeds(rest: &[&str]) -> Done {
    let package = if rest.contains(&"--sabotage") {
        "consensus-sim-sabotaged"
    } else {
        "consensus-sim"
    };
    let mut simulate = cargo();
    simulate.args([
        "run",
        "--quiet",
        "--profile",
        "simulate",
        "--package",
        package,
        "--",
    ]);
    let result = run(simulate.args(rest));
    if result.is_err() {
        // A seed means one run of one state of the sources.
        let mut git = std::process::Command::new("git");
        git.current_dir(root())
            .args(["describe", "--always", "--dirty", "--abbrev=12"]);
        if let Ok(commit) = output(&mut git) {
            eprintln!("at commit {}", commit.trim());
        }
    }
    result
}
