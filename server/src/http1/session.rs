//! One HTTP/1.1 connection without a socket: bytes in, bytes out, polled by its owner.
//!
//! Always true here: requests are answered one at a time and in order; unread input is bounded by
//! `INPUT_BYTES_MAX` plus one feed, as long as the caller honours `wants_input`; a request head larger
//! than `HEAD_BYTES_MAX` is answered with 431 and the connection ends.
//!
//! Called by the net core that owns the connection, which brings the bytes, polls after every feed and
//! whenever its waker fires, sends what `take_output` gives, and closes the socket once `poll` is ready
//! and the output is empty. Idle and header timeouts are the caller's (`is_idle` tells which applies).

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;

use super::body::{ReplyBody, RequestBody};
use super::pipe::{Pipe, PipeEnd};

/// Largest request line plus headers; more is answered with 431.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Header fields in one request; more is answered with 431.
pub const HEADER_FIELDS_MAX: usize = 100;
/// Unread input (pipelined requests) above which `wants_input` says no; the socket then pushes back.
pub const INPUT_BYTES_MAX: usize = 64 * 1024;

/// Why a connection ended early; always the client's doing, so it is counted and not logged loudly.
#[derive(Debug, thiserror::Error)]
#[error("HTTP/1.1 connection: {0}")]
pub struct Http1Error(String);

/// Who answers the requests of a connection.
pub trait Handler: 'static {
    fn handle(
        self: Rc<Self>,
        request: Request<()>,
        body: RequestBody,
    ) -> impl Future<Output = Response<ReplyBody>>;
}

/// The service that the HTTP library calls for each request.
struct Answers<H> {
    handler: Rc<H>,
    in_flight: Rc<Cell<bool>>,
}

impl<H: Handler> Service<Request<Incoming>> for Answers<H> {
    type Response = Response<ReplyBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>>>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let handler = Rc::clone(&self.handler);
        let in_flight = InFlight::begin(&self.in_flight);
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let request = Request::from_parts(head, ());
            let reply = handler.handle(request, RequestBody::Incoming(body)).await;
            Ok(reply.map(|body| body.keep(in_flight)))
        })
    }
}

/// Marks the connection busy; also when the request's future is dropped half-way.
struct InFlight(Rc<Cell<bool>>);

impl InFlight {
    fn begin(flag: &Rc<Cell<bool>>) -> InFlight {
        flag.set(true);
        InFlight(Rc::clone(flag))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

pub struct Http1Session<H: Handler> {
    pipe: Rc<RefCell<Pipe>>,
    connection: Pin<Box<http1::Connection<PipeEnd, Answers<H>>>>,
    in_flight: Rc<Cell<bool>>,
    /// Bytes came after the last answer and have not become a request yet.
    has_begun: bool,
    is_done: bool,
}

impl<H: Handler> Http1Session<H> {
    pub fn new(handler: Rc<H>) -> Http1Session<H> {
        let pipe = Rc::new(RefCell::new(Pipe::default()));
        let in_flight = Rc::new(Cell::new(false));
        let connection = http1::Builder::new()
            .title_case_headers(true)
            .header_read_timeout(None)
            .max_headers(HEADER_FIELDS_MAX)
            .max_header_size(HEAD_BYTES_MAX)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(
                PipeEnd(Rc::clone(&pipe)),
                Answers {
                    handler,
                    in_flight: Rc::clone(&in_flight),
                },
            );
        Http1Session {
            pipe,
            connection: Box::pin(connection),
            in_flight,
            has_begun: false,
            is_done: false,
        }
    }

    /// Adds bytes the client sent. Poll afterwards.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.has_begun = true;
        self.pipe.borrow_mut().push_input(bytes);
    }

    /// The client will send nothing more. Poll afterwards.
    pub fn feed_eof(&mut self) {
        self.pipe.borrow_mut().end_input();
    }

    /// False while enough unread input waits; read no more from the socket then.
    pub fn wants_input(&self) -> bool {
        !self.is_done && self.pipe.borrow().input_bytes() < INPUT_BYTES_MAX
    }

    /// Works on the connection. Ready means: send what is left of the output, then close the socket.
    /// The answer can change after `feed`, `feed_eof`, `take_output`, `shutdown`, and when the waker fires.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Http1Error>> {
        if self.is_done {
            return Poll::Ready(Ok(()));
        }
        let result = match self.connection.as_mut().poll(cx) {
            Poll::Pending => {
                self.has_begun &= !self.in_flight.get() && !self.has_output();
                return Poll::Pending;
            }
            Poll::Ready(result) => result,
        };
        self.is_done = true;
        if result.as_ref().is_err_and(hyper::Error::is_parse) {
            self.pipe.borrow_mut().explain_refusal();
        }
        Poll::Ready(result.map_err(|error| Http1Error(error.to_string())))
    }

    /// Moves all reply bytes written so far to the end of `out`.
    pub fn take_output(&mut self, out: &mut Vec<u8>) {
        self.pipe.borrow_mut().take_output(out);
    }

    pub fn has_output(&self) -> bool {
        self.pipe.borrow().output_bytes() != 0
    }

    /// The head of a request is on its way; the header timeout may close such a connection.
    pub fn is_reading_head(&self) -> bool {
        self.has_begun
    }

    /// No request is being answered and no reply waits; the idle timeout may close such a connection.
    pub fn is_idle(&self) -> bool {
        !self.in_flight.get() && !self.has_output()
    }

    /// Answers the request in progress, if any, and then ends the connection. Poll afterwards.
    pub fn shutdown(&mut self) {
        self.connection.as_mut().graceful_shutdown();
    }
}
