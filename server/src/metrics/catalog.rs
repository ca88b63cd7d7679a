//! Every label-less family: field, name, bounds, help.
//!
//! Always true here: names, types and bounds are etcd's, also where a gauge's name ends in `_total`, so
//! dashboards and alerts carry over. What this version has no use for yet is listed too and stays zero, as
//! it does in an idle etcd. Counters and histograms exist once per core; gauges once per process.
//!
//! A table and the structs it makes; no behaviour.

use super::cells::{Counter, Gauge, Histogram, exponential};

// Named by start and count; all double from bound to bound.
pub(super) static E_00001_20: [f64; 20] = exponential(0.0001, 2.0);
pub(super) static E_0001_14: [f64; 14] = exponential(0.001, 2.0);
pub(super) static E_001_15: [f64; 15] = exponential(0.01, 2.0);
pub(super) static E_001_17: [f64; 17] = exponential(0.01, 2.0);
pub(super) static E_01_10: [f64; 10] = exponential(0.1, 2.0);
pub(super) static E_01_13: [f64; 13] = exponential(0.1, 2.0);
pub(super) static E_05_14: [f64; 14] = exponential(0.5, 2.0);
pub(super) static E_100_14: [f64; 14] = exponential(100.0, 2.0);
pub(super) static E_1_13: [f64; 13] = exponential(1.0, 2.0);
pub(super) static E_1_24: [f64; 24] = exponential(1.0, 2.0);

/// Of our own stage latencies: from ten microseconds to ten seconds.
pub(super) static STAGE_BOUNDS: [f64; 21] = exponential(0.00001, 2.0);

/// A family as the scraper needs it: what it is called and how to reach its cell.
pub(super) struct Family<Owner, Cell> {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) cell: fn(&Owner) -> &Cell,
}

macro_rules! cells {
    ($(#[$doc:meta])* $owner:ident, $cell:ty, $table:ident; $($field:ident, $name:literal, $help:literal;)*) => {
        $(#[$doc])*
        #[derive(Default, Debug)]
        pub struct $owner {
            $(#[doc = $help] pub $field: $cell,)*
        }

        pub(super) static $table: &[Family<$owner, $cell>] = &[
            $(Family { name: $name, help: $help, cell: |owner| &owner.$field },)*
        ];
    };
}

macro_rules! histograms {
    ($($field:ident, $name:literal, $bounds:ident, $help:literal;)*) => {
        /// One core's histograms.
        #[derive(Debug)]
        pub struct Histograms {
            $(#[doc = $help] pub $field: Histogram,)*
        }

        impl Default for Histograms {
            fn default() -> Histograms {
                Histograms { $($field: Histogram::new(&$bounds),)* }
            }
        }

        pub(super) static HISTOGRAMS: &[Family<Histograms, Histogram>] = &[
            $(Family { name: $name, help: $help, cell: |owner| &owner.$field },)*
        ];
    };
}

#[rustfmt::skip]
cells! {
    /// One core's counters.
    Counters, Counter, COUNTERS;
    health_failures, "etcd_server_health_failures", "Times /health answered false";
    health_success, "etcd_server_health_success", "Times /health answered true";
    heartbeat_send_failures, "etcd_server_heartbeat_send_failures_total", "Heartbeats the leader sent late";
    leader_changes_seen, "etcd_server_leader_changes_seen_total", "Leader changes this member noticed";
    learner_promote_successes, "etcd_server_learner_promote_successes", "Learners promoted while this member led";
    proposals_failed, "etcd_server_proposals_failed_total", "Proposals that failed or ran into their timeout";
    read_indexes_failed, "etcd_server_read_indexes_failed_total", "Read index requests that failed";
    slow_apply, "etcd_server_slow_apply_total", "Applies slower than --warning-apply-duration";
    slow_read_indexes, "etcd_server_slow_read_indexes_total", "Read index answers that came late or out of date";
    mvcc_delete, "etcd_mvcc_delete_total", "Delete operations applied";
    mvcc_put, "etcd_mvcc_put_total", "Put operations applied";
    mvcc_range, "etcd_mvcc_range_total", "Range operations";
    mvcc_txn, "etcd_mvcc_txn_total", "Transactions of more than one operation";
    client_grpc_received_bytes, "etcd_network_client_grpc_received_bytes_total", "gRPC payload bytes from clients";
    client_grpc_sent_bytes, "etcd_network_client_grpc_sent_bytes_total", "gRPC payload bytes to clients";
    lease_granted, "etcd_debugging_lease_granted_total", "Leases granted";
    lease_renewed, "etcd_debugging_lease_renewed_total", "Leases renewed while this member led";
    lease_revoked, "etcd_debugging_lease_revoked_total", "Leases revoked, expired ones too";
    mvcc_db_compaction_keys, "etcd_debugging_mvcc_db_compaction_keys_total", "Revisions removed by compactions";
    mvcc_events, "etcd_debugging_mvcc_events_total", "Events sent to watchers";
    lease_expired, "etcd_debugging_server_lease_expired_total", "Leases revoked because they expired";
    store_expires, "etcd_debugging_store_expires_total", "Always 0: the v2 store of old etcd versions";
    store_watch_requests, "etcd_debugging_store_watch_requests_total", "Always 0: the v2 store of old etcd versions";
    watch_compacted, "pilaster_watch_compacted_total", "Watchers cancelled because what they had to read next was compacted";
    watch_refused, "pilaster_watch_refused_total", "Watchers refused because their connection or core has too many";
    watch_stalls, "pilaster_watch_stalls_total", "Times a watcher waited because its client did not take what was sent";
    grpc_proxy_events_coalescing, "etcd_grpc_proxy_events_coalescing_total", "Always 0: only etcd's gRPC proxy counts it";
}

#[rustfmt::skip]
cells! {
    /// The process's gauges; each is set by the stage that owns the fact.
    Gauges, Gauge, GAUGES;
    has_leader, "etcd_server_has_leader", "1 while a leader is known";
    is_leader, "etcd_server_is_leader", "1 while this member leads";
    is_learner, "etcd_server_is_learner", "1 while this member is a learner";
    proposals_applied, "etcd_server_proposals_applied_total", "Index of the last applied entry";
    proposals_committed, "etcd_server_proposals_committed_total", "Index of the last committed entry";
    quota_backend_bytes, "etcd_server_quota_backend_bytes", "Tree file size above which writes are refused";
    snapshot_apply_in_progress, "etcd_server_snapshot_apply_in_progress_total", "1 while a received snapshot is installed";
    disk_defrag_inflight, "etcd_disk_defrag_inflight", "1 while a defragmentation runs";
    disk_wal_write_bytes, "etcd_disk_wal_write_bytes_total", "Bytes written to the log";
    mvcc_db_open_read_transactions, "etcd_mvcc_db_open_read_transactions", "Open read views of the tree file";
    mvcc_db_total_size_in_bytes, "etcd_mvcc_db_total_size_in_bytes", "Size of the tree file up to its highest page";
    mvcc_db_total_size_in_use_in_bytes, "etcd_mvcc_db_total_size_in_use_in_bytes", "The same without free pages";
    auth_revision, "etcd_debugging_auth_revision", "Auth revision";
    mvcc_compact_revision, "etcd_debugging_mvcc_compact_revision", "Revision of the last compaction";
    mvcc_current_revision, "etcd_debugging_mvcc_current_revision", "Current revision";
    mvcc_db_compaction_last, "etcd_debugging_mvcc_db_compaction_last", "Unix time of the last compaction, 0 for none";
    mvcc_keys, "etcd_debugging_mvcc_keys_total", "Keys in the index";
    mvcc_pending_events, "etcd_debugging_mvcc_pending_events_total", "Events that wait for their watchers";
    mvcc_slow_watcher, "etcd_debugging_mvcc_slow_watcher_total", "Watchers that read history";
    mvcc_total_put_size_in_bytes, "etcd_debugging_mvcc_total_put_size_in_bytes", "Bytes of records put since the start";
    mvcc_watch_stream, "etcd_debugging_mvcc_watch_stream_total", "Open watch streams";
    mvcc_watcher, "etcd_debugging_mvcc_watcher_total", "Watchers";
    store_watchers, "etcd_debugging_store_watchers", "Always 0: the v2 store of old etcd versions";
    grpc_proxy_cache_hits, "etcd_grpc_proxy_cache_hits_total", "Always 0: only etcd's gRPC proxy counts it";
    grpc_proxy_cache_keys, "etcd_grpc_proxy_cache_keys_total", "Always 0: only etcd's gRPC proxy counts it";
    grpc_proxy_cache_misses, "etcd_grpc_proxy_cache_misses_total", "Always 0: only etcd's gRPC proxy counts it";
    grpc_proxy_watchers_coalescing, "etcd_grpc_proxy_watchers_coalescing_total", "Always 0: only etcd's gRPC proxy counts it";
}

#[rustfmt::skip]
histograms! {
    disk_backend_commit, "etcd_disk_backend_commit_duration_seconds", E_0001_14, "Group commits of the tree file";
    disk_backend_defrag, "etcd_disk_backend_defrag_duration_seconds", E_01_13, "Defragmentations";
    disk_backend_snapshot, "etcd_disk_backend_snapshot_duration_seconds", E_001_17, "Streaming the tree file to a client";
    disk_wal_fsync, "etcd_disk_wal_fsync_duration_seconds", E_0001_14, "Making one group of log records durable";
    disk_wal_write, "etcd_disk_wal_write_duration_seconds", E_0001_14, "Writing one group of log records";
    mvcc_hash, "etcd_mvcc_hash_duration_seconds", E_001_15, "Hash requests";
    mvcc_hash_rev, "etcd_mvcc_hash_rev_duration_seconds", E_001_15, "HashKV computations";
    snap_db_fsync, "etcd_snap_db_fsync_duration_seconds", E_0001_14, "Making a received tree file durable";
    snap_db_save_total, "etcd_snap_db_save_total_duration_seconds", E_01_10, "Saving a received tree file";
    snap_fsync, "etcd_snap_fsync_duration_seconds", E_0001_14, "Making snapshot metadata durable";
    disk_backend_commit_rebalance, "etcd_debugging_disk_backend_commit_rebalance_duration_seconds", E_0001_14, "Rebalancing within a group commit";
    disk_backend_commit_spill, "etcd_debugging_disk_backend_commit_spill_duration_seconds", E_0001_14, "Splitting pages within a group commit";
    disk_backend_commit_write, "etcd_debugging_disk_backend_commit_write_duration_seconds", E_0001_14, "Writing within a group commit";
    lease_ttl, "etcd_debugging_lease_ttl_total", E_1_24, "TTLs granted, in seconds";
    mvcc_db_compaction_pause_ms, "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds", E_1_13, "Slices of compactions";
    mvcc_db_compaction_total_ms, "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds", E_100_14, "Whole compactions";
    mvcc_index_compaction_pause_ms, "etcd_debugging_mvcc_index_compaction_pause_duration_milliseconds", E_05_14, "Index work within compactions";
    watch_send_loop_control_stream, "etcd_debugging_server_watch_send_loop_control_stream_duration_seconds", E_0001_14, "Sending one watch control message";
    watch_send_loop_progress, "etcd_debugging_server_watch_send_loop_progress_duration_seconds", E_0001_14, "Sending watch progress once";
    watch_send_loop_watch_stream_duration_per_event, "etcd_debugging_server_watch_send_loop_watch_stream_duration_per_event_seconds", E_0001_14, "Sending a batch of events, by event";
    watch_send_loop_watch_stream, "etcd_debugging_server_watch_send_loop_watch_stream_duration_seconds", E_0001_14, "Sending a batch of events";
    snap_save_marshalling, "etcd_debugging_snap_save_marshalling_duration_seconds", E_0001_14, "Encoding snapshot metadata";
    snap_save_total, "etcd_debugging_snap_save_total_duration_seconds", E_0001_14, "Saving snapshot metadata";
}
