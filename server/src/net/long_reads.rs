//! Reads cut into slices: ranges, streamed ranges, read-only transactions, hashes.
//!
//! The first slice runs where the request is handled, so a small read never leaves that pass; what
//! is not done then goes on in the background, one slice of each read in turn, between the requests
//! of other clients. Always true here: a read sees one revision from its first slice to its last; it
//! ends early when its client has gone; a stream pauses while its client does not take messages.

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use prost::Message;
use storage::mvcc::{HashJob, ReadError, Reader, Scan};
use storage::tree::Snapshot;
use wire::error::EtcdError;
use wire::grpc::{Code, MethodId, StreamId};
use wire::kv::{RangeRequestRef, ResponseHeader};
use wire::messages::etcdserverpb::HashKvRequest;

use crate::kv::range::{Budget, RangeJob};
use crate::kv::range_stream::{RangeStreamJob, StreamProgress};
use crate::kv::read_txn::ReadTxnJob;
use crate::kv::store::Progress;
use crate::metrics::CoreMetrics;
use crate::runtime::{sleep, yield_now};
use crate::services::methods::id;
use crate::services::status;
use crate::store::Reads;

use super::books::{Ended, Work, describe_read, read_prefix};
use super::connection::ConnectionKey;
use super::core::{NetCore, fail};
use super::counts::log_slow_read;
use super::held::GIVE_UP;

/// Reads of one net core that may be under way in slices; above it clients get
/// `etcdserver: too many requests`. Each holds its reply so far.
pub const LONG_READS_MAX: usize = 1024;
/// Bytes of their replies together above which no further one begins; the same answer.
pub const LONG_READ_BYTES_MAX: usize = 2 << 30;
/// gRPC's largest message.
const REPLY_BYTES_MAX: usize = i32::MAX as usize;
/// A stream pauses above this many bytes that its client has not taken.
const STREAM_BACKLOG_MAX: usize = 4 << 20;
/// Pause when every read waits for its client.
const BACKLOG_PAUSE: Duration = Duration::from_millis(10);

/// A read that was not done after its first slice.
pub struct LongRead {
    pub connection: ConnectionKey,
    pub stream: StreamId,
    pub method: MethodId,
    /// When its request came, and when the store was first asked.
    pub started_ns: u64,
    pub begun_ns: u64,
    /// Of the rights it was begun under; 0 for nobody's.
    pub auth_revision: u64,
    /// For the log, should it take too long.
    pub request: Box<[u8]>,
    pub job: ReadJob,
    pub reply: Vec<u8>,
    /// What of the reply its connection has booked, and how often that had given up by then.
    pub booked: Option<(usize, u32)>,
}

/// What a slice came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadOutcome {
    /// The reply is whole.
    Done,
    More,
    /// One message of a stream is whole; others follow.
    Message,
    /// The last message of a stream is whole.
    LastMessage,
}

/// The kinds of sliced reads; memory is kept from one range to the next.
#[derive(Default)]
pub struct ReadJob {
    range: RangeJob<Scan>,
    other: Option<Other>,
    /// Ranges the store was asked for.
    ranges: Cell<u64>,
}

enum Other {
    Stream(Box<RangeStreamJob<Scan>>),
    Txn(Box<ReadTxnJob<Scan>>),
    Hash(Box<HashJob>, ResponseHeader),
}

/// Stored revisions that one slice of a hash works off; about 100 µs.
const HASH_BUDGET: usize = 512;

impl ReadJob {
    /// Begins a request that was decoded and checked before. `stream_target_bytes` is what messages of
    /// a stream are measured by: max-request-bytes, as in etcd.
    pub fn begin(
        &mut self,
        (method, request): (MethodId, &[u8]),
        reader: &Reader<Snapshot>,
        header: &ResponseHeader,
        stream_target_bytes: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), EtcdError> {
        const CHECKED: &str = "the request was decoded before it was parked";
        let store = Reads {
            reader,
            ranges: &self.ranges,
            // A stream lasts as long as its client likes and must not hold compactions up.
            is_pinned: method != id::KV_RANGE_STREAM,
        };
        self.other = None;
        match method {
            id::KV_RANGE => {
                let request = RangeRequestRef::decode(request).expect(CHECKED);
                self.range.begin(&store, &request, header, out)?;
            }
            id::KV_RANGE_STREAM => {
                let request = RangeRequestRef::decode(request).expect(CHECKED);
                let job = RangeStreamJob::begin(&store, &request, header, stream_target_bytes)?;
                self.other = Some(Other::Stream(Box::new(job)));
            }
            id::KV_TXN => {
                let mut job = Box::<ReadTxnJob<Scan>>::default();
                job.begin(&store, request, header);
                self.other = Some(Other::Txn(job));
            }
            id::MAINTENANCE_HASH_KV => {
                let request = HashKvRequest::decode(request).expect(CHECKED);
                let job = HashJob::new(reader, request.revision).map_err(refusal)?;
                self.other = Some(Other::Hash(Box::new(job), *header));
            }
            other => unreachable!("method {other:?} is no read"),
        }
        Ok(())
    }

    /// Does one slice.
    pub fn step(
        &mut self,
        reader: &Reader<Snapshot>,
        out: &mut Vec<u8>,
    ) -> Result<ReadOutcome, EtcdError> {
        let store = Reads {
            reader,
            ranges: &self.ranges,
            is_pinned: true,
        };
        let budget = Budget::default();
        let progress = match &mut self.other {
            None => self.range.step(&store, budget, out)?,
            Some(Other::Txn(job)) => job.step(&store, budget, out)?,
            Some(Other::Hash(job, header)) => {
                let progress = job.step(reader, HASH_BUDGET).map_err(refusal)?;
                if progress == storage::mvcc::Progress::More {
                    return Ok(ReadOutcome::More);
                }
                status::put_hash_kv(out, header, job);
                Progress::Done
            }
            Some(Other::Stream(job)) => {
                return Ok(match job.step(&store, budget, out)? {
                    StreamProgress::More => ReadOutcome::More,
                    StreamProgress::Message => {
                        // etcd ranges anew for each part.
                        self.ranges.set(self.ranges.get() + 1);
                        ReadOutcome::Message
                    }
                    StreamProgress::LastMessage => ReadOutcome::LastMessage,
                });
            }
        };
        Ok(match progress {
            Progress::More => ReadOutcome::More,
            Progress::Done => ReadOutcome::Done,
        })
    }

    /// Counts the ranges of a read that is over, and says how many they were.
    pub fn count(&self, metrics: &CoreMetrics) -> u64 {
        let ranges = self.ranges.take();
        metrics.counters.mvcc_range.add(ranges);
        // Parts of a stream are transactions of one range each.
        if ranges > 1 && matches!(self.other, Some(Other::Txn(_))) {
            metrics.counters.mvcc_txn.inc();
        }
        ranges
    }
}

fn refusal(error: ReadError) -> EtcdError {
    match error {
        ReadError::Compacted { .. } => EtcdError::Compacted,
        ReadError::Future { .. } => EtcdError::FutureRevision,
    }
}

/// Works off the long reads of a net core until all are done.
pub async fn run(core: Rc<NetCore>) {
    loop {
        let mut reads: VecDeque<LongRead> = core.state.borrow_mut().long_reads.drain(..).collect();
        if reads.is_empty() {
            return core.long_reads_ended();
        }
        let mut paused = 0;
        while let Some(mut read) = reads.pop_front() {
            let before = read.reply.len();
            let slice = slice(&core, &mut read);
            let held = if matches!(slice, Slice::Over) {
                0
            } else {
                read.reply.len()
            };
            {
                let mut state = core.state.borrow_mut();
                state.long_read_bytes = (state.long_read_bytes + held).saturating_sub(before);
            }
            book_reply(&core, &mut read, held);
            core.keep_held_bounded();
            match slice {
                Slice::Over => {
                    paused = 0;
                    core.state.borrow_mut().long_reads_running -= 1;
                }
                Slice::Worked => {
                    paused = 0;
                    reads.push_back(read);
                }
                Slice::Paused => {
                    paused += 1;
                    reads.push_back(read);
                    if paused < reads.len() {
                        continue;
                    }
                    sleep(BACKLOG_PAUSE).await;
                    paused = 0;
                }
            }
            core.flush_dirty();
            core.settle();
            yield_now().await;
            reads.extend(core.state.borrow_mut().long_reads.drain(..));
        }
    }
}

enum Slice {
    Over,
    Worked,
    /// The client has not taken what it was sent.
    Paused,
}

fn slice(core: &NetCore, read: &mut LongRead) -> Slice {
    let Some(backlog) = core.backlog(read.connection, read.stream) else {
        return Slice::Over;
    };
    if has_given_up(core, read) {
        core.respond(read.connection, |out| {
            out.error(read.stream, Code::ResourceExhausted, GIVE_UP);
        });
        core.held.count_call();
        book(core, read, false);
        return Slice::Over;
    }
    if backlog > STREAM_BACKLOG_MAX {
        return Slice::Paused;
    }
    let outcome = {
        let mut state = core.state.borrow_mut();
        state.now_ns = core.clock.now_ns();
        let outcome = read.job.step(&state.reader, &mut read.reply);
        match state.auth.is_current(read.auth_revision) {
            true => outcome,
            false => outcome.and(Err(EtcdError::AuthOldRevision)),
        }
    };
    let stream = read.stream;
    let reply = &mut read.reply;
    match outcome {
        Ok(_) if reply.len() > REPLY_BYTES_MAX => core.respond(read.connection, |out| {
            let text = format!(
                "grpc: trying to send message larger than max ({} vs. {REPLY_BYTES_MAX})",
                reply.len()
            );
            out.error(stream, Code::ResourceExhausted, &text);
        }),
        Ok(ReadOutcome::More) => return Slice::Worked,
        Ok(ReadOutcome::Done) => core.respond(read.connection, |out| {
            out.unary(stream, |buffer| buffer.extend_from_slice(reply));
        }),
        Ok(ReadOutcome::Message) => {
            core.respond(read.connection, |out| {
                out.message(stream, |buffer| buffer.extend_from_slice(reply));
                core.state.borrow().books.sent(read.method);
            });
            reply.clear();
            return Slice::Worked;
        }
        Ok(ReadOutcome::LastMessage) => core.respond(read.connection, |out| {
            out.message(stream, |buffer| buffer.extend_from_slice(reply));
            core.state.borrow().books.sent(read.method);
            out.finish(stream, Code::Ok, "");
        }),
        Err(error) => core.respond(read.connection, |out| fail(out, stream, error)),
    }
    book(core, read, outcome.is_ok());
    Slice::Over
}

/// Tells the read's connection how long its reply is by now.
fn book_reply(core: &NetCore, read: &mut LongRead, held: usize) {
    let connections = core.connections.borrow();
    let Some(connection) = connections.get(read.connection) else {
        return;
    };
    let given_up = connection.holding().given_up();
    // What was booked before the connection gave up is booked out already.
    let before = match read.booked {
        Some((before, then)) if then == given_up => before,
        Some((_, then)) => {
            read.booked = Some((0, then));
            return;
        }
        None => 0,
    };
    connection.change_building(before, held);
    read.booked = Some((held, given_up));
}

/// Whether the read's connection had to give up what it held since the read was begun.
fn has_given_up(core: &NetCore, read: &LongRead) -> bool {
    let connections = core.connections.borrow();
    let given_up = connections
        .get(read.connection)
        .map(|held| held.holding().given_up());
    read.booked
        .is_some_and(|(_, then)| given_up.is_some_and(|now| now != then))
}

/// Counts a long read that is over.
fn book(core: &NetCore, read: &LongRead, success: bool) {
    let now_ns = core.clock.now_ns();
    let since = |from_ns: u64| Duration::from_nanos(now_ns.saturating_sub(from_ns));
    let state = &mut *core.state.borrow_mut();
    let ranges = read.job.count(&state.metrics);
    match read.method {
        id::KV_RANGE | id::KV_RANGE_STREAM => {
            state
                .books
                .long_range(success, since(read.begun_ns), ranges);
        }
        id::MAINTENANCE_HASH_KV if success => {
            state
                .metrics
                .histograms
                .mvcc_hash_rev
                .observe(since(read.begun_ns));
        }
        _ => {}
    }
    let (took, wanted) = (since(read.started_ns), state.settings.warning_apply);
    if took > wanted
        && let Some(prefix) = read_prefix(read.method)
    {
        state.metrics.counters.slow_apply.inc();
        log_slow_read(
            took,
            wanted,
            prefix,
            &describe_read(read.method, &read.request),
        );
    }
    state.books.ended(Ended {
        connection: read.connection,
        method: read.method,
        work: Work::LongRead { success },
        started_ns: read.started_ns,
    });
}
