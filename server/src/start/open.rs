//! Brings up what the data directory holds: tree file, store, log, Raft.
//!
//! Three starts are told apart. *New*: neither log nor tree; ids come from the configuration.
//! *Known*: the log's metadata says who this member is, and the log holds whatever the tree does not.
//! *Adopted*: a tree without a log, such as a restored backup or the file of a stopped etcd; the
//! member takes the data as its own under the ids of the configuration, alone in its cluster.
//!
//! Always true here: the log is opened with the tree's consistent index as evidence, so a log that
//! ends before it is refused; entries at or below that index are not applied again.

use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use consensus::{
    Entry, EntryKind, HardState, LogIndex, LogPosition, MemberId, Membership, Raft, Restored, Term,
};
use storage::mvcc::{self, Applied, Bucket, Reader, Store};
use storage::tree::{self, Snapshot, Tree, TreeFiles};
use storage::wal;
use thiserror::Error;
use wire::messages::etcdserverpb::Member;

use crate::apply::cluster::{self, ClusterView};
use crate::config::{Config, DataDir, Refusal};
use crate::log::KIND_CONF_CHANGE;
use crate::pipeline::{Progress, Shared};

/// Layout version of the log's metadata record.
const METADATA_VERSION: u8 = 1;
const METADATA_BYTES: usize = 1 + 8 + 8;

#[derive(Debug, Error)]
pub enum StartError {
    #[error(transparent)]
    Bootstrap(#[from] Refusal),
    #[error(transparent)]
    Tree(#[from] tree::TreeError),
    #[error(transparent)]
    Store(#[from] mvcc::OpenError),
    #[error("tree file: {0}; restore this member from a backup or a peer")]
    Cluster(String),
    #[error(
        "{wal} holds no log, but the tree file was written by a member that had one: mount or name the right --wal-dir; only to take the tree file as a backup, without what its log held, remove member/snap/db.sum first"
    )]
    LogMissing { wal: String },
    #[error(transparent)]
    Log(#[from] wal::OpenError),
    #[error(
        "the log's metadata record has {0} bytes and cannot be read; it was written by a newer release"
    )]
    Metadata(usize),
    #[error(
        "the log holds entries from {first} on, but the tree file ends at {applied}: it belongs to an older state than the log; restore this member from a backup or a peer"
    )]
    Gap { first: u64, applied: u64 },
    #[error(
        "--max-request-bytes {0}: the log holds requests up to {REQUEST_BYTES_MAX} bytes; choose at most that"
    )]
    RequestBytes(usize),
}

/// The founders' agreement stands for entry 1 of term 1: the log begins behind it.
const FOUNDED: Applied = Applied { index: 1, term: 1 };

/// Everything that was brought up.
pub struct Opened {
    pub tree: Tree,
    pub store: Store<Snapshot>,
    pub reader: Reader<Snapshot>,
    pub wal: wal::Log,
    pub raft: Raft,
    pub shared: Arc<Shared>,
    pub member: Member,
    /// Largest entry payload that the log takes.
    pub entry_bytes_max: usize,
    /// Entries that are in the log and not yet in the tree.
    pub entries_to_apply: u64,
}

pub fn open(config: &Config, dir: &DataDir, net_cores: usize) -> Result<Opened, StartError> {
    if !dir.is_initialized {
        // Before any file exists: a refused first start leaves nothing to adopt.
        config.check_bootstrap()?;
    }
    let started = std::time::Instant::now();

    let options = tree::TreeOptions {
        lock_memory: config.memory_mlock,
        map_bytes: map_bytes(config),
        ..tree::TreeOptions::default()
    };
    let (tree, snapshot, tree_report) = Tree::open(TreeFiles::open(&dir.snap)?, options)?;
    tracing::info!(
        path = %dir.snap.join("db").display(),
        size_bytes = tree_report.pages_high_water * u64::from(tree_report.page_bytes),
        pages_in_use = tree_report.pages_in_use,
        pages_free = tree_report.pages_free,
        sums = ?tree_report.sums,
        took = ?started.elapsed(),
        "opened the tree file"
    );
    let indexing = std::time::Instant::now();
    let view = cluster::load(&snapshot).map_err(StartError::Cluster)?;
    let (mut store, reader, report) = Store::open(snapshot, mvcc::Options::default())?;
    tracing::info!(
        keys = report.keys,
        revisions = report.revisions,
        revision = store.revision(),
        compact_revision = store.compact_revision(),
        consistent_index = report.applied.index,
        took = ?indexing.elapsed(),
        "built the key index"
    );

    let directory = wal::open_folder(&dir.wal)?;
    let opening = std::time::Instant::now();
    let wal_options = log_options(config)?;
    // The founders' agreement may be in the log and not yet in the tree file: then it is founded
    // again, with the same outcome.
    let is_founding = report.applied.index == 0;
    let applied = if is_founding { FOUNDED } else { report.applied };
    let mut evidence = wal::Evidence::default();
    if wal::exists(&*directory)? {
        evidence.applied_index_min = wal::LogIndex(report.applied.index);
        evidence.entries_from = wal::LogIndex(report.applied.index + 1);
    } else {
        // Page sums that fit say that a member wrote this file, and a member has a log: what only
        // the log held would be lost. A backup comes without sums.
        if !is_founding && tree_report.sums != tree::SumsState::Rebuilt {
            return Err(StartError::LogMissing {
                wal: dir.wal.display().to_string(),
            });
        }
        let identity = Identity::from_config(config)?;
        let mark = begin_at(applied);
        wal::create_behind(&*directory, &wal_options, &identity.encode(), seed(), mark)?;
    }
    let (log, recovered) = wal::open(directory, &wal_options, evidence)?;
    let identity = Identity::decode(&recovered.metadata)?;

    let member = own_member(config, identity.member_id, &view);
    let is_member = view
        .members
        .iter()
        .any(|known| known.id == identity.member_id);
    let view = if is_member && !is_founding {
        view
    } else {
        found_cluster(&mut store, view, &member, applied)
    };
    let raft = restore_raft(config, &identity, &recovered, applied)?;
    let entries_to_apply = recovered.last_index.0.saturating_sub(applied.index);
    report_log(&recovered.report, entries_to_apply, opening.elapsed());

    let shared = Arc::new(Shared {
        cluster_id: identity.cluster_id,
        member_id: identity.member_id,
        life: life(),
        progress: Progress::default(),
        cluster: ArcSwap::from_pointee(view),
        waits_for_apply: (0..net_cores).map(|_| Default::default()).collect(),
    });
    shared
        .progress
        .applied
        .store(applied.index, std::sync::atomic::Ordering::Release);
    let entry_bytes_max = wal_options.entry_bytes_max;
    Ok(Opened {
        tree,
        store,
        reader,
        wal: log,
        raft,
        shared,
        member,
        entry_bytes_max,
        entries_to_apply,
    })
}

/// The log takes every request that the configuration lets in.
fn log_options(config: &Config) -> Result<wal::Options, StartError> {
    let mut options = wal::Options::default();
    if config.request_bytes_max > REQUEST_BYTES_MAX {
        return Err(StartError::RequestBytes(config.request_bytes_max));
    }
    options.entry_bytes_max = ENTRY_BYTES_MAX;
    options.pending_bytes_max = options.pending_bytes_max.max(4 * options.entry_bytes_max);
    Ok(options)
}

/// Largest `--max-request-bytes`.
const REQUEST_BYTES_MAX: usize = 32 << 20;
/// Largest entry: well within a segment of the log. A transaction of a great many tiny operations
/// takes about fifteen times its request; what does not fit is refused as too large.
const ENTRY_BYTES_MAX: usize = 40 << 20;
const _: () = assert!(REQUEST_BYTES_MAX < ENTRY_BYTES_MAX);

/// Who this member is; the log's metadata record.
struct Identity {
    member_id: u64,
    cluster_id: u64,
}

impl Identity {
    fn from_config(config: &Config) -> Result<Identity, StartError> {
        config.check_bootstrap()?;
        let (member, cluster) = config.bootstrap_ids();
        Ok(Identity {
            member_id: member.0,
            cluster_id: cluster.0,
        })
    }

    fn encode(&self) -> [u8; METADATA_BYTES] {
        let mut bytes = [METADATA_VERSION; METADATA_BYTES];
        bytes[1..9].copy_from_slice(&self.member_id.to_le_bytes());
        bytes[9..17].copy_from_slice(&self.cluster_id.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Identity, StartError> {
        let unreadable = || StartError::Metadata(bytes.len());
        let bytes: &[u8; METADATA_BYTES] = bytes.try_into().map_err(|_| unreadable())?;
        if bytes[0] != METADATA_VERSION {
            return Err(unreadable());
        }
        let word = |at: usize| {
            u64::from_le_bytes(bytes[at..at + 8].try_into().expect("the slice has 8 bytes"))
        };
        Ok(Identity {
            member_id: word(1),
            cluster_id: word(9),
        })
    }
}

/// This member's record: what it had, or what the configuration says.
fn own_member(config: &Config, id: u64, view: &ClusterView) -> Member {
    let urls = |urls: &[crate::config::Url]| urls.iter().map(ToString::to_string).collect();
    let known = view.members.iter().find(|member| member.id == id);
    Member {
        id,
        name: config.name.clone(),
        peer_ur_ls: known
            .map(|member| member.peer_ur_ls.clone())
            .unwrap_or_else(|| urls(&config.initial_advertise_peer_urls)),
        client_ur_ls: urls(&config.advertise_client_urls),
        is_learner: false,
    }
}

/// Writes the first membership: this member alone.
fn found_cluster(
    store: &mut Store<Snapshot>,
    mut view: ClusterView,
    member: &Member,
    applied: Applied,
) -> ClusterView {
    if applied != FOUNDED {
        tracing::warn!(
            consistent_index = applied.index,
            "the tree file has no log: taking its data as this member's own"
        );
    }
    let mut txn = store.begin(applied);
    for old in &view.members {
        txn.delete_bucket(Bucket::Members, cluster::member_key(old.id).as_bytes());
    }
    // As etcd does: the name and the client URLs follow when the member publishes itself.
    let bare = Member {
        name: member.name.clone(),
        client_ur_ls: Vec::new(),
        ..member.clone()
    };
    cluster::put_member(&mut txn, &bare);
    txn.commit();
    store.set_conf_state(&cluster::conf_state_json(&[member.id], &[]));
    view.members = vec![bare];
    view
}

fn restore_raft(
    config: &Config,
    identity: &Identity,
    recovered: &wal::Recovered,
    applied: Applied,
) -> Result<Raft, StartError> {
    let me = MemberId(identity.member_id);
    let membership = Membership::new([me], []);
    let mut settings = consensus::Config::new(me, seed());
    settings.election_ticks = config.election_ticks();
    settings.pre_vote = config.pre_vote;
    settings.uncommitted_bytes_max = UNCOMMITTED_BYTES_MAX;
    settings.trim_every_entries = config.snapshot_count.max(settings.trim_keep_entries);
    let applied_at = LogPosition::new(LogIndex(applied.index), Term(applied.term));
    if let Some(first) = recovered.entries.first()
        && first.index.0 > applied.index + 1
    {
        return Err(StartError::Gap {
            first: first.index.0,
            applied: applied.index,
        });
    }
    let entries = recovered
        .entries
        .iter()
        .map(|entry| Entry {
            term: Term(entry.term.0),
            index: LogIndex(entry.index.0),
            kind: match entry.kind {
                KIND_CONF_CHANGE => EntryKind::ConfChange,
                _ => EntryKind::Normal,
            },
            payload: entry.payload.clone(),
        })
        .collect();
    let state = recovered.hard_state;
    let restored = Restored {
        hard_state: HardState {
            term: Term(state.term.0.max(applied.term)),
            vote: (state.vote.0 != 0 && state.term.0 >= applied.term)
                .then_some(MemberId(state.vote.0)),
            commit: LogIndex(state.commit.0.max(applied.index)),
        },
        log_base: applied_at,
        term_starts: Vec::new(),
        entries,
        applied: LogIndex(applied.index),
        membership,
    };
    Ok(Raft::new(settings, restored))
}

/// Bytes of proposals the log may hold uncommitted; below what the log's writer takes, so that an
/// accepted proposal always finds room there.
const UNCOMMITTED_BYTES_MAX: u64 = 32 << 20;

/// A new log begins behind what the tree holds.
fn begin_at(applied: Applied) -> wal::SnapshotMark {
    wal::SnapshotMark {
        index: wal::LogIndex(applied.index),
        term: wal::Term(applied.term),
        kind: wal::MarkKind::Install,
        data: Bytes::new(),
    }
}

fn report_log(report: &wal::OpenReport, entries_to_apply: u64, took: std::time::Duration) {
    if let Some(torn) = report.torn {
        tracing::warn!(
            segment = %torn.segment,
            offset = torn.offset,
            "cut off a write that was under way when the member stopped; it was never acknowledged"
        );
    }
    for note in &report.notes {
        tracing::warn!("{note}");
    }
    tracing::info!(
        segments = report.segments,
        groups = report.groups,
        entries_to_apply,
        driver = report.driver,
        direct_io = report.is_direct,
        closed_in_good_order = report.was_closed,
        took = ?took,
        "opened the write-ahead log"
    );
}

/// Address space for the tree's map: room for the quota and some growth.
fn map_bytes(config: &Config) -> u64 {
    let quota = match config.quota {
        crate::config::Quota::Bytes(bytes) => bytes,
        crate::config::Quota::Off(_) => 0,
    };
    (10u64 << 30).max(2 * quota)
}

/// Tells this life from others: replies of an earlier life's entries must find nobody.
fn life() -> u16 {
    // 63 significant bits in every request id, like etcd's, so that size limits agree to the byte.
    seed() as u16 & 0x7fff | 0x4000
}

fn seed() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}
