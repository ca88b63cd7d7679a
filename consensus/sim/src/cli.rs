//! The command line of `simulate`: runs seeds, or replays one. `cargo xtask simulate` builds and
//! starts it.

use std::io::Write;
use std::process::ExitCode;

use crate::many::{cores, run_many};
use crate::{Options, Plan, run};

const USAGE: &str = "\
cargo xtask simulate --seeds N [--from S] [--threads T]
                                 run N seeds from S on (default 0), on all cores
cargo xtask simulate --seed S    run one seed and tell everything that happens

  --lying-disk      a disk that loses what it called durable: must be noticed
  --end-to-end      leave out the checks that look at single messages and answers
";

struct Asked {
    seeds: u64,
    from: u64,
    threads: usize,
    seed: Option<u64>,
    options: Options,
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Asked, String> {
    let mut asked = Asked {
        seeds: 0,
        from: 0,
        threads: cores(),
        seed: None,
        options: Options::default(),
    };
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} wants a value"));
        let number = |text: String| {
            let digits = text.replace(['_', ','], "");
            digits
                .parse::<u64>()
                .map_err(|_| format!("{text:?} is no number"))
        };
        match word.as_str() {
            "--seeds" => asked.seeds = number(value()?)?,
            "--from" => asked.from = number(value()?)?,
            "--threads" => asked.threads = number(value()?)? as usize,
            "--seed" => asked.seed = Some(number(value()?)?),
            "--lying-disk" => asked.options.lying_disk = true,
            "--end-to-end" => asked.options.end_to_end = true,
            #[cfg(feature = "sabotage")]
            "--sabotage" => {
                let name = value()?;
                let known = consensus::Sabotage::ALL
                    .into_iter()
                    .find(|sabotage| format!("{sabotage:?}") == name);
                asked.options.sabotage = Some(known.ok_or(format!("no sabotage {name:?}"))?);
            }
            _ => return Err(format!("unknown word {word:?}")),
        }
    }
    if asked.seed.is_none() && asked.seeds == 0 {
        return Err("how many seeds, or which one?".into());
    }
    Ok(asked)
}

/// Does what `words`, the arguments of the program, ask for.
pub fn main(words: impl Iterator<Item = String>) -> ExitCode {
    let asked = match parse(words) {
        Ok(asked) => asked,
        Err(reason) => {
            eprintln!("simulate: {reason}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match asked.seed {
        Some(seed) => replay(seed, asked.options),
        None => many(&asked),
    }
}

/// One seed, told in full.
fn replay(seed: u64, options: Options) -> ExitCode {
    let plan = Plan::drawn(seed, options);
    let outcome = run(seed, options, true);
    let mut out = std::io::stdout().lock();
    let text = format!("seed {seed}: {plan:#?}\n{}\n", outcome.lines.join("\n"));
    // A reader that closed the pipe has seen enough.
    if out.write_all(text.as_bytes()).is_err() {
        return ExitCode::FAILURE;
    }
    drop(out);
    println!("{} events, trace {:016x}", outcome.events, outcome.hash);
    match outcome.failure {
        None => {
            println!("seed {seed}: every property held");
            ExitCode::SUCCESS
        }
        Some(failure) => {
            println!("seed {seed}: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// The last lines of a failing run that are printed with it.
const LAST_LINES: usize = 60;

fn many(asked: &Asked) -> ExitCode {
    let range = asked.from..asked.from + asked.seeds;
    let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let summary = run_many(range.clone(), asked.threads, asked.options, |ended| {
        if is_terminal {
            eprint!("\r{ended} seeds");
        }
    });
    if is_terminal {
        eprintln!();
    }
    for line in summary.coverage.lines() {
        println!("{line}");
    }
    let seconds = summary.took.as_secs_f64();
    println!(
        "{} seeds from {} on passed in {seconds:.1} s on {} threads: {:.0} seeds/s, {:.2} M events/s; \
         traces {:016x}",
        summary.passed,
        asked.from,
        asked.threads,
        summary.passed as f64 / seconds,
        summary.events as f64 / seconds / 1e6,
        summary.hash,
    );
    let Some((seed, failure)) = summary.first_failure else {
        return ExitCode::SUCCESS;
    };
    let outcome = run(seed, asked.options, true);
    let skipped = outcome.lines.len().saturating_sub(LAST_LINES);
    println!("\nseed {seed} failed; what it did at last ({skipped} lines before are not shown):");
    for line in &outcome.lines[skipped..] {
        println!("{line}");
    }
    println!("\nseed {seed}: {failure}");
    println!(
        "replay: cargo xtask simulate --seed {seed}{}",
        flags(&asked.options)
    );
    ExitCode::FAILURE
}

/// The words that ask for `options` again.
fn flags(options: &Options) -> String {
    let mut words = String::new();
    if options.lying_disk {
        words += " --lying-disk";
    }
    if options.end_to_end {
        words += " --end-to-end";
    }
    #[cfg(feature = "sabotage")]
    if let Some(sabotage) = options.sabotage {
        words += &format!(" --sabotage {sabotage:?}");
    }
    words
}
