//! Entries about leases, carried out: grants, revocations, checkpoints.
//!
//! Always true here: what an entry does follows from the table, the store and the entry; the clock is told afterwards.
//! A lease's record, the deletion of its keys and the consistent index land in one transaction of the store.

use storage::command::{ArchivedLeaseCheckpoint, ArchivedLeaseGrant, ArchivedLeaseRevoke};
use storage::lease::{LeaseError, LeaseId, bucket_key};
use storage::mvcc::{Applied, Bucket};
use wire::error::EtcdError;
use wire::kv::{put_lease_grant_response, put_lease_revoke_response};

use crate::kv;
use crate::kv::store::{KeyRange, WriteTxn};
use crate::pipeline::{NetId, RequestId};
use crate::store::Writes;

use super::stage::ApplyStage;

impl ApplyStage {
    pub(super) fn apply_lease_grant(
        &mut self,
        applied: Applied,
        grant: &ArchivedLeaseGrant,
    ) -> Result<(), EtcdError> {
        let id = LeaseId(grant.id.to_native());
        let granted = match self.leases.table.grant(id, grant.ttl_s.to_native()) {
            Ok(granted) => granted,
            Err(error) => {
                self.store.set_applied(applied);
                return Err(refusal(error));
            }
        };
        self.store_lease(applied, &[id]);
        let leases = &mut self.leases;
        leases.clock.on_granted(&leases.table, id, self.now_ns);
        self.metrics.counters.lease_granted.inc();
        let ttl = &self.metrics.histograms.lease_ttl;
        ttl.observe_value(granted.ttl_s as f64);
        let header = self.header();
        put_lease_grant_response(&mut self.scratch, &header, id.0, granted.ttl_s);
        // As with puts: the lease stands, the client learns that space is short.
        if self.is_over_quota(kv::quota::LEASE_COST) {
            let alarms = self.shared.cluster.load();
            self.raise_no_space(&alarms);
            return Err(EtcdError::NoSpace);
        }
        Ok(())
    }

    pub(super) fn apply_lease_revoke(
        &mut self,
        applied: Applied,
        revoke: &ArchivedLeaseRevoke,
        request: RequestId,
    ) -> Result<(), EtcdError> {
        let id = LeaseId(revoke.id.to_native());
        let keys = match self.leases.table.revoke(id) {
            Ok(keys) => keys,
            Err(error) => {
                self.store.set_applied(applied);
                return Err(refusal(error));
            }
        };
        {
            let mut writes = Writes::new(&mut self.store, &mut self.leases.table, applied);
            for key in &keys {
                writes.delete_range(KeyRange::new(key, b""), None);
            }
            writes.txn.delete_bucket(Bucket::Lease, &bucket_key(id));
            self.metrics.count_writes(&writes.counts);
            writes.txn.commit();
        }
        self.leases.on_gone(id);
        self.metrics.counters.lease_revoked.inc();
        if self.is_own(request) {
            self.metrics.counters.lease_expired.inc();
        }
        let header = self.header();
        put_lease_revoke_response(&mut self.scratch, &header);
        Ok(())
    }

    pub(super) fn apply_lease_checkpoint(
        &mut self,
        applied: Applied,
        checkpoint: &ArchivedLeaseCheckpoint<'_>,
        request: RequestId,
    ) {
        let mut noted = Vec::new();
        for lease in checkpoint.leases.iter() {
            let id = LeaseId(lease.id.to_native());
            let remaining_ttl_s = lease.remaining_ttl_s.to_native();
            if self.leases.table.checkpoint(id, remaining_ttl_s) {
                noted.push(id);
            }
        }
        if self.leases.settings.keeps_checkpoints || self.is_cluster_at_least_3_6() {
            self.store_lease(applied, &noted);
        } else {
            self.store.set_applied(applied);
        }
        let now_ns = self.now_ns;
        let leases = &mut self.leases;
        if leases
            .checkpointing
            .is_some_and(|(under_way, _)| under_way == request)
        {
            leases.checkpointing = None;
        }
        for id in noted {
            let leases = &mut self.leases;
            leases.clock.on_checkpointed(&leases.table, id, now_ns);
            let is_taken_back = leases.table.checkpoint_s(id) == Some(0);
            if is_taken_back && let Some(held) = leases.taking_back.remove(&id) {
                for keep_alive in held.waiting {
                    self.renew(keep_alive, id, true);
                }
            }
        }
    }

    /// From 3.6 on every member of the cluster keeps checkpoints in the lease's record.
    fn is_cluster_at_least_3_6(&self) -> bool {
        let cluster = self.shared.cluster.load();
        let mut numbers = cluster.cluster_version.split('.').map(str::parse::<u32>);
        let mut next = || numbers.next().and_then(Result::ok).unwrap_or(0);
        (3, 6) <= (next(), next())
    }

    /// Writes the records of these leases as they are now.
    fn store_lease(&mut self, applied: Applied, ids: &[LeaseId]) {
        let leases = &mut self.leases;
        let mut txn = self.store.begin(applied);
        for &id in ids {
            let record = leases.table.record(id).expect("changed just now");
            leases.record.clear();
            record.encode_into(&mut leases.record);
            txn.put_bucket(Bucket::Lease, &bucket_key(id), &leases.record);
        }
        txn.commit();
    }

    /// Whether this life of this member proposed it about leases.
    fn is_own(&self, request: RequestId) -> bool {
        request.life() == self.shared.life && request.net() == NetId::LEASES
    }
}

fn refusal(error: LeaseError) -> EtcdError {
    match error {
        LeaseError::NotFound => EtcdError::LeaseNotFound,
        LeaseError::Exists => EtcdError::LeaseExists,
        LeaseError::TtlTooLarge => EtcdError::LeaseTtlTooLarge,
    }
}
