//! Every flag that etcd 3.7 has, one by one: as a flag, as a variable and as a key of the file, with a value that is not its
//! default. Each is taken, taken with a warning that it changes nothing, or refused by name.

use std::ffi::OsString;
use std::fs;

use super::flags::{FLAGS, Kind, Support, find};
use super::*;

/// What becomes of a flag.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Taken,
    /// Taken; a warning says why it changes nothing.
    Idle,
    /// Not in this version.
    Refused,
}
use Fate::{Idle, Refused, Taken};

/// Name, a value, fate.
#[rustfmt::skip]
const SHEET: &[(&str, &str, Fate)] = &[
    ("name", "a", Taken), ("data-dir", "/x", Taken), ("wal-dir", "/y", Taken), ("snapshot-count", "5", Taken),
    ("snapshot-catchup-entries", "7", Idle), ("max-wals", "1", Idle), ("max-snapshots", "1", Idle), ("v2-deprecation", "gone", Idle), ("heartbeat-interval", "50", Taken), ("election-timeout", "5000", Taken),
    ("initial-election-tick-advance", "false", Idle), ("listen-peer-urls", "http://127.0.0.1:99", Taken),
    ("listen-client-urls", "http://127.0.0.1:98", Taken), ("listen-client-http-urls", "http://127.0.0.1:97", Taken),
    ("quota-backend-bytes", "100000000", Taken), ("backend-bbolt-freelist-type", "array", Idle), ("backend-batch-interval", "5ms", Taken),
    ("backend-batch-limit", "5", Taken), ("max-txn-ops", "5", Taken), ("max-request-bytes", "5000", Taken),
    ("max-concurrent-streams", "5", Taken), ("grpc-keepalive-min-time", "1s", Taken), ("grpc-keepalive-interval", "1h", Taken),
    ("grpc-keepalive-timeout", "1s", Taken), ("socket-reuse-port", "true", Taken), ("socket-reuse-address", "true", Idle),
    ("raft-read-timeout", "9s", Idle), ("raft-write-timeout", "9s", Idle), ("memory-mlock", "true", Taken), ("max-learners", "2", Idle),
    ("bootstrap-defrag-threshold-megabytes", "5", Idle),
    ("initial-advertise-peer-urls", "http://127.0.0.1:96", Taken), ("advertise-client-urls", "http://127.0.0.1:95", Taken),
    ("initial-cluster", "default=http://127.0.0.1:94", Taken), ("initial-cluster-state", "existing", Taken),
    ("initial-cluster-token", "t", Taken), ("discovery-token", "t", Refused), ("discovery-endpoints", "http://x:1", Refused),
    ("discovery-dial-timeout", "3s", Refused), ("discovery-request-timeout", "3s", Refused), ("discovery-keepalive-time", "3s", Refused),
    ("discovery-keepalive-timeout", "3s", Refused), ("discovery-insecure-transport", "false", Refused),
    ("discovery-insecure-skip-tls-verify", "true", Refused), ("discovery-cert", "x", Refused), ("discovery-key", "x", Refused),
    ("discovery-cacert", "x", Refused), ("discovery-user", "x", Refused), ("discovery-password", "x", Refused),
    ("discovery-srv", "x", Refused), ("discovery-srv-name", "x", Refused), ("discovery-fallback", "proxy", Refused),
    ("strict-reconfig-check", "false", Idle), ("pre-vote", "false", Taken), ("auto-compaction-mode", "revision", Taken),
    ("auto-compaction-retention", "5", Taken),
    ("cert-file", "c", Taken), ("key-file", "k", Taken), ("client-cert-file", "c", Idle), ("client-key-file", "k", Idle),
    ("client-cert-auth", "true", Taken), ("client-crl-file", "x", Taken), ("client-cert-allowed-hostname", "a,b", Taken),
    ("trusted-ca-file", "x", Taken), ("auto-tls", "true", Taken), ("peer-cert-file", "x", Idle), ("peer-key-file", "x", Idle),
    ("peer-client-cert-file", "x", Idle), ("peer-client-key-file", "x", Idle), ("peer-client-cert-auth", "true", Idle),
    ("peer-trusted-ca-file", "x", Idle), ("peer-auto-tls", "true", Idle), ("peer-crl-file", "x", Idle), ("peer-cert-allowed-cn", "x", Idle),
    ("peer-cert-allowed-hostname", "x", Idle), ("peer-skip-client-san-verification", "true", Idle), ("self-signed-cert-validity", "5", Taken),
    ("cipher-suites", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", Taken), ("tls-min-version", "TLS1.3", Taken), ("tls-max-version", "TLS1.2", Taken),
    ("cors", "http://a:1", Taken), ("host-whitelist", "a", Taken),
    ("logger", "zap", Taken), ("log-outputs", "stdout", Taken), ("log-level", "warn", Taken), ("log-format", "console", Taken),
    ("enable-log-rotation", "true", Taken), ("log-rotation-config-json", r#"{"maxsize": 1}"#, Taken), ("metrics", "extensive", Taken),
    ("listen-metrics-urls", "http://127.0.0.1:93", Taken), ("enable-pprof", "true", Taken), ("enable-distributed-tracing", "true", Idle),
    ("distributed-tracing-address", "x:1", Idle), ("distributed-tracing-service-name", "x", Idle),
    ("distributed-tracing-instance-id", "x", Idle), ("distributed-tracing-sampling-rate", "5", Idle),
    ("warning-apply-duration", "5ms", Taken), ("warning-unary-request-duration", "5ms", Taken),
    ("enable-grpc-gateway", "false", Taken), ("corrupt-check-time", "5s", Idle), ("compact-hash-check-time", "5s", Idle),
    ("compaction-batch-limit", "5", Taken), ("compaction-sleep-interval", "5ms", Taken), ("watch-progress-notify-interval", "5s", Taken),
    ("downgrade-check-time", "9s", Idle), ("feature-gates", "LeaseCheckpoint=true", Taken), ("unsafe-no-fsync", "true", Idle),
    ("force-new-cluster", "true", Idle),
];

/// Left to whoever serves users and roles, and to the program itself.
const ELSEWHERE: &[&str] = &[
    "auth-token",
    "bcrypt-cost",
    "auth-token-ttl",
    "config-file",
    "version",
];
/// Not etcd's.
const OURS: &[&str] = &["cores", "unsent-answer-bytes", "client-cert-allowed-cn"];

/// What some flags want beside them.
fn beside(name: &str) -> &'static [(&'static str, &'static str)] {
    match name {
        "listen-client-urls" => &[("advertise-client-urls", "http://127.0.0.1:98")],
        "cert-file" => &[("key-file", "k")],
        "key-file" => &[("cert-file", "c")],
        "client-cert-file" => &[("client-key-file", "k")],
        "client-key-file" => &[("client-cert-file", "c")],
        "enable-log-rotation" => &[("log-outputs", "/tmp/never-opened.log")],
        _ => &[],
    }
}

fn begin(args: Vec<String>, variables: Vec<(String, String)>) -> Start {
    let variables = variables
        .into_iter()
        .map(|(name, value)| (name.into(), value.into()));
    start(args.into_iter().map(OsString::from), variables)
}

#[track_caller]
fn check(what: &str, name: &str, fate: Fate, start: Start) {
    let is_named = |text: &str| text.contains(&format!("--{name}="));
    match (start, fate) {
        (Start::Run { notices, .. }, Taken | Idle) => {
            let is_idle = |notice: &Notice| {
                is_named(&notice.message) && notice.message.contains("has no effect")
            };
            let warned = notices.iter().any(is_idle);
            assert_eq!(warned, fate == Idle, "{what} {name}: {notices:?}");
        }
        (Start::Refuse(refusal), Refused) => {
            assert!(is_named(&refusal.text), "{what}: {refusal:?}")
        }
        (other, _) => panic!("{what} {name}: {other:?} is not {fate:?}"),
    }
}

#[test]
fn every_flag_of_the_sheet_is_in_the_table_and_the_other_way_round() {
    for (name, value, _) in SHEET {
        let flag = find(name).unwrap_or_else(|| panic!("{name} is missing"));
        assert!(
            flag.default != *value || *name == "logger",
            "{name} is given its default"
        );
    }
    for flag in FLAGS.iter().filter(|flag| flag.kind != Kind::Ignored) {
        let is_known = SHEET.iter().any(|(name, ..)| *name == flag.name);
        let is_apart = ELSEWHERE.contains(&flag.name) || OURS.contains(&flag.name);
        assert!(is_known != is_apart, "{}", flag.name);
        assert_ne!(flag.support, Support::Ignored);
    }
}

#[test]
fn every_flag_is_taken_as_a_flag_and_as_a_variable() {
    for (name, value, fate) in SHEET {
        let all = || {
            std::iter::once(&(*name, *value))
                .chain(beside(name))
                .copied()
                .collect::<Vec<_>>()
        };
        let args = all()
            .iter()
            .map(|(name, value)| format!("--{name}={value}"))
            .collect();
        check("flag", name, *fate, begin(args, vec![]));
        let variable = |name: &str| format!("ETCD_{}", name.to_uppercase().replace('-', "_"));
        let variables = all()
            .iter()
            .map(|(name, value)| (variable(name), value.to_string()))
            .collect();
        check("variable", name, *fate, begin(vec![], variables));
    }
}

#[test]
fn every_flag_has_its_key_in_the_file() {
    // As etcd: these have none, or none of their own.
    const NO_KEY: &[&str] = &[
        "raft-read-timeout",
        "raft-write-timeout",
        "discovery-fallback",
        "client-crl-file",
        "peer-crl-file",
    ];
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.yml");
    for (name, value, fate) in SHEET {
        if NO_KEY.contains(name) || name.starts_with("discovery-") {
            continue;
        }
        let mut text = key(name, value);
        for (name, value) in beside(name)
            .iter()
            .filter(|(name, _)| !name.ends_with("-file"))
        {
            text += &key(name, value);
        }
        fs::write(&path, &text).unwrap();
        let start = begin(vec![format!("--config-file={}", path.display())], vec![]);
        if let Start::Run { notices, .. } = &start {
            let ignored = notices
                .iter()
                .find(|notice| notice.message.contains("ignored:"));
            let unknown = notices
                .iter()
                .find(|notice| notice.message.contains("not known"));
            assert!(
                ignored.is_none() && unknown.is_none(),
                "{text}: {notices:?}"
            );
        }
        if *fate == Idle {
            // The value is shown as it was read, which for a duration is in nanoseconds.
            assert!(matches!(start, Start::Run { .. }), "{text}: {start:?}");
        } else {
            check("key", name, *fate, start);
        }
    }
}

/// A line of the file, in the map where the flag lives.
fn key(name: &str, value: &str) -> String {
    let in_map = |map: &str, key: &str| format!("{map}:\n  {key}: {value}\n");
    let client = [
        "cert-file",
        "key-file",
        "client-cert-file",
        "client-key-file",
        "client-cert-auth",
        "trusted-ca-file",
        "auto-tls",
    ];
    match name {
        "socket-reuse-port" => in_map("socket-options", "reuse-port"),
        "socket-reuse-address" => in_map("socket-options", "reuse-address"),
        "client-cert-allowed-hostname" => {
            "client-transport-security:\n  allowed-hostname: [a, b]\n".to_owned()
        }
        "peer-cert-allowed-cn" => "peer-transport-security:\n  allowed-cn: [a]\n".to_owned(),
        "peer-cert-allowed-hostname" => {
            "peer-transport-security:\n  allowed-hostname: [a]\n".to_owned()
        }
        "peer-skip-client-san-verification" => {
            in_map("peer-transport-security", "skip-client-san-verification")
        }
        // A pair shares one map, which may stand in a file only once.
        "cert-file" | "key-file" => {
            "client-transport-security: {cert-file: c, key-file: k}\n".to_owned()
        }
        "client-cert-file" | "client-key-file" => {
            "client-transport-security: {client-cert-file: c, client-key-file: k}\n".to_owned()
        }
        name if client.contains(&name) => in_map("client-transport-security", name),
        name if name.starts_with("peer-") => {
            in_map("peer-transport-security", &name["peer-".len()..])
        }
        "log-outputs" | "cipher-suites" => format!("{name}: [{value}]\n"),
        name => match find(name).expect("in the table").kind {
            Kind::Duration => format!("{name}: 5000000\n"),
            Kind::Bool | Kind::Integer | Kind::Unsigned | Kind::Unsigned32 => {
                format!("{name}: {value}\n")
            }
            _ => format!("{name}: '{value}'\n"),
        },
    }
}
