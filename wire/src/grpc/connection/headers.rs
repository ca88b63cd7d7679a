//! HEADERS and CONTINUATION frames: complete header blocks, and the calls they open.
//!
//! Every complete block goes through the decoder, also those of streams we refuse: the compression
//! state is the connection's. Bounded by `header_block_bytes_max`, `continuation_frames_max`, and
//! the budget of empty frames.

use super::data::{IncomingCall, unpad};
use super::head::Verdict;
use super::sender::{Slot, subtype_content_type};
use super::{Connection, Continuation, Draining, Handled, RETAINED_BYTES_MAX};
use crate::grpc::Code;
use crate::grpc::service::Service;
use crate::h2::error::{ConnectionError, ErrorCode};
use crate::h2::flow::ReceiveWindow;
use crate::h2::frame::{FrameHeader, flag};
use crate::h2::hpack::decoder::InvalidBlock;

impl From<InvalidBlock> for ConnectionError {
    fn from(_: InvalidBlock) -> Self {
        ConnectionError::new(
            ErrorCode::CompressionError,
            "header block can not be decoded",
        )
    }
}

/// Dependency and weight, which we ignore.
const PRIORITY_BYTES: usize = 5;

impl Connection {
    pub(super) fn on_headers<S: Service>(
        &mut self,
        header: &FrameHeader,
        payload: &[u8],
        service: &mut S,
    ) -> Handled {
        if header.stream.is_multiple_of(2) {
            return Err(ConnectionError::protocol(
                "HEADERS on a stream clients can not open",
            ));
        }
        let mut fragment = if header.has(flag::PADDED) {
            unpad(payload)?
        } else {
            payload
        };
        if header.has(flag::PRIORITY) {
            fragment = fragment
                .get(PRIORITY_BYTES..)
                .ok_or(ConnectionError::frame_size(
                    "HEADERS too short for its priority",
                ))?;
        }
        let end_stream = header.has(flag::END_STREAM);
        if header.has(flag::END_HEADERS) {
            return self.on_block(header.stream, fragment, end_stream, service);
        }
        self.block.clear();
        self.continuation = Some(Continuation {
            stream: header.stream,
            end_stream,
            frames: 0,
        });
        self.extend_block(fragment)
    }

    #[cold]
    pub(super) fn on_continuation<S: Service>(
        &mut self,
        header: &FrameHeader,
        payload: &[u8],
        service: &mut S,
    ) -> Handled {
        let Some(open) = &mut self.continuation else {
            return Err(ConnectionError::protocol("CONTINUATION without HEADERS"));
        };
        open.frames += 1;
        let open = *open;
        if open.frames > self.limits.continuation_frames_max {
            self.sender.stats.limits.continuation_frames += 1;
            return Err(ConnectionError::calm("too many CONTINUATION frames"));
        }
        if !header.has(flag::END_HEADERS) {
            return self.extend_block(payload);
        }
        self.continuation = None;
        if !payload.is_empty() {
            self.extend_block(payload)?;
        }
        let block = std::mem::take(&mut self.block);
        let handled = self.on_block(open.stream, &block, open.end_stream, service);
        if block.capacity() <= RETAINED_BYTES_MAX {
            self.block = block;
        }
        handled
    }

    #[cold]
    fn extend_block(&mut self, fragment: &[u8]) -> Handled {
        if fragment.is_empty() {
            return self.empty_frame();
        }
        self.block.extend_from_slice(fragment);
        if self.block.len() > self.limits.header_block_bytes_max as usize {
            self.sender.stats.limits.header_block_bytes += 1;
            return Err(ConnectionError::calm("header block too long"));
        }
        Ok(())
    }

    fn on_block<S: Service>(
        &mut self,
        id: u32,
        block: &[u8],
        end_stream: bool,
        service: &mut S,
    ) -> Handled {
        if id <= self.sender.last_stream {
            return self.on_late_block(id, block, end_stream, service);
        }
        self.sender.last_stream = id;
        if let Draining::Final { .. } = self.draining {
            // The client learns from our GOAWAY that this call was not looked at.
            self.heads.skip(block)?;
            self.sender.remember(id, true);
            return self.ignore_frame();
        }
        let list_bytes_max = self.limits.header_list_bytes_max;
        let stats = &mut self.sender.stats;
        let index = self.heads.resolve(block, list_bytes_max, stats, service)?;
        let head = self.heads.get(index);
        let now_ns = self.sender.now_ns;
        let content_type = subtype_content_type(head.subtype, &head.subtype_text);
        let is_full = self.limits.concurrent_streams_max <= self.sender.open;
        let is_output_full = self.limits.output_bytes_max <= self.sender.output_bytes();
        let mut reject = |http_status: &str, code, message: &str| {
            self.sender
                .reject(id, end_stream, http_status, content_type, (code, message));
        };
        let mut refused = None;
        match &head.verdict {
            Verdict::Malformed => refused = Some(ErrorCode::ProtocolError),
            Verdict::ListTooLarge => {
                self.sender.stats.limits.header_list_bytes += 1;
                refused = Some(ErrorCode::FrameSizeError);
            }
            _ if end_stream && head.content_length.is_some_and(|length| length > 0) => {
                refused = Some(ErrorCode::ProtocolError);
            }
            _ if is_full => {
                self.sender.stats.limits.concurrent_streams += 1;
                refused = Some(ErrorCode::RefusedStream);
            }
            // A few bytes can ask for a long text, thousands of times in one read.
            Verdict::Reject(_) if is_output_full => {
                self.sender.stats.limits.output_bytes += 1;
                refused = Some(ErrorCode::EnhanceYourCalm);
            }
            Verdict::Reject(rejection) => {
                reject(rejection.http_status, rejection.code, &rejection.message);
            }
            Verdict::Plain if self.heads.metadata_bytes() > self.limits.metadata_bytes_max => {
                self.sender.stats.limits.metadata_bytes += 1;
                refused = Some(ErrorCode::EnhanceYourCalm);
            }
            Verdict::Plain => {
                self.begin_plain(id, index, end_stream, service);
                return Ok(());
            }
            Verdict::Call(..) if self.heads.metadata_bytes() > self.limits.metadata_bytes_max => {
                reject(
                    "200",
                    Code::ResourceExhausted,
                    "too much metadata on this connection",
                );
                self.sender.stats.limits.metadata_bytes += 1;
            }
            Verdict::Call(..) if head.timeout_ns == Some(0) => {
                reject("200", Code::DeadlineExceeded, "context deadline exceeded");
                self.sender.stats.deadlines_passed += 1;
            }
            &Verdict::Call(method, kind) => {
                let deadline_ns = head
                    .timeout_ns
                    .map(|timeout| now_ns.saturating_add(timeout));
                let call = IncomingCall {
                    id,
                    method,
                    kind,
                    head: index,
                    window: ReceiveWindow::new(self.limits.stream_window_bytes),
                    deadline_ns,
                    content_left: head.content_length,
                    announced: false,
                    has_message: false,
                    is_plain: false,
                    assembly: Vec::new(),
                };
                let slot =
                    self.sender
                        .open(id, method, end_stream, head.subtype, &head.subtype_text);
                self.sender.stats.calls_started += 1;
                self.incoming.begin(slot, call);
                if let Some(deadline_ns) = deadline_ns {
                    self.timers.add_deadline(deadline_ns);
                }
                if end_stream {
                    self.on_end(slot, service);
                }
                return Ok(());
            }
        }
        self.heads.release(index);
        match refused {
            Some(code) => self.stream_error(id, code),
            None => Ok(()),
        }
    }

    /// A block on a stream that was opened before.
    #[cold]
    fn on_late_block<S: Service>(
        &mut self,
        id: u32,
        block: &[u8],
        end_stream: bool,
        service: &mut S,
    ) -> Handled {
        if let Some(slot) = self.sender.slot(id) {
            return self.on_trailers(slot, id, block, end_stream, service);
        }
        match self.sender.recently_closed(id) {
            // Sent before the client saw that we ended the stream.
            Some(true) => {
                self.heads.skip(block)?;
                self.ignore_frame()
            }
            Some(false) => Err(ConnectionError::new(
                ErrorCode::StreamClosed,
                "HEADERS on a closed stream",
            )),
            None => Err(ConnectionError::protocol(
                "stream id not above those used before",
            )),
        }
    }

    /// Trailers of a request: gRPC has none, HTTP/2 allows them; they only end the stream.
    fn on_trailers<S: Service>(
        &mut self,
        slot: Slot,
        id: u32,
        block: &[u8],
        end_stream: bool,
        service: &mut S,
    ) -> Handled {
        let valid = self.heads.skip(block)?;
        if self.sender.is_half_closed(slot) {
            return self.stream_error(id, ErrorCode::StreamClosed);
        }
        if !end_stream || !valid || self.content_left(slot) != 0 {
            return self.stream_error(id, ErrorCode::ProtocolError);
        }
        self.sender.half_close(slot);
        if self.sender.accepts(slot, id) {
            self.on_end(slot, service);
        }
        Ok(())
    }
}
