//! Answers to requests that are not gRPC: status, fields, and a body that follows the windows.
//!
//! The body shares the output, the windows and the parking of messages; what ends it is an empty DATA
//! frame instead of trailers. Called for a handful of requests a minute.

use super::{CancelReason, SendStream, Sender, Slot, Subtype, WINDOW_UPDATES_EARNED, answers};
use crate::grpc::service::MethodId;
use crate::grpc::{Code, StreamId};
use crate::h2::error::ErrorCode;
use crate::h2::frame::{self, flag, kind};

impl Sender {
    /// Opens the stream of such a request. The caller has checked that there is room.
    pub(in crate::grpc::connection) fn open_plain(&mut self, id: u32, half_closed: bool) -> Slot {
        let slot = self.open(id, MethodId(0), half_closed, Subtype::Invalid, b"");
        let stream = &mut self.streams[slot as usize];
        stream.is_plain = true;
        // It is no call, so nobody is told of its end.
        stream.is_listed = true;
        slot
    }

    pub(crate) fn plain(
        &mut self,
        id: StreamId,
        status: u16,
        fields: &[(&[u8], &[u8])],
        body: &[u8],
    ) {
        let Some(slot) = self.answerable(id) else {
            return;
        };
        let must_park = self.out.len() >= self.limits.output_bytes_max;
        if must_park && self.parked_bytes > self.limits.parked_bytes_max {
            self.stats.limits.parked_bytes += 1;
            return self.reset(slot, ErrorCode::EnhanceYourCalm, CancelReason::SlowReader);
        }
        if !self.put_plain_headers(slot, status, fields, body.is_empty()) {
            return self.reset(slot, ErrorCode::InternalError, CancelReason::Protocol);
        }
        self.sent_since_ping = true;
        self.window_updates
            .earn(self.limits.window_updates, WINDOW_UPDATES_EARNED);
        let stream = &mut self.streams[slot as usize];
        stream.finished = true;
        stream.headers_sent = true;
        if body.is_empty() {
            return self.close_plain(slot);
        }
        if must_park {
            let parked = answers::park(stream, &mut self.spare, self.now_ns);
            parked.bytes.extend_from_slice(body);
            self.parked_bytes += body.len();
            self.on_parked(slot);
        } else if !self.put_plain_body(slot, body) {
            return;
        }
        match &mut self.streams[slot as usize].parked {
            // Whatever the status is: what follows the body is the end of the stream.
            Some(parked) => parked.status = Some((Code::Ok, String::new())),
            None => self.end_plain(slot),
        }
    }

    pub(crate) fn plain_head(&mut self, id: StreamId, status: u16, fields: &[(&[u8], &[u8])]) {
        let Some(slot) = self.answerable(id) else {
            return;
        };
        if !self.put_plain_headers(slot, status, fields, false) {
            return self.reset(slot, ErrorCode::InternalError, CancelReason::Protocol);
        }
        self.sent_since_ping = true;
        let stream = &mut self.streams[slot as usize];
        stream.headers_sent = true;
        stream.is_patient = true;
    }

    pub(crate) fn plain_body(&mut self, id: StreamId, piece: &[u8]) {
        let Some(slot) = self.answerable(id) else {
            return;
        };
        let stream = &mut self.streams[slot as usize];
        let must_park = stream.parked.is_some() || self.out.len() >= self.limits.output_bytes_max;
        if must_park && self.parked_bytes > self.limits.parked_bytes_max {
            self.stats.limits.parked_bytes += 1;
            return self.reset(slot, ErrorCode::EnhanceYourCalm, CancelReason::SlowReader);
        }
        self.sent_since_ping = true;
        self.window_updates
            .earn(self.limits.window_updates, WINDOW_UPDATES_EARNED);
        if must_park {
            let parked = answers::park(stream, &mut self.spare, self.now_ns);
            parked.bytes.extend_from_slice(piece);
            self.parked_bytes += piece.len();
            self.on_parked(slot);
        } else if !piece.is_empty() {
            self.put_plain_body(slot, piece);
        }
    }

    pub(crate) fn plain_end(&mut self, id: StreamId) {
        let Some(slot) = self.answerable(id) else {
            return;
        };
        let stream = &mut self.streams[slot as usize];
        stream.finished = true;
        match &mut stream.parked {
            Some(parked) => parked.status = Some((Code::Ok, String::new())),
            None => self.end_plain(slot),
        }
    }

    /// False if the block does not fit one frame; nothing is written then.
    fn put_plain_headers(
        &mut self,
        slot: Slot,
        status: u16,
        fields: &[(&[u8], &[u8])],
        is_end: bool,
    ) -> bool {
        // Asked before anything is encoded, for what the encoder has announced must be sent.
        const FIELD_BYTES: usize = 16;
        let bytes = fields
            .iter()
            .map(|(name, value)| name.len() + value.len() + FIELD_BYTES);
        if bytes.sum::<usize>() + FIELD_BYTES > self.frame_bytes_max {
            return false;
        }
        let id = self.streams[slot as usize].id;
        let flags = if is_end {
            flag::END_HEADERS | flag::END_STREAM
        } else {
            flag::END_HEADERS
        };
        let start = self.out.len();
        frame::put_header(&mut self.out, 0, kind::HEADERS, flags, id);
        self.encoder.plain(status, fields, &mut self.out);
        frame::patch_length(&mut self.out, start);
        true
    }

    /// Sends what the windows allow and parks the rest. False if the stream had to be reset instead.
    fn put_plain_body(&mut self, slot: Slot, body: &[u8]) -> bool {
        let stream = &mut self.streams[slot as usize];
        let start = self.out.len();
        frame::put_header(&mut self.out, 0, kind::DATA, 0, stream.id);
        self.out.extend_from_slice(body);
        let allowed = self.window.available().min(stream.window.available());
        if body.len() <= allowed && body.len() <= self.frame_bytes_max {
            frame::patch_length(&mut self.out, start);
            self.window.consume(body.len());
            stream.window.consume(body.len());
            return true;
        }
        self.split_message(slot, start, body.len(), allowed)
    }

    /// Ends the stream behind its body.
    pub(super) fn end_plain(&mut self, slot: Slot) {
        let id = self.streams[slot as usize].id;
        frame::put_header(&mut self.out, 0, kind::DATA, flag::END_STREAM, id);
        self.close_plain(slot);
    }

    /// The end of the stream is in the output.
    fn close_plain(&mut self, slot: Slot) {
        let SendStream {
            id, half_closed, ..
        } = self.streams[slot as usize];
        if !half_closed {
            self.control(|out| frame::put_rst_stream(out, id, ErrorCode::NoError));
        }
        self.close(slot, CancelReason::Protocol);
    }
}
