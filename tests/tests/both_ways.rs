//! The data file goes both ways: etcd's own tools and server read what the subject wrote, and the subject reads etcd's.
//!
//! From the subject: stopped in order, its `member/snap/db` is judged by etcdutl and restored into a data directory from which
//! a real etcd starts; every key at every readable revision, the revision itself and the hash of all history must be the same.
//! To the subject: the file of etcd 3.5.1 and of 3.7.1, stopped in order, is put into a fresh data directory as
//! `member/snap/db` without a log (a subject that is itself an etcd wants it restored first). Then the same comparison.

use std::fs;
use std::path::Path;

use pilaster_tests::content::{Content, write_some};
use pilaster_tests::pb::PutRequest;
use pilaster_tests::server::scratch_dir;
use pilaster_tests::{Client, Kind, Options, Server, kind, raw, tool};

const SEED: u64 = 7;

#[test]
fn etcd_reads_what_the_subject_wrote() {
    let Some(etcdutl) = kind::peer("3.7.1/etcdutl") else {
        return;
    };
    let (db, content, leases) = make_db(Kind::subject());
    let file = db.path().join("db");
    // A record of ours that etcd and its tools must carry along.
    let bytes = fs::read(&file).expect("there");
    let names_log = bytes.windows(11).any(|bytes| bytes == b"pilasterLog");
    assert_eq!(names_log, Kind::subject().is_pilaster());

    let text = tool::run(
        &etcdutl,
        &["snapshot", "status", &name(&file), "-w", "json"],
        "",
    );
    let text = text.expect_ok("etcdutl snapshot status");
    let status: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(status["revision"], content.revision, "{text}");
    assert_ne!(status["totalKey"], 0, "{text}");
    println!("etcdutl snapshot status: {}", text.trim());

    let hash = tool::run(&etcdutl, &["hashkv", &name(&file), "-w", "json"], "");
    let hash = hash.expect_ok("etcdutl hashkv");
    let hash: serde_json::Value = serde_json::from_str(&hash).expect("JSON");
    assert_eq!(hash["hash"], content.hash, "{hash}");

    let restored = scratch_dir();
    let mut server = restore(&file, restored.path(), Kind::Etcd371);
    server.launch();
    judge(&server, &content, &leases);
}

#[test]
fn the_subject_reads_etcd_3_5() {
    adopt(Kind::Etcd351);
}

#[test]
fn the_subject_reads_etcd_3_7() {
    adopt(Kind::Etcd371);
}

/// The way back of a backup, as `docs/operations.md` describes it: etcdutl restores, its log and raft snapshot go, and the
/// subject takes the rest.
#[test]
fn the_subject_takes_what_etcdutl_restored_from_it() {
    if !Kind::subject().is_pilaster() {
        println!("left out: a real etcd wants the log that etcdutl makes");
        return;
    }
    for version in ["3.7.1", "3.5.1"] {
        let Some(etcdutl) = kind::peer(&format!("{version}/etcdutl")) else {
            continue;
        };
        let (db, content, leases) = make_db(Kind::subject());
        let home = scratch_dir();
        let mut server = restore_with(
            &etcdutl,
            &db.path().join("db"),
            home.path(),
            Kind::subject(),
        );
        let member = server.data_dir().join("member");
        fs::remove_dir_all(member.join("wal")).expect("etcdutl made it");
        for entry in fs::read_dir(member.join("snap")).expect("etcdutl made it") {
            let path = entry.expect("readable").path();
            if path.extension().is_some_and(|end| end == "snap") {
                fs::remove_file(path).expect("etcdutl made it");
            }
        }
        server.launch();
        judge(&server, &content, &leases);
        server.kill9();
        server.launch();
        println!("restored by etcdutl {version} and taken back");
    }
}

fn adopt(from: Kind) {
    if kind::peer(&format!("{}/etcd", &from.name()[5..])).is_none() {
        return;
    }
    let (db, content, leases) = make_db(from);
    let file = db.path().join("db");
    let home = scratch_dir();
    let mut server = if Kind::subject().is_pilaster() {
        let place = home.path().join("data/member/snap");
        fs::create_dir_all(&place).expect("a scratch directory is writable");
        fs::copy(&file, place.join("db")).expect("a scratch directory is writable");
        Server::prepare(Options::new(Kind::subject()).data_dir(home.path().join("data")))
    } else {
        restore(&file, home.path(), Kind::subject())
    };
    server.launch();
    judge(&server, &content, &leases);
    // It is now the subject's own store: it survives a restart and goes on from there.
    server.terminate();
    server.launch();
    let revision = raw::block_on(async {
        let mut client = Client::connect(&server).await;
        let all = client
            .range(&raw::get_all())
            .await
            .expect("a ready server answers");
        all.header.expect("a header").revision
    });
    assert_eq!(
        revision,
        content.revision + 1,
        "the write after the move is there"
    );
    println!(
        "{} goes on from a file of {}",
        Kind::subject().name(),
        from.name()
    );
}

/// A data file with history, its server stopped in order, and what clients saw in it.
fn make_db(from: Kind) -> (tempfile::TempDir, Content, Leases) {
    let mut server = Server::start(Options::new(from));
    let (content, leases) = raw::block_on(async {
        let mut client = Client::connect(&server).await;
        let first = write_some(&mut client, SEED).await;
        lease_some(&mut client).await;
        let leases = read_leases(&mut client).await;
        (Content::read(&mut client, first).await, leases)
    });
    server.terminate();
    let copy = scratch_dir();
    fs::copy(server.db_file(), copy.path().join("db")).expect("a stopped server leaves its file");
    println!("{} wrote {}", from.name(), content.describe());
    (copy, content, leases)
}

/// Leases in order of their ids: id, granted time to live, attached keys.
type Leases = Vec<(i64, i64, Vec<Vec<u8>>)>;

/// Grants leases and attaches, moves, detaches and deletes keys.
async fn lease_some(client: &mut Client) {
    for (id, ttl) in [
        (1, 1_000_000),
        (-2, 2_000_000),
        (i64::MAX, 9_000_000_000),
        (4, 1_000),
    ] {
        client.grant(id, ttl).await.expect("a grant");
        for key in 0..5 {
            let put = PutRequest {
                lease: id,
                ..raw::put(format!("leased/{id}/{key}"), "v")
            };
            client.put(&put).await.expect("a put");
        }
    }
    let moved = PutRequest {
        lease: -2,
        ..raw::put("leased/1/0", "moved")
    };
    client.put(&moved).await.expect("a put");
    client
        .put(&raw::put("leased/1/1", "detached"))
        .await
        .expect("a put");
    client.revoke(4).await.expect("a revocation");
}

async fn read_leases(client: &mut Client) -> Leases {
    let mut leases = Vec::new();
    for lease in client.leases().await.expect("an answer").leases {
        let found = client
            .time_to_live(lease.id, true)
            .await
            .expect("an answer");
        leases.push((lease.id, found.granted_ttl, found.keys));
    }
    leases.sort();
    leases
}

/// Restores a data file with etcdutl for a server of `kind`, prepared and not yet launched.
fn restore(file: &Path, home: &Path, kind: Kind) -> Server {
    let etcdutl = kind::peer("3.7.1/etcdutl").expect("asked for by the caller");
    restore_with(&etcdutl, file, home, kind)
}

fn restore_with(etcdutl: &Path, file: &Path, home: &Path, kind: Kind) -> Server {
    let data_dir = home.join("data");
    let server = Server::prepare(Options::new(kind).data_dir(&data_dir));
    let peer = server.peer_url();
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
    tool::run(etcdutl, &arguments, "").expect_ok("etcdutl snapshot restore");
    server
}

/// The server shows the same content, and its next write is the next revision.
fn judge(server: &Server, content: &Content, leases: &Leases) {
    raw::block_on(async {
        let mut client = Client::connect(server).await;
        let found = Content::read(&mut client, content.first).await;
        assert_eq!(found.revision, content.revision, "revision");
        for (ours, theirs) in found.history.iter().zip(&content.history) {
            assert_eq!(ours, theirs, "the keys at revision {}", theirs.0);
        }
        assert_eq!(found.hash, content.hash, "HashKV");
        assert_eq!(read_leases(&mut client).await, *leases, "leases");
        // They live on.
        let mut stream = client.keep_alives().await;
        stream.send(1);
        assert_eq!(stream.ttl(1).await, 1_000_000);
        let put = client
            .put(&raw::put("after the move", "x"))
            .await
            .expect("a put");
        assert_eq!(put.header.expect("a header").revision, content.revision + 1);
    });
    println!(
        "{} reads the same: {}",
        server.kind().name(),
        content.describe()
    );
}

fn name(path: &Path) -> String {
    path.display().to_string()
}
