//! Logs that are not the member's own: missing, another member's, of a state before a restore. The start is refused and
//! nothing is touched; with the right log everything acknowledged is there.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use pilaster_tests::server::scratch_dir;
use pilaster_tests::{Client, Kind, Options, Server, kind, raw, tool};

/// Puts `count` keys and returns once all are acknowledged.
fn write(server: &Server, prefix: &str, count: usize) {
    raw::block_on(async {
        let mut client = Client::connect(server).await;
        for number in 0..count {
            let key = format!("{prefix} {number:03}");
            client.put(&raw::put(key, "x")).await.expect("a put");
        }
    });
}

/// Exactly `count` keys with that prefix, each put once, and the next revision.
fn judge(server: &Server, prefix: &str, count: usize) {
    raw::block_on(async {
        let mut client = Client::connect(server).await;
        let all = client.range(&raw::get_all()).await.expect("a range");
        let keys: Vec<String> = all
            .kvs
            .iter()
            .map(|kv| String::from_utf8_lossy(&kv.key).into_owned())
            .collect();
        let expected: Vec<String> = (0..count)
            .map(|number| format!("{prefix} {number:03}"))
            .collect();
        assert_eq!(keys, expected);
        let revision = all.header.expect("a header").revision;
        assert_eq!(revision, 1 + count as i64, "each write took one revision");
    });
}

/// Every file below `dir` with its content.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).expect("readable") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            let content = fs::read(&path).expect("readable");
            found.insert(path, content);
        }
    }
    found
}

/// Starts `server` on the log in `wal`, which must be refused with all of `wanted` named and nothing changed.
#[track_caller]
fn refused_with(server: &mut Server, wal: &Path, wanted: &[&str]) {
    let before = (files(server.data_dir()), files(wal));
    let flags = server.options_mut().flags.len();
    let flag = format!("--wal-dir={}", wal.display());
    server.options_mut().flags.push(flag);
    let refused = server.try_launch().expect_err("not its log");
    server.options_mut().flags.truncate(flags);
    let text = refused.text();
    assert_eq!(refused.status.code(), Some(1), "{text}");
    let (wal_name, db) = (wal.display().to_string(), server.db_file());
    for wanted in [&[&*wal_name, &*db.to_string_lossy()], wanted].concat() {
        assert!(text.contains(wanted), "{wanted} is not named: {text}");
    }
    let after = (files(server.data_dir()), files(wal));
    assert!(before == after, "a refused start changed files");
}

fn is_pilaster() -> bool {
    let is_pilaster = Kind::subject().is_pilaster();
    if !is_pilaster {
        println!("left out: a real etcd starts on what it finds");
    }
    is_pilaster
}

/// The log disk is not mounted, or its name is mistyped: a real etcd starts with what the data file holds.
#[test]
fn a_member_is_not_started_without_its_log() {
    if !is_pilaster() {
        return;
    }
    let mut server = Server::start(Options::new(Kind::subject()));
    write(&server, "key", 60);
    server.kill9();
    let empty = scratch_dir();
    refused_with(&mut server, empty.path(), &["holds no log", "db.sum"]);
    assert!(files(empty.path()).is_empty());
    server.launch();
    judge(&server, "key", 60);
    // And once more after a stop in good order, when the data file alone would do.
    server.terminate();
    refused_with(&mut server, empty.path(), &["holds no log"]);
    server.launch();
    judge(&server, "key", 60);
    println!("without its log a member is refused; with it all 60 writes are there");
}

#[test]
fn another_members_log_is_refused() {
    if !is_pilaster() {
        return;
    }
    let mut one = Server::start(Options::new(Kind::subject()));
    let mut two = Server::start(Options::new(Kind::subject()));
    write(&one, "one", 30);
    write(&two, "two", 50);
    // Restarts make terms differ, in both directions.
    for _ in 0..3 {
        one.kill9();
        one.launch();
    }
    one.kill9();
    two.kill9();
    let (wal_one, wal_two) = (
        one.data_dir().join("member/wal"),
        two.data_dir().join("member/wal"),
    );
    refused_with(&mut one, &wal_two, &["another log", "--wal-dir"]);
    refused_with(&mut two, &wal_one, &["another log", "--wal-dir"]);
    one.launch();
    judge(&one, "one", 30);
    two.launch();
    judge(&two, "two", 50);
    println!("two members do not start on each other's log, and both on their own");
}

/// `etcdutl snapshot restore` puts back an older state; entries of the log must not be applied on top of it.
#[test]
fn a_restored_data_file_does_not_go_on_with_the_old_log() {
    if !is_pilaster() {
        return;
    }
    let Some(etcdutl) = kind::peer("3.7.1/etcdutl") else {
        return;
    };
    let mut server = Server::start(Options::new(Kind::subject()));
    write(&server, "key", 20);
    server.terminate();
    let home = scratch_dir();
    let backup = home.path().join("backup.db");
    fs::copy(server.db_file(), &backup).expect("room");
    server.launch();
    write(&server, "later", 5);
    server.kill9();

    let restored = home.path().join("restored");
    let arguments = [
        "snapshot",
        "restore",
        &backup.display().to_string(),
        "--skip-hash-check",
        "--data-dir",
        &restored.display().to_string(),
    ];
    tool::run(&etcdutl, &arguments, "").expect_ok("etcdutl snapshot restore");
    fs::copy(restored.join("member/snap/db"), server.db_file()).expect("room");
    let wal = server.data_dir().join("member/wal");
    refused_with(
        &mut server,
        &wal,
        &["another program has changed", "etcdutl"],
    );
    // What the refusal says, for those who want the restored state.
    for file in files(&wal).into_keys() {
        fs::remove_file(file).expect("ours");
    }
    fs::remove_file(server.data_dir().join("member/snap/db.sum")).expect("there");
    server.launch();
    judge(&server, "key", 20);
    server.kill9();
    server.launch();
    judge(&server, "key", 20);
    println!("a restored data file is refused beside the old log, and starts without it");
}

/// The tree file is gone, the log is whole: nothing is lost.
#[test]
fn a_lost_data_file_is_made_again_from_the_log() {
    if !is_pilaster() {
        return;
    }
    let mut server = Server::start(Options::new(Kind::subject()));
    write(&server, "key", 40);
    server.kill9();
    for name in ["db", "db.sum"] {
        fs::remove_file(server.db_file().with_file_name(name)).expect("there");
    }
    server.launch();
    judge(&server, "key", 40);
    println!("40 writes came back from the log alone");
}
