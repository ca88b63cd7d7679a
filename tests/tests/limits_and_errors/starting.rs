//! Starting and stopping: flags, data directories, a second process, SIGTERM.

use std::fs;
use std::os::unix::process::ExitStatusExt;

use pilaster_tests::server::scratch_dir;
use pilaster_tests::{Client, Kind, Options, Server, raw, tool};

#[test]
fn flags_are_explained() {
    let program = Kind::subject().program();
    let version = tool::run(&program, &["--version"], "").expect_ok("--version");
    let lines: Vec<&str> = version.lines().collect();
    assert!(
        lines.first().is_some_and(|line| line.contains("ersion")),
        "{version}"
    );
    assert!(
        tool::run(&program, &["--help"], "")
            .expect_ok("--help")
            .contains("data-dir")
    );
    let unknown = tool::run(&program, &["--data-dri", "x"], "");
    assert_eq!(unknown.status.code(), Some(2), "{unknown:?}");
    assert!(unknown.stderr.contains("data-dri"), "{unknown:?}");
    if Kind::subject().is_pilaster() {
        assert!(
            unknown.stderr.contains("--data-dir"),
            "no suggestion: {}",
            unknown.stderr
        );
    }
    let no_advertise = ["--listen-client-urls", "http://127.0.0.1:1"];
    let refused = tool::run(&program, &no_advertise, "");
    assert!(!refused.status.success(), "{refused:?}");
    let text = "--advertise-client-urls is required when --listen-client-urls is set explicitly";
    assert!(refused.stderr.contains(text), "{refused:?}");
    println!("--version, --help, an unknown flag, a missing flag");
}

#[test]
fn a_data_directory_is_made_and_closed_to_others() {
    use std::os::unix::fs::PermissionsExt;
    let home = scratch_dir();
    let dir = home.path().join("not/yet/there");
    let server = Server::start(Options::new(Kind::subject()).data_dir(&dir));
    let mode = fs::metadata(server.data_dir())
        .expect("made at start")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o700);
    assert!(server.db_file().is_file());
    println!("a missing data directory is made with mode 700");
}

#[test]
fn an_unusable_data_directory_is_refused_by_name() {
    let home = scratch_dir();
    let file = home.path().join("file");
    fs::write(&file, "x").expect("a scratch directory is writable");
    for dir in [file.join("data"), "/proc/data".into()] {
        let refused = Server::try_start(Options::new(Kind::subject()).data_dir(&dir));
        let refused = refused.expect_err("no data directory can be there");
        assert!(!refused.status.success());
        let name = dir.display().to_string();
        assert!(
            refused.text().contains(&name),
            "{name} is not named: {}",
            refused.text()
        );
    }
    println!("a data directory that cannot be made is refused by name");
}

#[test]
fn a_data_file_that_is_none_is_refused_and_left_alone() {
    let home = scratch_dir();
    let snap = home.path().join("member/snap");
    fs::create_dir_all(&snap).expect("a scratch directory is writable");
    let garbage = vec![b'g'; 40_000];
    fs::write(snap.join("db"), &garbage).expect("a scratch directory is writable");
    let refused = Server::try_start(Options::new(Kind::subject()).data_dir(home.path()));
    let refused = refused.expect_err("garbage is no data file");
    assert!(!refused.status.success());
    assert_eq!(fs::read(snap.join("db")).expect("still there"), garbage);
    if Kind::subject().is_pilaster() {
        assert!(
            refused.text().contains("member/snap/db"),
            "{}",
            refused.text()
        );
    }
    println!("a foreign file in place of the data file is refused and left alone");
}

#[test]
fn a_file_beside_the_tree_file_is_refused_by_name() {
    if !Kind::subject().is_pilaster() {
        println!("left out: a real etcd does not look");
        return;
    }
    let home = scratch_dir();
    let snap = home.path().join("member/snap");
    fs::create_dir_all(&snap).expect("a scratch directory is writable");
    for (name, wanted) in [
        ("server.key", "does not belong"),
        ("db.tmp.17", "etcdutl defrag"),
    ] {
        let file = snap.join(name);
        fs::write(&file, "mine").expect("a scratch directory is writable");
        let refused = Server::try_start(Options::new(Kind::subject()).data_dir(home.path()));
        let text = refused.expect_err("a foreign file").text();
        for wanted in [&*file.display().to_string(), wanted] {
            assert!(text.contains(wanted), "{wanted} is not in: {text}");
        }
        assert_eq!(fs::read(&file).expect("still there"), b"mine");
        assert!(!snap.join("db").exists(), "nothing is made");
        fs::remove_file(file).expect("ours");
    }
    println!("a foreign file in member/snap is refused and left alone");
}

/// A real etcd starts beside a file that is none of its own. Such a directory is more likely the wrong one, so here the file
/// is named; nobody touches it.
#[test]
fn other_files_in_the_data_directory_are_left_alone() {
    let home = scratch_dir();
    let note = home.path().join("note.txt");
    fs::write(&note, "mine").expect("a scratch directory is writable");
    let started = Server::try_start(Options::new(Kind::subject()).data_dir(home.path()));
    if Kind::subject().is_pilaster() {
        let refused = started.expect_err("a foreign file lies in the data directory");
        assert!(!refused.status.success());
        let name = note.display().to_string();
        assert!(refused.text().contains(&name), "{}", refused.text());
        assert!(!home.path().join("member").exists(), "nothing is made");
    } else {
        started.expect("etcd does not mind").terminate();
    }
    assert_eq!(fs::read(&note).expect("still there"), b"mine");
    println!("a file that is not ours stays in the data directory");
}

/// What can be known from the configuration alone is refused before a directory is made.
#[test]
fn a_wrong_configuration_leaves_no_directories() {
    if !Kind::subject().is_pilaster() {
        println!("left out: a real etcd makes its directories first");
        return;
    }
    let home = scratch_dir();
    let missing = home.path().join("no-such.pem");
    let no_file = format!("--cert-file={}", missing.display());
    let no_key = format!("--key-file={}", missing.display());
    // No host has an address of the network that is for documentation.
    let elsewhere = "http://192.0.2.7:2379";
    let cases: [(&[&str], &[&str]); 6] = [
        (
            &["--initial-cluster=other=http://127.0.0.1:1"],
            &["couldn't find local name", "initial cluster"],
        ),
        (
            &["--initial-cluster-state=existing"],
            &["--initial-cluster-state=existing"],
        ),
        (
            &[
                &no_file,
                &no_key,
                "--listen-client-urls=https://127.0.0.1:1",
            ],
            &[
                "--cert-file",
                "no-such.pem",
                "cannot be read",
                "permissions",
            ],
        ),
        (
            &["--listen-client-urls", elsewhere],
            &[
                "192.0.2.7:2379",
                "annot assign requested address",
                "ip address",
            ],
        ),
        (&["--cores=0,0"], &["names core 0 twice"]),
        (&["--cores=8000"], &["core 8000", "taskset"]),
    ];
    for (flags, wanted) in cases {
        let dir = home.path().join("data");
        let options = flags.iter().fold(
            Options::new(Kind::subject()).data_dir(&dir),
            |options, flag| options.flag(*flag),
        );
        let refused = Server::try_start(options).expect_err("a wrong configuration");
        let text = refused.text();
        assert!(!refused.status.success(), "{text}");
        for wanted in wanted {
            assert!(text.contains(wanted), "{wanted} is not in: {text}");
        }
        assert!(!text.contains("the cores cannot be started"), "{text}");
        assert!(!dir.exists(), "{flags:?} left a directory");
    }
    println!("six wrong configurations are refused by name and leave nothing");
}

/// A real etcd ignores what it does not know in the file without a word.
#[test]
fn a_misspelled_key_of_the_file_is_named() {
    let mut server = Server::prepare(Options::new(Kind::subject()));
    let home = scratch_dir();
    let file = home.path().join("config.yml");
    let text = format!(
        "Name: one\ndata-dir: {}\nlisten-client-urls: {url}\nadvertise-client-urls: {url}\n\
         listen-peer-urls: {peer}\ninitial-advertise-peer-urls: {peer}\ninitial-cluster: one={peer}\n\
         snapshot-cuont: 5\n",
        server.data_dir().display(),
        url = server.url(),
        peer = server.peer_url(),
    );
    fs::write(&file, text).expect("a scratch directory is writable");
    let flag = format!("--config-file={}", file.display());
    server.options_mut().flags.push(flag);
    server.launch();
    assert!(server.db_file().is_file(), "the file's data-dir is used");
    if Kind::subject().is_pilaster() {
        let log = server.log().join("\n");
        let said = log.lines().find(|line| line.contains("snapshot-cuont"));
        let said = said.unwrap_or_else(|| panic!("the key is not named: {log}"));
        for wanted in ["config.yml", "ignored", "did you mean", "snapshot-count"] {
            assert!(said.contains(wanted), "{wanted} is not in: {said}");
        }
    }
    println!("a misspelled key is named; keys in capitals are taken");
}

/// A real etcd waits for the lock of its data file; waiting looks like hanging, so here the second process is told.
#[test]
fn a_second_process_on_the_same_data_is_refused() {
    if !Kind::subject().is_pilaster() {
        println!("left out: a real etcd waits for the lock instead of refusing");
        return;
    }
    let first = Server::start(Options::new(Kind::subject()));
    let second = Server::try_start(Options::new(Kind::subject()).data_dir(first.data_dir()));
    let refused = second.expect_err("the data directory is in use");
    assert!(!refused.status.success());
    let name = first.data_dir().display().to_string();
    assert!(
        refused.text().contains(&name),
        "{name} is not named: {}",
        refused.text()
    );
    raw::block_on(async {
        Client::connect(&first)
            .await
            .put(&raw::put("a", "x"))
            .await
            .expect("the first goes on");
    });
    println!("a second process on the same data directory is refused; the first goes on");
}

/// SIGTERM under load: the process ends in order and soon, and what it acknowledged is there afterwards.
#[test]
fn sigterm_drains() {
    let mut server = Server::start(Options::new(Kind::subject()));
    let acknowledged = raw::block_on(async {
        let client = Client::connect(&server).await;
        let writes = (0..200).map(|number| {
            let mut client = client.clone();
            async move {
                client
                    .put(&raw::put(format!("key {number:03}"), "x"))
                    .await
                    .is_ok()
            }
        });
        let local = tokio::task::LocalSet::new();
        local
            .run_until(async {
                let tasks: Vec<_> = writes.map(tokio::task::spawn_local).collect();
                Client::connect(&server)
                    .await
                    .put(&raw::put("first", "x"))
                    .await
                    .expect("a put");
                server.send_term();
                let mut acknowledged = Vec::new();
                for (number, task) in tasks.into_iter().enumerate() {
                    if task.await.expect("a writer ends") {
                        acknowledged.push(format!("key {number:03}").into_bytes());
                    }
                }
                acknowledged
            })
            .await
    });
    let (status, log) = server.await_exit();
    // A real etcd cleans up and then lets the signal end it.
    let in_order = status.code() == Some(0) || status.signal() == Some(15);
    assert!(in_order, "{status}\n{}", log.join("\n"));
    server.launch();
    raw::block_on(async {
        let all = Client::connect(&server)
            .await
            .range(&raw::get_all())
            .await
            .expect("a range");
        let keys: Vec<&Vec<u8>> = all.kvs.iter().map(|kv| &kv.key).collect();
        for key in &acknowledged {
            assert!(
                keys.contains(&key),
                "{} is lost",
                String::from_utf8_lossy(key)
            );
        }
        let revision = all.header.expect("a header").revision;
        assert_eq!(revision, 1 + all.count, "each write took one revision");
    });
    println!(
        "SIGTERM under load: {status}, all of {} acknowledged writes kept",
        acknowledged.len()
    );
}
