//! gRPC counters by method and code.
//!
//! Always true here: every method of the table has its series from the start, but for the lock and
//! election services, whose series appear with their first call, as in etcd. A method is counted by its
//! position in the table. One set per core.

use std::time::Duration;

use wire::grpc::{CallKind, Code, MethodId};

use super::cells::{Counter, Histogram};
use crate::services::methods::{METHODS, Method};

/// Names of the status codes, by number.
pub const GRPC_CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

pub(super) static HANDLING_BOUNDS: [f64; 11] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// The `grpc_type` label.
pub(super) fn kind_text(kind: CallKind) -> &'static str {
    match kind {
        CallKind::Unary => "unary",
        CallKind::ServerStreaming => "server_stream",
        CallKind::ClientStreaming => "client_stream",
        CallKind::Bidi => "bidi_stream",
    }
}

pub(super) fn is_listed_at_start(method: &Method) -> bool {
    !matches!(method.service, "v3lockpb.Lock" | "v3electionpb.Election")
}

/// One core's gRPC counters, by the positions of [`METHODS`].
#[derive(Debug)]
pub struct GrpcCounters {
    pub(super) methods: Box<[MethodCounters]>,
}

#[derive(Debug)]
pub(super) struct MethodCounters {
    pub(super) started: Counter,
    pub(super) received: Counter,
    pub(super) sent: Counter,
    pub(super) handled: [Counter; GRPC_CODES.len()],
    /// With `--metrics=extensive` only.
    pub(super) handling: Option<Histogram>,
}

impl GrpcCounters {
    pub(super) fn new(extensive: bool) -> GrpcCounters {
        let method = |_: &Method| MethodCounters {
            started: Counter::default(),
            received: Counter::default(),
            sent: Counter::default(),
            handled: Default::default(),
            handling: extensive.then(|| Histogram::new(&HANDLING_BOUNDS)),
        };
        GrpcCounters {
            methods: METHODS.iter().map(method).collect(),
        }
    }

    /// A call began: it reached its service.
    pub fn started(&self, method: MethodId) {
        self.of(method).started.inc();
    }

    /// A whole message came in.
    pub fn received(&self, method: MethodId) {
        self.of(method).received.inc();
    }

    /// A whole message went out.
    pub fn sent(&self, method: MethodId) {
        self.of(method).sent.inc();
    }

    /// Whole messages went out.
    pub fn sent_many(&self, method: MethodId, count: u64) {
        self.of(method).sent.add(count);
    }

    /// A call ended with this code, this long after it began.
    pub fn handled(&self, method: MethodId, code: Code, took: Duration) {
        let method = self.of(method);
        method.handled[code as usize].inc();
        if let Some(histogram) = &method.handling {
            histogram.observe(took);
        }
    }

    /// Whether anybody will see how long calls took.
    pub fn is_timed(&self) -> bool {
        self.methods
            .first()
            .is_some_and(|method| method.handling.is_some())
    }

    fn of(&self, method: MethodId) -> &MethodCounters {
        &self.methods[usize::from(method.0)]
    }
}
