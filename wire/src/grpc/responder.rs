//! How answers go out. Handed to callbacks, and to the owner for answers that come later.
//!
//! Nothing here fails: an answer to a call that is over is dropped and counted
//! ([`Stats::late_answers`](super::Stats::late_answers)), and what can not be sent now is kept,
//! within [`Limits::parked_bytes_max`](super::Limits::parked_bytes_max).

use super::connection::Sender;
use super::local::{LocalCalls, is_local};
use super::{Code, StreamId};

/// Writes answers into a connection's output, or to where calls that are not gRPC wait for them.
#[derive(Debug)]
pub struct Responder<'a> {
    sender: Option<&'a mut Sender>,
    local: Option<&'a mut LocalCalls>,
}

impl<'a> Responder<'a> {
    pub(crate) fn new(sender: &'a mut Sender) -> Self {
        Self {
            sender: Some(sender),
            local: None,
        }
    }

    pub(crate) fn both(sender: &'a mut Sender, local: &'a mut LocalCalls) -> Self {
        Self {
            sender: Some(sender),
            local: Some(local),
        }
    }

    /// For a connection that does not speak gRPC.
    pub fn local(local: &'a mut LocalCalls) -> Self {
        Self {
            sender: None,
            local: Some(local),
        }
    }

    /// Answers a call with one message and status OK, and finishes it. `encode` appends the message
    /// to the buffer it is given, which is the connection's output itself, and must not touch what
    /// is in it. Not called if the call is over.
    #[inline]
    pub fn unary(&mut self, stream: StreamId, encode: impl FnOnce(&mut Vec<u8>)) {
        if is_local(stream) {
            if let Some(local) = &mut self.local {
                local.message(stream, encode);
                local.finish(stream, Code::Ok, "");
            }
        } else if let Some(sender) = &mut self.sender {
            sender.unary(stream, encode);
        }
    }

    /// Finishes a call with an error. `message` is plain text; it is percent-encoded as gRPC asks.
    pub fn error(&mut self, stream: StreamId, code: Code, message: &str) {
        self.finish(stream, code, message);
    }

    /// Sends one message of a stream; `encode` as in [`unary`](Self::unary).
    pub fn message(&mut self, stream: StreamId, encode: impl FnOnce(&mut Vec<u8>)) {
        if is_local(stream) {
            if let Some(local) = &mut self.local {
                local.message(stream, encode);
            }
        } else if let Some(sender) = &mut self.sender {
            sender.message(stream, encode);
        }
    }

    /// Ends a stream with a status, after all messages given before.
    pub fn finish(&mut self, stream: StreamId, code: Code, message: &str) {
        if is_local(stream) {
            if let Some(local) = &mut self.local {
                local.finish(stream, code, message);
            }
        } else if let Some(sender) = &mut self.sender {
            sender.finish(stream, code, message);
        }
    }

    /// Answers a request that is not gRPC, and finishes it. `status` is an HTTP status of three
    /// digits; names of `fields` are in lower case, none is a pseudo-header, and together they fit
    /// one frame (a longer block resets the stream). An empty `body` sends none, whatever
    /// `content-length` says, as the answer to HEAD wants it.
    pub fn plain(&mut self, stream: StreamId, status: u16, fields: &[(&[u8], &[u8])], body: &[u8]) {
        if let Some(sender) = &mut self.sender {
            sender.plain(stream, status, fields, body);
        }
    }

    /// Begins an answer to a request that is not gRPC whose body comes in pieces; `status` and `fields` as in
    /// [`plain`](Self::plain). Its pieces may wait as long as the client likes: pause for
    /// [`backlog_bytes`](Self::backlog_bytes).
    pub fn plain_head(&mut self, stream: StreamId, status: u16, fields: &[(&[u8], &[u8])]) {
        if let Some(sender) = &mut self.sender {
            sender.plain_head(stream, status, fields);
        }
    }

    /// The next piece of such a body.
    pub fn plain_body(&mut self, stream: StreamId, piece: &[u8]) {
        if let Some(sender) = &mut self.sender {
            sender.plain_body(stream, piece);
        }
    }

    /// The end of such a body, behind all pieces given before.
    pub fn plain_end(&mut self, stream: StreamId) {
        if let Some(sender) = &mut self.sender {
            sender.plain_end(stream);
        }
    }

    /// Whether the call can still be answered.
    pub fn is_open(&self, stream: StreamId) -> bool {
        match (&self.local, &self.sender) {
            (Some(local), _) if is_local(stream) => local.is_open(stream),
            (_, Some(sender)) => sender.is_open(stream),
            _ => false,
        }
    }

    /// Lets this call's messages wait as long as its client likes: [`Limits::stall_timeout_ns`](super::Limits) does not
    /// reset it. For a stream whose source pauses by itself, so that waiting costs nothing.
    pub fn be_patient(&mut self, stream: StreamId) {
        if let Some(sender) = &mut self.sender {
            sender.be_patient(stream);
        }
    }

    /// Bytes of this call's messages that wait for flow control. A stream's source should pause
    /// above a bound of its own.
    pub fn backlog_bytes(&self, stream: StreamId) -> usize {
        match (&self.local, &self.sender) {
            (Some(local), _) if is_local(stream) => local.backlog_bytes(stream),
            (_, Some(sender)) => sender.backlog_bytes(stream),
            _ => 0,
        }
    }
}
