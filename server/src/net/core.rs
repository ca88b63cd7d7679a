//! A net core: what it holds, and the answers that come to it from the other stages.
//!
//! Its other tasks are beside this file: [`super::sockets`] accepts and reads, [`super::timers`] keeps
//! time and ends, [`super::barrier`] reads on the member's own behalf, [`super::counts`] books.
//!
//! Always true here: answers of a pass are encoded first and sent once for each connection at its
//! end; the state is borrowed for one synchronous step at a time and never across a wait.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;
use wire::error::EtcdError;
use wire::grpc::stats::LimitHits;
use wire::grpc::{Code, Limits, Responder, StreamId};

use crate::gateway::routes::JsonRoutes;
use crate::metrics::Stage;
use crate::pipeline::{Inbox, NetId, ReplyBatch, Shared, ToNet};
use crate::runtime::{Class, Listener, Signal, spawn, yield_now};
use crate::services::methods::id;
use crate::tls::CertReloader;

use super::admission::Admission;
use super::barrier::{BARRIER, Barrier};
use super::books::{Ended, Work};
use super::connection::{Connection, ConnectionKey};
use super::errands::{ErrandTable, Steps};
use super::gateway_calls::Gateway;
use super::health::HttpBackend;
use super::held::Held;
use super::http_client::{HttpSettings, Serves};
use super::lease_calls::LEADERSHIP;
use super::long_reads;
use super::proposals::Pending;
use super::reads::ReadBatch;
use super::rejections::Rejections;
use super::state::NetState;
use super::table::ConnectionTable;
use super::watching::Drained;

/// Bytes taken from a socket at once, in one buffer for all connections of the core.
const RECEIVE_BYTES: usize = 256 << 10;
/// Connections of one net core, however many descriptors there are; see [`super::admission`] for one more.
pub const CONNECTIONS_MAX: usize = 65_536;

/// Time since the process started.
#[derive(Clone, Copy)]
pub struct Clock(Instant);

impl Clock {
    pub fn start() -> Clock {
        Clock(Instant::now())
    }

    pub fn now_ns(self) -> u64 {
        self.0.elapsed().as_nanos() as u64
    }
}

/// A socket that listens for clients.
pub struct BoundListener {
    pub socket: socket2::Socket,
    pub is_tls: bool,
    pub serves: Serves,
    /// As the log shows it.
    pub shown: String,
}

/// One net core.
pub struct NetCore {
    pub id: NetId,
    pub shared: Arc<Shared>,
    pub clock: Clock,
    pub limits: Arc<Limits>,
    pub http_backend: Rc<HttpBackend>,
    pub(super) http_settings: HttpSettings,
    pub(super) json_routes: JsonRoutes,
    pub(super) gateway: Gateway,
    pub tls: Option<RefCell<CertReloader>>,
    pub state: RefCell<NetState>,
    pub connections: RefCell<ConnectionTable>,
    pub(super) receive_buffer: RefCell<Vec<u8>>,
    /// Connections that got answers in this pass.
    pub(super) dirty: RefCell<Vec<Rc<Connection>>>,
    /// The background task for long reads runs.
    pub(super) has_long_reads: Cell<bool>,
    /// Reads of the member's own, by number.
    pub(super) barriers: RefCell<FxHashMap<u32, Barrier>>,
    pub(super) next_barrier: Cell<u32>,
    /// Writes of the core's errands.
    pub(super) steps: RefCell<Steps>,
    /// The same as the state's, for those who hold the state.
    pub(super) errands: Rc<ErrandTable>,
    /// Bound early, accepted from once the member serves.
    pub(super) listeners: RefCell<Vec<BoundListener>>,
    /// Those that clients come in by now.
    pub(super) open_listeners: RefCell<Vec<Rc<Listener>>>,
    /// Closed, but their last words are still on their way.
    pub(super) closing: RefCell<Vec<Weak<Connection>>>,
    pub(super) held: Rc<Held>,
    /// Knows how many connections may be open, so that descriptors suffice.
    pub(super) admission: RefCell<Admission>,
    pub(super) rejections: RefCell<Rejections>,
    /// Why connections ended, counted.
    pub(super) ended: RefCell<FxHashMap<&'static str, u64>>,
    /// HTTP/2 limits hit on connections that are over.
    pub(super) limit_hits: RefCell<LimitHits>,
    /// Tells watchers that there is room for them.
    pub(super) drained: Rc<Drained>,
    /// Raised by the rings to this stage.
    pub inbox_signal: Signal,
}

impl NetCore {
    /// `connections_max` is at most [`CONNECTIONS_MAX`].
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        id: NetId,
        shared: Arc<Shared>,
        clock: Clock,
        limits: Arc<Limits>,
        (http_backend, http_settings): (Rc<HttpBackend>, HttpSettings),
        tls: Option<CertReloader>,
        state: NetState,
        listeners: Vec<BoundListener>,
        connections_max: usize,
        held_bytes_max: usize,
        inbox_signal: Signal,
    ) -> Rc<NetCore> {
        Rc::new(NetCore {
            id,
            shared,
            clock,
            limits,
            http_backend,
            http_settings,
            json_routes: JsonRoutes::new(),
            gateway: Gateway::default(),
            tls: tls.map(RefCell::new),
            errands: state.errands.table.clone(),
            state: RefCell::new(state),
            connections: RefCell::default(),
            receive_buffer: RefCell::new(vec![0; RECEIVE_BYTES]),
            dirty: RefCell::default(),
            has_long_reads: Cell::new(false),
            barriers: RefCell::default(),
            next_barrier: Cell::new(0),
            steps: RefCell::default(),
            listeners: RefCell::new(listeners),
            open_listeners: RefCell::default(),
            closing: RefCell::default(),
            held: Rc::new(Held::new(held_bytes_max, clock)),
            admission: RefCell::new(Admission::new(connections_max)),
            rejections: RefCell::new(Rejections::new(clock.now_ns())),
            ended: RefCell::default(),
            limit_hits: RefCell::default(),
            drained: Rc::default(),
            inbox_signal,
        })
    }

    /// Answers from the log core and the apply core.
    pub async fn answer(self: Rc<Self>, mut inboxes: Vec<Inbox<ToNet>>) {
        loop {
            self.inbox_signal.wait().await;
            self.state.borrow_mut().now_ns = self.clock.now_ns();
            for inbox in &mut inboxes {
                while let Some(message) = inbox.pop() {
                    self.on_message(message);
                    self.keep_held_bounded();
                }
            }
            self.run_ready_reads();
            let is_more = self.serve_watchers(true);
            self.flush_dirty();
            self.settle();
            if is_more {
                yield_now().await;
                self.inbox_signal.notify();
            }
        }
    }

    fn on_message(self: &Rc<Self>, message: ToNet) {
        match message {
            ToNet::Serve => self.serve(),
            ToNet::Replies(batch) => self.on_replies(batch),
            ToNet::Leases(answers) => self.on_lease_answers(answers),
            ToNet::State { caller, result } => self.on_state(caller, result),
            ToNet::Backup { caller, done } => self.on_backup(caller, done),
            ToNet::Password(done) => self.on_password(done),
            ToNet::Defragmented { ask, result } => self.on_defragmented(ask, result),
            ToNet::Dropped { id, error } => {
                let pending = self.state.borrow_mut().proposals.take(id.sequence());
                if let Some(pending) = pending {
                    self.fail_write(&pending, error);
                }
            }
            ToNet::ReadIndex { context, index } => {
                self.state.borrow_mut().on_read_index(context, index);
            }
            ToNet::ReadIndexFailed { context, error } => {
                let failed = self.state.borrow_mut().on_read_index_failed(context);
                self.fail_reads(&failed, error);
            }
        }
    }

    fn on_replies(&self, mut batch: ReplyBatch) {
        for reply in batch.replies.drain(..) {
            let pending = self.state.borrow_mut().on_reply(&reply);
            let Some(pending) = pending else { continue };
            if pending.method == id::AUTH_AUTHENTICATE {
                self.on_authenticated(&pending, &reply, &batch.bytes);
                continue;
            }
            let result = match pending.verdict {
                Some(error) => Err(error),
                None => reply.result.clone(),
            };
            let state = &mut *self.state.borrow_mut();
            let waited = Duration::from_nanos(state.now_ns.saturating_sub(batch.made_ns));
            state.metrics.stage(Stage::Answer, waited);
            state.books.ended(pending.ended(true));
            if pending.connection == ConnectionKey::OWN {
                let result = result.as_ref().map(|range| &batch.bytes[range.clone()]);
                self.end_step(pending.stream, result.map_err(|error| *error));
                continue;
            }
            self.respond(pending.connection, |out| match &result {
                Ok(range) => {
                    let message = &batch.bytes[range.clone()];
                    out.unary(pending.stream, |buffer| buffer.extend_from_slice(message));
                }
                Err(error) => fail(out, pending.stream, *error),
            });
        }
        self.state.borrow_mut().recycle(batch);
    }

    /// Answers a write that was not applied, as far as this member knows.
    pub(super) fn fail_write(&self, pending: &Pending, error: EtcdError) {
        {
            let state = &mut *self.state.borrow_mut();
            state.books.ended(pending.ended(false));
            state.auth_calls.remove(pending.connection, pending.stream);
        }
        if pending.connection == ConnectionKey::OWN {
            return self.end_step(pending.stream, Err(error));
        }
        self.respond(pending.connection, |out| fail(out, pending.stream, error));
    }

    /// Runs the reads whose index is applied, and starts the background task for what is long.
    pub(super) fn run_ready_reads(self: &Rc<Self>) {
        while let Some(batch) = {
            let mut state = self.state.borrow_mut();
            state.take_ready_reads()
        } {
            for read in batch.reads() {
                if read.method == BARRIER {
                    self.end_barrier(read.stream, Ok(()));
                    continue;
                }
                if read.method == LEADERSHIP {
                    self.on_leadership(true);
                    continue;
                }
                self.respond(read.connection, |out| {
                    let mut state = self.state.borrow_mut();
                    let request = batch.request(read);
                    let call = (read.connection, read.stream, read.method);
                    let who = read.who.as_ref();
                    state.serve_read(call, read.started_ns, who, request, out);
                });
                self.keep_held_bounded();
            }
            self.state.borrow_mut().reads.recycle(batch);
        }
        let state = self.state.borrow();
        let is_waiting = state.reads.waits_for_apply();
        self.expect_apply(is_waiting);
        if is_waiting && state.reads.is_ready(self.shared.applied()) {
            // The index moved before the apply core could see that somebody waits.
            self.inbox_signal.notify();
        }
        if !state.long_reads.is_empty() && !self.has_long_reads.replace(true) {
            spawn(Class::Background, long_reads::run(self.clone()));
        }
    }

    pub(super) fn fail_reads(self: &Rc<Self>, batch: &ReadBatch, error: EtcdError) {
        for read in batch.reads() {
            if read.method == BARRIER {
                self.end_barrier(read.stream, Err(error));
            } else if read.method == LEADERSHIP {
                self.on_leadership(false);
            } else {
                self.state.borrow_mut().books.ended(Ended {
                    connection: read.connection,
                    method: read.method,
                    work: Work::Read { success: false },
                    started_ns: read.started_ns,
                });
                let calls = &mut self.state.borrow_mut().auth_calls;
                calls.remove(read.connection, read.stream);
                self.respond(read.connection, |out| fail(out, read.stream, error));
            }
        }
    }

    /// The background task has nothing left to do.
    pub fn long_reads_ended(&self) {
        self.has_long_reads.set(false);
    }

    /// Bytes of a call that its client has not taken; `None` when the call is over.
    pub fn backlog(&self, key: ConnectionKey, stream: StreamId) -> Option<usize> {
        let connections = self.connections.borrow();
        let connection = connections.get(key)?;
        let mut backlog = None;
        connection.respond(|out| {
            backlog = out.is_open(stream).then(|| out.backlog_bytes(stream));
        });
        Some(backlog? + connection.unsent_bytes())
    }

    /// Answers on a connection, if it is still there, and remembers to flush it.
    pub fn respond(&self, key: ConnectionKey, answer: impl FnOnce(&mut Responder<'_>)) {
        let connections = self.connections.borrow();
        let Some(connection) = connections.get(key) else {
            return;
        };
        connection.respond(answer);
        connection.book_if_grown();
        self.mark_dirty(connection);
    }

    /// Remembers to flush a connection at the end of the pass.
    pub(super) fn mark_dirty(&self, connection: &Rc<Connection>) {
        if !connection.is_dirty.replace(true) {
            self.dirty.borrow_mut().push(connection.clone());
        }
    }

    pub fn flush_dirty(&self) {
        let mut dirty = std::mem::take(&mut *self.dirty.borrow_mut());
        for connection in dirty.drain(..) {
            connection.is_dirty.set(false);
            self.count_calls(&connection);
            connection.flush();
        }
        *self.dirty.borrow_mut() = dirty;
    }

    /// Whether a read waits for the applied index to move; the apply core then rings.
    pub fn expect_apply(&self, is_waiting: bool) {
        self.shared.waits_for_apply[usize::from(self.id.0)].store(is_waiting, Ordering::SeqCst);
    }
}

/// Answers a call with an error of etcd's table.
pub fn fail(out: &mut Responder<'_>, stream: StreamId, error: EtcdError) {
    out.error(stream, Code::ALL[usize::from(error.code())], error.text());
}
