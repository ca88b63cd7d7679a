//! Limits set by flags, calls that make no sense, and one txn that must not stop the server.

use pilaster_tests::pb::*;
use pilaster_tests::{Answer, Client, Kind, Options, Server, plain, raw};

fn refused<T: std::fmt::Debug>(answer: Answer<T>, code: i32, text: &str) {
    let failure = answer.expect_err(text);
    assert_eq!((failure.code, failure.text.as_str()), (code, text));
    println!("refused with code {code}: {text}");
}

fn puts(count: usize) -> TxnRequest {
    let op = |i| RequestOp {
        request: Some(Request::Put(raw::put(format!("key {i}"), "x"))),
    };
    TxnRequest {
        success: (0..count).map(op).collect(),
        ..Default::default()
    }
}

#[test]
fn limits_set_by_flags_hold() {
    let options = Options::new(Kind::subject());
    let server = Server::start(
        options
            .flag("--max-txn-ops=5")
            .flag("--max-request-bytes=2000"),
    );
    raw::block_on(async {
        let mut client = Client::connect(&server).await;
        client.txn(&puts(5)).await.expect("as many as allowed");
        let text = "etcdserver: too many operations in txn request";
        refused(client.txn(&puts(6)).await, 3, text);
        client
            .put(&raw::put("a", vec![b'v'; 1800]))
            .await
            .expect("below the limit");
        let large = raw::put("a", vec![b'v'; 2000]);
        refused(
            client.put(&large).await,
            3,
            "etcdserver: request is too large",
        );
        // The message limit lies 512 KiB above the request limit.
        let huge = raw::put("a", vec![b'v'; 2000 + (512 << 10)]);
        let text = "grpc: received message larger than max (526295 vs. 526288)";
        refused(client.put(&huge).await, 8, text);
        let all = client.range(&raw::get_all()).await.expect("a range");
        assert_eq!(all.count, 6, "refused requests left nothing");
    });
}

#[test]
fn calls_that_make_no_sense_are_answered() {
    let server = Server::start(Options::new(Kind::subject()));
    raw::block_on(async {
        let mut client = Client::connect(&server).await;
        let text = "unknown service no.such.Service";
        refused(
            client.call_bytes("/no.such.Service/Call", vec![]).await,
            12,
            text,
        );
        let text = "unknown method Guess for service etcdserverpb.KV";
        refused(
            client.call_bytes("/etcdserverpb.KV/Guess", vec![]).await,
            12,
            text,
        );
        // A field that claims more bytes than there are. The text differs between releases of the grpc library.
        let failure = client
            .call_bytes("/etcdserverpb.KV/Put", vec![0x0a, 0x7f, 1])
            .await;
        let failure = failure.expect_err("not a message");
        assert!(
            failure.code == 13 && failure.text.starts_with("grpc: "),
            "{failure:?}"
        );
        println!("refused with code 13: {}", failure.text);
        refused(
            client.range(&raw::get("")).await,
            3,
            "etcdserver: key is not provided",
        );
        refused(
            client.put(&raw::put("", "x")).await,
            3,
            "etcdserver: key is not provided",
        );
        // Fields a server does not know are skipped.
        let mut bytes = prost::Message::encode_to_vec(&raw::put("known", "x"));
        bytes.extend([0x9a, 0x3f, 3, b'n', b'e', b'w']);
        client
            .call_bytes("/etcdserverpb.KV/Put", bytes)
            .await
            .expect("an unknown field");
        let reply = client.range(&raw::get("known")).await.expect("a range");
        assert_eq!(reply.kvs[0].value, b"x");
    });
}

/// A delete to the end of the keys, then a put that wants to keep what was deleted: a real etcd (3.5.1 and 3.7.1) passes its
/// checks and then stops as a process. The answer that fits its other answers is that the key is not there.
#[test]
fn keeping_what_the_same_txn_deleted_is_refused_and_harmless() {
    if !Kind::subject().is_pilaster() {
        println!("left out: a txn on which a real etcd stops");
        return;
    }
    let server = Server::start(Options::new(Kind::subject()));
    raw::block_on(async {
        let mut client = Client::connect(&server).await;
        let before = client.put(&raw::put("b", "kept")).await.expect("a put");
        for (ignore_value, ignore_lease) in [(true, false), (false, true), (true, true)] {
            let delete = DeleteRangeRequest {
                key: b"a".into(),
                range_end: vec![0],
                prev_kv: false,
            };
            let value = if ignore_value { "" } else { "new" };
            let put = PutRequest {
                ignore_value,
                ignore_lease,
                ..raw::put("b", value)
            };
            let ops = [
                Request::Put(raw::put("0", "first")),
                Request::DeleteRange(delete),
                Request::Put(put),
            ];
            let ops = ops.map(|request| RequestOp {
                request: Some(request),
            });
            let txn = TxnRequest {
                success: ops.to_vec(),
                ..Default::default()
            };
            refused(client.txn(&txn).await, 3, "etcdserver: key not found");
        }
        let all = client
            .range(&raw::get_all())
            .await
            .expect("the server goes on");
        assert_eq!((all.count, all.kvs[0].value.as_slice()), (1, &b"kept"[..]));
        assert_eq!(
            all.header.expect("a header").revision,
            before.header.expect("a header").revision
        );
    });
}

/// A streamed range comes in messages of about `--max-request-bytes`, ten keys first.
#[test]
fn streamed_messages_follow_the_request_limit() {
    if Kind::subject() == Kind::Etcd351 {
        println!("left out: etcd 3.5 does not stream ranges");
        return;
    }
    const KEYS: usize = 400;
    let keys_by_message = |flag: Option<&str>| {
        let mut options = Options::new(Kind::subject());
        options.flags.extend(flag.map(str::to_owned));
        let server = Server::start(options);
        raw::block_on(async {
            let mut client = Client::connect(&server).await;
            for number in 0..KEYS {
                let put = raw::put(format!("key {number:04}"), vec![b'x'; 1000]);
                client.put(&put).await.expect("a put");
            }
            let parts = client.range_stream_parts(&raw::get_all()).await;
            let parts = parts.expect("a stream");
            parts.iter().map(|part| part.kvs.len()).collect::<Vec<_>>()
        })
    };
    // Twice as many keys as long as a message is below half of the target.
    assert_eq!(keys_by_message(None), [10, 20, 40, 80, 160, 90]);
    let small = keys_by_message(Some("--max-request-bytes=50000"));
    assert_eq!(small[..3], [10, 20, 40]);
    assert!(small[3..].iter().all(|keys| *keys <= 40), "{small:?}");
    assert_eq!(small.iter().sum::<usize>(), KEYS);
    println!("messages of {small:?} keys below a limit of 50000 bytes");
}

/// Who wants a compaction to be over and is refused, because another was first, is told when that one is over.
#[test]
fn a_refused_physical_compaction_waits_for_the_one_under_way() {
    const KEYS: i64 = 1500;
    let (limit, pause) = match Kind::subject() {
        Kind::Etcd351 => ("--experimental-compaction-batch-limit=10", None),
        _ => (
            "--compaction-batch-limit=10",
            Some("--compaction-sleep-interval=10ms"),
        ),
    };
    let mut options = Options::new(Kind::subject()).flag(limit);
    options.flags.extend(pause.map(str::to_owned));
    let server = Server::start(options);
    raw::block_on(async {
        let mut client = Client::connect(&server).await;
        for number in 0..KEYS {
            let put = raw::put("one key", number.to_string());
            client.put(&put).await.expect("a put");
        }
        let mut request = CompactionRequest {
            revision: 1 + KEYS,
            physical: false,
        };
        client.compact(&request).await.expect("a compaction");
        request.physical = true;
        let refused = client
            .compact(&request)
            .await
            .expect_err("compacted before");
        assert_eq!(
            refused.text,
            "etcdserver: mvcc: required revision has been compacted"
        );
        // Nothing is left to be removed when the answer comes.
        let page = plain::get(&server, "/metrics").body;
        let removed = page
            .lines()
            .find_map(|line| line.strip_prefix("etcd_debugging_mvcc_db_compaction_keys_total "));
        let removed: f64 = removed.and_then(|text| text.parse().ok()).expect("a count");
        assert_eq!(removed, (KEYS - 1) as f64);
    });
    println!("told when {} revisions were gone", KEYS - 1);
}
