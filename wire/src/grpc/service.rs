//! What the owner of a connection implements, and what it is told about a call.
//!
//! Callbacks run inside [`Connection::receive`](super::Connection::receive) and its siblings, on
//! the core that owns the connection, in the order of the frames. Everything they are handed is
//! borrowed: copy what must outlive the callback.

use super::{Metadata, Responder};

/// A call on one connection. HTTP/2 never uses a stream id twice, so an answer that arrives after
/// its call was reset finds no call, is dropped, and is counted in
/// [`Stats::late_answers`](super::Stats::late_answers).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub u32);

/// The service's own number for a method; the engine only carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MethodId(pub u16);

/// How many messages each side sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CallKind {
    Unary,
    ServerStreaming,
    ClientStreaming,
    Bidi,
}

impl CallKind {
    /// True if the client sends exactly one message; the engine checks that it does.
    pub const fn has_single_request(self) -> bool {
        matches!(self, CallKind::Unary | CallKind::ServerStreaming)
    }
}

/// A request that is not gRPC, whole: a browser, a scraper, a probe.
#[derive(Debug, Clone, Copy)]
pub struct PlainRequest<'a> {
    pub stream: StreamId,
    /// `:method` as sent.
    pub method: &'a [u8],
    /// `:path` as sent, query included; empty for CONNECT, which has none.
    pub path: &'a [u8],
    /// Empty if there is none.
    pub content_type: &'a [u8],
    pub metadata: Metadata<'a>,
    pub body: &'a [u8],
}

/// Where a `:path` leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    Method(MethodId, CallKind),
    /// Answered UNIMPLEMENTED, `unknown service pkg.Svc`.
    UnknownService,
    /// Answered UNIMPLEMENTED, `unknown method M for service pkg.Svc`.
    UnknownMethod,
}

/// Why a call ended without the service having finished it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CancelReason {
    /// The client sent RST_STREAM.
    Reset,
    /// `grpc-timeout` ran out; the engine answers DEADLINE_EXCEEDED itself.
    Deadline,
    /// The client broke a rule on this stream; the engine has answered it.
    Protocol,
    /// Answers waited for flow control longer than `Limits::stall_timeout_ns`, or did not fit
    /// `Limits::parked_bytes_max`.
    SlowReader,
    /// The connection ended.
    Disconnected,
}

/// One call, as callbacks see it.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    pub stream: StreamId,
    pub method: MethodId,
    pub kind: CallKind,
    /// When the client gives up, on the clock of `now_ns`. The engine cancels the call by itself at
    /// that time.
    pub deadline_ns: Option<u64>,
    pub metadata: Metadata<'a>,
}

impl Call<'static> {
    /// A unary call that the owner makes of itself, under a number of its own choice: it has no client, no deadline and no
    /// metadata.
    pub fn own(stream: StreamId, method: MethodId) -> Call<'static> {
        Call {
            stream,
            method,
            kind: CallKind::Unary,
            deadline_ns: None,
            metadata: Metadata::empty(),
        }
    }
}

/// The application above a connection.
pub trait Service {
    /// Looks up a `:path` (with its leading slash, shape `/service/method` already checked). The
    /// result is kept with the header block and not asked again while the client repeats that
    /// block, so it must not change over time.
    fn route(&mut self, path: &[u8]) -> Route;

    /// One complete message. For calls with a single request (unary, server streaming) it comes
    /// once, when the client has sent exactly one message and half-closed; for the others as
    /// messages arrive. The answer may be given here or later through
    /// [`Connection::responder`](super::Connection::responder).
    fn on_message(&mut self, call: &Call<'_>, message: &[u8], out: &mut Responder<'_>);

    /// Whether requests that are not gRPC go to [`on_plain`](Self::on_plain). If not, the engine
    /// answers them as grpc-go does: 415. The same for the whole life of a connection.
    fn answers_plain(&self) -> bool {
        false
    }

    /// A request whose `content-type` does not hold `application/grpc`, once the client has sent all
    /// of it. Answer with [`Responder::plain`], here or later, and with nothing else. There is no
    /// [`on_cancel`](Self::on_cancel) for it: an answer that comes too late is dropped.
    fn on_plain(&mut self, _request: &PlainRequest<'_>, _out: &mut Responder<'_>) {}

    /// The client half-closed after its messages. Only for client-streaming and bidirectional
    /// calls, whose number of messages is free (also zero: then this is the first the service hears
    /// of the call).
    fn on_half_close(&mut self, call: &Call<'_>, out: &mut Responder<'_>);

    /// A call that the service knows (it got `on_message` or `on_half_close`) and has not finished
    /// is over. Comes at most once a call, and never after the service has finished it.
    fn on_cancel(&mut self, stream: StreamId, method: MethodId, reason: CancelReason);
}
