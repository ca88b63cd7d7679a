//! The lease service on a net core: grants and revocations become proposals, everything else a question to the apply
//! core, which owns the table and the leader's clock.
//!
//! Questions of one pass leave together; a full ring makes them wait for the next pass. A keepalive and its like touch
//! no log, so leadership is what they rest on: the log core's last tick must be recent, or one read index confirms it
//! for all questions that wait (as etcd does).
//!
//! Always true here: a question is in the table of callers (or its stream's queue) until its answer or the end of its
//! call; their number is bounded, and one more gets `etcdserver: too many requests`.

use std::rc::Rc;
use std::sync::atomic::Ordering;

use prost::Message;
use storage::command::{Body, LeaseGrant, LeaseRevoke};
use storage::lease::{LEASE_TTL_MAX, LeaseId};
use wire::error::EtcdError;
use wire::grpc::{Call, MethodId, StreamId};
use wire::kv::{RequestEnvelope, put_lease_leases_response, put_lease_time_to_live_response};
use wire::messages::etcdserverpb::{
    LeaseGrantRequest, LeaseLeasesRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest,
};

use crate::auth::Identity;
use crate::kv::quota;
use crate::pipeline::{
    LeaseAnswer, LeaseAsk, LeaseCaller, LeaseFound, LeaseSaid, LeaseWhat, Shared, Watcher,
};
use crate::services::methods::id;

use super::books::{Ended, Work};
use super::calls::{Calls, Handled};
use super::connection::ConnectionKey;
use super::core::{NetCore, fail};
use super::lease_streams::LeaseStreams;
use super::state::NetState;

/// Unary questions of one net core that may wait at the same time.
const LEASE_CALLS_MAX: usize = 65_536;
/// A leader that has not ticked for so many ticks must be confirmed.
const FRESH_TICKS: u64 = 3;

/// Stands for the confirmation that questions wait for, among the reads of clients.
pub(super) const LEADERSHIP: MethodId = MethodId(u16::MAX - 1);

/// Etcd's field numbers in its raft request.
const GRANT_FIELD: u32 = 8;
const REVOKE_FIELD: u32 = 9;

/// What the configuration says about leases.
#[derive(Clone, Copy, Debug)]
pub struct LeaseCallSettings {
    /// Shorter times to live are raised to this, in seconds.
    pub ttl_min_s: i64,
    pub tick_ns: u64,
    /// The feature gate `PriorityRequest`: revocations may queue twice as long as other writes.
    pub has_priority: bool,
}

/// A net core's questions about leases.
pub struct LeaseCalls {
    to_apply: Watcher<Vec<LeaseAsk>>,
    /// Of this pass.
    asks: Vec<LeaseAsk>,
    /// Wait for a confirmation of leadership.
    unconfirmed: Vec<LeaseAsk>,
    /// A confirmation is under way, for so many of `unconfirmed`.
    confirming: usize,
    /// Unary questions that wait.
    calls: usize,
    pub(super) streams: LeaseStreams,
}

impl LeaseCalls {
    pub fn new(to_apply: Watcher<Vec<LeaseAsk>>) -> LeaseCalls {
        LeaseCalls {
            to_apply,
            asks: Vec::new(),
            unconfirmed: Vec::new(),
            confirming: 0,
            calls: 0,
            streams: LeaseStreams::default(),
        }
    }

    pub fn is_waiting(&self) -> bool {
        self.waiting() > 0
    }

    /// Questions without an answer.
    pub fn waiting(&self) -> usize {
        self.calls + self.streams.waiting()
    }

    /// Asks when the pass ends.
    pub(super) fn ask(&mut self, ask: LeaseAsk, is_leader_fresh: bool) {
        if is_leader_fresh {
            self.asks.push(ask);
        } else {
            self.unconfirmed.push(ask);
        }
    }

    /// Hands over what was asked in this pass. True if a confirmation of leadership must be asked for.
    pub(super) fn end_pass(&mut self) -> bool {
        if !self.asks.is_empty()
            && let Err(asks) = self.to_apply.push(std::mem::take(&mut self.asks))
        {
            self.asks = asks;
        }
        self.to_apply.flush();
        if self.unconfirmed.is_empty() || self.confirming > 0 {
            return false;
        }
        self.confirming = self.unconfirmed.len();
        true
    }

    /// The confirmation came, or did not: the questions it was for, which are refused in that case.
    pub(super) fn on_confirmation(&mut self, is_leader: bool) -> Vec<LeaseAsk> {
        let waited = std::mem::take(&mut self.confirming);
        let asks: Vec<LeaseAsk> = self.unconfirmed.drain(..waited).collect();
        if is_leader {
            self.asks.extend(asks);
            return Vec::new();
        }
        asks
    }
}

impl NetState {
    /// Whether this member led a moment ago.
    pub(super) fn is_leader_fresh(&self) -> bool {
        let ticked_ns = self.shared.progress.ticked_ns.load(Ordering::Relaxed);
        let stale_ns = ticked_ns.saturating_add(FRESH_TICKS * self.settings.leases.tick_ns);
        self.now_ns < stale_ns
    }

    pub(super) fn end_lease_pass(&mut self) {
        if self.leases.end_pass() {
            if !self.reads.has_room(0) {
                self.leases.confirming = 0;
                return;
            }
            let nobody = ConnectionKey::default();
            let now_ns = self.now_ns;
            self.reads
                .add(nobody, StreamId(0), LEADERSHIP, b"", now_ns, None);
        }
    }
}

impl Calls<'_> {
    pub(super) fn lease_grant(&mut self, call: &Call<'_>, message: &[u8]) -> Handled {
        let request = LeaseGrantRequest::decode(message)?;
        if !self.has_space(quota::LEASE_COST) {
            return self.raise_no_space(call);
        }
        self.require_user(call)?;
        let (mut id, mut len) = (request.id, message.len());
        if LeaseId(id).is_none() {
            id = self.state.shared.next_lease_id();
            // With its number: a key and nine bytes, as the sign bit is clear.
            len += 10;
        }
        // The minimum is this member's configuration, so it is chosen here and travels in the entry.
        let ttl_s = request.ttl.max(self.state.settings.leases.ttl_min_s);
        let body = Body::LeaseGrant(LeaseGrant {
            id,
            // What is too large is refused by the entry, in its order, and must stay too large.
            ttl_s: ttl_s.min(LEASE_TTL_MAX + 1),
        });
        let field = GRANT_FIELD;
        self.propose(call, body, RequestEnvelope::Other { field, len })
    }

    pub(super) fn lease_revoke(&mut self, call: &Call<'_>, message: &[u8]) -> Handled {
        let request = LeaseRevokeRequest::decode(message)?;
        self.require_user(call)?;
        let body = Body::LeaseRevoke(LeaseRevoke { id: request.id });
        let (field, len) = (REVOKE_FIELD, message.len());
        self.propose(call, body, RequestEnvelope::Other { field, len })
    }

    pub(super) fn lease_time_to_live(&mut self, call: &Call<'_>, message: &[u8]) -> Handled {
        let request = LeaseTimeToLiveRequest::decode(message)?;
        let who = self.require_user(call)?;
        let started_ns = self.state.now_ns;
        self.ask_leases(
            call,
            who,
            LeaseWhat::TimeToLive {
                id: LeaseId(request.id),
                with_keys: request.keys,
                started_ns,
            },
        )
    }

    pub(super) fn lease_leases(&mut self, call: &Call<'_>, message: &[u8]) -> Handled {
        LeaseLeasesRequest::decode(message)?;
        let who = self.require_user(call)?;
        let started_ns = self.state.now_ns;
        self.ask_leases(call, who, LeaseWhat::List { started_ns })
    }

    fn ask_leases(&mut self, call: &Call<'_>, who: Option<Identity>, what: LeaseWhat) -> Handled {
        let state = &mut *self.state;
        if state.leases.calls == LEASE_CALLS_MAX {
            return Err(EtcdError::TooManyRequests.into());
        }
        state.leases.calls += 1;
        let ask = LeaseAsk {
            caller: LeaseCaller {
                connection: self.connection,
                stream: call.stream,
            },
            who,
            what,
            committed: state.shared.committed(),
        };
        // As in etcd, a look at the table needs no confirmation.
        state.leases.ask(ask, true);
        Ok(())
    }
}

impl NetCore {
    pub(super) fn on_lease_answers(&self, answers: Vec<LeaseAnswer>) {
        for LeaseAnswer { caller, what } in answers {
            match what {
                LeaseSaid::KeepAlive { place, result } => {
                    self.on_keep_alive(caller, place, result);
                }
                LeaseSaid::TimeToLive {
                    id: lease,
                    started_ns,
                    result,
                } => {
                    self.lease_call_ended(caller, id::LEASE_LEASE_TIME_TO_LIVE, started_ns);
                    self.answer_time_to_live(caller, lease, result);
                }
                LeaseSaid::List { started_ns, result } => {
                    self.lease_call_ended(caller, id::LEASE_LEASE_LEASES, started_ns);
                    self.answer_list(caller, result);
                }
            }
        }
    }

    fn lease_call_ended(&self, caller: LeaseCaller, method: MethodId, started_ns: u64) {
        let state = &mut *self.state.borrow_mut();
        state.leases.calls -= 1;
        state.books.ended(Ended {
            connection: caller.connection,
            method,
            work: Work::Other,
            started_ns,
        });
    }

    fn answer_time_to_live(
        &self,
        caller: LeaseCaller,
        id: LeaseId,
        result: Result<Option<LeaseFound>, EtcdError>,
    ) {
        let header = self.state.borrow().header();
        self.respond(caller.connection, |out| match result {
            Ok(found) => {
                let (ttl_s, granted_s, keys) = match &found {
                    Some(found) => (found.remaining_s, found.granted_s, &found.keys[..]),
                    None => (-1, 0, &[][..]),
                };
                let keys = keys.iter().map(|key| &**key);
                out.unary(caller.stream, |buffer| {
                    put_lease_time_to_live_response(buffer, &header, id.0, ttl_s, granted_s, keys);
                });
            }
            Err(error) => fail(out, caller.stream, error),
        });
    }

    /// In the order in which they end, as etcd lists them.
    fn answer_list(&self, caller: LeaseCaller, result: Result<Vec<(u64, LeaseId)>, EtcdError>) {
        let header = self.state.borrow().header();
        self.respond(caller.connection, |out| match result {
            Ok(mut leases) => {
                leases.sort_unstable();
                out.unary(caller.stream, |buffer| {
                    let ids = leases.iter().map(|(_, id)| id.0);
                    put_lease_leases_response(buffer, &header, ids);
                });
            }
            Err(error) => fail(out, caller.stream, error),
        });
    }

    /// The confirmation of leadership that questions waited for came, or did not.
    pub(super) fn on_leadership(self: &Rc<Self>, is_leader: bool) {
        let refused = self.state.borrow_mut().leases.on_confirmation(is_leader);
        for ask in refused {
            if let LeaseWhat::KeepAlive { place, .. } = ask.what {
                self.on_keep_alive(ask.caller, place, Err(EtcdError::NotPrimaryLessor));
            }
        }
        self.state.borrow_mut().end_pass();
    }
}

/// Room of the ring that carries questions: passes of one net core, each with all it asked.
pub const LEASE_ASK_BATCHES: usize = 256;

/// Whether leases are counted here; on another member a question would be forwarded to the one that leads.
pub(super) fn is_primary(shared: &Shared) -> bool {
    shared.leader() == shared.member_id
}
