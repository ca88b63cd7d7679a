//! Kill -9 under load, again and again: what was acknowledged is there, whole, once, at its revision.
//!
//! [`ROUNDS`] times: clients write; after a chosen number of acknowledgements the process is killed; sometimes it is killed
//! again while it recovers, at a chosen line of its log; then it must start, and [`ledger`] judges all it holds. Beyond the
//! groups of keys, the store's revision must be 1 plus the number of writes that are there, so nothing else took a revision and
//! no revision was given twice, and a sample of older writes is read back at its own revision.
//!
//! The moments are chosen by a printed seed (`PILASTER_SEED` repeats the choice, though not the kernel's timing). A killed
//! process loses nothing that the kernel holds; lost pages are the business of the storage crash tests.

mod ledger;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use ledger::Ledger;
use pilaster_tests::pb::*;
use pilaster_tests::random::Random;
use pilaster_tests::{Client, Kind, Options, Server, raw};
use tokio::sync::Notify;
use tokio::task::LocalSet;

const ROUNDS: u32 = 60;
/// Clients with one request in flight each; every fourth writes txns of three keys.
const CLIENTS: usize = 16;
/// Groups of keys per client.
const GROUPS: u64 = 5;
/// Acknowledged writes kept for reading back at their revision.
const SAMPLE_MAX: usize = 400;

#[test]
fn acknowledged_writes_survive() {
    let seed = match std::env::var("PILASTER_SEED") {
        Ok(seed) => seed.parse().expect("PILASTER_SEED is a number"),
        Err(_) => u64::from(std::process::id()),
    };
    println!("seed {seed}: {ROUNDS} rounds of kill -9 under load of {CLIENTS} clients");
    let mut random = Random::new(seed);
    let mut server = Server::start(Options::new(Kind::subject()));
    let mut ledgers: Vec<Vec<Ledger>> = (0..CLIENTS).map(client_ledgers).collect();
    let mut sample: Vec<(Vec<u8>, Vec<u8>, i64)> = Vec::new();
    let (mut acknowledged, mut in_recovery) = (0, 0);
    for round in 0..ROUNDS {
        let most = if random.chance(1, 4) { 20 } else { 600 };
        let kill_after = 1 + random.below(most);
        acknowledged += load_and_kill(&mut server, &mut ledgers, kill_after, random.word());
        while random.chance(1, 3) {
            server.spawn();
            server.await_log_lines(1 + random.below(40) as usize);
            server.kill9();
            in_recovery += 1;
        }
        server.launch();
        raw::block_on(async {
            let mut client = Client::connect(&server).await;
            if let Err(wrong) = judge(&mut client, &mut ledgers).await {
                panic!("seed {seed}, round {round}: {wrong}");
            }
            remember(&ledgers, &mut sample, &mut random);
            for _ in 0..20.min(sample.len()) {
                let (key, value, revision) = random.pick(&sample).clone();
                let request = RangeRequest {
                    revision,
                    ..raw::get(key)
                };
                let reply = client.range(&request).await.expect("nothing is compacted");
                let found = reply.kvs.first().map(|kv| (&kv.value, kv.mod_revision));
                assert_eq!(
                    found,
                    Some((&value, revision)),
                    "seed {seed}, round {round}: history"
                );
            }
        });
    }
    println!(
        "{acknowledged} acknowledged writes, {in_recovery} kills during recovery: all is there"
    );
}

fn client_ledgers(client: usize) -> Vec<Ledger> {
    let keys_of_group = if client % 4 == 3 { 3 } else { 1 };
    let key = |group, part| format!("client {client:02} group {group} part {part}").into_bytes();
    (0..GROUPS)
        .map(|group| Ledger::new((0..keys_of_group).map(|part| key(group, part)).collect()))
        .collect()
}

/// Lets all clients write until `kill_after` writes are acknowledged, then kills the server under them.
fn load_and_kill(
    server: &mut Server,
    ledgers: &mut [Vec<Ledger>],
    kill_after: u64,
    seed: u64,
) -> u64 {
    let acknowledged = Rc::new(Cell::new(0));
    let enough = Rc::new(Notify::new());
    let shared: Vec<Rc<RefCell<Vec<Ledger>>>> = ledgers
        .iter_mut()
        .map(|own| Rc::new(RefCell::new(std::mem::take(own))))
        .collect();
    raw::block_on(LocalSet::new().run_until(async {
        let mut writers = Vec::new();
        for (number, own) in shared.iter().enumerate() {
            let client = Client::connect(server).await;
            let (own, acknowledged, enough) = (own.clone(), acknowledged.clone(), enough.clone());
            let random = Random::new(seed ^ number as u64);
            writers.push(tokio::task::spawn_local(async move {
                write_until_cut(client, &own, random, || {
                    acknowledged.set(acknowledged.get() + 1);
                    if acknowledged.get() == kill_after {
                        enough.notify_one();
                    }
                })
                .await
            }));
        }
        enough.notified().await;
        server.kill9();
        for writer in writers {
            writer.await.expect("a writer ends when its server is gone");
        }
    }));
    for (own, shared) in ledgers.iter_mut().zip(shared) {
        *own = shared.take();
    }
    acknowledged.get()
}

/// Writes to groups chosen by `random` until the connection is cut.
async fn write_until_cut(
    mut client: Client,
    ledgers: &RefCell<Vec<Ledger>>,
    mut random: Random,
    on_acknowledged: impl Fn(),
) {
    loop {
        let group = random.below(GROUPS) as usize;
        let (keys, value) = {
            let ledger = &mut ledgers.borrow_mut()[group];
            (ledger.keys.clone(), ledger.begin())
        };
        let answer = match &keys[..] {
            [key] => client
                .put(&raw::put(key.clone(), value))
                .await
                .map(|reply| reply.header),
            _ => {
                let puts = keys.into_iter().map(|key| RequestOp {
                    request: Some(Request::Put(raw::put(key, value.clone()))),
                });
                let txn = TxnRequest {
                    success: puts.collect(),
                    ..Default::default()
                };
                client.txn(&txn).await.map(|reply| reply.header)
            }
        };
        match answer {
            Ok(header) => {
                let revision = header.expect("a header").revision;
                ledgers.borrow_mut()[group].acknowledge(revision);
                on_acknowledged();
            }
            Err(failure) if failure.is_from_server() => panic!("a plain write failed: {failure:?}"),
            Err(_) => return,
        }
    }
}

/// Reads everything and holds it against the ledgers.
async fn judge(client: &mut Client, ledgers: &mut [Vec<Ledger>]) -> Result<(), String> {
    let all = client
        .range(&raw::get_all())
        .await
        .map_err(|failure| format!("{failure:?}"))?;
    let revision = all.header.as_ref().expect("a header").revision;
    let mut found: std::collections::BTreeMap<Vec<u8>, KeyValue> =
        all.kvs.into_iter().map(|kv| (kv.key.clone(), kv)).collect();
    let mut present = 0;
    for ledger in ledgers.iter_mut().flatten() {
        let kvs: Vec<_> = ledger.keys.iter().map(|key| found.remove(key)).collect();
        ledger.check(&kvs)?;
        present += ledger.present() as i64;
    }
    if let Some(stranger) = found.keys().next() {
        return Err(format!(
            "nobody wrote the key {:?}",
            String::from_utf8_lossy(stranger)
        ));
    }
    if revision != 1 + present {
        return Err(format!(
            "revision {revision}, but {present} writes are there"
        ));
    }
    Ok(())
}

/// Keeps some of the newest writes, to be read back in later rounds.
fn remember(
    ledgers: &[Vec<Ledger>],
    sample: &mut Vec<(Vec<u8>, Vec<u8>, i64)>,
    random: &mut Random,
) {
    for ledger in ledgers.iter().flatten() {
        let Some((value, revision)) = ledger.newest() else {
            continue;
        };
        let entry = (ledger.keys[0].clone(), value, revision);
        if sample.len() < SAMPLE_MAX {
            sample.push(entry);
        } else {
            let place = random.below(SAMPLE_MAX as u64) as usize;
            sample[place] = entry;
        }
    }
}
