//! The in-memory pipe that stands where the HTTP library expects a socket.
//!
//! Always true here: bytes leave in the order they came; the library never sees more than was fed; the
//! output holds at most `OUTPUT_BYTES_MAX` plus one write, after which the library is parked until the
//! caller has taken it.
//!
//! One pipe per connection, on the core that owns it. Does no I/O and knows no HTTP.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use hyper::rt::{Read, ReadBufCursor, Write};

/// Reply bytes held before the library must wait for the socket; then it is parked, nothing is dropped.
pub(super) const OUTPUT_BYTES_MAX: usize = 256 * 1024;

#[derive(Default)]
pub(super) struct Pipe {
    input: Vec<u8>,
    /// Bytes of `input` the library has taken.
    consumed: usize,
    input_ended: bool,
    output: Vec<u8>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Pipe {
    pub(super) fn push_input(&mut self, bytes: &[u8]) {
        if self.consumed == self.input.len() {
            self.input.clear();
            self.consumed = 0;
        }
        self.input.extend_from_slice(bytes);
        wake(&mut self.reader);
    }

    pub(super) fn end_input(&mut self) {
        self.input_ended = true;
        wake(&mut self.reader);
    }

    pub(super) fn input_bytes(&self) -> usize {
        self.input.len() - self.consumed
    }

    pub(super) fn output_bytes(&self) -> usize {
        self.output.len()
    }

    /// The library refuses a request that it cannot read with a head alone; etcd says the status once more as the body. Call
    /// when the last reply in the output is such a refusal.
    pub(super) fn explain_refusal(&mut self) {
        const START: &[u8] = b"HTTP/1.1 ";
        let head = self
            .output
            .windows(START.len())
            .rposition(|window| window == START);
        let Some(head) = head else { return };
        let refusal = String::from_utf8_lossy(&self.output[head + START.len()..]).into_owned();
        let Some((status, rest)) = refusal.split_once("\r\n") else {
            return;
        };
        if status.starts_with('4') && rest.ends_with("\r\n\r\n") {
            self.output.truncate(head);
            let reply = format!(
                "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n{status}"
            );
            self.output.extend_from_slice(reply.as_bytes());
        }
    }

    pub(super) fn take_output(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.output);
        wake(&mut self.writer);
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

/// The library's end of the pipe.
pub(super) struct PipeEnd(pub(super) Rc<RefCell<Pipe>>);

impl Read for PipeEnd {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let pipe = &mut *self.0.borrow_mut();
        let waiting = &pipe.input[pipe.consumed..];
        if waiting.is_empty() {
            if pipe.input_ended {
                return Poll::Ready(Ok(()));
            }
            pipe.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let count = waiting.len().min(buffer.remaining());
        buffer.put_slice(&waiting[..count]);
        pipe.consumed += count;
        Poll::Ready(Ok(()))
    }
}

impl Write for PipeEnd {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let pipe = &mut *self.0.borrow_mut();
        if pipe.output.len() >= OUTPUT_BYTES_MAX {
            pipe.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        pipe.output.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
