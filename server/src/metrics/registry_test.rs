//! The scrape as a whole: golden lines, sums over cores, and the names other software looks for.

use std::time::Duration;

use super::*;
use crate::metrics::labels::ClientVersion;
use crate::metrics::{Published, Stage};
use crate::services::methods::id;
use wire::grpc::Code;

fn metrics(extensive: bool) -> Arc<Metrics> {
    let info = MemberInfo {
        server_version: "3.7.1".to_owned(),
        cluster_version: "3.7".to_owned(),
        server_id: "8e9e05c52164694d".to_owned(),
        runtime_version: "rust1.95".to_owned(),
        features: Default::default(),
    };
    Metrics::new(info, extensive)
}

/// The lines of one family, headers included.
fn family(text: &str, name: &str) -> String {
    let begin = text
        .find(&format!("# HELP {name} "))
        .unwrap_or_else(|| panic!("{name} is there"));
    let end = text[begin + 1..]
        .find("# HELP ")
        .map_or(text.len(), |end| begin + 1 + end);
    text[begin..end].to_owned()
}

#[test]
fn families_look_as_etcd_writes_them() {
    let metrics = metrics(false);
    let core = metrics.join("0");
    core.counters.mvcc_put.add(3);
    core.gauges().proposals_applied.set(1_234_567);
    core.histograms
        .disk_wal_fsync
        .observe(Duration::from_micros(1500));
    core.applied(ApplyOp::Put, true, Duration::from_micros(150));
    core.client_request(core.client_version(Some(b"3.7.0")).unwrap(), false);
    core.client_request(ClientVersion::UNKNOWN, true);
    core.checked(
        HealthCheck::find("readyz", "data_corruption").unwrap(),
        false,
    );
    let text = metrics.encode();
    let check = |name: &str, expected: &str| assert_eq!(family(&text, name), expected);
    check(
        "etcd_mvcc_put_total",
        "# HELP etcd_mvcc_put_total Put operations applied\n\
         # TYPE etcd_mvcc_put_total counter\n\
         etcd_mvcc_put_total 3\n",
    );
    // A gauge, though its name says total, in Go's notation.
    check(
        "etcd_server_proposals_applied_total",
        "# HELP etcd_server_proposals_applied_total Index of the last applied entry\n\
         # TYPE etcd_server_proposals_applied_total gauge\n\
         etcd_server_proposals_applied_total 1.234567e+06\n",
    );
    check(
        "etcd_server_health_success",
        "# HELP etcd_server_health_success Times /health answered true\n\
         # TYPE etcd_server_health_success counter\n\
         etcd_server_health_success 0\n",
    );
    check(
        "etcd_disk_wal_fsync_duration_seconds",
        "# HELP etcd_disk_wal_fsync_duration_seconds Making one group of log records durable\n\
         # TYPE etcd_disk_wal_fsync_duration_seconds histogram\n\
         etcd_disk_wal_fsync_duration_seconds_bucket{le=\"0.001\"} 0\n\
         etcd_disk_wal_fsync_duration_seconds_bucket{le=\"0.002\"} 1\n\
         etcd_disk_wal_fsync_duration_seconds_bucket{le=\"0.004\"} 1\n\
         etcd_disk_wal_fsync_duration_seconds_bucket{le=\"0.008\"} 1\n\
         etcd_disk_wal_fsync_duration_seconds_bucket{le=\"0.016\"} 1\n\
         etcd_disk_wal_fsync_duration_seconds_bucket{le=\"0.032\"} 1\n\
         etcd_disk_wal_fsync_duration_seconds_bucket{le=\"0.064\"} 1\n\
         etcd_disk_wal_fsync_duration_seconds_bucket{le=\"0.128\"} 1\n\
         etcd_disk_wal_fsync_duration_seconds_bucket{le=\"0.256\"} 1\n\
         etcd_disk_wal_fsync_duration_seconds_bucket{le=\"0.512\"} 1\n\
         etcd_disk_wal_fsync_duration_seconds_bucket{le=\"1.024\"} 1\n\
         etcd_disk_wal_fsync_duration_seconds_bucket{le=\"2.048\"} 1\n\
         etcd_disk_wal_fsync_duration_seconds_bucket{le=\"4.096\"} 1\n\
         etcd_disk_wal_fsync_duration_seconds_bucket{le=\"8.192\"} 1\n\
         etcd_disk_wal_fsync_duration_seconds_bucket{le=\"+Inf\"} 1\n\
         etcd_disk_wal_fsync_duration_seconds_sum 0.0015\n\
         etcd_disk_wal_fsync_duration_seconds_count 1\n",
    );
    check(
        "etcd_server_client_requests_total",
        "# HELP etcd_server_client_requests_total Calls by client version\n\
         # TYPE etcd_server_client_requests_total counter\n\
         etcd_server_client_requests_total{client_api_version=\"3.7.0\",type=\"unary\"} 1\n\
         etcd_server_client_requests_total{client_api_version=\"unknown\",type=\"stream\"} 1\n",
    );
    check(
        "etcd_server_healthcheck",
        "# HELP etcd_server_healthcheck Last result of each health check\n\
         # TYPE etcd_server_healthcheck gauge\n\
         etcd_server_healthcheck{name=\"data_corruption\",type=\"readyz\"} 0\n",
    );
    for line in [
        "etcd_server_healthchecks_total{name=\"data_corruption\",status=\"error\",type=\"readyz\"} 1",
        "etcd_server_apply_duration_seconds_bucket{op=\"Put\",success=\"true\",version=\"v3\",le=\"0.0002\"} 1",
        "etcd_server_version{server_version=\"3.7.1\"} 1",
        "etcd_server_id{server_id=\"8e9e05c52164694d\"} 1",
        "etcd_cluster_version{cluster_version=\"3.7\"} 1",
        "etcd_debugging_lease_ttl_total_bucket{le=\"8.388608e+06\"} 0",
        "grpc_server_handled_total{grpc_code=\"OK\",grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"} 0",
    ] {
        assert!(text.contains(&format!("\n{line}\n")), "{line}");
    }
    // Labelled families without a sample are absent, as is what only --metrics=extensive shows.
    for absent in [
        "etcd_server_range_duration",
        "etcd_debugging_server_alarms",
        "handling_seconds",
    ] {
        assert!(!text.contains(absent), "{absent}");
    }
}

#[test]
fn a_core_moves_to_its_thread() {
    fn moves<T: Send>(_: &T) {}
    fn is_shared<T: Send + Sync>(_: &T) {}
    let metrics = metrics(false);
    is_shared(&metrics);
    moves(&metrics.join("0"));
}

#[test]
fn cores_add_up_and_grpc_series_follow_their_rules() {
    let metrics = metrics(true);
    let (a, b) = (metrics.join("0"), metrics.join("1"));
    let (put, lock) = (id::KV_PUT, id::LOCK_LOCK);
    assert!(!metrics.encode().contains("v3lockpb"));
    for core in [&a, &b] {
        core.grpc.started(put);
        core.grpc.received(put);
        core.grpc.sent(put);
        core.grpc.handled(put, Code::Ok, Duration::from_millis(7));
    }
    b.grpc.handled(put, Code::Unknown, Duration::ZERO);
    b.grpc.handled(lock, Code::Unimplemented, Duration::ZERO);
    a.proposals_pending.set(2);
    b.proposals_pending.set(3);
    let text = metrics.encode();
    let labels = "grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"}";
    for line in [
        format!("grpc_server_started_total{{{labels} 2"),
        format!("grpc_server_msg_received_total{{{labels} 2"),
        format!("grpc_server_msg_sent_total{{{labels} 2"),
        format!("grpc_server_handled_total{{grpc_code=\"OK\",{labels} 2"),
        format!("grpc_server_handled_total{{grpc_code=\"Unknown\",{labels} 1"),
        format!("grpc_server_handling_seconds_count{{{labels} 3"),
        "etcd_server_proposals_pending 5".to_owned(),
        "grpc_server_handled_total{grpc_code=\"Unimplemented\",grpc_method=\"Lock\",\
         grpc_service=\"v3lockpb.Lock\",grpc_type=\"unary\"} 1"
            .to_owned(),
    ] {
        assert!(text.contains(&format!("\n{line}\n")), "{line}");
    }
    // All methods but those of the lock and election services, and one that was called, by all codes.
    let handled = text
        .lines()
        .filter(|line| line.starts_with("grpc_server_handled_total{"))
        .count();
    let at_start = METHODS
        .iter()
        .filter(|method| is_listed_at_start(method))
        .count();
    assert_eq!(handled, at_start * GRPC_CODES.len() + 1);
}

#[test]
fn what_a_core_publishes_is_shown_by_core() {
    let metrics = metrics(false);
    let core = metrics.join("3");
    core.stage(Stage::Log, Duration::from_micros(90));
    core.stage(Stage::Log, Duration::from_micros(110));
    core.major_faults.set(2);
    assert!(
        !metrics.encode().contains("pilaster_stage"),
        "nothing before it is published"
    );
    core.publish(Published {
        http2: vec![("rapid_resets", 4)],
        closed: vec![("neither_http_nor_tls", 2)],
        queues: vec![("apply", 9)],
        answer_bytes: 700,
        answers_given_up: 5,
    });
    let text = metrics.encode();
    for line in [
        "pilaster_stage_duration_seconds_bucket{core=\"3\",stage=\"log\",le=\"8e-05\"} 0",
        "pilaster_stage_duration_seconds_bucket{core=\"3\",stage=\"log\",le=\"0.00016\"} 2",
        "pilaster_stage_duration_seconds_sum{core=\"3\",stage=\"log\"} 0.0002",
        "pilaster_stage_duration_seconds_count{core=\"3\",stage=\"log\"} 2",
        "pilaster_http2_rapid_resets_total{core=\"3\"} 4",
        "pilaster_connections_closed_total{core=\"3\",reason=\"neither_http_nor_tls\"} 2",
        "pilaster_queue_entries{core=\"3\",queue=\"apply\"} 9",
        "pilaster_answer_bytes{core=\"3\"} 700",
        "pilaster_answers_given_up_total{core=\"3\"} 5",
        "pilaster_core_major_page_faults_total{core=\"3\"} 2",
    ] {
        assert!(text.contains(&format!("\n{line}\n")), "{line}");
    }
    let p99 = family(&text, "pilaster_stage_duration_quantile_seconds");
    let p99 = p99
        .lines()
        .find(|line| line.contains("quantile=\"0.99\""))
        .unwrap();
    let p99: f64 = p99.rsplit(' ').next().unwrap().parse().unwrap();
    assert!((0.00010..0.00012).contains(&p99), "{p99}");
}

#[test]
fn alarms_appear_once_raised_and_stay_as_zero() {
    let metrics = metrics(false);
    let line = |name, id, value| {
        format!(
            "etcd_debugging_server_alarms{{alarm_type=\"{name}\",server_id=\"{id}\"}} {value}\n"
        )
    };
    let own = (0x8e9e_05c5_2164_694d, "NOSPACE");
    metrics.set_alarms([own, (5, "CORRUPT")].into_iter());
    let text = metrics.encode();
    assert!(text.contains(&line("NOSPACE", "8e9e05c52164694d", 1)));
    assert!(text.contains(&line("CORRUPT", "5", 1)));
    metrics.set_alarms([(5, "CORRUPT")].into_iter());
    let text = metrics.encode();
    assert!(text.contains(&line("NOSPACE", "8e9e05c52164694d", 0)));
    assert!(text.contains(&line("CORRUPT", "5", 1)));
    // Whatever ids clients make up, the page is bounded.
    for id in 0..10_000 {
        metrics.set_alarms([(id, "NOSPACE")].into_iter());
    }
    let text = metrics.encode();
    let shown = text.matches("etcd_debugging_server_alarms{").count();
    assert!(shown < 100, "{shown}");
}

#[test]
fn clients_cannot_make_the_scrape_grow() {
    let metrics = metrics(false);
    let (core, other) = (metrics.join("0"), metrics.join("1"));
    let slot = |core: &CoreMetrics, version: &str| core.client_version(Some(version.as_bytes()));
    let first = slot(&core, "1");
    for version in 0..1000 {
        slot(&core, &version.to_string());
    }
    assert_eq!(slot(&core, "1"), first);
    assert_eq!(slot(&other, "1"), first);
    assert_eq!(slot(&core, "1001"), Some(ClientVersion::OTHER));
    assert_eq!(slot(&other, "1002"), Some(ClientVersion::OTHER));
    assert_eq!(slot(&other, &"x".repeat(65)), Some(ClientVersion::OTHER));
    assert_eq!(slot(&core, ""), Some(ClientVersion::UNKNOWN));
    assert_eq!(core.client_version(None), Some(ClientVersion::UNKNOWN));
    assert_eq!(core.client_version(Some(b"\xff")), None);
}

#[test]
fn every_line_is_well_formed_and_every_family_occurs_once() {
    let metrics = metrics(true);
    let core = metrics.join("0");
    core.ranged(true, Duration::from_millis(1));
    core.answered(RequestType::Txn, false, Duration::from_millis(1));
    core.stream_failed(StreamDirection::Send, StreamApi::Watch);
    core.publish(Published::default());
    let text = metrics.encode();
    let mut families: Vec<&str> = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            families.push(rest.split(' ').next().unwrap());
        } else if !line.starts_with("# HELP ") {
            let (series, value) = line.rsplit_once(' ').unwrap();
            assert!(series.starts_with(families.last().unwrap()), "{line}");
            assert!(value == "+Inf" || value.parse::<f64>().is_ok(), "{line}");
            let labels = series.find('{').map_or("", |begin| &series[begin..]);
            assert!(labels.is_empty() || labels.ends_with('}'), "{line}");
        }
    }
    assert!(families.is_sorted() && families.windows(2).all(|pair| pair[0] != pair[1]));
    for name in [
        "process_resident_memory_bytes",
        "process_cpu_seconds_total",
        "os_fd_limit",
        "promhttp_metric_handler_requests_total",
        "etcd_network_server_stream_failures_total",
    ] {
        assert!(families.contains(&name), "{name}");
    }
}
