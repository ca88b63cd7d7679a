//! The data directory of a real etcd: refused before anything is touched, and the remedy in the refusal works to the letter.

use std::fs;
use std::path::{Path, PathBuf};

use pilaster_tests::server::scratch_dir;
use pilaster_tests::{Client, Kind, Options, Server, kind, raw, tool};

#[test]
fn the_directory_of_etcd_3_7_is_refused_and_the_remedy_works() {
    refuse_and_follow(Kind::Etcd371);
}

#[test]
fn the_directory_of_etcd_3_5_is_refused_and_the_remedy_works() {
    refuse_and_follow(Kind::Etcd351);
}

/// Names, sizes and times of change below `dir`.
fn listing(dir: &Path) -> Vec<(PathBuf, u64, std::time::SystemTime)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("readable") {
        let path = entry.expect("readable").path();
        let about = fs::metadata(&path).expect("there");
        let changed = about.modified().expect("the file system knows");
        if about.is_dir() {
            found.extend(listing(&path));
            found.push((path, 0, changed));
        } else {
            found.push((path, about.len(), changed));
        }
    }
    found.sort();
    found
}

/// Starts the subject on `dir`, which must be refused for `file` and left as it was.
#[track_caller]
fn refused(dir: &Path, file: &str) {
    let before = listing(dir);
    let refused = Server::try_start(Options::new(Kind::subject()).data_dir(dir));
    let refused = refused.expect_err("files of etcd lie there");
    let text = refused.text();
    assert_eq!(refused.status.code(), Some(1), "{text}");
    let file = dir.join(file).display().to_string();
    for wanted in [
        &*file,
        "etcdctl snapshot save",
        "etcdutl snapshot restore",
        "member/wal",
    ] {
        assert!(text.contains(wanted), "{wanted} is not named: {text}");
    }
    assert_eq!(listing(dir), before, "a refused start changed something");
}

fn refuse_and_follow(from: Kind) {
    if !Kind::subject().is_pilaster() {
        println!("left out: a real etcd starts on its own directory");
        return;
    }
    let version = &from.name()[5..];
    let Some(etcdutl) = kind::peer(&format!("{version}/etcdutl")) else {
        return;
    };
    let etcdctl = kind::peer(&format!("{version}/etcdctl")).expect("beside etcdutl");
    let mut etcd = Server::start(Options::new(from));
    raw::block_on(async {
        let mut client = Client::connect(&etcd).await;
        for number in 0..10 {
            let put = raw::put(format!("key {number}"), "x");
            client.put(&put).await.expect("a put");
        }
    });
    // Killed, so its newest writes are in its log alone.
    etcd.kill9();
    let dir = etcd.data_dir().to_owned();
    refused(&dir, "member/wal/0.tmp");
    fs::rename(dir.join("member/wal"), dir.join("log")).expect("ours");
    let elsewhere = Options::new(Kind::subject())
        .data_dir(scratch_dir().path().join("fresh"))
        .flag(format!("--wal-dir={}", dir.join("log").display()));
    let text = Server::try_start(elsewhere).expect_err("etcd's log").text();
    assert!(text.contains("belongs to an etcd member"), "{text}");
    fs::rename(dir.join("log"), dir.join("member/wal")).expect("ours");

    // The remedy, step by step.
    etcd.launch();
    let home = scratch_dir();
    let (snapshot, new) = (home.path().join("snapshot.db"), home.path().join("new"));
    let save = ["snapshot", "save", &snapshot.display().to_string()];
    tool::etcdctl(&etcdctl, &etcd, &save, "").expect_ok("etcdctl snapshot save");
    etcd.terminate();
    let restore = [
        "snapshot",
        "restore",
        &snapshot.display().to_string(),
        "--data-dir",
        &new.display().to_string(),
    ];
    tool::run(&etcdutl, &restore, "").expect_ok("etcdutl snapshot restore");
    refused(&new, "member/wal/0000000000000000-0000000000000000.wal");
    fs::remove_dir_all(new.join("member/wal")).expect("ours");
    refused(&new, "member/snap/0000000000000001-0000000000000001.snap");
    fs::remove_file(new.join("member/snap/0000000000000001-0000000000000001.snap")).expect("ours");
    let mut server = Server::start(Options::new(Kind::subject()).data_dir(&new));
    for _ in 0..2 {
        raw::block_on(async {
            let mut client = Client::connect(&server).await;
            let all = client.range(&raw::get_all()).await.expect("a range");
            assert_eq!(
                (all.count, all.header.expect("a header").revision),
                (10, 11)
            );
        });
        server.kill9();
        server.launch();
    }
    println!(
        "{}: refused, and all 10 keys came over by the remedy",
        from.name()
    );
}
