//! What a server counts: after the same calls the same series have grown by the same numbers as etcd's.
//!
//! Durations differ, so of histograms only the counts are compared.

use std::collections::BTreeMap;

use pilaster_tests::{Client, Kind, Options, Server, pb, plain, raw};

use crate::http::server_says;

/// Series whose growth a client's call determines.
const COMPARED: &[&str] = &[
    "etcd_mvcc_delete_total",
    "etcd_mvcc_put_total",
    "etcd_mvcc_range_total",
    "etcd_mvcc_txn_total",
    "etcd_mvcc_hash_rev_duration_seconds_count",
    "etcd_server_apply_duration_seconds_count",
    "etcd_server_range_duration_seconds_count",
    "etcd_server_request_duration_seconds_count",
    "etcd_server_client_requests_total",
    "etcd_debugging_mvcc_current_revision",
    "etcd_debugging_mvcc_compact_revision",
    "etcd_debugging_mvcc_db_compaction_keys_total",
    "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds_count",
    "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds_count",
    "etcd_debugging_mvcc_index_compaction_pause_duration_milliseconds_count",
    "etcd_debugging_mvcc_keys_total",
    "etcd_debugging_mvcc_total_put_size_in_bytes",
    "etcd_debugging_server_alarms",
    "etcd_debugging_lease_granted_total",
    "etcd_debugging_lease_renewed_total",
    "etcd_debugging_lease_revoked_total",
    "etcd_debugging_lease_ttl_total_count",
    "grpc_server_started_total",
    "grpc_server_handled_total",
    "grpc_server_msg_received_total",
    "grpc_server_msg_sent_total",
];

/// Value by series.
type Page = BTreeMap<String, f64>;

fn scrape(server: &Server) -> Page {
    let text = plain::get(server, "/metrics").body;
    let of_interest = |line: &&str| {
        let name = line.split(['{', ' ']).next().unwrap_or_default();
        COMPARED.contains(&name)
    };
    text.lines()
        .filter(of_interest)
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').expect("a sample has a value");
            let value = value.parse().expect("a sample's value is a number");
            (series.to_owned(), value)
        })
        .collect()
}

/// What grew from `before` to `after`, with the member's own id left out.
fn growth(before: &Page, after: &Page, own_id: &str) -> Page {
    let grown = after.iter().filter_map(|(series, value)| {
        let more = value - before.get(series).unwrap_or(&0.0);
        (more != 0.0).then(|| (series.replace(own_id, "OWN"), more))
    });
    grown.collect()
}

type Step = (&'static str, fn(u64) -> Call);

/// What a step asks.
enum Call {
    Range(pb::RangeRequest),
    Stream(pb::RangeRequest),
    Put(pb::PutRequest),
    Delete(pb::DeleteRangeRequest),
    Txn(pb::TxnRequest),
    Compact(i64),
    HashKv(i64),
    Alarm(pb::AlarmRequest),
    MemberList,
    Status,
}

async fn carry_out(client: &mut Client, call: Call) {
    // Errors are part of what is counted.
    match call {
        Call::Range(request) => drop(client.range(&request).await),
        Call::Stream(request) => drop(client.range_stream(&request).await),
        Call::Put(request) => drop(client.put(&request).await),
        Call::Delete(request) => drop(client.delete_range(&request).await),
        Call::Txn(request) => drop(client.txn(&request).await),
        Call::Compact(revision) => {
            let physical = true;
            drop(
                client
                    .compact(&pb::CompactionRequest { revision, physical })
                    .await,
            );
        }
        Call::HashKv(revision) => drop(client.hash_kv(revision).await),
        Call::Alarm(request) => drop(client.alarm(&request).await),
        Call::MemberList => drop(client.member_list().await),
        Call::Status => drop(client.status().await),
    }
}

fn serializable(mut request: pb::RangeRequest) -> pb::RangeRequest {
    request.serializable = true;
    request
}

fn at(mut request: pb::RangeRequest, revision: i64) -> pb::RangeRequest {
    request.revision = revision;
    request
}

fn limited(mut request: pb::RangeRequest, limit: i64) -> pb::RangeRequest {
    request.limit = limit;
    request
}

fn op(request: pb::Request) -> pb::RequestOp {
    pb::RequestOp {
        request: Some(request),
    }
}

fn txn(success: Vec<pb::RequestOp>) -> pb::TxnRequest {
    pb::TxnRequest {
        compare: vec![pb::Compare {
            key: b"k1".to_vec(),
            result: 1,
            target: 0,
            wanted: Some(pb::Wanted::Version(0)),
            ..Default::default()
        }],
        success,
        failure: Vec::new(),
    }
}

fn alarm(action: i32, member_id: u64, alarm: pb::AlarmType) -> Call {
    Call::Alarm(pb::AlarmRequest {
        action,
        member_id,
        alarm: alarm.into(),
    })
}

fn delete(key: &str, end: &str, prev_kv: bool) -> Call {
    Call::Delete(pb::DeleteRangeRequest {
        key: key.into(),
        range_end: end.into(),
        prev_kv,
    })
}

#[rustfmt::skip]
const STEPS: &[Step] = &[
    ("put", |_| Call::Put(raw::put("k1", "v"))),
    ("put with prev_kv", |_| Call::Put(pb::PutRequest { prev_kv: true, ..raw::put("k1", "w") })),
    ("put with ignore_value", |_| Call::Put(pb::PutRequest { ignore_value: true, ..raw::put("k1", "") })),
    ("put with ignore_value of no key", |_| Call::Put(pb::PutRequest { ignore_value: true, ..raw::put("none", "") })),
    ("put of no key", |_| Call::Put(raw::put("", "v"))),
    ("put of another", |_| Call::Put(raw::put("k2", "v"))),
    ("put that is too large", |_| Call::Put(raw::put("big", vec![0; 1_600_000]))),
    ("put with a lease that is not there", |_| Call::Put(pb::PutRequest { lease: 77, ..raw::put("k3", "v") })),
    ("range of one", |_| Call::Range(raw::get("k1"))),
    ("range of one, serializable", |_| Call::Range(serializable(raw::get("k1")))),
    ("range of all", |_| Call::Range(raw::get_all())),
    ("range of one in the future", |_| Call::Range(at(raw::get("k1"), 1000))),
    ("range of all in the future", |_| Call::Range(at(raw::get_all(), 1000))),
    ("range of no key", |_| Call::Range(raw::get(""))),
    ("stream of one", |_| Call::Stream(raw::get("k1"))),
    ("stream of all", |_| Call::Stream(raw::get_all())),
    ("stream in the future", |_| Call::Stream(at(raw::get_all(), 1000))),
    ("stream with a limit above what there is", |_| Call::Stream(limited(raw::get_all(), 5))),
    ("txn of two", |_| Call::Txn(txn(vec![
        op(pb::Request::Put(raw::put("t1", "v"))),
        op(pb::Request::Range(raw::get("k1"))),
    ]))),
    ("txn of nothing", |_| Call::Txn(txn(Vec::new()))),
    ("txn that only reads", |_| Call::Txn(txn(vec![
        op(pb::Request::Range(raw::get("k1"))),
        op(pb::Request::Range(raw::get_all())),
    ]))),
    ("txn that reads the future", |_| Call::Txn(txn(vec![
        op(pb::Request::Range(at(raw::get("k1"), 1000))),
        op(pb::Request::Put(raw::put("t2", "v"))),
    ]))),
    ("txn that puts twice", |_| Call::Txn(txn(vec![
        op(pb::Request::Put(raw::put("t3", "v"))),
        op(pb::Request::Put(raw::put("t3", "v"))),
    ]))),
    ("delete", |_| delete("k2", "", false)),
    ("delete of nothing", |_| delete("k2", "", false)),
    ("delete with prev_kv", |_| delete("t", "u", true)),
    ("member list", |_| Call::MemberList),
    ("status", |_| Call::Status),
    ("hash of all", |_| Call::HashKv(0)),
    ("hash in the future", |_| Call::HashKv(1000)),
    ("compact", |_| Call::Compact(5)),
    ("compact what is compacted", |_| Call::Compact(4)),
    ("compact the future", |_| Call::Compact(1000)),
    ("range of what is compacted", |_| Call::Range(at(raw::get("k1"), 3))),
    ("range of all that is compacted", |_| Call::Range(at(raw::get_all(), 3))),
    ("alarms", |_| alarm(0, 0, pb::AlarmType::None)),
    ("raise an alarm", |own| alarm(1, own, pb::AlarmType::NoSpace)),
    ("put refused for an alarm", |_| Call::Put(raw::put("k4", "v"))),
    ("raise an alarm of somebody else", |_| alarm(1, 5, pb::AlarmType::NoSpace)),
    ("disarm", |own| alarm(2, own, pb::AlarmType::NoSpace)),
    ("disarm again", |own| alarm(2, own, pb::AlarmType::NoSpace)),
    ("disarm somebody else's", |_| alarm(2, 5, pb::AlarmType::NoSpace)),
    ("put again", |_| Call::Put(raw::put("k4", "v"))),
];

/// The growth of all series by each step.
fn run(kind: Kind) -> Vec<(&'static str, Page)> {
    let server = Server::start(Options::new(kind));
    assert!(
        server_says(&server, "/version", |reply| !reply
            .body
            .contains("not_decided")),
        "no cluster version"
    );
    raw::block_on(async {
        let mut client = Client::connect(&server).await;
        let status = client.status().await.expect("a status");
        let own = status.header.expect("a header").member_id;
        let own_text = format!("{own:x}");
        let mut before = scrape(&server);
        let mut grown = Vec::new();
        for (what, call) in STEPS {
            carry_out(&mut client, call(own)).await;
            let after = scrape(&server);
            grown.push((*what, growth(&before, &after, &own_text)));
            before = after;
        }
        grown
    })
}

#[test]
fn the_same_calls_count_as_in_etcd() {
    if Kind::subject() != Kind::Pilaster || Kind::Etcd371.found().is_none() {
        println!("left out: etcd 3.7.1 to compare with");
        return;
    }
    let mut differences = Vec::new();
    for ((what, theirs), (_, ours)) in run(Kind::Etcd371).iter().zip(&run(Kind::Pilaster)) {
        let mut series: Vec<&String> = theirs.keys().chain(ours.keys()).collect();
        series.sort();
        series.dedup();
        for series in series {
            let (their, our) = (theirs.get(series), ours.get(series));
            if their != our {
                differences.push(format!("{what}: {series}: etcd {their:?}, here {our:?}"));
            }
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}
