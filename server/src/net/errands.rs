//! Calls that take several steps: locks, elections, downgrades. Each is a task that does what a client would do with reads,
//! writes and watches, one after the other, on the paths of clients and without a socket.
//!
//! A step that writes is checked, counted and bounded as the call it stands for, with [`ConnectionKey::OWN`] in the place of a connection. A
//! step that watches opens a stream of the hub under the errand's own call, so what it may hold is bounded by the connection's bounds.
//!
//! Always true here: an errand is in the table from its request until its task has ended, so a client that goes is noticed at the next
//! step; it waits on one signal and never polls; at most [`ERRANDS_MAX`] with [`REQUEST_BYTES_MAX`] run on a core. An errand acts for
//! whom its call came from: every step has his rights, of the moment it is taken.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use prost::Message;
use wire::error::EtcdError;
use wire::grpc::{Call, Code, MethodId, StreamId};
use wire::kv::{TxnRequestRef, WatchCreateRef};
use wire::messages::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, RangeRequest, RangeResponse, ResponseHeader, TxnRequest,
    TxnResponse, WatchResponse,
};

use crate::auth::gate::CommonName;
use crate::auth::{Identity, refusal};
use crate::runtime::{Class, Signal, spawn, yield_now};
use crate::services::methods::id;
use crate::watch::{Output, StreamKey};

use super::books::{Ended, Work};
use super::calls::{CallError, Calls, Handled};
use super::connection::ConnectionKey;
use super::core::NetCore;
use super::long_reads::{ReadJob, ReadOutcome};
use super::{elections, locks, maintenance_calls};

/// Errands of one net core that may be under way; one more gets `etcdserver: too many requests`.
pub const ERRANDS_MAX: usize = 32_768;
/// Bytes of their requests together; the same answer. An errand holds some five times its own.
const REQUEST_BYTES_MAX: usize = 64 << 20;
/// Messages of its watcher that an errand has not looked at; then the watcher waits.
const NEWS_MAX: usize = 8;

/// One call under way.
pub struct Errand {
    pub key: StreamKey,
    pub method: MethodId,
    pub request: Box<[u8]>,
    /// Whom it acts for; nobody while authentication is off.
    who: Option<Identity>,
    started_ns: u64,
    /// The client has gone, or its time is over.
    is_cancelled: Cell<bool>,
    news: RefCell<VecDeque<WatchResponse>>,
    /// News, room for output, or the end of the call.
    signal: Signal,
}

/// Why an errand ended without an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Failed {
    Etcd(EtcdError),
    Status(Code, String),
    /// Nobody waits for the answer any more.
    Cancelled,
}

impl From<EtcdError> for Failed {
    fn from(error: EtcdError) -> Failed {
        Failed::Etcd(error)
    }
}

impl From<CallError> for Failed {
    fn from(error: CallError) -> Failed {
        match error {
            CallError::Etcd(error) => Failed::Etcd(error),
            CallError::Decode(text) => Failed::Status(Code::Internal, text),
            CallError::Status(code, text) => Failed::Status(code, text),
        }
    }
}

/// The errands of a core, by their calls.
// Clients choose stream ids, so no map whose hash they could aim at.
#[derive(Default)]
pub struct ErrandTable {
    errands: RefCell<BTreeMap<StreamKey, Rc<Errand>>>,
    /// Of their requests.
    bytes: Cell<usize>,
}

impl ErrandTable {
    pub fn len(&self) -> usize {
        self.errands.borrow().len()
    }

    fn insert(&self, errand: Rc<Errand>) -> Result<(), EtcdError> {
        let bytes = self.bytes.get() + errand.request.len();
        let mut errands = self.errands.borrow_mut();
        if errands.len() == ERRANDS_MAX || REQUEST_BYTES_MAX < bytes {
            return Err(EtcdError::TooManyRequests);
        }
        self.bytes.set(bytes);
        errands.insert(errand.key, errand);
        Ok(())
    }

    fn remove(&self, errand: &Errand) {
        let bytes = self.bytes.get() - errand.request.len();
        self.bytes.set(bytes);
        self.errands.borrow_mut().remove(&errand.key);
    }

    pub(super) fn get(&self, key: StreamKey) -> Option<Rc<Errand>> {
        let errands = self.errands.borrow();
        // Nearly always there are none, and every message of a watch asks.
        if errands.is_empty() {
            return None;
        }
        errands.get(&key).cloned()
    }

    pub(super) fn cancel(&self, key: StreamKey) {
        if let Some(errand) = self.get(key) {
            errand.is_cancelled.set(true);
            errand.signal.notify();
        }
    }

    /// The connection's client has taken what waited for it.
    pub(super) fn on_room(&self, connection: ConnectionKey) {
        let from = StreamKey {
            connection,
            stream: StreamId(0),
        };
        for (key, errand) in self.errands.borrow().range(from..) {
            if key.connection != connection {
                break;
            }
            errand.signal.notify();
        }
    }
}

/// A net core's errands, as its calls see them.
#[derive(Default)]
pub struct Errands {
    pub table: Rc<ErrandTable>,
    /// Of this pass; their tasks begin at its end.
    begun: Vec<Rc<Errand>>,
}

/// Answers to the writes of errands.
#[derive(Default)]
pub struct Steps {
    next: u32,
    waiting: BTreeMap<u32, Step>,
}

#[derive(Default)]
struct Step {
    ended: Signal,
    result: Option<Result<Vec<u8>, EtcdError>>,
}

impl Errand {
    pub fn is_cancelled(&self) -> bool {
        self.is_cancelled.get()
    }

    /// The request, which was decoded once before the errand began.
    pub fn decode<M: Message + Default>(&self) -> M {
        M::decode(&self.request[..]).expect("it was decoded before")
    }

    /// What becomes of a message of its watcher now; see [`crate::watch::Sink`].
    pub(super) fn output(&self) -> Output {
        match self.news.borrow().len() {
            _ if self.is_cancelled() => Output::Gone,
            NEWS_MAX.. => Output::Blocked,
            _ => Output::Ready,
        }
    }

    pub(super) fn put(&self, parts: &[&[u8]]) {
        let message = parts.concat();
        let news = WatchResponse::decode(&message[..]).expect("we encoded it");
        self.news.borrow_mut().push_back(news);
        self.signal.notify();
    }
}

impl Calls<'_> {
    /// Begins a call whose request was decoded.
    pub(super) fn begin_errand(&mut self, call: &Call<'_>, message: &[u8]) -> Handled {
        let who = match self.identify(call) {
            Ok(who) => who,
            // As with every error of a step of theirs, the code is lost on the way.
            Err(error) if call.method != id::MAINTENANCE_DOWNGRADE => {
                return Err(CallError::Status(Code::Unknown, error.text().to_owned()));
            }
            Err(error) => return Err(error.into()),
        };
        let errands = &mut self.state.errands;
        let key = StreamKey {
            connection: self.connection,
            stream: call.stream,
        };
        let errand = Rc::new(Errand {
            key,
            method: call.method,
            request: message.into(),
            who,
            started_ns: self.state.now_ns,
            is_cancelled: Cell::new(false),
            news: RefCell::default(),
            signal: Signal::new(),
        });
        errands.table.insert(errand.clone())?;
        errands.begun.push(errand);
        Ok(())
    }

    fn step_txn(&mut self, call: &Call<'_>, message: &[u8]) -> Handled {
        let request = TxnRequestRef::decode(message)?;
        self.write_txn(call, &request)
    }
}

impl NetCore {
    /// Starts on the errands that this pass brought.
    pub(super) fn start_errands(self: &Rc<Self>) {
        // Nearly every pass has none.
        if self.state.borrow().errands.begun.is_empty() {
            return;
        }
        let begun = std::mem::take(&mut self.state.borrow_mut().errands.begun);
        for errand in begun {
            spawn(Class::Request, self.clone().run_errand(errand));
        }
    }

    async fn run_errand(self: Rc<Self>, errand: Rc<Errand>) {
        let result = match errand.method {
            id::LOCK_LOCK => locks::lock(&self, &errand).await,
            id::LOCK_UNLOCK => locks::unlock(&self, &errand).await,
            id::ELECTION_CAMPAIGN => elections::campaign(&self, &errand).await,
            id::ELECTION_PROCLAIM => elections::proclaim(&self, &errand).await,
            id::ELECTION_RESIGN => elections::resign(&self, &errand).await,
            id::ELECTION_LEADER => elections::leader(&self, &errand).await,
            id::ELECTION_OBSERVE => elections::observe(&self, &errand).await,
            id::MAINTENANCE_DOWNGRADE => maintenance_calls::downgrade(&self, &errand).await,
            other => unreachable!("method {other:?} is no errand"),
        };
        let stream = errand.key.stream;
        self.respond(errand.key.connection, |out| match &result {
            // The last message of a stream was its own.
            Ok(None) => out.finish(stream, Code::Ok, ""),
            Ok(Some(reply)) => out.unary(stream, |buffer| buffer.extend_from_slice(reply)),
            Err(Failed::Cancelled) => {}
            Err(Failed::Etcd(error)) => {
                let code = Code::ALL[usize::from(error.code())];
                // etcd's lock and election services are clients of their own server, and its codes get lost on that way.
                let is_own = errand.method != id::MAINTENANCE_DOWNGRADE;
                let code = if is_own { Code::Unknown } else { code };
                out.error(stream, code, error.text());
            }
            Err(Failed::Status(code, text)) => out.error(stream, *code, text),
        });
        {
            let state = &mut *self.state.borrow_mut();
            state.errands.table.remove(&errand);
            state.watching.hub.close(errand.key);
            state.books.ended(Ended {
                connection: errand.key.connection,
                method: errand.method,
                work: Work::Other,
                started_ns: errand.started_ns,
            });
        }
        self.flush_dirty();
        self.settle();
    }

    /// One write as the errand's own client. It is carried out also if the errand is cancelled meanwhile.
    async fn step(
        self: &Rc<Self>,
        errand: &Errand,
        method: MethodId,
        begin: impl FnOnce(&mut Calls<'_>, &Call<'_>) -> Handled,
    ) -> Result<Vec<u8>, Failed> {
        let ended = Signal::new();
        let number = {
            let mut steps = self.steps.borrow_mut();
            let number = steps.next;
            steps.next = number.wrapping_add(1);
            let step = Step {
                ended: ended.clone(),
                result: None,
            };
            steps.waiting.insert(number, step);
            number
        };
        let begun = {
            let state = &mut *self.state.borrow_mut();
            state.now_ns = self.clock.now_ns();
            let mut calls = Calls {
                state,
                connection: ConnectionKey::OWN,
                common_name: &CommonName::new(),
                acts_for: Some(&errand.who),
            };
            let begun = begin(&mut calls, &Call::own(StreamId(number), method));
            state.end_pass();
            begun
        };
        if let Err(error) = begun {
            self.steps.borrow_mut().waiting.remove(&number);
            return Err(error.into());
        }
        ended.wait().await;
        let step = self.steps.borrow_mut().waiting.remove(&number);
        let result = step.and_then(|step| step.result);
        Ok(result.unwrap_or(Err(EtcdError::Stopped))?)
    }

    /// The answer to a write of an errand.
    pub(super) fn end_step(&self, number: StreamId, result: Result<&[u8], EtcdError>) {
        if let Some(step) = self.steps.borrow_mut().waiting.get_mut(&number.0) {
            step.result = Some(result.map(<[u8]>::to_vec));
            step.ended.notify();
        }
    }

    pub(super) async fn txn(
        self: &Rc<Self>,
        errand: &Errand,
        txn: &TxnRequest,
    ) -> Result<TxnResponse, Failed> {
        let message = txn.encode_to_vec();
        let reply = self.step(errand, id::KV_TXN, |calls, call| {
            calls.step_txn(call, &message)
        });
        Ok(TxnResponse::decode(&reply.await?[..]).expect("we encoded it"))
    }

    pub(super) async fn delete(
        self: &Rc<Self>,
        errand: &Errand,
        request: &[u8],
    ) -> Result<Vec<u8>, Failed> {
        self.step(errand, id::KV_DELETE_RANGE, |calls, call| {
            calls.delete_range(call, request)
        })
        .await
    }

    /// The lease of a call: its own, or a new one of a minute that nobody renews.
    pub(super) async fn lease_or_new(
        self: &Rc<Self>,
        errand: &Errand,
        lease: i64,
    ) -> Result<i64, Failed> {
        const SESSION_TTL_S: i64 = 60;
        if lease != 0 {
            return Ok(lease);
        }
        let request = LeaseGrantRequest {
            ttl: SESSION_TTL_S,
            id: 0,
        };
        let message = request.encode_to_vec();
        let reply = self.step(errand, id::LEASE_LEASE_GRANT, |calls, call| {
            calls.lease_grant(call, &message)
        });
        let reply = LeaseGrantResponse::decode(&reply.await?[..]).expect("we encoded it");
        Ok(reply.id)
    }

    /// Proposes on behalf of an errand that is no write of keys.
    pub(super) async fn propose_step(
        self: &Rc<Self>,
        errand: &Errand,
        method: MethodId,
        begin: impl FnOnce(&mut Calls<'_>, &Call<'_>) -> Handled,
    ) -> Result<Vec<u8>, Failed> {
        self.step(errand, method, begin).await
    }

    /// Reads the local state, which holds every write that was answered before. After [`NetCore::read_barrier`] it is linearizable.
    pub(super) async fn range(
        self: &Rc<Self>,
        errand: &Errand,
        request: &RangeRequest,
    ) -> Result<RangeResponse, Failed> {
        let message = request.encode_to_vec();
        let mut job = ReadJob::default();
        let mut reply = Vec::new();
        let auth_revision;
        {
            let state = &mut *self.state.borrow_mut();
            let rights;
            (rights, auth_revision) = state.auth.rights(errand.who.as_ref());
            rights
                .may_read(&request.key, &request.range_end)
                .map_err(refusal)?;
            let header = state.header();
            let call = (id::KV_RANGE, &message[..]);
            job.begin(call, &state.reader, &header, 0, &mut reply)?;
        }
        loop {
            let outcome = {
                let state = self.state.borrow();
                job.step(&state.reader, &mut reply)?
            };
            match outcome {
                ReadOutcome::Done => break,
                _ => yield_now().await,
            }
        }
        let state = &mut *self.state.borrow_mut();
        job.count(&state.metrics);
        if !state.auth.is_current(auth_revision) {
            return Err(EtcdError::AuthOldRevision.into());
        }
        Ok(RangeResponse::decode(&reply[..]).expect("we encoded it"))
    }

    /// Watches until `wanted` finds something in a message; the watcher is gone then.
    pub(super) async fn watch<T>(
        self: &Rc<Self>,
        errand: &Errand,
        create: &WatchCreateRef<'_>,
        mut wanted: impl FnMut(&WatchResponse) -> Option<T>,
    ) -> Result<T, Failed> {
        let watch_id = self.open_errand_watch(errand, create)?;
        let found = loop {
            if errand.is_cancelled() {
                break Err(Failed::Cancelled);
            }
            let Some(news) = self.next_news(errand) else {
                errand.signal.wait().await;
                continue;
            };
            if news.watch_id != watch_id {
                continue;
            }
            if news.canceled {
                break Err(match news.compact_revision {
                    0 => EtcdError::LostWatcher.into(),
                    _ => EtcdError::Compacted.into(),
                });
            }
            if let Some(found) = wanted(&news) {
                break Ok(found);
            }
        };
        self.close_errand_watch(errand, watch_id);
        found
    }

    /// Opens a watcher for an errand that takes its messages itself.
    pub(super) fn open_errand_watch(
        &self,
        errand: &Errand,
        create: &WatchCreateRef<'_>,
    ) -> Result<i64, Failed> {
        if errand.is_cancelled() {
            return Err(Failed::Cancelled);
        }
        let state = &mut *self.state.borrow_mut();
        state.now_ns = self.clock.now_ns();
        let (rights, _) = state.auth.rights(errand.who.as_ref());
        rights
            .may_read(create.key, create.range_end)
            .map_err(refusal)?;
        let created = state.watch_as(errand.key, create);
        if created.refusal.is_some() {
            return Err(EtcdError::TooManyRequests.into());
        }
        self.inbox_signal.notify();
        Ok(created.watch_id)
    }

    /// Closes it again; messages of it that nobody looked at are passed over.
    pub(super) fn close_errand_watch(&self, errand: &Errand, watch_id: i64) {
        let hub = &mut self.state.borrow_mut().watching.hub;
        if hub.has_stream(errand.key) {
            hub.cancel(errand.key, watch_id);
        }
    }

    /// The oldest message of the errand's watcher.
    pub(super) fn next_news(&self, errand: &Errand) -> Option<WatchResponse> {
        let mut news = errand.news.borrow_mut();
        let was_full = news.len() == NEWS_MAX;
        let oldest = news.pop_front();
        if was_full {
            self.drained.push(errand.key.connection);
        }
        oldest
    }

    /// Waits for news, room or the end of the call.
    pub(super) async fn wait_for_news(&self, errand: &Errand) {
        errand.signal.wait().await;
    }

    /// Sends a message of a stream once its client has taken the ones before.
    pub(super) async fn send(
        self: &Rc<Self>,
        errand: &Errand,
        message: &impl Message,
    ) -> Result<(), Failed> {
        loop {
            let room = {
                let connections = self.connections.borrow();
                let connection = connections.get(errand.key.connection);
                let connection = connection.ok_or(Failed::Cancelled)?;
                let mut backlog = None;
                connection.respond(|out| {
                    let stream = errand.key.stream;
                    let is_open = out.is_open(stream);
                    out.be_patient(stream);
                    backlog = is_open.then(|| out.backlog_bytes(stream));
                });
                let backlog = backlog.ok_or(Failed::Cancelled)?;
                let has_room = backlog == 0 && connection.takes_output();
                if !has_room {
                    connection.tell_when_drained(self.drained.clone());
                }
                has_room
            };
            if room {
                break;
            }
            errand.signal.wait().await;
            if errand.is_cancelled() {
                return Err(Failed::Cancelled);
            }
        }
        self.respond(errand.key.connection, |out| {
            out.message(errand.key.stream, |buffer| {
                message.encode(buffer).expect("a Vec has room");
            });
        });
        self.state.borrow().books.sent(errand.method);
        self.flush_dirty();
        Ok(())
    }
}

/// The header of a reply that was encoded by the store's side.
pub fn header_of(header: Option<ResponseHeader>) -> ResponseHeader {
    header.expect("every reply has a header")
}
