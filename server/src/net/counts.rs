//! What a net core counts and logs at the end of a pass, and what the scraper shows beside that.
//!
//! Always true here: nothing is decided. Times of calls are booked once a pass; see [`super::books`].

use std::time::Duration;

use wire::grpc::CallKind;

use crate::metrics::Published;
use crate::services::methods::METHODS;

use super::books::{self, Work};
use super::connection::Connection;
use super::core::NetCore;

impl NetCore {
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
            ("backups", state.backups.len() as u64),
            ("connections", connections.len() as u64),
            ("errands", self.errands.len() as u64),
            ("json_calls", self.gateway.running() as u64),
            ("leases", state.leases.waiting() as u64),
            ("long_reads", state.long_reads_running as u64),
            ("plain_requests", state.plain_running as u64),
            ("proposals", state.proposals.waiting() as u64),
            ("reads", state.reads.waiting() as u64),
        ];
        Published {
            answer_bytes: self.held.bytes() as u64,
            answers_given_up: self.held.calls_ended(),
            http2: limits.named().collect(),
            closed,
            queues,
        }
    }

    /// Counts the calls that ended on a connection in this pass.
    pub(super) fn count_calls(&self, connection: &Connection) {
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
        let mut local = connection.local().borrow_mut();
        let sent = local.take_message_bytes();
        if sent != 0 {
            state.metrics.counters.client_grpc_sent_bytes.add(sent);
        }
        local.take_ended(|ended| state.books.call_ended(&ended, now_ns));
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
