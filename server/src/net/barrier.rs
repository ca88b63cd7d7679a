//! Reads on the member's own behalf, for its health checks.
//!
//! Always true here: such a read waits among those of clients, shares their confirmation and has their
//! time limit; it answers nobody but the task that asked.

use std::rc::Rc;
use std::time::Duration;

use wire::error::EtcdError;
use wire::grpc::{MethodId, StreamId};

use crate::metrics::RequestType;
use crate::runtime::Signal;

use super::connection::ConnectionKey;
use super::core::NetCore;

/// A read of the member's own that waits for its index.
pub(super) struct Barrier {
    ended: Signal,
    result: Option<Result<(), EtcdError>>,
}

/// Stands for such a read among those of clients.
pub(super) const BARRIER: MethodId = MethodId(u16::MAX);

impl NetCore {
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
                .add(nobody, StreamId(number), BARRIER, b"", now_ns, None);
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

    pub(super) fn end_barrier(&self, number: StreamId, result: Result<(), EtcdError>) {
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
}
