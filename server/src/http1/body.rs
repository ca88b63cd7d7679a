//! Bodies of requests and replies, whichever version of HTTP carries them.
//!
//! Always true here: a body is taken piece by piece, and nothing is asked for before the piece before it was taken, so
//! who reads slowly is who decides how much is made.

use std::cell::Cell;
use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

/// Most of a large reply that is handed on at once.
const PIECE_BYTES_MAX: usize = 64 << 10;

/// A request's body.
pub enum RequestBody {
    Incoming(Incoming),
    /// It has come whole.
    Whole(Bytes),
}

/// The client went away, or broke the rules, in the middle of its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BrokenBody;

impl RequestBody {
    /// The next piece, `None` at the end.
    pub fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BrokenBody>>> {
        match self {
            RequestBody::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            RequestBody::Whole(bytes) => Poll::Ready(Some(Ok(std::mem::take(bytes)))),
            RequestBody::Incoming(body) => loop {
                let frame = std::task::ready!(Pin::new(&mut *body).poll_frame(cx));
                match frame.map(|frame| frame.map(Frame::into_data)) {
                    None => return Poll::Ready(None),
                    Some(Ok(Ok(piece))) if piece.is_empty() => {}
                    Some(Ok(Ok(piece))) => return Poll::Ready(Some(Ok(piece))),
                    // Trailers.
                    Some(Ok(Err(_))) => {}
                    Some(Err(_)) => return Poll::Ready(Some(Err(BrokenBody))),
                }
            },
        }
    }
}

/// Where the pieces of a reply come from that has no end yet.
pub trait Pieces {
    /// The next piece, `None` at the end.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>>;
}

/// A reply's body.
pub enum ReplyBody {
    Whole(WholeBody),
    Pieces(Box<dyn Pieces>),
}

/// A body that is there, counted for as long as it waits.
pub struct WholeBody {
    bytes: Bytes,
    held: Option<Rc<Cell<usize>>>,
}

impl WholeBody {
    fn take(&mut self, len: usize) -> Bytes {
        if let Some(held) = &self.held {
            held.set(held.get() - len);
        }
        self.bytes.split_to(len)
    }
}

impl Drop for WholeBody {
    fn drop(&mut self) {
        let len = self.bytes.len();
        self.take(len);
    }
}

/// See [`ReplyBody::keep`].
struct Kept<G> {
    pieces: Box<dyn Pieces>,
    _guard: G,
}

impl<G> Pieces for Kept<G> {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        self.pieces.poll_piece(cx)
    }
}

impl ReplyBody {
    pub fn whole(bytes: Bytes) -> ReplyBody {
        ReplyBody::Whole(WholeBody { bytes, held: None })
    }

    /// Counts in `held` what of a whole body waits.
    pub fn count_in(&mut self, held: &Rc<Cell<usize>>) {
        if let ReplyBody::Whole(body) = self
            && body.held.is_none()
        {
            held.set(held.get() + body.bytes.len());
            body.held = Some(held.clone());
        }
    }

    /// Keeps `guard` until a body that has no end yet is over; of one that is there it is let go at once.
    pub fn keep<G: 'static>(self, guard: G) -> ReplyBody {
        match self {
            ReplyBody::Pieces(pieces) => ReplyBody::Pieces(Box::new(Kept {
                pieces,
                _guard: guard,
            })),
            whole => whole,
        }
    }

    /// All of a body that is there.
    pub fn into_whole(mut self) -> Result<Bytes, Box<dyn Pieces>> {
        match &mut self {
            ReplyBody::Whole(body) => {
                let len = body.bytes.len();
                Ok(body.take(len))
            }
            ReplyBody::Pieces(_) => match self {
                ReplyBody::Pieces(pieces) => Err(pieces),
                ReplyBody::Whole(_) => unreachable!("it was pieces"),
            },
        }
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            ReplyBody::Whole(body) if body.bytes.is_empty() => Poll::Ready(None),
            ReplyBody::Whole(body) => {
                let piece = body.take(body.bytes.len().min(PIECE_BYTES_MAX));
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
            ReplyBody::Pieces(pieces) => {
                let piece = std::task::ready!(pieces.poll_piece(cx));
                Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, ReplyBody::Whole(body) if body.bytes.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            ReplyBody::Whole(body) => SizeHint::with_exact(body.bytes.len() as u64),
            ReplyBody::Pieces(_) => SizeHint::default(),
        }
    }
}
