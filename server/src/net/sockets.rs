//! A connection's way through a net core: accepted, read, closed.
//!
//! Always true here: one task reads each connection, and that task alone closes it; everybody else
//! shuts the socket down and leaves the rest to it.

use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use crate::runtime::{Class, Listener, Socket, sleep, spawn};
use crate::tls::TlsSession;

use super::admission::{Shortage, Verdict};
use super::calls::Calls;
use super::connection::{Connection, ConnectionKey};
use super::core::NetCore;
use super::http_client::{HttpClient, Serves};
use super::stack::{Next, Protocols};
use super::table::ConnectionTable;

/// Pause after the process ran out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Pause before a new connection that waits for room is decided on again.
const WAIT_PAUSE: Duration = Duration::from_millis(2);

impl NetCore {
    /// The member is ready: its clients are let in.
    pub(super) fn serve(self: &Rc<Self>) {
        for bound in self.listeners.borrow_mut().drain(..) {
            if self.id.0 == 0 {
                tracing::info!(
                    address = %bound.shown,
                    secure = bound.is_tls,
                    "ready to serve client requests"
                );
            }
            let listener = match Listener::watch(bound.socket) {
                Ok(listener) => Rc::new(listener),
                Err(error) => crate::fatal::fatal("a listening socket cannot be watched", &error),
            };
            let kind = (bound.is_tls, bound.serves);
            self.open_listeners.borrow_mut().push(listener.clone());
            spawn(Class::Request, self.clone().accept(listener, kind));
        }
    }

    /// Accepts connections until the member stops.
    async fn accept(self: Rc<Self>, listener: Rc<Listener>, kind: (bool, Serves)) {
        while !self.shared.is_stopping() {
            match listener.accept().await {
                Ok(socket) => {
                    if self.await_room().await {
                        self.open(socket, kind);
                    } else {
                        self.count_end("too_many_connections");
                    }
                }
                Err(error) if is_shortage(&error) => {
                    // The client waits in the kernel's queue; it is accepted once there is room.
                    self.relieve();
                    sleep(ACCEPT_PAUSE).await;
                }
                Err(_) if self.shared.is_stopping() => return,
                Err(error) => {
                    // The client has gone again before it was let in.
                    tracing::debug!(error = %error, "a connection ended before it was accepted");
                    self.count_end("gone_before_accepted");
                }
            }
        }
    }

    /// Whether one more connection may be let in; makes room for it if it can.
    async fn await_room(&self) -> bool {
        loop {
            if self.shared.is_stopping() {
                return false;
            }
            match self.ask_for_room() {
                Verdict::Admit | Verdict::Replace(_) => return true,
                Verdict::Refuse => return false,
                Verdict::Wait => sleep(WAIT_PAUSE).await,
            }
        }
    }

    fn ask_for_room(&self) -> Verdict {
        let connections = self.connections.borrow();
        let mut admission = self.admission.borrow_mut();
        let now_ns = self.clock.now_ns();
        let open = connections.len() + self.closing.borrow().len();
        let verdict = admission.decide(now_ns, open, |key| is_silent(&connections, key));
        if verdict != Verdict::Admit {
            admission.note(now_ns, verdict, Shortage::Connections, open);
        }
        if let Verdict::Replace(key) = verdict
            && let Some(connection) = connections.get(key)
        {
            connection.replace();
        }
        verdict
    }

    /// The system has no descriptor left: somebody who never spoke gives theirs.
    fn relieve(&self) {
        let connections = self.connections.borrow();
        let mut admission = self.admission.borrow_mut();
        let now_ns = self.clock.now_ns();
        let verdict = admission.relieve(now_ns, |key| is_silent(&connections, key));
        admission.note(now_ns, verdict, Shortage::Descriptors, connections.len());
        if let Verdict::Replace(key) = verdict
            && let Some(connection) = connections.get(key)
        {
            connection.replace();
        }
    }

    fn open(self: &Rc<Self>, socket: Socket, (is_tls, serves): (bool, Serves)) {
        let now_ns = self.clock.now_ns();
        let tls = self.tls.as_ref().filter(|_| is_tls).map(|reloader| {
            let config = reloader.borrow_mut().current(Instant::now()).clone();
            TlsSession::new(config)
        });
        let connection = self
            .connections
            .borrow_mut()
            .insert(|key| Connection::new(key, &socket, tls, serves, now_ns, self.held.clone()));
        self.admission.borrow_mut().entered(connection.key, now_ns);
        spawn(Class::Request, self.clone().read(socket, connection));
    }

    /// Connections whose peers have ended their direction and not taken all of ours.
    pub(super) fn closing(&self) -> Vec<Rc<Connection>> {
        let closing = self.closing.borrow();
        closing.iter().filter_map(Weak::upgrade).collect()
    }

    /// Gives up on last words that nobody takes: nothing else would ever end such a connection.
    pub(super) fn end_closing(&self, now_ns: u64) {
        self.closing.borrow_mut().retain(|held| {
            let Some(connection) = held.upgrade() else {
                return false;
            };
            if let Some(limit) = connection.overdue(now_ns) {
                // Counted when its peer ended its direction.
                connection.kill_for(limit);
            }
            true
        });
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
            serves: connection.serves,
            client: &|| HttpClient::new(self, connection),
        };
        let next = {
            let buffer = self.receive_buffer.borrow();
            let mut state = self.state.borrow_mut();
            state.now_ns = now_ns;
            state.serves = connection.serves;
            let mut calls = Calls {
                state: &mut state,
                connection: connection.key,
                common_name: &connection.common_name,
                acts_for: None,
            };
            let next = connection.receive(&buffer[..received], now_ns, &protocols, &mut calls);
            state.end_pass();
            next
        };
        self.count_calls(connection);
        connection.flush();
        connection.wake_http1();
        self.start_plain();
        self.end_pass();
        next
    }

    /// Serves what a pass of requests has made ready, and sends it.
    pub(super) fn end_pass(self: &Rc<Self>) {
        self.start_errands();
        self.run_ready_reads();
        if self.serve_watchers(false) {
            self.inbox_signal.notify();
        }
        self.keep_held_bounded();
        // Nobody else may come to send what was answered here just now.
        self.flush_dirty();
        self.settle();
    }

    fn close(&self, connection: &Rc<Connection>, reason: &'static str) {
        let mut state = self.state.borrow_mut();
        let mut calls = Calls {
            state: &mut state,
            connection: connection.key,
            common_name: &connection.common_name,
            acts_for: None,
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
        if connection.is_stuck() || connection.is_answering_http1() {
            let mut closing = self.closing.borrow_mut();
            closing.push(Rc::downgrade(connection));
        }
        let reason = connection.end_reason().unwrap_or(reason);
        if let Some(rejection) = connection.rejection(reason) {
            let mut rejections = self.rejections.borrow_mut();
            rejections.log(self.clock.now_ns(), connection.peer, &rejection);
        }
        self.count_end(reason);
        self.connections.borrow_mut().remove(connection.key);
        if connection.is_replaced() {
            self.admission.borrow_mut().gone();
        }
    }

    pub(super) fn count_end(&self, reason: &'static str) {
        *self.ended.borrow_mut().entry(reason).or_default() += 1;
    }
}

fn is_silent(connections: &ConnectionTable, key: ConnectionKey) -> bool {
    connections.get(key).is_some_and(|held| held.is_silent())
}

/// Whether the system lacks something that it may have again later.
fn is_shortage(error: &std::io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::ENOSPC)
    )
}
