//! The engine of one connection: frames in, calls to the service, answers out.
//!
//! Invariants
//! - Every byte given to [`Connection::receive`] is consumed. What is cut off by the end of a read
//!   waits in `partial`; all else is looked at in place, and a message that lies whole in one DATA
//!   frame reaches the service without being copied.
//! - Frames have the same effect however the bytes are cut into reads.
//! - Header blocks pass through the decoder in the order of the wire, each once or, if recognised,
//!   not at all.
//! - Once `sender.error` is set no frame is looked at and no answer is written: the GOAWAY is the
//!   last thing sent.
//! - Whatever a peer sends, memory stays within [`Limits`].
//!
//! Parts: [`head`] and [`heads`] judge and recognise header blocks; `headers`, `data` and `control`
//! handle the frames; `plain` what is not gRPC; [`sender`] holds streams and output; `timers` what time does. [`streams`],
//! [`text`] and [`base64`] are tools.
//!
//! Called by the driver of the owning core; never shared. It does not know what a message means.

pub(crate) mod base64;
mod control;
mod data;
mod head;
mod headers;
mod heads;
mod plain;
mod sender;
mod streams;
mod text;
mod timers;

use std::sync::Arc;

use data::Incoming;
use heads::Heads;
pub(crate) use sender::Sender;
use timers::Timers;

use super::service::{CancelReason, Service, StreamId};
use super::stats::{ENDED_CALLS_KEPT, EndedCall};
use super::{ConnectionError, ErrorCode, Limits, LocalCalls, Responder, Stats};
use crate::h2::budget::Budget;
use crate::h2::flow::{ReceiveWindow, WINDOW_BYTES_INITIAL, WINDOW_BYTES_MAX};
use crate::h2::frame::{self, FrameHeader, HEADER_BYTES, PREFACE, kind, setting};

/// One HTTP/2 connection that serves gRPC calls.
#[derive(Debug)]
pub struct Connection {
    limits: Arc<Limits>,
    sender: Sender,
    heads: Heads,
    incoming: Incoming,
    timers: Timers,
    budgets: Budgets,
    window: ReceiveWindow,
    handshake: Handshake,
    settings_acked: bool,
    draining: Draining,
    /// Beginning of a frame whose rest has not been read yet.
    partial: Vec<u8>,
    continuation: Option<Continuation>,
    /// Header block under assembly, if `continuation` is set.
    block: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Handshake {
    /// So many bytes of the preface have arrived.
    Preface(usize),
    Settings,
    Done,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Draining {
    No,
    /// The first GOAWAY is out; new streams are still taken until the client confirms or the grace
    /// runs out.
    Announced {
        since_ns: u64,
    },
    /// The last GOAWAY is out and named this stream.
    Final {
        last_stream: u32,
    },
}

/// A header block that goes on in CONTINUATION frames.
#[derive(Debug, Clone, Copy)]
struct Continuation {
    stream: u32,
    end_stream: bool,
    frames: u32,
}

#[derive(Debug)]
struct Budgets {
    resets: Budget,
    settings: Budget,
    pings: Budget,
    empty_frames: Budget,
    ignored_frames: Budget,
}

/// Payload of the ping that a client answers when it has seen our first GOAWAY.
const SHUTDOWN_PING: [u8; 8] = *b"draining";

/// Buffers above this size are given back when they fall empty.
const RETAINED_BYTES_MAX: usize = 4096;

/// How a frame that ends the connection is reported inside; the details are in `sender.error`.
pub(super) type Handled = Result<(), ConnectionError>;

impl Connection {
    /// A new connection; our SETTINGS are in the output at once. Panics if `limits` names a frame
    /// size or a window that HTTP/2 does not allow.
    pub fn new(limits: Arc<Limits>, now_ns: u64) -> Self {
        let frame_bytes = frame::PAYLOAD_BYTES_MIN..=frame::PAYLOAD_BYTES_MAX;
        assert!(
            frame_bytes.contains(&limits.frame_bytes_max),
            "frames: {limits:?}"
        );
        assert!(
            limits.stream_window_bytes <= WINDOW_BYTES_MAX,
            "stream window: {limits:?}"
        );
        assert!(
            limits.connection_window_bytes <= WINDOW_BYTES_MAX,
            "window: {limits:?}"
        );
        let mut sender = Sender::new(limits.clone(), now_ns);
        let window_bytes = limits.connection_window_bytes.max(WINDOW_BYTES_INITIAL);
        sender.control(|out| {
            frame::put_settings(
                out,
                &[
                    (
                        setting::HEADER_TABLE_SIZE,
                        limits.header_table_bytes_max.max(4096),
                    ),
                    (
                        setting::MAX_CONCURRENT_STREAMS,
                        limits.concurrent_streams_max,
                    ),
                    (setting::INITIAL_WINDOW_SIZE, limits.stream_window_bytes),
                    (setting::MAX_FRAME_SIZE, limits.frame_bytes_max),
                    (setting::MAX_HEADER_LIST_SIZE, limits.header_list_bytes_max),
                ],
            );
            if window_bytes > WINDOW_BYTES_INITIAL {
                frame::put_window_update(out, 0, window_bytes - WINDOW_BYTES_INITIAL);
            }
        });
        Self {
            sender,
            heads: Heads::new(limits.header_table_bytes_max),
            incoming: Incoming::default(),
            timers: Timers::new(now_ns),
            budgets: Budgets {
                resets: Budget::new(limits.resets, now_ns),
                settings: Budget::new(limits.settings, now_ns),
                pings: Budget::new(limits.pings, now_ns),
                empty_frames: Budget::new(limits.empty_frames, now_ns),
                ignored_frames: Budget::new(limits.ignored_frames, now_ns),
            },
            window: ReceiveWindow::new(window_bytes),
            handshake: Handshake::Preface(0),
            settings_acked: false,
            draining: Draining::No,
            partial: Vec::new(),
            continuation: None,
            block: Vec::new(),
            limits,
        }
    }

    /// Takes everything that was read. Consumes all of it: what is incomplete is kept inside. On an
    /// error the GOAWAY is already in the output: send it, close, then call
    /// [`on_closed`](Self::on_closed); until then the same error comes back.
    pub fn receive<S: Service>(
        &mut self,
        input: &[u8],
        now_ns: u64,
        service: &mut S,
    ) -> Result<(), ConnectionError> {
        if let Some(error) = self.sender.error {
            return Err(error);
        }
        self.sender.now_ns = now_ns;
        self.sender.stats.bytes_received += input.len() as u64;
        self.timers.on_read(now_ns);
        self.reap(service);
        if let Err(error) = self.read(input, service) {
            self.sender.fail(error);
        }
        self.reap(service);
        if self.partial.is_empty() && self.partial.capacity() > RETAINED_BYTES_MAX {
            self.partial = Vec::new();
        }
        self.sender.error.map_or(Ok(()), Err)
    }

    /// For answers that come later than the callback.
    pub fn responder(&mut self) -> Responder<'_> {
        Responder::new(&mut self.sender)
    }

    /// The same, and for calls that came to its owner in another form.
    pub fn responder_with<'a>(&'a mut self, local: &'a mut LocalCalls) -> Responder<'a> {
        Responder::both(&mut self.sender, local)
    }

    /// Whether there are bytes to send.
    pub fn has_output(&self) -> bool {
        self.sender.output_bytes() > 0
    }

    /// The bytes to send, in exchange for a buffer to fill next (its capacity is kept, its contents
    /// are not). Answers that waited for the output to be taken move up, so there may be more at
    /// once: ask [`has_output`](Self::has_output) again.
    pub fn take_output(&mut self, spare: Vec<u8>) -> Vec<u8> {
        self.sender.take_output(spare)
    }

    /// Gives memory back that output does not need now; for a connection that may wait long for its peer.
    pub fn release_spare(&mut self) {
        self.sender.release_spare();
    }

    /// Bytes that wait to be taken.
    pub fn output_bytes(&self) -> usize {
        self.sender.output_bytes()
    }

    /// Bytes of answers that wait in their streams, for flow control or for the output to be taken.
    pub fn parked_bytes(&self) -> usize {
        self.sender.parked_bytes
    }

    /// Ends the calls whose answers wait in their streams, to free what they hold: with
    /// RESOURCE_EXHAUSTED and this text, or RST_STREAM(ENHANCE_YOUR_CALM), which clients read as the
    /// same, if part of a message has left already. Returns how many there were.
    pub fn end_parked<S: Service>(&mut self, message: &str, service: &mut S) -> usize {
        let ended = self.sender.end_parked(message);
        self.reap(service);
        ended
    }

    /// False while the peer does not take its answers, and after the end: the driver then stops
    /// reading.
    pub fn wants_input(&self) -> bool {
        self.sender.error.is_none() && self.sender.output_bytes() < self.limits.output_bytes_max
    }

    /// Begins a graceful end: tells the client to open no more calls, takes those already under
    /// way, finishes what is open.
    pub fn shutdown(&mut self) {
        if self.draining != Draining::No || self.sender.error.is_some() {
            return;
        }
        self.draining = Draining::Announced {
            since_ns: self.sender.now_ns,
        };
        self.sender.control(|out| {
            frame::put_goaway(out, (1 << 31) - 1, ErrorCode::NoError, "graceful_stop");
            frame::put_ping(out, 0, &SHUTDOWN_PING);
        });
    }

    /// Everything has been answered and taken, or the connection has failed and its GOAWAY was
    /// taken; the driver may close.
    pub fn is_finished(&self) -> bool {
        let drained = matches!(self.draining, Draining::Final { .. }) && self.sender.open == 0;
        (drained || self.sender.error.is_some()) && self.sender.output_bytes() == 0
    }

    /// The socket is gone: cancels all open calls. Nothing else may be called afterwards but
    /// [`take_stats`](Self::take_stats).
    pub fn on_closed<S: Service>(&mut self, service: &mut S) {
        let open: Vec<_> = self.sender.open_slots().collect();
        for (slot, _) in open {
            self.sender.close(slot, CancelReason::Disconnected);
        }
        self.reap(service);
        if self.sender.error.is_none() {
            self.sender.error = Some(ConnectionError::new(ErrorCode::NoError, "closed"));
        }
    }

    /// Calls that are open, answers waiting for flow control included.
    pub fn open_calls(&self) -> usize {
        self.sender.open as usize
    }

    /// Counters since they were last taken.
    pub fn stats(&self) -> &Stats {
        &self.sender.stats
    }

    /// Takes the counters, leaving zeroes.
    pub fn take_stats(&mut self) -> Stats {
        std::mem::take(&mut self.sender.stats)
    }

    /// Hands over the calls that have ended since this was last asked. Ask after each pass: the list
    /// is bounded.
    pub fn take_ended(&mut self, each: impl FnMut(EndedCall)) {
        let ended = &mut self.sender.ended;
        ended.drain(..).for_each(each);
        if ENDED_CALLS_KEPT < ended.capacity() {
            *ended = Vec::new();
        }
    }

    /// Takes the bytes of messages sent since this was last asked, leaving zero.
    pub fn take_message_bytes_sent(&mut self) -> u64 {
        std::mem::take(&mut self.sender.stats.message_bytes_sent)
    }

    // ---- reading ----

    fn read<S: Service>(&mut self, mut input: &[u8], service: &mut S) -> Handled {
        if let Handshake::Preface(seen) = self.handshake {
            let bytes = input.len().min(PREFACE.len() - seen);
            let (head, rest) = input.split_at(bytes);
            if head != &PREFACE[seen..seen + bytes] {
                return Err(ConnectionError::protocol("bad client preface"));
            }
            self.handshake = Handshake::Preface(seen + bytes);
            if seen + bytes < PREFACE.len() {
                return Ok(());
            }
            self.handshake = Handshake::Settings;
            input = rest;
        }
        if !self.partial.is_empty() {
            let Some(rest) = self.read_partial(input, service)? else {
                return Ok(());
            };
            input = rest;
        }
        while let Some(bytes) = input.first_chunk::<HEADER_BYTES>() {
            let header = FrameHeader::parse(bytes);
            self.check_length(&header)?;
            let end = HEADER_BYTES + header.length as usize;
            if input.len() < end {
                break;
            }
            let (frame, rest) = input.split_at(end);
            self.on_frame(&header, &frame[HEADER_BYTES..], service)?;
            input = rest;
        }
        self.partial.extend_from_slice(input);
        Ok(())
    }

    /// Completes the frame in `partial`. Returns what follows it, or nothing if it is still
    /// incomplete.
    fn read_partial<'a, S: Service>(
        &mut self,
        mut input: &'a [u8],
        service: &mut S,
    ) -> Result<Option<&'a [u8]>, ConnectionError> {
        let mut fill = |partial: &mut Vec<u8>, length: usize| {
            let (taken, rest) = input.split_at(input.len().min(length - partial.len()));
            partial.extend_from_slice(taken);
            input = rest;
            partial.len() == length
        };
        if self.partial.len() < HEADER_BYTES && !fill(&mut self.partial, HEADER_BYTES) {
            return Ok(None);
        }
        let bytes = self
            .partial
            .first_chunk()
            .expect("filled to nine bytes above");
        let header = FrameHeader::parse(bytes);
        self.check_length(&header)?;
        if !fill(&mut self.partial, HEADER_BYTES + header.length as usize) {
            return Ok(None);
        }
        let mut frame = std::mem::take(&mut self.partial);
        let handled = self.on_frame(&header, &frame[HEADER_BYTES..], service);
        frame.clear();
        self.partial = frame;
        handled.map(|()| Some(input))
    }

    #[inline]
    fn check_length(&mut self, header: &FrameHeader) -> Handled {
        if header.length > self.limits.frame_bytes_max {
            self.sender.stats.limits.frame_bytes += 1;
            return Err(ConnectionError::frame_size(
                "frame above SETTINGS_MAX_FRAME_SIZE",
            ));
        }
        Ok(())
    }

    #[inline]
    fn on_frame<S: Service>(
        &mut self,
        header: &FrameHeader,
        payload: &[u8],
        service: &mut S,
    ) -> Handled {
        self.sender.stats.frames_received += 1;
        if self.handshake != Handshake::Done || self.continuation.is_some() {
            self.check_order(header)?;
        }
        match header.kind {
            kind::DATA => self.on_data(header, payload, service),
            kind::HEADERS => self.on_headers(header, payload, service),
            kind::CONTINUATION => self.on_continuation(header, payload, service),
            kind::WINDOW_UPDATE => self.on_window_update(header, payload),
            kind::RST_STREAM => self.on_rst_stream(header, payload),
            kind::PING => self.on_ping(header, payload),
            kind::SETTINGS => self.on_settings(header, payload),
            kind::PRIORITY => self.on_priority(header, payload),
            kind::GOAWAY => self.on_goaway(header, payload),
            kind::PUSH_PROMISE => Err(ConnectionError::protocol("PUSH_PROMISE from a client")),
            _ => self.ignore_frame(),
        }?;
        // Answers given in a callback may have ended the connection; streams they finished are
        // cleaned up at once, so that their slots serve the next requests of the same read.
        if !self.sender.closed.is_empty() {
            self.reap(service);
        }
        self.sender.error.map_or(Ok(()), Err)
    }

    /// The first frame is SETTINGS (RFC 9113 3.4), and nothing interrupts a header block (6.2).
    #[cold]
    fn check_order(&mut self, header: &FrameHeader) -> Handled {
        if self.handshake != Handshake::Done {
            if header.kind != kind::SETTINGS || header.has(frame::flag::ACK) {
                return Err(ConnectionError::protocol("first frame is not SETTINGS"));
            }
            self.handshake = Handshake::Done;
        }
        match self.continuation {
            Some(open) if header.kind != kind::CONTINUATION || header.stream != open.stream => Err(
                ConnectionError::protocol("header block interrupted by another frame"),
            ),
            _ => Ok(()),
        }
    }

    /// Cleans up after closed streams, and tells the service what it must know.
    fn reap<S: Service>(&mut self, service: &mut S) {
        while let Some((slot, reason)) = self.sender.closed.pop() {
            let ended = self.incoming.end(slot, &mut self.heads);
            if let Some(reason) = reason
                && ended.announced
            {
                service.on_cancel(StreamId(ended.id), ended.method, reason);
            }
            self.sender.free(slot);
        }
    }

    /// A stream error: resets the stream if it is open, and counts against `Limits::resets`, for
    /// making us reset costs as much as resetting.
    #[cold]
    fn stream_error(&mut self, id: u32, code: ErrorCode) -> Handled {
        match self.sender.slot(id) {
            Some(slot) => self.sender.reset(slot, code, CancelReason::Protocol),
            None => self.sender.refuse_stream(id, code),
        }
        self.count_reset()
    }

    fn count_reset(&mut self) -> Handled {
        if self
            .budgets
            .resets
            .take(self.limits.resets, self.sender.now_ns)
        {
            return Ok(());
        }
        self.sender.stats.limits.resets += 1;
        Err(ConnectionError::calm("too many stream resets"))
    }

    #[cold]
    fn ignore_frame(&mut self) -> Handled {
        if self
            .budgets
            .ignored_frames
            .take(self.limits.ignored_frames, self.sender.now_ns)
        {
            return Ok(());
        }
        self.sender.stats.limits.ignored_frames += 1;
        Err(ConnectionError::calm("too many frames without effect"))
    }

    #[cold]
    fn empty_frame(&mut self) -> Handled {
        if self
            .budgets
            .empty_frames
            .take(self.limits.empty_frames, self.sender.now_ns)
        {
            return Ok(());
        }
        self.sender.stats.limits.empty_frames += 1;
        Err(ConnectionError::calm("too many empty frames"))
    }

    /// A stream a client has not opened (or never can).
    fn is_idle(&self, id: u32) -> bool {
        id.is_multiple_of(2) || id > self.sender.last_stream
    }
}
