//! Keepalive streams: requests come in any number, each is answered in its turn.
//!
//! etcd takes the next request of a stream when it has sent the answer to the one before. Here they are all asked at
//! once and their answers kept in order: one that must wait (its lease has ended and is being revoked) holds up the
//! answers behind it, not their renewals.
//!
//! Always true here: the header of an answer was filled before the question was asked, so it never shows a revision at
//! which the lease was gone; a stream is in the table from its first request until its end; what waits is bounded by
//! [`KEEP_ALIVES_MAX`] and [`STREAM_KEEP_ALIVES_MAX`], and a stream that goes beyond is ended with
//! `etcdserver: too many requests`.

use std::collections::{BTreeMap, VecDeque};

use prost::Message;
use storage::lease::LeaseId;
use wire::error::EtcdError;
use wire::grpc::{Call, CancelReason, Code, Responder, StreamId};
use wire::kv::{ResponseHeader, put_lease_keep_alive_response};
use wire::messages::etcdserverpb::LeaseKeepAliveRequest;

use crate::metrics::{StreamApi, StreamDirection};
use crate::pipeline::{LeaseAsk, LeaseCaller, LeaseWhat};
use crate::services::methods::id;

use super::calls::{CallError, Calls, Handled, answer_error};
use super::connection::ConnectionKey;
use super::core::{NetCore, fail};
use super::lease_calls::is_primary;

/// Keepalives of one stream without an answer: 64 bytes each.
const STREAM_KEEP_ALIVES_MAX: usize = 131_072;
/// Keepalives of all streams of one net core without an answer.
const KEEP_ALIVES_MAX: usize = 1 << 20;

type Key = (ConnectionKey, StreamId);

#[derive(Default)]
pub(super) struct LeaseStreams {
    // Clients choose stream ids, so no map whose hash they could aim at.
    streams: BTreeMap<Key, LeaseStream>,
    waiting: usize,
}

#[derive(Default)]
struct LeaseStream {
    /// Place of the first that waits.
    first: u64,
    waiting: VecDeque<Waiting>,
    /// The client sends no more: the stream ends behind its last answer.
    is_half_closed: bool,
    /// A request was refused: the stream ends with that, behind the answers before it; the rest is not looked at.
    is_refused: bool,
}

struct Waiting {
    id: LeaseId,
    revision: i64,
    raft_term: u64,
    answer: Option<Result<i64, CallError>>,
}

impl LeaseStreams {
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    fn remove(&mut self, key: Key) {
        if let Some(stream) = self.streams.remove(&key) {
            self.waiting -= stream.waiting.len();
        }
    }
}

impl Calls<'_> {
    /// One request of a keepalive stream, also its first.
    pub(super) fn on_keep_alive(
        &mut self,
        call: &Call<'_>,
        message: &[u8],
        out: &mut Responder<'_>,
    ) {
        let metrics = &self.state.metrics;
        metrics.grpc.received(call.method);
        let received = &metrics.counters.client_grpc_received_bytes;
        received.add(message.len() as u64);
        if let Err(error) = self
            .begin_keep_alives(call)
            .and_then(|()| self.keep_alive(call, message))
        {
            if matches!(error, CallError::Decode(_)) {
                let metrics = &self.state.metrics;
                metrics.stream_failed(StreamDirection::Receive, StreamApi::LeaseKeepalive);
            }
            let key = (self.connection, call.stream);
            let streams = &mut self.state.leases.streams;
            match streams.streams.get_mut(&key) {
                Some(stream) if !stream.waiting.is_empty() => {
                    stream.is_refused = true;
                    stream.waiting.push_back(Waiting {
                        id: LeaseId::NONE,
                        revision: 0,
                        raft_term: 0,
                        answer: Some(Err(error)),
                    });
                    streams.waiting += 1;
                }
                _ => {
                    streams.remove(key);
                    answer_error(call.stream, error, out);
                }
            }
        }
    }

    /// The client sends no more requests.
    pub(super) fn on_keep_alives_end(&mut self, call: &Call<'_>, out: &mut Responder<'_>) {
        if let Err(error) = self.begin_keep_alives(call) {
            return answer_error(call.stream, error, out);
        }
        let key = (self.connection, call.stream);
        let streams = &mut self.state.leases.streams;
        let stream = streams.streams.entry(key).or_default();
        if stream.waiting.is_empty() {
            streams.remove(key);
            out.finish(call.stream, Code::Ok, "");
        } else {
            stream.is_half_closed = true;
        }
    }

    /// A stream is over, whatever waited on it.
    pub(super) fn on_keep_alives_cancelled(&mut self, stream: StreamId, reason: CancelReason) {
        self.state.leases.streams.remove((self.connection, stream));
        if reason == CancelReason::SlowReader {
            let metrics = &self.state.metrics;
            metrics.stream_failed(StreamDirection::Send, StreamApi::LeaseKeepalive);
        }
    }

    /// A stream is booked once.
    fn begin_keep_alives(&mut self, call: &Call<'_>) -> Handled {
        let key = (self.connection, call.stream);
        if self.state.leases.streams.streams.contains_key(&key) {
            return Ok(());
        }
        self.state.books.began(call)?;
        self.check_leader(call)?;
        let streams = &mut self.state.leases.streams.streams;
        streams.insert(key, LeaseStream::default());
        Ok(())
    }

    fn keep_alive(&mut self, call: &Call<'_>, message: &[u8]) -> Handled {
        let state = &mut *self.state;
        let key = (self.connection, call.stream);
        let streams = &mut state.leases.streams.streams;
        if streams.get(&key).is_some_and(|stream| stream.is_refused) {
            return Ok(());
        }
        let request = LeaseKeepAliveRequest::decode(message)?;
        let header = state.header();
        let is_fresh = state.is_leader_fresh();
        let committed = state.shared.committed();
        if !is_primary(&state.shared) {
            return Err(EtcdError::NotPrimaryLessor.into());
        }
        let who = self.identify(call)?;
        let state = &mut *self.state;
        let caller = LeaseCaller {
            connection: self.connection,
            stream: call.stream,
        };
        let streams = &mut state.leases.streams;
        let stream = streams
            .streams
            .get_mut(&key)
            .expect("its first request put it there");
        if stream.waiting.len() >= STREAM_KEEP_ALIVES_MAX || streams.waiting >= KEEP_ALIVES_MAX {
            return Err(EtcdError::TooManyRequests.into());
        }
        let place = stream.first + stream.waiting.len() as u64;
        let id = LeaseId(request.id);
        stream.waiting.push_back(Waiting {
            id,
            revision: header.revision,
            raft_term: header.raft_term,
            answer: None,
        });
        streams.waiting += 1;
        let ask = LeaseAsk {
            caller,
            who,
            what: LeaseWhat::KeepAlive { id, place },
            committed,
        };
        state.leases.ask(ask, is_fresh);
        Ok(())
    }
}

impl NetCore {
    /// Answers what can be answered in order now that one answer is known.
    pub(super) fn on_keep_alive(
        &self,
        caller: LeaseCaller,
        place: u64,
        result: Result<i64, EtcdError>,
    ) {
        let key = (caller.connection, caller.stream);
        let state = &mut *self.state.borrow_mut();
        let streams = &mut state.leases.streams;
        let Some(stream) = streams.streams.get_mut(&key) else {
            // The stream is over; its like is never in the table again.
            return;
        };
        let at = (place - stream.first) as usize;
        stream.waiting[at].answer = Some(result.map_err(CallError::from));
        if at > 0 {
            return;
        }
        let base = ResponseHeader {
            cluster_id: self.shared.cluster_id,
            member_id: self.shared.member_id,
            ..ResponseHeader::default()
        };
        let (mut answered, mut is_over) = (0, false);
        self.respond(caller.connection, |out| {
            while let Some(waiting) = stream
                .waiting
                .pop_front_if(|waiting| waiting.answer.is_some())
            {
                answered += 1;
                stream.first += 1;
                match waiting.answer.expect("looked at just now") {
                    Ok(ttl_s) => {
                        let header = ResponseHeader {
                            revision: waiting.revision,
                            raft_term: waiting.raft_term,
                            ..base
                        };
                        let id = waiting.id.0;
                        out.message(caller.stream, |buffer| {
                            put_lease_keep_alive_response(buffer, &header, id, ttl_s);
                        });
                        state.books.sent(id::LEASE_LEASE_KEEP_ALIVE);
                    }
                    Err(error) => {
                        answer_error(caller.stream, error, out);
                        is_over = true;
                    }
                }
            }
            if stream.is_half_closed && stream.waiting.is_empty() && !is_over {
                out.finish(caller.stream, Code::Ok, "");
                is_over = true;
            }
        });
        streams.waiting -= answered;
        if is_over {
            streams.remove(key);
        }
    }

    /// Ends all keepalive streams: the member stops.
    pub(super) fn end_keep_alives(&self) {
        let streams = std::mem::take(&mut self.state.borrow_mut().leases.streams);
        for (connection, stream) in streams.streams.into_keys() {
            self.respond(connection, |out| fail(out, stream, EtcdError::Stopped));
        }
        self.flush_dirty();
    }
}
