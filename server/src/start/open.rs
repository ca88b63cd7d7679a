//! Brings up what was found in the data directory: tree file, store, log, Raft.
//!
//! Three starts are told apart. *New*: neither log nor tree; ids come from the configuration.
//! *Known*: the log's metadata says who this member is, and the log holds whatever the tree does not.
//! *Adopted*: a tree without a log, such as a restored backup or the file of a stopped etcd; the
//! member takes the data as its own under the ids of the configuration, alone in its cluster.
//!
//! Always true here: what is brought up was accepted by [`super::find`] before anything was changed; entries at or below
//! the tree's consistent index are not applied again; before a new log takes its first entry the tree file names it,
//! durably.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use consensus::{
    Entry, EntryKind, HardState, LogIndex, MemberId, Membership, Raft, Restored, Term,
};
use storage::auth::{AuthChange, AuthLoadError, AuthStore};
use storage::lease::{LeaseLoadError, LeaseTable};
use storage::mvcc::{self, Applied, Bucket, Reader, Store};
use storage::tree::{self, Snapshot, Tree, WriteBatch};
use storage::wal;
use thiserror::Error;
use wire::messages::etcdserverpb::Member;

use crate::apply::cluster::{self, ClusterView};
use crate::auth::AuthShared;
use crate::config::{Config, DataDir, Refusal};
use crate::log::KIND_CONF_CHANGE;
use crate::pipeline::{Progress, Shared, lease_ids_from};

use super::find::{Found, find};
use super::fit::{Fit, Misfit, position};

#[derive(Debug, Error)]
pub enum StartError {
    #[error(transparent)]
    Bootstrap(#[from] Refusal),
    #[error(transparent)]
    Tree(#[from] tree::TreeError),
    #[error(transparent)]
    Store(#[from] mvcc::OpenError),
    #[error(transparent)]
    Leases(#[from] LeaseLoadError),
    #[error(transparent)]
    Auth(#[from] AuthLoadError),
    #[error("tree file: {0}; restore this member from a backup")]
    Cluster(String),
    #[error(
        "{wal} holds no log, but {tree} was written by a member that had one: mount or name the right --wal-dir; only to take the tree file as a backup, without what its log held, remove {tree}.sum first"
    )]
    LogMissing { wal: String, tree: String },
    #[error(
        "{wal} is not the log of {tree}: {why}; name the --wal-dir and --data-dir that belong together, or, only to take the tree file as a backup without what its own log held, move all files of {wal} and {tree}.sum away"
    )]
    Misfit {
        wal: String,
        tree: String,
        #[source]
        why: Misfit,
    },
    #[error(
        "{tree} is not there or empty, but {wal} is the log of a member whose tree file held more: mount or name the right --data-dir, or start with a backup in a new one"
    )]
    TreeMissing { wal: String, tree: String },
    #[error(transparent)]
    Log(#[from] wal::OpenError),
    #[error(
        "{wal}: the log's metadata record cannot be read; a newer release wrote it: start that one"
    )]
    Metadata { wal: String },
    #[error(
        "--max-request-bytes {0}: the log holds requests up to {REQUEST_BYTES_MAX} bytes; choose at most that"
    )]
    RequestBytes(usize),
}

/// The founders' agreement stands for entry 1 of term 1: the log begins behind it.
pub(super) const FOUNDED: Applied = Applied { index: 1, term: 1 };

/// Everything that was brought up.
pub struct Opened {
    pub tree: Tree,
    pub store: Store<Snapshot>,
    pub leases: LeaseTable,
    pub auth: AuthStore,
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
    let wal_options = log_options(config)?;
    let Found {
        tree,
        log,
        metadata,
        applied,
        is_founding,
        fit,
        view,
    } = find(config, dir, &wal_options)?;
    let (mut tree, snapshot, _) = tree.open()?;
    let indexing = Instant::now();
    let (mut store, reader, mut report) = Store::open(snapshot, mvcc::Options::default())?;
    let lease_keys = std::mem::take(&mut report.lease_keys);
    let (leases, held) =
        LeaseTable::load(store.tree(), lease_keys, config.lease_ttl_min_s(), seed())?;
    tracing::info!(
        keys = report.keys,
        revisions = report.revisions,
        revision = store.revision(),
        compact_revision = store.compact_revision(),
        consistent_index = report.applied.index,
        leases = held.leases,
        keys_with_leases = held.attached_keys,
        took = ?indexing.elapsed(),
        "built the key index"
    );
    let (auth, missing) = AuthStore::load(store.tree())?;
    if auth.is_enabled() || auth.users().next().is_some() {
        tracing::info!(
            enabled = auth.is_enabled(),
            auth_revision = auth.revision(),
            users = auth.users().count(),
            roles = auth.roles().count(),
            "read users and roles"
        );
    }
    if held.dangling_keys > 0 {
        tracing::warn!(
            keys = held.dangling_keys,
            "keys name a lease that does not exist; they stay until they are written or deleted"
        );
    }

    let opening = Instant::now();
    let (log, recovered) = log.open()?;
    let member = own_member(config, metadata.member_id, &view);
    let is_member = view
        .members
        .iter()
        .any(|known| known.id == metadata.member_id);
    // The founders' agreement may be in the log and not yet in the tree file: then it is founded
    // again, with the same outcome.
    let view = if is_member && !is_founding {
        view
    } else {
        found_cluster(&mut store, view, &member, applied)
    };
    put_missing(&mut store, missing);
    store.set_log(metadata.log.map(|log| log.id));
    if fit == Fit::New {
        commit_now(&mut tree, &mut store)?;
    }
    let raft = restore_raft(config, metadata.member_id, &recovered, applied);
    let entries_to_apply = recovered.last_index.0.saturating_sub(applied.index);
    report_log(&recovered.report, entries_to_apply, opening.elapsed());

    let shared = Arc::new(Shared {
        cluster_id: metadata.cluster_id,
        member_id: metadata.member_id,
        life: life(),
        replayed_through: recovered.last_index.0,
        lease_ids: lease_ids_from(metadata.member_id, unix_ms()).into(),
        progress: Progress::default(),
        cluster: ArcSwap::from_pointee(view),
        auth: AuthShared::default(),
        waits_for_apply: (0..net_cores).map(|_| Default::default()).collect(),
        watches: (0..net_cores).map(|_| Default::default()).collect(),
    });
    shared
        .progress
        .applied
        .store(applied.index, std::sync::atomic::Ordering::Release);
    let entry_bytes_max = wal_options.entry_bytes_max;
    Ok(Opened {
        tree,
        store,
        leases,
        auth,
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

/// Makes what the store holds durable before anything else happens.
pub(super) fn commit_now(
    tree: &mut Tree,
    store: &mut Store<Snapshot>,
) -> Result<(), tree::TreeError> {
    store.force_commit();
    let frozen = store.freeze().expect("nothing is frozen yet");
    let changes = frozen.changes();
    let mut batch = WriteBatch::new();
    changes.fill(&mut batch);
    let snapshot = tree.commit(&batch)?;
    store.on_committed(snapshot);
    Ok(())
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

/// Writes what a file without users and roles lacks: their revision.
fn put_missing(store: &mut Store<Snapshot>, missing: Vec<AuthChange>) {
    if missing.is_empty() {
        return;
    }
    let mut txn = store.begin(store.applied());
    for change in missing {
        txn.put_bucket(
            change.bucket,
            &change.key,
            &change.value.unwrap_or_default(),
        );
    }
    txn.commit();
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
    member_id: u64,
    recovered: &wal::Recovered,
    applied: Applied,
) -> Raft {
    let me = MemberId(member_id);
    let mut settings = consensus::Config::new(me, seed());
    settings.election_ticks = config.election_ticks();
    settings.pre_vote = config.pre_vote;
    settings.uncommitted_bytes_max = UNCOMMITTED_BYTES_MAX;
    settings.trim_every_entries = config.snapshot_count.max(settings.trim_keep_entries);
    let restored = restored(me, recovered.hard_state, &recovered.entries, applied);
    Raft::new(settings, restored)
}

/// What the log and the tree hold, as Raft wants it. They were found to fit.
pub(super) fn restored(
    me: MemberId,
    state: wal::HardState,
    entries: &[wal::Entry],
    applied: Applied,
) -> Restored {
    let entries: Vec<Entry> = entries
        .iter()
        .filter(|entry| applied.index < entry.index.0)
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
    // A member's own term is at least that of all it has stored.
    let stored = entries.last().map_or(0, |last| last.term.0);
    let term = state.term.0.max(applied.term).max(stored);
    Restored {
        hard_state: HardState {
            term: Term(term),
            vote: (state.vote.0 != 0 && state.term.0 == term).then_some(MemberId(state.vote.0)),
            commit: LogIndex(state.commit.0.max(applied.index)),
        },
        log_base: position(applied),
        term_starts: Vec::new(),
        entries,
        applied: LogIndex(applied.index),
        membership: Membership::new([me], []),
    }
}

/// Bytes of proposals the log may hold uncommitted; below what the log's writer takes, so that an
/// accepted proposal always finds room there.
const UNCOMMITTED_BYTES_MAX: u64 = 32 << 20;

fn report_log(report: &wal::OpenReport, entries_to_apply: u64, took: Duration) {
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

/// Tells this life from others: replies of an earlier life's entries must find nobody.
fn life() -> u16 {
    // 63 significant bits in every request id, like etcd's, so that size limits agree to the byte.
    seed() as u16 & 0x7fff | 0x4000
}

fn unix_ms() -> u64 {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed();
    since.map_or(0, |since| since.as_millis() as u64)
}

pub(super) fn seed() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}
