//! Linearizable reads that wait: first for a confirmation of leadership, then for their index.
//!
//! One confirmation is under way at a time; reads that arrive meanwhile share the next one (thesis
//! section 6.4). Always true here: batches are in the order of their contexts; a read is in exactly
//! one batch; request bytes live in their batch, whose memory is used again.

use std::collections::VecDeque;
use std::ops::Range;

use wire::grpc::{MethodId, StreamId};

use crate::auth::Identity;

use super::connection::ConnectionKey;

/// Reads of one net core that may wait at the same time; above it clients get
/// `etcdserver: too many requests`.
pub const READS_MAX: usize = 65_536;
/// Bytes of waiting requests of one net core; the same answer above it.
pub const READ_BYTES_MAX: usize = 256 << 20;
/// Spare memory kept for the next batch.
const SPARE_BYTES_MAX: usize = 1 << 20;

/// One read and where its request bytes lie in its batch.
#[derive(Clone, Debug)]
pub struct WaitingRead {
    pub connection: ConnectionKey,
    pub stream: StreamId,
    pub method: MethodId,
    pub started_ns: u64,
    /// Who asks; nobody while authentication is off.
    pub who: Option<Identity>,
    request: Range<usize>,
}

/// Reads under one context.
#[derive(Default, Debug)]
pub struct ReadBatch {
    context: u64,
    deadline_ns: u64,
    /// Known once leadership is confirmed.
    index: Option<u64>,
    requests: Vec<u8>,
    reads: Vec<WaitingRead>,
}

impl ReadBatch {
    pub fn reads(&self) -> &[WaitingRead] {
        &self.reads
    }

    pub fn request(&self, read: &WaitingRead) -> &[u8] {
        &self.requests[read.request.clone()]
    }

    fn clear(&mut self) {
        self.index = None;
        self.reads.clear();
        self.requests.clear();
        if self.requests.capacity() > SPARE_BYTES_MAX {
            self.requests = Vec::new();
        }
    }
}

#[derive(Default)]
pub struct Reads {
    /// Not yet asked for.
    gathering: ReadBatch,
    /// Asked for or confirmed, oldest first; only the last may be unconfirmed.
    asked: VecDeque<ReadBatch>,
    next_context: u64,
    waiting: usize,
    waiting_bytes: usize,
    spare: Vec<ReadBatch>,
}

impl Reads {
    pub fn is_waiting(&self) -> bool {
        self.waiting > 0
    }

    pub fn waiting(&self) -> usize {
        self.waiting
    }

    pub fn has_room(&self, request_bytes: usize) -> bool {
        self.waiting < READS_MAX && self.waiting_bytes + request_bytes <= READ_BYTES_MAX
    }

    pub fn add(
        &mut self,
        connection: ConnectionKey,
        stream: StreamId,
        method: MethodId,
        request: &[u8],
        started_ns: u64,
        who: Option<Identity>,
    ) {
        assert!(
            self.has_room(request.len()),
            "the caller asked for room first"
        );
        let batch = &mut self.gathering;
        let from = batch.requests.len();
        batch.requests.extend_from_slice(request);
        let request = from..batch.requests.len();
        self.waiting_bytes += request.len();
        self.waiting += 1;
        batch.reads.push(WaitingRead {
            connection,
            stream,
            method,
            started_ns,
            who,
            request,
        });
    }

    /// The context to ask a confirmation for, when reads wait and none is under way.
    pub fn ask(&mut self, deadline_ns: u64) -> Option<u64> {
        if self.gathering.reads.is_empty()
            || self.asked.back().is_some_and(|batch| batch.index.is_none())
        {
            return None;
        }
        let mut batch =
            std::mem::replace(&mut self.gathering, self.spare.pop().unwrap_or_default());
        self.next_context += 1;
        batch.context = self.next_context;
        batch.deadline_ns = deadline_ns;
        self.asked.push_back(batch);
        Some(self.next_context)
    }

    /// The batch asked for last could not be asked for after all: its reads gather again.
    pub fn unask(&mut self) {
        let mut batch = self.asked.pop_back().expect("asked for just now");
        assert!(self.gathering.reads.is_empty() && batch.index.is_none());
        std::mem::swap(&mut batch, &mut self.gathering);
        self.recycle(batch);
    }

    /// Leadership is confirmed: the reads of this context may run once `index` is applied.
    pub fn confirm(&mut self, context: u64, index: u64) {
        if let Some(batch) = self.asked.iter_mut().find(|batch| batch.context == context) {
            batch.index = Some(index);
        }
    }

    /// Whether [`Reads::take_ready`] would give a batch.
    pub fn is_ready(&self, applied: u64) -> bool {
        self.asked
            .front()
            .and_then(|batch| batch.index)
            .is_some_and(|index| index <= applied)
    }

    /// Takes out the oldest batch if everything it waits for has happened.
    pub fn take_ready(&mut self, applied: u64) -> Option<ReadBatch> {
        let index = self.asked.front()?.index?;
        if index > applied {
            return None;
        }
        self.take_front()
    }

    pub fn take_failed(&mut self, context: u64) -> ReadBatch {
        let place = self.asked.iter().position(|batch| batch.context == context);
        place
            .and_then(|place| self.asked.remove(place))
            .map_or_else(ReadBatch::default, |batch| {
                self.forget(&batch);
                batch
            })
    }

    /// Takes out the batches whose confirmation or application took too long.
    pub fn take_expired(&mut self, now_ns: u64) -> Vec<ReadBatch> {
        let mut expired = Vec::new();
        while self
            .asked
            .front()
            .is_some_and(|batch| batch.deadline_ns <= now_ns)
        {
            expired.extend(self.take_front());
        }
        expired
    }

    /// Whether some batch is confirmed and waits for its index.
    pub fn waits_for_apply(&self) -> bool {
        self.asked
            .front()
            .is_some_and(|batch| batch.index.is_some())
    }

    /// Gives a batch's memory back.
    pub fn recycle(&mut self, mut batch: ReadBatch) {
        batch.clear();
        if self.spare.len() < 4 {
            self.spare.push(batch);
        }
    }

    fn take_front(&mut self) -> Option<ReadBatch> {
        let batch = self.asked.pop_front()?;
        self.forget(&batch);
        Some(batch)
    }

    fn forget(&mut self, batch: &ReadBatch) {
        self.waiting -= batch.reads.len();
        self.waiting_bytes -= batch.requests.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(reads: &mut Reads, request: &[u8]) {
        reads.add(
            ConnectionKey::default(),
            StreamId(1),
            MethodId(0),
            request,
            0,
            None,
        );
    }

    #[test]
    fn one_confirmation_serves_all_that_waited() {
        let mut reads = Reads::default();
        assert_eq!(reads.ask(10), None);
        add(&mut reads, b"a");
        assert_eq!(reads.ask(10), Some(1));
        add(&mut reads, b"b");
        add(&mut reads, b"c");
        assert_eq!(reads.ask(20), None, "one is under way");
        reads.confirm(1, 7);
        assert_eq!(reads.ask(20), Some(2));
        assert!(reads.take_ready(6).is_none());
        let first = reads.take_ready(7).expect("index 7 is applied");
        assert_eq!(first.request(&first.reads()[0]), b"a");
        reads.recycle(first);
        reads.confirm(2, 7);
        let second = reads.take_ready(9).expect("confirmed and applied");
        let requests: Vec<&[u8]> = second.reads().iter().map(|r| second.request(r)).collect();
        assert_eq!(requests, [b"b", b"c"]);
        assert!(!reads.is_waiting());
    }

    #[test]
    fn a_failed_confirmation_takes_its_reads_alone() {
        let mut reads = Reads::default();
        add(&mut reads, b"a");
        reads.ask(10);
        add(&mut reads, b"b");
        assert_eq!(reads.take_failed(1).reads().len(), 1);
        assert_eq!(reads.take_failed(1).reads().len(), 0);
        assert_eq!(reads.ask(10), Some(2));
        assert_eq!(reads.take_expired(9).len(), 0);
        assert_eq!(reads.take_expired(10).len(), 1);
        assert!(!reads.is_waiting());
    }

    #[test]
    fn what_could_not_be_asked_gathers_again() {
        let mut reads = Reads::default();
        add(&mut reads, b"a");
        assert_eq!(reads.ask(10), Some(1));
        reads.unask();
        assert!(reads.is_waiting());
        assert_eq!(reads.ask(10), Some(2));
    }
}
