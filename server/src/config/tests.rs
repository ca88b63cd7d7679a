//! Configuration end to end: arguments, environment and file in, `Config` or a refusal out.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use super::data_dir::DataDirError;
use super::*;

fn begin(args: &[&str], variables: &[(&str, &str)]) -> Start {
    let os = |text: &&str| OsString::from(*text);
    start(
        args.iter().map(os),
        variables.iter().map(|(name, value)| (os(name), os(value))),
    )
}

#[track_caller]
fn run(args: &[&str], variables: &[(&str, &str)]) -> (Config, Vec<Notice>) {
    match begin(args, variables) {
        Start::Run { config, notices } => (*config, notices),
        other => panic!("expected a start, got {other:?}"),
    }
}

#[track_caller]
fn config(args: &[&str]) -> Config {
    run(args, &[]).0
}

#[track_caller]
fn refused(args: &[&str], variables: &[(&str, &str)]) -> Refusal {
    match begin(args, variables) {
        Start::Refuse(refusal) => refusal,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

/// Refused with exit code 1 and exactly this text.
#[track_caller]
fn refused_as(args: &[&str], text: &str) {
    assert_eq!(
        refused(args, &[]),
        Refusal {
            text: text.to_owned(),
            exit_code: 1
        }
    );
}

#[test]
fn defaults_are_etcds() {
    let config = config(&[]);
    assert_eq!(config.name, "default");
    assert_eq!(config.data_dir, Path::new("default.etcd"));
    assert_eq!(config.wal_dir, Path::new("default.etcd/member/wal"));
    assert_eq!(
        config.listen_client_urls[0].to_string(),
        "http://localhost:2379"
    );
    assert_eq!(config.request_bytes_max, 1_572_864);
    assert_eq!(config.txn_ops_max, 128);
    assert_eq!(config.streams_max, u32::MAX);
    assert_eq!(config.quota, Quota::Bytes(2 << 30));
    assert_eq!(config.backend_batch_interval, Duration::from_millis(100));
    assert_eq!(config.backend_batch_limit, 10_000);
    assert_eq!(config.election_ticks(), 10);
    assert_eq!(config.request_timeout(), Duration::from_secs(7));
    assert_eq!(config.auto_compaction, AutoCompaction::Off);
    assert_eq!(
        config.keepalive.server_ping_interval,
        Some(Duration::from_secs(7200))
    );
    assert_eq!(config.cores, CoreChoice::Auto);
    assert_eq!(config.unsent_answer_bytes, 1 << 30);
    assert!(config.client_tls.is_none());
    config.check_bootstrap().unwrap();
    let (member, cluster) = config.bootstrap_ids();
    assert_eq!(member.to_string(), "8e9e05c52164694d");
    assert_eq!(cluster.to_string(), "cdf818194e3a8c32");
}

#[test]
fn gos_flag_spellings_are_accepted() {
    let config = config(&[
        "-name=a",
        "--data-dir",
        "/x",
        "-pre-vote=F",
        "--socket-reuse-port",
        "--cores=0-1",
        "--heartbeat-interval",
        "10",
        "--election-timeout=0x64",
        "--",
    ]);
    assert_eq!(
        (config.name.as_str(), config.data_dir.to_str()),
        ("a", Some("/x"))
    );
    assert!(!config.pre_vote && config.socket_reuse_port);
    assert_eq!(config.cores, CoreChoice::List(vec![0, 1]));
    assert_eq!(config.election_ticks(), 10);
    // Only a name: it becomes the one member of the cluster.
    assert_eq!(config.initial_cluster[0].0, "a");
    // The last of several wins.
    assert_eq!(run(&["--name=a", "--name=b"], &[]).0.name, "b");
    // Ignored flags take an optional value after `=` only.
    run(&["--force", "--snapshot=3", "--vv"], &[]);
}

#[test]
fn a_broken_command_line_prints_the_usage_and_exits_2() {
    let check = |args: &[&str], expected: &str| {
        let refusal = refused(args, &[]);
        assert_eq!(refusal.exit_code, 2, "{refusal}");
        let (first, usage) = refusal.text.split_once('\n').unwrap();
        assert_eq!(first, expected);
        assert!(usage.starts_with("Usage:"));
    };
    check(
        &["--nmae", "x"],
        "flag provided but not defined: -nmae (did you mean --name?)",
    );
    check(
        &["--zzzzzzzzz"],
        "flag provided but not defined: -zzzzzzzzz",
    );
    check(
        &["--experimental-compaction-batch-limit=1"],
        "flag provided but not defined: -experimental-compaction-batch-limit (it is now --compaction-batch-limit)",
    );
    check(
        &["--enable-v2"],
        "flag provided but not defined: -enable-v2 (etcd removed it)",
    );
    check(&["---name=x"], "bad flag syntax: ---name=x");
    check(&["--name"], "flag needs an argument: -name");
    check(
        &["--pre-vote=x"],
        r#"invalid boolean value "x" for -pre-vote: parse error"#,
    );
    check(
        &["--max-txn-ops=x"],
        r#"invalid value "x" for flag -max-txn-ops: parse error"#,
    );
    check(
        &["--max-concurrent-streams=4294967296"],
        r#"invalid value "4294967296" for flag -max-concurrent-streams: value out of range"#,
    );
    check(
        &["--listen-client-urls=localhost"],
        r#"invalid value "localhost" for flag -listen-client-urls: URL scheme must be http, https, unix, or unixs: localhost"#,
    );
}

#[test]
fn arguments_that_are_no_flags_exit_1() {
    refused_as(
        &["--unsent-answer-bytes=1000"],
        "--unsent-answer-bytes=1000 is too small; it is at least 1048576",
    );
    refused_as(&["start"], r#""start" is not a valid flag"#);
    refused_as(&["--pre-vote", "false"], r#""false" is not a valid flag"#);
    refused_as(&["--", "x"], r#""x" is not a valid flag"#);
}

#[test]
fn help_and_version_print_and_end() {
    assert!(matches!(begin(&["--version"], &[]), Start::Print(text) if text == version_text()));
    for flag in ["-h", "--help"] {
        let Start::Print(text) = begin(&[flag], &[]) else {
            panic!("{flag} prints")
        };
        assert!(text.contains("--listen-client-urls 'http://localhost:2379'"));
        assert!(text.contains("--cores 'auto'"));
        assert!(text.contains("not in this version"));
    }
}

#[test]
fn variables_fill_in_and_conflict() {
    let (config, notices) = run(
        &["--data-dir=/x"],
        &[
            ("ETCD_NAME", "n"),
            ("ETCD_MAX_TXN_OPS", "7"),
            ("ETCD_WAL_DIR", ""),
            ("NAME", "no"),
        ],
    );
    assert_eq!((config.name.as_str(), config.txn_ops_max), ("n", 7));
    assert!(notices.contains(&Notice::info(
        "recognized and used environment variable ETCD_NAME=n"
    )));

    let refusal = refused(&["--name=n"], &[("ETCD_NAME", "n")]);
    assert_eq!(refusal.exit_code, 1);
    assert!(refusal.text.starts_with(
        "conflicting environment variable ETCD_NAME is shadowed by corresponding command-line flag"
    ));

    let (_, notices) = run(
        &[],
        &[
            ("ETCD_NMAE", "n"),
            ("ETCD_VERSION", "1"),
            ("ETCD_VERIFY", "all"),
        ],
    );
    let warnings: Vec<&str> = notices
        .iter()
        .filter(|notice| notice.is_warning && notice.message.contains("environment"))
        .map(|notice| notice.message.as_str())
        .collect();
    assert_eq!(
        warnings,
        [
            "cannot set special environment variable ETCD_VERSION=1",
            "unrecognized environment variable ETCD_NMAE=n"
        ]
    );
    assert_eq!(
        refused(&[], &[("ETCD_MAX_TXN_OPS", "x")]).text,
        r#"invalid value "x" for ETCD_MAX_TXN_OPS: parse error"#
    );
}

#[test]
fn contradictions_are_refused_in_etcds_words() {
    refused_as(
        &["--listen-client-urls=http://127.0.0.1:1"],
        "--advertise-client-urls is required when --listen-client-urls is set explicitly",
    );
    refused_as(
        &["--listen-peer-urls=http://example.com:1"],
        "expected IP in URL for binding (http://example.com:1)",
    );
    refused_as(
        &["--advertise-client-urls=http://:1"],
        r#"--advertise-client-urls "http://:1" must be in the format "host:port", "unix:/path/to/socket" or "unixs:/path/to/socket" (unexpected empty host (http://:1))"#,
    );
    refused_as(
        &["--initial-advertise-peer-urls=http://:1"],
        r#"--initial-advertise-peer-urls "http://:1" must be "host:port" (unexpected empty host (http://:1))"#,
    );
    refused_as(
        &["--heartbeat-interval=0"],
        "--heartbeat-interval must be >0 (set to 0ms)",
    );
    refused_as(
        &["--election-timeout=0"],
        "--election-timeout must be >0 (set to 0ms)",
    );
    refused_as(
        &["--election-timeout=400"],
        "--election-timeout[400ms] should be at least as 5 times as --heartbeat-interval[100ms]",
    );
    refused_as(
        &["--election-timeout=50001"],
        "--election-timeout[50001ms] is too long, and should be set less than 50000ms",
    );
    refused_as(
        &["--auto-compaction-mode=x"],
        r#"unknown auto-compaction-mode "x""#,
    );
    refused_as(
        &["--auto-compaction-mode="],
        "undefined auto-compaction-mode",
    );
    refused_as(
        &["--auto-compaction-retention=x"],
        r#"error parsing CompactionRetention: time: invalid duration "x""#,
    );
    refused_as(
        &["--auto-compaction-retention=-5"],
        r#"error parsing CompactionRetention: time: missing unit in duration "-5""#,
    );
    refused_as(
        &["--auto-compaction-retention=1d"],
        r#"error parsing CompactionRetention: time: unknown unit "d" in duration "1d""#,
    );
    refused_as(
        &["--logger=capnslog"],
        "--logger=capnslog is removed in v3.5",
    );
    refused_as(
        &["--log-format=x"],
        "unknown log format: x, supported values json, console",
    );
    refused_as(
        &["--log-outputs=default,stdout"],
        r#"multi logoutput for "default" is not supported yet"#,
    );
    refused_as(
        &["--cert-file=c"],
        "KeyFile and CertFile must both be present[key: , cert: c]",
    );
    refused_as(
        &[
            "--listen-client-urls=https://127.0.0.1:1",
            "--advertise-client-urls=https://127.0.0.1:1",
        ],
        "TLS key/cert (--cert-file, --key-file) must be provided for client url https://127.0.0.1:1 with HTTPS scheme",
    );
}

#[test]
fn flags_this_version_lacks_are_named_with_the_reason() {
    refused_as(
        &["--discovery-srv=x"],
        "--discovery-srv=x is known from etcd but not in this version: clusters of several members, and so their \
         discovery, come later; remove it, or set the default \"\"",
    );
    let warned = |flag: &str, why: &str| {
        let (_, notices) = run(&[flag], &[]);
        let is_it = |notice: &&Notice| notice.is_warning && notice.message.starts_with(flag);
        let notice = notices.iter().find(is_it).expect("a warning");
        assert!(notice.message.contains(why), "{notice:?}");
    };
    warned(
        "--unsafe-no-fsync=true",
        "has no effect: an acknowledged write is always durable",
    );
    warned("--force-new-cluster=true", "only one member");
    warned("--peer-cert-file=x", "no peer connections");
    assert!(
        refused(&[], &[("ETCD_FEATURE_GATES", "Speed=true")])
            .text
            .contains("unrecognized feature gate: Speed")
    );
    let persist = refused(&["--feature-gates=LeaseCheckpointPersist=true"], &[]);
    assert_eq!(
        persist.text,
        "enabling feature gate LeaseCheckpointPersist requires enabling feature gate LeaseCheckpoint"
    );
    // Their defaults say what happens anyway.
    run(
        &[
            "--unsafe-no-fsync=false",
            "--enable-pprof=F",
            "--max-learners=1",
            "--cors=*",
        ],
        &[],
    );
}

#[test]
fn compaction_retention_takes_counts_hours_and_durations() {
    let check = |args: &[&str], expected| assert_eq!(config(args).auto_compaction, expected);
    check(
        &["--auto-compaction-retention=2"],
        AutoCompaction::Periodic(Duration::from_secs(7200)),
    );
    check(
        &["--auto-compaction-retention=5m"],
        AutoCompaction::Periodic(Duration::from_secs(300)),
    );
    check(
        &[
            "--auto-compaction-mode=revision",
            "--auto-compaction-retention=1000",
        ],
        AutoCompaction::Revision(1000),
    );
    check(&["--auto-compaction-mode=revision"], AutoCompaction::Off);
    // etcd takes it for nanoseconds, and so that many revisions, without a word.
    let hour = [
        "--auto-compaction-mode=revision",
        "--auto-compaction-retention=1h",
    ];
    check(&hour, AutoCompaction::Revision(3_600_000_000_000));
    let (_, notices) = run(&hour, &[]);
    let is_warned = |notice: &Notice| notice.message.contains("nothing will be compacted");
    assert!(notices.iter().any(is_warned));
}

#[test]
fn large_limits_are_worth_a_warning() {
    let warned = |arg: &str| {
        let (config, notices) = run(&["--name=a", arg], &[]);
        (
            config,
            notices.iter().filter(|notice| notice.is_warning).count(),
        )
    };
    assert_eq!(warned("--max-request-bytes=10485760").1, 0);
    assert_eq!(warned("--max-request-bytes=10485761").1, 1);
    assert_eq!(warned("--quota-backend-bytes=8589934593").1, 1);
    for (given, millis, warnings) in [
        ("0s", 600_000, 0),
        ("-1s", 600_000, 0),
        ("3s", 3000, 0),
        ("1ms", 100, 1),
    ] {
        let (config, warned) = warned(&format!("--watch-progress-notify-interval={given}"));
        assert_eq!(
            config.watch_progress_notify_interval,
            Duration::from_millis(millis)
        );
        assert_eq!(warned, warnings);
    }
    let (config, warnings) = warned("--quota-backend-bytes=-1");
    assert_eq!((config.quota, warnings), (Quota::Off(-1), 0));
}

#[test]
fn bootstrap_wants_the_own_name_and_urls() {
    let check = |args: &[&str], expected: &str| {
        assert_eq!(config(args).check_bootstrap().unwrap_err().text, expected);
    };
    check(
        &["--initial-cluster=a=http://127.0.0.1:1"],
        r#"couldn't find local name "default" in the initial cluster configuration"#,
    );
    check(
        &["--initial-cluster=default=http://127.0.0.1:1"],
        "--initial-cluster has default=http://127.0.0.1:1 but missing from --initial-advertise-peer-urls=http://localhost:2380",
    );
    // Two spellings of one address are the same.
    let twice = "--initial-cluster=default=http://127.0.0.1:2380";
    config(&[twice, "--initial-advertise-peer-urls=http://localhost:2380"])
        .check_bootstrap()
        .unwrap();
    let several = "--initial-cluster=default=http://localhost:2380,b=http://127.0.0.1:1";
    assert!(
        config(&[several])
            .check_bootstrap()
            .unwrap_err()
            .text
            .contains("names 2 members")
    );
}

#[test]
fn a_file_replaces_flags_and_variables() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("etcd.conf.yml");
    fs::write(
        &path,
        "name: f\n\
         max-txn-ops: 9\n\
         backend-batch-interval: 50000000\n\
         pre-vote: false\n\
         log-outputs: [stdout, stderr]\n\
         log-level: debug\n\
         unknown-key: 1\n\
         cert-file: ignored-here\n\
         listen-client-urls: https://127.0.0.1:1\n\
         advertise-client-urls: https://127.0.0.1:1\n\
         socket-options:\n  reuse-port: true\n\
         client-transport-security:\n  cert-file: c\n  key-file: k\n  client-cert-auth: true\n  trusted-ca-file: ca\n",
    )
    .unwrap();
    let path = path.to_str().unwrap();
    let (config, notices) = run(
        &["--config-file", path, "--name=x"],
        &[("ETCD_NAME", "y"), ("ETCD_DATA_DIR", "/z")],
    );
    assert_eq!((config.name.as_str(), config.txn_ops_max), ("f", 9));
    assert_eq!(config.data_dir, Path::new("f.etcd"));
    assert_eq!(config.backend_batch_interval, Duration::from_millis(50));
    assert!(!config.pre_vote && config.socket_reuse_port);
    assert_eq!(config.log.outputs.len(), 2);
    let tls = config.client_tls.unwrap();
    assert_eq!(tls.cert_file, Path::new("c"));
    assert_eq!(tls.trusted_ca_file.as_deref(), Some(Path::new("ca")));
    assert!(
        notices
            .iter()
            .any(|notice| notice.message.starts_with("loaded server configuration"))
    );
    assert_eq!(run(&[], &[("ETCD_CONFIG_FILE", path)]).0.name, "f");
}

#[test]
fn keys_that_are_ignored_are_named_with_their_neighbour() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.yml");
    fs::write(
        &path,
        "Name: capital\n\
         data-dri: x\n\
         7: x\n\
         something-else-altogether: x\n\
         cert-file: x\n\
         socket-options:\n  reuse-prot: true\n\
         client-transport-security:\n  cret-file: c\n  allowed-cn: [a]\n",
    )
    .unwrap();
    let (config, notices) = run(&[&format!("--config-file={}", path.display())], &[]);
    // etcd's decoder does not tell capitals from small letters.
    assert_eq!(config.name, "capital");
    let warned: Vec<&str> = notices
        .iter()
        .filter(|notice| notice.is_warning)
        .filter_map(|notice| notice.message.split_once(".yml: "))
        .map(|(_, text)| text)
        .collect();
    assert_eq!(
        warned,
        [
            r#"the key "data-dri" is not known and ignored; did you mean "data-dir"?"#,
            r#"the key "Number(7)" is not known and ignored"#,
            r#"the key "something-else-altogether" is not known and ignored"#,
            r#"the key "cert-file" is ignored; in a file it is "cert-file" in the map "client-transport-security""#,
            r#"the key "reuse-prot" in "socket-options" is not known and ignored; did you mean "reuse-port"?"#,
            r#"the key "cret-file" in "client-transport-security" is not known and ignored; did you mean "cert-file"?"#,
        ]
    );
}

#[test]
fn a_broken_file_names_file_and_key() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.yml");
    let arg = format!("--config-file={}", path.display());
    let text = refused(&[&arg], &[]).text;
    assert!(
        text.starts_with(&arg[..13]) && text.contains("cannot be read"),
        "{text}"
    );
    let check = |content: &str, expected: &str| {
        fs::write(&path, content).unwrap();
        let text = refused(&[&arg], &[]).text;
        assert_eq!(
            text,
            format!("--config-file {}: {expected}", path.display())
        );
    };
    check(
        "backend-batch-interval: 5s",
        "backend-batch-interval: must be a whole number of nanoseconds, such as 5000000000 for 5s",
    );
    check(
        "name: 7",
        "name: must be text, in quotation marks if it looks like a number",
    );
    check(
        "listen-client-urls:\n  - http://127.0.0.1:1",
        "listen-client-urls: must be one text, its parts separated by commas",
    );
    check("pre-vote: yes please", "pre-vote: must be true or false");
    check(
        "log-outputs: stderr",
        "log-outputs: must be a list of texts",
    );
    check(
        "client-transport-security: x",
        "invalid client-transport-security: it must be a map",
    );
    check("- a", "is not a map of flag names to values");
    fs::write(&path, "").unwrap();
    assert_eq!(config(&[&arg]).name, "default");
    // With etcd, the default advertised URLs stay when a file changes only the listeners.
    fs::write(&path, "listen-client-urls: http://127.0.0.1:1").unwrap();
    assert_eq!(config(&[&arg]).advertise_client_urls[0].port, 2379);
}

/// Looks, then makes.
fn prepare(
    root: &Path,
    wal: &Path,
    notices: &mut Vec<Notice>,
) -> Result<data_dir::DataDir, DataDirError> {
    let dir = DataDir::inspect(root, wal, notices)?;
    dir.create()?;
    Ok(dir)
}

#[test]
fn a_fresh_data_directory_is_made_private() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("a/b");
    let mut notices = Vec::new();
    let looked = DataDir::inspect(&root, &root.join("member/wal"), &mut notices).unwrap();
    assert!(!dir.path().join("a").exists(), "looking makes nothing");
    looked.create().unwrap();
    assert!(!looked.is_initialized);
    for path in [&root, &looked.snap, &looked.wal] {
        assert_eq!(
            fs::metadata(path).unwrap().permissions().mode() & 0o777,
            0o700
        );
    }
    fs::write(looked.snap.join("db"), b"x").unwrap();
    fs::create_dir(root.join("lost+found")).unwrap();
    let used = prepare(&root, &looked.wal, &mut notices).unwrap();
    assert!(used.is_initialized);

    // A log on a disk of its own, mounted inside the data directory.
    let (root, wal) = (dir.path().join("c"), dir.path().join("c/log"));
    fs::create_dir_all(wal.join("lost+found")).unwrap();
    let fresh = prepare(&root, &wal, &mut notices).unwrap();
    assert!(!fresh.is_initialized);
}

#[test]
fn what_does_not_belong_is_named_with_a_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let mut notices = Vec::new();
    let look = |notices: &mut Vec<Notice>| {
        DataDir::inspect(root, &root.join("member/wal"), notices).map_err(|error| error.to_string())
    };
    fs::set_permissions(root, fs::Permissions::from_mode(0o755)).unwrap();
    look(&mut notices).unwrap();
    let modes = notices
        .iter()
        .filter(|notice| notice.message.contains("has mode 0755"));
    assert_eq!(modes.count(), 1, "{notices:?}");

    let refused = |files: &[&str], wanted: &[&str]| {
        for file in files {
            let path = root.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"").unwrap();
        }
        let why = look(&mut Vec::new()).unwrap_err();
        for wanted in wanted {
            assert!(why.contains(wanted), "{wanted} is not in: {why}");
        }
        for file in files {
            fs::remove_file(root.join(file)).unwrap();
        }
    };
    refused(
        &["member/stray"],
        &["member/stray: does not belong", "move it"],
    );
    refused(&["notes.txt"], &["notes.txt: does not belong"]);
    refused(
        &["member/snap/key.pem"],
        &["member/snap/key.pem: does not belong"],
    );
    refused(
        &["member/wal/notes"],
        &["member/wal/notes: does not belong"],
    );
    refused(
        &["member/snap/db.tmp.7"],
        &["db.tmp.7: was left by an `etcdutl defrag`"],
    );
    let etcd = [
        "belongs to an etcd member",
        "etcdctl snapshot save",
        "etcdutl snapshot restore",
    ];
    refused(&["member/wal/0.tmp"], &etcd);
    refused(&["member/wal/0000000000000000-0000000000000000.wal"], &etcd);
    refused(
        &["member/snap/0000000000000001-0000000000000001.snap"],
        &etcd,
    );
    // What a start that was cut short leaves is nobody's.
    fs::write(root.join("member/wal/.touch"), b"").unwrap();
    assert!(!look(&mut notices).unwrap().is_initialized);

    let file = root.join("file");
    fs::write(&file, b"").unwrap();
    let error = DataDir::inspect(&file, &file.join("wal"), &mut notices).unwrap_err();
    assert!(matches!(error, DataDirError::NotADirectory { .. }));
    let link = root.join("link");
    std::os::unix::fs::symlink("/nowhere/at/all", &link).unwrap();
    let error = DataDir::inspect(&link, &link.join("member/wal"), &mut notices).unwrap_err();
    assert!(
        error.to_string().contains("link to /nowhere/at/all"),
        "{error}"
    );
    for wal in [
        root.join("d"),
        root.join("d/./member/snap"),
        root.to_owned(),
    ] {
        let error = DataDir::inspect(&root.join("d"), &wal, &mut notices).unwrap_err();
        assert!(
            matches!(error, DataDirError::WalHoldsData { .. }),
            "{wal:?}"
        );
    }
}

#[test]
fn the_member_folder_itself_is_no_data_directory() {
    let dir = tempfile::tempdir().unwrap();
    let member = dir.path().join("member");
    fs::create_dir_all(member.join("snap")).unwrap();
    let refused = DataDir::inspect(&member, &member.join("member/wal"), &mut Vec::new());
    let text = refused.unwrap_err().to_string();
    let remedy = format!("start with --data-dir {}", dir.path().display());
    assert!(text.contains(&remedy), "{text}");
}

#[test]
fn directories_of_a_refused_start_go_again_unless_they_hold_something() {
    let dir = tempfile::tempdir().unwrap();
    let (root, wal) = (dir.path().join("a/b"), dir.path().join("w/x"));
    let made = || {
        let looked = DataDir::inspect(&root, &wal, &mut Vec::new()).unwrap();
        looked.create().unwrap()
    };
    made().remove();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    let made = made();
    fs::write(root.join("member/snap/db"), "x").unwrap();
    made.remove();
    assert!(root.join("member/snap/db").exists());
    assert!(!wal.exists() && !root.join("member/wal").exists());
}

#[test]
fn a_directory_in_memory_and_another_owner_are_warned_about() {
    let warned = |root: &Path, text: &str| {
        let mut notices = Vec::new();
        let _ = DataDir::inspect(root, &root.join("member/wal"), &mut notices);
        notices
            .iter()
            .any(|notice| notice.is_warning && notice.message.contains(text))
    };
    assert!(warned(
        Path::new("/dev/shm/no-such-member"),
        "lies in memory (tmpfs)"
    ));
    let dir = tempfile::tempdir().unwrap();
    assert!(!warned(dir.path(), "belongs to user"));
    // Only root may give a directory away.
    if std::os::unix::fs::chown(dir.path(), Some(12345), None).is_ok() {
        assert!(warned(
            dir.path(),
            "belongs to user 12345 but the server runs as root"
        ));
    }
}

#[test]
fn switches_without_effect_say_so() {
    let notes = |args: &[&str]| -> Vec<String> {
        let (_, notices) = run(args, &[]);
        let messages = notices.into_iter().map(|notice| notice.message);
        messages
            .filter(|message| message.contains("has no effect"))
            .collect()
    };
    assert!(notes(&["--strict-reconfig-check=true", "--socket-reuse-port"]).is_empty());
    let noted = notes(&["--strict-reconfig-check=F", "--socket-reuse-address"]);
    assert_eq!(noted.len(), 2);
    assert!(noted[0].starts_with("--strict-reconfig-check=false has no effect: "));
}

#[test]
fn zero_batches_mean_etcds_defaults() {
    let given = config(&["--backend-batch-interval=0", "--backend-batch-limit=0"]);
    assert_eq!(given.backend_batch_interval, Duration::from_millis(100));
    assert_eq!(given.backend_batch_limit, 10_000);
}
