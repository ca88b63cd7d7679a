//! What becomes of calls, counted: by method and code at once, how long they took once a pass.
//!
//! Always true here: what clients saw (codes, messages) is counted from what the protocol engine lists;
//! what the member did (requests, reads, writes) also for clients that have gone. Times cost one look at the clock for each pass, at its end, so a
//! call's time includes the answering of all calls of its pass; a small read's time inside the store is
//! its pass's, divided by the reads of the pass. A read that leaves its pass is timed by itself.
//!
//! Runs on a net core. Does not decide what a call's answer is.

use std::rc::Rc;
use std::time::Duration;

use wire::error::EtcdError;
use wire::grpc::stats::EndedCall;
use wire::grpc::{Call, CallKind, MethodId};
use wire::kv::{RangeRequestRef, TxnRequestRef};

use crate::metrics::{CoreMetrics, RequestType, Stage};
use crate::services::methods::{METHODS, id};

use super::connection::ConnectionKey;

/// The metadata in which etcd's clients tell their version.
const CLIENT_VERSION: &[u8] = b"client-api-version";

/// What a call came to, as the histograms tell calls apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Work {
    /// It needed neither the store nor the log, or was refused before it came there.
    Other,
    /// A small read; a long one speaks for itself.
    Read {
        success: bool,
    },
    LongRead {
        success: bool,
    },
    /// A proposal; it succeeds when it was applied, whatever came of that, as in etcd.
    Write {
        success: bool,
    },
}

/// A call that was answered in this pass.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    pub connection: ConnectionKey,
    pub method: MethodId,
    pub work: Work,
    pub started_ns: u64,
}

/// A call that took longer than the operator wants.
pub struct Slow {
    pub ended: Ended,
    pub took: Duration,
}

pub struct Books {
    metrics: Rc<CoreMetrics>,
    ended: Vec<Ended>,
    /// Small ranges of this pass, streamed ones too, failed and good.
    ranges: [u32; 2],
    slow: Vec<Slow>,
}

/// Slow calls noted in one pass; more are not logged (the log would thin them anyway).
const SLOW_MAX: usize = 64;

impl Books {
    pub fn new(metrics: Rc<CoreMetrics>) -> Books {
        Books {
            metrics,
            ended: Vec::new(),
            ranges: [0; 2],
            slow: Vec::new(),
        }
    }

    /// A call's first message (or its end without one) reached the service.
    pub fn began(&self, call: &Call<'_>) -> Result<(), EtcdError> {
        self.metrics.grpc.started(call.method);
        let version = call.metadata.get(CLIENT_VERSION);
        let Some(version) = self.metrics.client_version(version) else {
            return Err(EtcdError::InvalidClientApiVersion);
        };
        self.metrics
            .client_request(version, call.kind != CallKind::Unary);
        Ok(())
    }

    /// A message of a stream went out.
    pub fn sent(&self, method: MethodId) {
        self.metrics.grpc.sent(method);
    }

    /// A call is over for its client.
    pub fn call_ended(&self, call: &EndedCall, now_ns: u64) {
        let grpc = &self.metrics.grpc;
        let took = Duration::from_nanos(now_ns.saturating_sub(call.started_ns));
        grpc.handled(call.method, call.code, took);
        if METHODS[usize::from(call.method.0)].kind == CallKind::Unary {
            // Also an error, as etcd's interceptor counts it.
            grpc.sent(call.method);
        }
    }

    /// A request was carried out, or failed at it.
    pub fn ended(&mut self, ended: Ended) {
        if matches!(ended.method, id::KV_RANGE | id::KV_RANGE_STREAM)
            && let Work::Read { success } = ended.work
        {
            self.ranges[usize::from(success)] += 1;
        }
        self.ended.push(ended);
    }

    /// A long range ended; `ranges` is how many of etcd's it was, as each part of a stream is one there.
    pub fn long_range(&self, success: bool, took: Duration, ranges: u64) {
        let ranges = u32::try_from(ranges).unwrap_or(u32::MAX).max(1);
        for _ in 0..ranges {
            self.metrics.ranged(success, took / ranges);
        }
    }

    pub fn is_settled(&self) -> bool {
        self.ended.is_empty()
    }

    /// Books the times of the pass that began at `began_ns` and ends now, and returns the calls that
    /// took longer than `slow_after`.
    pub fn settle(
        &mut self,
        began_ns: u64,
        now_ns: u64,
        slow_after: Duration,
    ) -> std::vec::Drain<'_, Slow> {
        self.settle_ranges(now_ns.saturating_sub(began_ns));
        for ended in self.ended.drain(..) {
            let took = Duration::from_nanos(now_ns.saturating_sub(ended.started_ns));
            let stage = match ended.work {
                Work::Other => None,
                Work::Read { .. } | Work::LongRead { .. } => Some(Stage::Read),
                Work::Write { .. } => Some(Stage::Write),
            };
            if let Some(stage) = stage {
                self.metrics.stage(stage, took);
            }
            if ended.method == id::MAINTENANCE_HASH_KV
                && matches!(ended.work, Work::Read { success: true })
            {
                self.metrics.histograms.mvcc_hash_rev.observe(took);
            }
            if let Some((kind, success)) = request_type(ended.method, ended.work) {
                self.metrics.answered(kind, success, took);
            }
            if took > slow_after && self.slow.len() < SLOW_MAX {
                self.slow.push(Slow { ended, took });
            }
        }
        self.slow.drain(..)
    }

    fn settle_ranges(&mut self, pass_ns: u64) {
        let ranges = std::mem::take(&mut self.ranges);
        let all = ranges[0] + ranges[1];
        if all == 0 {
            return;
        }
        let each = Duration::from_nanos(pass_ns / u64::from(all));
        for (success, count) in [false, true].into_iter().zip(ranges) {
            for _ in 0..count {
                self.metrics.ranged(success, each);
            }
        }
    }
}

/// Its `type` in etcd's request histogram, and whether it succeeded there.
fn request_type(method: MethodId, work: Work) -> Option<(RequestType, bool)> {
    match work {
        Work::Other => None,
        Work::Read { success } | Work::LongRead { success } => match method {
            id::KV_RANGE => Some((RequestType::Range, success)),
            id::KV_TXN => Some((RequestType::ReadonlyTxn, success)),
            _ => None,
        },
        Work::Write { success } => {
            let kind = match method {
                id::KV_PUT => RequestType::Put,
                id::KV_DELETE_RANGE => RequestType::DeleteRange,
                id::KV_TXN => RequestType::Txn,
                id::KV_COMPACT => RequestType::Compaction,
                id::LEASE_LEASE_GRANT => RequestType::LeaseGrant,
                id::LEASE_LEASE_REVOKE => RequestType::LeaseRevoke,
                id::MAINTENANCE_ALARM => RequestType::Alarm,
                id::AUTH_AUTH_ENABLE => RequestType::AuthEnable,
                id::AUTH_AUTH_DISABLE => RequestType::AuthDisable,
                id::AUTH_AUTH_STATUS => RequestType::AuthStatus,
                id::AUTH_AUTHENTICATE => RequestType::Authenticate,
                id::AUTH_USER_ADD => RequestType::AuthUserAdd,
                id::AUTH_USER_GET => RequestType::AuthUserGet,
                id::AUTH_USER_LIST => RequestType::AuthUserList,
                id::AUTH_USER_DELETE => RequestType::AuthUserDelete,
                id::AUTH_USER_CHANGE_PASSWORD => RequestType::AuthUserChangePassword,
                id::AUTH_USER_GRANT_ROLE => RequestType::AuthUserGrantRole,
                id::AUTH_USER_REVOKE_ROLE => RequestType::AuthUserRevokeRole,
                id::AUTH_ROLE_ADD => RequestType::AuthRoleAdd,
                id::AUTH_ROLE_GET => RequestType::AuthRoleGet,
                id::AUTH_ROLE_LIST => RequestType::AuthRoleList,
                id::AUTH_ROLE_DELETE => RequestType::AuthRoleDelete,
                id::AUTH_ROLE_GRANT_PERMISSION => RequestType::AuthRoleGrantPermission,
                id::AUTH_ROLE_REVOKE_PERMISSION => RequestType::AuthRoleRevokePermission,
                id::MAINTENANCE_DOWNGRADE => RequestType::DowngradeInfoSet,
                // A change of members is no request to etcd's books.
                id::CLUSTER_MEMBER_UPDATE => return None,
                _ => RequestType::Unknown,
            };
            Some((kind, success))
        }
    }
}

/// Etcd's word for a slow read in its log line.
pub fn read_prefix(method: MethodId) -> Option<&'static str> {
    match method {
        id::KV_RANGE | id::KV_RANGE_STREAM => Some("read-only range "),
        id::KV_TXN => Some("read-only txn "),
        _ => None,
    }
}

/// A read for the log, without the values it may hold.
pub fn describe_read(method: MethodId, request: &[u8]) -> String {
    match method {
        id::KV_TXN => match TxnRequestRef::decode(request) {
            Ok(txn) => {
                let lens = txn.lens();
                format!(
                    "success:{} failure:{} operations",
                    lens.success, lens.failure
                )
            }
            Err(error) => error.to_string(),
        },
        _ => match RangeRequestRef::decode(request) {
            Ok(range) => format!(
                "key:\"{}\" range_end:\"{}\" limit:{} revision:{}",
                range.key.escape_ascii(),
                range.range_end.escape_ascii(),
                range.limit,
                range.revision
            ),
            Err(error) => error.to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{MemberInfo, Metrics, Published};
    use wire::grpc::Code;

    fn metrics() -> std::sync::Arc<Metrics> {
        let empty = String::new;
        let info = MemberInfo {
            server_version: empty(),
            cluster_version: empty(),
            server_id: empty(),
            runtime_version: empty(),
            features: Default::default(),
        };
        Metrics::new(info, true)
    }

    fn ended(method: MethodId, work: Work, started_ns: u64) -> Ended {
        Ended {
            connection: ConnectionKey::default(),
            method,
            work,
            started_ns,
        }
    }

    #[test]
    fn calls_are_counted_at_once_and_timed_at_the_end_of_the_pass() {
        let metrics = metrics();
        let core = Rc::new(metrics.join("0"));
        let mut books = Books::new(core.clone());
        for (method, work, started_ns) in [
            (id::KV_PUT, Work::Write { success: true }, 1_000_000),
            (id::KV_RANGE, Work::Read { success: true }, 3_000_000),
            (id::KV_RANGE, Work::Read { success: false }, 0),
        ] {
            books.ended(ended(method, work, started_ns));
        }
        let (method, code) = (id::KV_TXN, Code::Canceled);
        books.call_ended(
            &EndedCall {
                method,
                code,
                started_ns: 0,
            },
            7_000_000,
        );
        let slow: Vec<u64> = books
            .settle(4_000_000, 6_000_000, Duration::from_millis(4))
            .map(|slow| slow.took.as_nanos() as u64)
            .collect();
        assert_eq!(slow, [5_000_000, 6_000_000]);
        assert!(books.is_settled());
        core.publish(Published::default());
        let text = metrics.encode();
        for line in [
            "etcd_server_request_duration_seconds_sum{success=\"true\",type=\"Put\"} 0.005",
            "etcd_server_request_duration_seconds_sum{success=\"true\",type=\"Range\"} 0.003",
            "etcd_server_request_duration_seconds_count{success=\"false\",type=\"Range\"} 1",
            "etcd_server_range_duration_seconds_sum{success=\"true\"} 0.001",
            "pilaster_stage_duration_seconds_count{core=\"0\",stage=\"read\"} 2",
            "pilaster_stage_duration_seconds_count{core=\"0\",stage=\"write\"} 1",
            "grpc_server_handled_total{grpc_code=\"Canceled\",grpc_method=\"Txn\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"} 1",
            "grpc_server_msg_sent_total{grpc_method=\"Txn\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"} 1",
            "grpc_server_handling_seconds_count{grpc_method=\"Txn\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"} 1",
        ] {
            assert!(text.contains(&format!("\n{line}\n")), "{line}");
        }
    }
}
