//! Backups over the wire: whole, of one revision, restored by etcd's own tools, and harmless whoever reads them how.

use std::fs;
use std::time::{Duration, Instant};

use pilaster_tests::content::{Content, write_some};
use pilaster_tests::pb::CompactionRequest;
use pilaster_tests::server::scratch_dir;
use pilaster_tests::{Client, Kind, Options, Server, kind, raw, tool};

use super::{fill, name, restore, start};

const HAPPEN_MAX: Duration = Duration::from_secs(60);

/// Three generations of etcdctl save one, etcdutl judges it, and a real etcd that starts from it shows the same content.
#[test]
fn etcdctl_saves_what_a_real_etcd_starts_from() {
    for version in ["3.4.23", "3.5.1", "3.7.1"] {
        let (Some(etcdctl), Some(etcdutl)) = (
            kind::peer(&format!("{version}/etcdctl")),
            kind::peer("3.7.1/etcdutl"),
        ) else {
            return;
        };
        let server = start();
        let content = raw::block_on(async {
            let mut client = Client::connect(&server).await;
            let first = write_some(&mut client, 11).await;
            Content::read(&mut client, first).await
        });
        let home = scratch_dir();
        let file = home.path().join("backup");
        let saved = tool::etcdctl(&etcdctl, &server, &["snapshot", "save", &name(&file)], "");
        saved.expect_ok("snapshot save");

        // On a copy: etcdutl opens the file for writing, and what it leaves no longer has the digest of the backup.
        let judged = home.path().join("judged");
        fs::copy(&file, &judged).expect("a scratch directory is writable");
        let arguments = ["snapshot", "status", &name(&judged), "-w", "json"];
        let text = tool::run(&etcdutl, &arguments, "").expect_ok("etcdutl snapshot status");
        let status: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(status["revision"], content.revision, "{text}");
        assert_eq!(status["version"], "3.7.0", "{text}");
        let hash = tool::run(&etcdutl, &["hashkv", &name(&judged), "-w", "json"], "");
        let hash = hash.expect_ok("etcdutl hashkv");
        let hash: serde_json::Value = serde_json::from_str(&hash).expect("JSON");
        assert_eq!(hash["hash"], content.hash, "{hash}");

        let Some(mut restored) = restore(&file, home.path(), Kind::Etcd371) else {
            return;
        };
        restored.launch();
        raw::block_on(async {
            let mut client = Client::connect(&restored).await;
            assert_eq!(Content::read(&mut client, content.first).await, content);
        });
        println!(
            "etcdctl {version} saved, etcd 3.7.1 restored: {}",
            content.describe()
        );
    }
}

/// Writers go on; the backup is the state of one revision, with everything acknowledged before it was asked for.
#[test]
fn a_backup_during_writes_is_one_revision() {
    let server = start();
    let home = scratch_dir();
    let file = home.path().join("backup");
    let acknowledged = raw::block_on(async {
        let mut client = Client::connect(&server).await;
        fill(&mut client, 200, 50_000, b'a').await;
        let mut writer = client.clone();
        let writes = async {
            for round in 0..20 {
                fill(&mut writer, 50, 1_000, round).await;
            }
        };
        let backup = async {
            let acknowledged = fill(&mut client, 1, 10, b'z').await;
            let (bytes, digest) = client
                .snapshot()
                .await
                .expect("a stream")
                .finish()
                .await
                .expect("a whole backup");
            assert_eq!(digest.len(), 32);
            assert!(10_000_000 < bytes.len());
            let mut whole = bytes;
            whole.extend_from_slice(&digest);
            fs::write(&file, whole).expect("a scratch directory is writable");
            acknowledged
        };
        tokio::join!(writes, backup).1
    });
    if Kind::subject().is_pilaster() {
        // The other way: the file alone is a member's whole data, digest and all.
        let data_dir = home.path().join("copied");
        fs::create_dir_all(data_dir.join("member/snap")).expect("a scratch directory is writable");
        fs::copy(&file, data_dir.join("member/snap/db")).expect("a scratch directory is writable");
        let copied = Server::start(Options::new(Kind::subject()).data_dir(&data_dir));
        raw::block_on(judge(&server, &copied, acknowledged));
    }
    let Some(mut restored) = restore(&file, home.path(), Kind::Etcd371) else {
        return;
    };
    restored.launch();
    raw::block_on(judge(&server, &restored, acknowledged));
}

/// What was restored is what the server held at one revision, from `acknowledged` on.
async fn judge(server: &Server, restored: &Server, acknowledged: i64) {
    {
        let mut theirs = Client::connect(restored).await;
        let mut ours = Client::connect(server).await;
        let all = theirs.range(&raw::get_all()).await.expect("an answer");
        let revision = all.header.expect("a header").revision;
        assert!(acknowledged <= revision, "{acknowledged} and {revision}");
        let at = pilaster_tests::pb::RangeRequest {
            revision,
            ..raw::get_all()
        };
        let same = ours.range(&at).await.expect("an answer");
        assert!(same.kvs == all.kvs, "the keys at revision {revision}");
        let hashes = (
            ours.hash_kv(revision).await.expect("a hash").hash,
            theirs.hash_kv(revision).await.expect("a hash").hash,
        );
        assert_eq!(hashes.0, hashes.1, "HashKV at revision {revision}");
        println!(
            "a backup of revision {revision} during writes, restored into {}",
            restored.kind().name()
        );
    }
}

/// Clients that begin a backup and read nothing: writes go on, memory stays, and what they held comes back when they go.
#[test]
fn readers_that_stall_hold_pages_and_nothing_else() {
    const READERS: usize = 8;
    const KEYS: usize = 400;
    const BYTES: usize = 50_000;
    let server = Server::start(Options::new(Kind::subject()).core(0));
    raw::block_on(async {
        let mut client = Client::connect(&server).await;
        // The buffers of writes and commits have their size by then.
        churn(&mut client, KEYS, BYTES).await;
        churn(&mut client, KEYS, BYTES).await;
        let before = anonymous_bytes(&server);
        let mut stalled = Vec::new();
        for _ in 0..READERS {
            let mut other = Client::connect(&server).await;
            let mut stream = other.snapshot().await.expect("a stream");
            stream
                .message()
                .await
                .expect("a message")
                .expect("the first one");
            stalled.push((other, stream));
        }
        let size = churn(&mut client, KEYS, BYTES).await;
        let grown = churn(&mut client, KEYS, BYTES).await;
        let memory = anonymous_bytes(&server).saturating_sub(before);
        if Kind::subject().is_pilaster() {
            // Two pieces each, and what an allocator keeps; the copies they did not read would be many times that.
            let bound = (READERS * (1 << 20) + KEYS * BYTES) as u64;
            assert!(memory < bound, "{memory} bytes more");
        }
        assert!(
            size < grown,
            "held pages are not written again: {size}, {grown}"
        );
        drop(stalled);
        // What was held is used again: soon the file stops growing.
        let began = Instant::now();
        let mut last = grown;
        loop {
            let now = churn(&mut client, KEYS, BYTES).await;
            if now == last {
                break;
            }
            assert!(began.elapsed() < HAPPEN_MAX, "the file still grows: {now}");
            last = now;
        }
        println!(
            "{READERS} stalled readers: {memory} bytes of memory, file {size} to {grown}, then {last}"
        );
    });
}

/// A member that dies in the middle of a backup: the client sees its call fail, and the next start has everything.
#[test]
fn a_kill_in_the_middle_loses_nothing() {
    let mut server = start();
    let revision = raw::block_on(async {
        let mut client = Client::connect(&server).await;
        fill(&mut client, 200, 50_000, b'a').await;
        let mut stream = client.snapshot().await.expect("a stream");
        stream
            .message()
            .await
            .expect("a message")
            .expect("the first one");
        let revision = fill(&mut client, 20, 100, b'b').await;
        server.kill9();
        let ended = stream.finish_any().await;
        assert!(
            ended.is_err(),
            "a backup that broke off must not look whole"
        );
        revision
    });
    server.launch();
    raw::block_on(async {
        let mut client = Client::connect(&server).await;
        let all = client.range(&raw::get_all()).await.expect("an answer");
        assert_eq!(all.header.expect("a header").revision, revision);
        let stream = client.snapshot().await.expect("a stream");
        let (file, _) = stream.finish().await.expect("a whole backup");
        assert!(10_000_000 < file.len());
    });
}

/// More streams than one member serves at once.
#[test]
fn too_many_backups_are_refused() {
    if !Kind::subject().is_pilaster() {
        println!("left out: a real etcd takes any number");
        return;
    }
    let server = Server::start(Options::new(Kind::subject()).core(0));
    raw::block_on(async {
        let mut client = Client::connect(&server).await;
        fill(&mut client, 100, 50_000, b'a').await;
        let mut held = Vec::new();
        for _ in 0..16 {
            // A connection each: what is not read holds up the others of its connection.
            let mut other = Client::connect(&server).await;
            let mut stream = other.snapshot().await.expect("a stream");
            stream
                .message()
                .await
                .expect("a message")
                .expect("the first one");
            held.push((other, stream));
        }
        let refused = client.snapshot().await;
        let failure = match refused {
            Ok(mut stream) => stream.message().await.expect_err("one too many"),
            Err(failure) => failure,
        };
        assert_eq!(failure.text, "etcdserver: too many requests");
        // Those that were taken are served to their end.
        for (_other, stream) in held {
            stream.finish_any().await.expect("a whole backup");
        }
        let stream = client.snapshot().await.expect("a stream");
        stream.finish().await.expect("there is room again");
    });
}

/// Overwrites everything, compacts what was, and says how long the file is once both are in it.
async fn churn(client: &mut Client, keys: usize, bytes: usize) -> i64 {
    for round in 0..2 {
        let revision = fill(client, keys, bytes, b'b' + round).await;
        let compact = CompactionRequest {
            revision,
            physical: true,
        };
        client.compact(&compact).await.expect("a compaction");
    }
    client.status().await.expect("an answer").db_size
}

/// Memory of the process that is no file's.
fn anonymous_bytes(server: &Server) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid()));
    let status = status.expect("a running process");
    let line = status.lines().find(|line| line.starts_with("RssAnon:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    kib.and_then(|kib| kib.parse::<u64>().ok())
        .expect("a number")
        * 1024
}
