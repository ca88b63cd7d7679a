//! What members tell their cluster: names, URLs and the version they agree on.
//!
//! Always true here: the record is in its bucket before it is in the published view; clients are let in
//! only when this life's own publication is applied.

use std::sync::Arc;

use storage::command::{self, ArchivedClusterVersionSet, ArchivedMemberAttrSet, Body};
use storage::mvcc::{Applied, Bucket};

use crate::pipeline::{RequestId, ToNet};

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
        if self.shared.cluster.load().cluster_version.is_empty() {
            self.propose(Body::ClusterVersionSet(command::ClusterVersionSet {
                version: crate::version::CLUSTER_VERSION,
            }));
        }
        self.propose(Body::MemberAttrSet(command::MemberAttrSet {
            member_id: member.id,
            name: &member.name,
            client_urls: &urls,
        }));
        self.finish_pass();
    }
}
