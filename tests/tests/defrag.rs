//! Defragment: the file becomes shorter while the server serves, and holds the same.
//!
//! A server is filled, two keys in five are deleted, history is compacted; then etcdctl and raw calls ask for it, some at the same
//! time, beside a client that goes on writing. The same tools that judge a backup judge the file: etcdutl reads it, a real etcd
//! starts from it, the hash of all history is what it was. Then the server is killed in the middle, again and again.

use std::cell::Cell;
use std::fs;
use std::path::Path;
use std::rc::Rc;

use pilaster_tests::pb::*;
use pilaster_tests::random::Random;
use pilaster_tests::server::scratch_dir;
use pilaster_tests::{Answer, Client, Kind, Options, Server, kind, raw, tool};
use prost::Message;
use tokio::task::LocalSet;

const KEYS: u32 = 24_000;
const VALUE_BYTES: usize = 300;
const ROUNDS: u32 = 12;

#[derive(Clone, PartialEq, Message)]
struct Nothing {}

async fn defragment(client: &mut Client) -> Answer<()> {
    let path = "/etcdserverpb.Maintenance/Defragment";
    // As in etcd, the answer has no header: any field would be told as unknown.
    let Nothing {} = client.call(path, &Nothing {}).await?;
    Ok(())
}

fn key(number: u32) -> Vec<u8> {
    format!("key {number:06}").into_bytes()
}

/// Fills the store, with its holes; returns the revision.
async fn fill(client: &mut Client) -> i64 {
    for from in (0..KEYS).step_by(100) {
        let success = (from..from + 100).map(|number| {
            let put = raw::put(key(number), vec![number as u8; VALUE_BYTES]);
            let request = Some(Request::Put(put));
            RequestOp { request }
        });
        let txn = TxnRequest {
            success: success.collect(),
            ..Default::default()
        };
        client.txn(&txn).await.expect("a txn of 100 puts");
    }
    let mut revision = 0;
    for from in (0..KEYS).step_by(5) {
        let delete = DeleteRangeRequest {
            key: key(from),
            range_end: key(from + 2),
            ..Default::default()
        };
        let gone = client.delete_range(&delete).await.expect("a deletion");
        assert_eq!(gone.deleted, 2);
        revision = gone.header.expect("a header").revision;
    }
    let compaction = CompactionRequest {
        revision,
        physical: true,
    };
    client.compact(&compaction).await.expect("a compaction");
    revision
}

#[test]
fn the_file_becomes_shorter_and_holds_the_same() {
    let mut server = Server::start(Options::new(Kind::subject()));
    let (hash, revision) = raw::block_on(async {
        let mut client = Client::connect(&server).await;
        let revision = fill(&mut client).await;
        let hash = client.hash_kv(revision).await.expect("a hash").hash;
        let before = client.status().await.expect("status");
        let length_before = fs::metadata(server.db_file()).expect("there").len();

        defragment(&mut client).await.expect("an answer");

        let after = client.status().await.expect("status");
        let length = fs::metadata(server.db_file()).expect("there").len();
        println!(
            "Status: {} bytes, {} in use; then {}, {}. File: {length_before}, then {length}",
            before.db_size, before.db_size_in_use, after.db_size, after.db_size_in_use
        );
        assert!(after.db_size < before.db_size * 3 / 4);
        assert!(after.db_size <= after.db_size_in_use * 11 / 10);
        assert!(length < length_before * 3 / 4);
        let found = client.hash_kv(revision).await.expect("a hash");
        assert_eq!(found.hash, hash);

        // Two at once, and a client that writes meanwhile.
        let (mut one, mut two) = (Client::connect(&server).await, client.clone());
        let writes = async {
            for number in 0..200 {
                let put = raw::put(format!("beside {number}"), "x");
                client.put(&put).await.expect("writes go on");
            }
        };
        let (one, two, ()) = tokio::join!(defragment(&mut one), defragment(&mut two), writes);
        one.and(two).expect("both are answered");
        let found = client.hash_kv(revision).await.expect("a hash");
        assert_eq!(found.hash, hash);
        let all = client.range(&raw::get_all()).await.expect("a range");
        assert_eq!(all.count, i64::from(KEYS / 5 * 3) + 200);
        let latest = client.hash_kv(0).await.expect("a hash").hash;
        (latest, all.header.expect("a header").revision)
    });
    for version in ["3.4.23", "3.5.1", "3.7.1"] {
        let Some(etcdctl) = kind::peer(&format!("{version}/etcdctl")) else {
            continue;
        };
        let text = tool::etcdctl(&etcdctl, &server, &["defrag"], "").expect_ok("etcdctl defrag");
        assert!(
            text.contains("Finished defragmenting etcd member"),
            "{text}"
        );
    }
    server.terminate();
    judge_file(&server.db_file(), hash);
    server.launch();
    raw::block_on(async {
        let mut client = Client::connect(&server).await;
        let found = client.hash_kv(revision).await.expect("a hash");
        assert_eq!(found.hash, hash, "after a restart");
    });
}

/// etcdutl reads the file, and a real etcd serves it.
fn judge_file(file: &Path, hash: u32) {
    let Some(etcdutl) = kind::peer("3.7.1/etcdutl") else {
        return;
    };
    let name = |path: &Path| path.to_str().expect("a plain path").to_owned();
    let arguments = ["snapshot", "status", &name(file), "-w", "json"];
    let status = tool::run(&etcdutl, &arguments, "").expect_ok("etcdutl snapshot status");
    println!("etcdutl snapshot status: {}", status.trim());
    let home = scratch_dir();
    let data_dir = home.path().join("data");
    let mut etcd = Server::prepare(Options::new(Kind::Etcd371).data_dir(&data_dir));
    let peer = etcd.peer_url();
    let arguments = [
        "snapshot",
        "restore",
        &name(file),
        "--skip-hash-check",
        "--data-dir",
        &name(&data_dir),
        "--name",
        "one",
        "--initial-cluster",
        &format!("one={peer}"),
        "--initial-advertise-peer-urls",
        &peer,
    ];
    tool::run(&etcdutl, &arguments, "").expect_ok("etcdutl snapshot restore");
    etcd.launch();
    raw::block_on(async {
        let mut client = Client::connect(&etcd).await;
        let found = client.hash_kv(0).await.expect("a hash").hash;
        assert_eq!(found, hash, "a real etcd reads the same");
    });
}

#[test]
fn kill_9_in_the_middle_loses_nothing() {
    let seed = match std::env::var("PILASTER_SEED") {
        Ok(seed) => seed.parse().expect("PILASTER_SEED is a number"),
        Err(_) => u64::from(std::process::id()),
    };
    println!("seed {seed}: {ROUNDS} rounds");
    let mut random = Random::new(seed);
    let mut server = Server::start(Options::new(Kind::subject()));
    raw::block_on(async {
        let mut client = Client::connect(&server).await;
        fill(&mut client).await;
    });
    let mut number = 0;
    let mut cut_short = 0;
    for round in 0..ROUNDS {
        let most = if random.chance(1, 2) { 40 } else { 400 };
        let kill_after = 1 + random.below(most);
        let answered = raw::block_on(LocalSet::new().run_until(async {
            let mut asks = Client::connect(&server).await;
            let mut client = Client::connect(&server).await;
            let answered = Rc::new(Cell::new(false));
            let says = answered.clone();
            let ask = tokio::task::spawn_local(async move {
                says.set(defragment(&mut asks).await.is_ok());
            });
            for _ in 0..kill_after {
                let put = raw::put(format!("written {number:06}"), vec![7; 400]);
                client.put(&put).await.expect("writes go on");
                number += 1;
            }
            let was_answered = answered.get();
            server.kill9();
            ask.await.expect("it ends with the connection");
            was_answered
        }));
        cut_short += u32::from(!answered);
        server.launch();
        raw::block_on(async {
            let mut client = Client::connect(&server).await;
            let written = RangeRequest {
                key: b"written ".into(),
                range_end: b"written!".into(),
                count_only: true,
                ..Default::default()
            };
            let count = client.range(&written).await.expect("a range").count;
            assert_eq!(count, number, "seed {seed}, round {round}");
            let all = client.range(&raw::get_all()).await.expect("a range");
            assert_eq!(all.count, i64::from(KEYS / 5 * 3) + number);
            // New holes for the next round.
            let delete = DeleteRangeRequest {
                key: b"hole".into(),
                range_end: b"holf".into(),
                ..Default::default()
            };
            for hole in 0..200 {
                let put = raw::put(format!("hole {hole}"), vec![1; 2000]);
                client.put(&put).await.expect("a put");
            }
            let gone = client.delete_range(&delete).await.expect("a deletion");
            let revision = gone.header.expect("a header").revision;
            let compaction = CompactionRequest {
                revision,
                physical: true,
            };
            client.compact(&compaction).await.expect("a compaction");
        });
    }
    println!("{number} acknowledged writes, {cut_short} of {ROUNDS} cut short: all is there");
    server.terminate();
}
