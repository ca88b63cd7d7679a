//! Calls: a complete message arrives, its service is found, and it is answered, proposed or parked.
//!
//! What a call means to the log is in [`super::writes`]. Always true here: everything in this file is
//! synchronous and short; nothing is allocated for a small read or write in steady state, except
//! the shared block that commands are encoded into.

use prost::Message;
use wire::error::EtcdError;
use wire::grpc::{
    Call, CallKind, CancelReason, Code, MethodId, PlainRequest, Responder, Route, Service, StreamId,
};
use wire::kv::{DecodeError, RangeRequestRef};
use wire::messages::{etcdserverpb, v3electionpb, v3lockpb};

use crate::kv::validate;
use crate::services::methods::{METHODS, id};
use crate::watch::StreamKey;

use crate::auth::Identity;
use crate::auth::gate::CommonName;

use super::connection::ConnectionKey;
use super::core::fail;
use super::health_calls::{health_check, health_list, health_watch};
use super::state::NetState;

/// What a call's handling came to.
pub(super) type Handled = Result<(), CallError>;

/// Why a call was answered with an error at once.
pub(super) enum CallError {
    Etcd(EtcdError),
    Decode(String),
    Status(Code, String),
}

/// How `prost` ends its words about a string that is none.
const NOT_UTF8: &str = "data is not UTF-8 encoded";

impl From<EtcdError> for CallError {
    fn from(error: EtcdError) -> CallError {
        CallError::Etcd(error)
    }
}

impl From<DecodeError> for CallError {
    fn from(error: DecodeError) -> CallError {
        if error == DecodeError::TooDeep {
            // So deep that the operations run out on the way.
            return CallError::Etcd(EtcdError::TooManyOps);
        }
        CallError::Decode(error.to_string())
    }
}

impl From<prost::DecodeError> for CallError {
    fn from(error: prost::DecodeError) -> CallError {
        // The words of Go's protobuf, which tells no more than these two apart.
        let text = if error.to_string().ends_with(NOT_UTF8) {
            "string field contains invalid UTF-8"
        } else {
            "proto: cannot parse invalid wire-format data"
        };
        CallError::Decode(text.to_owned())
    }
}

/// The calls of one connection, as the protocol engine sees them.
pub struct Calls<'a> {
    pub state: &'a mut NetState,
    pub connection: ConnectionKey,
    /// Of the client's certificate.
    pub common_name: &'a CommonName,
    /// Steps of an errand are its caller's; `None` for calls that come from clients.
    pub acts_for: Option<&'a Option<Identity>>,
}

impl Service for Calls<'_> {
    fn route(&mut self, path: &[u8]) -> Route {
        if self.state.serves.has_grpc() {
            self.state.router.route(path)
        } else {
            Route::UnknownService
        }
    }

    fn on_message(&mut self, call: &Call<'_>, message: &[u8], out: &mut Responder<'_>) {
        if call.method == id::LEASE_LEASE_KEEP_ALIVE {
            return self.on_keep_alive(call, message, out);
        }
        let metrics = &self.state.metrics;
        metrics.grpc.received(call.method);
        let received = &metrics.counters.client_grpc_received_bytes;
        received.add(message.len() as u64);
        // Each message begins a call, but for the later ones of a stream.
        let begun = match self.is_watching(call) {
            true => Ok(()),
            false => self.begin(call),
        };
        if let Err(error) = begun.and_then(|()| self.handle(call, message, out)) {
            if matches!(error, CallError::Etcd(EtcdError::RequestTooLarge)) {
                self.proposal_refused(call);
            }
            answer_error(call.stream, self.worded(call.method, error), out);
        }
    }

    fn on_half_close(&mut self, call: &Call<'_>, out: &mut Responder<'_>) {
        // Only calls with a stream of requests come here.
        let ended = match call.method {
            id::LEASE_LEASE_KEEP_ALIVE => return self.on_keep_alives_end(call, out),
            id::WATCH_WATCH => self.watch_half_closed(call, out),
            _ => self
                .begin(call)
                .map(|()| self.refuse(call.method, call.stream, out)),
        };
        if let Err(CallError::Etcd(error)) = ended {
            fail(out, call.stream, error);
        }
    }

    fn answers_plain(&self) -> bool {
        self.state.serves.has_http()
    }

    fn on_plain(&mut self, request: &PlainRequest<'_>, out: &mut Responder<'_>) {
        self.take_plain(request, out);
    }

    fn on_cancel(&mut self, stream: StreamId, method: MethodId, reason: CancelReason) {
        match method {
            id::LEASE_LEASE_KEEP_ALIVE => self.on_keep_alives_cancelled(stream, reason),
            id::WATCH_WATCH => {
                let connection = self.connection;
                self.watch_over(StreamKey { connection, stream }, reason);
            }
            id::MAINTENANCE_HASH | id::MAINTENANCE_SNAPSHOT => {
                let connection = self.connection;
                self.state.backups.cancel(StreamKey { connection, stream });
            }
            id::MAINTENANCE_DOWNGRADE
            | id::LOCK_LOCK
            | id::LOCK_UNLOCK
            | id::ELECTION_CAMPAIGN
            | id::ELECTION_PROCLAIM
            | id::ELECTION_LEADER
            | id::ELECTION_OBSERVE
            | id::ELECTION_RESIGN => {
                let connection = self.connection;
                self.state
                    .errands
                    .table
                    .cancel(StreamKey { connection, stream });
            }
            id::AUTH_AUTHENTICATE | id::AUTH_USER_ADD | id::AUTH_USER_CHANGE_PASSWORD => {
                self.state.auth_calls.remove(self.connection, stream);
            }
            _ => {}
        }
        // A proposal that is under way is carried out all the same; its reply finds no call.
    }
}

pub(super) fn answer_error(stream: StreamId, error: CallError, out: &mut Responder<'_>) {
    match error {
        CallError::Etcd(error) => fail(out, stream, error),
        CallError::Decode(text) => out.error(
            stream,
            Code::Internal,
            &format!("grpc: failed to unmarshal the received message: {text}"),
        ),
        CallError::Status(code, text) => out.error(stream, code, &text),
    }
}

/// Methods of the Auth service, which lie side by side.
fn is_auth(method: MethodId) -> bool {
    (id::AUTH_AUTH_ENABLE.0..=id::AUTH_ROLE_REVOKE_PERMISSION.0).contains(&method.0)
}

impl Calls<'_> {
    /// gRPC for Go has words of its own for a unary request that cannot be read.
    fn worded(&self, method: MethodId, error: CallError) -> CallError {
        match error {
            CallError::Decode(text) if METHODS[usize::from(method.0)].kind == CallKind::Unary => {
                let text = format!("grpc: error unmarshalling request: {text}");
                CallError::Status(Code::Internal, text)
            }
            error => error,
        }
    }

    /// A call reached its service: what etcd's interceptors ask.
    pub(super) fn begin(&mut self, call: &Call<'_>) -> Handled {
        self.state.books.began(call)?;
        Ok(self.check_leader(call)?)
    }

    /// A client may want an answer only from a member that knows a leader.
    pub(super) fn check_leader(&self, call: &Call<'_>) -> Result<(), EtcdError> {
        let wants_leader = call.metadata.get(b"hasleader") == Some(b"true");
        if wants_leader && self.state.shared.leader() == 0 {
            return Err(EtcdError::NoLeader);
        }
        Ok(())
    }

    fn handle(&mut self, call: &Call<'_>, message: &[u8], out: &mut Responder<'_>) -> Handled {
        match call.method {
            id::KV_RANGE => self.range(call, message, out),
            id::KV_PUT => self.put(call, message),
            id::KV_DELETE_RANGE => self.delete_range(call, message),
            id::KV_TXN => self.txn(call, message, out),
            id::KV_COMPACT => self.compact(call, message),
            id::KV_RANGE_STREAM => self.range_stream(call, message, out),
            id::LEASE_LEASE_GRANT => self.lease_grant(call, message),
            id::LEASE_LEASE_REVOKE => self.lease_revoke(call, message),
            id::LEASE_LEASE_TIME_TO_LIVE => self.lease_time_to_live(call, message),
            id::LEASE_LEASE_LEASES => self.lease_leases(call, message),
            id::MAINTENANCE_STATUS => self.status(call, message, out),
            id::WATCH_WATCH => self.watch(call, message, out),
            id::MAINTENANCE_ALARM => self.alarm(call, message, out),
            id::MAINTENANCE_MOVE_LEADER => self.move_leader(call, message, out),
            id::MAINTENANCE_DOWNGRADE => {
                etcdserverpb::DowngradeRequest::decode(message)?;
                self.require_root(call)?;
                self.begin_errand(call, message)
            }
            id::MAINTENANCE_HASH => self.hash(call, message),
            id::MAINTENANCE_SNAPSHOT => self.snapshot(call, message),
            id::MAINTENANCE_DEFRAGMENT => self.defragment(call, message),
            id::MAINTENANCE_HASH_KV => {
                etcdserverpb::HashKvRequest::decode(message)?;
                self.require_root(call)?;
                self.read(call, message, true, out)
            }
            id::CLUSTER_MEMBER_LIST => self.member_list(call, message, out),
            id::CLUSTER_MEMBER_UPDATE => self.member_update(call, message),
            id::CLUSTER_MEMBER_ADD => self.member_add(call, message, out),
            id::CLUSTER_MEMBER_REMOVE => self.member_remove(call, message),
            id::CLUSTER_MEMBER_PROMOTE => self.member_promote(call, message),
            id::LOCK_LOCK => {
                v3lockpb::LockRequest::decode(message)?;
                self.begin_errand(call, message)
            }
            id::LOCK_UNLOCK => {
                v3lockpb::UnlockRequest::decode(message)?;
                self.begin_errand(call, message)
            }
            id::ELECTION_CAMPAIGN => {
                v3electionpb::CampaignRequest::decode(message)?;
                self.begin_errand(call, message)
            }
            id::ELECTION_PROCLAIM => {
                v3electionpb::ProclaimRequest::decode(message)?;
                self.begin_errand(call, message)
            }
            id::ELECTION_LEADER | id::ELECTION_OBSERVE => {
                v3electionpb::LeaderRequest::decode(message)?;
                self.begin_errand(call, message)
            }
            id::ELECTION_RESIGN => {
                v3electionpb::ResignRequest::decode(message)?;
                self.begin_errand(call, message)
            }
            id::HEALTH_CHECK => health_check(call, message, out),
            id::HEALTH_LIST => health_list(call, message, out),
            id::HEALTH_WATCH => {
                health_watch(call, message, out)?;
                self.state.books.sent(call.method);
                Ok(())
            }
            method if is_auth(method) => self.auth(call, message),
            _ => {
                self.refuse(call.method, call.stream, out);
                Ok(())
            }
        }
    }

    pub(super) fn refuse(&self, method: MethodId, stream: StreamId, out: &mut Responder<'_>) {
        let method = &METHODS[usize::from(method.0)];
        let instead = match method.name {
            "MemberAdd" => "; a cluster has one member yet",
            _ => "",
        };
        let text = format!(
            "pilaster: {}/{} is not served by this version{instead}",
            method.service, method.name
        );
        out.error(stream, Code::Unimplemented, &text);
    }

    fn range(&mut self, call: &Call<'_>, message: &[u8], out: &mut Responder<'_>) -> Handled {
        let request = RangeRequestRef::decode(message)?;
        validate::check_range(&request)?;
        self.read(call, message, request.serializable, out)
    }

    fn range_stream(
        &mut self,
        call: &Call<'_>,
        message: &[u8],
        out: &mut Responder<'_>,
    ) -> Handled {
        let request = RangeRequestRef::decode(message)?;
        validate::check_range_stream(&request)?;
        self.read(call, message, request.serializable, out)
    }

    /// Serves a read now or parks it until it may be linearized.
    pub(super) fn read(
        &mut self,
        call: &Call<'_>,
        message: &[u8],
        is_serializable: bool,
        out: &mut Responder<'_>,
    ) -> Handled {
        let who = self.identify(call)?;
        if is_serializable {
            let read = (self.connection, call.stream, call.method);
            let now_ns = self.state.now_ns;
            self.state
                .serve_read(read, now_ns, who.as_ref(), message, out);
            return Ok(());
        }
        let state = &mut *self.state;
        if !state.reads.has_room(message.len()) {
            return Err(EtcdError::TooManyRequests.into());
        }
        state.reads.add(
            self.connection,
            call.stream,
            call.method,
            message,
            state.now_ns,
            who,
        );
        Ok(())
    }
}
