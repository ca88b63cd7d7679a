//! Calls out of requests of the JSON API.
//!
//! A request's JSON becomes the encoded message that a gRPC client would have sent, and goes to the same
//! [`Calls`]; its answers come through the same [`Responder`](wire::grpc::Responder), wait in the connection's
//! [`LocalCalls`](wire::grpc::LocalCalls), and become JSON when the client takes them. No socket is between.
//!
//! A request is worked on inside the HTTP library, where neither the connection nor the core's state may be touched. So
//! what it wants said to the services waits in [`Gateway`] and is said by [`NetCore::serve_gateway`], for all requests of
//! a pass at once. Always true here: a call whose request is dropped is cancelled; a body is bounded by the limit on
//! requests; a stream makes the next line when the one before was taken.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use wire::error::EtcdError;
use wire::grpc::{Call, CallKind, CancelReason, Code, LocalAnswer, MetadataBuf, Service, StreamId};
use wire::json::{JsonError, MessageType, Values, decode};

use crate::auth::gate::CommonName;
use crate::gateway::metadata::{metadata, timeout_ns};
use crate::gateway::replies::{self, JsonReply};
use crate::gateway::routes::JsonRoute;
use crate::http1::{BrokenBody, Pieces, ReplyBody, RequestBody, host};
use crate::runtime::{Signal, sleep};

use super::calls::Calls;
use super::connection::Connection;
use super::core::NetCore;
use super::http_client::HttpClient;

/// Calls of one net core that came as JSON and are not over; one more is told `too many requests`.
const CALLS_MAX: usize = 65_536;
/// Messages of one stream that were decoded and not yet said to their service; the rest of the body waits.
const MESSAGES_MAX: usize = 64;

/// What requests of this core want said to the services.
#[derive(Default)]
pub struct Gateway {
    said: RefCell<Vec<Said>>,
    signal: Signal,
    running: std::cell::Cell<usize>,
}

struct Said {
    connection: Rc<Connection>,
    head: Rc<CallHead>,
    what: What,
}

enum What {
    Message(Vec<u8>),
    HalfClose,
    Cancel(CancelReason),
}

/// What a call is for its whole life.
struct CallHead {
    stream: StreamId,
    route: JsonRoute,
    deadline_ns: Option<u64>,
    metadata: MetadataBuf,
    /// Messages on their way to the service.
    unsaid: std::cell::Cell<usize>,
}

impl Gateway {
    fn say(&self, connection: &Rc<Connection>, head: &Rc<CallHead>, what: What) {
        let (connection, head) = (connection.clone(), head.clone());
        self.said.borrow_mut().push(Said {
            connection,
            head,
            what,
        });
        self.signal.notify();
    }

    /// Calls that are not over.
    pub(super) fn running(&self) -> usize {
        self.running.get()
    }
}

impl NetCore {
    /// Says to the services what requests have come to, a pass at a time.
    pub async fn serve_gateway(self: Rc<Self>) {
        loop {
            self.gateway.signal.wait().await;
            let mut said = std::mem::take(&mut *self.gateway.said.borrow_mut());
            self.state.borrow_mut().now_ns = self.clock.now_ns();
            for Said {
                connection,
                head,
                what,
            } in said.drain(..)
            {
                self.say(&connection, &head, what);
            }
            self.state.borrow_mut().end_pass();
            self.end_pass();
        }
    }

    fn say(&self, connection: &Rc<Connection>, head: &CallHead, what: What) {
        let mut state = self.state.borrow_mut();
        let mut calls = Calls {
            state: &mut state,
            connection: connection.key,
            // Nobody is known here by the certificate of a connection: in etcd it would be the gateway's own.
            common_name: &CommonName::new(),
            acts_for: None,
        };
        let call = Call {
            stream: head.stream,
            method: head.route.method,
            kind: head.route.kind,
            deadline_ns: head.deadline_ns,
            metadata: head.metadata.view(),
        };
        connection.respond(|out| match what {
            What::Message(message) => {
                head.unsaid.set(head.unsaid.get() - 1);
                if out.is_open(call.stream) {
                    calls.on_message(&call, &message, out);
                }
            }
            What::HalfClose if out.is_open(call.stream) => calls.on_half_close(&call, out),
            What::HalfClose => {}
            What::Cancel(reason) => calls.on_cancel(call.stream, call.method, reason),
        });
        drop(state);
        self.mark_dirty(connection);
    }
}

/// A call that a request has begun.
struct GatewayCall {
    core: Rc<NetCore>,
    connection: Rc<Connection>,
    head: Rc<CallHead>,
    timer: Option<Pin<Box<dyn Future<Output = ()>>>>,
    is_over: bool,
}

impl GatewayCall {
    fn say(&self, what: What) {
        if let What::Message(_) = what {
            self.head.unsaid.set(self.head.unsaid.get() + 1);
        }
        self.core.gateway.say(&self.connection, &self.head, what);
    }

    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<LocalAnswer> {
        if let Some(timer) = &mut self.timer
            && timer.as_mut().poll(cx).is_ready()
        {
            self.timer = None;
            self.cancel(CancelReason::Deadline);
            let text = "context deadline exceeded".to_owned();
            return Poll::Ready(LocalAnswer::Status(Code::DeadlineExceeded, text));
        }
        let mut local = self.connection.local().borrow_mut();
        let answer = ready!(local.poll_answer(self.head.stream, cx));
        if let LocalAnswer::Status(..) = answer {
            self.is_over = true;
        }
        Poll::Ready(answer)
    }

    fn cancel(&mut self, reason: CancelReason) {
        if std::mem::replace(&mut self.is_over, true) {
            return;
        }
        let cancelled = self
            .connection
            .local()
            .borrow_mut()
            .cancel(self.head.stream);
        if cancelled.is_some() {
            self.say(What::Cancel(reason));
        }
    }
}

impl Drop for GatewayCall {
    fn drop(&mut self) {
        self.cancel(CancelReason::Reset);
        let running = &self.core.gateway.running;
        running.set(running.get() - 1);
    }
}

impl HttpClient {
    /// Answers a request of the JSON API; `path` is what follows `/v3/`.
    pub(super) async fn call(
        &self,
        core: &Rc<NetCore>,
        path: &str,
        request: &Request<()>,
        body: RequestBody,
    ) -> JsonReply {
        let Some(route) = core.json_routes.find(path) else {
            return replies::error(Code::NotFound, "Not Found");
        };
        if request.method() != Method::POST {
            return replies::error(Code::Unimplemented, "Method Not Allowed");
        }
        let deadline_ns = match timeout_ns(request.headers()) {
            Ok(timeout) => timeout.map(|timeout_ns| core.clock.now_ns().saturating_add(timeout_ns)),
            Err(text) => return replies::error(Code::InvalidArgument, &text),
        };
        if core.gateway.running() >= CALLS_MAX {
            return replies::error(Code::ResourceExhausted, EtcdError::TooManyRequests.text());
        }
        let metadata = metadata(request.headers(), host(request), self.peer);
        let mut beginning = Beginning {
            client: self,
            core,
            route,
            metadata,
            deadline_ns,
        };
        match route.kind {
            CallKind::Unary => beginning.unary(body).await,
            _ => beginning.stream(body).await,
        }
    }
}

/// A call that is not begun yet.
struct Beginning<'a> {
    client: &'a HttpClient,
    core: &'a Rc<NetCore>,
    route: JsonRoute,
    metadata: MetadataBuf,
    deadline_ns: Option<u64>,
}

/// Why a body is no request.
enum Refused {
    Json(JsonError),
    TooLarge(usize),
    Broken,
}

impl From<JsonError> for Refused {
    fn from(error: JsonError) -> Refused {
        Refused::Json(error)
    }
}

impl From<BrokenBody> for Refused {
    fn from(_: BrokenBody) -> Refused {
        Refused::Broken
    }
}

impl Beginning<'_> {
    fn begin(&mut self) -> Option<GatewayCall> {
        let connection = self.client.connection.upgrade()?;
        let now_ns = self.core.clock.now_ns();
        let method = self.route.method;
        let stream = connection.local().borrow_mut().open(method, now_ns);
        let running = &self.core.gateway.running;
        running.set(running.get() + 1);
        let timer = self.deadline_ns.map(|at_ns| {
            let wait = Duration::from_nanos(at_ns.saturating_sub(now_ns));
            Box::pin(sleep(wait)) as Pin<Box<dyn Future<Output = ()>>>
        });
        let head = CallHead {
            stream,
            route: self.route,
            deadline_ns: self.deadline_ns,
            metadata: std::mem::take(&mut self.metadata),
            unsaid: Default::default(),
        };
        Some(GatewayCall {
            core: self.core.clone(),
            connection,
            head: Rc::new(head),
            timer,
            is_over: false,
        })
    }

    fn refuse(&self, refused: &Refused) -> JsonReply {
        let bytes_max = self.core.limits.message_bytes_max;
        match refused {
            Refused::Json(error) => replies::error(Code::InvalidArgument, &error.to_string()),
            Refused::TooLarge(bytes) => {
                let text =
                    format!("grpc: received message larger than max ({bytes} vs. {bytes_max})");
                replies::error(Code::ResourceExhausted, &text)
            }
            Refused::Broken => replies::error(Code::InvalidArgument, "unexpected EOF"),
        }
    }

    async fn unary(&mut self, mut body: RequestBody) -> JsonReply {
        let message = match self.read_one(&mut body).await {
            Ok(message) => message,
            Err(refused) => return self.refuse(&refused),
        };
        let Some(mut call) = self.begin() else {
            return replies::error(Code::Canceled, "context canceled");
        };
        call.say(What::Message(message));
        let mut reply = None;
        loop {
            match poll_fn(|cx| call.poll_answer(cx)).await {
                LocalAnswer::Message(message) => reply = Some(message),
                LocalAnswer::Status(Code::Ok, _) => {
                    let message = reply.unwrap_or_default();
                    let mut reply = replies::message(&message, self.route.reply);
                    reply.body_mut().count_in(call.connection.reply_bytes());
                    return reply;
                }
                LocalAnswer::Status(code, text) => return replies::error(code, &text),
            }
        }
    }

    /// The one message of a body, encoded; what follows it is not looked at.
    async fn read_one(&self, body: &mut RequestBody) -> Result<Vec<u8>, Refused> {
        let limits = &self.core.limits;
        let mut values = Values::default();
        let found = loop {
            match poll_fn(|cx| body.poll_piece(cx)).await {
                Some(piece) => values.push(&piece?),
                None => {
                    values.end();
                    break values.next()?;
                }
            }
            if let Some(found) = values.next()? {
                break Some(found);
            }
            if values.held() > limits.plain_bytes_max() {
                return Err(Refused::TooLarge(values.held()));
            }
        };
        let mut message = Vec::new();
        if let Some(found) = found {
            let text = values.text(found);
            message.reserve(text.len());
            decode(text, self.route.request, &mut message)?;
        }
        if message.len() > limits.message_bytes_max as usize {
            return Err(Refused::TooLarge(message.len()));
        }
        // As in etcd, the call begins when the body is over.
        while let Some(piece) = poll_fn(|cx| body.poll_piece(cx)).await {
            piece?;
        }
        Ok(message)
    }

    async fn stream(&mut self, mut body: RequestBody) -> JsonReply {
        let mut requests = None;
        let call = if self.route.kind.has_single_request() {
            let message = match self.read_one(&mut body).await {
                Ok(message) => message,
                Err(refused) => return self.refuse(&refused),
            };
            let call = self.begin();
            if let Some(call) = &call {
                call.say(What::Message(message));
            }
            call
        } else {
            requests = Some(Requests {
                body,
                values: Values::default(),
                is_ended: false,
            });
            self.begin()
        };
        let Some(call) = call else {
            return replies::stream_error(Code::Canceled, "context canceled");
        };
        let mut lines = Lines {
            call,
            requests,
            first: None,
            reply: self.route.reply,
        };
        match poll_fn(|cx| lines.poll_answer(cx)).await {
            LocalAnswer::Message(message) => {
                lines.first = Some(replies::result_line(&message, self.route.reply));
                replies::stream(ReplyBody::Pieces(Box::new(lines)))
            }
            LocalAnswer::Status(Code::Ok, _) => replies::empty_stream(),
            LocalAnswer::Status(code, text) => replies::stream_error(code, &text),
        }
    }
}

/// The rest of a body whose messages are said one by one.
struct Requests {
    body: RequestBody,
    values: Values,
    is_ended: bool,
}

impl Requests {
    /// Says what has come. A body that is no JSON is as good as over: etcd's gateway then sends nothing more either.
    fn pump(&mut self, call: &GatewayCall, cx: &mut Context<'_>) {
        while !self.is_ended {
            if call.head.unsaid.get() >= MESSAGES_MAX {
                // The services are told of them in the pass that is about to begin; then this is asked again.
                cx.waker().wake_by_ref();
                return;
            }
            match self.next_message(call.head.route.request, call, cx) {
                Poll::Ready(Some(message)) => call.say(What::Message(message)),
                Poll::Ready(None) => {
                    self.is_ended = true;
                    call.say(What::HalfClose);
                }
                Poll::Pending => return,
            }
        }
    }

    fn next_message(
        &mut self,
        request: MessageType,
        call: &GatewayCall,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Vec<u8>>> {
        let limits = &call.core.limits;
        loop {
            let found = match self.values.next() {
                Ok(found) => found,
                Err(_) => return Poll::Ready(None),
            };
            if let Some(found) = found {
                let mut message = Vec::new();
                let decoded = decode(self.values.text(found), request, &mut message);
                let is_message =
                    decoded.is_ok() && message.len() <= limits.message_bytes_max as usize;
                return Poll::Ready(is_message.then_some(message));
            }
            if self.values.is_over() || self.values.held() > limits.plain_bytes_max() {
                return Poll::Ready(None);
            }
            match ready!(self.body.poll_piece(cx)) {
                Some(Ok(piece)) => self.values.push(&piece),
                Some(Err(_)) | None => self.values.end(),
            }
        }
    }
}

/// The lines of a stream's answer.
struct Lines {
    call: GatewayCall,
    requests: Option<Requests>,
    /// It decided that there is an answer at all.
    first: Option<Bytes>,
    reply: MessageType,
}

impl Lines {
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<LocalAnswer> {
        if let Some(requests) = &mut self.requests {
            requests.pump(&self.call, cx);
        }
        self.call.poll_answer(cx)
    }
}

impl Pieces for Lines {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(first));
        }
        if self.call.is_over {
            return Poll::Ready(None);
        }
        Poll::Ready(match ready!(self.poll_answer(cx)) {
            LocalAnswer::Message(message) => Some(replies::result_line(&message, self.reply)),
            LocalAnswer::Status(Code::Ok, _) => None,
            LocalAnswer::Status(code, text) => Some(replies::error_line(code, &text)),
        })
    }
}
