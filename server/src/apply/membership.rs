//! What members tell their cluster: names, URLs and the version they agree on.
//!
//! Always true here: the record is in its bucket before it is in the published view; clients are let in
//! only when this life's own publication is applied.

use std::sync::Arc;

use prost::Message;
use storage::command::{
    self, ArchivedClusterVersionSet, ArchivedDowngradeInfoSet, ArchivedMemberAttrSet,
    ArchivedMemberPeerUrlsSet, Body,
};
use storage::mvcc::{Applied, Bucket};
use wire::error::EtcdError;
use wire::messages::etcdserverpb::{DowngradeResponse, MemberUpdateResponse};

use crate::pipeline::{RequestId, ToNet};
use crate::services::status;
use crate::version::{CLUSTER_VERSION, parse_version};

use super::cluster::{self, ClusterView};
use super::stage::ApplyStage;

impl ApplyStage {
    pub(super) fn apply_cluster_version(
        &mut self,
        applied: Applied,
        set: &ArchivedClusterVersionSet<'_>,
    ) {
        let version: &str = &set.version;
        let mut txn = self.store.begin(applied);
        txn.put_bucket(Bucket::Cluster, b"clusterVersion", version.as_bytes());
        txn.put_bucket(Bucket::Meta, b"storageVersion", version.as_bytes());
        txn.commit();
        let mut view = ClusterView::clone(&self.shared.cluster.load());
        view.cluster_version = version.to_owned();
        view.storage_version = version.to_owned();
        self.shared.cluster.store(Arc::new(view));
        tracing::info!(cluster_version = version, "set the cluster version");
    }

    /// Begins or ends a downgrade; the cluster's version follows by an entry of its own.
    pub(super) fn apply_downgrade_info(
        &mut self,
        applied: Applied,
        set: &ArchivedDowngradeInfoSet<'_>,
    ) {
        let target = set.is_enabled.then(|| set.target.to_string());
        let mut txn = self.store.begin(applied);
        cluster::put_downgrade(&mut txn, target.as_deref());
        txn.commit();
        let mut view = ClusterView::clone(&self.shared.cluster.load());
        tracing::warn!(
            target_version = target.as_deref().unwrap_or_default(),
            "downgrade {}",
            if target.is_some() {
                "enabled"
            } else {
                "cancelled"
            }
        );
        view.downgrade_target = target;
        let reply = DowngradeResponse {
            header: Some(status::header(&self.shared, self.store.revision())),
            version: status::minor_version(&view.cluster_version),
        };
        self.shared.cluster.store(Arc::new(view));
        reply.encode(&mut self.scratch).expect("a Vec has room");
        // An entry of an earlier life: the start decides when it is through with all of them.
        if self.is_serving {
            self.decide_cluster_version();
        }
    }

    /// Proposes the version that this cluster should have, if that is another than it has.
    fn decide_cluster_version(&mut self) {
        let view = self.shared.cluster.load();
        let now = parse_version(&view.cluster_version);
        let wanted = match &view.downgrade_target {
            Some(target) => parse_version(target).filter(|&target| {
                // One step from where it is, or it is there.
                now.is_some_and(|now| now.before() == Some(target))
            }),
            None => parse_version(CLUSTER_VERSION).filter(|&ours| now < Some(ours)),
        };
        drop(view);
        if let Some(wanted) = wanted {
            self.propose(Body::ClusterVersionSet(command::ClusterVersionSet {
                version: &wanted.to_string(),
            }));
        }
    }

    /// Replaces a member's peer URLs; they are not looked at, as in etcd.
    pub(super) fn apply_peer_urls(
        &mut self,
        applied: Applied,
        set: &ArchivedMemberPeerUrlsSet<'_>,
    ) -> Result<(), EtcdError> {
        let member_id = set.member_id.to_native();
        let peer_urls: Vec<String> = set
            .peer_urls
            .iter()
            .map(|url| url.url.to_string())
            .collect();
        let mut view = ClusterView::clone(&self.shared.cluster.load());
        let is_taken = view
            .members
            .iter()
            .filter(|member| member.id != member_id)
            .flat_map(|member| &member.peer_ur_ls)
            .any(|taken| peer_urls.contains(taken));
        let place = view.members.iter().position(|held| held.id == member_id);
        let (Some(place), false) = (place, is_taken) else {
            self.store.set_applied(applied);
            return Err(match place {
                Some(_) => EtcdError::PeerUrlExist,
                None => EtcdError::MemberNotFound,
            });
        };
        view.members[place].peer_ur_ls = peer_urls;
        let mut txn = self.store.begin(applied);
        cluster::put_member(&mut txn, &view.members[place]);
        txn.commit();
        let reply = MemberUpdateResponse {
            header: Some(status::header(&self.shared, 0)),
            members: view.members.clone(),
        };
        self.shared.cluster.store(Arc::new(view));
        reply.encode(&mut self.scratch).expect("a Vec has room");
        Ok(())
    }

    pub(super) fn apply_member_attributes(
        &mut self,
        applied: Applied,
        set: &ArchivedMemberAttrSet<'_>,
        id: RequestId,
    ) {
        let member_id = set.member_id.to_native();
        let mut view = ClusterView::clone(&self.shared.cluster.load());
        let Some(member) = view
            .members
            .iter_mut()
            .find(|member| member.id == member_id)
        else {
            return self.store.set_applied(applied);
        };
        let name: &str = &set.name;
        member.name = name.to_owned();
        member.client_ur_ls = set
            .client_urls
            .iter()
            .map(|url| url.url.to_string())
            .collect();
        let mut txn = self.store.begin(applied);
        cluster::put_member(&mut txn, member);
        txn.commit();
        self.shared.cluster.store(Arc::new(view));
        // What an earlier life published says nothing about this one: there may be no leader yet,
        // and acknowledged entries may lie behind it.
        if member_id == self.shared.member_id && id.life() == self.shared.life {
            self.on_published();
        }
    }

    /// The member has published itself: everything it acknowledged before is applied.
    fn on_published(&mut self) {
        if !std::mem::replace(&mut self.is_serving, true) {
            for ring in &mut self.to_net {
                ring.push(ToNet::Serve);
            }
        }
    }

    /// Proposes what a starting member tells its cluster: its name and URLs, and the version.
    pub(super) fn publish(&mut self) {
        let member = self.settings.member.clone();
        let urls: Vec<command::Url<'_>> = member
            .client_ur_ls
            .iter()
            .map(|url| command::Url { url })
            .collect();
        self.decide_cluster_version();
        self.propose(Body::MemberAttrSet(command::MemberAttrSet {
            member_id: member.id,
            name: &member.name,
            client_urls: &urls,
        }));
        self.finish_pass();
    }
}
