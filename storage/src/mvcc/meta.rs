//! Records of the `meta` bucket.
//!
//! Always true: what is written here is what etcd's tools read (data file sheet, 2.2).
//! Used at open and at freeze, on the apply core. Does not interpret the confState text.

use super::batch::SmallChanges;
use super::revision::Revision;
use super::store::{Applied, OpenError, Store};
use super::tree_seam::{Bucket, TreeSnapshot};

const CONSISTENT_INDEX: &str = "consistent_index";
const TERM: &str = "term";
const CONF_STATE: &str = "confState";
const STORAGE_VERSION: &str = "storageVersion";
const SCHEDULED_COMPACTION: &str = "scheduledCompactRev";
const FINISHED_COMPACTION: &str = "finishedCompactRev";
/// Ours alone: etcd and its tools carry it along and never read it.
const LOG: &str = "pilasterLog";
const LOG_VERSION: u8 = 1;
const LOG_BYTES: usize = 1 + 3 * 8;

/// Names the log that the commit with this consistent index belongs to.
///
/// Written with every commit. A program that knows nothing of it moves the consistent index and leaves this behind, which
/// is how a file that etcd ran on, or that was restored, is told from one that only we wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogTie {
    /// Random, drawn when the log was made.
    pub log_id: u64,
    /// The consistent index and term it was written with.
    pub applied: Applied,
}

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
    /// Says something only while its position is `applied`.
    pub log: Option<LogTie>,
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
            log: log_tie(tree)?,
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

pub(super) fn set_log(small: &mut SmallChanges, tie: LogTie) {
    let mut value = [LOG_VERSION; LOG_BYTES];
    for (at, word) in [tie.log_id, tie.applied.index, tie.applied.term]
        .iter()
        .enumerate()
    {
        value[1 + 8 * at..][..8].copy_from_slice(&word.to_be_bytes());
    }
    set(small, LOG, &value);
}

pub(super) fn names_log<T: TreeSnapshot>(store: &Store<T>) -> bool {
    store.get_bucket(Bucket::Meta, LOG.as_bytes()).is_some()
}

pub(super) fn forget_log(small: &mut SmallChanges) {
    small.set(Bucket::Meta, LOG.as_bytes(), None);
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

fn log_tie(tree: &impl TreeSnapshot) -> Result<Option<LogTie>, OpenError> {
    let Some(value) = get(tree, LOG)? else {
        return Ok(None);
    };
    let Some((&LOG_VERSION, words)) = value.split_first() else {
        return Err(bad(LOG, value));
    };
    let (words, []) = words.as_chunks::<8>() else {
        return Err(bad(LOG, value));
    };
    let [log_id, index, term] = words else {
        return Err(bad(LOG, value));
    };
    Ok(Some(LogTie {
        log_id: u64::from_be_bytes(*log_id),
        applied: Applied {
            index: u64::from_be_bytes(*index),
            term: u64::from_be_bytes(*term),
        },
    }))
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
