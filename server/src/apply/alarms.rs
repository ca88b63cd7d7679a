//! Alarms: raised, shown and taken back through the log; what they forbid; and the quota behind one.
//!
//! Always true here: an alarm is in the store's bucket before it is in the published view, under etcd's
//! key; an alarm refuses a command before anything of it is carried out.

use std::sync::Arc;

use arc_swap::Guard;
use prost::Message;
use storage::command::{self, ArchivedAlarm, ArchivedBody, Body, CommandView};
use storage::mvcc::{Applied, Bucket};
use wire::error::EtcdError;
use wire::messages::etcdserverpb::{AlarmMember, AlarmResponse, AlarmType};

use crate::kv;
use crate::services::status;

use super::cluster::ClusterView;
use super::stage::ApplyStage;

const NO_SPACE: i32 = AlarmType::Nospace as i32;
pub(super) const CORRUPT: i32 = AlarmType::Corrupt as i32;

/// What an operator can do, in the log where the alarm is met. It must name only what this version has.
const NO_SPACE_REMEDY: &str = "the database has reached its quota, so writes that need space are refused; reads, deletions and \
    compactions go on; delete what is not needed, run `etcdctl compact` and `etcdctl defrag`, or restart the member with a larger \
    --quota-backend-bytes; then `etcdctl alarm disarm`";

impl ApplyStage {
    pub(super) fn is_over_quota(&self, cost: usize) -> bool {
        let size = self.shared.tree_bytes() as u64;
        self.settings
            .quota_bytes
            .is_some_and(|quota| size.saturating_add(cost as u64) >= quota)
    }

    pub(super) fn raise_no_space(&mut self, view: &Guard<Arc<ClusterView>>) {
        let member_id = self.shared.member_id;
        let wanted = AlarmMember {
            member_id,
            alarm: NO_SPACE,
        };
        if !view.alarms.contains(&wanted) {
            let activate = command::Alarm {
                member_id,
                action: 1,
                alarm: NO_SPACE,
            };
            self.propose(Body::Alarm(activate));
        }
    }

    pub(super) fn has_alarm(&self, kind: i32) -> bool {
        self.shared
            .cluster
            .load()
            .alarms
            .iter()
            .any(|alarm| alarm.alarm == kind)
    }

    pub(super) fn apply_alarm(&mut self, applied: Applied, request: &ArchivedAlarm) {
        let alarm = AlarmMember {
            member_id: request.member_id.to_native(),
            alarm: request.alarm.to_native(),
        };
        let mut view = ClusterView::clone(&self.shared.cluster.load());
        let mut shown = Vec::new();
        let tree_bytes = self.shared.tree_bytes();
        let mut txn = self.store.begin(applied);
        let key = alarm.encode_to_vec();
        match request.action.to_native() {
            0 => shown.extend(
                view.alarms
                    .iter()
                    .filter(|held| alarm.alarm == 0 || held.alarm == alarm.alarm),
            ),
            1 if alarm.alarm != 0 => {
                if !view.alarms.contains(&alarm) {
                    log_raised(&alarm, tree_bytes, self.settings.quota_bytes);
                    txn.put_bucket(Bucket::Alarm, &key, b"");
                    view.alarms.push(alarm);
                    view.alarms
                        .sort_unstable_by_key(|held| (held.member_id, held.alarm));
                }
                shown.push(alarm);
            }
            2 => {
                if let Some(place) = view.alarms.iter().position(|held| *held == alarm) {
                    tracing::warn!(alarm = alarm_name(alarm.alarm), "alarm disarmed");
                    txn.delete_bucket(Bucket::Alarm, &key);
                    view.alarms.remove(place);
                    shown.push(alarm);
                }
            }
            _ => {}
        }
        txn.commit();
        self.shared.cluster.store(Arc::new(view));
        let header = Some(status::header(&self.shared, self.store.revision()));
        AlarmResponse {
            header,
            alarms: shown,
        }
        .encode(&mut self.scratch)
        .expect("a Vec has room");
    }
}

/// Why an alarm forbids this command, if one does.
pub(super) fn alarm_refusal(view: &ClusterView, command: &CommandView) -> Option<EtcdError> {
    if view.alarms.iter().any(|alarm| alarm.alarm == CORRUPT) {
        return Some(EtcdError::Corrupt);
    }
    let takes_space = match &command.body {
        ArchivedBody::Put(_) | ArchivedBody::LeaseGrant(_) => true,
        ArchivedBody::Txn(_) => kv::quota::command_cost(command) > 0,
        _ => false,
    };
    (takes_space && view.alarms.iter().any(|alarm| alarm.alarm == NO_SPACE))
        .then_some(EtcdError::NoSpace)
}

fn log_raised(alarm: &AlarmMember, tree_bytes: i64, quota_bytes: Option<u64>) {
    let name = alarm_name(alarm.alarm);
    let member_id = format_args!("{:x}", alarm.member_id);
    if alarm.alarm == NO_SPACE {
        tracing::warn!(
            alarm = name,
            %member_id,
            "db-size" = tree_bytes,
            "quota-backend-bytes" = quota_bytes,
            "alarm raised: {NO_SPACE_REMEDY}"
        );
    } else {
        tracing::warn!(alarm = name, %member_id, "alarm raised");
    }
}

fn alarm_name(alarm: i32) -> &'static str {
    AlarmType::try_from(alarm).map_or("UNKNOWN", |alarm| alarm.as_str_name())
}
