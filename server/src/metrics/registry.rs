//! Gathers what all cores counted and writes the scrape.
//!
//! Always true here: cores join before they serve and stay for ever, so the list of cores only grows and
//! its lock is never contended on the request path. Sums over cores are sums of whole values.
//!
//! One per process, shared by reference. `encode` may run on any thread; it takes about a millisecond, so
//! a busy member runs it on a helper thread.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::catalog::{COUNTERS, E_0001_14, E_00001_20, GAUGES, Gauges, HISTOGRAMS, STAGE_BOUNDS};
use super::cells::{Histogram, HistogramTotals};
use super::core::{CoreCells, CoreMetrics};
use super::grpc::{GRPC_CODES, HANDLING_BOUNDS, MethodCounters, is_listed_at_start, kind_text};
use super::labels::{ApplyOp, HealthCheck, RequestType, StreamApi, StreamDirection, VersionCache};
use super::process::ProcessFacts;
use super::stages::Recording;
use super::text::Page;
use crate::config::Features;
use crate::services::methods::METHODS;

/// Who this member is, for the labels that say so.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemberInfo {
    /// The etcd version served, like `3.7.1`.
    pub server_version: String,
    /// `3.7`; empty while it is not decided.
    pub cluster_version: String,
    /// In lower-case hex.
    pub server_id: String,
    /// For the label that etcd fills with its Go version.
    pub runtime_version: String,
    pub features: Features,
}

pub struct Metrics {
    info: MemberInfo,
    extensive: bool,
    gauges: Arc<Gauges>,
    cores: Mutex<Vec<Arc<CoreCells>>>,
    client_versions: Arc<Mutex<Vec<String>>>,
    /// Alarms seen active since the start, by member and name, and whether they still are.
    alarms: Mutex<BTreeMap<(u64, &'static str), bool>>,
    scrapes: AtomicU64,
}

/// etcd's feature gates and their groups.
const FEATURE_GATES: [(&str, &str); 11] = [
    ("AllAlpha", "ALPHA"),
    ("AllBeta", "BETA"),
    ("CompactHashCheck", "ALPHA"),
    ("FastLeaseKeepAlive", "BETA"),
    ("InitialCorruptCheck", "ALPHA"),
    ("LeaseCheckpoint", "ALPHA"),
    ("LeaseCheckpointPersist", "ALPHA"),
    ("PriorityRequest", "ALPHA"),
    ("SetMemberLocalAddr", "ALPHA"),
    ("StopGRPCServiceOnDefrag", "ALPHA"),
    ("TxnModeWriteWithSharedBuffer", "BETA"),
];

/// Alarms no longer active that are still shown, as zero. Clients choose the member ids of alarms, and must not
/// grow the scrape.
const PAST_ALARMS_MAX: usize = 64;

impl Metrics {
    pub fn new(info: MemberInfo, extensive: bool) -> Arc<Metrics> {
        Arc::new(Metrics {
            info,
            extensive,
            gauges: Arc::default(),
            cores: Mutex::default(),
            client_versions: VersionCache::shared(),
            alarms: Mutex::default(),
            scrapes: AtomicU64::new(0),
        })
    }

    /// A handle for one core or helper thread, once for each; `label` becomes the `core` label of its own
    /// series (`0`, `1`, ..., or a name like `tree`) and occurs once.
    pub fn join(&self, label: impl Into<String>) -> CoreMetrics {
        let label = label.into();
        let mut cores = self.cores.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(
            cores.iter().all(|core| core.label != label),
            "two cores are called {label}"
        );
        let cells = Arc::new(CoreCells::new(label, self.extensive));
        cores.push(Arc::clone(&cells));
        CoreMetrics::new(
            cells,
            Arc::clone(&self.gauges),
            Arc::clone(&self.client_versions),
        )
    }

    pub fn gauges(&self) -> &Gauges {
        &self.gauges
    }

    /// The alarms active now: member id and etcd's name of the alarm.
    pub fn set_alarms(&self, active: impl Iterator<Item = (u64, &'static str)>) {
        let mut alarms = self.alarms.lock().unwrap_or_else(PoisonError::into_inner);
        alarms.values_mut().for_each(|is_active| *is_active = false);
        alarms.extend(active.map(|alarm| (alarm, true)));
        let mut past = 0;
        alarms.retain(|_, is_active| {
            past += usize::from(!*is_active);
            *is_active || past <= PAST_ALARMS_MAX
        });
    }

    /// The whole `/metrics` text.
    pub fn encode(&self) -> String {
        let cores = self
            .cores
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let mut page = Page::default();
        self.member(&mut page);
        self.label_less(&mut page, &cores);
        self.requests(&mut page, &cores);
        self.grpc(&mut page, &cores);
        checks(&mut page, &cores);
        ours(&mut page, &cores);
        process(&mut page);
        self.scrape(&mut page);
        page.finish()
    }

    fn member(&self, page: &mut Page) {
        let info = &self.info;
        let mut one = |name, help, label, value: &str| {
            if !value.is_empty() {
                page.gauge(name, help, &[(label, value)], 1.0);
            }
        };
        one(
            "etcd_server_version",
            "The etcd version served",
            "server_version",
            &info.server_version,
        );
        one(
            "etcd_server_id",
            "This member's id",
            "server_id",
            &info.server_id,
        );
        one(
            "etcd_server_go_version",
            "What the server was built with; not Go here",
            "server_go_version",
            &info.runtime_version,
        );
        one(
            "etcd_cluster_version",
            "The cluster's version",
            "cluster_version",
            &info.cluster_version,
        );
        if !info.server_id.is_empty() {
            let own = info.server_id.as_str();
            let help = "1 for each member this one knows, itself included";
            let labels = [("Local", own), ("Remote", own)];
            page.gauge("etcd_network_known_peers", help, &labels, 1.0);
        }
        for (name, stage) in FEATURE_GATES {
            let help = "1 for each feature gate that is on";
            page.gauge(
                "etcd_server_feature_enabled",
                help,
                &[("name", name), ("stage", stage)],
                f64::from(u8::from(info.features.is_on(name))),
            );
        }
        let alarms = self.alarms.lock().unwrap_or_else(PoisonError::into_inner);
        for (&(member, name), &is_active) in &*alarms {
            page.gauge(
                "etcd_debugging_server_alarms",
                "Active alarms",
                &[("alarm_type", name), ("server_id", &format!("{member:x}"))],
                f64::from(u8::from(is_active)),
            );
        }
    }

    fn label_less(&self, page: &mut Page, cores: &[Arc<CoreCells>]) {
        for family in COUNTERS {
            let total: u64 = cores
                .iter()
                .map(|core| (family.cell)(&core.counters).get())
                .sum();
            page.counter(family.name, family.help, &[], total as f64);
        }
        for family in GAUGES {
            page.gauge(
                family.name,
                family.help,
                &[],
                (family.cell)(&self.gauges).get() as f64,
            );
        }
        let pending: i64 = cores.iter().map(|core| core.proposals_pending.get()).sum();
        page.gauge(
            "etcd_server_proposals_pending",
            "Proposals that wait for their result",
            &[],
            pending as f64,
        );
        let empty = super::catalog::Histograms::default();
        for family in HISTOGRAMS {
            let mut totals = HistogramTotals::new((family.cell)(&empty).bounds());
            for core in cores {
                totals.add((family.cell)(&core.histograms));
            }
            page.histogram(family.name, family.help, &[], &totals);
        }
    }

    fn requests(&self, page: &mut Page, cores: &[Arc<CoreCells>]) {
        let truth = ["false", "true"];
        for (success, text) in truth.into_iter().enumerate() {
            for op in ApplyOp::ALL {
                let totals = sum(&E_00001_20, cores, |core| {
                    &core.apply[*op as usize][success]
                });
                if !totals.is_empty() {
                    page.histogram(
                        "etcd_server_apply_duration_seconds",
                        "Time to apply one entry",
                        &[("op", op.text()), ("success", text), ("version", "v3")],
                        &totals,
                    );
                }
            }
            for kind in RequestType::ALL {
                let totals = sum(&E_0001_14, cores, |core| {
                    &core.request[*kind as usize][success]
                });
                if !totals.is_empty() {
                    page.histogram(
                        "etcd_server_request_duration_seconds",
                        "Time to answer one request",
                        &[("success", text), ("type", kind.text())],
                        &totals,
                    );
                }
            }
            let totals = sum(&E_00001_20, cores, |core| &core.range[success]);
            if !totals.is_empty() {
                page.histogram(
                    "etcd_server_range_duration_seconds",
                    "Time of one range inside the store",
                    &[("success", text)],
                    &totals,
                );
            }
        }
        let versions = self
            .client_versions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        for (slot, version) in versions.iter().enumerate() {
            for (kind, text) in ["unary", "stream"].into_iter().enumerate() {
                let total: u64 = cores
                    .iter()
                    .map(|core| core.client_requests[slot][kind].get())
                    .sum();
                if total != 0 {
                    page.counter(
                        "etcd_server_client_requests_total",
                        "Calls by client version",
                        &[("client_api_version", version), ("type", text)],
                        total as f64,
                    );
                }
            }
        }
        for direction in StreamDirection::ALL {
            for api in StreamApi::ALL {
                let cell = |core: &Arc<CoreCells>| {
                    core.stream_failures[*direction as usize][*api as usize].get()
                };
                let total: u64 = cores.iter().map(cell).sum();
                if total != 0 {
                    page.counter(
                        "etcd_network_server_stream_failures_total",
                        "Streams to clients that failed",
                        &[("API", api.text()), ("Type", direction.text())],
                        total as f64,
                    );
                }
            }
        }
    }

    fn grpc(&self, page: &mut Page, cores: &[Arc<CoreCells>]) {
        type Cell = fn(&MethodCounters) -> u64;
        let simple: [(&str, &str, Cell); 3] = [
            ("grpc_server_started_total", "Calls begun", |method| {
                method.started.get()
            }),
            (
                "grpc_server_msg_received_total",
                "Messages received",
                |method| method.received.get(),
            ),
            ("grpc_server_msg_sent_total", "Messages sent", |method| {
                method.sent.get()
            }),
        ];
        for (slot, method) in METHODS.iter().enumerate() {
            let total = |cell: &dyn Fn(&MethodCounters) -> u64| -> u64 {
                cores
                    .iter()
                    .map(|core| cell(&core.grpc.methods[slot]))
                    .sum()
            };
            let (service, name, kind) = (method.service, method.name, kind_text(method.kind));
            for (family, help, cell) in simple {
                let total = total(&cell);
                if total != 0 || is_listed_at_start(method) {
                    let labels = [
                        ("grpc_method", name),
                        ("grpc_service", service),
                        ("grpc_type", kind),
                    ];
                    page.counter(family, help, &labels, total as f64);
                }
            }
            for (code, code_name) in GRPC_CODES.into_iter().enumerate() {
                let total = total(&|method| method.handled[code].get());
                if total != 0 || is_listed_at_start(method) {
                    let labels = [
                        ("grpc_code", code_name),
                        ("grpc_method", name),
                        ("grpc_service", service),
                        ("grpc_type", kind),
                    ];
                    page.counter(
                        "grpc_server_handled_total",
                        "Calls ended",
                        &labels,
                        total as f64,
                    );
                }
            }
            if self.extensive {
                let mut totals = HistogramTotals::new(&HANDLING_BOUNDS);
                for core in cores {
                    if let Some(histogram) = &core.grpc.methods[slot].handling {
                        totals.add(histogram);
                    }
                }
                if !totals.is_empty() || is_listed_at_start(method) {
                    let labels = [
                        ("grpc_method", name),
                        ("grpc_service", service),
                        ("grpc_type", kind),
                    ];
                    let help = "Time from the beginning to the end of calls";
                    page.histogram("grpc_server_handling_seconds", help, &labels, &totals);
                }
            }
        }
    }

    fn scrape(&self, page: &mut Page) {
        let scrapes = self.scrapes.fetch_add(1, Ordering::Relaxed);
        let help = "Scrapes being answered";
        page.gauge("promhttp_metric_handler_requests_in_flight", help, &[], 1.0);
        for (code, total) in [("200", scrapes), ("500", 0), ("503", 0)] {
            let name = "promhttp_metric_handler_requests_total";
            page.counter(name, "Scrapes answered", &[("code", code)], total as f64);
        }
        page.counter(
            "pilaster_log_lines_dropped_total",
            "Log lines dropped because an output was too slow",
            &[],
            crate::logging::lines_dropped() as f64,
        );
    }
}

fn sum(
    bounds: &'static [f64],
    cores: &[Arc<CoreCells>],
    cell: impl Fn(&CoreCells) -> &Histogram,
) -> HistogramTotals {
    let mut totals = HistogramTotals::new(bounds);
    for core in cores {
        totals.add(cell(core));
    }
    totals
}

fn checks(page: &mut Page, cores: &[Arc<CoreCells>]) {
    for check in HealthCheck::ALL {
        let slot = *check as usize;
        let (family, name) = (check.family(), check.text());
        let totals = [0, 1].map(|passed: usize| -> u64 {
            cores
                .iter()
                .map(|core| core.checks[slot][passed].get())
                .sum()
        });
        for (total, status) in totals.into_iter().zip(["error", "success"]) {
            if total != 0 {
                page.counter(
                    "etcd_server_healthchecks_total",
                    "Health checks by result",
                    &[("name", name), ("status", status), ("type", family)],
                    total as f64,
                );
            }
        }
        if totals != [0, 0] {
            // Several cores may have run the check; one failure among their last results counts.
            let ran =
                |core: &&Arc<CoreCells>| core.checks[slot].iter().any(|counter| counter.get() != 0);
            let result = cores
                .iter()
                .filter(ran)
                .map(|core| core.check_results[slot].get())
                .min();
            page.gauge(
                "etcd_server_healthcheck",
                "Last result of each health check",
                &[("name", name), ("type", family)],
                result.unwrap_or(0) as f64,
            );
        }
    }
}

/// What etcd does not have: where latency goes, limits hit, queues, page faults; by core.
fn ours(page: &mut Page, cores: &[Arc<CoreCells>]) {
    for core in cores {
        let label = core.label.as_str();
        page.counter(
            "pilaster_core_major_page_faults_total",
            "Page faults that waited for the disk, stopping the core",
            &[("core", label)],
            core.major_faults.get() as f64,
        );
        let published = core.published.load();
        for (queue, entries) in &published.queues {
            page.gauge(
                "pilaster_queue_entries",
                "Entries waiting in a queue of this core",
                &[("core", label), ("queue", queue)],
                *entries as f64,
            );
        }
        page.gauge(
            "pilaster_answer_bytes",
            "Bytes of answers that clients have not taken",
            &[("core", label)],
            published.answer_bytes as f64,
        );
        page.counter(
            "pilaster_answers_given_up_total",
            "Calls ended because their clients held most of too many answers",
            &[("core", label)],
            published.answers_given_up as f64,
        );
        for (reason, total) in &published.closed {
            page.counter(
                "pilaster_connections_closed_total",
                "Connections of clients that ended, by reason",
                &[("core", label), ("reason", reason)],
                *total as f64,
            );
        }
        for (name, total) in &published.http2 {
            page.counter(
                &format!("pilaster_http2_{name}_total"),
                "What the HTTP/2 engine counts: limits that were hit, and how it works",
                &[("core", label)],
                *total as f64,
            );
        }
        for (stage, recording) in core.stages.read() {
            page.histogram(
                "pilaster_stage_duration_seconds",
                "Time requests spent in one stage of the pipeline",
                &[("core", label), ("stage", stage.text())],
                &stage_totals(&recording),
            );
            for (quantile, text) in [(0.5, "0.5"), (0.99, "0.99"), (0.999, "0.999"), (1.0, "1")] {
                let ns = recording.histogram.value_at_quantile(quantile);
                page.gauge(
                    "pilaster_stage_duration_quantile_seconds",
                    "Quantiles of the same since the start",
                    &[("core", label), ("quantile", text), ("stage", stage.text())],
                    ns as f64 / 1e9,
                );
            }
        }
    }
}

fn stage_totals(recording: &Recording) -> HistogramTotals {
    let bounds: &'static [f64] = &STAGE_BOUNDS;
    let mut totals = HistogramTotals::new(bounds);
    for value in recording.histogram.iter_recorded() {
        let seconds = value.value_iterated_to() as f64 / 1e9;
        let slot = bounds.partition_point(|bound| *bound < seconds);
        totals.buckets[slot] += value.count_at_value();
    }
    totals.sum = recording.sum_ns as f64 / 1e9;
    totals
}

fn process(page: &mut Page) {
    let facts = ProcessFacts::read();
    let mut gauge = |name, help, value: Option<f64>| {
        if let Some(value) = value {
            page.gauge(name, help, &[], value);
        }
    };
    gauge(
        "os_fd_limit",
        "Limit on open file descriptors",
        facts.max_fds,
    );
    gauge("os_fd_used", "Open file descriptors", facts.open_fds);
    gauge(
        "process_max_fds",
        "Limit on open file descriptors",
        facts.max_fds,
    );
    gauge("process_open_fds", "Open file descriptors", facts.open_fds);
    gauge(
        "process_resident_memory_bytes",
        "Resident memory",
        facts.resident_bytes,
    );
    gauge(
        "process_start_time_seconds",
        "Unix time of the start",
        facts.start_time_seconds,
    );
    gauge(
        "process_virtual_memory_bytes",
        "Virtual memory",
        facts.virtual_bytes,
    );
    gauge(
        "process_virtual_memory_max_bytes",
        "Limit on virtual memory",
        facts.virtual_bytes_max,
    );
    let mut counter = |name, help, value: Option<f64>| {
        if let Some(value) = value {
            page.counter(name, help, &[], value);
        }
    };
    counter(
        "process_cpu_seconds_total",
        "Processor time used",
        facts.cpu_seconds,
    );
    counter(
        "process_network_receive_bytes_total",
        "Bytes received in this network namespace",
        facts.received_bytes,
    );
    counter(
        "process_network_transmit_bytes_total",
        "Bytes sent in this network namespace",
        facts.sent_bytes,
    );
}

#[cfg(test)]
#[path = "registry_test.rs"]
mod tests;
