//! Start of a filled store, side by side: time from starting the process until it serves, and the memory it then holds.
//!
//! Each server fills its own store with the same keys (256-byte values, in txns of 100 puts), is stopped in order once, and is
//! then killed and started [`rounds`](run) times in alternation with the others. The page cache stays warm, so the time is
//! that of the program and not of the disk. Served means: ready by its log and a linearizable range answered.
//!
//! Memory: `RssAnon` is what the process took for itself; pages of a mapped file are `RssFile` and belong to the page cache.

use std::collections::BTreeMap;
use std::time::Instant;

use pilaster_tests::pb::{RangeRequest, Request, RequestOp, TxnRequest};
use pilaster_tests::server::scratch_dir;
use pilaster_tests::{Client, Kind, Options, Server, raw};

use crate::host;

pub(crate) const VALUE_BYTES: usize = 256;
pub(crate) const PUTS_PER_TXN: u64 = 100;
/// Txns in flight while filling.
const IN_FLIGHT: usize = 16;

#[derive(Default)]
struct Samples {
    ready_s: Vec<f64>,
    anon_mib: Vec<f64>,
    file_mib: Vec<f64>,
}

pub(crate) fn run(servers: &[Kind], rounds: u64, keys: u64) -> Result<(), String> {
    let scratch = scratch_dir();
    println!("## Start of a filled store, side by side\n");
    host::describe(scratch.path());
    println!("- {rounds} rounds, {keys} keys, {VALUE_BYTES}-byte values, page cache warm\n");
    let mut filled = Vec::new();
    for kind in servers {
        let began = Instant::now();
        let mut server = Server::start(Options::new(*kind).core(0));
        raw::block_on(fill(&server, keys))?;
        server.terminate();
        eprintln!("{} filled in {:.1?}", kind.name(), began.elapsed());
        filled.push(server);
    }
    let mut table: BTreeMap<&str, Samples> = BTreeMap::new();
    for round in 1..=rounds {
        for server in &mut filled {
            let began = Instant::now();
            server.launch();
            let count = raw::block_on(count(server))?;
            let ready = began.elapsed().as_secs_f64();
            if count != keys as i64 {
                return Err(format!(
                    "{}: {count} keys after a start, {keys} before",
                    server.kind().name()
                ));
            }
            let samples = table.entry(server.kind().name()).or_default();
            samples.ready_s.push(ready);
            samples
                .anon_mib
                .push(host::memory_mib(server.pid(), "RssAnon"));
            samples
                .file_mib
                .push(host::memory_mib(server.pid(), "RssFile"));
            server.kill9();
            eprintln!(
                "round {round} of {rounds}: {} in {ready:.3} s",
                server.kind().name()
            );
        }
    }
    println!("| server | start, s | RssAnon, MiB | RssFile, MiB |");
    println!("| --- | --- | --- | --- |");
    for kind in servers {
        let samples = &table[kind.name()];
        let (low, high) = host::spread(&samples.ready_s);
        println!(
            "| {} | {:.3} ({low:.3}-{high:.3}) | {:.0} | {:.0} |",
            kind.name(),
            host::median(&samples.ready_s),
            host::median(&samples.anon_mib),
            host::median(&samples.file_mib),
        );
    }
    if let Some(ours) = table.get("pilaster") {
        for (rival, theirs) in table.iter().filter(|(name, _)| **name != "pilaster") {
            println!(
                "\npilaster to {rival}: start **{:.2}**, RssAnon **{:.2}** (below 1 is better)",
                host::median(&ours.ready_s) / host::median(&theirs.ready_s),
                host::median(&ours.anon_mib) / host::median(&theirs.anon_mib),
            );
        }
    }
    Ok(())
}

pub(crate) async fn fill(server: &Server, keys: u64) -> Result<(), String> {
    let client = Client::connect(server).await;
    let txns = keys.div_ceil(PUTS_PER_TXN);
    let mut tasks: tokio::task::JoinSet<Result<(), String>> = tokio::task::JoinSet::new();
    for lane in 0..IN_FLIGHT as u64 {
        let mut client = client.clone();
        tasks.spawn(async move {
            for txn in (lane..txns).step_by(IN_FLIGHT) {
                let first = txn * PUTS_PER_TXN;
                let numbers = first..keys.min(first + PUTS_PER_TXN);
                let success = numbers.map(|number| {
                    let key = format!("bench/{number:016}");
                    RequestOp {
                        request: Some(Request::Put(raw::put(key, vec![b'v'; VALUE_BYTES]))),
                    }
                });
                let txn = TxnRequest {
                    success: success.collect(),
                    ..Default::default()
                };
                client
                    .txn(&txn)
                    .await
                    .map_err(|failure| format!("filling: {failure:?}"))?;
            }
            Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.map_err(|error| error.to_string())??;
    }
    Ok(())
}

async fn count(server: &Server) -> Result<i64, String> {
    let mut client = Client::connect(server).await;
    let request = RangeRequest {
        count_only: true,
        ..raw::get_all()
    };
    client
        .range(&request)
        .await
        .map(|reply| reply.count)
        .map_err(|failure| format!("{failure:?}"))
}
