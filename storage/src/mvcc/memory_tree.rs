//! A tree snapshot in memory: what tests and cost measurements use where the file is not the subject.
//!
//! Always true: a commit leaves earlier snapshots as they were.
//! Called by tests and examples only. Durable nowhere.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use super::batch::Frozen;
use super::tree_seam::{Bucket, Change, TreeDamage, TreeSnapshot};

type Records = BTreeMap<Vec<u8>, Arc<[u8]>>;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryTree {
    buckets: BTreeMap<Bucket, Arc<Records>>,
}

impl MemoryTree {
    /// The state after `frozen`; `self` stays as it is.
    pub fn committed(&self, frozen: &Frozen) -> Self {
        let mut next = self.clone();
        frozen.changes().for_each(|change| next.apply(change));
        next
    }

    pub fn apply(&mut self, change: Change<'_>) {
        match change {
            Change::Put { bucket, key, value } => {
                self.records_mut(bucket).insert(key.to_vec(), value.into());
            }
            Change::Delete { bucket, key } => {
                self.records_mut(bucket).remove(key);
            }
        }
    }

    pub fn records(&self, bucket: Bucket) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.buckets
            .get(&bucket)
            .into_iter()
            .flat_map(|records| records.iter().map(|(k, v)| (&k[..], &v[..])))
    }

    fn records_mut(&mut self, bucket: Bucket) -> &mut Records {
        Arc::make_mut(self.buckets.entry(bucket).or_default())
    }
}

impl TreeSnapshot for MemoryTree {
    fn get(&self, bucket: Bucket, key: &[u8]) -> Result<Option<&[u8]>, TreeDamage> {
        let records = self.buckets.get(&bucket);
        Ok(records
            .and_then(|records| records.get(key))
            .map(AsRef::as_ref))
    }

    fn scan<'a>(
        &'a self,
        bucket: Bucket,
        from: &[u8],
        visit: &mut dyn FnMut(&'a [u8], &'a [u8]) -> ControlFlow<()>,
    ) -> Result<(), TreeDamage> {
        let Some(records) = self.buckets.get(&bucket) else {
            return Ok(());
        };
        for (key, value) in records.range::<[u8], _>((Bound::Included(from), Bound::Unbounded)) {
            if visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }
}
