//! DATA frames: receive windows, and gRPC messages out of them.
//!
//! A message that lies whole in one frame is handed to the service where it lies. Only what is cut
//! by a frame, and the single request of a client that half-closes in a later frame, is copied into
//! the call's `assembly`. The rules about how many messages a call may have, and their texts, are
//! grpc-go's.

use super::heads::{HeadIndex, Heads};
use super::sender::{PREFIX_BYTES, Slot};
use super::{Connection, Handled};
use crate::grpc::service::{Call, CallKind, CancelReason, MethodId, Service, StreamId};
use crate::grpc::{Code, Metadata, Responder};
use crate::h2::error::{ConnectionError, ErrorCode};
use crate::h2::flow::ReceiveWindow;
use crate::h2::frame::{self, FrameHeader, flag};

const NO_REQUEST: &str =
    "cardinality violation: received no request message from non-client-streaming RPC";
const MULTIPLE_REQUESTS: &str =
    "cardinality violation: received multiple request messages for non-client-streaming RPC";

/// The receiving half of all open calls, by the sender's slots.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    calls: Vec<IncomingCall>,
    /// Sum of all `assembly` lengths.
    assembly_bytes: usize,
    spare: Vec<Vec<u8>>,
}

#[derive(Debug)]
pub(super) struct IncomingCall {
    pub(super) id: u32,
    pub(super) method: MethodId,
    pub(super) kind: CallKind,
    pub(super) head: HeadIndex,
    pub(super) window: ReceiveWindow,
    pub(super) deadline_ns: Option<u64>,
    /// What `content-length` still promises.
    pub(super) content_left: Option<u64>,
    /// The service has heard of the call.
    pub(super) announced: bool,
    /// The single request is complete; it waits in `assembly` for the client to half-close.
    pub(super) has_message: bool,
    /// Not a call but a request that is not gRPC: `assembly` is its body, and its method means
    /// nothing.
    pub(super) is_plain: bool,
    /// An incomplete message with its prefix, or the single request.
    pub(super) assembly: Vec<u8>,
}

/// What is left to say about a call that is over.
pub(super) struct Ended {
    pub(super) id: u32,
    pub(super) method: MethodId,
    pub(super) announced: bool,
}

/// Assembly buffers kept for reuse, and the largest one that is.
const SPARE_MAX: usize = 8;
const SPARE_BYTES_MAX: usize = 32 << 10;

/// Code and text of a status that ends a call.
type Status = (Code, String);

impl Incoming {
    #[inline]
    pub(super) fn begin(&mut self, slot: Slot, call: IncomingCall) {
        match self.calls.get_mut(slot as usize) {
            Some(place) => *place = call,
            None => {
                assert_eq!(
                    slot as usize,
                    self.calls.len(),
                    "slots are given out in order"
                );
                self.calls.push(call);
            }
        }
    }

    /// Cleans up after a call.
    pub(super) fn end(&mut self, slot: Slot, heads: &mut Heads) -> Ended {
        let call = &mut self.calls[slot as usize];
        let assembly = std::mem::take(&mut call.assembly);
        let (id, method, announced) = (call.id, call.method, call.announced);
        heads.release(call.head);
        self.assembly_bytes -= assembly.len();
        self.recycle(assembly);
        Ended {
            id,
            method,
            announced,
        }
    }

    pub(super) fn deadline_ns(&self, slot: Slot) -> Option<u64> {
        self.calls[slot as usize].deadline_ns
    }

    pub(super) fn recycle(&mut self, mut buffer: Vec<u8>) {
        let capacity = buffer.capacity();
        if 0 < capacity && capacity <= SPARE_BYTES_MAX && self.spare.len() < SPARE_MAX {
            buffer.clear();
            self.spare.push(buffer);
        }
    }

    pub(super) fn assembly_bytes(&self) -> usize {
        self.assembly_bytes
    }

    pub(super) fn call(&self, slot: Slot) -> &IncomingCall {
        &self.calls[slot as usize]
    }

    /// Appends to the assembly of a call.
    pub(super) fn keep(&mut self, slot: Slot, bytes: &[u8]) {
        let call = &mut self.calls[slot as usize];
        if call.assembly.capacity() == 0 {
            call.assembly = self.spare.pop().unwrap_or_default();
        }
        call.assembly.extend_from_slice(bytes);
        self.assembly_bytes += bytes.len();
    }

    /// Moves bytes of `body` into the assembly until its message is complete. True if it is; if
    /// not, all of `body` was taken.
    fn extend(&mut self, slot: Slot, body: &mut &[u8], bytes_max: u32) -> Result<bool, Status> {
        loop {
            let assembly = &self.calls[slot as usize].assembly;
            let message = message_bytes(assembly, bytes_max)?;
            let missing = PREFIX_BYTES + message.unwrap_or(0) - assembly.len();
            if missing == 0 {
                return Ok(true);
            }
            if body.is_empty() {
                return Ok(false);
            }
            let (taken, rest) = body.split_at(body.len().min(missing));
            self.keep(slot, taken);
            *body = rest;
        }
    }

    /// Takes the assembly of a call out.
    pub(super) fn take(&mut self, slot: Slot) -> Vec<u8> {
        let assembly = std::mem::take(&mut self.calls[slot as usize].assembly);
        self.assembly_bytes -= assembly.len();
        assembly
    }
}

/// Length of the message whose prefix `bytes` begins with; nothing if the prefix is incomplete.
#[inline]
fn message_bytes(bytes: &[u8], bytes_max: u32) -> Result<Option<usize>, Status> {
    let Some(&[flags, l0, l1, l2, l3]) = bytes.first_chunk::<PREFIX_BYTES>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes([l0, l1, l2, l3]);
    if flags == 0 && length <= bytes_max {
        return Ok(Some(length as usize));
    }
    Err(refuse_message(flags, length, bytes_max))
}

#[cold]
fn refuse_message(flags: u8, length: u32, bytes_max: u32) -> Status {
    if length > bytes_max {
        let text = format!("grpc: received message larger than max ({length} vs. {bytes_max})");
        return (Code::ResourceExhausted, text);
    }
    let text = match flags {
        // No encoding but identity gets this far.
        1 => "grpc: compressed flag set with identity or empty encoding".to_owned(),
        _ => format!("grpc: received unexpected payload format {flags}"),
    };
    (Code::Internal, text)
}

impl Connection {
    pub(super) fn on_data<S: Service>(
        &mut self,
        header: &FrameHeader,
        payload: &[u8],
        service: &mut S,
    ) -> Handled {
        let id = header.stream;
        if id == 0 {
            return Err(ConnectionError::protocol("DATA on stream 0"));
        }
        let body = if header.has(flag::PADDED) {
            unpad(payload)?
        } else {
            payload
        };
        if self.window.on_data(header.length).is_err() {
            self.sender.stats.limits.connection_window += 1;
            return Err(ConnectionError::new(
                ErrorCode::FlowControlError,
                "connection window exceeded",
            ));
        }
        if let Some(increment) = self.window.refill() {
            self.sender
                .control(|out| frame::put_window_update(out, 0, increment));
        }
        let Some(slot) = self.sender.slot(id) else {
            return self.on_stray_data(id);
        };
        if self.sender.is_half_closed(slot) {
            return self.stream_error(id, ErrorCode::StreamClosed);
        }
        let end = header.has(flag::END_STREAM);
        let call = &mut self.incoming.calls[slot as usize];
        if call.window.on_data(header.length).is_err() {
            self.sender.stats.limits.stream_window += 1;
            return self.stream_error(id, ErrorCode::FlowControlError);
        }
        if let Some(left) = call.content_left {
            match left.checked_sub(body.len() as u64) {
                Some(left) if left == 0 || !end => call.content_left = Some(left),
                _ => return self.stream_error(id, ErrorCode::ProtocolError),
            }
        }
        if end {
            self.sender.half_close(slot);
        } else {
            if let Some(increment) = call.window.refill() {
                self.sender
                    .control(|out| frame::put_window_update(out, id, increment));
            }
            if body.is_empty() {
                return self.empty_frame();
            }
        }
        if self.sender.accepts(slot, id) {
            self.on_body(slot, body, end, service);
        }
        Ok(())
    }

    /// DATA on a stream that is not open.
    #[cold]
    fn on_stray_data(&mut self, id: u32) -> Handled {
        if self.is_idle(id) {
            return Err(ConnectionError::protocol("DATA on an idle stream"));
        }
        if self.sender.recently_closed(id) == Some(true) {
            // Sent before the client saw that we ended the stream.
            return self.ignore_frame();
        }
        self.stream_error(id, ErrorCode::StreamClosed)
    }

    fn on_body<S: Service>(&mut self, slot: Slot, mut body: &[u8], end: bool, service: &mut S) {
        let bytes_max = self.limits.message_bytes_max;
        let (id, is_single) = {
            let call = &self.incoming.calls[slot as usize];
            if call.is_plain {
                return self.on_plain_body(slot, body, end, service);
            }
            (call.id, call.kind.has_single_request())
        };
        while !body.is_empty() {
            let call = &mut self.incoming.calls[slot as usize];
            if call.has_message {
                return self.end_call(slot, Code::Internal, MULTIPLE_REQUESTS);
            }
            if !call.assembly.is_empty() {
                match self.incoming.extend(slot, &mut body, bytes_max) {
                    Err(status) => return self.end_call_with(slot, status),
                    Ok(false) => break,
                    Ok(true) if is_single => {
                        self.incoming.calls[slot as usize].has_message = true;
                        continue;
                    }
                    Ok(true) => {
                        let assembly = self.incoming.take(slot);
                        self.deliver(slot, &assembly[PREFIX_BYTES..], service);
                        self.incoming.recycle(assembly);
                    }
                }
            } else {
                let whole = match message_bytes(body, bytes_max) {
                    Err(status) => return self.end_call_with(slot, status),
                    Ok(length) => length.and_then(|b| body.split_at_checked(PREFIX_BYTES + b)),
                };
                let Some((message, rest)) = whole else {
                    self.incoming.keep(slot, body);
                    break;
                };
                body = rest;
                if is_single && !(end && body.is_empty()) {
                    self.incoming.keep(slot, message);
                    self.incoming.calls[slot as usize].has_message = true;
                    continue;
                }
                self.deliver(slot, &message[PREFIX_BYTES..], service);
                if is_single {
                    return;
                }
            }
            if !self.sender.accepts(slot, id) {
                return;
            }
        }
        if self.incoming.assembly_bytes > self.limits.assembly_bytes_max {
            self.sender.stats.limits.assembly_bytes += 1;
            let text = "too many incomplete messages on this connection";
            return self.end_call(slot, Code::ResourceExhausted, text);
        }
        if end {
            self.on_end(slot, service);
        }
    }

    /// The client has half-closed an open call.
    pub(super) fn on_end<S: Service>(&mut self, slot: Slot, service: &mut S) {
        let call = &mut self.incoming.calls[slot as usize];
        if call.is_plain {
            self.deliver_plain(slot, service);
        } else if call.has_message {
            let assembly = self.incoming.take(slot);
            self.deliver(slot, &assembly[PREFIX_BYTES..], service);
            self.incoming.recycle(assembly);
        } else if !call.assembly.is_empty() {
            // As gRPC for Go: its unary calls pass the reader's error on, its streams give it a code.
            let (code, text) = match call.kind {
                CallKind::Unary if call.assembly.len() < PREFIX_BYTES => (Code::Unknown, "EOF"),
                CallKind::Unary => (Code::Unknown, "unexpected EOF"),
                _ => (Code::Internal, "unexpected EOF"),
            };
            self.end_call(slot, code, text);
        } else if call.kind == CallKind::Unary {
            self.end_call(slot, Code::Unknown, "EOF");
        } else if call.kind.has_single_request() {
            self.end_call(slot, Code::Internal, NO_REQUEST);
        } else {
            call.announced = true;
            let view = view(call, &self.heads);
            service.on_half_close(&view, &mut Responder::new(&mut self.sender));
        }
    }

    /// Hands a message to the service.
    #[inline]
    fn deliver<S: Service>(&mut self, slot: Slot, message: &[u8], service: &mut S) {
        self.sender.stats.messages_received += 1;
        let call = &mut self.incoming.calls[slot as usize];
        call.announced = true;
        let view = view(call, &self.heads);
        service.on_message(&view, message, &mut Responder::new(&mut self.sender));
    }

    fn end_call_with(&mut self, slot: Slot, (code, text): Status) {
        if code == Code::ResourceExhausted {
            self.sender.stats.limits.message_bytes += 1;
        }
        self.end_call(slot, code, &text);
    }

    #[cold]
    fn end_call(&mut self, slot: Slot, code: Code, text: &str) {
        self.sender.end(slot, code, text, CancelReason::Protocol);
    }

    /// What `content-length` promised and has not arrived.
    pub(super) fn content_left(&self, slot: Slot) -> u64 {
        self.incoming.calls[slot as usize].content_left.unwrap_or(0)
    }
}

#[inline]
fn view<'a>(call: &IncomingCall, heads: &'a Heads) -> Call<'a> {
    Call {
        stream: StreamId(call.id),
        method: call.method,
        kind: call.kind,
        deadline_ns: call.deadline_ns,
        metadata: Metadata::new(&heads.get(call.head).fields),
    }
}

/// Strips the padding (RFC 9113 6.1): its length comes first and may not reach into itself.
pub(super) fn unpad(payload: &[u8]) -> Result<&[u8], ConnectionError> {
    payload
        .split_first()
        .and_then(|(&padding, rest)| Some(&rest[..rest.len().checked_sub(padding.into())?]))
        .ok_or(ConnectionError::protocol("padding longer than the frame"))
}
