//! Every unary path, and every way to write a request wrongly, step by step on both servers.

use pilaster_tests::{Client, Kind, Options, Server, plain, raw, tls};

use super::{Pair, normal, shown, start};

/// In this order, so that revisions are the same.
const STORY: &[(&str, &str)] = &[
    ("/v3/kv/put", r#"{"key":"Zm9v","value":"YmFy"}"#),
    ("/v3/kv/range", r#"{"key":"Zm9v"}"#),
    ("/v3beta/kv/range", r#"{"key":"Zm9v"}"#),
    ("/v3/kv/range", r#"{"key":"AA==","range_end":"AA=="}"#),
    (
        "/v3/kv/range",
        r#"{"key":"AA","rangeEnd":"AA","keysOnly":true,"limit":"1"}"#,
    ),
    (
        "/v3/kv/range",
        r#"{"key":"Zm9v","sort_order":"DESCEND","sort_target":"MOD"}"#,
    ),
    (
        "/v3/kv/range",
        r#"{"key":"Zm9v","nope":{"a":[1,2]},"limit":null}"#,
    ),
    ("/v3/kv/range", r#"{"key":"Zm9v"} and what follows"#),
    (
        "/v3/kv/put",
        r#"{"key":"YQ==","value":"Yg==","lease":"77"}"#,
    ),
    (
        "/v3/kv/put",
        r#"{"key":"YQ==","value":"Yg==","prev_kv":true}"#,
    ),
    (
        "/v3/kv/put",
        r#"{"key":"YQ==","value":"Yg==","prevKv":true}"#,
    ),
    (
        "/v3/kv/put",
        r#"{"key":"YQ==","value":"Yg==","ignore_value":true}"#,
    ),
    ("/v3/kv/put", r#"{"key":"YQ==","ignore_value":true}"#),
    (
        "/v3/kv/txn",
        r#"{"compare":[{"key":"YQ==","target":"VALUE","value":"Yg=="}],"success":[{"request_range":{"key":"YQ=="}},{"request_put":{"key":"Yw==","value":"ZA=="}},{"request_delete_range":{"key":"eno="}},{"request_txn":{}}],"failure":[]}"#,
    ),
    (
        "/v3/kv/txn",
        r#"{"compare":[{"key":"YQ==","result":"GREATER","target":"CREATE","createRevision":"0"}],"success":[{"requestTxn":{"success":[{"requestRange":{"key":"YQ=="}}]}}]}"#,
    ),
    ("/v3/kv/txn", r#"{}"#),
    ("/v3/kv/txn", r#"{"success":[{}]}"#),
    ("/v3/kv/deleterange", r#"{"key":"Yw==","prev_kv":true}"#),
    ("/v3/kv/compaction", r#"{"revision":"3"}"#),
    ("/v3/kv/range", r#"{"key":"Zm9v","revision":"2"}"#),
    ("/v3/kv/range", r#"{"key":"Zm9v","revision":"99"}"#),
    ("/v3/kv/compaction", r#"{"revision":"3"}"#),
    ("/v3/kv/compaction", r#"{"revision":"100"}"#),
    ("/v3/lease/grant", r#"{"TTL":"100","ID":"4242"}"#),
    ("/v3/lease/grant", r#"{"TTL":"100","ID":"4242"}"#),
    ("/v3/lease/grant", r#"{"TTL":"9000000001"}"#),
    ("/v3/kv/put", r#"{"key":"bA==","value":"","lease":"4242"}"#),
    ("/v3/lease/leases", ""),
    ("/v3/kv/lease/leases", "{}"),
    ("/v3/lease/timetolive", r#"{"ID":"9"}"#),
    ("/v3/kv/lease/timetolive", r#"{"ID":9}"#),
    ("/v3/lease/revoke", r#"{"ID":"4242"}"#),
    ("/v3/kv/lease/revoke", r#"{"ID":"4242"}"#),
    ("/v3/maintenance/alarm", r#"{}"#),
    (
        "/v3/maintenance/alarm",
        r#"{"action":"ACTIVATE","alarm":"NOSPACE"}"#,
    ),
    ("/v3/kv/put", r#"{"key":"YQ==","value":"Yg=="}"#),
    ("/v3/maintenance/alarm", r#"{"action":2,"alarm":"NOSPACE"}"#),
    ("/v3/maintenance/hashkv", r#"{"revision":"5"}"#),
    ("/v3/maintenance/hashkv", r#"{"revision":"500"}"#),
    ("/v3/kv/rang", "{}"),
    ("/v3/", "{}"),
    ("/v3/kv/range/", "{}"),
    ("/v3alpha/kv/range", "{}"),
    ("/nothing", "{}"),
];

/// Bodies that are wrong somewhere; all for a range.
const WRONG: &[&str] = &[
    "",
    " ",
    "{}",
    "{} {}",
    "[]",
    "12",
    "\"x\"",
    "true",
    "null",
    "nul",
    "kv",
    "{",
    "{\"",
    "}",
    "]",
    ",",
    "\u{feff}{}",
    r#"{"key":1}"#,
    r#"{"key":"!!"}"#,
    r#"{"key":"YQ="}"#,
    r#"{"key":"Y"}"#,
    r#"{"key":"YQ==="}"#,
    r#"{"key":"Y-_+"}"#,
    r#"{"key":[]}"#,
    r#"{"key":{}}"#,
    r#"{"key":true}"#,
    r#"{"key":"Zm9v""#,
    r#"{"key":"Zm9v",}"#,
    r#"{"key":"Zm9v" "a"}"#,
    r#"{"key" 1}"#,
    r#"{"key":tru}"#,
    r#"{"key":truE}"#,
    r#"{"key":-}"#,
    r#"{"key":1.}"#,
    r#"{"key":1e}"#,
    r#"{"key":01}"#,
    r#"{"key":1e+}"#,
    r#"{'key':1}"#,
    r#"{"key":"\x"}"#,
    r#"{"key":"\u12g4"}"#,
    r#"{"a":"\ud800"}"#,
    r#"{"a":"\ud800\u0041"}"#,
    r#"{"a":"\ud83d\ude00"}"#,
    r#"{"key":"Zm9v","key":""}"#,
    r#"{"range_end":"","rangeEnd":""}"#,
    r#"{"key":"Zm9v","limit":1.5}"#,
    r#"{"key":"Zm9v","limit":1.0}"#,
    r#"{"key":"Zm9v","limit":1e0}"#,
    r#"{"key":"Zm9v","limit":10e-1}"#,
    r#"{"key":"Zm9v","limit":1e400}"#,
    r#"{"key":"Zm9v","limit":1e99999999999}"#,
    r#"{"key":"Zm9v","limit":-0}"#,
    r#"{"key":"Zm9v","limit":"99999999999999999999"}"#,
    r#"{"key":"Zm9v","limit":9223372036854775808}"#,
    r#"{"key":"Zm9v","limit":" 1"}"#,
    r#"{"key":"Zm9v","limit":""}"#,
    r#"{"key":"Zm9v","limit":"1e1"}"#,
    r#"{"key":"Zm9v","limit":"0x1"}"#,
    r#"{"key":"Zm9v","limit":"1 "}"#,
    r#"{"key":"Zm9v","limit":true}"#,
    r#"{"key":"Zm9v","limit":[1]}"#,
    r#"{"key":"Zm9v","serializable":"x"}"#,
    r#"{"key":"Zm9v","serializable":1}"#,
    r#"{"key":"Zm9v","serializable":null}"#,
    r#"{"key":"Zm9v","sort_order":"XX"}"#,
    r#"{"key":"Zm9v","sort_order":9}"#,
    r#"{"key":"Zm9v","sort_order":1.5}"#,
    r#"{"key":"Zm9v","sort_order":{}}"#,
    r#"{"key":"Zm9v","sort_order":-1}"#,
    r#"{"key":"Zm9v","sort_order":2147483648}"#,
    "{\"key\":\n\n  \"Zm9v\",\n\t\"limit\": {}}",
    "{\"ä€\":\"ö\",\"limit\":[]}",
    "{\"key\":\"\t\"}",
    "{\"key\":\"a\nb\"}",
];

/// The same for requests with messages inside.
const WRONG_TXN: &[&str] = &[
    r#"{"compare":[{"key":"YQ==","version":"1","mod_revision":"1"}]}"#,
    r#"{"compare":[{"version":"1","version":"1"}]}"#,
    r#"{"compare":null,"success":null}"#,
    r#"{"compare":{}}"#,
    r#"{"compare":[null]}"#,
    r#"{"compare":[[]]}"#,
    r#"{"compare":[1]}"#,
    r#"{"success":[null]}"#,
    r#"{"success":[{"request_put":null}]}"#,
    r#"{"success":[{"request_put":[]}]}"#,
    r#"{"success":[{"request_put":{"key":"YQ=="},"request_range":{}}]}"#,
    r#"{"success":[{"request_put":{"key":""}}]}"#,
    r#"{"compare":[{"key":"YQ==","version":null,"value":"YQ=="}]}"#,
    r#"{"success":[{"request_put":{"key":"YQ=="}},]}"#,
    r#"{"success":[{"request_put":{"key":"YQ=="}},{"request_put":{"key":"YQ=="}}]}"#,
];

#[test]
fn a_story_is_told_the_same() {
    let pair = Pair::start();
    for (path, body) in STORY {
        pair.check(path, body);
    }
    println!("{} requests", STORY.len());
}

#[test]
fn what_is_wrong_is_refused_in_the_same_words() {
    let pair = Pair::start();
    for body in WRONG {
        pair.check("/v3/kv/range", body);
    }
    for body in WRONG_TXN {
        pair.check("/v3/kv/txn", body);
    }
    for depth in [9_999, 10_000, 10_001] {
        let deep = format!("{{\"a\":{}", "[".repeat(depth - 1));
        pair.check("/v3/kv/range", &deep);
    }
    println!("{} requests", WRONG.len() + WRONG_TXN.len() + 3);
}

#[test]
fn other_methods_and_headers_are_answered_the_same() {
    let pair = Pair::start();
    for method in ["GET", "PUT", "DELETE", "OPTIONS", "PATCH"] {
        for path in ["/v3/kv/range", "/v3/watch", "/v3/nothing"] {
            let ask = |server| shown(&plain::request(server, method, path));
            assert_eq!(ask(&pair.subject), ask(&pair.etcd), "{method} {path}");
        }
    }
    let body = r#"{"key":"Zm9v"}"#;
    for headers in [
        &[("Content-Type", "text/plain")][..],
        &[
            ("Content-Type", "application/json"),
            ("Accept", "text/html"),
        ],
        &[("Grpc-Timeout", "10S")],
        &[("Grpc-Timeout", "10")],
        &[("Grpc-Timeout", "xS")],
        &[("Grpc-Metadata-hasleader", "true")],
        &[("Origin", "http://anybody")],
    ] {
        pair.check_with("/v3/kv/range", headers, body);
    }
}

#[test]
fn status_and_members_have_the_same_fields() {
    let pair = Pair::start();
    for path in [
        "/v3/maintenance/status",
        "/v3/cluster/member/list",
        "/v3/maintenance/hash",
    ] {
        let ask = |server| {
            let reply = plain::post(server, path, "{}");
            if reply.status == 501 {
                return None;
            }
            Some(names(&serde_json::from_str(&reply.body).expect("JSON")))
        };
        let Some(ours) = ask(&pair.subject) else {
            println!("left out: {path} is not served");
            continue;
        };
        assert_eq!(Some(ours), ask(&pair.etcd), "{path}");
    }
}

/// The names in a value, without its plain values.
fn names(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Object(fields) => {
            // Whether the backend has free pages, and so the alarm of a quota, is each server's own affair.
            let fields = fields.iter().filter(|(name, _)| *name != "errors");
            let inner: Vec<String> = fields
                .map(|(name, value)| format!("{name}:{}", names(value)))
                .collect();
            format!("{{{}}}", inner.join(","))
        }
        serde_json::Value::Array(items) => {
            format!("{:?}", items.iter().map(names).collect::<Vec<_>>())
        }
        serde_json::Value::String(_) => "text".to_owned(),
        _ => "plain".to_owned(),
    }
}

#[test]
fn large_values_pass_and_larger_ones_are_refused() {
    let server = start();
    let value = "A".repeat(4 * (1 << 20) / 3 / 4 * 4);
    let put = plain::post(
        &server,
        "/v3/kv/put",
        &format!(r#"{{"key":"YQ==","value":"{value}"}}"#),
    );
    assert_eq!(put.status, 200, "{}", put.body);
    let got = plain::post(&server, "/v3/kv/range", r#"{"key":"YQ=="}"#);
    assert_eq!(got.status, 200);
    assert!(got.body.contains(&value), "a value of 1 MiB comes back");
    let value = "A".repeat(2 << 20);
    let body = format!(r#"{{"key":"YQ==","value":"{value}"}}"#);
    let refused = plain::post(&server, "/v3/kv/put", &body);
    assert_eq!(refused.status, 400);
    assert_eq!(
        normal(&refused.body),
        r#"{"code":3,"message":"etcdserver: request is too large"}"#
    );
    let value = "A".repeat(3 << 20);
    let body = format!(r#"{{"key":"YQ==","value":"{value}"}}"#);
    let refused = plain::post(&server, "/v3/kv/put", &body);
    assert_eq!(refused.status, 429, "{}", refused.body);
    assert!(
        refused.body.contains("received message larger than max"),
        "{}",
        refused.body
    );
    if server.kind().is_pilaster() {
        let value = "A".repeat(64 << 20);
        let body = format!(r#"{{"key":"YQ==","value":"{value}"}}"#);
        let refused = plain::post(&server, "/v3/kv/put", &body);
        assert_eq!(refused.status, 429, "a body is not taken for ever");
    }
}

#[test]
fn the_same_over_tls_and_over_http2() {
    let server = Server::start(Options::new(Kind::subject()).tls(tls::TlsFiles::create()));
    raw::block_on(async {
        let mut client = Client::connect(&server).await;
        for (path, body) in [
            ("/v3/kv/put", r#"{"key":"Zm9v","value":"YmFy"}"#),
            ("/v3/kv/range", r#"{"key":"Zm9v"}"#),
            ("/v3/kv/range", r#"{"key":"#),
            ("/v3/kv/nothing", "{}"),
            ("/v3/lease/keepalive", r#"{"ID":"1"}{"ID":"2"}"#),
        ] {
            let new = client.http_with("POST", path, body).await;
            if path != "/v3/kv/put" {
                let old = plain::post(&server, path, body);
                assert_eq!(shown(&new), shown(&old), "{path} {body}");
            }
        }
        assert!(
            client
                .range(&raw::get_all())
                .await
                .expect("gRPC goes on")
                .count
                == 1
        );
    });
}
