//! Answers: messages, statuses, and what becomes of them when the windows are too small.
//!
//! A message is encoded where it will be sent from, and its lengths are filled in afterwards. Only
//! what does not fit a frame or a window is moved, each byte once.

use super::{
    CancelReason, PREFIX_BYTES, Parked, SendStream, Sender, Slot, Tail, WINDOW_UPDATES_EARNED,
    subtype_content_type,
};
use crate::grpc::connection::text;
use crate::grpc::{Code, StreamId};
use crate::h2::error::ErrorCode;
use crate::h2::frame::{self, HEADER_BYTES, flag, kind};
use crate::h2::hpack::encoder::ContentType;

impl Sender {
    /// Appends one message to the answer of an open call.
    #[inline]
    pub(crate) fn message(&mut self, id: StreamId, encode: impl FnOnce(&mut Vec<u8>)) {
        if let Some(slot) = self.answerable(id) {
            self.put_message(slot, encode);
        }
    }

    /// Appends one message and finishes with OK.
    #[inline]
    pub(crate) fn unary(&mut self, id: StreamId, encode: impl FnOnce(&mut Vec<u8>)) {
        if let Some(slot) = self.answerable(id) {
            // From here on the service is done with the call, whatever becomes of the answer.
            self.streams[slot as usize].finished = true;
            if self.put_message(slot, encode) {
                self.put_status(slot, Code::Ok, "");
            }
        }
    }

    #[inline]
    pub(crate) fn finish(&mut self, id: StreamId, code: Code, message: &str) {
        if let Some(slot) = self.answerable(id) {
            self.put_status(slot, code, message);
        }
    }

    pub(crate) fn is_open(&self, id: StreamId) -> bool {
        self.error.is_none()
            && self
                .table
                .get(id.0)
                .is_some_and(|slot| !self.streams[slot as usize].finished)
    }

    pub(crate) fn be_patient(&mut self, id: StreamId) {
        if let Some(slot) = self.slot(id.0) {
            self.streams[slot as usize].is_patient = true;
        }
    }

    pub(crate) fn backlog_bytes(&self, id: StreamId) -> usize {
        let parked = self
            .table
            .get(id.0)
            .and_then(|s| self.streams[s as usize].parked.as_deref());
        parked.map_or(0, |parked| parked.bytes.len() - parked.sent)
    }

    #[inline]
    pub(super) fn answerable(&mut self, id: StreamId) -> Option<Slot> {
        let slot = self
            .slot(id.0)
            .filter(|&slot| !self.streams[slot as usize].finished);
        if slot.is_none() || self.error.is_some() {
            self.stats.late_answers += 1;
            return None;
        }
        slot
    }

    /// False if the call had to be ended instead.
    fn put_message(&mut self, slot: Slot, encode: impl FnOnce(&mut Vec<u8>)) -> bool {
        let stream = &self.streams[slot as usize];
        let must_park = stream.parked.is_some() || self.out.len() >= self.limits.output_bytes_max;
        if must_park && self.parked_bytes > self.limits.parked_bytes_max {
            self.refuse_answer(slot);
            return false;
        }
        self.put_headers(slot);
        self.stats.messages_sent += 1;
        if must_park {
            let stream = &mut self.streams[slot as usize];
            let parked = park(stream, &mut self.spare, self.now_ns);
            let before = parked.bytes.len();
            let fits = put_prefixed(&mut parked.bytes, encode);
            let added = parked.bytes.len() - before;
            self.parked_bytes += added;
            self.stats.message_bytes_sent += added.saturating_sub(PREFIX_BYTES) as u64;
            if !fits {
                self.end(
                    slot,
                    Code::ResourceExhausted,
                    TOO_LARGE,
                    CancelReason::Protocol,
                );
                return false;
            }
            self.on_parked(slot);
            return true;
        }
        let start = self.out.len();
        let id = self.streams[slot as usize].id;
        // Small messages of a stream share a frame: it saves headers, and some clients (the h2 crate since 0.4.20) end
        // a connection on which too many small frames wait to be read.
        let follows = self.tail.id == id && self.tail.end == start;
        if !follows {
            frame::put_header(&mut self.out, 0, kind::DATA, 0, id);
        }
        if !put_prefixed(&mut self.out, encode) {
            self.out.truncate(start);
            self.end(
                slot,
                Code::ResourceExhausted,
                TOO_LARGE,
                CancelReason::Protocol,
            );
            return false;
        }
        if follows && self.extend_tail(slot, start) {
            return true;
        }
        let total = self.out.len() - start - HEADER_BYTES;
        self.stats.message_bytes_sent += (total - PREFIX_BYTES) as u64;
        let stream = &mut self.streams[slot as usize];
        let allowed = self.window.available().min(stream.window.available());
        self.sent_since_ping = true;
        self.window_updates.earn(self.limits.window_updates, 1);
        if total <= allowed && total <= self.frame_bytes_max {
            frame::patch_length(&mut self.out, start);
            self.window.consume(total);
            stream.window.consume(total);
            self.tail = Tail {
                id,
                start,
                end: self.out.len(),
            };
            return true;
        }
        self.split_message(slot, start, total, allowed)
    }

    /// Takes the message behind `start` into the frame before it. False if it does not fit; it has a header of its own
    /// then.
    fn extend_tail(&mut self, slot: Slot, start: usize) -> bool {
        let total = self.out.len() - start;
        let frame = self.tail.start;
        let stream = &mut self.streams[slot as usize];
        let allowed = self.window.available().min(stream.window.available());
        if total <= allowed && start - frame - HEADER_BYTES + total <= self.frame_bytes_max {
            frame::patch_length(&mut self.out, frame);
            self.window.consume(total);
            stream.window.consume(total);
            self.stats.message_bytes_sent += (total - PREFIX_BYTES) as u64;
            self.window_updates.earn(self.limits.window_updates, 1);
            self.tail.end = self.out.len();
            return true;
        }
        self.out.resize(self.out.len() + HEADER_BYTES, 0);
        self.out
            .copy_within(start..start + total, start + HEADER_BYTES);
        let header = frame::FrameHeader {
            length: 0,
            kind: kind::DATA,
            flags: 0,
            stream: stream.id,
        };
        self.out[start..start + HEADER_BYTES].copy_from_slice(&header.bytes());
        false
    }

    /// The message at the end of the output is too large for one frame or for the windows: sends
    /// what may go, parks the rest.
    #[cold]
    pub(super) fn split_message(
        &mut self,
        slot: Slot,
        start: usize,
        total: usize,
        allowed: usize,
    ) -> bool {
        let sendable = total.min(allowed);
        if sendable < total {
            if self.parked_bytes > self.limits.parked_bytes_max {
                self.out.truncate(start);
                self.refuse_answer(slot);
                return false;
            }
            let stream = &mut self.streams[slot as usize];
            let parked = park(stream, &mut self.spare, self.now_ns);
            let rest = start + HEADER_BYTES + sendable;
            parked.bytes.extend_from_slice(&self.out[rest..]);
            parked.is_cut |= sendable > 0;
            self.parked_bytes += total - sendable;
            self.out.truncate(rest);
        }
        let stream = &mut self.streams[slot as usize];
        if sendable == 0 {
            self.out.truncate(start);
        } else {
            self.window.consume(sendable);
            stream.window.consume(sendable);
            split_frames(
                &mut self.out,
                start,
                sendable,
                self.frame_bytes_max,
                stream.id,
            );
        }
        if sendable < total {
            self.on_parked(slot);
        }
        true
    }

    /// `parked_bytes_max` is reached: ends the call as politely as its state allows.
    #[cold]
    fn refuse_answer(&mut self, slot: Slot) {
        self.stats.limits.parked_bytes += 1;
        let stream = &self.streams[slot as usize];
        if stream.parked.is_none() && !stream.is_plain {
            let message = "too many answers wait for the client";
            self.end(
                slot,
                Code::ResourceExhausted,
                message,
                CancelReason::SlowReader,
            );
        } else {
            self.reset(slot, ErrorCode::EnhanceYourCalm, CancelReason::SlowReader);
        }
    }

    /// Ends every call that has something parked.
    #[cold]
    pub(in crate::grpc::connection) fn end_parked(&mut self, message: &str) -> usize {
        let mut ended = 0;
        for slot in 0..self.streams.len() as Slot {
            let stream = &mut self.streams[slot as usize];
            let Some(parked) = stream.parked.as_deref() else {
                continue;
            };
            ended += 1;
            if parked.is_cut || stream.is_plain {
                self.reset(slot, ErrorCode::EnhanceYourCalm, CancelReason::SlowReader);
                continue;
            }
            self.parked_bytes -= parked.bytes.len() - parked.sent;
            if let Some(parked) = stream.parked.take() {
                self.recycle(parked);
            }
            self.end(
                slot,
                Code::ResourceExhausted,
                message,
                CancelReason::SlowReader,
            );
        }
        ended
    }

    pub(super) fn on_parked(&mut self, slot: Slot) {
        self.stats.answers_parked += 1;
        self.stall_due_ns = self
            .stall_due_ns
            .min(self.now_ns.saturating_add(self.limits.stall_timeout_ns));
        self.make_ready(slot);
    }

    pub(super) fn make_ready(&mut self, slot: Slot) {
        let stream = &mut self.streams[slot as usize];
        if stream.parked.is_none() || stream.is_ready || stream.window.available() == 0 {
            return;
        }
        stream.is_ready = true;
        self.ready.push_back((stream.id, slot));
        // Entries of closed streams would pile up behind a connection window that never opens.
        if self.ready.len() > 2 * self.open as usize + 64 {
            let streams = &self.streams;
            self.ready
                .retain(|(id, slot)| streams[*slot as usize].id == *id);
        }
    }

    #[inline]
    fn put_headers(&mut self, slot: Slot) {
        let stream = &mut self.streams[slot as usize];
        if stream.headers_sent {
            return;
        }
        stream.headers_sent = true;
        let start = self.out.len();
        frame::put_header(
            &mut self.out,
            0,
            kind::HEADERS,
            flag::END_HEADERS,
            stream.id,
        );
        self.encoder.headers(content_type(stream), &mut self.out);
        frame::patch_length(&mut self.out, start);
    }

    /// The service's last word: now, or behind what is parked.
    fn put_status(&mut self, slot: Slot, code: Code, message: &str) {
        self.list_ended(slot, code);
        let stream = &mut self.streams[slot as usize];
        stream.finished = true;
        match &mut stream.parked {
            Some(parked) => {
                let message = text::cut(message, self.limits.status_message_bytes_max);
                parked.status = Some((code, message.to_owned()));
            }
            None => self.put_trailers(slot, code, message),
        }
    }

    /// Writes the trailers and closes the stream.
    pub(super) fn put_trailers(&mut self, slot: Slot, code: Code, message: &str) {
        self.list_ended(slot, code);
        if self.error.is_some() {
            return self.close(slot, CancelReason::Protocol);
        }
        let stream = &self.streams[slot as usize];
        let (id, half_closed) = (stream.id, stream.half_closed);
        let start = self.out.len();
        let flags = flag::END_HEADERS | flag::END_STREAM;
        self.message.clear();
        if !message.is_empty() {
            let message = text::cut(message, self.limits.status_message_bytes_max);
            text::percent_encode(message, &mut self.message);
        }
        if self.header_list_bytes_max < 4 * 64 + self.message.len() as u32 {
            // As grpc-go: a client that can not take our trailers gets a reset.
            self.stats.count_finished(code);
            return self.reset(slot, ErrorCode::InternalError, CancelReason::Protocol);
        }
        frame::put_header(&mut self.out, 0, kind::HEADERS, flags, id);
        if stream.headers_sent {
            self.encoder
                .trailers(code as u8, code.text(), &self.message, &mut self.out);
        } else {
            self.encoder.trailers_only(
                "200",
                content_type(stream),
                code as u8,
                code.text(),
                &self.message,
                &mut self.out,
            );
        }
        frame::patch_length(&mut self.out, start);
        self.sent_since_ping = true;
        self.window_updates
            .earn(self.limits.window_updates, WINDOW_UPDATES_EARNED);
        self.stats.count_finished(code);
        if !half_closed {
            self.control(|out| frame::put_rst_stream(out, id, ErrorCode::NoError));
        }
        self.close(slot, CancelReason::Protocol);
    }

    /// Ends a call with a status the service did not give. What is parked is dropped: the client
    /// then gets a reset, for a status in the middle of a message would be none.
    pub(in crate::grpc::connection) fn end(
        &mut self,
        slot: Slot,
        code: Code,
        message: &str,
        reason: CancelReason,
    ) {
        self.list_ended(slot, code);
        let stream = &self.streams[slot as usize];
        if stream.parked.is_some() {
            self.reset(slot, ErrorCode::Cancel, reason);
            return;
        }
        self.put_trailers(slot, code, message);
        // `close` booked a protocol error as the reason; the caller knows better.
        if let Some((_, Some(booked))) = self.closed.last_mut() {
            *booked = reason;
        }
    }

    /// Answers a request that never became a call.
    pub(in crate::grpc::connection) fn reject(
        &mut self,
        id: u32,
        half_closed: bool,
        http_status: &str,
        content_type: ContentType<'_>,
        (code, message): (Code, &str),
    ) {
        self.message.clear();
        let message = text::cut(message, self.limits.status_message_bytes_max);
        text::percent_encode(message, &mut self.message);
        let start = self.out.len();
        self.stats.count_finished(code);
        if self.header_list_bytes_max < 4 * 64 + self.message.len() as u32 {
            return self.refuse_stream(id, ErrorCode::InternalError);
        }
        let flags = flag::END_HEADERS | flag::END_STREAM;
        frame::put_header(&mut self.out, 0, kind::HEADERS, flags, id);
        self.encoder.trailers_only(
            http_status,
            content_type,
            code as u8,
            code.text(),
            &self.message,
            &mut self.out,
        );
        frame::patch_length(&mut self.out, start);
        self.sent_since_ping = true;
        if !half_closed {
            self.control(|out| frame::put_rst_stream(out, id, ErrorCode::NoError));
        }
        self.remember(id, !half_closed);
    }
}

const TOO_LARGE: &str = "grpc: trying to send message larger than max";

/// etcd's bound for what it sends.
const MESSAGE_BYTES_MAX: usize = i32::MAX as usize;

/// Appends a length-prefixed message. False if it is larger than gRPC may carry; nothing is
/// appended then.
#[inline]
fn put_prefixed(out: &mut Vec<u8>, encode: impl FnOnce(&mut Vec<u8>)) -> bool {
    let start = out.len();
    out.extend_from_slice(&[0; PREFIX_BYTES]);
    encode(out);
    let bytes = out
        .len()
        .checked_sub(start + PREFIX_BYTES)
        .expect("encode only appends");
    if bytes > MESSAGE_BYTES_MAX {
        out.truncate(start);
        return false;
    }
    out[start + 1..start + PREFIX_BYTES].copy_from_slice(&(bytes as u32).to_be_bytes());
    true
}

/// Turns one frame of `payload` bytes, whose header is at `start`, into as many as its size needs:
/// from the back, so that every byte moves once.
fn split_frames(out: &mut Vec<u8>, start: usize, payload: usize, frame_bytes_max: usize, id: u32) {
    let count = payload.div_ceil(frame_bytes_max);
    out.resize(out.len() + (count - 1) * HEADER_BYTES, 0);
    let source = start + HEADER_BYTES;
    for index in (0..count).rev() {
        let offset = index * frame_bytes_max;
        let bytes = (payload - offset).min(frame_bytes_max);
        let at = start + offset + index * HEADER_BYTES;
        out.copy_within(source + offset..source + offset + bytes, at + HEADER_BYTES);
        let header = frame::FrameHeader {
            length: bytes as u32,
            kind: kind::DATA,
            flags: 0,
            stream: id,
        };
        out[at..at + HEADER_BYTES].copy_from_slice(&header.bytes());
    }
}

#[expect(clippy::vec_box, reason = "the boxes themselves are what is reused")]
pub(super) fn park<'a>(
    stream: &'a mut SendStream,
    spare: &mut Vec<Box<Parked>>,
    now_ns: u64,
) -> &'a mut Parked {
    stream.parked.get_or_insert_with(|| {
        let mut parked = spare.pop().unwrap_or_default();
        parked.progress_ns = now_ns;
        parked
    })
}

#[inline]
fn content_type(stream: &SendStream) -> ContentType<'_> {
    self::subtype_content_type(
        stream.subtype,
        stream.subtype_text.as_deref().unwrap_or_default(),
    )
}
