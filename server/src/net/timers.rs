//! What time does to a net core: deadlines, expired proposals and reads, silent connections, the end.
//!
//! Always true here: one task looks, more often while something waits; nothing else on the core owns a
//! timer for each call or connection.

use std::rc::Rc;
use std::time::{Duration, Instant};

use wire::error::EtcdError;

use crate::runtime::sleep;
use crate::watch::STREAM_STOPPED;

use super::admission;
use super::calls::Calls;
use super::connection::Connection;
use super::core::NetCore;

/// The timer task looks this often while calls or proposals wait, and less often otherwise.
const BUSY_TICK: Duration = Duration::from_millis(50);
const IDLE_TICK: Duration = Duration::from_millis(500);

impl NetCore {
    /// Deadlines, keepalive, expired proposals, and the end of a drained connection.
    pub async fn keep_time(self: Rc<Self>) {
        loop {
            let is_busy = {
                let state = self.state.borrow();
                state.proposals.waiting() > 0
                    || state.reads.is_waiting()
                    || state.leases.is_waiting()
                    || state.auth_calls.is_waiting()
            };
            sleep(if is_busy { BUSY_TICK } else { IDLE_TICK }).await;
            self.on_tick();
            if self.shared.is_stopping() {
                return;
            }
        }
    }

    fn on_tick(self: &Rc<Self>) {
        let now_ns = self.clock.now_ns();
        self.state.borrow_mut().now_ns = now_ns;
        let expired = self.state.borrow_mut().proposals.take_expired(now_ns);
        for pending in expired {
            self.state.borrow().metrics.counters.proposals_failed.inc();
            self.fail_write(&pending, EtcdError::Timeout);
        }
        self.expire_auth_calls(now_ns);
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
                common_name: &connection.common_name,
                acts_for: None,
            };
            let due = connection.with_grpc(|grpc| {
                let is_due = grpc.next_timer_ns().is_some_and(|at_ns| at_ns <= now_ns);
                is_due.then(|| grpc.on_timer(now_ns, &mut calls))
            });
            match due.flatten() {
                Some(Ok(())) => connection.flush(),
                Some(Err(_)) => {
                    connection.end();
                    connection.kill_for("http2_timeout");
                }
                None => {
                    if let Some(limit) = connection.overdue(now_ns) {
                        connection.kill_for(limit);
                    }
                }
            }
        }
        state.end_pass();
        drop(state);
        self.end_closing(now_ns);
        if let Some(episode) = self.admission.borrow_mut().take_ended(now_ns) {
            admission::log_end(&episode);
        }
        self.flush_dirty();
        self.settle();
    }

    /// Ends all connections in good order: GOAWAY, open calls finish, then the sockets close.
    pub async fn drain(self: &Rc<Self>, patience: Duration) {
        let until = Instant::now() + patience;
        for listener in self.open_listeners.borrow_mut().drain(..) {
            listener.close();
        }
        // A watch never ends by itself; its client goes on elsewhere, from where it was.
        self.end_watches(STREAM_STOPPED, false);
        let connections: Vec<Rc<Connection>> = self.connections.borrow().iter().cloned().collect();
        for connection in &connections {
            connection.drain();
        }
        self.end_keep_alives();
        while Instant::now() < until && connections.iter().any(|held| !held.is_drained()) {
            self.on_tick();
            sleep(Duration::from_millis(10)).await;
        }
        for connection in &connections {
            connection.end();
            connection.kill();
        }
    }
}
