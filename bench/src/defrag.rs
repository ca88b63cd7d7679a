//! Defragment beside a client, side by side: the slowest put while it runs, how long it takes, and what it gains.
//!
//! Each server fills its own store as in [`super::restart`]; every other key is deleted and history compacted. One client then puts,
//! one call in flight, first alone for [`ALONE`] and then until the call for defragmentation is answered.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use pilaster_tests::pb::{CompactionRequest, DeleteRangeRequest, Request, RequestOp, TxnRequest};
use pilaster_tests::server::scratch_dir;
use pilaster_tests::{Client, Kind, Options, Server, raw};
use prost::Message;
use tokio::task::LocalSet;

use crate::host;
use crate::restart::{PUTS_PER_TXN, VALUE_BYTES, fill};

/// How long puts are timed without a defragmentation.
const ALONE: Duration = Duration::from_secs(3);

#[derive(Clone, PartialEq, Message)]
struct Nothing {}

pub(crate) fn run(servers: &[Kind], rounds: u64, keys: u64) -> Result<(), String> {
    let scratch = scratch_dir();
    println!("## Defragment beside a client that puts\n");
    host::describe(scratch.path());
    println!(
        "- {rounds} rounds, {keys} keys, {VALUE_BYTES}-byte values, every other one deleted\n"
    );
    println!(
        "| server | round | slowest put alone, ms | slowest put, ms | 99 % below, ms | puts/s | took, s | file before, MiB | after | in use |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    for round in 1..=rounds {
        for kind in servers {
            let mut options = Options::new(*kind).core(0);
            options = options.flag("--quota-backend-bytes=8589934592");
            // So that the compaction of it all ends within a call's time.
            options = match kind {
                Kind::Etcd351 => options.flag("--experimental-compaction-batch-limit=20000"),
                _ => options.flag("--compaction-batch-limit=20000"),
            };
            let server = Server::start(options);
            let row = raw::block_on(LocalSet::new().run_until(measure(&server, keys)))?;
            println!("| {} | {round} | {row} |", kind.name());
        }
    }
    Ok(())
}

async fn measure(server: &Server, keys: u64) -> Result<String, String> {
    let failed = |failure| format!("{failure:?}");
    fill(server, keys).await?;
    let mut client = Client::connect(server).await;
    let mut revision = 0;
    for first in (0..keys).step_by(2 * PUTS_PER_TXN as usize) {
        let gone = (first..keys.min(first + 2 * PUTS_PER_TXN)).step_by(2);
        let success = gone.map(|number| {
            let key = format!("bench/{number:016}").into_bytes();
            let delete = DeleteRangeRequest {
                key,
                ..Default::default()
            };
            let request = Some(Request::DeleteRange(delete));
            RequestOp { request }
        });
        let txn = TxnRequest {
            success: success.collect(),
            ..Default::default()
        };
        let reply = client.txn(&txn).await.map_err(failed)?;
        revision = reply.header.map_or(0, |header| header.revision);
    }
    let compaction = CompactionRequest {
        revision,
        physical: true,
    };
    client.compact(&compaction).await.map_err(failed)?;
    let file = || std::fs::metadata(server.db_file()).map_or(0, |file| file.len());
    let hash = client.hash_kv(revision).await.map_err(failed)?.hash;
    let before = file();

    let end = Instant::now() + ALONE;
    let alone = time_puts(&mut client, || Instant::now() < end).await?;
    let mut asks = Client::connect(server).await;
    let is_over = Rc::new(Cell::new(false));
    let says = is_over.clone();
    let begun = Instant::now();
    let ask = tokio::task::spawn_local(async move {
        let answer = asks.call("/etcdserverpb.Maintenance/Defragment", &Nothing {});
        let answer: Result<Nothing, _> = answer.await;
        says.set(true);
        (answer.map_err(failed), begun.elapsed())
    });
    let puts = time_puts(&mut client, || !is_over.get()).await?;
    let (answer, took) = ask.await.map_err(|error| error.to_string())?;
    answer?;
    let status = client.status().await.map_err(failed)?;
    if client.hash_kv(revision).await.map_err(failed)?.hash != hash {
        return Err("the hash of the history changed".into());
    }
    let milliseconds = |took: Duration| took.as_secs_f64() * 1e3;
    let mib = |bytes: u64| bytes >> 20;
    Ok(format!(
        "{:.1} | {:.1} | {:.2} | {:.0} | {:.1} | {} | {} | {}",
        milliseconds(alone[alone.len() - 1]),
        milliseconds(puts[puts.len() - 1]),
        milliseconds(puts[puts.len() * 99 / 100]),
        puts.len() as f64 / took.as_secs_f64(),
        took.as_secs_f64(),
        mib(before),
        mib(file()),
        mib(status.db_size_in_use as u64),
    ))
}

/// How long each put took, ascending; one in flight.
async fn time_puts(
    client: &mut Client,
    goes_on: impl Fn() -> bool,
) -> Result<Vec<Duration>, String> {
    let put = raw::put("bench/beside", vec![b'v'; VALUE_BYTES]);
    let mut times = Vec::new();
    while goes_on() || times.is_empty() {
        let begun = Instant::now();
        let answer = client.put(&put).await;
        answer.map_err(|failure| format!("{failure:?}"))?;
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    Ok(times)
}
