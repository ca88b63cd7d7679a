//! Plain HTTP requests that come over HTTP/2: health, metrics, version and the API as JSON on a connection that speaks
//! gRPC.
//!
//! The protocol engine hands such a request over whole; it is answered as over HTTP/1.1, in a task of its own, because a
//! health check may wait for a read index and a watch has no end. Always true here: at most [`PLAIN_REQUESTS_MAX`]
//! requests of endpoints are being answered; one more is told so (calls have a bound of their own). An answer whose
//! client has gone is dropped; a stream makes its next line once its client has taken most of those before.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, Version, header};
use wire::grpc::{PlainRequest, Responder, StreamId};

use crate::http1::{Pieces, RequestBody};
use crate::runtime::{Class, sleep, spawn};

use super::calls::Calls;
use super::connection::ConnectionKey;
use super::core::NetCore;
use super::http_client::HttpClient;

/// Plain requests of one net core that may be under way at the same time; one more is answered 503.
/// A scrape is some hundred kilobytes, so this also bounds what they can take.
pub const PLAIN_REQUESTS_MAX: usize = 256;
/// A stream pauses above this many bytes that its client has not taken.
const BACKLOG_BYTES_MAX: usize = 256 << 10;
const BACKLOG_PAUSE: Duration = Duration::from_millis(10);
/// A stream that has nothing to say looks this often whether its client is still there.
const LOOK_PAUSE: Duration = Duration::from_secs(1);

/// Such a request and where its answer goes.
pub struct WaitingPlain {
    pub connection: ConnectionKey,
    pub stream: StreamId,
    pub request: Request<()>,
    pub body: Bytes,
}

impl Calls<'_> {
    pub(super) fn take_plain(&mut self, plain: &PlainRequest<'_>, out: &mut Responder<'_>) {
        let Some(request) = translate(plain) else {
            return refuse(out, plain.stream, StatusCode::BAD_REQUEST);
        };
        let state = &mut *self.state;
        let is_call = is_call(&request);
        if !is_call && state.plain_running >= PLAIN_REQUESTS_MAX {
            return refuse(out, plain.stream, StatusCode::SERVICE_UNAVAILABLE);
        }
        state.plain_running += usize::from(!is_call);
        state.plain.push(WaitingPlain {
            connection: self.connection,
            stream: plain.stream,
            request,
            body: Bytes::copy_from_slice(plain.body),
        });
    }
}

/// Whether it is bounded among the calls.
fn is_call(request: &Request<()>) -> bool {
    request.uri().path().starts_with("/v3")
}

impl NetCore {
    /// Starts on the plain requests that this pass brought.
    pub(super) fn start_plain(self: &Rc<Self>) {
        // Nearly every pass has none.
        if self.state.borrow().plain.is_empty() {
            return;
        }
        let waiting = std::mem::take(&mut self.state.borrow_mut().plain);
        for plain in waiting {
            spawn(Class::Request, self.clone().answer_plain(plain));
        }
    }

    async fn answer_plain(self: Rc<Self>, plain: WaitingPlain) {
        let is_call = is_call(&plain.request);
        let connection = self.connections.borrow().get(plain.connection).cloned();
        if let Some(connection) = connection {
            let client = HttpClient::new(&self, &connection);
            let is_head = plain.request.method() == Method::HEAD;
            let body = RequestBody::Whole(plain.body);
            let (head, body) = client.answer(plain.request, body).await.into_parts();
            match body.into_whole() {
                Ok(bytes) => {
                    let reply = http::Response::from_parts(head, bytes);
                    self.respond(plain.connection, |out| {
                        put_reply(out, plain.stream, reply, is_head);
                    });
                }
                Err(pieces) => {
                    let place = (plain.connection, plain.stream);
                    self.send_pieces(place, &head, pieces).await;
                }
            }
        }
        self.state.borrow_mut().plain_running -= usize::from(!is_call);
        self.keep_held_bounded();
        self.flush_dirty();
    }

    async fn send_pieces(
        &self,
        (key, stream): (ConnectionKey, StreamId),
        head: &http::response::Parts,
        mut pieces: Box<dyn Pieces>,
    ) {
        self.respond(key, |out| {
            with_fields(head, None, |status, fields| {
                out.plain_head(stream, status, fields);
            });
        });
        loop {
            let mut look = Box::pin(sleep(LOOK_PAUSE));
            let next = poll_fn(|cx| match pieces.poll_piece(cx) {
                Poll::Ready(piece) => Poll::Ready(Some(piece)),
                Poll::Pending => look.as_mut().poll(cx).map(|()| None),
            })
            .await;
            match next {
                None => {}
                Some(Some(piece)) => self.respond(key, |out| out.plain_body(stream, &piece)),
                Some(None) => break self.respond(key, |out| out.plain_end(stream)),
            }
            self.keep_held_bounded();
            self.flush_dirty();
            loop {
                match self.backlog(key, stream) {
                    None => return,
                    Some(backlog) if backlog <= BACKLOG_BYTES_MAX => break,
                    Some(_) => sleep(BACKLOG_PAUSE).await,
                }
            }
        }
    }
}

/// The request as the endpoints know it.
fn translate(plain: &PlainRequest<'_>) -> Option<Request<()>> {
    // CONNECT names no path; there is nothing of that name either.
    let path = match plain.path {
        b"" => b"/",
        path => path,
    };
    let mut request = Request::builder()
        .version(Version::HTTP_2)
        .method(plain.method)
        .uri(path);
    for (name, value) in plain.metadata.iter() {
        let name = match name {
            b":authority" => &b"host"[..],
            name => name,
        };
        request = request.header(name, value);
    }
    if !plain.content_type.is_empty() {
        request = request.header(header::CONTENT_TYPE, plain.content_type);
    }
    request.body(()).ok()
}

fn refuse(out: &mut Responder<'_>, stream: StreamId, status: StatusCode) {
    let mut text = status.to_string();
    text.push('\n');
    let mut reply = http::Response::new(Bytes::from(text));
    *reply.status_mut() = status;
    reply.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    put_reply(out, stream, reply, false);
}

fn put_reply(
    out: &mut Responder<'_>,
    stream: StreamId,
    reply: http::Response<Bytes>,
    is_head: bool,
) {
    let (head, body) = reply.into_parts();
    let sent = if is_head { &[][..] } else { &body[..] };
    with_fields(&head, Some(body.len()), |status, fields| {
        out.plain(stream, status, fields, sent);
    });
}

/// Adds what HTTP/1.1 gets from its library: the length, if there is one, and the date.
fn with_fields(
    head: &http::response::Parts,
    length: Option<usize>,
    put: impl FnOnce(u16, &[(&[u8], &[u8])]),
) {
    let length = length.map(|length| length.to_string());
    let date = httpdate::fmt_http_date(SystemTime::now());
    let mut fields: Vec<(&[u8], &[u8])> = head
        .headers
        .iter()
        .map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()))
        .collect();
    if let Some(length) = &length {
        fields.push((b"content-length", length.as_bytes()));
    }
    fields.push((b"date", date.as_bytes()));
    put(head.status.as_u16(), &fields);
}
