//! The project's chores: `cargo xtask COMMAND`.
//!
//! - [`peers`]: real servers, clients and tools to test and measure against, in a cache outside the tree.
//! - [`simulate`]: clusters of the Raft core under every fault, from seeds.
//! - [`test`]: everything a change must pass, in one command.
//! - [`tidy`]: rules about the tree itself that no compiler checks.
//!
//! Uses the standard library alone, so it is built in a moment. Starts other programs one after another and never leaves one
//! running. Writes only below the cargo target folder and the peer cache.

mod peers;
mod shell;
mod simulate;
mod test;
mod tidy;

use std::process::ExitCode;

const USAGE: &str = "\
cargo xtask COMMAND

  peers                      fetch or build the real etcd programs and clients (kept in $PILASTER_PEERS,
                             by default ~/.cache/pilaster/peers)
  test [--subject KIND]      run every check; KIND is pilaster (default), etcd-3.7.1 or etcd-3.5.1
  suite NAME [--subject KIND] [--seed S] [FILTER]
                             run one whole-program suite, printing what it checks
  simulate --seeds N [--from S] | --seed S
                             run clusters of the Raft core under every fault, or replay one and tell what happens
  tidy                       run the checks of the tree alone
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["peers"] => peers::run(),
        ["simulate", ref rest @ ..] => simulate::run_seeds(rest),
        ["tidy"] => tidy::run(),
        ["test", ref rest @ ..] => test::run_all(rest),
        ["suite", name, ref rest @ ..] => test::run_suite(name, rest),
        ["help" | "--help" | "-h"] | [] => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprint!(
                "cargo xtask: unknown command: {}\n\n{USAGE}",
                arguments.join(" ")
            );
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("cargo xtask: {reason}");
            ExitCode::FAILURE
        }
    }
}
