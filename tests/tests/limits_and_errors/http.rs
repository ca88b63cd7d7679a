//! HTTP on the client port: version, health and metrics, plain and over TLS, HTTP/1.1 and HTTP/2.

use std::collections::BTreeSet;

use pilaster_tests::{Client, Kind, Options, Server, plain, raw, tls};
use serde_json::Value;

#[test]
fn plain_endpoints_answer() {
    endpoints(Options::new(Kind::subject()));
}

#[test]
fn endpoints_answer_over_tls() {
    endpoints(Options::new(Kind::subject()).tls(tls::TlsFiles::create()));
}

#[test]
fn endpoints_are_the_same_over_http2() {
    both_versions(Options::new(Kind::subject()).tls(tls::TlsFiles::create()));
    if Kind::subject() == Kind::Pilaster {
        // Without TLS a real etcd takes every HTTP/2 request for gRPC.
        both_versions(Options::new(Kind::subject()));
    }
}

/// What differs between the two versions of HTTP is how bytes are framed, nothing else.
fn both_versions(options: Options) {
    let server = Server::start(options);
    // A real etcd decides on its cluster version a moment after it is ready.
    let ready = |reply: &plain::Reply| !reply.body.contains("not_decided");
    assert!(
        server_says(&server, "/version", ready),
        "no cluster version"
    );
    raw::block_on(async {
        let mut client = Client::connect(&server).await;
        for path in [
            "/version",
            "/health",
            "/health?serializable=true",
            "/livez",
            "/readyz",
            "/livez/serializable_read?verbose",
            "/livez/nothing",
            "/nothing",
            "/",
        ] {
            for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"] {
                let old = plain::request(&server, method, path);
                let new = client.http(method, path).await;
                assert_eq!(
                    (old.status, old.body.as_str()),
                    (new.status, new.body.as_str()),
                    "{method} {path}"
                );
                for name in ["content-type", "allow", "access-control-allow-origin"] {
                    assert_eq!(old.header(name), new.header(name), "{method} {path} {name}");
                }
                assert!(new.header("date").is_some(), "{method} {path}");
            }
        }
        // Larger than a client's first window, so it has to follow the window's updates.
        let page = client.http("GET", "/metrics").await;
        assert_eq!(page.status, 200);
        assert!(page.body.len() > 65_535, "{} bytes", page.body.len());
        assert!(page.body.contains("\netcd_server_has_leader 1\n"));
        assert!(page.body.ends_with('\n'));
        let head = client.http("HEAD", "/metrics").await;
        assert_eq!((head.status, head.body.as_str()), (200, ""));
        // And calls go on beside them.
        client.put(&raw::put("a", "b")).await.expect("a put");
    });
    println!("the same over HTTP/2 at {}", server.url());
}

/// Asks until the answer is as wanted; each question is a round trip, and their number is bounded.
pub(crate) fn server_says(
    server: &Server,
    path: &str,
    wanted: impl Fn(&plain::Reply) -> bool,
) -> bool {
    (0..10_000).any(|_| wanted(&plain::get(server, path)))
}

fn endpoints(options: Options) {
    let server = Server::start(options);
    // Writes first: a real etcd decides on its cluster version a moment after it is ready.
    metrics(&server);
    let version = plain::get(&server, "/version");
    assert_eq!(
        (version.status, version.header("content-type")),
        (200, Some("application/json"))
    );
    let version: Value = serde_json::from_str(&version.body).expect("JSON");
    for field in ["etcdserver", "etcdcluster"] {
        assert!(
            version[field]
                .as_str()
                .is_some_and(|text| text.starts_with("3.")),
            "{version}"
        );
    }
    println!("/version: {version}");

    let health = plain::get(&server, "/health");
    assert_eq!(
        (health.status, health.body.as_str()),
        (200, r#"{"health":"true","reason":""}"#)
    );
    let local = plain::get(&server, "/health?serializable=true");
    assert_eq!(
        (local.status, local.body.as_str()),
        (200, r#"{"health":"true","reason":""}"#)
    );
    if server.kind() != Kind::Etcd351 {
        for (path, body) in [
            ("/livez", "ok\n"),
            ("/readyz", "ok\n"),
            ("/livez?verbose", "[+]serializable_read ok\nok\n"),
            (
                "/readyz?verbose",
                "[+]data_corruption ok\n[+]linearizable_read ok\n[+]non_learner ok\n[+]serializable_read ok\nok\n",
            ),
        ] {
            let reply = plain::get(&server, path);
            // The order of the checks is open; etcd's changes from call to call.
            let mut lines: Vec<&str> = reply.body.split_inclusive('\n').collect();
            lines.sort_unstable();
            assert_eq!(
                (reply.status, lines.concat().as_str()),
                (200, body),
                "{path}"
            );
            assert_eq!(
                reply.header("content-type"),
                Some("text/plain; charset=utf-8"),
                "{path}"
            );
        }
    }
    let nothing = plain::get(&server, "/nothing");
    assert_eq!(
        (nothing.status, nothing.body.as_str()),
        (404, "404 page not found\n")
    );
    println!("/health, /livez, /readyz, /metrics at {}", server.url());
}

/// Refusals of requests that cannot be read say the status once more as their body.
#[test]
fn a_head_that_is_too_large_is_told_so() {
    let server = Server::start(Options::new(Kind::subject()));
    // A little more than each takes: 64 KiB, and 1 MiB.
    let bytes = match server.kind().is_pilaster() {
        true => 70_000,
        false => (1 << 20) + 8192,
    };
    let head = format!(
        "GET /health HTTP/1.1\r\nHost: x\r\nA: {}\r\n\r\n",
        "x".repeat(bytes)
    );
    let answer = plain::send_bytes(&server, head.as_bytes());
    let text = String::from_utf8_lossy(&answer);
    let status = "431 Request Header Fields Too Large";
    assert!(
        text.starts_with(&format!("HTTP/1.1 {status}\r\n")),
        "{text}"
    );
    assert!(text.ends_with(&format!("\r\n\r\n{status}")), "{text}");
    println!("a head of {bytes} bytes: {status}");
}

/// The names that dashboards for etcd rely on, and two counts that must move with the requests.
fn metrics(server: &Server) {
    raw::block_on(async {
        let mut client = Client::connect(server).await;
        for number in 0..3 {
            client
                .put(&raw::put("metered", number.to_string()))
                .await
                .expect("a put");
        }
        client.range(&raw::get("metered")).await.expect("a range");
    });
    let page = plain::get(server, "/metrics");
    assert_eq!(page.status, 200);
    assert!(
        page.header("content-type")
            .is_some_and(|kind| kind.starts_with("text/plain"))
    );
    let samples: Vec<(&str, &str)> = page
        .body
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.rsplit_once(' '))
        .collect();
    let names: BTreeSet<&str> = samples
        .iter()
        .map(|(name, _)| name.split('{').next().unwrap_or(name))
        .collect();
    for name in [
        "etcd_server_has_leader",
        "etcd_server_is_leader",
        "etcd_server_leader_changes_seen_total",
        "etcd_server_proposals_committed_total",
        "etcd_server_proposals_applied_total",
        "etcd_server_proposals_pending",
        "etcd_server_quota_backend_bytes",
        "etcd_server_version",
        "etcd_disk_wal_fsync_duration_seconds_bucket",
        "etcd_disk_backend_commit_duration_seconds_bucket",
        "etcd_mvcc_db_total_size_in_bytes",
        "etcd_mvcc_db_total_size_in_use_in_bytes",
        "etcd_mvcc_put_total",
        "etcd_mvcc_range_total",
        "etcd_debugging_mvcc_current_revision",
        "grpc_server_handled_total",
        "grpc_server_started_total",
        "process_resident_memory_bytes",
        "process_open_fds",
    ] {
        assert!(names.contains(name), "no metric {name}");
    }
    let value = |name: &str| {
        let found = samples.iter().find(|(sample, _)| *sample == name);
        found
            .unwrap_or_else(|| panic!("no sample {name}"))
            .1
            .parse::<f64>()
            .expect("a number")
    };
    assert_eq!(value("etcd_server_has_leader"), 1.0);
    assert_eq!(value("etcd_mvcc_put_total"), 3.0);
    assert_eq!(value("etcd_debugging_mvcc_current_revision"), 4.0);
    let puts = r#"grpc_server_handled_total{grpc_code="OK",grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"}"#;
    assert_eq!(value(puts), 3.0);
    // Each family is announced once, before its samples.
    let types: Vec<&str> = page
        .body
        .lines()
        .filter(|line| line.starts_with("# TYPE "))
        .collect();
    let once: BTreeSet<&&str> = types.iter().collect();
    assert_eq!(once.len(), types.len(), "a family is announced twice");
    println!("{} metric names", names.len());
}
