//! Calls that write: checked here, then handed to the log core as a proposal.
//!
//! The order of a write's checks is etcd's: leader (before this file), quota, arguments, queue length,
//! size. Always true here: a write that was handed over is in [`super::proposals`] until its reply,
//! its refusal or its deadline; one that was not is answered at once.

use std::sync::atomic::Ordering;

use storage::command::{Body, Command, Header};
use wire::error::EtcdError;
use wire::grpc::{Call, Code, MethodId, Responder, StreamId};
use wire::kv::{
    CompactionRequestRef, DeleteRangeRequestRef, PutRequestRef, RequestEnvelope, TxnRequestRef,
    etcd_request_bytes,
};
use wire::messages::etcdserverpb;

use crate::auth::Identity;
use crate::auth::gate::named;
use crate::kv::command::{delete_range_body, put_body};
use crate::kv::{quota, validate};
use crate::pipeline::{RequestId, ToLog};

use super::books::{Ended, Work};
use super::calls::{CallError, Calls, Handled};
use super::connection::ConnectionKey;
use super::proposals::Pending;
use super::state::NetState;

/// etcd's bound on entries committed and not yet applied; above it writes are refused.
const APPLY_GAP_MAX: u64 = 5000;

/// Whose call it is that is proposed.
#[derive(Clone, Copy)]
pub(super) struct Caller {
    pub connection: ConnectionKey,
    pub stream: StreamId,
    pub method: MethodId,
    pub started_ns: u64,
}

impl Calls<'_> {
    /// A write was refused before it was a proposal, where etcd counts it already: as a success, for
    /// only a proposal that Raft refuses is a failure there.
    pub(super) fn proposal_refused(&mut self, call: &Call<'_>) {
        self.state.books.ended(Ended {
            connection: self.connection,
            method: call.method,
            work: Work::Write { success: true },
            started_ns: self.state.now_ns,
        });
    }

    pub(super) fn put(&mut self, call: &Call<'_>, message: &[u8]) -> Handled {
        let request = PutRequestRef::decode(message)?;
        if !self.has_space(quota::put_cost(&request)) {
            return self.raise_no_space(call);
        }
        validate::check_put(&request)?;
        let envelope = RequestEnvelope::Put(&request);
        self.propose(call, put_body(&request), envelope)
    }

    pub(super) fn delete_range(&mut self, call: &Call<'_>, message: &[u8]) -> Handled {
        let request = DeleteRangeRequestRef::decode(message)?;
        validate::check_delete_range(&request)?;
        let envelope = RequestEnvelope::DeleteRange(&request);
        self.propose(call, delete_range_body(&request), envelope)
    }

    pub(super) fn txn(
        &mut self,
        call: &Call<'_>,
        message: &[u8],
        out: &mut Responder<'_>,
    ) -> Handled {
        let request = TxnRequestRef::decode(message)?;
        if !self.has_space(quota::txn_cost(&request)) {
            return self.raise_no_space(call);
        }
        validate::check_txn(&request, self.state.settings.txn_ops_max)?;
        if validate::is_readonly(&request) {
            return self.read(call, message, validate::is_serializable(&request), out);
        }
        self.write_txn_checked(call, &request)
    }

    /// A transaction that writes, with all its checks.
    pub(super) fn write_txn(&mut self, call: &Call<'_>, request: &TxnRequestRef<'_>) -> Handled {
        if !self.has_space(quota::txn_cost(request)) {
            return self.raise_no_space(call);
        }
        validate::check_txn(request, self.state.settings.txn_ops_max)?;
        self.write_txn_checked(call, request)
    }

    fn write_txn_checked(&mut self, call: &Call<'_>, request: &TxnRequestRef<'_>) -> Handled {
        let envelope = RequestEnvelope::Txn(request);
        let mut tables = std::mem::take(&mut self.state.tables);
        let handled = tables.with_txn(request, |txn| self.propose(call, Body::Txn(txn), envelope));
        self.state.tables = tables;
        handled
    }

    pub(super) fn compact(&mut self, call: &Call<'_>, message: &[u8]) -> Handled {
        let request = CompactionRequestRef::decode(message)?;
        self.require_root(call)?;
        let body = Body::Compact(storage::command::Compact {
            revision: request.revision,
            physical: request.physical,
        });
        self.propose(call, body, RequestEnvelope::Compaction(&request))?;
        if request.physical {
            // As in etcd, consensus has its time limit and the work behind it has none.
            self.state.proposals.lift_deadline();
        }
        Ok(())
    }

    pub(super) fn has_space(&self, cost: usize) -> bool {
        let Some(quota) = self.state.settings.quota_bytes else {
            return true;
        };
        cost == 0 || (self.state.shared.tree_bytes() as u64).saturating_add(cost as u64) < quota
    }

    /// Raises the alarm, unless it is up, and answers the call once it is.
    pub(super) fn raise_no_space(&mut self, call: &Call<'_>) -> Handled {
        let state = &self.state;
        let member_id = state.shared.member_id;
        const NO_SPACE: i32 = etcdserverpb::AlarmType::Nospace as i32;
        const ACTIVATE: i32 = etcdserverpb::alarm_request::AlarmAction::Activate as i32;
        let is_up = state
            .shared
            .cluster
            .load()
            .alarms
            .iter()
            .any(|alarm| alarm.member_id == member_id && alarm.alarm == NO_SPACE);
        if !is_up {
            let body = Body::Alarm(storage::command::Alarm {
                member_id,
                action: ACTIVATE,
                alarm: NO_SPACE,
            });
            if self
                .propose_then(call, body, alarm_envelope(0), Some(EtcdError::NoSpace))
                .is_ok()
            {
                return Ok(());
            }
        }
        Err(EtcdError::NoSpace.into())
    }

    pub(super) fn propose(
        &mut self,
        call: &Call<'_>,
        body: Body<'_>,
        envelope: RequestEnvelope<'_>,
    ) -> Handled {
        self.propose_then(call, body, envelope, None)
    }

    /// Hands a checked write to the log core. `verdict` replaces the reply.
    fn propose_then(
        &mut self,
        call: &Call<'_>,
        body: Body<'_>,
        envelope: RequestEnvelope<'_>,
        verdict: Option<EtcdError>,
    ) -> Handled {
        self.state.check_room(&body)?;
        let who = self.identify(call)?;
        let caller = Caller {
            connection: self.connection,
            stream: call.stream,
            method: call.method,
            started_ns: self.state.now_ns,
        };
        self.state
            .propose(caller, who.as_ref(), body, envelope, verdict)
    }
}

impl NetState {
    /// Whether one more write may be proposed.
    pub(super) fn check_room(&self, body: &Body<'_>) -> Result<(), EtcdError> {
        if self.shared.progress.is_congested.load(Ordering::Relaxed)
            || self.shared.committed() > self.shared.applied() + apply_gap_max(self, body)
            || !self.proposals.has_room()
            || self.to_log.room() == 0
        {
            return Err(EtcdError::TooManyRequests);
        }
        Ok(())
    }

    /// Hands a write to the log core, for which [`NetState::check_room`] found room. `verdict` replaces the reply.
    pub(super) fn propose(
        &mut self,
        caller: Caller,
        who: Option<&Identity>,
        body: Body<'_>,
        envelope: RequestEnvelope<'_>,
        verdict: Option<EtcdError>,
    ) -> Handled {
        let state = &mut *self;
        let sequence = state.proposals.next_sequence();
        let request = RequestId::new(state.shared.life, state.id, sequence);
        let (user, auth_revision) = match who {
            Some(_) => named(who, state.auth.view()),
            None => ("", 0),
        };
        // etcd's own id would stand in its entry: the member's low 16 bits, then time and a counter.
        let etcd_id = state.shared.member_id << 48 | 1 << 47;
        let etcd_bytes = etcd_request_bytes(envelope, etcd_id, user, auth_revision);
        if etcd_bytes > state.settings.request_bytes_max {
            return Err(EtcdError::RequestTooLarge.into());
        }
        let header = Header {
            request_id: request.0,
            member_id: state.shared.member_id,
            auth_revision,
            user,
        };
        let command = state
            .arena
            .encode(&Command { header, body })
            .map_err(|error| CallError::Status(Code::Internal, error.to_string()))?;
        if command.len() > state.settings.entry_bytes_max {
            return Err(EtcdError::RequestTooLarge.into());
        }
        if state
            .to_log
            .push(ToLog::Propose {
                id: request,
                command,
                parsed_ns: state.now_ns,
            })
            .is_err()
        {
            return Err(EtcdError::TooManyRequests.into());
        }
        state.proposals.insert(Pending {
            connection: caller.connection,
            stream: caller.stream,
            method: caller.method,
            started_ns: caller.started_ns,
            deadline_ns: state.now_ns + state.settings.request_timeout_ns,
            verdict,
        });
        Ok(())
    }
}

/// With the feature gate `PriorityRequest` revocations of leases, which make room, may wait in a queue twice as long.
fn apply_gap_max(state: &NetState, body: &Body<'_>) -> u64 {
    match body {
        Body::LeaseRevoke(_) if state.settings.leases.has_priority => 2 * APPLY_GAP_MAX,
        _ => APPLY_GAP_MAX,
    }
}

/// An alarm's field in etcd's raft request.
pub(super) fn alarm_envelope(len: usize) -> RequestEnvelope<'static> {
    RequestEnvelope::Other { field: 10, len }
}
