//! Maintenance.Status, HashKV's and Cluster.MemberList's messages, from what the cores publish.
//!
//! Always true here: nothing waits; every number is read once from [`Shared`]. Runs on net cores.

use prost::Message;
use storage::mvcc::HashJob;
use wire::messages::etcdserverpb::{
    AlarmMember, AlarmResponse, AlarmType, DowngradeInfo, HashKvResponse, HashResponse,
    MemberListResponse, ResponseHeader, StatusResponse,
};

use crate::apply::cluster::ClusterView;
use crate::pipeline::Shared;
use crate::version::COMPATIBLE_VERSION;

/// A header with the local term; `revision` 0 where etcd leaves it out.
pub fn header(shared: &Shared, revision: i64) -> ResponseHeader {
    ResponseHeader {
        cluster_id: shared.cluster_id,
        member_id: shared.member_id,
        revision,
        raft_term: shared.term(),
    }
}

pub fn put_status(out: &mut Vec<u8>, shared: &Shared, revision: i64, quota_bytes: i64) {
    let cluster = shared.cluster.load();
    let leader = shared.leader();
    let mut errors = Vec::new();
    if leader == 0 {
        errors.push("etcdserver: no leader".to_owned());
    }
    let mut alarms: Vec<&AlarmMember> = cluster.alarms.iter().collect();
    alarms.sort_by_key(|alarm| alarm.alarm);
    errors.extend(alarms.into_iter().map(alarm_text));
    let status = StatusResponse {
        header: Some(header(shared, revision)),
        version: COMPATIBLE_VERSION.to_owned(),
        db_size: shared.tree_bytes(),
        leader,
        raft_index: shared.committed(),
        raft_term: shared.term(),
        raft_applied_index: shared.applied(),
        errors,
        db_size_in_use: shared.tree_bytes_in_use(),
        is_learner: false,
        storage_version: cluster.storage_version.clone(),
        db_size_quota: quota_bytes,
        downgrade_info: Some(DowngradeInfo {
            enabled: cluster.downgrade_target.is_some(),
            target_version: cluster.downgrade_target.clone().unwrap_or_default(),
        }),
    };
    status.encode(out).expect("a Vec has room");
}

/// A record's text form, as Go prints the message: fields that are zero are left out.
fn alarm_text(alarm: &AlarmMember) -> String {
    let member = (alarm.member_id != 0).then(|| format!("memberID:{}", alarm.member_id));
    let kind = (alarm.alarm != 0).then(|| match AlarmType::try_from(alarm.alarm) {
        Ok(kind) => format!("alarm:{}", kind.as_str_name()),
        Err(_) => format!("alarm:{}", alarm.alarm),
    });
    let fields: Vec<String> = member.into_iter().chain(kind).collect();
    fields.join(" ")
}

pub fn put_hash_kv(out: &mut Vec<u8>, header: &wire::kv::ResponseHeader, job: &HashJob) {
    let reply = HashKvResponse {
        header: Some(ResponseHeader {
            cluster_id: header.cluster_id,
            member_id: header.member_id,
            revision: header.revision,
            raft_term: header.raft_term,
        }),
        hash: job.hash(),
        compact_revision: job.compact_revision(),
        hash_revision: job.at(),
    };
    reply.encode(out).expect("a Vec has room");
}

/// `3.7` of `3.7.0`, as answers about downgrades show a version.
pub fn minor_version(version: &str) -> String {
    let parts: Vec<&str> = version.splitn(3, '.').take(2).collect();
    parts.join(".")
}

/// The alarms of a kind, or all for kind 0.
pub fn put_alarms(out: &mut Vec<u8>, header: ResponseHeader, cluster: &ClusterView, kind: i32) {
    let held = cluster.alarms.iter();
    let shown = held.filter(|alarm| kind == 0 || alarm.alarm == kind);
    let reply = AlarmResponse {
        header: Some(header),
        alarms: shown.copied().collect(),
    };
    reply.encode(out).expect("a Vec has room");
}

pub fn put_hash(out: &mut Vec<u8>, header: ResponseHeader, hash: u32) {
    let reply = HashResponse {
        header: Some(header),
        hash,
    };
    reply.encode(out).expect("a Vec has room");
}

pub fn put_member_list(out: &mut Vec<u8>, shared: &Shared, cluster: &ClusterView) {
    let list = MemberListResponse {
        header: Some(header(shared, 0)),
        members: cluster.members.clone(),
    };
    list.encode(out).expect("a Vec has room");
}
