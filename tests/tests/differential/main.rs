//! Sequences of generated requests run in lockstep on a real etcd 3.7.1 and on the subject; every answer must be the same.
//!
//! Both servers live through all sequences, so both always stand at the same revision; each sequence starts by deleting
//! everything and makes its revisions relative to the present one. A failure prints its seed, the shortest list of steps found
//! that still differs, and the command that replays it on a fresh pair.
//!
//! `PILASTER_SEED` runs one sequence alone. Otherwise the first [`FIXED`] seeds are always the same and the rest is fresh.
//! Not compared: time, order between concurrent requests, watches.

mod compare;
mod generate;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use compare::{Reply, difference, short};
use generate::{Step, World};
use pilaster_tests::pb::RangeRequest;
use pilaster_tests::random::Random;
use pilaster_tests::{Client, Kind, Options, Server, kind, raw};

/// Sequences in one run.
const SEQUENCES: u64 = 4000;
/// Of these, sequences whose seeds never change.
const FIXED: u64 = 2000;
/// No new sequence starts after this time; what was run is printed.
const RUN_MAX: Duration = Duration::from_secs(240);
/// Attempts to leave out steps of a failed sequence.
const SHRINK_MAX: usize = 40;

#[test]
fn answers_are_those_of_etcd() {
    if kind::peer("3.7.1/etcd").is_none() {
        return;
    }
    if let Ok(seed) = std::env::var("PILASTER_SEED") {
        let seed = seed.parse().expect("PILASTER_SEED is a number");
        match raw::block_on(async { Pair::start().await.sequence(seed, &[]).await }) {
            Ok(_) => println!("seed {seed}: the same answers"),
            Err(mismatch) => report(seed, mismatch),
        }
        return;
    }
    let mut fresh = Random::new(std::process::id() as u64 ^ u64::from(began_ns()));
    let (began, mut sequences) = (Instant::now(), 0);
    let mut tally = Tally::default();
    let outcome = raw::block_on(async {
        let mut pair = Pair::start().await;
        while sequences < SEQUENCES && began.elapsed() < RUN_MAX {
            let seed = if sequences < FIXED {
                sequences
            } else {
                fresh.word() >> 16
            };
            if let Err(mismatch) = pair.sequence(seed, &[]).await {
                return Err((seed, mismatch));
            }
            sequences += 1;
        }
        tally = pair.tally;
        Ok(())
    });
    if let Err((seed, mismatch)) = outcome {
        report(seed, mismatch);
    }
    println!(
        "{sequences} sequences: the same answers, {:.0?}",
        began.elapsed()
    );
    tally.print();
    if RUN_MAX <= began.elapsed() {
        println!("stopped after {RUN_MAX:?}, before all {SEQUENCES} sequences were run");
    }
}

/// What was met, so that a run shows whether its requests got anywhere.
#[derive(Default)]
struct Tally(BTreeMap<String, u64>);

impl Tally {
    fn count(&mut self, step: &Step, reply: &Reply) {
        let name = match (step, reply) {
            (_, Reply::Refused(failure)) => format!("refused: {}", failure.text),
            (Step::RangeStream(_), _) => "answered: RangeStream".to_owned(),
            (_, reply) => format!("answered: {}", reply.name()),
        };
        *self.0.entry(name).or_default() += 1;
    }

    fn print(&self) {
        for (name, count) in &self.0 {
            println!("{count:>8} {name}");
        }
    }
}

/// Only mixes into fresh seeds, which are printed when they matter.
fn began_ns() -> u32 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |since| since.subsec_nanos())
}

struct Mismatch {
    steps: Vec<Step>,
    what: String,
}

/// Shortens a failed sequence on fresh pairs and fails the test with it.
fn report(seed: u64, mut mismatch: Mismatch) -> ! {
    let mut left_out = vec![false; mismatch.steps.len()];
    let attempts = (0..left_out.len().saturating_sub(1)).rev().take(SHRINK_MAX);
    for index in attempts {
        left_out[index] = true;
        let again = raw::block_on(async { Pair::start().await.sequence(seed, &left_out).await });
        match again {
            Err(shorter) => mismatch = shorter,
            Ok(_) => left_out[index] = false,
        }
    }
    let steps: Vec<String> = mismatch.steps.iter().map(short).collect();
    panic!(
        "seed {seed}: different answers to the last of these steps\n{}\n{}\n\
         replay: cargo xtask suite differential --subject {} --seed {seed}",
        steps.join("\n"),
        mismatch.what,
        Kind::subject().name(),
    );
}

/// Two servers in lockstep.
struct Pair {
    reference: Client,
    subject: Client,
    world: World,
    tally: Tally,
    _servers: [Server; 2],
}

impl Pair {
    async fn start() -> Pair {
        // The reference's disk is not under test; without its syncs more sequences fit into the same time.
        let etcd = Server::start(Options::new(Kind::Etcd371).flag("--unsafe-no-fsync"));
        let subject = Server::start(Options::new(Kind::subject()));
        Pair {
            reference: Client::connect(&etcd).await,
            subject: Client::connect(&subject).await,
            world: World {
                revision: 1,
                compacted: -1,
                start: 1,
            },
            tally: Tally::default(),
            _servers: [etcd, subject],
        }
    }

    /// Runs one sequence; the steps named in `left_out` are chosen but not run.
    async fn sequence(&mut self, seed: u64, left_out: &[bool]) -> Result<(), Mismatch> {
        let mut random = Random::new(seed);
        let count = 4 + random.below(16) as usize;
        // No lease of an earlier sequence is left.
        for id in generate::LEASES {
            let gone = tokio::join!(self.reference.revoke(*id), self.subject.revoke(*id));
            if let (Ok(reply), Ok(_)) = gone {
                self.world.revision = reply.header.expect("a header").revision;
            }
        }
        self.world.start = self.world.revision;
        let mut steps = Vec::new();
        for index in 0..count {
            let step = match index {
                0 => generate::clear(),
                _ => generate::step(&mut random, self.world),
            };
            if left_out.get(index) == Some(&true) {
                continue;
            }
            if let Step::HashKv(request) = &step
                && self.is_hash_unsettled(request.revision).await
            {
                continue;
            }
            let (reference, subject) = tokio::join!(
                ask(&mut self.reference, &step),
                ask(&mut self.subject, &step)
            );
            let difference = difference(&step, &reference, &subject);
            steps.push(step);
            if let Some(what) = difference {
                return Err(Mismatch { steps, what });
            }
            let step = steps.last().expect("just pushed");
            self.tally.count(step, &reference);
            self.observe(step, &reference);
        }
        Ok(())
    }

    /// With no key that lived before this revision and lives in it, etcd's hash takes in what a compaction has not
    /// deleted yet, so it depends on how far a background job has come.
    async fn is_hash_unsettled(&mut self, revision: i64) -> bool {
        let request = RangeRequest {
            key: vec![0],
            range_end: vec![0],
            revision,
            keys_only: true,
            ..RangeRequest::default()
        };
        let reply = self.reference.range(&request).await;
        reply.is_ok_and(|reply| {
            let hashed = if revision > 0 {
                revision
            } else {
                self.world.revision
            };
            reply.kvs.iter().all(|kv| kv.mod_revision == hashed)
        })
    }

    fn observe(&mut self, step: &Step, reply: &Reply) {
        if let Some(header) = reply.header() {
            self.world.revision = header.revision;
            if let Step::Compact(compact) = step {
                self.world.compacted = compact.revision;
            }
        }
    }
}

async fn ask(client: &mut Client, step: &Step) -> Reply {
    match step {
        Step::Range(request) => Reply::of(client.range(request).await, Reply::Range),
        Step::RangeStream(request) => Reply::of(client.range_stream(request).await, Reply::Range),
        Step::Put(request) => Reply::of(client.put(request).await, Reply::Put),
        Step::DeleteRange(request) => {
            Reply::of(client.delete_range(request).await, Reply::DeleteRange)
        }
        Step::Txn(request) => Reply::of(client.txn(request).await, Reply::Txn),
        Step::Compact(request) => Reply::of(client.compact(request).await, Reply::Compact),
        Step::HashKv(request) => Reply::of(client.hash_kv(request.revision).await, Reply::HashKv),
        Step::Grant(request) => {
            Reply::of(client.grant(request.id, request.ttl).await, Reply::Grant)
        }
        Step::Revoke(request) => Reply::of(client.revoke(request.id).await, Reply::Revoke),
        Step::TimeToLive(request) => {
            let found = client.time_to_live(request.id, request.keys).await;
            Reply::of(found, Reply::TimeToLive)
        }
        Step::Leases => Reply::of(client.leases().await, Reply::Leases),
        Step::KeepAlive(request) => {
            let mut stream = client.keep_alives().await;
            stream.send(request.id);
            let answer = stream.next().await;
            Reply::of(answer.map(Option::unwrap_or_default), Reply::KeepAlive)
        }
    }
}
