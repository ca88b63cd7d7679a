//! Small maintenance calls: status, alarms, moving the leader, downgrades. Backups and hashes are in [`super::backups`].
//!
//! Always true here: alarms are shown without the log, so that they can be seen when it takes nothing; everything that changes
//! something goes through it.

use std::rc::Rc;

use prost::Message;
use storage::command::{self, Body, DowngradeInfoSet};
use wire::error::EtcdError;
use wire::grpc::{Call, Responder};
use wire::kv::RequestEnvelope;
use wire::messages::etcdserverpb::{
    AlarmRequest, DowngradeRequest, DowngradeResponse, MoveLeaderRequest, StatusRequest,
    alarm_request::AlarmAction, downgrade_request::DowngradeAction,
};

use crate::services::methods::id;
use crate::services::status;
use crate::version::{Minor, parse_version};

use super::calls::{Calls, Handled};
use super::core::NetCore;
use super::errands::{Errand, Failed};
use super::locks::Answered;
use super::writes::alarm_envelope;

/// Etcd's field number in its raft request.
const DOWNGRADE_FIELD: u32 = 1302;

impl Calls<'_> {
    pub(super) fn status(
        &mut self,
        call: &Call<'_>,
        message: &[u8],
        out: &mut Responder<'_>,
    ) -> Handled {
        StatusRequest::decode(message)?;
        self.require_user(call)?;
        let revision = self.state.reader.revision();
        let (shared, quota) = (&self.state.shared, self.state.settings.quota_shown);
        out.unary(call.stream, |buffer| {
            status::put_status(buffer, shared, revision, quota);
        });
        Ok(())
    }

    pub(super) fn alarm(
        &mut self,
        call: &Call<'_>,
        message: &[u8],
        out: &mut Responder<'_>,
    ) -> Handled {
        let request = AlarmRequest::decode(message)?;
        if request.action == AlarmAction::Get as i32 {
            self.require_user(call)?;
            // etcd asks its log. What is acknowledged is seen either way, and this way also while the disk is full.
            return self.read(call, message, false, out);
        }
        self.require_root(call)?;
        let body = Body::Alarm(command::Alarm {
            member_id: request.member_id,
            action: request.action,
            alarm: request.alarm,
        });
        self.propose(call, body, alarm_envelope(message.len()))
    }

    pub(super) fn move_leader(
        &mut self,
        call: &Call<'_>,
        message: &[u8],
        out: &mut Responder<'_>,
    ) -> Handled {
        let request = MoveLeaderRequest::decode(message)?;
        self.require_root(call)?;
        let shared = &self.state.shared;
        if shared.leader() != shared.member_id {
            return Err(EtcdError::NotLeader.into());
        }
        if !self.has_member(request.target_id) {
            return Err(EtcdError::BadLeaderTransferee.into());
        }
        // The one member there is leads already; the answer is empty, without a header.
        out.unary(call.stream, |_| {});
        Ok(())
    }
}

/// Judges, begins or ends a downgrade of the cluster by one minor version.
pub async fn downgrade(core: &Rc<NetCore>, errand: &Errand) -> Answered {
    let request: DowngradeRequest = errand.decode();
    match DowngradeAction::try_from(request.action) {
        Ok(DowngradeAction::Validate) => {
            judge(core, &request.version).await?;
            Ok(Some(shown_version(core)))
        }
        Ok(DowngradeAction::Enable) => {
            let target = judge(core, &request.version).await?.to_string();
            set(core, errand, true, &target).await
        }
        Ok(DowngradeAction::Cancel) => {
            core.read_barrier().await?;
            let is_under_way = core.shared.cluster.load().downgrade_target.is_some();
            if is_under_way {
                return set(core, errand, false, "").await;
            }
            // As etcd: there is nothing to cancel, and the answer is the same.
            Ok(Some(shown_version(core)))
        }
        Err(_) => Err(EtcdError::UnknownMethod.into()),
    }
}

/// Whether the cluster could go down to this version now.
async fn judge(core: &Rc<NetCore>, version: &str) -> Result<Minor, Failed> {
    let target = parse_version(version).ok_or(EtcdError::WrongDowngradeVersionFormat)?;
    core.read_barrier().await?;
    let cluster = core.shared.cluster.load();
    let now = parse_version(&cluster.cluster_version);
    let now = now.ok_or(EtcdError::ClusterVersionUnavailable)?;
    if Some(target) != now.before() {
        return Err(EtcdError::InvalidDowngradeTargetVersion.into());
    }
    if cluster.downgrade_target.is_some() {
        return Err(EtcdError::DowngradeInProcess.into());
    }
    Ok(target)
}

async fn set(core: &Rc<NetCore>, errand: &Errand, is_enabled: bool, target: &str) -> Answered {
    let set = core.propose_step(errand, id::MAINTENANCE_DOWNGRADE, |calls, call| {
        let body = Body::DowngradeInfoSet(DowngradeInfoSet { is_enabled, target });
        let (field, len) = (DOWNGRADE_FIELD, target.len() + 8);
        calls.propose(call, body, RequestEnvelope::Other { field, len })
    });
    Ok(Some(set.await?))
}

/// The answer with the cluster's version as it is now.
fn shown_version(core: &NetCore) -> Vec<u8> {
    let cluster = core.shared.cluster.load();
    let revision = core.state.borrow().reader.revision();
    let reply = DowngradeResponse {
        header: Some(status::header(&core.shared, revision)),
        version: status::minor_version(&cluster.cluster_version),
    };
    reply.encode_to_vec()
}
