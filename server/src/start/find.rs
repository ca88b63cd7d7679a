//! Reads what the directories hold, and judges whether it belongs together.
//!
//! Always true here: nothing that is there is changed. Only where there is no log, or no tree file, a new one is made, once
//! everything else was accepted; so a refused start leaves the directories as they were.
//!
//! Blocking, on the main thread, once. What is found is brought up by [`super::open`].

use std::sync::Arc;

use bytes::Bytes;
use storage::device::Directory;
use storage::mvcc::{Applied, Bucket, StoredMeta, TreeSnapshot};
use storage::tree::{self, ReadTree, Snapshot, SumsState, Tree, TreeFiles};
use storage::wal::{self, ReadLog};

use crate::apply::cluster::{self, ClusterView};
use crate::config::{Config, DataDir};

use super::fit::{self, Fit, LogFacts, Misfit, TreeFacts};
use super::metadata::{LogIdentity, Metadata, Origin};
use super::open::{FOUNDED, StartError, seed};

/// What the directories hold, accepted and not changed yet.
pub struct Found {
    pub tree: ReadTree,
    pub log: ReadLog,
    pub metadata: Metadata,
    /// The tree's consistent index; the founders' agreement in a new one.
    pub applied: Applied,
    /// Nothing was applied to the tree file yet.
    pub is_founding: bool,
    pub fit: Fit,
    /// Members, versions and alarms that the tree file names.
    pub view: ClusterView,
}

pub fn find(
    config: &Config,
    dir: &DataDir,
    wal_options: &wal::Options,
) -> Result<Found, StartError> {
    let tree = match TreeFiles::exist(&dir.snap) {
        true => Some(read_tree(config, dir)?),
        // Made when the log is accepted.
        false => None,
    };
    let meta = match &tree {
        Some(tree) => StoredMeta::read(tree.snapshot())?,
        None => StoredMeta::default(),
    };
    let is_founding = meta.applied.index == 0;
    let facts = TreeFacts {
        applied: if is_founding { FOUNDED } else { meta.applied },
        tie: meta.log,
        is_empty: is_founding
            && match &tree {
                Some(tree) => !holds_keys(tree.snapshot())?,
                None => true,
            },
    };
    let view = match &tree {
        Some(tree) => cluster::load(tree.snapshot()).map_err(StartError::Cluster)?,
        None => ClusterView::default(),
    };
    let directory = wal::open_folder(&dir.wal)?;
    let has_log = wal::exists(&*directory)?;
    if !has_log {
        // Page sums that fit say that a member wrote this file, and a member has a log: what only
        // the log held would be lost. A backup comes without sums.
        let is_members = tree
            .as_ref()
            .is_some_and(|tree| tree.report().sums != SumsState::Rebuilt);
        if !is_founding && is_members {
            return Err(StartError::LogMissing {
                wal: dir.wal.display().to_string(),
                tree: dir.snap.join("db").display().to_string(),
            });
        }
        create_log(config, &*directory, wal_options, &facts)?;
    }
    let (log, metadata, fit) = read_log(dir, directory, wal_options, &facts)?;
    let to_apply = log.last_index().0.saturating_sub(facts.applied.index);
    warn_of_rebuilding(dir, tree.as_ref(), has_log, to_apply);
    let tree = match tree {
        Some(tree) => tree,
        None => read_tree(config, dir)?,
    };
    Ok(Found {
        tree,
        log,
        metadata,
        applied: facts.applied,
        is_founding,
        fit,
        view,
    })
}

/// Says so where the log makes up for a tree file that somebody took away or put back.
fn warn_of_rebuilding(dir: &DataDir, tree: Option<&ReadTree>, has_log: bool, to_apply: u64) {
    let why = match tree {
        _ if !has_log || to_apply == 0 => return,
        None => "the tree file is missing; the log makes it again",
        Some(tree) if tree.report().sums == SumsState::Rebuilt => {
            "the tree file is not the one its page sums were made for, as after a backup was put back; the log brings it up to \
             date. To restore a backup, the log and db.sum must go first"
        }
        Some(_) => return,
    };
    tracing::warn!(
        path = %dir.snap.join("db").display(),
        entries_to_apply = to_apply,
        "{why}"
    );
}

fn read_tree(config: &Config, dir: &DataDir) -> Result<ReadTree, StartError> {
    let started = std::time::Instant::now();
    let options = tree::TreeOptions {
        lock_memory: config.memory_mlock,
        map_bytes: map_bytes(config),
        ..tree::TreeOptions::default()
    };
    let tree = Tree::read(TreeFiles::open(&dir.snap)?, options)?;
    let report = tree.report();
    tracing::info!(
        path = %dir.snap.join("db").display(),
        size_bytes = report.pages_high_water * u64::from(report.page_bytes),
        pages_in_use = report.pages_in_use,
        pages_free = report.pages_free,
        sums = ?report.sums,
        took = ?started.elapsed(),
        "opened the tree file"
    );
    Ok(tree)
}

/// Address space for the tree's map: room for the quota and some growth.
fn map_bytes(config: &Config) -> u64 {
    let quota = match config.quota {
        crate::config::Quota::Bytes(bytes) => bytes,
        crate::config::Quota::Off(_) => 0,
    };
    (10u64 << 30).max(2 * quota)
}

fn holds_keys(snapshot: &Snapshot) -> Result<bool, StartError> {
    let mut holds = false;
    snapshot
        .scan(Bucket::Key, b"", &mut |_, _| {
            holds = true;
            std::ops::ControlFlow::Break(())
        })
        .map_err(|damage| StartError::Cluster(damage.to_string()))?;
    Ok(holds)
}

/// A new log begins behind what the tree holds.
fn create_log(
    config: &Config,
    directory: &dyn Directory,
    wal_options: &wal::Options,
    tree: &TreeFacts,
) -> Result<(), StartError> {
    config.check_bootstrap()?;
    let (member, cluster) = config.bootstrap_ids();
    let metadata = Metadata {
        member_id: member.0,
        cluster_id: cluster.0,
        log: Some(LogIdentity {
            id: seed(),
            origin: match tree.is_empty {
                true => Origin::Founded,
                false => Origin::Adopted,
            },
        }),
    };
    let mark = wal::SnapshotMark {
        index: wal::LogIndex(tree.applied.index),
        term: wal::Term(tree.applied.term),
        kind: wal::MarkKind::Install,
        data: Bytes::new(),
    };
    Ok(wal::create_behind(
        directory,
        wal_options,
        &metadata.encode(),
        seed(),
        mark,
    )?)
}

fn read_log(
    dir: &DataDir,
    directory: Arc<dyn Directory>,
    wal_options: &wal::Options,
    tree: &TreeFacts,
) -> Result<(ReadLog, Metadata, Fit), StartError> {
    let evidence = wal::Evidence {
        applied_index_min: wal::LogIndex(tree.applied.index),
        // The one applied last as well, for its term.
        entries_from: wal::LogIndex(tree.applied.index),
    };
    let log = wal::read(directory, wal_options, evidence)?;
    let metadata = Metadata::decode(log.metadata()).ok_or_else(|| StartError::Metadata {
        wal: dir.wal.display().to_string(),
    })?;
    let facts = LogFacts {
        identity: metadata.log,
        mark: log.mark().map(|mark| Applied {
            index: mark.index.0,
            term: mark.term.0,
        }),
        has_hard_state: log.hard_state() != wal::HardState::default(),
        entries: log.entries(),
        last_index: log.last_index().0,
    };
    let wal = dir.wal.display().to_string();
    let path = dir.snap.join("db").display().to_string();
    let fit = fit::judge(tree, &facts).map_err(|why| match why {
        Misfit::AdoptedElsewhere => StartError::TreeMissing { wal, tree: path },
        why => StartError::Misfit {
            wal,
            tree: path,
            why,
        },
    })?;
    log.check_end()?;
    Ok((log, metadata, fit))
}
