//! Requests that are not gRPC: collected, handed to the service whole, answered whole.
//!
//! etcd serves health, metrics and its gateway on the port of its clients, whatever version of HTTP
//! they speak. Always true here: such a request is a stream like any other (it counts against the
//! same bounds and windows) but no call: it is not listed among the ended ones, has no deadline, and
//! the service hears of it once. Nothing here is on the path of a call.

use super::data::IncomingCall;
use super::heads::HeadIndex;
use super::sender::Slot;
use super::{Connection, ErrorCode};
use crate::grpc::service::{CallKind, CancelReason, MethodId, PlainRequest, Service, StreamId};
use crate::grpc::{Metadata, Responder};
use crate::h2::flow::ReceiveWindow;

impl Connection {
    #[cold]
    pub(super) fn begin_plain<S: Service>(
        &mut self,
        id: u32,
        head: HeadIndex,
        end_stream: bool,
        service: &mut S,
    ) {
        let slot = self.sender.open_plain(id, end_stream);
        let request = IncomingCall {
            id,
            method: MethodId(0),
            kind: CallKind::Unary,
            head,
            window: ReceiveWindow::new(self.limits.stream_window_bytes),
            deadline_ns: None,
            content_left: self.heads.get(head).content_length,
            announced: false,
            has_message: false,
            is_plain: true,
            assembly: Vec::new(),
        };
        self.incoming.begin(slot, request);
        if end_stream {
            self.on_end(slot, service);
        }
    }

    /// A piece of the body.
    #[cold]
    pub(super) fn on_plain_body<S: Service>(
        &mut self,
        slot: Slot,
        body: &[u8],
        end: bool,
        service: &mut S,
    ) {
        let request = self.incoming.call(slot);
        let id = StreamId(request.id);
        if request.assembly.len() + body.len() > self.limits.plain_bytes_max() {
            self.sender.stats.limits.message_bytes += 1;
            return self.sender.plain(id, 413, &[], b"");
        }
        self.incoming.keep(slot, body);
        if self.incoming.assembly_bytes() > self.limits.assembly_bytes_max {
            self.sender.stats.limits.assembly_bytes += 1;
            let reason = CancelReason::Protocol;
            return self.sender.reset(slot, ErrorCode::EnhanceYourCalm, reason);
        }
        if end {
            self.deliver_plain(slot, service);
        }
    }

    #[cold]
    pub(super) fn deliver_plain<S: Service>(&mut self, slot: Slot, service: &mut S) {
        let body = self.incoming.take(slot);
        let request = self.incoming.call(slot);
        let head = self.heads.get(request.head);
        let request = PlainRequest {
            stream: StreamId(request.id),
            method: head.method(),
            path: head.path(),
            content_type: &head.subtype_text,
            metadata: Metadata::new(&head.fields),
            body: &body,
        };
        service.on_plain(&request, &mut Responder::new(&mut self.sender));
        self.incoming.recycle(body);
    }
}
