//! Plain HTTP requests that come over HTTP/2: health, metrics and version on a connection that speaks
//! gRPC.
//!
//! The protocol engine hands such a request over whole; it is answered by the same endpoints as over
//! HTTP/1.1, in a task of its own, because a health check may wait for a read index. Always true
//! here: at most [`PLAIN_REQUESTS_MAX`] are being answered; one more is told so. An answer whose client
//! has gone is dropped.

use std::rc::Rc;
use std::time::SystemTime;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, Version, header};
use wire::grpc::{PlainRequest, Responder, StreamId};

use crate::http1;
use crate::runtime::{Class, spawn};

use super::calls::Calls;
use super::connection::ConnectionKey;
use super::core::NetCore;

/// Plain requests of one net core that may be under way at the same time; one more is answered 503.
/// A scrape is some hundred kilobytes, so this also bounds what they can take.
pub const PLAIN_REQUESTS_MAX: usize = 256;

/// Such a request and where its answer goes.
pub struct WaitingPlain {
    pub connection: ConnectionKey,
    pub stream: StreamId,
    pub request: Request<()>,
}

impl Calls<'_> {
    pub(super) fn take_plain(&mut self, plain: &PlainRequest<'_>, out: &mut Responder<'_>) {
        let Some(request) = translate(plain) else {
            return refuse(out, plain.stream, StatusCode::BAD_REQUEST);
        };
        let state = &mut *self.state;
        if state.plain_running >= PLAIN_REQUESTS_MAX {
            return refuse(out, plain.stream, StatusCode::SERVICE_UNAVAILABLE);
        }
        state.plain_running += 1;
        state.plain.push(WaitingPlain {
            connection: self.connection,
            stream: plain.stream,
            request,
        });
    }
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
        let reply = http1::answer(&*self.http_backend, &plain.request).await;
        let is_head = plain.request.method() == Method::HEAD;
        self.respond(plain.connection, |out| {
            put_reply(out, plain.stream, reply, is_head);
        });
        self.state.borrow_mut().plain_running -= 1;
        self.keep_held_bounded();
        self.flush_dirty();
    }
}

/// The request as the endpoints know it; none have a use for its body.
fn translate(plain: &PlainRequest<'_>) -> Option<Request<()>> {
    // CONNECT names no path; there is nothing of that name either.
    let path = match plain.path {
        b"" => b"/",
        path => path,
    };
    Request::builder()
        .version(Version::HTTP_2)
        .method(plain.method)
        .uri(path)
        .body(())
        .ok()
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

/// Adds what HTTP/1.1 gets from its library: the length and the date.
fn put_reply(
    out: &mut Responder<'_>,
    stream: StreamId,
    reply: http::Response<Bytes>,
    is_head: bool,
) {
    let (head, body) = reply.into_parts();
    let length = body.len().to_string();
    let date = httpdate::fmt_http_date(SystemTime::now());
    let mut fields: Vec<(&[u8], &[u8])> = head
        .headers
        .iter()
        .map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()))
        .collect();
    fields.push((b"content-length", length.as_bytes()));
    fields.push((b"date", date.as_bytes()));
    let body = if is_head { &[][..] } else { &body[..] };
    out.plain(stream, head.status.as_u16(), &fields, body);
}
