//! The cluster's records: members, versions, alarms. Applied by the apply core, shown by all.
//!
//! Always true here: the published view is replaced whole, after the change is in the store's
//! buckets; JSON keys and texts are etcd's, so its tools read our file and we read theirs.

use serde::{Deserialize, Serialize};
use storage::mvcc::{Bucket, TreeSnapshot, WriteTxn};
use wire::messages::etcdserverpb::{AlarmMember, Member};

/// What all cores may know about the cluster.
#[derive(Clone, Default, Debug)]
pub struct ClusterView {
    /// Ascending by id.
    pub members: Vec<Member>,
    pub alarms: Vec<AlarmMember>,
    /// `x.y.0`; empty while undecided.
    pub cluster_version: String,
    /// `x.y.z`; empty while unknown.
    pub storage_version: String,
    /// The version that the cluster goes down to, if it does.
    pub downgrade_target: Option<String>,
}

/// Record `downgrade` of bucket `cluster`.
#[derive(Serialize, Deserialize, Default)]
struct DowngradeRecord {
    #[serde(rename = "target-version", default)]
    target_version: String,
    #[serde(default)]
    enabled: bool,
}

const DOWNGRADE_KEY: &[u8] = b"downgrade";

/// Writes whether the cluster goes down, and to which version.
pub fn put_downgrade<T: TreeSnapshot>(txn: &mut WriteTxn<'_, T>, target: Option<&str>) {
    let record = DowngradeRecord {
        target_version: target.unwrap_or_default().to_owned(),
        enabled: target.is_some(),
    };
    let json = serde_json::to_vec(&record).expect("plain fields encode");
    txn.put_bucket(Bucket::Cluster, DOWNGRADE_KEY, &json);
}

/// A member's record in bucket `members`, under its id in hex.
#[derive(Serialize, Deserialize, Default)]
struct MemberRecord {
    id: u64,
    #[serde(rename = "peerURLs", default)]
    peer_urls: Option<Vec<String>>,
    #[serde(
        rename = "isLearner",
        default,
        skip_serializing_if = "std::ops::Not::not"
    )]
    is_learner: bool,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(rename = "clientURLs", default, skip_serializing_if = "Vec::is_empty")]
    client_urls: Vec<String>,
}

/// Writes one member's record.
pub fn put_member<T: TreeSnapshot>(txn: &mut WriteTxn<'_, T>, member: &Member) {
    let record = MemberRecord {
        id: member.id,
        peer_urls: Some(member.peer_ur_ls.clone()),
        is_learner: member.is_learner,
        name: member.name.clone(),
        client_urls: member.client_ur_ls.clone(),
    };
    let json = serde_json::to_vec(&record).expect("plain fields encode");
    txn.put_bucket(Bucket::Members, member_key(member.id).as_bytes(), &json);
}

pub fn member_key(id: u64) -> String {
    format!("{id:x}")
}

/// ConfState as etcd keeps it in bucket `meta`.
pub fn conf_state_json(voters: &[u64], learners: &[u64]) -> String {
    #[derive(Serialize)]
    struct ConfState<'a> {
        #[serde(skip_serializing_if = "<[u64]>::is_empty")]
        voters: &'a [u64],
        #[serde(skip_serializing_if = "<[u64]>::is_empty")]
        learners: &'a [u64],
        auto_leave: bool,
    }
    serde_json::to_string(&ConfState {
        voters,
        learners,
        auto_leave: false,
    })
    .expect("plain fields encode")
}

/// Reads the records of a tree file.
pub fn load<T: TreeSnapshot>(tree: &T) -> Result<ClusterView, String> {
    use prost::Message;
    use std::ops::ControlFlow;
    let mut view = ClusterView::default();
    let mut problem = None;
    let scanned = tree.scan(Bucket::Members, b"", &mut |key, value| {
        match serde_json::from_slice::<MemberRecord>(value) {
            Ok(record) => view.members.push(Member {
                id: record.id,
                name: record.name,
                peer_ur_ls: record.peer_urls.unwrap_or_default(),
                client_ur_ls: record.client_urls,
                is_learner: record.is_learner,
            }),
            Err(error) => {
                let key = String::from_utf8_lossy(key).into_owned();
                problem = Some(format!("bucket members, key {key:?}: {error}"));
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    });
    scanned.map_err(|damage| damage.to_string())?;
    let scanned = tree.scan(Bucket::Alarm, b"", &mut |key, _| {
        match AlarmMember::decode(key) {
            Ok(alarm) => view.alarms.push(alarm),
            Err(error) => {
                problem = Some(format!("bucket alarm, key {key:02x?}: {error}"));
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    });
    scanned.map_err(|damage| damage.to_string())?;
    if let Some(problem) = problem {
        return Err(problem);
    }
    view.members.sort_unstable_by_key(|member| member.id);
    view.cluster_version = text(tree, Bucket::Cluster, b"clusterVersion")?;
    view.storage_version = text(tree, Bucket::Meta, b"storageVersion")?;
    let downgrade = text(tree, Bucket::Cluster, DOWNGRADE_KEY)?;
    if !downgrade.is_empty() {
        let record: DowngradeRecord = serde_json::from_str(&downgrade)
            .map_err(|error| format!("bucket cluster, key downgrade: {error}"))?;
        view.downgrade_target = record.enabled.then_some(record.target_version);
    }
    Ok(view)
}

fn text<T: TreeSnapshot>(tree: &T, bucket: Bucket, key: &[u8]) -> Result<String, String> {
    let bytes = tree.get(bucket, key).map_err(|damage| damage.to_string())?;
    Ok(bytes
        .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
        .unwrap_or_default())
}
