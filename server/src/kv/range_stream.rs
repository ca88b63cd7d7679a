//! Streams a range as several replies.
//!
//! Always true: all parts come from one revision; the last message alone has a header, `more` and `count`; sizes follow
//! etcd's rule: ten keys first, then twice or half as many as the last message was small or large. Runs on the net cores,
//! in steps. Does not check the request.

use std::ops::ControlFlow;

use wire::error::EtcdError;
use wire::kv::{
    RangeRequestRef, ResponseHeader, put_range_end, put_range_header, put_range_stream_response,
};

use super::range::{Budget, Records};
use super::store::{KeyRange, Progress, ReadStore, ScanMode};

/// Keys of the first message.
const FIRST_CHUNK_KEYS: u64 = 10;

/// What a step of a stream came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StreamProgress {
    /// The budget is used up; nothing to send.
    More,
    /// A `RangeStreamResponse` was appended; others follow.
    Message,
    /// The last `RangeStreamResponse` was appended.
    LastMessage,
}

/// A streamed range under way.
pub struct RangeStreamJob<Scan> {
    key: Vec<u8>,
    end: Vec<u8>,
    scan: Option<Scan>,
    is_scanned: bool,
    header: ResponseHeader,
    limit: Option<u64>,
    records: Records,
    count_only: bool,
    /// Size a message should have: max-request-bytes.
    target_bytes: usize,
    /// Keys the message being built may have. The user's limit is the scan's business.
    chunk_keys_max: u64,
    chunk_keys: u64,
    /// Records of the message being built.
    chunk: Vec<u8>,
    /// The first record of the next message, which was read to learn that there is one.
    ahead: Vec<u8>,
    message: Vec<u8>,
}

impl<Scan> RangeStreamJob<Scan> {
    /// Begins a checked request. `target_bytes` is the server's max-request-bytes.
    pub fn begin<S: ReadStore<Scan = Scan>>(
        store: &S,
        request: &RangeRequestRef<'_>,
        header: &ResponseHeader,
        target_bytes: usize,
    ) -> Result<Self, EtcdError> {
        // A negative limit is none, and etcd then sends everything in one message.
        let is_one_message = request.limit < 0;
        let limit = u64::try_from(request.limit).ok().filter(|&limit| limit > 0);
        let mode = if request.count_only {
            ScanMode::Count
        } else {
            let limit = limit.map_or(0, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
            ScanMode::Items { limit }
        };
        let range = KeyRange::new(request.key, request.range_end);
        let scan = store.scan(range, request.revision, mode)?;
        let chunk_keys_max = if is_one_message {
            u64::MAX
        } else {
            FIRST_CHUNK_KEYS
        };
        Ok(RangeStreamJob {
            key: request.key.to_vec(),
            end: request.range_end.to_vec(),
            header: ResponseHeader {
                revision: store.scan_revision(&scan),
                ..*header
            },
            scan: Some(scan),
            is_scanned: false,
            limit,
            records: Records::of(request),
            count_only: request.count_only,
            target_bytes,
            chunk_keys_max,
            chunk_keys: 0,
            chunk: Vec::new(),
            ahead: Vec::new(),
            message: Vec::new(),
        })
    }

    /// Works on the next message and appends it to `out` when it is complete.
    pub fn step<S: ReadStore<Scan = Scan>>(
        &mut self,
        store: &S,
        budget: Budget,
        out: &mut Vec<u8>,
    ) -> Result<StreamProgress, EtcdError> {
        if !self.ahead.is_empty() {
            self.chunk.append(&mut self.ahead);
            self.chunk_keys = 1;
        }
        if self.is_scanned {
            self.put_last_message(store, out);
            return Ok(StreamProgress::LastMessage);
        }
        let scan = self.scan.as_mut().expect("a stream ends once");
        let chunk = &mut self.chunk;
        let ahead = &mut self.ahead;
        let chunk_keys = &mut self.chunk_keys;
        let bytes_end = chunk.len().saturating_add(budget.bytes);
        let records = self.records;
        let chunk_keys_max = self.chunk_keys_max;
        let range = KeyRange::new(&self.key, &self.end);
        let progress = store.step(scan, range, budget.keys, &mut |item| {
            let is_full = *chunk_keys == chunk_keys_max;
            let target = if is_full { &mut *ahead } else { &mut *chunk };
            records.put(item, &item.meta(), target);
            if is_full {
                return ControlFlow::Break(());
            }
            *chunk_keys += 1;
            if chunk.len() < bytes_end {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        })?;
        self.is_scanned = progress == Progress::Done;
        if !self.ahead.is_empty() {
            self.put_message(out);
            return Ok(StreamProgress::Message);
        }
        if progress == Progress::More {
            return Ok(StreamProgress::More);
        }
        self.put_last_message(store, out);
        Ok(StreamProgress::LastMessage)
    }

    fn put_message(&mut self, out: &mut Vec<u8>) {
        put_range_stream_response(out, &self.chunk);
        // etcd judges by the reply it cut the part from, which has a few bytes more; the rule is a rough one.
        let sent_bytes = self.chunk.len();
        if sent_bytes < self.target_bytes / 2 {
            self.chunk_keys_max = self.chunk_keys_max.saturating_mul(2);
        } else if sent_bytes > self.target_bytes.saturating_mul(2) {
            self.chunk_keys_max = (self.chunk_keys_max / 2).max(1);
        }
        self.chunk.clear();
        self.chunk_keys = 0;
    }

    fn put_last_message<S: ReadStore<Scan = Scan>>(&mut self, store: &S, out: &mut Vec<u8>) {
        let scan = self.scan.take().expect("a stream ends once");
        let count = store.scan_count(&scan) as u64;
        let more = !self.count_only && self.limit.is_some_and(|limit| count > limit);
        self.message.clear();
        put_range_header(&mut self.message, &self.header);
        self.message.append(&mut self.chunk);
        put_range_end(&mut self.message, more, count as i64);
        put_range_stream_response(out, &self.message);
    }
}
