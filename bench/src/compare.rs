//! Small requests, side by side: each round starts every server in turn, alone, on core 0, and runs every load against it.
//!
//! Loads: a serializable range, a linearizable range and a put, of one key with a 256-byte value, from 10 connections with 100
//! streams, 100 with 10, and 1 with 1. After the puts the version of the key must be the number of puts, or the run is void.
//! Printed: the median of the rounds, lowest and highest in brackets, processor time per request, and ratios to etcd.

use std::collections::BTreeMap;

use pilaster_tests::pb::{PutRequest, RangeRequest};
use pilaster_tests::server::scratch_dir;
use pilaster_tests::{Client, Kind, Options, Server, raw};
use prost::Message;

use crate::h2load::{self, Load};
use crate::host;

const SHAPES: [(u32, u32); 3] = [(10, 100), (100, 10), (1, 1)];
const KEY: &str = "bench/key";
const VALUE_BYTES: usize = 256;
/// Requests of the short run that finds out how many fill the asked time.
const PROBE_REQUESTS: u64 = 2000;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Op {
    Serializable,
    Linearizable,
    Put,
}

impl Op {
    const ALL: [Op; 3] = [Op::Serializable, Op::Linearizable, Op::Put];

    fn name(self) -> &'static str {
        match self {
            Op::Serializable => "range, serializable",
            Op::Linearizable => "range, linearizable",
            Op::Put => "put",
        }
    }

    fn path(self) -> &'static str {
        match self {
            Op::Put => "/etcdserverpb.KV/Put",
            _ => "/etcdserverpb.KV/Range",
        }
    }
}

/// Samples of one server and one load.
#[derive(Default)]
struct Samples {
    per_second: Vec<f64>,
    cpu_us: Vec<f64>,
}

type Table = BTreeMap<(Op, (u32, u32)), BTreeMap<&'static str, Samples>>;

pub(crate) fn run(servers: &[Kind], rounds: u64, seconds: u64) -> Result<(), String> {
    let mut table = Table::new();
    let scratch = scratch_dir();
    println!("## Small requests, side by side\n");
    host::describe(scratch.path());
    println!(
        "- {rounds} rounds of {seconds} s a load, one key, {VALUE_BYTES}-byte value, h2load\n"
    );
    let mut requests = BTreeMap::new();
    for round in 1..=rounds {
        for kind in servers {
            measure(*kind, seconds, &mut requests, &mut table)?;
            eprintln!("round {round} of {rounds}: {}", kind.name());
        }
    }
    print(servers, &table);
    Ok(())
}

fn measure(
    kind: Kind,
    seconds: u64,
    requests: &mut BTreeMap<(&'static str, Op, (u32, u32)), u64>,
    table: &mut Table,
) -> Result<(), String> {
    let server = Server::start(Options::new(kind).core(0));
    let dir = scratch_dir();
    let body = dir.path().join("frame");
    let mut puts = 1;
    raw::block_on(async {
        let mut client = Client::connect(&server).await;
        client.put(&raw::put(KEY, value())).await.map(drop)
    })
    .map_err(|failure| format!("{}: {failure:?}", kind.name()))?;
    for op in Op::ALL {
        let answer_bytes = match op {
            Op::Put => {
                h2load::write_frame(&body, &put());
                // A header alone; its revision grows from one byte to at most five.
                15..=45
            }
            _ => {
                h2load::write_frame(&body, &range(op));
                let bytes = 5 + answer(&server, op)?;
                bytes..=bytes
            }
        };
        for shape in SHAPES {
            let url = format!("{}{}", server.url(), op.path());
            let (connections, streams) = shape;
            let mut load = Load {
                url,
                body: &body,
                connections,
                streams,
                requests: PROBE_REQUESTS,
                answer_bytes: answer_bytes.clone(),
            };
            // Each round repeats the number of requests that the first one found to fill the time.
            let number = match requests.get(&(kind.name(), op, shape)) {
                Some(number) => *number,
                None => {
                    let probe = h2load::run(&load)?;
                    puts += if op == Op::Put { probe.requests } else { 0 };
                    let number = (probe.per_second * seconds as f64) as u64;
                    number.max(PROBE_REQUESTS).next_multiple_of(1000)
                }
            };
            requests.insert((kind.name(), op, shape), number);
            load.requests = number;
            let cpu_before = host::cpu_seconds(server.pid());
            let measured = h2load::run(&load)?;
            let cpu = host::cpu_seconds(server.pid()) - cpu_before;
            puts += if op == Op::Put { measured.requests } else { 0 };
            let samples = table
                .entry((op, shape))
                .or_default()
                .entry(kind.name())
                .or_default();
            samples.per_second.push(measured.per_second);
            samples.cpu_us.push(cpu * 1e6 / measured.requests as f64);
        }
    }
    let found = raw::block_on(async {
        let mut client = Client::connect(&server).await;
        client
            .range(&raw::get(KEY))
            .await
            .map(|reply| reply.kvs.first().map_or(0, |kv| kv.version))
    });
    match found {
        Ok(found) if found == puts as i64 => Ok(()),
        other => Err(format!(
            "{}: {puts} puts were answered, the key has version {other:?}",
            kind.name()
        )),
    }
}

fn value() -> Vec<u8> {
    vec![b'v'; VALUE_BYTES]
}

fn put() -> PutRequest {
    raw::put(KEY, value())
}

fn range(op: Op) -> RangeRequest {
    RangeRequest {
        serializable: op == Op::Serializable,
        ..raw::get(KEY)
    }
}

/// The length of the right answer to a range, taken from one that was looked at.
fn answer(server: &Server, op: Op) -> Result<u64, String> {
    raw::block_on(async {
        let mut client = Client::connect(server).await;
        let reply = client
            .range(&range(op))
            .await
            .map_err(|failure| format!("{failure:?}"))?;
        if reply.kvs.len() != 1 || reply.kvs[0].value != value() {
            return Err(format!("{}: wrong answer: {reply:?}", server.kind().name()));
        }
        Ok(reply.encoded_len() as u64)
    })
}

fn print(servers: &[Kind], table: &Table) {
    let names: Vec<&str> = servers.iter().map(|kind| kind.name()).collect();
    let ours = names.contains(&"pilaster");
    print!("| load | connections x streams |");
    for name in &names {
        print!(" {name}, requests/s | cpu µs |");
    }
    println!("{}", if ours { " to 3.5.1 | to 3.7.1 |" } else { "" });
    println!(
        "|{}",
        " --- |".repeat(2 + 2 * names.len() + if ours { 2 } else { 0 })
    );
    for ((op, (connections, streams)), by_server) in table {
        print!("| {} | {connections} x {streams} |", op.name());
        for name in &names {
            let samples = &by_server[name];
            let (low, high) = host::spread(&samples.per_second);
            let middle = host::median(&samples.per_second);
            let cpu_us = host::median(&samples.cpu_us);
            print!(" {middle:.0} ({low:.0}-{high:.0}) | {cpu_us:.1} |");
        }
        if ours {
            for rival in ["etcd-3.5.1", "etcd-3.7.1"] {
                match by_server.get(rival) {
                    Some(theirs) => {
                        let ours = host::median(&by_server["pilaster"].per_second);
                        print!(" **{:.2}** |", ours / host::median(&theirs.per_second));
                    }
                    None => print!(" |"),
                }
            }
        }
        println!();
    }
}
