//! Frames about the connection and about streams as such: SETTINGS, PING, GOAWAY, WINDOW_UPDATE,
//! RST_STREAM, PRIORITY.
//!
//! Rules: RFC 9113 6.3 to 6.9. Keepalive enforcement: grpc-go. Each kind of frame that costs a peer
//! little has a budget.

use super::{Connection, Draining, Handled, SHUTDOWN_PING};
use crate::grpc::service::CancelReason;
use crate::h2::error::{ConnectionError, ErrorCode};
use crate::h2::flow::WINDOW_BYTES_MAX;
use crate::h2::frame::{self, FrameHeader, flag, kind, setting};

/// Pings that may come too early in a row, and the interval without an open call (grpc-go's
/// constants).
const PING_STRIKES_MAX: u32 = 2;
const PING_INTERVAL_IDLE_NS: u64 = 2 * 3600 * 1_000_000_000;

impl Connection {
    #[cold]
    pub(super) fn on_settings(&mut self, header: &FrameHeader, payload: &[u8]) -> Handled {
        if header.stream != 0 {
            return Err(ConnectionError::protocol("SETTINGS on a stream"));
        }
        if !self
            .budgets
            .settings
            .take(self.limits.settings, self.sender.now_ns)
        {
            self.sender.stats.limits.settings += 1;
            return Err(ConnectionError::calm("too many SETTINGS frames"));
        }
        if header.has(flag::ACK) {
            if !payload.is_empty() {
                return Err(ConnectionError::frame_size(
                    "SETTINGS acknowledgement with a payload",
                ));
            }
            self.settings_acked = true;
            return Ok(());
        }
        let (settings, rest) = payload.as_chunks::<6>();
        if !rest.is_empty() {
            return Err(ConnectionError::frame_size(
                "SETTINGS payload is not a multiple of six",
            ));
        }
        let mut window = None;
        for &[i0, i1, v0, v1, v2, v3] in settings {
            let value = u32::from_be_bytes([v0, v1, v2, v3]);
            self.set(u16::from_be_bytes([i0, i1]), value, &mut window)?;
        }
        // The acknowledgement goes first: what follows may already use the new settings.
        self.sender
            .control(|out| frame::put_header(out, 0, kind::SETTINGS, flag::ACK, 0));
        if let Some(size) = window {
            self.sender.set_stream_window(size);
        }
        Ok(())
    }

    /// One setting. The stream window is left to the caller: it touches every open stream, and one
    /// frame can name it thousands of times.
    fn set(&mut self, id: u16, value: u32, window: &mut Option<u32>) -> Handled {
        match id {
            setting::HEADER_TABLE_SIZE => self.sender.set_header_table_size(value),
            setting::ENABLE_PUSH if value > 1 => {
                return Err(ConnectionError::protocol(
                    "SETTINGS_ENABLE_PUSH is neither 0 nor 1",
                ));
            }
            setting::INITIAL_WINDOW_SIZE => {
                if value > WINDOW_BYTES_MAX {
                    return Err(ConnectionError::new(
                        ErrorCode::FlowControlError,
                        "SETTINGS_INITIAL_WINDOW_SIZE above 2^31-1",
                    ));
                }
                *window = Some(value);
            }
            setting::MAX_FRAME_SIZE => {
                if !(frame::PAYLOAD_BYTES_MIN..=frame::PAYLOAD_BYTES_MAX).contains(&value) {
                    return Err(ConnectionError::protocol(
                        "SETTINGS_MAX_FRAME_SIZE out of range",
                    ));
                }
                self.sender.set_frame_bytes_max(value);
            }
            setting::MAX_HEADER_LIST_SIZE => self.sender.set_header_list_bytes_max(value),
            // ENABLE_PUSH and MAX_CONCURRENT_STREAMS concern streams we never open; unknown ones
            // are to be ignored.
            _ => {}
        }
        Ok(())
    }

    #[cold]
    pub(super) fn on_ping(&mut self, header: &FrameHeader, payload: &[u8]) -> Handled {
        if header.stream != 0 {
            return Err(ConnectionError::protocol("PING on a stream"));
        }
        let Ok(payload) = <&[u8; 8]>::try_from(payload) else {
            return Err(ConnectionError::frame_size(
                "PING payload is not eight bytes",
            ));
        };
        self.sender.stats.pings_received += 1;
        let now_ns = self.sender.now_ns;
        // A client that measures its link, as gRPC for Go does, pings once for what it was sent, thousands
        // of times a second if it is busy.
        let is_explained =
            !header.has(flag::ACK) && std::mem::take(&mut self.sender.sent_since_ping);
        if !is_explained && !self.budgets.pings.take(self.limits.pings, now_ns) {
            self.sender.stats.limits.pings += 1;
            return Err(ConnectionError::calm("too many PING frames"));
        }
        if header.has(flag::ACK) {
            if *payload == SHUTDOWN_PING && matches!(self.draining, Draining::Announced { .. }) {
                self.finish_draining();
            }
            return Ok(());
        }
        self.sender
            .control(|out| frame::put_ping(out, flag::ACK, payload));
        let last_ns = self.timers.last_ping_ns.replace(now_ns);
        if is_explained {
            self.timers.ping_strikes = 0;
            return Ok(());
        }
        let idle = self.sender.open == 0 && !self.limits.keepalive_permit_without_stream;
        let interval_ns = if idle {
            PING_INTERVAL_IDLE_NS
        } else {
            self.limits.keepalive_min_time_ns
        };
        if last_ns.is_some_and(|last_ns| now_ns < last_ns.saturating_add(interval_ns)) {
            self.timers.ping_strikes += 1;
        }
        if self.timers.ping_strikes > PING_STRIKES_MAX {
            self.sender.stats.limits.keepalive_min_time += 1;
            return Err(ConnectionError::calm("too_many_pings"));
        }
        Ok(())
    }

    /// The second GOAWAY of a graceful end: names the last stream that will be served.
    pub(super) fn finish_draining(&mut self) {
        let last_stream = self.sender.last_stream;
        self.draining = Draining::Final { last_stream };
        self.sender
            .control(|out| frame::put_goaway(out, last_stream, ErrorCode::NoError, ""));
    }

    /// A client's GOAWAY is about streams that we would open: none.
    #[cold]
    pub(super) fn on_goaway(&mut self, header: &FrameHeader, payload: &[u8]) -> Handled {
        if header.stream != 0 {
            return Err(ConnectionError::protocol("GOAWAY on a stream"));
        }
        if payload.len() < 8 {
            return Err(ConnectionError::frame_size(
                "GOAWAY payload below eight bytes",
            ));
        }
        self.ignore_frame()
    }

    #[cold]
    pub(super) fn on_priority(&mut self, header: &FrameHeader, payload: &[u8]) -> Handled {
        if header.stream == 0 {
            return Err(ConnectionError::protocol("PRIORITY on stream 0"));
        }
        if payload.len() != 5 {
            // A stream error that an idle stream can not take.
            if self.is_idle(header.stream) {
                return Err(ConnectionError::frame_size(
                    "PRIORITY payload is not five bytes",
                ));
            }
            return self.stream_error(header.stream, ErrorCode::FrameSizeError);
        }
        self.ignore_frame()
    }

    pub(super) fn on_window_update(&mut self, header: &FrameHeader, payload: &[u8]) -> Handled {
        let Ok(increment) = <[u8; 4]>::try_from(payload) else {
            return Err(ConnectionError::frame_size(
                "WINDOW_UPDATE payload is not four bytes",
            ));
        };
        let now_ns = self.sender.now_ns;
        if !self
            .sender
            .window_updates
            .take(self.limits.window_updates, now_ns)
        {
            self.sender.stats.limits.window_updates += 1;
            return Err(ConnectionError::calm("too many WINDOW_UPDATE frames"));
        }
        let increment = u32::from_be_bytes(increment) & WINDOW_BYTES_MAX;
        if header.stream == 0 {
            if increment == 0 {
                return Err(ConnectionError::protocol("WINDOW_UPDATE by zero"));
            }
            self.sender.grow_window(increment);
            return Ok(());
        }
        match self.sender.slot(header.stream) {
            Some(_) if increment == 0 => self.stream_error(header.stream, ErrorCode::ProtocolError),
            Some(slot) if !self.sender.grow_stream_window(slot, increment) => {
                self.stream_error(header.stream, ErrorCode::FlowControlError)
            }
            Some(_) => Ok(()),
            None if self.is_idle(header.stream) => {
                Err(ConnectionError::protocol("WINDOW_UPDATE on an idle stream"))
            }
            // Normal: it crossed our end of the stream. It is within the budget above.
            None => Ok(()),
        }
    }

    pub(super) fn on_rst_stream(&mut self, header: &FrameHeader, payload: &[u8]) -> Handled {
        if header.stream == 0 {
            return Err(ConnectionError::protocol("RST_STREAM on stream 0"));
        }
        if payload.len() != 4 {
            return Err(ConnectionError::frame_size(
                "RST_STREAM payload is not four bytes",
            ));
        }
        match self.sender.slot(header.stream) {
            Some(slot) => {
                self.sender.stats.resets_received += 1;
                self.sender.close(slot, CancelReason::Reset);
                self.count_reset()
            }
            None if self.is_idle(header.stream) => {
                Err(ConnectionError::protocol("RST_STREAM on an idle stream"))
            }
            // A reset that crossed our answer costs the client as little as any other.
            None => self.ignore_frame(),
        }
    }
}
