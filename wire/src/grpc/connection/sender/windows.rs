//! Flow control towards the client: windows that grow, parked answers that follow, and those that
//! never move.
//!
//! Streams take turns of one frame, so a long answer does not hold up a short one.

use super::{CancelReason, ConnectionError, ErrorCode, Sender, Slot, WINDOW_UPDATES_EARNED};
use crate::h2::frame::{self, kind};

impl Sender {
    /// Sends what is parked, as far as the windows and the bound of the output allow.
    pub(in crate::grpc::connection) fn pump(&mut self) {
        while self.error.is_none()
            && self.window.available() > 0
            && self.out.len() < self.limits.output_bytes_max
            && let Some((id, slot)) = self.ready.pop_front()
        {
            let stream = &mut self.streams[slot as usize];
            if stream.id != id {
                continue;
            }
            let Some(parked) = &mut stream.parked else {
                continue;
            };
            let waiting = parked.bytes.len() - parked.sent;
            let allowed = self.window.available().min(stream.window.available());
            let bytes = waiting.min(allowed).min(self.frame_bytes_max);
            if bytes == 0 {
                stream.is_ready = false;
                continue;
            }
            let piece = &parked.bytes[parked.sent..parked.sent + bytes];
            frame::put_header(&mut self.out, bytes, kind::DATA, 0, id);
            self.out.extend_from_slice(piece);
            parked.sent += bytes;
            parked.is_cut = true;
            parked.progress_ns = self.now_ns;
            self.parked_bytes -= bytes;
            self.window.consume(bytes);
            stream.window.consume(bytes);
            self.sent_since_ping = true;
            self.window_updates
                .earn(self.limits.window_updates, WINDOW_UPDATES_EARNED);
            if bytes < waiting {
                // Give back what a long answer has sent once that is most of it.
                if parked.sent > 1 << 20 && parked.sent > parked.bytes.len() / 2 {
                    parked.bytes.drain(..parked.sent);
                    parked.bytes.shrink_to_fit();
                    parked.sent = 0;
                }
                stream.is_ready = stream.window.available() > 0;
                if stream.is_ready {
                    self.ready.push_back((id, slot));
                }
                continue;
            }
            stream.is_ready = false;
            let is_plain = stream.is_plain;
            let Some(mut parked) = stream.parked.take() else {
                continue;
            };
            let status = parked.status.take();
            self.recycle(parked);
            match status {
                Some(_) if is_plain => self.end_plain(slot),
                Some((code, message)) => self.put_trailers(slot, code, &message),
                None => {}
            }
        }
    }

    /// WINDOW_UPDATE for the connection.
    pub(in crate::grpc::connection) fn grow_window(&mut self, increment: u32) {
        match self.window.adjust(i64::from(increment)) {
            Ok(()) => self.pump(),
            Err(_) => self.fail(ConnectionError::new(
                ErrorCode::FlowControlError,
                "connection window above 2^31-1",
            )),
        }
    }

    /// WINDOW_UPDATE for a stream. False if it overflows.
    pub(in crate::grpc::connection) fn grow_stream_window(
        &mut self,
        slot: Slot,
        increment: u32,
    ) -> bool {
        let grown = self.streams[slot as usize]
            .window
            .adjust(i64::from(increment))
            .is_ok();
        if grown {
            self.make_ready(slot);
            self.pump();
        }
        grown
    }

    /// SETTINGS_INITIAL_WINDOW_SIZE: changes every open stream by the difference.
    pub(in crate::grpc::connection) fn set_stream_window(&mut self, size: u32) {
        let delta = i64::from(size) - i64::from(self.stream_window_initial);
        self.stream_window_initial = size;
        for slot in 0..self.streams.len() {
            let stream = &mut self.streams[slot];
            if stream.id == 0 {
                continue;
            }
            if stream.window.adjust(delta).is_err() {
                return self.fail(ConnectionError::new(
                    ErrorCode::FlowControlError,
                    "initial window raises a stream above 2^31-1",
                ));
            }
            self.make_ready(slot as Slot);
        }
        self.pump();
    }

    pub(in crate::grpc::connection) fn set_frame_bytes_max(&mut self, bytes: u32) {
        // Larger frames would only make other streams wait longer.
        self.frame_bytes_max = bytes.min(64 << 10) as usize;
    }

    pub(in crate::grpc::connection) fn set_header_list_bytes_max(&mut self, bytes: u32) {
        self.header_list_bytes_max = bytes;
    }

    pub(in crate::grpc::connection) fn set_header_table_size(&mut self, bytes: u32) {
        self.encoder.set_table_size(bytes);
    }

    /// Resets calls whose parked answers have not moved for too long.
    pub(in crate::grpc::connection) fn reset_stalled(&mut self) {
        if self.now_ns < self.stall_due_ns {
            return;
        }
        self.stall_due_ns = u64::MAX;
        for slot in 0..self.streams.len() {
            if self.streams[slot].is_patient {
                continue;
            }
            let Some(parked) = &self.streams[slot].parked else {
                continue;
            };
            let due_ns = parked
                .progress_ns
                .saturating_add(self.limits.stall_timeout_ns);
            if due_ns <= self.now_ns {
                self.stats.limits.stall_timeout += 1;
                self.reset(
                    slot as Slot,
                    ErrorCode::EnhanceYourCalm,
                    CancelReason::SlowReader,
                );
            } else {
                self.stall_due_ns = self.stall_due_ns.min(due_ns);
            }
        }
    }
}
