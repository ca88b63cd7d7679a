//! Keepalive streams: order, leases that are unknown or long gone, garbage, ends.

use pilaster_tests::Client;
use pilaster_tests::raw::block_on;

use super::{start, with_lease};

#[test]
fn each_request_is_answered_in_its_turn() {
    let server = start();
    block_on(async {
        let mut client = Client::connect(&server).await;
        for id in 1..=50 {
            client.grant(id, 100 + id).await.expect("a grant");
        }
        let mut stream = client.keep_alives().await;
        // Many at once, known and unknown in turn.
        for round in 0..20 {
            for id in 1..=50 {
                stream.send(id);
                stream.send(1000 * (round + 1) + id);
            }
        }
        for round in 0..20 {
            for id in 1..=50 {
                assert_eq!(stream.ttl(id).await, 100 + id);
                assert_eq!(stream.ttl(1000 * (round + 1) + id).await, 0);
            }
        }
        stream.close();
        assert_eq!(stream.next().await, Ok(None), "it ends with OK");
    });
}

#[test]
fn a_header_shows_the_revision_before_the_renewal() {
    let server = start();
    block_on(async {
        let mut client = Client::connect(&server).await;
        client.grant(7, 600).await.expect("a grant");
        client.put(&with_lease("k", 7)).await.expect("a put");
        let mut stream = client.keep_alives().await;
        stream.send(7);
        let answer = stream.next().await.expect("an answer").expect("no end");
        let header = answer.header.expect("a header");
        assert_eq!((header.revision, answer.ttl), (2, 600));
        assert!(header.cluster_id != 0 && header.member_id != 0 && header.raft_term != 0);
        client.revoke(7).await.expect("a revocation");
        for id in [7, 0, -1, i64::MIN] {
            stream.send(id);
            let answer = stream.next().await.expect("an answer").expect("no end");
            assert_eq!((answer.id, answer.ttl), (id, 0), "long gone");
            assert_eq!(answer.header.expect("a header").revision, 3);
        }
    });
}

#[test]
fn a_stream_without_requests_ends() {
    let server = start();
    block_on(async {
        let mut client = Client::connect(&server).await;
        let mut stream = client.keep_alives().await;
        stream.close();
        assert_eq!(stream.next().await, Ok(None));
    });
}

#[test]
fn garbage_ends_its_stream_and_no_other() {
    let server = start();
    block_on(async {
        let mut client = Client::connect(&server).await;
        client.grant(7, 600).await.expect("a grant");
        let mut other = client.keep_alives().await;
        other.send(7);
        assert_eq!(other.ttl(7).await, 600);
        for garbage in [vec![0x08], vec![0xff; 100], vec![0x0c]] {
            let mut stream = client.keep_alives().await;
            stream.send(7);
            stream.send_bytes(garbage);
            stream.send(7);
            assert_eq!(stream.ttl(7).await, 600, "what came before is answered");
            let failure = stream.next().await.expect_err("garbage");
            assert_eq!(failure.code, 13, "{failure:?}");
            assert!(failure.text.starts_with("grpc: "), "{failure:?}");
        }
        // An empty message is one for lease 0.
        other.send_bytes(Vec::new());
        assert_eq!(other.ttl(0).await, 0);
        other.send(7);
        assert_eq!(other.ttl(7).await, 600);
    });
}

/// A client that dies or is dropped leaves nothing behind that stops the next.
#[test]
fn streams_that_are_dropped_do_no_harm() {
    let server = start();
    block_on(async {
        let mut client = Client::connect(&server).await;
        client.grant(7, 600).await.expect("a grant");
        for _ in 0..50 {
            let mut dying = Client::connect(&server).await;
            let mut streams = Vec::new();
            for _ in 0..20 {
                let mut stream = dying.keep_alives().await;
                stream.send(7);
                assert_eq!(stream.ttl(7).await, 600);
                for _ in 0..10 {
                    stream.send(7);
                }
                streams.push(stream);
            }
        }
        let mut stream = client.keep_alives().await;
        stream.send(7);
        assert_eq!(stream.ttl(7).await, 600);
    });
}

/// A burst far beyond what a client library sends: answered to the last.
#[test]
fn a_burst_is_answered_in_order() {
    const BURST: i64 = 100_000;
    let server = start();
    block_on(async {
        let mut client = Client::connect(&server).await;
        client.grant(7, 600).await.expect("a grant");
        let mut stream = client.keep_alives().await;
        for at in 0..BURST {
            stream.send(if at % 2 == 0 { 7 } else { 1_000_000 + at });
        }
        for at in 0..BURST {
            let (id, ttl) = if at % 2 == 0 {
                (7, 600)
            } else {
                (1_000_000 + at, 0)
            };
            assert_eq!(stream.ttl(id).await, ttl);
        }
    });
}
