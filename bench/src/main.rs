//! Side-by-side measurements: Pilaster and real etcd servers in turn, on the same core, in one run.
//!
//! - [`compare`]: throughput of small requests under h2load, which nobody here wrote;
//! - [`restart`]: time until a store of many keys serves again, and the memory it then holds;
//! - [`watch`]: watchers on other keys, on one key, from the past, and such that do not read;
//! - [`defrag`]: the slowest put while a store is defragmented;
//! - [`h2load`]: running it and judging that what it measured was real;
//! - [`host`]: what of this machine must stand beside each number.
//!
//! Always true: the server is pinned to core 0 and the load to core 1; servers run one at a time, in alternation, several rounds;
//! medians and the spread are printed; a run whose answers are wrong ends the program instead of giving a number.
//! Only ratios within one run mean anything; absolute numbers belong to their host.

#![forbid(unsafe_code)]

mod compare;
mod defrag;
mod h2load;
mod host;
mod restart;
mod watch;

use std::process::ExitCode;

use pilaster_tests::Kind;

const USAGE: &str = "\
cargo run --release -p pilaster-bench -- COMMAND

  compare [--rounds 5] [--seconds 2]    small requests under h2load
  restart [--rounds 5] [--keys 1000000] start of a filled store, and its memory
  watch   [--rounds 3] [--history 200000] [--seconds 2]
                                        puts, events and latencies with watchers of all kinds
  defrag [--rounds 3] [--keys 1000000]  puts beside a defragmentation

Servers: pilaster (target/release/pilaster or $PILASTER_BIN), etcd 3.5.1 and 3.7.1 (`cargo xtask peers`).
One that is missing is left out and said so.
";

/// What every measurement runs against, the rival to beat last.
const SERVERS: [Kind; 3] = [Kind::Pilaster, Kind::Etcd351, Kind::Etcd371];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("pilaster-bench: {reason}\n\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &[String]) -> Result<(), String> {
    let Some((command, rest)) = arguments.split_first() else {
        return Err("no command".into());
    };
    let flags = Flags::parse(rest)?;
    match command.as_str() {
        "compare" => {
            let rounds = flags.number("--rounds", 5)?;
            let seconds = flags.number("--seconds", 2)?;
            flags.only(&["--rounds", "--seconds"])?;
            compare::run(&servers(), rounds, seconds)
        }
        "restart" => {
            let rounds = flags.number("--rounds", 5)?;
            let keys = flags.number("--keys", 1_000_000)?;
            flags.only(&["--rounds", "--keys"])?;
            restart::run(&servers(), rounds, keys)
        }
        "watch" => {
            let scale = watch::Scale {
                rounds: flags.number("--rounds", 3)?,
                history: flags.number("--history", 200_000)?,
                seconds: flags.number("--seconds", 2)?,
            };
            flags.only(&["--rounds", "--history", "--seconds"])?;
            watch::run(&servers(), scale)
        }
        "defrag" => {
            let rounds = flags.number("--rounds", 3)?;
            let keys = flags.number("--keys", 1_000_000)?;
            flags.only(&["--rounds", "--keys"])?;
            defrag::run(&servers(), rounds, keys)
        }
        other => Err(format!("unknown command {other:?}")),
    }
}

/// The servers that are there; the others are named.
fn servers() -> Vec<Kind> {
    let (there, missing): (Vec<Kind>, Vec<Kind>) =
        SERVERS.into_iter().partition(|kind| kind.found().is_some());
    for kind in missing {
        println!("left out: {} is not there", kind.name());
    }
    there
}

/// `--name value` pairs as given.
struct Flags<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Flags<'a> {
    fn parse(words: &'a [String]) -> Result<Flags<'a>, String> {
        let (pairs, odd) = words.as_chunks::<2>();
        match odd.first() {
            Some(word) => Err(format!("{word} wants a value")),
            None => Ok(Flags(
                pairs
                    .iter()
                    .map(|[name, value]| (name.as_str(), value.as_str()))
                    .collect(),
            )),
        }
    }

    fn number(&self, name: &str, default: u64) -> Result<u64, String> {
        match self.0.iter().find(|(given, _)| *given == name) {
            None => Ok(default),
            Some((_, value)) => match value.parse() {
                Ok(number) if 0 < number => Ok(number),
                _ => Err(format!("{name} wants a number above 0, not {value:?}")),
            },
        }
    }

    fn only(&self, known: &[&str]) -> Result<(), String> {
        match self.0.iter().find(|(name, _)| !known.contains(name)) {
            None => Ok(()),
            Some((name, _)) => Err(format!("unknown flag {name}")),
        }
    }
}
