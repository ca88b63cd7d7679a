//! What the plain HTTP endpoints ask of the member: a narrow trait, so they can be tested without one.
//!
//! Always true here: every question is asked on the net core that owns the connection, and the futures
//! may hold `Rc`s (nothing is `Send`). Implemented by the server's pipeline; the texts of errors are
//! etcd's, because `/health` and `/readyz` print them. Deliberately knows no HTTP.

use bytes::Bytes;

/// The three versions that `/version` prints.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Versions {
    /// The etcd version this server is compatible with, like `3.7.1`.
    pub server: String,
    /// `x.y.0`, or `None` while it is not decided.
    pub cluster: Option<String>,
    /// `x.y.0`, or `None` while it is unknown.
    pub storage: Option<String>,
}

/// An active alarm, as far as health checks tell them apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AlarmKind {
    NoSpace,
    Corrupt,
    /// A type this version does not know, met in a newer data directory.
    Unknown,
}

impl AlarmKind {
    /// etcd's name.
    pub fn text(self) -> &'static str {
        match self {
            AlarmKind::NoSpace => "NOSPACE",
            AlarmKind::Corrupt => "CORRUPT",
            AlarmKind::Unknown => "UNKNOWN",
        }
    }
}

/// The family of a health check, the `type` label of its metrics.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CheckFamily {
    Livez,
    Readyz,
}

impl CheckFamily {
    pub fn name(self) -> &'static str {
        match self {
            CheckFamily::Livez => "livez",
            CheckFamily::Readyz => "readyz",
        }
    }
}

/// The member behind the endpoints.
///
/// The two reads are one keys-only range, limit 1, of the empty key, made as root; they end with the
/// text a gRPC client would get, after at most the request timeout.
pub trait Backend: 'static {
    fn versions(&self) -> Versions;
    /// All active alarms, in the order the member lists them.
    fn alarms(&self) -> Vec<AlarmKind>;
    fn has_leader(&self) -> bool;
    fn is_learner(&self) -> bool;
    fn serializable_read(&self) -> impl Future<Output = Result<(), String>>;
    fn linearizable_read(&self) -> impl Future<Output = Result<(), String>>;
    /// The whole `/metrics` text. Encoding takes about a millisecond, so a busy member may want to do it
    /// on a helper thread; hence the future.
    fn metrics(&self) -> impl Future<Output = Bytes>;
    /// What `/debug/vars` shows: one JSON object.
    fn variables(&self) -> Bytes;

    /// `/health` was answered; for `etcd_server_health_success` and `_failures`.
    fn on_health(&self, healthy: bool);
    /// One check ran; for `etcd_server_healthcheck` and `etcd_server_healthchecks_total`.
    fn on_check(&self, family: CheckFamily, check: &'static str, passed: bool);
}
