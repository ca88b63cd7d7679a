//! Turns raw values into the checked `Config`: fills defaults, ties flags together, refuses contradictions.
//!
//! Always true here: refusals use etcd's words where etcd refuses the same; what etcd has and this version
//! lacks is refused by name, never dropped. Nothing is opened or bound; files named by flags are only read
//! later, by the modules that need them.
//!
//! Called once by `start`, for values from flags and from a file alike; `check_bootstrap` once more, only
//! when the data directory is still empty.

use std::net::ToSocketAddrs;
use std::path::PathBuf;
use std::time::Duration;

use super::auth::auth;
use super::checked::{AutoCompaction, ClusterState, Config, CoreChoice, Keepalive, Quota};
use super::flags::Support;
use super::gates::Features;
use super::http;
use super::raw::RawConfig;
use super::tls;
use super::urls::{self, Url};
use super::values;
use super::{Notice, Refusal};
use crate::logging::{LogConfig, LogFormat, LogLevel, LogOutput, Rotation};

const ELECTION_TIMEOUT_MS_MAX: i64 = 50_000;
const WATCH_PROGRESS_DEFAULT: Duration = Duration::from_secs(600);
const WATCH_PROGRESS_MIN: Duration = Duration::from_millis(100);
const REQUEST_BYTES_RECOMMENDED_MAX: i64 = 10 * 1024 * 1024;
const QUOTA_BYTES_DEFAULT: u64 = 2 << 30;
const QUOTA_BYTES_RECOMMENDED_MIN: u64 = 16 << 20;
const QUOTA_BYTES_RECOMMENDED_MAX: u64 = 8 << 30;
const DEFAULT_NAME: &str = "default";

pub(super) fn check(raw: &RawConfig, notices: &mut Vec<Notice>) -> Result<Config, Refusal> {
    check_support(raw, notices)?;
    note_ineffective(raw, notices);
    note_ineffective_times(raw, notices)?;
    let features = features(raw, notices)?;
    let log = log_config(raw, notices)?;
    // Nothing listens there yet; what cannot be right is refused all the same.
    let listen_peer_urls = listen_urls(raw, "listen-peer-urls")?;
    let listen_client_urls = listen_urls(raw, "listen-client-urls")?;
    let listen_client_http_urls = listen_urls(raw, "listen-client-http-urls")?;
    let listen_metrics_urls = listen_urls(raw, "listen-metrics-urls")?;
    http::check_addresses(&listen_client_urls, &listen_client_http_urls)?;
    for (name, urls) in [
        ("--listen-client-urls", &listen_client_urls),
        ("--listen-client-http-urls", &listen_client_http_urls),
        ("--listen-metrics-urls", &listen_metrics_urls),
    ] {
        http::check_peers_apart(&listen_peer_urls, name, urls)?;
    }
    let initial_advertise_peer_urls = raw.urls("initial-advertise-peer-urls");
    check_hosts(&initial_advertise_peer_urls).map_err(|why| {
        Refusal::new(format!(
            r#"--initial-advertise-peer-urls "{}" must be "host:port" ({why})"#,
            urls::joined(&initial_advertise_peer_urls)
        ))
    })?;
    let advertise_client_urls = raw.urls("advertise-client-urls");
    check_hosts(&advertise_client_urls).map_err(|why| {
        Refusal::new(format!(
            r#"--advertise-client-urls "{}" must be in the format "host:port", "unix:/path/to/socket" or "unixs:/path/to/socket" ({why})"#,
            urls::joined(&advertise_client_urls)
        ))
    })?;
    let (heartbeat_interval, election_timeout) = raft_times(raw)?;
    // In a file, as with etcd, the default advertised URLs stay.
    let advertises = raw.is_from_file || raw.is_given("advertise-client-urls");
    if raw.is_given("listen-client-urls") && !advertises {
        return Err(Refusal::new(
            "--advertise-client-urls is required when --listen-client-urls is set explicitly",
        ));
    }
    let auto_compaction = auto_compaction(raw, notices)?;
    let name = raw.text("name").to_owned();
    if name == DEFAULT_NAME {
        notices.push(Notice::warning(
            "the member has the default name; set --name, or members of one cluster get confused",
        ));
    }
    let client_urls = [&listen_client_urls[..], &listen_client_http_urls].concat();
    let data_dir = match raw.text("data-dir") {
        "" => PathBuf::from(format!("{name}.etcd")),
        path => PathBuf::from(path),
    };
    let client_tls = tls::client(raw, &client_urls, &listen_metrics_urls, &data_dir, notices)?;
    let wal_dir = match raw.text("wal-dir") {
        "" => data_dir.join("member").join("wal"),
        path => PathBuf::from(path),
    };
    let cores = match raw.text("cores") {
        "auto" => CoreChoice::Auto,
        list => CoreChoice::List(values::parse_cores(list).expect("spelling was checked")),
    };
    Ok(Config {
        initial_cluster: initial_cluster(raw, &name, &initial_advertise_peer_urls)?,
        initial_cluster_state: match raw.text("initial-cluster-state") {
            "existing" => ClusterState::Existing,
            _ => ClusterState::New,
        },
        initial_cluster_token: raw.text("initial-cluster-token").to_owned(),
        snapshot_count: raw.integer("snapshot-count") as u64,
        heartbeat_interval,
        election_timeout,
        pre_vote: raw.bool("pre-vote"),
        quota: quota(raw, notices),
        backend_batch_interval: duration(raw, "backend-batch-interval", 100)?,
        backend_batch_limit: count(raw, "backend-batch-limit", 10_000)?,
        txn_ops_max: raw.integer("max-txn-ops") as usize,
        request_bytes_max: request_bytes(raw, notices),
        streams_max: u32::try_from(raw.integer("max-concurrent-streams"))
            .expect("spelling was checked"),
        keepalive: Keepalive {
            client_ping_interval_min: duration(raw, "grpc-keepalive-min-time", 0)?,
            server_ping_interval: non_zero(duration(raw, "grpc-keepalive-interval", 0)?),
            server_ping_timeout: non_zero(duration(raw, "grpc-keepalive-timeout", 0)?),
        },
        auto_compaction,
        compaction_batch_limit: count(raw, "compaction-batch-limit", 1000)?,
        compaction_sleep_interval: duration(raw, "compaction-sleep-interval", 10)?,
        watch_progress_notify_interval: watch_progress(raw, notices),
        socket_reuse_port: raw.bool("socket-reuse-port"),
        warning_apply_duration: duration(raw, "warning-apply-duration", 0)?,
        warning_unary_request_duration: duration(raw, "warning-unary-request-duration", 300)?,
        metrics_extensive: metrics_extensive(raw)?,
        memory_mlock: raw.bool("memory-mlock"),
        features,
        name,
        data_dir,
        wal_dir,
        listen_client_urls,
        listen_client_http_urls,
        listen_metrics_urls,
        http: http::settings(raw),
        advertise_client_urls,
        initial_advertise_peer_urls,
        client_tls,
        auth: auth(raw, notices)?,
        log,
        cores,
        unsent_answer_bytes: unsent_answer_bytes(raw)?,
    })
}

/// Less could not hold one answer of usual size for each of a few clients.
fn unsent_answer_bytes(raw: &RawConfig) -> Result<usize, Refusal> {
    const BYTES_MIN: i64 = 1 << 20;
    match raw.integer("unsent-answer-bytes") {
        bytes if BYTES_MIN <= bytes => Ok(bytes as usize),
        bytes => Err(Refusal::new(format!(
            "--unsent-answer-bytes={bytes} is too small; it is at least {BYTES_MIN}"
        ))),
    }
}

/// Flags this version lacks: their defaults pass, anything else is refused with the reason.
fn check_support(raw: &RawConfig, notices: &mut Vec<Notice>) -> Result<(), Refusal> {
    for (flag, text) in raw.given() {
        let is_default = text == flag.default
            || values::parse_bool(text).is_ok_and(|given| {
                values::parse_bool(flag.default) == Ok(given)
                    && flag.kind == super::flags::Kind::Bool
            });
        match flag.support {
            Support::Later if !is_default => {
                return Err(Refusal::new(format!(
                    "--{}={text} is known from etcd but not in this version: {}; \
                     remove it, or set the default {:?}",
                    flag.name, flag.help, flag.default
                )));
            }
            Support::Idle if !is_default => notices.push(Notice::warning(format!(
                "--{}={text} has no effect: {}",
                flag.name, flag.help
            ))),
            _ => {}
        }
    }
    Ok(())
}

/// Switches that are accepted either way and change nothing here, with the reason.
const INEFFECTIVE: [(&str, &str); 3] = [
    (
        "initial-election-tick-advance",
        "a member that is alone campaigns at once",
    ),
    ("strict-reconfig-check", "membership cannot change yet"),
    (
        "socket-reuse-address",
        "listeners always have SO_REUSEADDR, as etcd's do",
    ),
];

/// The same for times.
const INEFFECTIVE_TIMES: [(&str, &str); 3] = [
    (
        "corrupt-check-time",
        "there are no other members to compare with; every page is checked against its sum, at the start and in the background",
    ),
    (
        "compact-hash-check-time",
        "there are no other members to compare with",
    ),
    (
        "downgrade-check-time",
        "the member decides when the downgrade is asked for",
    ),
];

fn note_ineffective_times(raw: &RawConfig, notices: &mut Vec<Notice>) -> Result<(), Refusal> {
    let given = raw.duration_ns("compact-hash-check-time");
    if given <= 0 {
        let text = raw.text("compact-hash-check-time");
        return Err(Refusal::new(format!(
            "--compact-hash-check-time must be >0 (set to {text})"
        )));
    }
    for (name, why) in INEFFECTIVE_TIMES {
        let flag = super::flags::find(name).expect("it is in the table");
        let text = raw.text(name);
        if values::parse_duration_ns(flag.default) != Ok(raw.duration_ns(name)) {
            notices.push(Notice::warning(format!(
                "--{name}={text} has no effect: {why}"
            )));
        }
    }
    Ok(())
}

fn note_ineffective(raw: &RawConfig, notices: &mut Vec<Notice>) {
    for (name, why) in INEFFECTIVE {
        let flag = super::flags::find(name).expect("it is in the table");
        let given = raw.bool(name);
        if values::parse_bool(flag.default) != Ok(given) {
            notices.push(Notice::warning(format!(
                "--{name}={given} has no effect: {why}"
            )));
        }
    }
}

fn features(raw: &RawConfig, notices: &mut Vec<Notice>) -> Result<Features, Refusal> {
    let features = raw.features();
    if features.lease_checkpoint_persist && !features.lease_checkpoint {
        return Err(Refusal::new(
            "enabling feature gate LeaseCheckpointPersist requires enabling feature gate LeaseCheckpoint",
        ));
    }
    if features.lease_checkpoint && !features.lease_checkpoint_persist {
        notices.push(Notice::warning(
            "Detected that checkpointing is enabled without persistence. Consider enabling feature gate LeaseCheckpointPersist",
        ));
    }
    for (name, is_on, why) in features.ineffective() {
        notices.push(Notice::warning(format!(
            "--feature-gates={name}={is_on} has no effect: {why}"
        )));
    }
    Ok(features)
}

fn log_config(raw: &RawConfig, notices: &mut Vec<Notice>) -> Result<LogConfig, Refusal> {
    match raw.text("logger") {
        "zap" => {}
        "capnslog" => return Err(Refusal::new("--logger=capnslog is removed in v3.5")),
        other => return Err(Refusal::new(format!("unknown logger option {other:?}"))),
    }
    let format = match raw.text("log-format") {
        "json" | "" => LogFormat::Json,
        "console" => LogFormat::Console,
        other => {
            return Err(Refusal::new(format!(
                "unknown log format: {other}, supported values json, console"
            )));
        }
    };
    let names = raw.list("log-outputs");
    if names.len() > 1 && names.iter().any(|name| name == "default") {
        return Err(Refusal::new(
            r#"multi logoutput for "default" is not supported yet"#,
        ));
    }
    let rotation = rotation(raw, &names, notices)?;
    let mut outputs = Vec::new();
    for name in names {
        let output = match name.as_str() {
            "default" | "stderr" => LogOutput::Stderr,
            "stdout" => LogOutput::Stdout,
            "systemd/journal" => LogOutput::Journal,
            path => match rotation {
                Some(rotation) => LogOutput::Rotated(path.into(), rotation),
                None => LogOutput::File(path.into()),
            },
        };
        if !outputs.contains(&output) {
            outputs.push(output);
        }
    }
    // As in etcd, naming the null device anywhere silences everything.
    if outputs.contains(&LogOutput::File("/dev/null".into())) {
        outputs.clear();
    }
    let level = match raw.text("log-level") {
        "debug" => LogLevel::Debug,
        "warn" => LogLevel::Warn,
        "error" => LogLevel::Error,
        "panic" => LogLevel::Panic,
        "fatal" => LogLevel::Fatal,
        _ => LogLevel::Info,
    };
    Ok(LogConfig {
        level,
        format,
        is_format_given: raw.is_given("log-format"),
        outputs,
    })
}

/// `--enable-log-rotation` wants exactly one file.
fn rotation(
    raw: &RawConfig,
    outputs: &[String],
    notices: &mut Vec<Notice>,
) -> Result<Option<Rotation>, Refusal> {
    if !raw.bool("enable-log-rotation") {
        return Ok(None);
    }
    let is_file = |name: &&String| !matches!(name.as_str(), "default" | "stderr" | "stdout");
    let files = outputs.iter().filter(is_file).count();
    if files > 1 || (files == 0 && outputs.len() == 1) {
        return Err(Refusal::new(
            "--log-outputs requires a single file path when --log-rotate-config-json is defined",
        ));
    }
    let text = raw.text("log-rotation-config-json");
    let rotation: Rotation = serde_json::from_str(text).map_err(|error| {
        let what = match error.is_data() {
            true => "invalid log rotation config",
            false => "improperly formatted log rotation config",
        };
        Refusal::new(format!("{what}: {error}"))
    })?;
    for (name, given) in [
        ("localtime", rotation.localtime),
        ("compress", rotation.compress),
    ] {
        if given {
            notices.push(Notice::warning(format!(
                "--log-rotation-config-json: {name} has no effect: files are named in UTC and kept as they are"
            )));
        }
    }
    Ok(Some(rotation))
}

/// Listeners need an address, not a name; `localhost` is the one name allowed.
fn listen_urls(raw: &RawConfig, name: &str) -> Result<Vec<Url>, Refusal> {
    let urls = raw.urls(name);
    for url in &urls {
        if !url.is_unix() && url.host != "localhost" && url.ip().is_none() {
            return Err(Refusal::new(format!(
                "expected IP in URL for binding ({url})"
            )));
        }
    }
    Ok(urls)
}

fn check_hosts(urls: &[Url]) -> Result<(), String> {
    match urls
        .iter()
        .find(|url| !url.is_unix() && url.host.is_empty())
    {
        Some(url) => Err(format!("unexpected empty host ({url})")),
        None => Ok(()),
    }
}

fn raft_times(raw: &RawConfig) -> Result<(Duration, Duration), Refusal> {
    let heartbeat = raw.integer("heartbeat-interval");
    let election = raw.integer("election-timeout");
    let refuse = |text: String| Err(Refusal::new(text));
    if heartbeat == 0 {
        return refuse("--heartbeat-interval must be >0 (set to 0ms)".to_owned());
    }
    if election == 0 {
        return refuse("--election-timeout must be >0 (set to 0ms)".to_owned());
    }
    if heartbeat.saturating_mul(5) > election {
        return refuse(format!(
            "--election-timeout[{election}ms] should be at least as 5 times as --heartbeat-interval[{heartbeat}ms]"
        ));
    }
    if election > ELECTION_TIMEOUT_MS_MAX {
        return refuse(format!(
            "--election-timeout[{election}ms] is too long, and should be set less than {ELECTION_TIMEOUT_MS_MAX}ms"
        ));
    }
    Ok((
        Duration::from_millis(heartbeat as u64),
        Duration::from_millis(election as u64),
    ))
}

fn auto_compaction(raw: &RawConfig, notices: &mut Vec<Notice>) -> Result<AutoCompaction, Refusal> {
    let by_revision = match raw.text("auto-compaction-mode") {
        "periodic" => false,
        "revision" => true,
        "" => return Err(Refusal::new("undefined auto-compaction-mode")),
        other => {
            return Err(Refusal::new(format!(
                "unknown auto-compaction-mode {other:?}"
            )));
        }
    };
    let text = raw.text("auto-compaction-retention");
    let refuse = |why: String| Refusal::new(format!("error parsing CompactionRetention: {why}"));
    // A plain number counts revisions or hours; anything else is a duration, in either mode.
    let nanoseconds = match text.parse::<u32>() {
        Ok(0) => return Ok(AutoCompaction::Off),
        Ok(count) if by_revision => return Ok(AutoCompaction::Revision(count.into())),
        Ok(hours) => {
            return Ok(AutoCompaction::Periodic(Duration::from_secs(
                u64::from(hours) * 3600,
            )));
        }
        Err(_) => {
            values::parse_duration_ns(text).map_err(|_| refuse(values::duration_error(text)))?
        }
    };
    match u64::try_from(nanoseconds) {
        Ok(0) => Ok(AutoCompaction::Off),
        Ok(_) if by_revision => {
            // etcd does the same without a word, and then never compacts.
            notices.push(Notice::warning(format!(
                "--auto-compaction-retention={text} is a duration, but --auto-compaction-mode=revision counts revisions: \
                 it means {nanoseconds} of them, so nothing will be compacted; give a number of revisions, or the mode periodic"
            )));
            Ok(AutoCompaction::Revision(nanoseconds))
        }
        Ok(nanoseconds) => Ok(AutoCompaction::Periodic(Duration::from_nanos(nanoseconds))),
        Err(_) => Err(refuse(format!("time: negative duration {text:?}"))),
    }
}

/// When only a name was given, it is the name of the one member.
fn initial_cluster(
    raw: &RawConfig,
    name: &str,
    advertised: &[Url],
) -> Result<Vec<(String, Vec<Url>)>, Refusal> {
    let text = raw.text("initial-cluster");
    let default = super::flags::find("initial-cluster")
        .expect("it is in the table")
        .default;
    if name != DEFAULT_NAME && text == default {
        return Ok(vec![(name.to_owned(), advertised.to_vec())]);
    }
    urls::parse_cluster(text).map_err(|why| Refusal::new(format!("--initial-cluster: {why}")))
}

fn quota(raw: &RawConfig, notices: &mut Vec<Notice>) -> Quota {
    let given = raw.integer("quota-backend-bytes");
    match u64::try_from(given) {
        Ok(0) => Quota::Bytes(QUOTA_BYTES_DEFAULT),
        Ok(bytes) => {
            if bytes < QUOTA_BYTES_RECOMMENDED_MIN {
                notices.push(Notice::warning(format!(
                    "--quota-backend-bytes={bytes} is so little that writes will soon be refused: an empty store has some \
                     ten kilobytes already, and each commit needs room for new pages"
                )));
            }
            if bytes > QUOTA_BYTES_RECOMMENDED_MAX {
                notices.push(Notice::warning(format!(
                    "--quota-backend-bytes={bytes} is more than the {QUOTA_BYTES_RECOMMENDED_MAX} bytes etcd recommends"
                )));
            }
            Quota::Bytes(bytes)
        }
        Err(_) => {
            notices.push(Notice::info(format!(
                "disabled backend quota: --quota-backend-bytes={given} lets the store grow for as long as the disk has room"
            )));
            Quota::Off(given)
        }
    }
}

fn request_bytes(raw: &RawConfig, notices: &mut Vec<Notice>) -> usize {
    let bytes = raw.integer("max-request-bytes");
    if bytes > REQUEST_BYTES_RECOMMENDED_MAX {
        notices.push(Notice::warning(format!(
            "--max-request-bytes={bytes} is more than the {REQUEST_BYTES_RECOMMENDED_MAX} bytes etcd recommends"
        )));
    }
    bytes as usize
}

/// Zero and below mean etcd's default.
fn watch_progress(raw: &RawConfig, notices: &mut Vec<Notice>) -> Duration {
    let given = u64::try_from(raw.duration_ns("watch-progress-notify-interval")).unwrap_or(0);
    match Duration::from_nanos(given) {
        Duration::ZERO => WATCH_PROGRESS_DEFAULT,
        given if given < WATCH_PROGRESS_MIN => {
            notices.push(Notice::warning(format!(
                "--watch-progress-notify-interval={given:?} is raised to {WATCH_PROGRESS_MIN:?}"
            )));
            WATCH_PROGRESS_MIN
        }
        given => given,
    }
}

fn metrics_extensive(raw: &RawConfig) -> Result<bool, Refusal> {
    match raw.text("metrics") {
        "basic" | "" => Ok(false),
        "extensive" => Ok(true),
        other => Err(Refusal::new(format!(
            "--metrics={other} is neither basic nor extensive; give one of these"
        ))),
    }
}

/// A duration whose zero means this many milliseconds.
fn duration(raw: &RawConfig, name: &str, default_ms: u64) -> Result<Duration, Refusal> {
    let ns = u64::try_from(raw.duration_ns(name))
        .map_err(|_| Refusal::new(format!("--{name}={} must not be negative", raw.text(name))))?;
    Ok(if ns == 0 {
        Duration::from_millis(default_ms)
    } else {
        Duration::from_nanos(ns)
    })
}

/// A count whose zero means this default.
fn count(raw: &RawConfig, name: &str, default: usize) -> Result<usize, Refusal> {
    let given = usize::try_from(raw.integer(name))
        .map_err(|_| Refusal::new(format!("--{name}={} must not be negative", raw.text(name))))?;
    Ok(if given == 0 { default } else { given })
}

fn non_zero(duration: Duration) -> Option<Duration> {
    (!duration.is_zero()).then_some(duration)
}

impl Config {
    /// The checks that matter only while the data directory is empty; a used one remembers its cluster.
    /// May look names up, so that `localhost` and its address count as the same.
    pub fn check_bootstrap(&self) -> Result<(), Refusal> {
        let own = self
            .initial_cluster
            .iter()
            .find(|(name, _)| *name == self.name);
        let Some((_, listed)) = own else {
            return Err(Refusal::new(format!(
                "couldn't find local name {:?} in the initial cluster configuration",
                self.name
            )));
        };
        let advertised = &self.initial_advertise_peer_urls;
        if listed != advertised && !same_addresses(listed, advertised) {
            let shown = urls::joined(advertised);
            let missing: Vec<String> = listed
                .iter()
                .filter(|url| !advertised.contains(url))
                .map(|url| format!("{}={url}", self.name))
                .collect();
            return Err(Refusal::new(if missing.is_empty() {
                format!(
                    "--initial-advertise-peer-urls has {shown} but missing from --initial-cluster={}={}",
                    self.name,
                    urls::joined(listed)
                )
            } else {
                format!(
                    "--initial-cluster has {} but missing from --initial-advertise-peer-urls={shown}",
                    missing.join(",")
                )
            }));
        }
        if self.initial_cluster.len() > 1 {
            return Err(Refusal::new(format!(
                "--initial-cluster names {} members; clusters of several members are not in this version",
                self.initial_cluster.len()
            )));
        }
        if self.initial_cluster_state == ClusterState::Existing {
            return Err(Refusal::new(
                "--initial-cluster-state=existing: joining a cluster is not in this version; \
                 give the data directory of a member, or start with new",
            ));
        }
        Ok(())
    }
}

/// Addresses behind the URLs, sorted; `None` if a name has none.
fn resolved(urls: &[Url]) -> Option<Vec<std::net::SocketAddr>> {
    let mut all = Vec::new();
    for url in urls {
        let found: Vec<_> = (url.host.as_str(), url.port)
            .to_socket_addrs()
            .ok()?
            .collect();
        // One address per name, as when etcd compares: the first IPv4 one, else the first.
        all.push(
            *found
                .iter()
                .find(|address| address.is_ipv4())
                .or(found.first())?,
        );
    }
    all.sort_unstable();
    Some(all)
}

/// The same addresses under two spellings; names that cannot be looked up are the same as nothing.
fn same_addresses(a: &[Url], b: &[Url]) -> bool {
    let (a, b) = (resolved(a), resolved(b));
    a.is_some() && a == b
}
