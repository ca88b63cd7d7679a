//! The checked configuration the rest of the program uses.
//!
//! Always true here: every value was parsed, has its default filled in, and satisfies the rules that tie
//! it to others; nobody downstream checks again. Built by `check` only; read by everyone; never changes
//! while the server runs.

use std::path::PathBuf;
use std::time::Duration;

use super::gates::Features;
use super::urls::Url;
use crate::auth::jwt_keys::JwtOptions;
use crate::identity::{ClusterId, MemberId};
use crate::logging::LogConfig;
use crate::net::HttpSettings;
use crate::tls::TlsFiles;

#[derive(Clone, Debug)]
pub struct Config {
    pub name: String,
    pub data_dir: PathBuf,
    /// `--wal-dir`, or `<data-dir>/member/wal`.
    pub wal_dir: PathBuf,
    pub snapshot_count: u64,

    /// One Raft tick.
    pub heartbeat_interval: Duration,
    /// At least five ticks, at most 50 s.
    pub election_timeout: Duration,
    pub pre_vote: bool,

    /// Sorted, without duplicates, like every list of URLs here.
    pub listen_client_urls: Vec<Url>,
    /// Given, HTTP has these for itself and `listen_client_urls` serve gRPC alone.
    pub listen_client_http_urls: Vec<Url>,
    /// Metrics and health checks, nothing else.
    pub listen_metrics_urls: Vec<Url>,
    pub advertise_client_urls: Vec<Url>,
    pub initial_advertise_peer_urls: Vec<Url>,
    /// Members at bootstrap, by name; matters only while the data directory is empty.
    pub initial_cluster: Vec<(String, Vec<Url>)>,
    pub initial_cluster_state: ClusterState,
    pub initial_cluster_token: String,

    pub quota: Quota,
    pub backend_batch_interval: Duration,
    pub backend_batch_limit: usize,
    pub txn_ops_max: usize,
    /// Largest Raft request; a gRPC message may have 512 KiB more.
    pub request_bytes_max: usize,
    /// HTTP/2 streams per client connection.
    pub streams_max: u32,
    pub keepalive: Keepalive,
    pub auto_compaction: AutoCompaction,
    /// Revisions per slice of a compaction.
    pub compaction_batch_limit: usize,
    /// Pause between slices.
    pub compaction_sleep_interval: Duration,
    /// Between two progress messages to a watcher; at least 100 ms.
    pub watch_progress_notify_interval: Duration,

    /// Present exactly when a client URL is `https`.
    pub client_tls: Option<TlsFiles>,
    pub auth: AuthConfig,
    /// Other processes may listen on the client URLs, too.
    pub socket_reuse_port: bool,

    pub http: HttpSettings,
    pub log: LogConfig,
    /// Applies and reads slower than this are logged.
    pub warning_apply_duration: Duration,
    /// Unary calls slower than this are logged.
    pub warning_unary_request_duration: Duration,
    /// `--metrics=extensive`: gRPC handling time histograms, too.
    pub metrics_extensive: bool,
    /// Keep the tree file's pages in memory.
    pub memory_mlock: bool,
    pub features: Features,
    pub cores: CoreChoice,
    /// Bytes of answers that all net cores together may hold for slow clients.
    pub unsent_answer_bytes: usize,
}

/// How users are told apart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AuthConfig {
    pub tokens: TokenOptions,
    /// How long a simple token is good that is not used.
    pub token_ttl: Duration,
    pub bcrypt_cost: u32,
    /// A client without a token is who his certificate says.
    pub uses_certificates: bool,
}

/// What users get for their passwords.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TokenOptions {
    /// Random texts that this member remembers.
    Simple,
    /// Texts that say who he is, under a signature.
    Signed(JwtOptions),
    /// Nothing: only certificates name users.
    Absent,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClusterState {
    New,
    Existing,
}

/// How large the tree file may grow before writes are refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Quota {
    Bytes(u64),
    /// A negative flag value; kept because a metric shows it.
    Off(i64),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Keepalive {
    /// Clients that ping more often than this lose their connection.
    pub client_ping_interval_min: Duration,
    /// Ping a client that was silent for this long; `None` never pings.
    pub server_ping_interval: Option<Duration>,
    /// Wait this long for the answer; `None` waits for ever.
    pub server_ping_timeout: Option<Duration>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AutoCompaction {
    Off,
    /// Keep this much time.
    Periodic(Duration),
    /// Keep this many revisions.
    Revision(i64),
}

/// Which cores the server may pin its stages to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CoreChoice {
    /// All the process may run on.
    Auto,
    /// These, ascending, each once, at least one.
    List(Vec<usize>),
}

impl Config {
    /// Ticks in one election timeout.
    pub fn election_ticks(&self) -> u32 {
        (self.election_timeout.as_millis() / self.heartbeat_interval.as_millis()) as u32
    }

    /// The shortest time to live of a lease in seconds: one and a half election timeouts, as etcd counts it.
    pub fn lease_ttl_min_s(&self) -> i64 {
        let ticks = 3 * self.election_ticks() / 2;
        let min = self.heartbeat_interval * ticks;
        min.as_millis().div_ceil(1000) as i64
    }

    /// How long a request may wait for consensus before it is answered with a timeout.
    pub fn request_timeout(&self) -> Duration {
        Duration::from_secs(5) + 2 * self.election_timeout
    }

    /// Ids for a member that starts with an empty data directory; a used one remembers its own.
    pub fn bootstrap_ids(&self) -> (MemberId, ClusterId) {
        let ids: Vec<(&str, MemberId)> = self
            .initial_cluster
            .iter()
            .map(|(name, urls)| {
                let urls: Vec<String> = urls.iter().map(Url::to_string).collect();
                let id = MemberId::of_initial_member(&urls, &self.initial_cluster_token);
                (name.as_str(), id)
            })
            .collect();
        let own = ids.iter().find(|(name, _)| *name == self.name);
        let (_, own) = own.expect("check finds the own name in the initial cluster");
        let members: Vec<MemberId> = ids.iter().map(|(_, id)| *id).collect();
        (*own, ClusterId::of_initial_members(&members))
    }
}
