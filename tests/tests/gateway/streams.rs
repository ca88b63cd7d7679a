//! Streams as lines of JSON: watches and keepalives, line by line on both servers.

use pilaster_tests::plain::{self, Stream};
use pilaster_tests::{Kind, Options, Server};

use super::{Pair, normal, start};

/// The first lines that one server answers to a request.
fn lines(server: &Server, path: &str, (body, count): (&str, usize)) -> Vec<String> {
    let mut stream = Stream::open(server, path, body);
    let lines = (0..count)
        .map(|_| normal(&stream.line().expect("a line")))
        .collect();
    assert_eq!(stream.status, 200);
    lines
}

#[test]
fn watches_in_lockstep() {
    let pair = Pair::start();
    for (path, body) in [
        ("/v3/kv/put", r#"{"key":"Zm9v","value":"PD4m"}"#),
        ("/v3/kv/deleterange", r#"{"key":"Zm9v"}"#),
        ("/v3/kv/put", r#"{"key":"Zm9v"}"#),
    ] {
        pair.check(path, body);
    }
    for asked in [
        (
            r#"{"create_request":{"key":"Zm9v","start_revision":"1"}}"#,
            2,
        ),
        (
            r#"{"create_request":{"key":"Zm9v","start_revision":2,"prev_kv":true,"filters":["NODELETE"]}}"#,
            2,
        ),
        (
            r#"{"create_request":{"key":"AA==","range_end":"AA==","startRevision":"3","watch_id":"7"}}"#,
            2,
        ),
        (
            r#"{"create_request":{"key":"Zm9v"}} {"create_request":{"key":"YQ=="}}{"cancel_request":{"watch_id":"1"}}"#,
            3,
        ),
        (
            r#"{"create_request":{"key":"Zm9v","start_revision":"1000"}}{"cancel_request":{"watch_id":0}}"#,
            2,
        ),
        (
            r#"{"create_request":{"key":"Zm9v"}}{"progress_request":{}}"#,
            2,
        ),
        (r#"{"create_request":{"key":"eg==","range_end":"YQ=="}}"#, 1),
        (r#"{"create_request":{"key":"Zm9v"}}garbage"#, 1),
    ] {
        let talk = |server| {
            let mut lines = lines(server, "/v3/watch", asked);
            if asked.0.contains("progress_request") {
                // A real etcd may send the progress before it says that the watcher is there.
                lines.sort();
            }
            lines
        };
        assert_eq!(talk(&pair.subject), talk(&pair.etcd), "{asked:?}");
    }
}

#[test]
fn requests_may_follow_while_answers_come() {
    if !Kind::subject().is_pilaster() {
        println!(
            "left out: a real etcd answers no request over HTTP/1.1 before its body has ended"
        );
        return;
    }
    let server = start();
    let mut stream = Stream::begin(&server, "/v3/watch", r#"{"create_request":{"key":"YQ=="}}"#);
    assert!(stream.line().expect("a line").contains(r#""created":true"#));
    stream.send(r#"{"create_request":{"key":"Yg=="}}{"cancel_requ"#);
    assert!(
        stream
            .line()
            .expect("a line")
            .contains(r#""watch_id":"1","created":true"#)
    );
    stream.send(r#"est":{"watch_id":1}}"#);
    assert!(
        stream
            .line()
            .expect("a line")
            .contains(r#""watch_id":"1","canceled":true"#)
    );
    plain::post(&server, "/v3/kv/put", r#"{"key":"YQ=="}"#);
    assert!(stream.line().expect("a line").contains(r#""events":["#));
    let mut stream = Stream::begin(&server, "/v3/lease/keepalive", r#"{"ID":"1"}"#);
    stream.line().expect("a line");
    stream.send(r#"{"ID":"2"}"#);
    stream.line().expect("a line");
    stream.end_body();
    assert_eq!(
        stream.line(),
        None,
        "a stream of keepalives ends with its requests"
    );
}

#[test]
fn events_come_as_they_happen() {
    let pair = Pair::start();
    let open = |server| {
        Stream::open(
            server,
            "/v3/watch",
            r#"{"create_request":{"key":"YQ==","range_end":"Yg=="}}"#,
        )
    };
    let mut streams = [open(&pair.etcd), open(&pair.subject)];
    let next = |streams: &mut [Stream; 2]| {
        let [right, ours] = streams;
        let line = normal(&ours.line().expect("a line"));
        assert_eq!(line, normal(&right.line().expect("a line")));
        line
    };
    assert!(next(&mut streams).contains(r#""created":true"#));
    for (path, body) in [
        ("/v3/kv/put", r#"{"key":"YQ==","value":"MQ=="}"#),
        ("/v3/kv/put", r#"{"key":"eg==","value":"MQ=="}"#),
        (
            "/v3/kv/txn",
            r#"{"success":[{"request_put":{"key":"YWE="}},{"request_delete_range":{"key":"YQ=="}}]}"#,
        ),
    ] {
        pair.check(path, body);
        if !body.contains("eg==") {
            assert!(next(&mut streams).contains(r#""events":["#));
        }
    }
    pair.check("/v3/kv/deleterange", r#"{"key":"YWE="}"#);
    assert!(next(&mut streams).contains(r#""type":"DELETE""#));
}

#[test]
fn keepalives_in_lockstep() {
    let pair = Pair::start();
    pair.check("/v3/lease/grant", r#"{"ID":"5","TTL":"300"}"#);
    for body in [
        r#"{"ID":"5"}"#,
        r#"{"ID":"5"}{"ID":"6"} {"ID":5}"#,
        r#"{}"#,
        "",
        r#"{"ID":"5"}{"ID":"x"}{"ID":"5"}"#,
        r#"{"ID":"5"}garbage"#,
        "garbage",
    ] {
        pair.check("/v3/lease/keepalive", body);
    }
}

#[test]
fn a_compacted_watch_is_cancelled_in_words() {
    let pair = Pair::start();
    for body in ["MQ==", "Mg==", "Mw=="] {
        pair.check(
            "/v3/kv/put",
            &format!(r#"{{"key":"YQ==","value":"{body}"}}"#),
        );
    }
    pair.check("/v3/kv/compaction", r#"{"revision":"3","physical":true}"#);
    let asked = (
        r#"{"create_request":{"key":"YQ==","start_revision":"1"}}"#,
        2,
    );
    let talk = |server| lines(server, "/v3/watch", asked);
    assert_eq!(talk(&pair.subject), talk(&pair.etcd));
}

#[test]
fn a_client_that_leaves_takes_its_watchers_along() {
    let server = Server::start(Options::new(Kind::subject()));
    let watchers = |wanted: &str| {
        let page = plain::get(&server, "/metrics").body;
        page.lines()
            .any(|line| line == format!("etcd_debugging_mvcc_watcher_total {wanted}"))
    };
    let streams: Vec<Stream> = (0..20)
        .map(|_| {
            let mut stream =
                Stream::open(&server, "/v3/watch", r#"{"create_request":{"key":"YQ=="}}"#);
            stream.line().expect("created");
            stream
        })
        .collect();
    assert!((0..10_000).any(|_| watchers("20")), "twenty watch");
    drop(streams);
    assert!((0..10_000).any(|_| watchers("0")), "nobody watches");
    let put = plain::post(&server, "/v3/kv/put", r#"{"key":"YQ==","value":"MQ=="}"#);
    assert_eq!(put.status, 200);
}

#[test]
fn a_stop_ends_streams_in_words() {
    if !Kind::subject().is_pilaster() {
        println!("left out: what a stopped etcd says is a matter of chance");
        return;
    }
    let mut server = start();
    let mut stream = Stream::open(&server, "/v3/watch", r#"{"create_request":{"key":"YQ=="}}"#);
    stream.line().expect("created");
    server.send_term();
    let last = stream.line().expect("a last word");
    assert!(last.starts_with(r#"{"error":{"code":14,"#), "{last}");
    assert_eq!(stream.line(), None);
    let (status, log) = server.await_exit();
    assert!(status.success(), "{log:?}");
}
