//! The sending half of a connection: open streams, flow control towards the client, and the output.
//!
//! Answers are written straight into the output when the windows allow, which is nearly always:
//! headers, one DATA frame whose lengths are filled in afterwards, and trailers. What the windows
//! do not allow is parked in its stream and follows when the client grants more, in turns of one
//! frame, so no stream starves another.
//!
//! Invariants
//! - A slot is in exactly one of three states: open (in `table`, id not 0), closed (in `closed`,
//!   waiting for the receiving half to clean up), or free (in `free`).
//! - `parked_bytes` is the sum of all parked bytes.
//! - Header blocks are encoded when they enter the output, never earlier: the encoder's table
//!   follows the wire.
//! - Trailers leave only after all parked bytes of their stream.

mod answers;
mod plain;
mod windows;

use std::collections::VecDeque;
use std::sync::Arc;

use super::head::Subtype;
use super::streams::StreamTable;
use crate::grpc::service::{CancelReason, MethodId};
use crate::grpc::stats::{ENDED_CALLS_MAX, EndedCall};
use crate::grpc::{Code, Limits, Stats, StreamId};
use crate::h2::budget::Budget;
use crate::h2::error::{ConnectionError, ErrorCode};
use crate::h2::flow::{SendWindow, WINDOW_BYTES_INITIAL};
use crate::h2::frame;
use crate::h2::hpack::encoder::{ContentType, Encoder};

pub(super) type Slot = u32;

/// Length prefix of a gRPC message: a flag and four bytes.
pub(super) const PREFIX_BYTES: usize = 5;

/// Parked buffers kept for reuse, and the largest one that is.
const SPARE_MAX: usize = 16;
const SPARE_BYTES_MAX: usize = 64 << 10;

/// Ids of the streams closed last, to tell late frames from wrong ones.
const RECENT_MAX: usize = 128;

/// What each answered call and each DATA frame explains in WINDOW_UPDATE frames.
const WINDOW_UPDATES_EARNED: u32 = 4;

#[derive(Debug)]
pub(crate) struct Sender {
    pub(super) limits: Arc<Limits>,
    pub(super) stats: Stats,
    /// Calls that ended since the driver last asked.
    pub(super) ended: Vec<EndedCall>,
    pub(super) now_ns: u64,
    pub(super) error: Option<ConnectionError>,
    /// Highest stream id the client has opened.
    pub(super) last_stream: u32,
    pub(super) open: u32,
    /// Slots whose receiving half must be cleaned up, with the reason the service must be told, if
    /// any.
    pub(super) closed: Vec<(Slot, Option<CancelReason>)>,
    /// HEADERS or DATA left since the last ping: pings are then excused (as grpc-go does).
    pub(super) sent_since_ping: bool,
    pub(super) parked_bytes: usize,
    /// Not before this time can a parked answer be stalled.
    pub(super) stall_due_ns: u64,
    /// How often the output was taken.
    pub(super) takes: u64,
    pub(super) window_updates: Budget,

    out: Vec<u8>,
    /// The frame that `out` ends with, if it is DATA that may take more of its stream's messages.
    tail: Tail,
    encoder: Encoder,
    table: StreamTable,
    streams: Vec<SendStream>,
    free: Vec<Slot>,
    /// The stream looked up last: callbacks answer the stream they are called for.
    hint: (u32, Slot),
    window: SendWindow,
    stream_window_initial: u32,
    frame_bytes_max: usize,
    header_list_bytes_max: u32,
    /// Streams with parked answers and room in their window; entries of closed streams are skipped.
    ready: VecDeque<(u32, Slot)>,
    control_bytes: usize,
    recent: [(u32, bool); RECENT_MAX],
    recent_next: usize,
    #[expect(clippy::vec_box, reason = "the boxes themselves are what is reused")]
    spare: Vec<Box<Parked>>,
    message: Vec<u8>,
}

#[derive(Debug)]
struct SendStream {
    id: u32,
    method: MethodId,
    started_ns: u64,
    /// The call is in the list of ended calls.
    is_listed: bool,
    /// Not a call: a DATA frame ends its answer, not trailers.
    is_plain: bool,
    subtype: Subtype,
    headers_sent: bool,
    /// The service has given its last answer.
    finished: bool,
    /// The client has half-closed.
    half_closed: bool,
    is_ready: bool,
    /// Parked messages may wait as long as the client likes.
    is_patient: bool,
    window: SendWindow,
    parked: Option<Box<Parked>>,
    subtype_text: Option<Box<[u8]>>,
}

/// A DATA frame in the output: whose, and where it begins and ends. Stream 0 has none.
#[derive(Debug, Default, Clone, Copy)]
struct Tail {
    id: u32,
    start: usize,
    end: usize,
}

/// What waits for flow control.
#[derive(Debug, Default)]
struct Parked {
    bytes: Vec<u8>,
    /// What has been sent of `bytes`.
    sent: usize,
    /// Part of a message has left, so that no status can follow.
    is_cut: bool,
    status: Option<(Code, String)>,
    progress_ns: u64,
}

impl Sender {
    pub(super) fn new(limits: Arc<Limits>, now_ns: u64) -> Self {
        Self {
            window_updates: Budget::new(limits.window_updates, now_ns),
            limits,
            stats: Stats::default(),
            ended: Vec::new(),
            now_ns,
            error: None,
            last_stream: 0,
            open: 0,
            closed: Vec::new(),
            sent_since_ping: false,
            parked_bytes: 0,
            stall_due_ns: u64::MAX,
            takes: 0,
            out: Vec::new(),
            tail: Tail::default(),
            encoder: Encoder::default(),
            table: StreamTable::new(),
            streams: Vec::new(),
            free: Vec::new(),
            hint: (0, 0),
            window: SendWindow::new(WINDOW_BYTES_INITIAL),
            stream_window_initial: WINDOW_BYTES_INITIAL,
            frame_bytes_max: frame::PAYLOAD_BYTES_MIN as usize,
            header_list_bytes_max: u32::MAX,
            ready: VecDeque::new(),
            control_bytes: 0,
            recent: [(0, false); RECENT_MAX],
            recent_next: 0,
            spare: Vec::new(),
            message: Vec::new(),
        }
    }

    // ---- streams ----

    #[inline]
    pub(super) fn slot(&mut self, id: u32) -> Option<Slot> {
        if self.hint.0 == id && id != 0 {
            return Some(self.hint.1);
        }
        let slot = self.table.get(id)?;
        self.hint = (id, slot);
        Some(slot)
    }

    #[inline]
    pub(super) fn is_half_closed(&self, slot: Slot) -> bool {
        self.streams[slot as usize].half_closed
    }

    pub(super) fn half_close(&mut self, slot: Slot) {
        self.streams[slot as usize].half_closed = true;
    }

    /// The slot still belongs to this stream, and the service may answer it.
    #[inline]
    pub(super) fn accepts(&self, slot: Slot, id: u32) -> bool {
        let stream = &self.streams[slot as usize];
        stream.id == id && !stream.finished
    }

    /// Opens a stream. The caller has checked that there is room.
    #[inline]
    pub(super) fn open(
        &mut self,
        id: u32,
        method: MethodId,
        half_closed: bool,
        subtype: Subtype,
        subtype_text: &[u8],
    ) -> Slot {
        let stream = SendStream {
            id,
            method,
            started_ns: self.now_ns,
            is_listed: false,
            is_plain: false,
            subtype,
            headers_sent: false,
            finished: false,
            half_closed,
            is_ready: false,
            is_patient: false,
            window: SendWindow::new(self.stream_window_initial),
            parked: None,
            subtype_text: (subtype == Subtype::Other).then(|| subtype_text.into()),
        };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.streams[slot as usize] = stream;
                slot
            }
            None => {
                self.streams.push(stream);
                (self.streams.len() - 1) as Slot
            }
        };
        self.table.insert(id, slot);
        self.hint = (id, slot);
        self.open += 1;
        slot
    }

    /// The receiving half has cleaned up.
    pub(super) fn free(&mut self, slot: Slot) {
        self.free.push(slot);
    }

    /// All open streams.
    pub(super) fn open_slots(&self) -> impl Iterator<Item = (Slot, StreamId)> {
        (0..)
            .zip(&self.streams)
            .filter(|(_, s)| s.id != 0)
            .map(|(slot, s)| (slot, StreamId(s.id)))
    }

    /// Forgets an open stream. `reason` reaches the service unless it had finished the call.
    pub(super) fn close(&mut self, slot: Slot, reason: CancelReason) {
        self.list_ended(slot, Code::Canceled);
        let stream = &mut self.streams[slot as usize];
        let id = std::mem::take(&mut stream.id);
        assert!(id != 0, "slot {slot} closed twice");
        let reason = (!stream.finished).then_some(reason);
        let half_closed = stream.half_closed;
        if let Some(parked) = stream.parked.take() {
            self.parked_bytes -= parked.bytes.len() - parked.sent;
            self.recycle(parked);
        }
        self.table.remove(id);
        self.hint = (0, 0);
        self.open -= 1;
        self.remember(id, !half_closed);
        self.closed.push((slot, reason));
    }

    /// Lists a call for the counters; the first code given for it stands.
    fn list_ended(&mut self, slot: Slot, code: Code) {
        let stream = &mut self.streams[slot as usize];
        if !std::mem::replace(&mut stream.is_listed, true) && self.ended.len() < ENDED_CALLS_MAX {
            let (method, started_ns) = (stream.method, stream.started_ns);
            self.ended.push(EndedCall {
                method,
                code,
                started_ns,
            });
        }
    }

    /// Notes a stream that is over; `by_us` if frames of it may still be under way.
    pub(super) fn remember(&mut self, id: u32, by_us: bool) {
        self.recent[self.recent_next % RECENT_MAX] = (id, by_us);
        self.recent_next = (self.recent_next + 1) % RECENT_MAX;
    }

    /// `Some(by_us)` if the stream was closed lately.
    pub(super) fn recently_closed(&self, id: u32) -> Option<bool> {
        // A stream may have been noted twice: closed, then reset by us for what came after.
        self.recent
            .iter()
            .filter(|(recent, _)| *recent == id)
            .map(|(_, by_us)| *by_us)
            .max()
    }

    // ---- control frames ----

    /// Writes a control frame. They are bounded between two takes of the output.
    pub(super) fn control(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if self.error.is_some() {
            return;
        }
        let before = self.out.len();
        write(&mut self.out);
        self.control_bytes += self.out.len() - before;
        if self.control_bytes > self.limits.control_bytes_max {
            self.stats.limits.control_bytes += 1;
            self.fail(ConnectionError::calm(
                "too many control frames while output is not taken",
            ));
        }
    }

    /// Ends the connection: GOAWAY, and nothing after it. The first reason stays.
    #[cold]
    pub(super) fn fail(&mut self, error: ConnectionError) {
        if self.error.is_none() {
            frame::put_goaway(&mut self.out, self.last_stream, error.code, error.reason);
            self.stats.error_reason = Some(error.reason);
            self.error = Some(error);
        }
    }

    /// Refuses a stream that is not open.
    pub(super) fn refuse_stream(&mut self, id: u32, code: ErrorCode) {
        self.stats.resets_sent += 1;
        self.control(|out| frame::put_rst_stream(out, id, code));
        self.remember(id, true);
    }

    /// Ends an open stream with an error of the transport.
    pub(super) fn reset(&mut self, slot: Slot, code: ErrorCode, reason: CancelReason) {
        let id = self.streams[slot as usize].id;
        self.stats.resets_sent += 1;
        self.control(|out| frame::put_rst_stream(out, id, code));
        // Frames the client sent before it sees the reset are to be ignored.
        self.streams[slot as usize].half_closed = false;
        self.close(slot, reason);
    }

    // ---- output ----

    pub(super) fn output_bytes(&self) -> usize {
        self.out.len()
    }

    pub(super) fn release_spare(&mut self) {
        self.out.shrink_to_fit();
        self.spare = Vec::new();
    }

    pub(super) fn take_output(&mut self, mut spare: Vec<u8>) -> Vec<u8> {
        spare.clear();
        let taken = std::mem::replace(&mut self.out, spare);
        self.tail = Tail::default();
        self.stats.bytes_sent += taken.len() as u64;
        self.control_bytes = 0;
        self.takes += 1;
        if !self.ready.is_empty() {
            self.pump();
        }
        taken
    }

    fn recycle(&mut self, mut parked: Box<Parked>) {
        if self.spare.len() < SPARE_MAX && parked.bytes.capacity() <= SPARE_BYTES_MAX {
            parked.bytes.clear();
            parked.sent = 0;
            parked.is_cut = false;
            parked.status = None;
            self.spare.push(parked);
        }
    }
}

/// The content type that answers a request of this sub-type.
#[inline]
pub(super) fn subtype_content_type(subtype: Subtype, text: &[u8]) -> ContentType<'_> {
    match subtype {
        Subtype::Invalid | Subtype::None => ContentType::Grpc,
        Subtype::Proto => ContentType::GrpcProto,
        Subtype::Other => ContentType::Other(text),
    }
}
