//! A net core's tasks: accepting, reading, answers from the other stages, timers.
//!
//! Always true here: one task reads each connection; answers of a pass are encoded first and sent
//! once for each connection at its end; the state is borrowed for one synchronous step at a time
//! and never across a wait.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;
use wire::error::EtcdError;
use wire::grpc::stats::LimitHits;
use wire::grpc::{CallKind, Code, Limits, MethodId, Responder, StreamId};

use crate::metrics::{Published, RequestType, Stage};
use crate::pipeline::{Inbox, NetId, ReplyBatch, Shared, ToNet};
use crate::runtime::{Class, Listener, Signal, Socket, sleep, spawn};
use crate::services::methods::METHODS;
use crate::tls::{CertReloader, TlsSession};

use super::books::{self, Ended, Work};
use super::calls::{Calls, NetState};
use super::connection::{Connection, ConnectionKey, Next, Protocols};
use super::health::HttpBackend;
use super::long_reads;
use super::proposals::Pending;
use super::reads::ReadBatch;
use super::table::ConnectionTable;

/// Bytes taken from a socket at once, in one buffer for all connections of the core.
const RECEIVE_BYTES: usize = 256 << 10;
/// Connections of one net core; one more is closed at once and counted.
pub const CONNECTIONS_MAX: usize = 65_536;
/// How long a connection may say nothing that tells its protocol.
const SNIFF_TIMEOUT_NS: u64 = 120_000_000_000;
/// The timer task looks this often while calls or proposals wait, and less often otherwise.
const BUSY_TICK: Duration = Duration::from_millis(50);
const IDLE_TICK: Duration = Duration::from_millis(500);
/// Pause after the process ran out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

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
    pub socket: std::net::TcpListener,
    pub is_tls: bool,
    /// As the log shows it.
    pub shown: String,
}

/// A read of the member's own that waits for its index.
struct Barrier {
    ended: Signal,
    result: Option<Result<(), EtcdError>>,
}

/// Stands for such a read among those of clients.
const BARRIER: MethodId = MethodId(u16::MAX);

/// One net core.
pub struct NetCore {
    pub id: NetId,
    pub shared: Arc<Shared>,
    pub clock: Clock,
    pub limits: Arc<Limits>,
    pub http_backend: Rc<HttpBackend>,
    pub tls: Option<RefCell<CertReloader>>,
    pub state: RefCell<NetState>,
    pub connections: RefCell<ConnectionTable>,
    receive_buffer: RefCell<Vec<u8>>,
    /// Connections that got answers in this pass.
    dirty: RefCell<Vec<Rc<Connection>>>,
    /// The background task for long reads runs.
    has_long_reads: Cell<bool>,
    /// Reads of the member's own, by number.
    barriers: RefCell<FxHashMap<u32, Barrier>>,
    next_barrier: Cell<u32>,
    /// Bound early, accepted from once the member serves.
    listeners: RefCell<Vec<BoundListener>>,
    /// Why connections ended, counted.
    ended: RefCell<FxHashMap<&'static str, u64>>,
    /// HTTP/2 limits hit on connections that are over.
    limit_hits: RefCell<LimitHits>,
    /// Raised by the rings to this stage.
    pub inbox_signal: Signal,
}

impl NetCore {
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        id: NetId,
        shared: Arc<Shared>,
        clock: Clock,
        limits: Arc<Limits>,
        http_backend: Rc<HttpBackend>,
        tls: Option<CertReloader>,
        state: NetState,
        listeners: Vec<BoundListener>,
        inbox_signal: Signal,
    ) -> Rc<NetCore> {
        Rc::new(NetCore {
            id,
            shared,
            clock,
            limits,
            http_backend,
            tls: tls.map(RefCell::new),
            state: RefCell::new(state),
            connections: RefCell::default(),
            receive_buffer: RefCell::new(vec![0; RECEIVE_BYTES]),
            dirty: RefCell::default(),
            has_long_reads: Cell::new(false),
            barriers: RefCell::default(),
            next_barrier: Cell::new(0),
            listeners: RefCell::new(listeners),
            ended: RefCell::default(),
            limit_hits: RefCell::default(),
            inbox_signal,
        })
    }

    /// The member is ready: its clients are let in.
    fn serve(self: &Rc<Self>) {
        for bound in self.listeners.borrow_mut().drain(..) {
            if self.id.0 == 0 {
                tracing::info!(
                    address = %bound.shown,
                    secure = bound.is_tls,
                    "ready to serve client requests"
                );
            }
            let listener = Listener::from_std(bound.socket);
            spawn(Class::Request, self.clone().accept(listener, bound.is_tls));
        }
    }

    /// Accepts connections until the member stops.
    pub async fn accept(self: Rc<Self>, listener: Listener, is_tls: bool) {
        while !self.shared.is_stopping() {
            match listener.accept().await {
                Ok(socket) if self.connections.borrow().len() < CONNECTIONS_MAX => {
                    self.open(socket, is_tls);
                }
                Ok(_) => self.count_end("too_many_connections"),
                Err(error) => {
                    tracing::warn!(error = %error, "cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn open(self: &Rc<Self>, socket: Socket, is_tls: bool) {
        let now_ns = self.clock.now_ns();
        let sender = match socket.sender() {
            Ok(sender) => sender,
            Err(error) => {
                tracing::warn!(error = %error, "cannot open a connection");
                return self.count_end("no_descriptor");
            }
        };
        let tls = self.tls.as_ref().filter(|_| is_tls).map(|reloader| {
            let config = reloader.borrow_mut().current(Instant::now()).clone();
            TlsSession::new(config)
        });
        let connection = self
            .connections
            .borrow_mut()
            .insert(|key| Connection::new(key, sender, tls, now_ns, socket.peer_addr()));
        spawn(Class::Request, self.clone().read(socket, connection));
    }

    /// The reading task of one connection.
    async fn read(self: Rc<Self>, mut socket: Socket, connection: Rc<Connection>) {
        let reason = loop {
            connection.has_room().await;
            let received = match socket.read(&self.receive_buffer).await {
                Ok(0) => break "closed_by_peer",
                Ok(received) => received,
                Err(_) => break "connection_error",
            };
            if connection.is_dead() {
                break "killed";
            }
            match self.receive(&connection, received) {
                Next::Read => {}
                Next::StartHttp1 => {
                    spawn(Class::Request, connection.clone().drive_http1());
                }
                Next::End(reason) => break reason,
            }
        };
        self.close(&connection, reason);
    }

    /// Works through the first `received` bytes of the shared buffer.
    fn receive(self: &Rc<Self>, connection: &Rc<Connection>, received: usize) -> Next {
        let now_ns = self.clock.now_ns();
        let protocols = Protocols {
            limits: &self.limits,
            http_backend: &self.http_backend,
        };
        let next = {
            let buffer = self.receive_buffer.borrow();
            let mut state = self.state.borrow_mut();
            state.now_ns = now_ns;
            let mut calls = Calls {
                state: &mut state,
                connection: connection.key,
            };
            let next = connection.receive(&buffer[..received], now_ns, &protocols, &mut calls);
            state.end_pass();
            next
        };
        self.count_calls(connection);
        connection.flush();
        connection.wake_http1();
        self.run_ready_reads();
        self.settle();
        next
    }

    fn close(&self, connection: &Rc<Connection>, reason: &'static str) {
        let mut state = self.state.borrow_mut();
        let mut calls = Calls {
            state: &mut state,
            connection: connection.key,
        };
        let stats = connection.input_ended(&mut calls);
        let now_ns = state.now_ns;
        for ended in &stats.ended {
            state.books.call_ended(ended, now_ns);
        }
        drop(state);
        self.limit_hits.borrow_mut().add(&stats.limits);
        connection.wake_http1();
        // An HTTP/1.1 client may have ended its direction and still wait for its answer.
        if !connection.is_answering_http1() {
            connection.end();
        }
        self.count_end(reason);
        self.connections.borrow_mut().remove(connection.key);
    }

    fn count_end(&self, reason: &'static str) {
        *self.ended.borrow_mut().entry(reason).or_default() += 1;
    }

    /// What the scraper shows beside the core's own counters: HTTP/2 limits that were hit, why
    /// connections ended, lengths of queues.
    pub fn counted(&self) -> Published {
        let connections = self.connections.borrow();
        let mut limits = self.limit_hits.borrow().clone();
        for connection in connections.iter() {
            connection.with_grpc(|grpc| limits.add(&grpc.stats().limits));
        }
        let mut closed: Vec<_> = self.ended.borrow().iter().map(|(k, v)| (*k, *v)).collect();
        closed.sort_unstable();
        let state = self.state.borrow();
        let queues = vec![
            ("connections", connections.len() as u64),
            ("long_reads", state.long_reads_running as u64),
            ("proposals", state.proposals.waiting() as u64),
            ("reads", state.reads.waiting() as u64),
        ];
        Published {
            http2: limits.named().collect(),
            closed,
            queues,
        }
    }

    /// Counts the calls that ended on a connection in this pass.
    fn count_calls(&self, connection: &Connection) {
        let state = self.state.borrow();
        // Only `--metrics=extensive` shows how long calls of each method take.
        let now_ns = match state.metrics.grpc.is_timed() {
            true => self.clock.now_ns(),
            false => state.now_ns,
        };
        connection.with_grpc(|grpc| {
            let sent = grpc.take_message_bytes_sent();
            if sent != 0 {
                state.metrics.counters.client_grpc_sent_bytes.add(sent);
            }
            grpc.take_ended(|ended| state.books.call_ended(&ended, now_ns));
        });
    }

    /// Books the times of the calls that this pass answered, and logs those that took too long.
    pub fn settle(&self) {
        let mut state = self.state.borrow_mut();
        if state.books.is_settled() {
            return;
        }
        let now_ns = self.clock.now_ns();
        let (began_ns, settings) = (state.now_ns, state.settings.clone());
        let slow_after = settings.warning_apply.min(settings.warning_unary);
        let metrics = state.metrics.clone();
        for slow in state.books.settle(began_ns, now_ns, slow_after) {
            let books::Slow { ended, took } = slow;
            if took > settings.warning_apply
                && matches!(ended.work, Work::Read { .. })
                && let Some(prefix) = books::read_prefix(ended.method)
            {
                metrics.counters.slow_apply.inc();
                log_slow_read(took, settings.warning_apply, prefix, "");
            }
            let method = &METHODS[usize::from(ended.method.0)];
            if took > settings.warning_unary && method.kind == CallKind::Unary {
                let connections = self.connections.borrow();
                let peer = connections.get(ended.connection).and_then(|held| held.peer);
                tracing::warn!(
                    "time spent" = ?took,
                    remote = peer.map_or_else(String::new, |peer| peer.to_string()),
                    "response type" = %format_args!("/{}/{}", method.service, method.name),
                    "request stats"
                );
            }
        }
    }

    /// Answers from the log core and the apply core.
    pub async fn answer(self: Rc<Self>, mut inboxes: Vec<Inbox<ToNet>>) {
        loop {
            self.inbox_signal.wait().await;
            self.state.borrow_mut().now_ns = self.clock.now_ns();
            for inbox in &mut inboxes {
                while let Some(message) = inbox.pop() {
                    self.on_message(message);
                }
            }
            self.run_ready_reads();
            self.flush_dirty();
            self.settle();
        }
    }

    fn on_message(self: &Rc<Self>, message: ToNet) {
        match message {
            ToNet::Serve => self.serve(),
            ToNet::Replies(batch) => self.on_replies(batch),
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
                let failed = self.state.borrow_mut().reads.take_failed(context);
                self.fail_reads(&failed, error);
            }
        }
    }

    fn on_replies(&self, mut batch: ReplyBatch) {
        for reply in batch.replies.drain(..) {
            let pending = self.state.borrow_mut().on_reply(&reply);
            let Some(pending) = pending else { continue };
            let result = match pending.verdict {
                Some(error) => Err(error),
                None => reply.result.clone(),
            };
            let state = &mut *self.state.borrow_mut();
            let waited = Duration::from_nanos(state.now_ns.saturating_sub(batch.made_ns));
            state.metrics.stage(Stage::Answer, waited);
            state.books.ended(pending.ended(true));
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
    fn fail_write(&self, pending: &Pending, error: EtcdError) {
        self.state.borrow_mut().books.ended(pending.ended(false));
        self.respond(pending.connection, |out| fail(out, pending.stream, error));
    }

    /// Runs the reads whose index is applied, and starts the background task for what is long.
    fn run_ready_reads(self: &Rc<Self>) {
        while let Some(batch) = {
            let mut state = self.state.borrow_mut();
            state.take_ready_reads()
        } {
            for read in batch.reads() {
                if read.method == BARRIER {
                    self.end_barrier(read.stream, Ok(()));
                    continue;
                }
                self.respond(read.connection, |out| {
                    let mut state = self.state.borrow_mut();
                    let request = batch.request(read);
                    let call = (read.connection, read.stream, read.method);
                    state.serve_read(call, read.started_ns, request, out);
                });
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

    fn fail_reads(&self, batch: &ReadBatch, error: EtcdError) {
        for read in batch.reads() {
            if read.method == BARRIER {
                self.end_barrier(read.stream, Err(error));
            } else {
                self.state.borrow_mut().books.ended(Ended {
                    connection: read.connection,
                    method: read.method,
                    work: Work::Read { success: false },
                    started_ns: read.started_ns,
                });
                self.respond(read.connection, |out| fail(out, read.stream, error));
            }
        }
    }

    /// Waits until everything acknowledged before now is applied here.
    pub async fn read_barrier(self: &Rc<Self>) -> Result<(), EtcdError> {
        let number = self.next_barrier.get();
        self.next_barrier.set(number.wrapping_add(1));
        let ended = Signal::new();
        {
            let mut state = self.state.borrow_mut();
            if !state.reads.has_room(0) {
                return Err(EtcdError::TooManyRequests);
            }
            state.now_ns = self.clock.now_ns();
            let now_ns = state.now_ns;
            let nobody = ConnectionKey::default();
            state
                .reads
                .add(nobody, StreamId(number), BARRIER, b"", now_ns);
            state.end_pass();
        }
        self.barriers.borrow_mut().insert(
            number,
            Barrier {
                ended: ended.clone(),
                result: None,
            },
        );
        self.inbox_signal.notify();
        ended.wait().await;
        let barrier = self.barriers.borrow_mut().remove(&number);
        barrier
            .and_then(|barrier| barrier.result)
            .unwrap_or(Err(EtcdError::Stopped))
    }

    fn end_barrier(&self, number: StreamId, result: Result<(), EtcdError>) {
        if let Some(barrier) = self.barriers.borrow_mut().get_mut(&number.0) {
            barrier.result = Some(result);
            barrier.ended.notify();
        }
    }

    /// One small read of the local state, for health checks; a range like any other for the books.
    pub fn local_read(&self) -> Result<(), EtcdError> {
        let begun_ns = self.clock.now_ns();
        let state = self.state.borrow();
        let result = state.reader.view().get(b"\0", 0).map(|_| ());
        let took = Duration::from_nanos(self.clock.now_ns() - begun_ns);
        state.metrics.counters.mvcc_range.inc();
        state.metrics.ranged(result.is_ok(), took);
        state
            .metrics
            .answered(RequestType::Range, result.is_ok(), took);
        result.map_err(|error| match error {
            storage::mvcc::ReadError::Compacted { .. } => EtcdError::Compacted,
            storage::mvcc::ReadError::Future { .. } => EtcdError::FutureRevision,
        })
    }

    /// The background task has nothing left to do.
    pub fn long_reads_ended(&self) {
        self.has_long_reads.set(false);
    }

    /// Bytes of a call that its client has not taken; `None` when the call is over.
    pub fn backlog(&self, key: ConnectionKey, stream: wire::grpc::StreamId) -> Option<usize> {
        let connections = self.connections.borrow();
        let connection = connections.get(key)?;
        let mut backlog = None;
        connection.respond(|out| {
            backlog = out.is_open(stream).then(|| out.backlog_bytes(stream));
        });
        Some(backlog? + connection.unsent_bytes())
    }

    /// Answers on a connection, if it is still there, and remembers to flush it.
    pub fn respond(&self, key: ConnectionKey, answer: impl FnOnce(&mut wire::grpc::Responder<'_>)) {
        let connections = self.connections.borrow();
        let Some(connection) = connections.get(key) else {
            return;
        };
        connection.respond(answer);
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

    /// Deadlines, keepalive, expired proposals, and the end of a drained connection.
    pub async fn keep_time(self: Rc<Self>) {
        loop {
            let is_busy = {
                let state = self.state.borrow();
                state.proposals.waiting() > 0 || state.reads.is_waiting()
            };
            sleep(if is_busy { BUSY_TICK } else { IDLE_TICK }).await;
            self.on_tick();
            if self.shared.is_stopping() {
                return;
            }
        }
    }

    fn on_tick(&self) {
        let now_ns = self.clock.now_ns();
        self.state.borrow_mut().now_ns = now_ns;
        let expired = self.state.borrow_mut().proposals.take_expired(now_ns);
        for pending in expired {
            self.state.borrow().metrics.counters.proposals_failed.inc();
            self.fail_write(&pending, EtcdError::Timeout);
        }
        let expired = self.state.borrow_mut().reads.take_expired(now_ns);
        for batch in expired {
            self.state.borrow().metrics.counters.slow_read_indexes.inc();
            self.fail_reads(&batch, EtcdError::Timeout);
        }
        let connections: Vec<Rc<Connection>> = self.connections.borrow().iter().cloned().collect();
        let mut state = self.state.borrow_mut();
        for connection in connections {
            let mut calls = Calls {
                state: &mut state,
                connection: connection.key,
            };
            let due = connection.with_grpc(|grpc| {
                let is_due = grpc.next_timer_ns().is_some_and(|at_ns| at_ns <= now_ns);
                is_due.then(|| grpc.on_timer(now_ns, &mut calls))
            });
            match due.flatten() {
                Some(Ok(())) => connection.flush(),
                Some(Err(_)) => {
                    connection.end();
                    connection.kill();
                }
                None if connection.is_sniffing()
                    && connection.opened_ns + SNIFF_TIMEOUT_NS < now_ns =>
                {
                    connection.kill();
                }
                None => {}
            }
        }
        state.end_pass();
        drop(state);
        self.flush_dirty();
        self.settle();
    }

    /// Ends all connections in good order: GOAWAY, open calls finish, then the sockets close.
    pub async fn drain(&self, patience: Duration) {
        let until = Instant::now() + patience;
        let connections: Vec<Rc<Connection>> = self.connections.borrow().iter().cloned().collect();
        for connection in &connections {
            connection.drain();
        }
        while Instant::now() < until && connections.iter().any(|held| !held.is_drained()) {
            self.on_tick();
            sleep(Duration::from_millis(10)).await;
        }
        for connection in &connections {
            connection.end();
            connection.kill();
        }
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

/// The line etcd writes, so that alerts on it go on working.
pub fn log_slow_read(took: Duration, wanted: Duration, prefix: &str, request: &str) {
    tracing::warn!(
        took = ?took,
        "expected-duration" = ?wanted,
        prefix,
        request,
        "apply request took too long"
    );
}
