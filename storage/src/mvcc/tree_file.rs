//! The tree file as the store sees it.
//!
//! Always true: a frozen batch becomes one write batch, so it lands whole or not at all; all of etcd's buckets
//! exist after the first commit.
//! Snapshots are read on any core; `fill` runs on the tree thread. Knows no page.

use std::ops::ControlFlow;

use super::batch::Changes;
use super::tree_seam::{Bucket, Change, TreeDamage, TreeSnapshot};
use crate::tree::{Snapshot, WriteBatch};

impl TreeSnapshot for Snapshot {
    fn get(&self, bucket: Bucket, key: &[u8]) -> Result<Option<&[u8]>, TreeDamage> {
        match self.bucket(bucket.name().as_bytes())? {
            Some(bucket) => Ok(bucket.get(key)?),
            None => Ok(None),
        }
    }

    fn scan<'a>(
        &'a self,
        bucket: Bucket,
        from: &[u8],
        visit: &mut dyn FnMut(&'a [u8], &'a [u8]) -> ControlFlow<()>,
    ) -> Result<(), TreeDamage> {
        let Some(bucket) = self.bucket(bucket.name().as_bytes())? else {
            return Ok(());
        };
        let mut cursor = bucket.range(from)?;
        while let Some((key, value)) = cursor.next()? {
            if visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }
}

impl<'c> Changes<'c> {
    /// Adds the changes to `batch`, which borrows them.
    pub fn fill<'b>(&'b self, batch: &mut WriteBatch<'b>) {
        for bucket in Bucket::ALL {
            batch.create_bucket(bucket.name().as_bytes());
        }
        self.for_each(|change| match change {
            Change::Put { bucket, key, value } => {
                batch.put(bucket.name().as_bytes(), key, value);
            }
            Change::Delete { bucket, key } => batch.delete(bucket.name().as_bytes(), key),
        });
    }
}
