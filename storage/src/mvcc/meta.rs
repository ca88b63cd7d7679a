//! Records of the `meta` bucket.
//!
//! Always true: what is written here is what etcd's tools read (data file sheet, 2.2).
//! Used at open and at freeze, on the apply core. Does not interpret the confState text.

use super::batch::SmallChanges;
use super::revision::Revision;
use super::store::{Applied, OpenError};
use super::tree_seam::{Bucket, TreeSnapshot};

const CONSISTENT_INDEX: &str = "consistent_index";
const TERM: &str = "term";
const CONF_STATE: &str = "confState";
const STORAGE_VERSION: &str = "storageVersion";
const SCHEDULED_COMPACTION: &str = "scheduledCompactRev";
const FINISHED_COMPACTION: &str = "finishedCompactRev";

/// What a file's `meta` bucket says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredMeta {
    /// Zeros in a file that no entry was applied to.
    pub applied: Applied,
    /// JSON text of the raft ConfState.
    pub conf_state: Option<String>,
    pub storage_version: Option<String>,
    pub scheduled_compaction: Option<i64>,
    pub finished_compaction: Option<i64>,
}

impl StoredMeta {
    pub fn read(tree: &impl TreeSnapshot) -> Result<Self, OpenError> {
        Ok(Self {
            applied: Applied {
                index: number(tree, CONSISTENT_INDEX)?.unwrap_or(0),
                term: number(tree, TERM)?.unwrap_or(0),
            },
            conf_state: text(tree, CONF_STATE)?,
            storage_version: text(tree, STORAGE_VERSION)?,
            scheduled_compaction: compaction(tree, SCHEDULED_COMPACTION)?,
            finished_compaction: compaction(tree, FINISHED_COMPACTION)?,
        })
    }
}

/// As etcd, zeros are not written: they say that nothing was applied yet.
pub(super) fn set_applied(small: &mut SmallChanges, applied: Applied) {
    for (key, value) in [(CONSISTENT_INDEX, applied.index), (TERM, applied.term)] {
        if value != 0 {
            set(small, key, &value.to_be_bytes());
        }
    }
}

pub(super) fn set_conf_state(small: &mut SmallChanges, json: &str) {
    set(small, CONF_STATE, json.as_bytes());
}

/// `None` removes the key, which files below 3.6 do not have.
pub(super) fn set_storage_version(small: &mut SmallChanges, version: Option<&str>) {
    small.set(
        Bucket::Meta,
        STORAGE_VERSION.as_bytes(),
        version.map(str::as_bytes),
    );
}

pub(super) fn set_scheduled_compaction(small: &mut SmallChanges, revision: i64) {
    let mark = Revision::new(revision, 0).put_key();
    set(small, SCHEDULED_COMPACTION, &mark);
}

pub(super) fn set_finished_compaction(small: &mut SmallChanges, revision: i64) {
    let mark = Revision::new(revision, 0).put_key();
    set(small, FINISHED_COMPACTION, &mark);
}

fn set(small: &mut SmallChanges, key: &str, value: &[u8]) {
    small.set(Bucket::Meta, key.as_bytes(), Some(value));
}

fn get<'t>(tree: &'t impl TreeSnapshot, key: &str) -> Result<Option<&'t [u8]>, OpenError> {
    let value = tree.get(Bucket::Meta, key.as_bytes());
    value.map_err(OpenError::Damaged)
}

fn number(tree: &impl TreeSnapshot, key: &'static str) -> Result<Option<u64>, OpenError> {
    let Some(value) = get(tree, key)? else {
        return Ok(None);
    };
    let bytes = value.try_into().map_err(|_| bad(key, value))?;
    Ok(Some(u64::from_be_bytes(bytes)))
}

fn text(tree: &impl TreeSnapshot, key: &'static str) -> Result<Option<String>, OpenError> {
    let Some(value) = get(tree, key)? else {
        return Ok(None);
    };
    let text = String::from_utf8(value.to_vec()).map_err(|_| bad(key, value))?;
    Ok(Some(text))
}

fn compaction(tree: &impl TreeSnapshot, key: &'static str) -> Result<Option<i64>, OpenError> {
    let Some(value) = get(tree, key)? else {
        return Ok(None);
    };
    let (revision, _) = Revision::parse(value).ok_or_else(|| bad(key, value))?;
    Ok(Some(revision.main))
}

fn bad(key: &'static str, value: &[u8]) -> OpenError {
    OpenError::BadMeta {
        key,
        length: value.len(),
    }
}
