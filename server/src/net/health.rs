//! The member behind the plain HTTP endpoints.
//!
//! Always true here: a health check never touches the log beyond one read index, and waits no longer
//! than any other read. Runs on the net core that owns the connection.

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::rc::Weak;
use std::sync::Arc;

use bytes::Bytes;
use storage::mvcc::{Item, KeyRange, Progress, Reader, Scan, ScanMode};
use storage::tree::Snapshot;
use wire::error::EtcdError;
use wire::messages::etcdserverpb::AlarmType;

use crate::http1::{AlarmKind, Backend, CheckFamily, Versions};
use crate::metrics::{HealthCheck, Metrics};
use crate::pipeline::Shared;
use crate::version::COMPATIBLE_VERSION;

use super::core::NetCore;

pub struct HttpBackend {
    core: RefCell<Weak<NetCore>>,
    shared: Arc<Shared>,
    metrics: Arc<Metrics>,
}

impl HttpBackend {
    pub fn new(shared: Arc<Shared>, metrics: Arc<Metrics>) -> HttpBackend {
        HttpBackend {
            core: RefCell::new(Weak::new()),
            shared,
            metrics,
        }
    }

    /// The net core exists after its backend.
    pub fn attach(&self, core: Weak<NetCore>) {
        *self.core.borrow_mut() = core;
    }
}

fn kind(alarm: i32) -> AlarmKind {
    match AlarmType::try_from(alarm) {
        Ok(AlarmType::Nospace) => AlarmKind::NoSpace,
        Ok(AlarmType::Corrupt) => AlarmKind::Corrupt,
        _ => AlarmKind::Unknown,
    }
}

impl HttpBackend {
    /// Gauges that nobody reads but the scraper are set when it asks.
    fn set_gauges(&self) {
        let (shared, gauges) = (&self.shared, self.metrics.gauges());
        let leader = shared.leader();
        gauges.has_leader.set(i64::from(leader != 0));
        gauges.is_leader.set(i64::from(leader == shared.member_id));
        gauges.proposals_committed.set(shared.committed() as i64);
        gauges.proposals_applied.set(shared.applied() as i64);
        gauges.mvcc_db_total_size_in_bytes.set(shared.tree_bytes());
        gauges
            .mvcc_db_total_size_in_use_in_bytes
            .set(shared.tree_bytes_in_use());
        let cluster = shared.cluster.load();
        let active = cluster.alarms.iter();
        self.metrics
            .set_alarms(active.map(|alarm| (alarm.member_id, kind(alarm.alarm).text())));
        if let Some(core) = self.core.borrow().upgrade() {
            let state = core.state.borrow();
            gauges.mvcc_current_revision.set(state.reader.revision());
            gauges.mvcc_keys.set(count_keys(&state.reader));
            gauges
                .mvcc_compact_revision
                .set(state.reader.compact_revision());
        }
    }
}

impl Backend for HttpBackend {
    fn versions(&self) -> Versions {
        let cluster = self.shared.cluster.load();
        let known = |version: &str| (!version.is_empty()).then(|| version.to_owned());
        Versions {
            server: COMPATIBLE_VERSION.to_owned(),
            cluster: known(&cluster.cluster_version),
            storage: known(&cluster.storage_version),
        }
    }

    fn alarms(&self) -> Vec<AlarmKind> {
        self.shared
            .cluster
            .load()
            .alarms
            .iter()
            .map(|alarm| kind(alarm.alarm))
            .collect()
    }

    fn has_leader(&self) -> bool {
        self.shared.leader() != 0
    }

    fn is_learner(&self) -> bool {
        false
    }

    async fn serializable_read(&self) -> Result<(), String> {
        let core = self.core.borrow().upgrade();
        let core = core.ok_or_else(|| EtcdError::Stopped.text().to_owned())?;
        core.local_read().map_err(|error| error.text().to_owned())
    }

    async fn linearizable_read(&self) -> Result<(), String> {
        let core = self.core.borrow().upgrade();
        let core = core.ok_or_else(|| EtcdError::Stopped.text().to_owned())?;
        core.read_barrier()
            .await
            .map_err(|error| error.text().to_owned())?;
        core.local_read().map_err(|error| error.text().to_owned())
    }

    async fn metrics(&self) -> Bytes {
        self.set_gauges();
        Bytes::from(self.metrics.encode())
    }

    fn variables(&self) -> Bytes {
        let shared = &self.shared;
        let leader = shared.leader();
        let hex = |id: u64| format!("{id:x}");
        let is_leader = leader == shared.member_id;
        let arguments: Vec<String> = std::env::args_os()
            .map(|argument| argument.to_string_lossy().into_owned())
            .collect();
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let variables = serde_json::json!({
            "cmdline": arguments,
            "file_descriptor_limit": limit,
            "memory": {
                "resident_bytes": resident_bytes(),
                "unsent_answer_bytes": self.core.borrow().upgrade().map(|core| core.held.bytes()),
            },
            "raft.status": {
                "id": hex(shared.member_id),
                "term": shared.term(),
                "commit": shared.committed(),
                "applied": shared.applied(),
                "lead": hex(leader),
                "raftState": if is_leader { "StateLeader" } else { "StateFollower" },
            },
        });
        let mut text = serde_json::to_vec_pretty(&variables).expect("plain values always encode");
        text.push(b'\n');
        text.into()
    }

    fn on_health(&self, healthy: bool) {
        if let Some(core) = self.core.borrow().upgrade() {
            let state = core.state.borrow();
            let counters = &state.metrics.counters;
            if healthy {
                counters.health_success.inc();
            } else {
                counters.health_failures.inc();
            }
        }
    }

    fn on_check(&self, family: CheckFamily, check: &'static str, passed: bool) {
        if let Some(core) = self.core.borrow().upgrade()
            && let Some(check) = HealthCheck::find(family.name(), check)
        {
            core.state.borrow().metrics.checked(check, passed);
        }
    }
}

/// Memory of this process that is in the host's.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes << 10)
}

/// Keys alive now: the index keeps the count.
fn count_keys(reader: &Reader<Snapshot>) -> i64 {
    let all = KeyRange::new(b"\0", b"\0");
    let Ok(mut scan) = Scan::new(reader, all, 0, ScanMode::Count) else {
        return 0;
    };
    let mut ignore = |_: &Item<'_>| ControlFlow::Continue(());
    while let Ok(Progress::More) = scan.step(reader, usize::MAX, &mut ignore) {}
    scan.count() as i64
}
