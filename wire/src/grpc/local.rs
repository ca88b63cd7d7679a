//! Calls that come to the owner of a connection in another form than gRPC: JSON over plain HTTP.
//!
//! To a service such a call is like any other: it has a [`StreamId`], its answers go through a [`Responder`](super::Responder). They do
//! not become frames but wait here, message by message, until who began the call takes them.
//!
//! Always true here: ids are even, where a client of HTTP/2 opens odd streams, so both kinds live beside each other on one
//! connection; a call that was finished takes no more answers; `held_bytes` is the sum of all messages that wait. What
//! waits is bounded by the sources, which pause for [`backlog_bytes`](super::Responder::backlog_bytes), and by the owner, which
//! books `held_bytes` like unsent output.

use std::collections::{BTreeMap, VecDeque};
use std::task::{Context, Poll, Waker};

use super::stats::EndedCall;
use super::{Code, MethodId, StreamId};

/// What the beginner of a call gets, in order; the status is the last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalAnswer {
    Message(Vec<u8>),
    Status(Code, String),
}

/// The calls of one connection that are not over.
#[derive(Debug, Default)]
pub struct LocalCalls {
    calls: BTreeMap<u32, LocalCall>,
    /// The id given last.
    last: u32,
    held_bytes: usize,
    ended: Vec<EndedCall>,
    message_bytes: u64,
}

#[derive(Debug)]
struct LocalCall {
    method: MethodId,
    started_ns: u64,
    messages: VecDeque<Vec<u8>>,
    bytes: usize,
    status: Option<(Code, String)>,
    waker: Option<Waker>,
}

/// So much is on its way as soon as it was answered.
const TAKEN_SOON_BYTES: usize = 16 << 10;

/// Whether a stream is one of these calls.
#[inline]
pub(super) fn is_local(stream: StreamId) -> bool {
    stream.0 & 1 == 0
}

impl LocalCalls {
    /// Begins a call.
    pub fn open(&mut self, method: MethodId, now_ns: u64) -> StreamId {
        // An id comes again after two thousand million calls; one that is still open then is passed over.
        loop {
            self.last = self.last.wrapping_add(2);
            if self.last != 0 && !self.calls.contains_key(&self.last) {
                break;
            }
        }
        let call = LocalCall {
            method,
            started_ns: now_ns,
            messages: VecDeque::new(),
            bytes: 0,
            status: None,
            waker: None,
        };
        self.calls.insert(self.last, call);
        StreamId(self.last)
    }

    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// Bytes of messages that nobody has taken.
    pub fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// The next answer of a call, once there is one. The call is forgotten with its status; one that is not known is
    /// over.
    pub fn poll_answer(&mut self, stream: StreamId, cx: &mut Context<'_>) -> Poll<LocalAnswer> {
        let Some(call) = self.calls.get_mut(&stream.0) else {
            return Poll::Ready(LocalAnswer::Status(
                Code::Canceled,
                "context canceled".to_owned(),
            ));
        };
        if let Some(message) = call.messages.pop_front() {
            call.bytes -= message.len();
            self.held_bytes -= message.len();
            return Poll::Ready(LocalAnswer::Message(message));
        }
        if call.status.is_none() {
            call.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let call = self.calls.remove(&stream.0);
        let over = (Code::Canceled, String::new());
        let (code, text) = call.and_then(|call| call.status).unwrap_or(over);
        Poll::Ready(LocalAnswer::Status(code, text))
    }

    /// Who began the call wants no more of it. Its method if the service has not finished it and must be told.
    pub fn cancel(&mut self, stream: StreamId) -> Option<MethodId> {
        let call = self.calls.remove(&stream.0)?;
        self.held_bytes -= call.bytes;
        if call.status.is_some() {
            return None;
        }
        self.ended.push(call.ended(Code::Canceled));
        Some(call.method)
    }

    /// Ends the calls for which messages wait, to free them, or all that are not finished. The service is to be told of
    /// those listed.
    pub fn end(&mut self, only_holders: bool, code: Code, text: &str) -> Vec<(StreamId, MethodId)> {
        let mut told = Vec::new();
        for (id, call) in &mut self.calls {
            if only_holders && call.bytes == 0 {
                continue;
            }
            if only_holders {
                self.held_bytes -= std::mem::take(&mut call.bytes);
                call.messages.clear();
                // What was promised to be whole is not.
                call.status.take_if(|(code, _)| *code == Code::Ok);
            }
            if call.status.is_none() {
                told.push((StreamId(*id), call.method));
                self.ended.push(call.ended(code));
                call.finish(code, text);
            }
        }
        told
    }

    /// Calls that the service has answered or that were ended, since they were last asked for.
    pub fn take_ended(&mut self, mut each: impl FnMut(EndedCall)) {
        self.ended.drain(..).for_each(&mut each);
    }

    /// Bytes of the messages that were answered, since they were last asked for.
    pub fn take_message_bytes(&mut self) -> u64 {
        std::mem::take(&mut self.message_bytes)
    }

    pub(super) fn message(&mut self, stream: StreamId, encode: impl FnOnce(&mut Vec<u8>)) {
        let Some(call) = self.calls.get_mut(&stream.0) else {
            return;
        };
        if call.status.is_some() {
            return;
        }
        let mut message = Vec::new();
        encode(&mut message);
        call.bytes += message.len();
        self.held_bytes += message.len();
        self.message_bytes += message.len() as u64;
        call.messages.push_back(message);
        call.wake();
    }

    pub(super) fn finish(&mut self, stream: StreamId, code: Code, text: &str) {
        if let Some(call) = self.calls.get_mut(&stream.0)
            && call.status.is_none()
        {
            call.finish(code, text);
            self.ended.push(call.ended(code));
        }
    }

    pub(super) fn is_open(&self, stream: StreamId) -> bool {
        let call = self.calls.get(&stream.0);
        call.is_some_and(|call| call.status.is_none())
    }

    /// What waits of a call; little is none, because who began the call takes it in its next turn.
    pub(super) fn backlog_bytes(&self, stream: StreamId) -> usize {
        let bytes = self.calls.get(&stream.0).map_or(0, |call| call.bytes);
        if bytes <= TAKEN_SOON_BYTES { 0 } else { bytes }
    }
}

impl LocalCall {
    fn finish(&mut self, code: Code, text: &str) {
        self.status = Some((code, text.to_owned()));
        self.wake();
    }

    fn ended(&self, code: Code) -> EndedCall {
        EndedCall {
            method: self.method,
            code,
            started_ns: self.started_ns,
        }
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::Responder;

    fn poll(calls: &mut LocalCalls, stream: StreamId) -> Poll<LocalAnswer> {
        calls.poll_answer(stream, &mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn answers_wait_in_order_and_the_status_is_last() {
        let mut calls = LocalCalls::default();
        let stream = calls.open(MethodId(3), 7);
        assert_eq!(stream, StreamId(2));
        assert!(poll(&mut calls, stream).is_pending());
        let mut out = Responder::local(&mut calls);
        out.message(stream, |buffer| buffer.extend_from_slice(b"one"));
        out.message(stream, |buffer| buffer.extend_from_slice(b"four"));
        assert_eq!((out.backlog_bytes(stream), out.is_open(stream)), (0, true));
        out.finish(stream, Code::NotFound, "gone");
        out.finish(stream, Code::Ok, "");
        out.message(stream, |_| unreachable!("it is over"));
        assert!(!out.is_open(stream));
        assert_eq!(calls.held_bytes(), 7);
        let message = |text: &[u8]| Poll::Ready(LocalAnswer::Message(text.to_vec()));
        let status = |code, text: &str| Poll::Ready(LocalAnswer::Status(code, text.to_owned()));
        assert_eq!(poll(&mut calls, stream), message(b"one"));
        assert_eq!(poll(&mut calls, stream), message(b"four"));
        assert_eq!(poll(&mut calls, stream), status(Code::NotFound, "gone"));
        assert_eq!(
            poll(&mut calls, stream),
            status(Code::Canceled, "context canceled")
        );
        assert_eq!((calls.held_bytes(), calls.is_empty()), (0, true));
        let mut ended = Vec::new();
        calls.take_ended(|call| ended.push(call));
        let (method, code) = (MethodId(3), Code::NotFound);
        assert_eq!(
            ended,
            [EndedCall {
                method,
                code,
                started_ns: 7
            }]
        );
        assert_eq!(calls.take_message_bytes(), 7);
    }

    #[test]
    fn what_is_not_taken_soon_is_a_backlog() {
        let mut calls = LocalCalls::default();
        let stream = calls.open(MethodId(0), 0);
        let mut out = Responder::local(&mut calls);
        out.message(stream, |buffer| buffer.resize(TAKEN_SOON_BYTES, 0));
        assert_eq!(out.backlog_bytes(stream), 0);
        out.message(stream, |buffer| buffer.push(0));
        assert_eq!(out.backlog_bytes(stream), TAKEN_SOON_BYTES + 1);
    }

    #[test]
    fn the_service_is_told_only_of_calls_that_it_has_not_finished() {
        let mut calls = LocalCalls::default();
        let [done, waiting, holding] = [0, 1, 2].map(|method| calls.open(MethodId(method), 0));
        let mut out = Responder::local(&mut calls);
        out.unary(done, |buffer| buffer.push(1));
        out.message(holding, |buffer| buffer.push(1));
        let told = calls.end(true, Code::ResourceExhausted, "too slow");
        assert_eq!(told, [(done, MethodId(0)), (holding, MethodId(2))]);
        assert_eq!(calls.held_bytes(), 0);
        let status = LocalAnswer::Status(Code::ResourceExhausted, "too slow".to_owned());
        assert_eq!(poll(&mut calls, holding), Poll::Ready(status));
        assert_eq!(calls.cancel(waiting), Some(MethodId(1)));
        assert_eq!(calls.cancel(waiting), None);
        assert_eq!(calls.end(false, Code::Canceled, ""), []);
    }
}
