//! One client connection: its socket, what waits for it, and its end. What speaks on it is in
//! [`super::stack`].
//!
//! Always true here: bytes leave in the order they were produced; while some wait for the peer to
//! take them, they wait in `unsent` with one writing task, and the reading task stops above
//! [`UNSENT_BYTES_MAX`]. The reading task alone reads; everybody else ends the connection by
//! shutting the socket down. Runs on the net core that accepted it and never moves.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;

use wire::grpc::stats::{EndedCall, LimitHits};
use wire::grpc::{CancelReason, Code, LocalCalls, Responder, Service};

use crate::auth::gate::CommonName;
use crate::runtime::{Class, Sender, Signal, Socket, spawn};
use crate::tls::TlsSession;

use super::held::{GIVE_UP, Held, Holding};
use super::http_client::Serves;
use super::rejections::Rejection;
use super::stack::{Next, Protocol, Protocols, Stack};
use super::watching::Drained;

/// Names a connection of a net core; never used twice.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, PartialOrd, Ord)]
pub struct ConnectionKey {
    pub slot: u32,
    pub life: u32,
}

impl ConnectionKey {
    /// Stands for the member where it is its own client; no connection ever has it.
    pub const OWN: ConnectionKey = ConnectionKey {
        slot: u32::MAX,
        life: u32::MAX,
    };
}

/// Above this much unsent output a connection is not read from.
pub const UNSENT_BYTES_MAX: usize = 4 << 20;
/// How long a connection may say nothing that tells its protocol, TLS included: etcd's bound for a
/// TLS handshake.
const HANDSHAKE_TIMEOUT_NS: u64 = 10_000_000_000;
/// How long the head of an HTTP/1.1 request may take to come whole, as in etcd.
const HEAD_TIMEOUT_NS: u64 = 300_000_000_000;
/// How long a peer may take nothing while its socket is full.
const STALL_TIMEOUT_NS: u64 = 120_000_000_000;
/// So much output of streams without end is gathered before it is sent.
const STREAM_BYTES_MAX: usize = 32 << 10;
/// A spare output buffer larger than this is given back to the allocator.
pub const SPARE_BYTES_MAX: usize = 1 << 20;

pub struct Connection {
    pub key: ConnectionKey,
    pub opened_ns: u64,
    /// In the client's certificate, from the end of the handshake on.
    pub common_name: CommonName,
    /// For the log.
    pub peer: Option<std::net::SocketAddr>,
    /// What the address is for that it came to.
    pub serves: Serves,
    pub is_tls: bool,
    /// Its calls that are not gRPC.
    local: RefCell<LocalCalls>,
    /// Replies in other forms that wait inside the HTTP library.
    reply_bytes: Rc<Cell<usize>>,
    stack: RefCell<Stack>,
    sender: Sender,
    unsent: RefCell<Unsent>,
    has_writer: Cell<bool>,
    /// Close the socket once everything is sent.
    is_ending: Cell<bool>,
    is_dead: Cell<bool>,
    /// Bytes have come from the peer.
    has_spoken: Cell<bool>,
    /// It was told to go to make room for another.
    is_replaced: Cell<bool>,
    /// Why it was killed, for the counter.
    end_reason: Cell<Option<&'static str>>,
    /// What was wrong with its TLS, in words.
    tls_error: RefCell<Option<String>>,
    /// Since when an HTTP/1.1 request's head has been on its way.
    head_since_ns: Cell<u64>,
    holding: Holding,
    /// How often the socket took something while a writing task waited for it.
    takes: Cell<u64>,
    /// What `takes` was when somebody last looked, and since when.
    stuck: Cell<Option<(u64, u64)>>,
    /// Raised when output was taken, so that the reading task may go on.
    room: Signal,
    http1_waker: RefCell<Option<Waker>>,
    /// Wants to know once when the peer has taken everything.
    drained: RefCell<Option<Rc<Drained>>>,
    /// Already in the list of connections to flush at the end of this pass.
    pub is_dirty: Cell<bool>,
}

#[derive(Default)]
struct Unsent {
    bytes: Vec<u8>,
    sent: usize,
}

/// What a gRPC connection counted and nobody has taken yet.
#[derive(Default)]
pub struct LastCounts {
    pub ended: Vec<EndedCall>,
    pub limits: LimitHits,
}

impl Connection {
    pub fn new(
        key: ConnectionKey,
        socket: &Socket,
        tls: Option<TlsSession>,
        serves: Serves,
        now_ns: u64,
        core_held: Rc<Held>,
    ) -> Rc<Connection> {
        Rc::new(Connection {
            key,
            opened_ns: now_ns,
            common_name: CommonName::new(),
            peer: socket.peer_addr(),
            serves,
            is_tls: tls.is_some(),
            local: RefCell::default(),
            reply_bytes: Rc::default(),
            stack: RefCell::new(Stack::new(tls)),
            sender: socket.sender(),
            unsent: RefCell::default(),
            has_writer: Cell::new(false),
            is_ending: Cell::new(false),
            is_dead: Cell::new(false),
            has_spoken: Cell::new(false),
            is_replaced: Cell::new(false),
            end_reason: Cell::new(None),
            tls_error: RefCell::default(),
            head_since_ns: Cell::new(now_ns),
            holding: Holding::new(core_held),
            takes: Cell::new(0),
            stuck: Cell::new(None),
            room: Signal::new(),
            http1_waker: RefCell::default(),
            drained: RefCell::default(),
            is_dirty: Cell::new(false),
        })
    }

    /// Works through bytes that the socket received.
    pub fn receive<S: Service>(
        &self,
        bytes: &[u8],
        now_ns: u64,
        protocols: &Protocols<'_>,
        service: &mut S,
    ) -> Next {
        self.has_spoken.set(true);
        let stack = &mut *self.stack.borrow_mut();
        if let Protocol::Http1(session) = &stack.protocol
            && !session.is_reading_head()
        {
            self.head_since_ns.set(now_ns);
        }
        let Some(tls) = &mut stack.tls else {
            return stack
                .protocol
                .receive(bytes, None, now_ns, protocols, service);
        };
        stack.plaintext.clear();
        let fed = tls.feed(bytes, &mut stack.plaintext);
        let alpn = (!tls.is_handshaking()).then(|| tls.alpn());
        if alpn.is_some() {
            self.common_name
                .get_or_init(|| tls.peer_common_name().map(Arc::from));
        }
        let mut next = Next::Read;
        if !stack.plaintext.is_empty() {
            next = stack
                .protocol
                .receive(&stack.plaintext, alpn, now_ns, protocols, service);
        }
        match (fed, next) {
            (_, Next::End(reason)) => Next::End(reason),
            (Err(error), _) => {
                *self.tls_error.borrow_mut() = Some(error.to_string());
                Next::End(error.reason())
            }
            (Ok(()), next) if !tls.is_peer_closed() => next,
            (Ok(()), _) => Next::End("peer_closed"),
        }
    }

    /// Answers calls of this connection; does nothing when it no longer speaks.
    pub fn respond(&self, answer: impl FnOnce(&mut Responder<'_>)) {
        let local = &mut *self.local.borrow_mut();
        match &mut self.stack.borrow_mut().protocol {
            Protocol::Grpc(grpc) => answer(&mut grpc.responder_with(local)),
            Protocol::Http1(_) => answer(&mut Responder::local(local)),
            Protocol::Sniffing(_) | Protocol::Over => {}
        }
    }

    /// Its calls that are not gRPC.
    pub fn local(&self) -> &RefCell<LocalCalls> {
        &self.local
    }

    /// To count replies in that wait inside the HTTP library.
    pub fn reply_bytes(&self) -> &Rc<Cell<usize>> {
        &self.reply_bytes
    }

    /// Answers in other forms than gRPC that wait to be taken.
    fn other_bytes(&self) -> usize {
        self.local.borrow().held_bytes() + self.reply_bytes.get()
    }

    /// Runs `work` on the gRPC state, if that is what the connection speaks.
    pub fn with_grpc<T>(&self, work: impl FnOnce(&mut wire::grpc::Connection) -> T) -> Option<T> {
        match &mut self.stack.borrow_mut().protocol {
            Protocol::Grpc(grpc) => Some(work(grpc)),
            _ => None,
        }
    }

    /// Moves output towards the socket. Call at the end of each pass that touched the connection.
    pub fn flush(self: &Rc<Self>) {
        self.send_unsent();
        self.book();
    }

    fn send_unsent(self: &Rc<Self>) {
        if self.has_writer.get() {
            return;
        }
        let unsent = &mut *self.unsent.borrow_mut();
        loop {
            self.stack.borrow_mut().take_output(&mut unsent.bytes);
            if unsent.bytes.is_empty() {
                return self.on_drained(unsent);
            }
            while unsent.sent < unsent.bytes.len() {
                match self.sender.try_send(&unsent.bytes[unsent.sent..]) {
                    Ok(Some(sent)) => {
                        unsent.sent += sent;
                        self.holding.note_progress();
                    }
                    Ok(None) => {
                        self.has_writer.set(true);
                        spawn(Class::Request, self.clone().write_unsent());
                        return;
                    }
                    Err(_) => return self.kill(),
                }
            }
            unsent.reset();
        }
    }

    /// The writing task: lives while the peer takes output slower than it is made.
    async fn write_unsent(self: Rc<Self>) {
        let mut chunk = Vec::new();
        loop {
            {
                let unsent = &mut *self.unsent.borrow_mut();
                if unsent.sent == unsent.bytes.len() {
                    unsent.reset();
                    self.stack.borrow_mut().take_output(&mut unsent.bytes);
                    if unsent.bytes.is_empty() {
                        self.has_writer.set(false);
                        self.room.notify();
                        self.on_drained(unsent);
                        break;
                    }
                }
                const CHUNK_BYTES_MAX: usize = 256 << 10;
                let through = unsent.bytes.len().min(unsent.sent + CHUNK_BYTES_MAX);
                chunk.clear();
                chunk.extend_from_slice(&unsent.bytes[unsent.sent..through]);
            }
            // Only this task sends while it exists: `flush` leaves when it sees it.
            self.book();
            match self.sender.send(&chunk).await {
                Ok(sent) => {
                    self.unsent.borrow_mut().sent += sent;
                    self.takes.set(self.takes.get() + 1);
                    self.holding.note_progress();
                }
                Err(_) => {
                    self.has_writer.set(false);
                    return self.kill();
                }
            }
            self.room.notify();
        }
        self.book();
    }

    /// Everything that was ready to leave has left.
    fn on_drained(&self, unsent: &Unsent) {
        if self.local.borrow().held_bytes() == 0
            && let Some(drained) = self.drained.borrow_mut().take()
        {
            drained.push(self.key);
        }
        self.end_if_asked(unsent);
    }

    /// Whether output that is made now leaves soon: the peer has taken what was made before.
    pub fn takes_output(self: &Rc<Self>) -> bool {
        if self.has_writer.get() {
            return false;
        }
        if self.stack.borrow().held_bytes() >= STREAM_BYTES_MAX {
            self.flush();
        }
        !self.has_writer.get()
            && !self.is_dead.get()
            && self.local.borrow().held_bytes() < STREAM_BYTES_MAX
    }

    /// Tells `drained` once, when the peer has taken everything that is ready to leave.
    pub fn tell_when_drained(&self, drained: Rc<Drained>) {
        // It may be long until then, and there may be many: only what waits is held.
        if let Ok(mut unsent) = self.unsent.try_borrow_mut() {
            let unsent = &mut *unsent;
            unsent.bytes.drain(..std::mem::take(&mut unsent.sent));
            unsent.bytes.shrink_to_fit();
        }
        if let Ok(mut stack) = self.stack.try_borrow_mut() {
            stack.release_spare();
        }
        *self.drained.borrow_mut() = Some(drained);
    }

    fn end_if_asked(&self, unsent: &Unsent) {
        if self.is_ending.get() && unsent.sent == unsent.bytes.len() {
            self.sender.shutdown_write();
        }
    }

    /// Ends our direction once everything is sent.
    pub fn end(self: &Rc<Self>) {
        self.is_ending.set(true);
        if let Some(tls) = &mut self.stack.borrow_mut().tls {
            tls.send_close();
        }
        self.flush();
    }

    /// The socket is of no more use: the reading task will see its end.
    pub fn kill(&self) {
        if !self.is_dead.replace(true) {
            self.sender.shutdown();
            self.room.notify();
            self.wake_http1();
            self.book();
        }
    }

    /// As [`Connection::kill`]; `reason` is what is counted.
    pub fn kill_for(&self, reason: &'static str) {
        if !self.is_dead.get() {
            self.end_reason.set(Some(reason));
            self.kill();
        }
    }

    /// It has never spoken and makes room for another.
    pub fn replace(&self) {
        self.is_replaced.set(true);
        self.kill_for("never_spoke");
    }

    pub fn is_replaced(&self) -> bool {
        self.is_replaced.get()
    }

    pub fn end_reason(&self) -> Option<&'static str> {
        self.end_reason.get()
    }

    /// What the log says of a connection that is over, if it never got through its TLS handshake or began one where there is
    /// none.
    /// `reason` is why it ended.
    pub fn rejection(&self, reason: &'static str) -> Option<Rejection> {
        if reason == "tls_on_plain_port" {
            return Some(Rejection {
                server_name: String::new(),
                is_eof: false,
                error: "the client speaks TLS, this address does not: use http:// in its URL, or serve https here"
                    .to_owned(),
            });
        }
        let stack = self.stack.borrow();
        let tls = stack.tls.as_ref().filter(|tls| tls.is_handshaking())?;
        let error = match (self.tls_error.borrow_mut().take(), reason) {
            (Some(error), _) => error,
            (None, "closed_by_peer") => "EOF".to_owned(),
            (None, "connection_error") => "connection broken by the client".to_owned(),
            (None, "never_spoke" | "handshake_timeout") if !self.is_replaced() => {
                "handshake not finished in time".to_owned()
            }
            // We ended it for reasons of our own.
            _ => return None,
        };
        Some(Rejection {
            server_name: tls.server_name().unwrap_or_default().to_owned(),
            is_eof: error == "EOF",
            error,
        })
    }

    /// Whether the peer has taken nothing for too long of what waits for its socket.
    fn is_stalled(&self, now_ns: u64) -> bool {
        let takes = self.takes.get();
        match self.stuck.get() {
            _ if !self.is_stuck() => self.stuck.set(None),
            Some((then, since_ns)) if then == takes => {
                return since_ns.saturating_add(STALL_TIMEOUT_NS) <= now_ns;
            }
            _ => self.stuck.set(Some((takes, now_ns))),
        }
        false
    }

    /// Whether its peer has not sent one byte.
    pub fn is_silent(&self) -> bool {
        !self.has_spoken.get()
    }

    /// The name of the time limit that this connection has passed, if it has.
    pub fn overdue(&self, now_ns: u64) -> Option<&'static str> {
        if self.is_stalled(now_ns) {
            return Some("stalled");
        }
        let is_past = |since_ns: u64, after_ns: u64| since_ns.saturating_add(after_ns) < now_ns;
        match &self.stack.borrow().protocol {
            Protocol::Sniffing(_) if is_past(self.opened_ns, HANDSHAKE_TIMEOUT_NS) => {
                Some(if self.is_silent() {
                    "never_spoke"
                } else {
                    "handshake_timeout"
                })
            }
            Protocol::Http1(session)
                if session.is_reading_head()
                    && is_past(self.head_since_ns.get(), HEAD_TIMEOUT_NS) =>
            {
                Some("head_timeout")
            }
            _ => None,
        }
    }

    pub fn is_dead(&self) -> bool {
        self.is_dead.get()
    }

    /// Waits until the peer has taken enough of our output, and its HTTP/1.1 requests so far are
    /// taken up, so that more may be read.
    pub async fn has_room(&self) {
        while !self.is_dead.get()
            && (self.unsent_bytes() > UNSENT_BYTES_MAX || self.has_unread_requests())
        {
            self.room.wait().await;
        }
    }

    fn has_unread_requests(&self) -> bool {
        match &self.stack.borrow().protocol {
            Protocol::Http1(session) => !session.wants_input(),
            _ => false,
        }
    }

    /// Output that the peer has not taken.
    pub fn unsent_bytes(&self) -> usize {
        let unsent = self.unsent.borrow();
        let held = self.stack.borrow().held_bytes();
        unsent.bytes.len() - unsent.sent + held
    }

    /// What it holds of its core's bound.
    pub fn holding(&self) -> &Holding {
        &self.holding
    }

    /// Books what it holds now. What a dead connection holds is on its way out.
    fn book(&self) {
        let waiting = if self.is_dead.get() {
            None
        } else {
            let unsent = self.unsent.borrow();
            let unsent = unsent.bytes.len() - unsent.sent;
            Some(unsent + self.stack.borrow().waiting_bytes() + self.other_bytes())
        };
        self.holding.book(waiting);
    }

    /// Books answers of this pass that are not on their way yet, once they are worth it.
    pub fn book_if_grown(&self) {
        const STEP_BYTES: usize = 64 << 10;
        let waiting = self.stack.borrow().waiting_bytes() + self.other_bytes();
        if self.holding.bytes() + STEP_BYTES <= waiting {
            self.book();
        }
    }

    /// A reply under way in slices has become longer, or is no more.
    pub fn change_building(&self, before: usize, now: usize) {
        self.holding.change_building(before, now);
        self.book();
        self.holding.note_progress();
    }

    /// Ends the calls whose answers wait or are under way, to free what they hold; the latter end when
    /// their turn comes. Returns how many ended at once.
    pub fn give_up<S: Service>(&self, service: &mut S) -> usize {
        let ended = self.with_grpc(|grpc| grpc.end_parked(GIVE_UP, service));
        let local = (true, Code::ResourceExhausted, GIVE_UP);
        let others = self.end_local(local, CancelReason::SlowReader, service);
        self.holding.give_up_building();
        self.book();
        ended.unwrap_or(0) + others
    }

    /// Ends calls that are not gRPC: those that hold answers, or all. Returns how many.
    fn end_local<S: Service>(
        &self,
        (only_holders, code, text): (bool, Code, &str),
        reason: CancelReason,
        service: &mut S,
    ) -> usize {
        let told = self.local.borrow_mut().end(only_holders, code, text);
        for (stream, method) in &told {
            service.on_cancel(*stream, *method, reason);
        }
        told.len()
    }

    /// Its socket takes no more for now.
    pub fn is_stuck(&self) -> bool {
        self.has_writer.get() && !self.is_dead.get()
    }

    /// Lets the HTTP/1.1 task look at new input.
    pub fn wake_http1(&self) {
        if let Some(waker) = self.http1_waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Drives HTTP/1.1 requests until the connection is over.
    pub async fn drive_http1(self: Rc<Self>) {
        std::future::poll_fn(|cx| {
            let polled = match &mut self.stack.borrow_mut().protocol {
                Protocol::Http1(session) => session.poll(cx).map(|_| ()),
                _ => std::task::Poll::Ready(()),
            };
            *self.http1_waker.borrow_mut() = Some(cx.waker().clone());
            self.flush();
            // Requests may have been taken up: the reading task looks whether there is room.
            self.room.notify();
            if self.is_dead.get() {
                std::task::Poll::Ready(())
            } else {
                polled
            }
        })
        .await;
        self.end();
        self.stack.borrow_mut().protocol = Protocol::Over;
        self.room.notify();
    }

    /// The peer sends nothing more. Returns what is still to be counted.
    pub fn input_ended<S: Service>(&self, service: &mut S) -> LastCounts {
        let mut last = LastCounts::default();
        let gone = (false, Code::Canceled, "context canceled");
        self.end_local(gone, CancelReason::Disconnected, service);
        let mut local = self.local.borrow_mut();
        local.take_ended(|ended| last.ended.push(ended));
        drop(local);
        let stack = &mut *self.stack.borrow_mut();
        match &mut stack.protocol {
            Protocol::Grpc(grpc) => {
                grpc.on_closed(service);
                grpc.take_ended(|ended| last.ended.push(ended));
                last.limits = grpc.take_stats().limits;
                stack.protocol = Protocol::Over;
            }
            Protocol::Http1(session) => session.feed_eof(),
            Protocol::Sniffing(_) | Protocol::Over => stack.protocol = Protocol::Over,
        }
        last
    }

    /// Its HTTP/1.1 task still runs and will end the connection.
    pub fn is_answering_http1(&self) -> bool {
        !self.is_dead.get() && matches!(self.stack.borrow().protocol, Protocol::Http1(_))
    }

    /// Starts the graceful end: GOAWAY, or the end of the HTTP/1.1 request in progress.
    pub fn drain(self: &Rc<Self>) {
        let is_idle = {
            let stack = &mut *self.stack.borrow_mut();
            match &mut stack.protocol {
                Protocol::Grpc(grpc) => {
                    grpc.shutdown();
                    false
                }
                Protocol::Http1(session) => {
                    session.shutdown();
                    false
                }
                Protocol::Sniffing(_) | Protocol::Over => true,
            }
        };
        self.wake_http1();
        if is_idle {
            self.kill();
        } else {
            self.flush();
        }
    }

    /// Nothing is under way any more, so the socket may be closed.
    pub fn is_drained(&self) -> bool {
        let unsent = self.unsent.borrow();
        unsent.sent == unsent.bytes.len()
            && self.local.borrow().is_empty()
            && match &self.stack.borrow().protocol {
                Protocol::Grpc(grpc) => grpc.is_finished(),
                Protocol::Http1(session) => session.is_idle(),
                Protocol::Sniffing(_) | Protocol::Over => true,
            }
    }
}

impl Unsent {
    fn reset(&mut self) {
        self.bytes.clear();
        self.sent = 0;
        if self.bytes.capacity() > SPARE_BYTES_MAX {
            self.bytes = Vec::new();
        }
    }
}
