//! What one core (or helper thread) counts on.
//!
//! Always true here: a `CoreMetrics` is held by one thread; it can be moved to that thread but not shared,
//! which is what makes its counters' one writer. The scraper holds the same cells and only reads them.

use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;

use super::catalog::{Counters, E_0001_14, E_00001_20, Gauges, Histograms};
use super::cells::{Counter, Gauge, Histogram};
use super::grpc::GrpcCounters;
use super::labels::{
    ApplyOp, ClientVersion, HealthCheck, RequestType, StreamApi, StreamDirection, VersionCache,
};
use super::stages::{Stage, StageRecorder, StageSlot};
use crate::store::WriteCounts;

/// A core's handle. `Deref` leads to its counters.
pub struct CoreMetrics {
    cells: Arc<CoreCells>,
    gauges: Arc<Gauges>,
    stages: RefCell<StageRecorder>,
    versions: RefCell<VersionCache>,
    /// Moves between threads, is never shared by two.
    _one_thread: PhantomData<Cell<()>>,
}

/// The cells of one writer, as the scraper sees them too.
pub struct CoreCells {
    /// The `core` label: a core's number, or a helper thread's name.
    pub(super) label: String,
    pub counters: Counters,
    pub histograms: Histograms,
    pub grpc: GrpcCounters,
    /// Proposals of this core that wait for their result.
    pub proposals_pending: Gauge,
    /// Page faults that had to wait for the disk; each stopped this core for that long.
    pub major_faults: Counter,
    pub(super) apply: Box<[[Histogram; 2]]>,
    pub(super) request: Box<[[Histogram; 2]]>,
    pub(super) range: [Histogram; 2],
    /// By client version, then unary and stream.
    pub(super) client_requests: [[Counter; 2]; ClientVersion::SLOTS],
    pub(super) stream_failures: [[Counter; 2]; 2],
    /// By check, then failed and passed.
    pub(super) checks: [[Counter; 2]; 5],
    /// By check: the last result.
    pub(super) check_results: [Gauge; 5],
    pub(super) stages: StageSlot,
    pub(super) published: ArcSwap<Published>,
}

/// What a core counts elsewhere and shows as it is.
#[derive(Clone, Default, Debug)]
pub struct Published {
    /// `pilaster_http2_<name>_total`.
    pub http2: Vec<(&'static str, u64)>,
    /// `pilaster_connections_closed_total{reason}`.
    pub closed: Vec<(&'static str, u64)>,
    /// `pilaster_answer_bytes`.
    pub answer_bytes: u64,
    /// `pilaster_answers_given_up_total`.
    pub answers_given_up: u64,
    /// `pilaster_queue_entries{queue}`.
    pub queues: Vec<(&'static str, u64)>,
}

impl CoreMetrics {
    pub(super) fn new(
        cells: Arc<CoreCells>,
        gauges: Arc<Gauges>,
        versions: Arc<Mutex<Vec<String>>>,
    ) -> CoreMetrics {
        CoreMetrics {
            cells,
            gauges,
            stages: RefCell::new(StageRecorder::new()),
            versions: RefCell::new(VersionCache::new(versions)),
            _one_thread: PhantomData,
        }
    }

    /// The process's gauges, shared by all cores.
    pub fn gauges(&self) -> &Gauges {
        &self.gauges
    }

    /// One entry was applied.
    pub fn applied(&self, op: ApplyOp, success: bool, took: Duration) {
        self.cells.apply[op as usize][usize::from(success)].observe(took);
    }

    /// What one transaction asked of the store.
    pub fn count_writes(&self, counts: &WriteCounts) {
        let ranges = counts.ranges.get();
        let counters = &self.cells.counters;
        counters.mvcc_range.add(ranges);
        counters.mvcc_put.add(counts.puts);
        counters.mvcc_delete.add(counts.deletes);
        if ranges + counts.puts + counts.deletes > 1 {
            counters.mvcc_txn.inc();
        }
        if counts.put_bytes > 0 {
            // One core applies, so nothing is lost between the load and the store.
            let put_size = &self.gauges.mvcc_total_put_size_in_bytes;
            put_size.set(put_size.get() + counts.put_bytes as i64);
        }
    }

    /// One request was answered.
    pub fn answered(&self, kind: RequestType, success: bool, took: Duration) {
        self.cells.request[kind as usize][usize::from(success)].observe(took);
    }

    /// One range was read from the store.
    pub fn ranged(&self, success: bool, took: Duration) {
        self.cells.range[usize::from(success)].observe(took);
    }

    /// The slot of a client's API version; `None` for one that is no text. Takes a lock only for
    /// versions this core has not seen, and no more of them than there are slots.
    pub fn client_version(&self, version: Option<&[u8]>) -> Option<ClientVersion> {
        match version {
            None | Some(b"") => Some(ClientVersion::UNKNOWN),
            Some(version) => self.versions.borrow_mut().slot(version),
        }
    }

    /// A client called.
    pub fn client_request(&self, version: ClientVersion, is_stream: bool) {
        self.cells.client_requests[usize::from(version.0)][usize::from(is_stream)].inc();
    }

    /// A stream of a client ended in an error.
    pub fn stream_failed(&self, direction: StreamDirection, api: StreamApi) {
        self.cells.stream_failures[direction as usize][api as usize].inc();
    }

    /// A `/livez` or `/readyz` check ran.
    pub fn checked(&self, check: HealthCheck, passed: bool) {
        self.cells.checks[check as usize][usize::from(passed)].inc();
        self.cells.check_results[check as usize].set(i64::from(passed));
    }

    /// A request spent this long in a stage.
    pub fn stage(&self, stage: Stage, took: Duration) {
        self.stages.borrow_mut().record(stage, took);
    }

    /// Shows the scraper this core's latencies and what it counts elsewhere. Call it about once a
    /// second; it copies some tens of kilobytes.
    pub fn publish(&self, published: Published) {
        self.stages.borrow().publish(&self.cells.stages);
        self.cells.published.store(Arc::new(published));
    }
}

impl Deref for CoreMetrics {
    type Target = CoreCells;

    fn deref(&self) -> &CoreCells {
        &self.cells
    }
}

impl CoreCells {
    pub(super) fn new(label: String, extensive: bool) -> CoreCells {
        let pair = |bounds: &'static [f64]| [Histogram::new(bounds), Histogram::new(bounds)];
        CoreCells {
            label,
            counters: Counters::default(),
            histograms: Histograms::default(),
            grpc: GrpcCounters::new(extensive),
            proposals_pending: Gauge::default(),
            major_faults: Counter::default(),
            apply: ApplyOp::ALL.iter().map(|_| pair(&E_00001_20)).collect(),
            request: RequestType::ALL.iter().map(|_| pair(&E_0001_14)).collect(),
            range: pair(&E_00001_20),
            client_requests: Default::default(),
            stream_failures: Default::default(),
            checks: Default::default(),
            check_results: Default::default(),
            stages: StageSlot::default(),
            published: ArcSwap::default(),
        }
    }
}
