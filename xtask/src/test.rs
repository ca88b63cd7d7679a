//! `cargo xtask test`: every check in order, with a summary at the end; `cargo xtask suite`: one whole-program suite.
//!
//! A failed step does not stop the later ones, so one run shows everything that is wrong; only what cannot work without an
//! earlier step (the suites without a server) is counted as failed unrun. The last line is `N passed, N failed`, where a step
//! that runs tests counts each of them. What was left out on this host is listed by name and is neither.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::shell::{Done, cargo, output, root, run, target};
use crate::{peers, tidy};

/// The whole-program suites, quick ones first.
const SUITES: &[&str] = &[
    "watch",
    "etcdctl",
    "go_client",
    "rust_client",
    "limits_and_errors",
    "lease",
    "auth",
    "locks",
    "maintenance",
    "gateway",
    "differential",
    "both_ways",
    "defrag",
    "disk_full",
    "crash_kill9",
];

/// Crates with a workspace of their own, so that ordinary builds do not compile what they need.
const APART: &[&str] = &["consensus/search", "bench/raft-comparison"];

pub(crate) fn run_all(rest: &[&str]) -> Done {
    let asked = Asked::parse(rest)?;
    if !asked.filter.is_empty() || asked.seed.is_some() {
        return Err("`test` runs everything; a seed or a filter belongs to `suite`".into());
    }
    let mut tally = Tally::default();
    tally.step("format", || {
        run(cargo().args(["fmt", "--all", "--check"]))?;
        APART
            .iter()
            .try_for_each(|folder| run(apart(folder, "fmt").arg("--check")))
    });
    tally.step("clippy", || {
        let mut clippy = cargo();
        clippy.args(["clippy", "--quiet", "--workspace", "--all-targets"]);
        run(clippy.args(["--", "-D", "warnings"]))?;
        APART.iter().try_for_each(|folder| {
            let mut clippy = apart(folder, "clippy");
            run(clippy.args(["--quiet", "--all-targets", "--", "-D", "warnings"]))
        })
    });
    tally.step("tidy", tidy::run);
    tally.deny();
    let mut crates = cargo();
    crates.args([
        "test",
        "--quiet",
        "--workspace",
        "--exclude",
        "pilaster-tests",
        "--no-fail-fast",
    ]);
    tally.tests("crates", &mut crates);
    tally.tests("search", apart("consensus/search", "test").arg("--quiet"));
    tally.step("peers", peers::run);
    let built = asked.subject != "pilaster"
        || tally.step("server", || {
            run(cargo().args(["build", "--release", "--package", "pilaster"]))
        });
    for suite in SUITES {
        if built {
            tally.tests(suite, &mut asked.suite(suite));
        } else {
            tally.fail(suite, "not run: there is no server to run it against");
        }
    }
    tally.close()
}

pub(crate) fn run_suite(name: &str, rest: &[&str]) -> Done {
    if !SUITES.contains(&name) {
        return Err(format!(
            "no suite {name:?}; there are {}",
            SUITES.join(", ")
        ));
    }
    let asked = Asked::parse(rest)?;
    if asked.subject == "pilaster" && std::env::var_os("PILASTER_BIN").is_none() {
        run(cargo().args(["build", "--quiet", "--release", "--package", "pilaster"]))?;
    }
    let mut tally = Tally::default();
    tally.tests(name, &mut asked.suite(name));
    tally.close()
}

/// A cargo command for a crate with a workspace of its own. Its build shares our target folder.
fn apart(folder: &str, command: &str) -> Command {
    let mut cargo = cargo();
    cargo.env("CARGO_TARGET_DIR", target());
    cargo.arg(command).arg("--manifest-path");
    cargo.arg(root().join(folder).join("Cargo.toml"));
    cargo
}

/// What the command line asked for.
struct Asked<'a> {
    subject: &'a str,
    seed: Option<&'a str>,
    filter: Vec<&'a str>,
}

impl<'a> Asked<'a> {
    fn parse(rest: &[&'a str]) -> Done<Asked<'a>> {
        let mut asked = Asked {
            subject: "pilaster",
            seed: None,
            filter: Vec::new(),
        };
        let mut words = rest.iter();
        while let Some(word) = words.next() {
            let mut value = || {
                words
                    .next()
                    .copied()
                    .ok_or_else(|| format!("{word} wants a value"))
            };
            match *word {
                "--subject" => asked.subject = value()?,
                "--seed" => asked.seed = Some(value()?),
                flag if flag.starts_with('-') => return Err(format!("unknown flag {flag}")),
                filter => asked.filter.push(filter),
            }
        }
        match asked.subject {
            "pilaster" | "etcd-3.7.1" | "etcd-3.5.1" => Ok(asked),
            other => Err(format!(
                "no subject {other:?}; it may be pilaster, etcd-3.7.1 or etcd-3.5.1"
            )),
        }
    }

    fn suite(&self, name: &str) -> Command {
        let mut command = cargo();
        command.env("PILASTER_SUBJECT", self.subject);
        if let Some(seed) = self.seed {
            command.env("PILASTER_SEED", seed);
        }
        if std::env::var_os("PILASTER_BIN").is_none() {
            command.env("PILASTER_BIN", target().join("release/pilaster"));
        }
        command.args([
            "test",
            "--quiet",
            "--package",
            "pilaster-tests",
            "--test",
            name,
            "--",
        ]);
        command
            .args(["--nocapture", "--test-threads=1"])
            .args(&self.filter);
        command
    }
}

/// Counts and names of what went well, wrong, or was left out.
#[derive(Default)]
struct Tally {
    passed: u64,
    failures: Vec<String>,
    left_out: Vec<String>,
}

impl Tally {
    /// One check that either holds or not.
    fn step(&mut self, name: &str, check: impl FnOnce() -> Done) -> bool {
        println!("== {name}");
        let began = Instant::now();
        match check() {
            Ok(()) => {
                self.passed += 1;
                println!("== {name}: ok, {:.0?}", began.elapsed());
                true
            }
            Err(reason) => {
                self.fail(name, &reason);
                false
            }
        }
    }

    /// A command that runs tests: each counts, and a command that fails without a failed test counts as one.
    fn tests(&mut self, name: &str, command: &mut Command) {
        println!("== {name}");
        let began = Instant::now();
        let (passed_before, failed_before) = (self.passed, self.failures.len());
        let result = self.run_tests(name, command);
        if let Err(reason) = result
            && self.failures.len() == failed_before
        {
            self.fail(name, &reason);
        }
        let failed = self.failures.len() - failed_before;
        let passed = self.passed - passed_before;
        println!(
            "== {name}: {passed} passed, {failed} failed, {:.0?}",
            began.elapsed()
        );
    }

    /// Runs the command, passing its output on while reading the results in it.
    fn run_tests(&mut self, name: &str, command: &mut Command) -> Done {
        command.stdout(Stdio::piped());
        let mut child = command
            .spawn()
            .map_err(|error| format!("cannot start cargo: {error}"))?;
        let stdout = child.stdout.take().ok_or("stdout was piped")?;
        for line in BufReader::new(stdout).lines() {
            let line = line.map_err(|error| format!("reading test output: {error}"))?;
            println!("{line}");
            // Quiet runs print a dot for each test, in front of whatever the next one prints.
            let line = line.trim_start_matches('.');
            if let Some((passed, failed)) = counts(line) {
                self.passed += passed;
                for _ in 0..failed {
                    self.failures
                        .push(format!("{name}: a test failed, see above"));
                }
            } else if let Some(what) = line.strip_prefix("left out: ") {
                self.left_out.push(format!("{name}: {what}"));
            }
        }
        let status = child
            .wait()
            .map_err(|error| format!("waiting for cargo: {error}"))?;
        if status.success() {
            Ok(())
        } else {
            Err(format!("ended with {status}"))
        }
    }

    fn deny(&mut self) {
        if output(cargo().args(["deny", "--version"])).is_err() {
            println!("== deny: left out");
            self.left_out
                .push("deny: cargo-deny is not installed (`cargo install cargo-deny`)".into());
            return;
        }
        let check = |folder: &str, what: &[&str]| {
            let mut deny = cargo();
            deny.args(["deny", "--log-level", "error", "--manifest-path"]);
            deny.arg(root().join(folder).join("Cargo.toml"));
            deny.arg("--config").arg(root().join("deny.toml"));
            run(deny.arg("check").args(what))
        };
        self.step("deny", || {
            for folder in ["", "consensus/search", "bench/raft-comparison"] {
                check(folder, &["licenses", "bans", "sources"])?;
            }
            Ok(())
        });
        if output(cargo().args(["deny", "fetch"])).is_ok() {
            // Faults of a rival are its own affair: it runs on our machine, on our input, to be measured.
            self.step("advisories", || {
                for folder in ["", "consensus/search"] {
                    check(folder, &["advisories"])?;
                }
                Ok(())
            });
        } else {
            println!("== advisories: left out");
            self.left_out
                .push("advisories: their database cannot be fetched (`cargo deny fetch`)".into());
        }
    }

    fn fail(&mut self, name: &str, reason: &str) {
        println!("== {name}: FAILED: {reason}");
        self.failures.push(format!(
            "{name}: {}",
            reason.lines().next().unwrap_or_default()
        ));
    }

    fn close(self) -> Done {
        println!("\n== summary of {}", root().display());
        for what in &self.left_out {
            println!("left out: {what}");
        }
        for what in &self.failures {
            println!("failed: {what}");
        }
        println!("{} passed, {} failed", self.passed, self.failures.len());
        if self.failures.is_empty() {
            Ok(())
        } else {
            Err("some checks failed".into())
        }
    }
}

/// Reads `test result: ok. 3 passed; 0 failed; ...`.
fn counts(line: &str) -> Option<(u64, u64)> {
    let rest = line.strip_prefix("test result: ")?.split_once(". ")?.1;
    let mut parts = rest.split("; ");
    let passed = parts.next()?.strip_suffix(" passed")?.parse().ok()?;
    let failed = parts.next()?.strip_suffix(" failed")?.parse().ok()?;
    Some((passed, failed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_results_are_counted() {
        let line = "test result: FAILED. 12 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1s";
        assert_eq!(counts(line), Some((12, 2)));
        assert_eq!(counts("test result: nothing of the kind"), None);
        assert_eq!(counts("running 3 tests"), None);
    }
}
