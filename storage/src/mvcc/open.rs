//! Opening the store: the index from the `key` bucket, the numbers from `meta`.
//!
//! Always true: the result is what the store was when the file's last commit was frozen.
//! Apply core, before it serves; one pass over the bucket. Damage is answered with where it is, never skipped.

use std::ops::ControlFlow;

use super::compaction::Compaction;
use super::index::{IndexWriter, LoadedRevision, Loader};
use super::key_value::KeyValue;
use super::meta::StoredMeta;
use super::revision::Revision;
use super::store::{OpenError, OpenReport, Options};
use super::tree_seam::{Bucket, TreeSnapshot};

pub(super) struct Opened {
    pub(super) index: IndexWriter,
    pub(super) current: i64,
    pub(super) compact_revision: i64,
    pub(super) compaction: Compaction,
    pub(super) report: OpenReport,
}

pub(super) fn open(tree: &impl TreeSnapshot, options: &Options) -> Result<Opened, OpenError> {
    let meta = StoredMeta::read(tree)?;
    let mut loader = Loader::new();
    // An empty store stands at 1.
    let mut current = 1;
    let mut error = None;
    let scanned = tree.scan(
        Bucket::Key,
        b"",
        &mut |key, value| match loaded_revision(key, value) {
            Ok(loaded) => {
                current = loaded.revision.main;
                loader.push(loaded);
                ControlFlow::Continue(())
            }
            Err(found) => {
                error = Some(found);
                ControlFlow::Break(())
            }
        },
    );
    scanned.map_err(OpenError::Damaged)?;
    if let Some(error) = error {
        return Err(error);
    }
    let revisions = loader.len();
    let loaded = loader.finish(options.open_threads_max);
    let finished = meta.finished_compaction.unwrap_or(-1);
    let scheduled = meta.scheduled_compaction.unwrap_or(-1);
    let resumed = (scheduled > finished).then_some(scheduled);
    Ok(Opened {
        index: loaded.index,
        // A compaction may have deleted the records of the newest revisions.
        current: current.max(finished).max(scheduled),
        compact_revision: finished.max(scheduled),
        compaction: Compaction::opened(finished, resumed),
        report: OpenReport {
            applied: meta.applied,
            conf_state: meta.conf_state,
            storage_version: meta.storage_version,
            keys: loaded.keys,
            revisions,
            lease_keys: loaded.lease_keys,
            resumed_compaction: resumed,
        },
    })
}

fn loaded_revision<'t>(key: &'t [u8], value: &'t [u8]) -> Result<LoadedRevision<'t>, OpenError> {
    let (revision, is_tombstone) =
        Revision::parse(key).ok_or_else(|| OpenError::BadRevisionKey { key: key.to_vec() })?;
    let record = KeyValue::parse(value).ok_or(OpenError::BadRecord {
        main: revision.main,
        sub: revision.sub,
    })?;
    Ok(LoadedRevision {
        key: record.key,
        revision,
        is_tombstone,
        create_revision: record.create_revision,
        version: record.version,
        lease: record.lease,
    })
}
