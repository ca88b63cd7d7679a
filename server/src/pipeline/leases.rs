//! What net cores and the apply core say to each other about leases, beside the log.
//!
//! ```text
//! net ──Vec<LeaseAsk>──> apply ──ToNet::Leases──> net
//! ```
//!
//! Always true here: none of this becomes an entry; an ask is answered exactly once, unless the member ends; answers
//! carry back who asked, so the apply core keeps no table of calls.

use std::sync::Arc;

use storage::lease::LeaseId;
use wire::error::EtcdError;
use wire::grpc::StreamId;

use crate::auth::Identity;
use crate::net::ConnectionKey;

/// A call of one net core.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LeaseCaller {
    pub connection: ConnectionKey,
    pub stream: StreamId,
}

/// One question.
#[derive(Clone, Debug)]
pub struct LeaseAsk {
    pub caller: LeaseCaller,
    /// Who asks; nobody while authentication is off.
    pub who: Option<Identity>,
    pub what: LeaseWhat,
    /// Committed when it was asked: who must not miss a lease waits until this is applied.
    pub committed: u64,
}

#[derive(Clone, Copy, Debug)]
pub enum LeaseWhat {
    /// Renew; `place` counts the requests of the stream.
    KeepAlive {
        id: LeaseId,
        place: u64,
    },
    TimeToLive {
        id: LeaseId,
        with_keys: bool,
        started_ns: u64,
    },
    List {
        started_ns: u64,
    },
}

/// One answer.
#[derive(Debug)]
pub struct LeaseAnswer {
    pub caller: LeaseCaller,
    pub what: LeaseSaid,
}

#[derive(Debug)]
pub enum LeaseSaid {
    /// The whole time to live in seconds; 0 for a lease that does not exist.
    KeepAlive {
        place: u64,
        result: Result<i64, EtcdError>,
    },
    TimeToLive {
        id: LeaseId,
        started_ns: u64,
        /// `None`: there is no such lease.
        result: Result<Option<LeaseFound>, EtcdError>,
    },
    /// Every lease and when it ends, in no order.
    List {
        started_ns: u64,
        result: Result<Vec<(u64, LeaseId)>, EtcdError>,
    },
}

#[derive(Debug)]
pub struct LeaseFound {
    pub remaining_s: i64,
    pub granted_s: i64,
    pub keys: Vec<Arc<[u8]>>,
}
