//! Calls: a complete message arrives, its service is found, and it is answered, proposed or parked.
//!
//! The order of a write's checks is etcd's: leader, quota, arguments, queue length, size. Always true
//! here: everything in this file is synchronous and short; a range that is not done after one slice
//! leaves as a [`LongRead`]; nothing is allocated for a small read or write in steady state, except
//! the shared block that commands are encoded into.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use prost::Message;
use storage::command::{Body, Command, CommandArena, Header};
use storage::mvcc::Reader;
use storage::tree::Snapshot;
use wire::error::EtcdError;
use wire::grpc::{Call, CancelReason, Code, MethodId, Responder, Route, Service, StreamId};
use wire::kv::{
    CompactionRequestRef, DecodeError, DeleteRangeRequestRef, PutRequestRef, RangeRequestRef,
    RequestEnvelope, ResponseHeader, TxnRequestRef, etcd_request_bytes,
};
use wire::messages::etcdserverpb::{self, AlarmRequest};
use wire::messages::grpc::health::v1 as health;

use crate::kv::command::{TxnTables, delete_range_body, put_body};
use crate::kv::{quota, validate};
use crate::metrics::CoreMetrics;
use crate::pipeline::{NetId, Reply, ReplyBatch, RequestId, Shared, ToLog, Watcher};
use crate::services::methods::{METHODS, Router, id};
use crate::services::status;

use super::books::{Books, Ended, Work};
use super::connection::ConnectionKey;
use super::core::fail;
use super::long_reads::{LONG_READ_BYTES_MAX, LONG_READS_MAX, LongRead, ReadJob, ReadOutcome};
use super::proposals::{Pending, Proposals};
use super::reads::{ReadBatch, Reads};

/// etcd's bound on entries committed and not yet applied; above it writes are refused.
const APPLY_GAP_MAX: u64 = 5000;

/// What the configuration says about calls.
#[derive(Clone, Debug)]
pub struct CallSettings {
    pub request_timeout_ns: u64,
    pub request_bytes_max: usize,
    /// Largest command that the log takes.
    pub entry_bytes_max: usize,
    pub txn_ops_max: usize,
    /// `None`: no quota.
    pub quota_bytes: Option<u64>,
    /// What Status shows.
    pub quota_shown: i64,
    /// Reads slower than this are logged.
    pub warning_apply: Duration,
    /// Unary calls slower than this are logged.
    pub warning_unary: Duration,
}

/// A net core's state behind its connections.
pub struct NetState {
    pub id: NetId,
    /// Of the pass that is running.
    pub now_ns: u64,
    pub shared: Arc<Shared>,
    pub settings: Rc<CallSettings>,
    pub proposals: Proposals,
    pub reads: Reads,
    pub to_log: Watcher<ToLog>,
    pub to_apply: Watcher<ReplyBatch>,
    pub reader: Reader<Snapshot>,
    /// Begun in this pass, for the background task to take.
    pub long_reads: Vec<LongRead>,
    pub long_reads_running: usize,
    /// What their replies hold so far.
    pub long_read_bytes: usize,
    arena: CommandArena,
    tables: TxnTables,
    router: Router,
    pub metrics: Rc<CoreMetrics>,
    pub books: Books,
    job: ReadJob,
    scratch: Vec<u8>,
}

impl NetState {
    pub fn new(
        id: NetId,
        shared: Arc<Shared>,
        settings: CallSettings,
        to_log: Watcher<ToLog>,
        to_apply: Watcher<ReplyBatch>,
        reader: Reader<Snapshot>,
        metrics: Rc<CoreMetrics>,
    ) -> NetState {
        NetState {
            id,
            now_ns: 0,
            shared,
            settings: Rc::new(settings),
            proposals: Proposals::default(),
            reads: Reads::default(),
            to_log,
            to_apply,
            reader,
            long_reads: Vec::new(),
            long_reads_running: 0,
            long_read_bytes: 0,
            arena: CommandArena::default(),
            tables: TxnTables::default(),
            router: Router::new(),
            books: Books::new(metrics.clone()),
            metrics,
            job: ReadJob::default(),
            scratch: Vec::new(),
        }
    }

    /// Asks for the reads that gathered in this pass and wakes the log core for what was pushed.
    pub fn end_pass(&mut self) {
        let deadline_ns = self.now_ns + self.settings.request_timeout_ns;
        if let Some(context) = self.reads.ask(deadline_ns)
            && self
                .to_log
                .push(ToLog::ReadIndex {
                    net: self.id,
                    context,
                })
                .is_err()
        {
            self.reads.unask();
        }
        self.to_log.flush();
        self.metrics
            .proposals_pending
            .set(self.proposals.waiting() as i64);
    }

    pub fn on_read_index(&mut self, context: u64, index: u64) {
        self.reads.confirm(context, index);
        self.end_pass();
    }

    /// Who waits for this reply.
    pub fn on_reply(&mut self, reply: &Reply) -> Option<Pending> {
        let is_ours = reply.id.life() == self.shared.life && reply.id.net() == self.id;
        is_ours
            .then(|| self.proposals.take(reply.id.sequence()))
            .flatten()
    }

    /// Gives a batch's memory back to the apply core.
    pub fn recycle(&mut self, mut batch: ReplyBatch) {
        batch.bytes.clear();
        batch.replies.clear();
        // A full ring only means that enough memory is on its way back already.
        let _ = self.to_apply.push(batch);
    }

    pub fn header(&self) -> ResponseHeader {
        ResponseHeader {
            cluster_id: self.shared.cluster_id,
            member_id: self.shared.member_id,
            revision: self.reader.revision(),
            raft_term: self.shared.term(),
        }
    }

    /// Answers a read whose time has come.
    pub fn serve_read(
        &mut self,
        (connection, stream, method): (ConnectionKey, StreamId, MethodId),
        started_ns: u64,
        request: &[u8],
        out: &mut Responder<'_>,
    ) {
        let ended = |work| Ended {
            connection,
            method,
            work,
            started_ns,
        };
        if method == id::CLUSTER_MEMBER_LIST {
            let cluster = self.shared.cluster.load();
            out.unary(stream, |buffer| {
                status::put_member_list(buffer, &self.shared, &cluster);
            });
            return self.books.ended(ended(Work::Other));
        }
        self.scratch.clear();
        let header = self.header();
        let begun = self
            .job
            .begin(method, request, &self.reader, &header, &mut self.scratch);
        let outcome = begun.and_then(|()| self.job.step(&self.reader, &mut self.scratch));
        match outcome {
            Ok(ReadOutcome::Done) => {
                let reply = &self.scratch;
                out.unary(stream, |buffer| buffer.extend_from_slice(reply));
                self.books.ended(ended(Work::Read { success: true }));
                self.job.count(&self.metrics);
            }
            Ok(ReadOutcome::LastMessage) => {
                let reply = &self.scratch;
                out.message(stream, |buffer| buffer.extend_from_slice(reply));
                out.finish(stream, Code::Ok, "");
                self.books.sent(method);
                self.books.ended(ended(Work::Read { success: true }));
                self.job.count(&self.metrics);
            }
            Ok(outcome)
                if self.long_reads_running < LONG_READS_MAX
                    && self.long_read_bytes < LONG_READ_BYTES_MAX =>
            {
                if outcome == ReadOutcome::Message {
                    let reply = &self.scratch;
                    out.message(stream, |buffer| buffer.extend_from_slice(reply));
                    self.books.sent(method);
                    self.scratch.clear();
                }
                self.long_reads_running += 1;
                self.long_reads.push(LongRead {
                    connection,
                    stream,
                    method,
                    started_ns,
                    begun_ns: self.now_ns,
                    request: request.into(),
                    job: std::mem::take(&mut self.job),
                    reply: std::mem::take(&mut self.scratch),
                });
            }
            Ok(_) => fail(out, stream, EtcdError::TooManyRequests),
            Err(error) => {
                fail(out, stream, error);
                self.books.ended(ended(Work::Read { success: false }));
                self.job.count(&self.metrics);
            }
        }
    }

    /// Takes the oldest reads whose index is applied.
    pub fn take_ready_reads(&mut self) -> Option<ReadBatch> {
        self.reads.take_ready(self.shared.applied())
    }
}

/// What a call's handling came to.
type Handled = Result<(), CallError>;

/// Why a call was answered with an error at once.
enum CallError {
    Etcd(EtcdError),
    Decode(String),
    Status(Code, String),
}

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
        CallError::Decode(error.to_string())
    }
}

/// The calls of one connection, as the protocol engine sees them.
pub struct Calls<'a> {
    pub state: &'a mut NetState,
    pub connection: ConnectionKey,
}

impl Service for Calls<'_> {
    fn route(&mut self, path: &[u8]) -> Route {
        self.state.router.route(path)
    }

    fn on_message(&mut self, call: &Call<'_>, message: &[u8], out: &mut Responder<'_>) {
        // Streams of requests are refused at their first message, so each message begins a call.
        let metrics = &self.state.metrics;
        metrics.grpc.received(call.method);
        let received = &metrics.counters.client_grpc_received_bytes;
        received.add(message.len() as u64);
        let begun = self.state.books.began(call).map_err(CallError::from);
        match begun.and_then(|()| self.handle(call, message, out)) {
            Ok(()) => {}
            Err(CallError::Etcd(error)) => {
                fail(out, call.stream, error);
                if error == EtcdError::RequestTooLarge {
                    self.proposal_refused(call);
                }
            }
            Err(CallError::Decode(text)) => out.error(
                call.stream,
                Code::Internal,
                &format!("grpc: failed to unmarshal the received message: {text}"),
            ),
            Err(CallError::Status(code, text)) => out.error(call.stream, code, &text),
        }
    }

    fn on_half_close(&mut self, call: &Call<'_>, out: &mut Responder<'_>) {
        // Only streaming calls come here, and none of theirs is served yet.
        match self.state.books.began(call) {
            Ok(()) => self.refuse(call.method, call.stream, out),
            Err(error) => fail(out, call.stream, error),
        }
    }

    fn on_cancel(&mut self, _: StreamId, _: MethodId, _: CancelReason) {
        // A proposal that is under way is carried out all the same; its reply finds no call.
    }
}

impl Calls<'_> {
    fn handle(&mut self, call: &Call<'_>, message: &[u8], out: &mut Responder<'_>) -> Handled {
        if self.state.shared.leader() == 0 && call.metadata.get(b"hasleader") == Some(b"true") {
            return Err(EtcdError::NoLeader.into());
        }
        match call.method {
            id::KV_RANGE => self.range(call, message, out),
            id::KV_PUT => self.put(call, message),
            id::KV_DELETE_RANGE => self.delete_range(call, message),
            id::KV_TXN => self.txn(call, message, out),
            id::KV_COMPACT => self.compact(call, message),
            id::KV_RANGE_STREAM => self.range_stream(call, message, out),
            id::MAINTENANCE_STATUS => {
                etcdserverpb::StatusRequest::decode(message)?;
                let revision = self.state.reader.revision();
                let (shared, quota) = (&self.state.shared, self.state.settings.quota_shown);
                out.unary(call.stream, |buffer| {
                    status::put_status(buffer, shared, revision, quota);
                });
                Ok(())
            }
            id::MAINTENANCE_ALARM => self.alarm(call, message),
            id::MAINTENANCE_HASH_KV => {
                etcdserverpb::HashKvRequest::decode(message)?;
                self.read(call, message, true, out)
            }
            id::CLUSTER_MEMBER_LIST => self.member_list(call, message, out),
            id::HEALTH_CHECK => health_check(call, message, out),
            id::HEALTH_LIST => health_list(call, message, out),
            id::HEALTH_WATCH => {
                health_watch(call, message, out)?;
                self.state.books.sent(call.method);
                Ok(())
            }
            _ => {
                self.refuse(call.method, call.stream, out);
                Ok(())
            }
        }
    }

    /// A write failed before it was a proposal, where etcd counts it already.
    fn proposal_refused(&mut self, call: &Call<'_>) {
        self.state.books.ended(Ended {
            connection: self.connection,
            method: call.method,
            work: Work::Write { success: false },
            started_ns: self.state.now_ns,
        });
    }

    fn refuse(&self, method: MethodId, stream: StreamId, out: &mut Responder<'_>) {
        let method = &METHODS[usize::from(method.0)];
        let text = format!(
            "pilaster: {}/{} is not served by this version",
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
    fn read(
        &mut self,
        call: &Call<'_>,
        message: &[u8],
        is_serializable: bool,
        out: &mut Responder<'_>,
    ) -> Handled {
        if is_serializable {
            let read = (self.connection, call.stream, call.method);
            self.state.serve_read(read, self.state.now_ns, message, out);
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
        );
        Ok(())
    }

    fn put(&mut self, call: &Call<'_>, message: &[u8]) -> Handled {
        let request = PutRequestRef::decode(message)?;
        if !self.has_space(quota::put_cost(&request)) {
            return self.raise_no_space(call);
        }
        validate::check_put(&request)?;
        let envelope = RequestEnvelope::Put(&request);
        self.propose(call, put_body(&request), envelope)
    }

    fn delete_range(&mut self, call: &Call<'_>, message: &[u8]) -> Handled {
        let request = DeleteRangeRequestRef::decode(message)?;
        validate::check_delete_range(&request)?;
        let envelope = RequestEnvelope::DeleteRange(&request);
        self.propose(call, delete_range_body(&request), envelope)
    }

    fn txn(&mut self, call: &Call<'_>, message: &[u8], out: &mut Responder<'_>) -> Handled {
        let request = TxnRequestRef::decode(message)?;
        if !self.has_space(quota::txn_cost(&request)) {
            return self.raise_no_space(call);
        }
        validate::check_txn(&request, self.state.settings.txn_ops_max)?;
        if validate::is_readonly(&request) {
            return self.read(call, message, validate::is_serializable(&request), out);
        }
        let envelope = RequestEnvelope::Txn(&request);
        let mut tables = std::mem::take(&mut self.state.tables);
        let handled = tables.with_txn(&request, |txn| self.propose(call, Body::Txn(txn), envelope));
        self.state.tables = tables;
        handled
    }

    fn compact(&mut self, call: &Call<'_>, message: &[u8]) -> Handled {
        let request = CompactionRequestRef::decode(message)?;
        let body = Body::Compact(storage::command::Compact {
            revision: request.revision,
            physical: request.physical,
        });
        self.propose(call, body, RequestEnvelope::Compaction(&request))?;
        if request.physical {
            // As in etcd, consensus has its time limit and the work behind it has none.
            self.state.proposals.lift_deadline();
        }
        Ok(())
    }

    fn alarm(&mut self, call: &Call<'_>, message: &[u8]) -> Handled {
        let request = AlarmRequest::decode(message)?;
        let body = Body::Alarm(storage::command::Alarm {
            member_id: request.member_id,
            action: request.action,
            alarm: request.alarm,
        });
        self.propose(call, body, alarm_envelope(message.len()))
    }

    fn member_list(&mut self, call: &Call<'_>, message: &[u8], out: &mut Responder<'_>) -> Handled {
        let request = etcdserverpb::MemberListRequest::decode(message)?;
        self.read(call, message, !request.linearizable, out)
    }

    fn has_space(&self, cost: usize) -> bool {
        let Some(quota) = self.state.settings.quota_bytes else {
            return true;
        };
        cost == 0 || (self.state.shared.tree_bytes() as u64).saturating_add(cost as u64) < quota
    }

    /// Raises the alarm, unless it is up, and answers the call once it is.
    fn raise_no_space(&mut self, call: &Call<'_>) -> Handled {
        let state = &self.state;
        let member_id = state.shared.member_id;
        const NO_SPACE: i32 = etcdserverpb::AlarmType::Nospace as i32;
        const ACTIVATE: i32 = etcdserverpb::alarm_request::AlarmAction::Activate as i32;
        let is_up = state
            .shared
            .cluster
            .load()
            .alarms
            .iter()
            .any(|alarm| alarm.member_id == member_id && alarm.alarm == NO_SPACE);
        if !is_up {
            let body = Body::Alarm(storage::command::Alarm {
                member_id,
                action: ACTIVATE,
                alarm: NO_SPACE,
            });
            if self
                .propose_then(call, body, alarm_envelope(0), Some(EtcdError::NoSpace))
                .is_ok()
            {
                return Ok(());
            }
        }
        Err(EtcdError::NoSpace.into())
    }

    fn propose(
        &mut self,
        call: &Call<'_>,
        body: Body<'_>,
        envelope: RequestEnvelope<'_>,
    ) -> Handled {
        self.propose_then(call, body, envelope, None)
    }

    /// Hands a checked write to the log core. `verdict` replaces the reply.
    fn propose_then(
        &mut self,
        call: &Call<'_>,
        body: Body<'_>,
        envelope: RequestEnvelope<'_>,
        verdict: Option<EtcdError>,
    ) -> Handled {
        let state = &mut *self.state;
        let progress = &state.shared.progress;
        if progress.is_congested.load(Ordering::Relaxed)
            || state.shared.committed() > state.shared.applied() + APPLY_GAP_MAX
            || !state.proposals.has_room()
            || state.to_log.room() == 0
        {
            return Err(EtcdError::TooManyRequests.into());
        }
        let sequence = state.proposals.next_sequence();
        let request = RequestId::new(state.shared.life, state.id, sequence);
        if etcd_request_bytes(envelope, request.0, "", 0) > state.settings.request_bytes_max {
            return Err(EtcdError::RequestTooLarge.into());
        }
        let header = Header {
            request_id: request.0,
            member_id: state.shared.member_id,
            auth_revision: 0,
            user: "",
        };
        let command = state
            .arena
            .encode(&Command { header, body })
            .map_err(|error| CallError::Status(Code::Internal, error.to_string()))?;
        if command.len() > state.settings.entry_bytes_max {
            return Err(EtcdError::RequestTooLarge.into());
        }
        if state
            .to_log
            .push(ToLog::Propose {
                id: request,
                command,
                parsed_ns: state.now_ns,
            })
            .is_err()
        {
            return Err(EtcdError::TooManyRequests.into());
        }
        state.proposals.insert(Pending {
            connection: self.connection,
            stream: call.stream,
            method: call.method,
            started_ns: state.now_ns,
            deadline_ns: state.now_ns + state.settings.request_timeout_ns,
            verdict,
        });
        Ok(())
    }
}

/// An alarm's field in etcd's raft request.
fn alarm_envelope(len: usize) -> RequestEnvelope<'static> {
    RequestEnvelope::Other { field: 10, len }
}

fn health_check(call: &Call<'_>, message: &[u8], out: &mut Responder<'_>) -> Handled {
    let request = health::HealthCheckRequest::decode(message)?;
    if !request.service.is_empty() {
        return Err(EtcdError::HealthUnknownService.into());
    }
    let reply = serving(health::health_check_response::ServingStatus::Serving);
    out.unary(call.stream, |buffer| encode(&reply, buffer));
    Ok(())
}

fn health_list(call: &Call<'_>, message: &[u8], out: &mut Responder<'_>) -> Handled {
    health::HealthListRequest::decode(message)?;
    let status = serving(health::health_check_response::ServingStatus::Serving);
    let reply = health::HealthListResponse {
        statuses: [(String::new(), status)].into_iter().collect(),
    };
    out.unary(call.stream, |buffer| encode(&reply, buffer));
    Ok(())
}

/// Sends the status once; it does not change while the member serves, and the stream stays open.
fn health_watch(call: &Call<'_>, message: &[u8], out: &mut Responder<'_>) -> Handled {
    use health::health_check_response::ServingStatus;
    let request = health::HealthCheckRequest::decode(message)?;
    let status = if request.service.is_empty() {
        ServingStatus::Serving
    } else {
        ServingStatus::ServiceUnknown
    };
    out.message(call.stream, |buffer| encode(&serving(status), buffer));
    Ok(())
}

fn serving(status: health::health_check_response::ServingStatus) -> health::HealthCheckResponse {
    health::HealthCheckResponse {
        status: status as i32,
    }
}

fn encode(message: &impl Message, buffer: &mut Vec<u8>) {
    message.encode(buffer).expect("a Vec has room");
}
