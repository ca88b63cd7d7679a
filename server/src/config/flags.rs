//! The table of every flag: its name, kind, default, and whether this version has it.
//!
//! Always true here: each flag of etcd occurs exactly once, so nobody is told `unknown flag` about a flag
//! etcd has; names and defaults are etcd's. A flag this version lacks is still accepted with etcd's
//! default where that default describes what we do anyway. Read by all sources; a table, no behaviour.

/// The spelling of a flag's values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Bool,
    Integer,
    Unsigned,
    Unsigned32,
    Duration,
    Urls,
    /// As [`Kind::Urls`], or `*`.
    Origins,
    /// As [`Kind::Urls`], or empty.
    OptionalUrls,
    Text,
    Choice(&'static [&'static str]),
    Cores,
    Gates,
    /// Takes an optional `=value` that nobody looks at.
    Ignored,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Support {
    Here,
    /// In etcd, not in this version; its default is what we do.
    Later,
    /// In etcd; taken with any value, which changes nothing here. A value other than the default gets a warning.
    Idle,
    /// In etcd only to be ignored.
    Ignored,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Section {
    Member,
    Clustering,
    Security,
    Logging,
    Features,
    Ours,
    Program,
}

#[derive(PartialEq, Eq, Debug)]
pub(super) struct Flag {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) default: &'static str,
    pub(super) support: Support,
    section: Section,
    /// What it does; for a flag this version lacks, why it lacks it.
    pub(super) help: &'static str,
}

pub(super) const USAGE: &str = "Usage:
  pilaster [flags]           start a member
  pilaster --config-file F   start a member configured by a YAML file
  pilaster --version         print the version
  pilaster -h | --help       print all flags";

pub(super) fn find(name: &str) -> Option<&'static Flag> {
    FLAGS.iter().find(|flag| flag.name == name)
}

/// The known name closest to a misspelled one, if any is close.
pub(super) fn nearest(name: &str) -> Option<&'static str> {
    nearest_of(name, names())
}

/// All names that mean something.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    FLAGS
        .iter()
        .filter(|flag| flag.support != Support::Ignored)
        .map(|flag| flag.name)
}

/// As [`nearest`], of these names.
pub(super) fn nearest_of(
    name: &str,
    names: impl Iterator<Item = &'static str>,
) -> Option<&'static str> {
    let allowed = 1 + name.len() / 4;
    names
        .map(|known| (edit_distance(name, known), known))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, known)| known)
}

/// What became of a flag that older versions of etcd had.
pub(super) fn removed(name: &str) -> Option<String> {
    if let Some(rest) = name.strip_prefix("experimental-") {
        return Some(match find(rest) {
            Some(flag) => format!("it is now --{}", flag.name),
            None => "it became a feature gate or is gone".to_owned(),
        });
    }
    let gone = name.starts_with("proxy")
        || matches!(name, "enable-v2" | "discovery" | "discovery-proxy")
        || matches!(name, "debug" | "log-package-levels");
    gone.then(|| "etcd removed it".to_owned())
}

/// Everything `--help` prints.
pub(super) fn help_text() -> String {
    let mut text = format!("{USAGE}\n");
    let sections = [
        (Section::Member, "Member"),
        (Section::Clustering, "Clustering"),
        (Section::Security, "Security"),
        (Section::Logging, "Logging and monitoring"),
        (Section::Features, "Features"),
        (Section::Ours, "Placement"),
        (Section::Program, "Program"),
    ];
    for (section, title) in sections {
        text += &format!("\n{title}:\n");
        let here = |flag: &&Flag| flag.section == section && flag.support == Support::Here;
        for flag in FLAGS.iter().filter(here) {
            let shown = if flag.default.is_empty() {
                "''"
            } else {
                flag.default
            };
            text += &format!(
                "  --{} '{}'\n        {}\n",
                flag.name,
                shown.trim_matches('\''),
                flag.help
            );
        }
    }
    text += "\nTaken as in etcd, without effect here:\n";
    for flag in FLAGS.iter().filter(|flag| flag.support == Support::Idle) {
        text += &format!("  --{}\n        {}\n", flag.name, flag.help);
    }
    text += "\nKnown from etcd, not in this version (accepted with their defaults):\n";
    let lacking = |flag: &&Flag| flag.support == Support::Later;
    for flag in FLAGS.iter().filter(lacking) {
        text += &format!("  --{}\n", flag.name);
    }
    text
}

/// Insertions, deletions and replacements that turn one name into the other.
fn edit_distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

const fn here(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    section: Section,
    help: &'static str,
) -> Flag {
    Flag {
        name,
        kind,
        default,
        support: Support::Here,
        section,
        help,
    }
}

const fn later(name: &'static str, kind: Kind, default: &'static str, help: &'static str) -> Flag {
    Flag {
        name,
        kind,
        default,
        support: Support::Later,
        section: Section::Features,
        help,
    }
}

const fn idle(name: &'static str, kind: Kind, default: &'static str, help: &'static str) -> Flag {
    Flag {
        name,
        kind,
        default,
        support: Support::Idle,
        section: Section::Features,
        help,
    }
}

const fn ignored(name: &'static str) -> Flag {
    let (kind, support) = (Kind::Ignored, Support::Ignored);
    Flag {
        name,
        kind,
        default: "",
        support,
        section: Section::Features,
        help: "",
    }
}

#[rustfmt::skip]
pub(super) static FLAGS: &[Flag] = &[

    // Member
    here("name", Kind::Text, "default", Section::Member, "Name of this member; it must have an entry in --initial-cluster."),
    here("data-dir", Kind::Text, "", Section::Member, "Directory this member owns; `<name>.etcd` in the working directory when empty."),
    here("wal-dir", Kind::Text, "", Section::Member, "Directory for the log alone, on a disk of its own; inside --data-dir when empty."),
    here("snapshot-count", Kind::Unsigned, "10000", Section::Member, "Applied entries after which the log may be trimmed."),
    idle("snapshot-catchup-entries", Kind::Unsigned, "5000", "it matters once there are followers"),
    idle("max-snapshots", Kind::Unsigned, "5", "there are no snapshot files"),
    idle("v2-deprecation", Kind::Text, "write-only", "there is no v2 store"),
    idle("max-wals", Kind::Unsigned, "5", "log segments are recycled, not collected"),
    here("heartbeat-interval", Kind::Unsigned, "100", Section::Member, "Raft tick in milliseconds."),
    here("election-timeout", Kind::Unsigned, "1000", Section::Member, "Milliseconds without a leader before an election; at least five heartbeats, at most 50000."),
    here("initial-election-tick-advance", Kind::Bool, "true", Section::Member, "Hold the first election early."),
    here("listen-peer-urls", Kind::Urls, "http://localhost:2380", Section::Member, "Addresses for other members; nothing listens there yet."),
    here("listen-client-urls", Kind::Urls, "http://localhost:2379", Section::Member, "Addresses for clients: gRPC and plain HTTP on one port."),
    here("listen-client-http-urls", Kind::OptionalUrls, "", Section::Member, "Addresses for plain HTTP alone; given, --listen-client-urls serve gRPC alone."),
    here("quota-backend-bytes", Kind::Integer, "0", Section::Member, "Size of the tree file above which writes are refused; 0 means 2 GiB, negative no limit."),
    idle("backend-bbolt-freelist-type", Kind::Text, "", "free pages are always kept in one form"),
    here("backend-batch-interval", Kind::Duration, "0s", Section::Member, "Longest time between two group commits; 0 means 100ms."),
    here("backend-batch-limit", Kind::Integer, "0", Section::Member, "Most changes in one group commit; 0 means 10000."),
    here("max-txn-ops", Kind::Unsigned, "128", Section::Member, "Operations allowed in one transaction."),
    here("max-request-bytes", Kind::Unsigned, "1572864", Section::Member, "Largest request accepted."),
    here("max-concurrent-streams", Kind::Unsigned32, "4294967295", Section::Member, "HTTP/2 streams a client may have open on one connection."),
    here("grpc-keepalive-min-time", Kind::Duration, "5s", Section::Member, "Clients that ping more often are disconnected."),
    here("grpc-keepalive-interval", Kind::Duration, "2h0m0s", Section::Member, "Ping a client that was silent for this long; 0 never pings."),
    here("grpc-keepalive-timeout", Kind::Duration, "20s", Section::Member, "Wait this long for the answer before closing; 0 waits for ever."),
    here("socket-reuse-port", Kind::Bool, "false", Section::Member, "Let other processes listen on the client URLs, too."),
    here("socket-reuse-address", Kind::Bool, "false", Section::Member, "Always so."),
    idle("raft-read-timeout", Kind::Duration, "5s", "there are no peer connections yet"),
    idle("raft-write-timeout", Kind::Duration, "5s", "there are no peer connections yet"),
    here("memory-mlock", Kind::Bool, "false", Section::Member, "Keep the tree file's pages in memory."),
    idle("max-learners", Kind::Integer, "1", "membership cannot change yet"),
    idle("bootstrap-defrag-threshold-megabytes", Kind::Unsigned, "0", "space is reclaimed while running"),

    // Clustering
    here("initial-advertise-peer-urls", Kind::Urls, "http://localhost:2380", Section::Clustering, "Own peer URLs as other members should know them."),
    here("advertise-client-urls", Kind::Urls, "http://localhost:2379", Section::Clustering, "Own client URLs as clients should know them; required with --listen-client-urls."),
    here("initial-cluster", Kind::Text, "default=http://localhost:2380", Section::Clustering, "Members at bootstrap: `name=URL,...`."),
    here("initial-cluster-state", Kind::Choice(&["new", "existing"]), "new", Section::Clustering, "`new` bootstraps a cluster, `existing` joins one."),
    here("initial-cluster-token", Kind::Text, "etcd-cluster", Section::Clustering, "Mixed into member and cluster ids, so clusters cannot be confused."),
    here("strict-reconfig-check", Kind::Bool, "true", Section::Clustering, "Refuse membership changes that would lose the quorum."),
    here("pre-vote", Kind::Bool, "true", Section::Clustering, "Ask whether an election can be won before holding it."),
    here("auto-compaction-mode", Kind::Text, "periodic", Section::Clustering, "`periodic` keeps history by time, `revision` by count."),
    here("auto-compaction-retention", Kind::Text, "0", Section::Clustering, "How much history to keep: a duration (a plain number means hours) or a number of revisions; 0 is off."),
    later("discovery-token", Kind::Text, "", "clusters of several members, and so their discovery, come later"),
    later("discovery-endpoints", Kind::Text, "", "clusters of several members, and so their discovery, come later"),
    later("discovery-dial-timeout", Kind::Duration, "2s", "clusters of several members, and so their discovery, come later"),
    later("discovery-request-timeout", Kind::Duration, "5s", "clusters of several members, and so their discovery, come later"),
    later("discovery-keepalive-time", Kind::Duration, "2s", "clusters of several members, and so their discovery, come later"),
    later("discovery-keepalive-timeout", Kind::Duration, "6s", "clusters of several members, and so their discovery, come later"),
    later("discovery-insecure-transport", Kind::Bool, "true", "clusters of several members, and so their discovery, come later"),
    later("discovery-insecure-skip-tls-verify", Kind::Bool, "false", "clusters of several members, and so their discovery, come later"),
    later("discovery-cert", Kind::Text, "", "clusters of several members, and so their discovery, come later"),
    later("discovery-key", Kind::Text, "", "clusters of several members, and so their discovery, come later"),
    later("discovery-cacert", Kind::Text, "", "clusters of several members, and so their discovery, come later"),
    later("discovery-user", Kind::Text, "", "clusters of several members, and so their discovery, come later"),
    later("discovery-password", Kind::Text, "", "clusters of several members, and so their discovery, come later"),
    later("discovery-srv", Kind::Text, "", "clusters of several members, and so their discovery, come later"),
    later("discovery-srv-name", Kind::Text, "", "clusters of several members, and so their discovery, come later"),
    later("discovery-fallback", Kind::Choice(&["exit", "proxy"]), "exit", "clusters of several members, and so their discovery, come later"),

    // Security
    here("cert-file", Kind::Text, "", Section::Security, "Certificate for client connections, PEM. Re-read when it changes."),
    here("key-file", Kind::Text, "", Section::Security, "Private key of that certificate, PEM."),
    here("trusted-ca-file", Kind::Text, "", Section::Security, "Certificate authorities for client certificates; given, every client must present one."),
    here("client-cert-auth", Kind::Bool, "false", Section::Security, "Demand client certificates."),
    here("tls-min-version", Kind::Text, "TLS1.2", Section::Security, "Oldest TLS version accepted."),
    idle("client-cert-file", Kind::Text, "", "this server is no client of itself: its JSON gateway needs no connection"),
    idle("client-key-file", Kind::Text, "", "this server is no client of itself: its JSON gateway needs no connection"),
    here("client-crl-file", Kind::Text, "", Section::Security, "Revocation list (PEM or DER) for client certificates. Re-read when it changes."),
    here("client-cert-allowed-hostname", Kind::Text, "", Section::Security, "Alternative names of which a client certificate must have one."),
    here("client-cert-allowed-cn", Kind::Text, "", Section::Security, "Common names of which a client certificate must have one; in etcd only a key of the file."),
    here("auto-tls", Kind::Bool, "false", Section::Security, "Make a certificate for https addresses, unless one is given."),
    idle("peer-cert-file", Kind::Text, "", "there are no peer connections yet"),
    idle("peer-key-file", Kind::Text, "", "there are no peer connections yet"),
    idle("peer-client-cert-file", Kind::Text, "", "there are no peer connections yet"),
    idle("peer-client-key-file", Kind::Text, "", "there are no peer connections yet"),
    idle("peer-client-cert-auth", Kind::Bool, "false", "there are no peer connections yet"),
    idle("peer-trusted-ca-file", Kind::Text, "", "there are no peer connections yet"),
    idle("peer-auto-tls", Kind::Bool, "false", "there are no peer connections yet"),
    idle("peer-crl-file", Kind::Text, "", "there are no peer connections yet"),
    idle("peer-cert-allowed-cn", Kind::Text, "", "there are no peer connections yet"),
    idle("peer-cert-allowed-hostname", Kind::Text, "", "there are no peer connections yet"),
    idle("peer-skip-client-san-verification", Kind::Bool, "false", "there are no peer connections yet"),
    here("self-signed-cert-validity", Kind::Unsigned, "1", Section::Security, "Years for which a certificate of --auto-tls is valid."),
    here("cipher-suites", Kind::Text, "", Section::Security, "Cipher suites of TLS 1.2 by Go's names; all safe ones when empty."),
    here("tls-max-version", Kind::Text, "", Section::Security, "Newest TLS version accepted; the newest known when empty."),
    here("cors", Kind::Origins, "*", Section::Security, "Origins whose web pages may read answers over HTTP; `*` is all."),
    here("host-whitelist", Kind::Text, "*", Section::Security, "Names by which plain HTTP without TLS may call this member; `*` is all."),
    here("auth-token", Kind::Text, "simple", Section::Security, "Tokens of users: `simple`, or `jwt` with sign-method, pub-key, priv-key and ttl."),
    here("bcrypt-cost", Kind::Unsigned, "10", Section::Security, "How dear it is to try a password: 4 to 31, each one more doubles the time."),
    here("auth-token-ttl", Kind::Unsigned, "300", Section::Security, "Seconds for which a simple token is good that is not used."),

    // Logging and monitoring
    here("logger", Kind::Text, "zap", Section::Logging, "Only `zap` is known; the lines have its form."),
    here("log-outputs", Kind::Text, "default", Section::Logging, "`stderr`, `stdout` or files, separated by commas; `default` is stderr."),
    here("log-level", Kind::Choice(&["debug", "info", "warn", "error", "panic", "fatal"]), "info", Section::Logging, "Least severe level written."),
    here("log-format", Kind::Text, "json", Section::Logging, "`json`, or `console` for people; unless said, a terminal gets `console`."),
    here("metrics", Kind::Text, "basic", Section::Logging, "`extensive` adds histograms of gRPC handling times."),
    here("warning-apply-duration", Kind::Duration, "100ms", Section::Logging, "Applies and reads slower than this are logged."),
    here("warning-unary-request-duration", Kind::Duration, "300ms", Section::Logging, "Unary calls slower than this are logged."),
    here("enable-log-rotation", Kind::Bool, "false", Section::Logging, "Put the log file aside when it is full; --log-outputs names one file then."),
    here("log-rotation-config-json", Kind::Text, "{\"maxsize\": 100, \"maxage\": 0, \"maxbackups\": 0, \"localtime\": false, \"compress\": false}", Section::Logging, "When it is full, in megabytes, and what is kept of it, in files and days."),
    here("listen-metrics-urls", Kind::OptionalUrls, "", Section::Logging, "Further addresses for /metrics, /health, /livez and /readyz alone."),
    here("enable-pprof", Kind::Bool, "false", Section::Logging, "Serve /debug/pprof/, which says how to profile a program that is not Go's."),
    idle("enable-distributed-tracing", Kind::Bool, "false", "tracing is not exported yet"),
    idle("distributed-tracing-address", Kind::Text, "localhost:4317", "tracing is not exported yet"),
    idle("distributed-tracing-service-name", Kind::Text, "etcd", "tracing is not exported yet"),
    idle("distributed-tracing-instance-id", Kind::Text, "", "tracing is not exported yet"),
    idle("distributed-tracing-sampling-rate", Kind::Integer, "0", "tracing is not exported yet"),

    // Features
    here("compaction-batch-limit", Kind::Integer, "0", Section::Features, "Revisions per slice of a compaction; 0 means 1000."),
    here("compaction-sleep-interval", Kind::Duration, "0s", Section::Features, "Pause between slices; 0 means 10ms."),
    here("enable-grpc-gateway", Kind::Bool, "true", Section::Features, "Serve the API as JSON over HTTP, below /v3/."),
    here("corrupt-check-time", Kind::Duration, "0s", Section::Features, "Time between comparisons with other members, of which there are none yet."),
    here("compact-hash-check-time", Kind::Duration, "1m0s", Section::Features, "The same for hashes of compactions."),
    here("watch-progress-notify-interval", Kind::Duration, "0s", Section::Features, "Time between progress messages to watchers that asked for them; 0 means 10m, at least 100ms."),
    here("downgrade-check-time", Kind::Duration, "5s", Section::Features, "Time between looks whether a downgrade is done; here the entry that begins it decides."),
    here("feature-gates", Kind::Gates, "", Section::Features, "Features to switch, `Name=true` or `Name=false`, separated by commas."),
    idle("unsafe-no-fsync", Kind::Bool, "false", "an acknowledged write is always durable here, and the log is never run without syncing"),
    idle("force-new-cluster", Kind::Bool, "false", "there is only one member yet, so no other member can be dropped"),

    // Ours
    here("unsent-answer-bytes", Kind::Integer, "1073741824", Section::Ours, "Bytes of answers the member may hold for clients that do not take them; above it the worst of them are cut off."),
    here("cores", Kind::Cores, "auto", Section::Ours, "Cores to pin the server's stages to: `auto`, or a list like `0-3,8`."),

    // Program
    here("config-file", Kind::Text, "", Section::Program, "YAML file; given, all other flags and variables are ignored."),
    here("version", Kind::Bool, "false", Section::Program, "Print the version and exit."),

    // Accepted and without effect, as in etcd.
    ignored("cluster-active-size"),
    ignored("cluster-remove-delay"),
    ignored("cluster-sync-interval"),
    ignored("config"),
    ignored("force"),
    ignored("max-result-buffer"),
    ignored("max-retry-attempts"),
    ignored("peer-heartbeat-interval"),
    ignored("peer-election-timeout"),
    ignored("retry-interval"),
    ignored("snapshot"),
    ignored("v"),
    ignored("vv"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::raw::RawConfig;

    #[test]
    fn each_name_occurs_once_and_each_default_parses() {
        for (position, flag) in FLAGS.iter().enumerate() {
            assert!(
                FLAGS[..position]
                    .iter()
                    .all(|other| other.name != flag.name),
                "{}",
                flag.name
            );
            if flag.kind != Kind::Ignored {
                let result = RawConfig::default().set(flag, flag.default);
                assert_eq!(result, Ok(()), "{}", flag.name);
            }
        }
    }

    #[test]
    fn misspelled_names_find_their_neighbour() {
        assert_eq!(nearest("listen-client-url"), Some("listen-client-urls"));
        assert_eq!(nearest("data_dir"), Some("data-dir"));
        assert_eq!(nearest("nmae"), Some("name"));
        assert_eq!(nearest("completely-else"), None);
    }

    #[test]
    fn removed_names_say_what_became_of_them() {
        assert_eq!(
            removed("experimental-compaction-batch-limit").unwrap(),
            "it is now --compaction-batch-limit"
        );
        assert!(removed("proxy-dial-timeout").is_some());
        assert_eq!(removed("nothing"), None);
    }
}
