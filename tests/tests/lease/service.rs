//! Unary calls: grants, revocations, what is attached, and every refusal.

use pilaster_tests::Client;
use pilaster_tests::pb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, Request, RequestOp, TxnRequest, Wanted,
};
use pilaster_tests::raw::{self, block_on};

use super::{all, refused, revision, start, with_lease};

const NOT_FOUND: (i32, &str) = (5, "etcdserver: requested lease not found");
const EXISTS: (i32, &str) = (9, "etcdserver: lease already exists");
const TOO_LARGE: (i32, &str) = (11, "etcdserver: too large lease TTL");

#[test]
fn grants_and_their_refusals() {
    let server = start();
    block_on(async {
        let mut client = Client::connect(&server).await;
        // Its own id is positive and never the same twice.
        let mut ids = Vec::new();
        for _ in 0..5 {
            let granted = client.grant(0, 60).await.expect("a grant");
            assert!(granted.id > 0 && granted.ttl == 60 && granted.error.is_empty());
            assert_eq!(granted.header.expect("a header").revision, 1);
            ids.push(granted.id);
        }
        ids.dedup();
        assert_eq!(ids.len(), 5);
        // The shortest time to live is one and a half election timeouts, in whole seconds.
        for (ttl, wanted) in [
            (1, 2),
            (0, 2),
            (-1, 2),
            (i64::MIN, 2),
            (2, 2),
            (3, 3),
            (9_000_000_000, 9_000_000_000),
        ] {
            assert_eq!(client.grant(0, ttl).await.expect("a grant").ttl, wanted);
        }
        for id in [7, -7, i64::MIN, i64::MAX] {
            assert_eq!(client.grant(id, 60).await.expect("a grant").id, id);
            let again = client.grant(id, 60).await.expect_err("in use");
            assert_eq!(again, refused(EXISTS.0, EXISTS.1));
        }
        for (id, ttl) in [(8, 9_000_000_001), (0, i64::MAX), (7, 9_000_000_001)] {
            let failure = client.grant(id, ttl).await.expect_err("too long");
            assert_eq!(failure, refused(TOO_LARGE.0, TOO_LARGE.1));
        }
        let unknown = client.time_to_live(8, false).await.expect("an answer");
        assert_eq!(unknown.ttl, -1, "what was refused is not there");
        assert_eq!(revision(&mut client).await, 1, "leases have no revisions");
    });
}

#[test]
fn a_revocation_deletes_what_is_attached_at_one_revision() {
    let server = start();
    block_on(async {
        let mut client = Client::connect(&server).await;
        client.grant(7, 600).await.expect("a grant");
        client.grant(8, 600).await.expect("a grant");
        for key in ["c", "a", "b"] {
            client.put(&with_lease(key, 7)).await.expect("a put");
        }
        client.put(&raw::put("d", "stays")).await.expect("a put");
        let before = revision(&mut client).await;
        let revoked = client.revoke(7).await.expect("a revocation");
        let at = revoked.header.expect("a header").revision;
        assert_eq!(at, before + 1);
        assert_eq!(revision(&mut client).await, at);
        let left = all(&mut client).await;
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].key, b"d");
        // The revision before still shows them, with their lease.
        let old = RangeRequest {
            revision: before,
            ..raw::get_all()
        };
        let old = client.range(&old).await.expect("an old revision").kvs;
        let leases: Vec<i64> = old.iter().map(|kv| kv.lease).collect();
        assert_eq!(leases, [7, 7, 7, 0]);
        // Without keys there is no revision; without a lease a refusal.
        let revoked = client.revoke(8).await.expect("a revocation");
        assert_eq!(revoked.header.expect("a header").revision, at);
        for id in [7, 8, 9, 0, -1] {
            let failure = client.revoke(id).await.expect_err("no such lease");
            assert_eq!(failure, refused(NOT_FOUND.0, NOT_FOUND.1));
        }
        // The id may be used again.
        client.grant(7, 600).await.expect("a grant");
        let found = client.time_to_live(7, true).await.expect("an answer");
        assert_eq!(found.keys, [[0; 0]; 0]);
    });
}

#[test]
fn puts_attach_and_detach() {
    let server = start();
    block_on(async {
        let mut client = Client::connect(&server).await;
        client.grant(1, 600).await.expect("a grant");
        client.grant(2, 600).await.expect("a grant");
        let keys = async |id| {
            let mut client = Client::connect(&server).await;
            let found = client.time_to_live(id, true).await.expect("an answer");
            assert_eq!(found.granted_ttl, 600);
            let keys = found.keys.into_iter().map(String::from_utf8);
            keys.collect::<Result<Vec<_>, _>>().expect("plain keys")
        };
        for key in ["a", "b", "c", "d"] {
            client.put(&with_lease(key, 1)).await.expect("a put");
        }
        assert_eq!(keys(1).await, ["a", "b", "c", "d"]);
        client.put(&with_lease("b", 2)).await.expect("a put");
        client.put(&raw::put("c", "free")).await.expect("a put");
        let delete = DeleteRangeRequest {
            key: b"d".to_vec(),
            ..Default::default()
        };
        client.delete_range(&delete).await.expect("a delete");
        client.put(&raw::put("d", "again")).await.expect("a put");
        assert_eq!(
            (keys(1).await, keys(2).await),
            (vec!["a".into()], vec!["b".into()])
        );
        // With ignore_lease a key stays where it is.
        let kept = PutRequest {
            ignore_lease: true,
            ..raw::put("b", "other value")
        };
        client.put(&kept).await.expect("a put");
        assert_eq!(keys(2).await, ["b"]);
        // Without keys asked for there are none in the answer.
        let found = client.time_to_live(2, false).await.expect("an answer");
        assert!(found.keys.is_empty());
        // What is detached outlives the lease.
        client.revoke(1).await.expect("a revocation");
        client.revoke(2).await.expect("a revocation");
        let left = all(&mut client).await;
        let left: Vec<_> = left.iter().map(|kv| kv.key.as_slice()).collect();
        assert_eq!(left, [b"c", b"d"]);
    });
}

#[test]
fn transactions_attach_and_detach() {
    let server = start();
    block_on(async {
        let mut client = Client::connect(&server).await;
        client.grant(5, 600).await.expect("a grant");
        let op = |request| RequestOp {
            request: Some(request),
        };
        let holds = |lease| Compare {
            result: 0,
            target: 4,
            key: b"k".to_vec(),
            wanted: Some(Wanted::Lease(lease)),
            range_end: Vec::new(),
        };
        let txn = |lease, success| TxnRequest {
            compare: vec![holds(lease)],
            success,
            failure: Vec::new(),
        };
        let put = |lease| op(Request::Put(with_lease("k", lease)));
        // A missing key has lease 0.
        let reply = client.txn(&txn(0, vec![put(5)])).await.expect("a txn");
        assert!(reply.succeeded);
        let found = client.time_to_live(5, true).await.expect("an answer");
        assert_eq!(found.keys, [b"k"]);
        // One operation that names an unknown lease refuses all of them; so does one further down.
        let before = revision(&mut client).await;
        let other = op(Request::Put(raw::put("x", "y")));
        let nested = op(Request::Txn(TxnRequest {
            success: vec![put(6)],
            ..Default::default()
        }));
        for bad in [put(6), nested] {
            let txn = txn(5, vec![other.clone(), bad]);
            let failure = client.txn(&txn).await.expect_err("no such lease");
            assert_eq!(failure, refused(NOT_FOUND.0, NOT_FOUND.1));
        }
        // In the branch that does not run it may stand.
        let reply = client.txn(&txn(6, vec![put(6)])).await.expect("a txn");
        assert!(!reply.succeeded);
        assert_eq!(revision(&mut client).await, before);
        // A txn that deletes the key and puts another one with the lease moves the attachment.
        let delete = op(Request::DeleteRange(DeleteRangeRequest {
            key: b"k".to_vec(),
            ..Default::default()
        }));
        let moved = op(Request::Put(with_lease("l", 5)));
        let reply = client.txn(&txn(5, vec![delete, moved])).await;
        assert!(reply.expect("a txn").succeeded);
        let found = client.time_to_live(5, true).await.expect("an answer");
        assert_eq!(found.keys, [b"l"]);
    });
}

#[test]
fn puts_and_their_refusals() {
    let server = start();
    block_on(async {
        let mut client = Client::connect(&server).await;
        client.grant(5, 600).await.expect("a grant");
        for lease in [6, -5, i64::MAX] {
            let failure = client.put(&with_lease("k", lease)).await;
            let failure = failure.expect_err("no such lease");
            assert_eq!(failure, refused(NOT_FOUND.0, NOT_FOUND.1));
        }
        let both = PutRequest {
            ignore_lease: true,
            ..with_lease("k", 5)
        };
        let failure = client.put(&both).await.expect_err("lease and ignore_lease");
        assert_eq!(failure, refused(3, "etcdserver: lease is provided"));
        let missing = PutRequest {
            ignore_lease: true,
            ..raw::put("k", "v")
        };
        let failure = client.put(&missing).await.expect_err("no such key");
        assert_eq!(failure, refused(3, "etcdserver: key not found"));
        assert_eq!(revision(&mut client).await, 1);
    });
}

#[test]
fn time_to_live_and_lists() {
    let server = start();
    block_on(async {
        let mut client = Client::connect(&server).await;
        assert!(client.leases().await.expect("an answer").leases.is_empty());
        let unknown = client.time_to_live(1, true).await.expect("an answer");
        assert_eq!((unknown.id, unknown.ttl, unknown.granted_ttl), (1, -1, 0));
        assert_eq!(unknown.header.expect("a header").revision, 1);
        // Listed by when they end.
        for (id, ttl) in [(30, 3000), (-10, 1000), (20, 2000)] {
            client.grant(id, ttl).await.expect("a grant");
        }
        let list = client.leases().await.expect("an answer");
        let ids: Vec<i64> = list.leases.iter().map(|lease| lease.id).collect();
        assert_eq!(ids, [-10, 20, 30]);
        assert_eq!(list.header.expect("a header").revision, 1);
        let found = client.time_to_live(30, false).await.expect("an answer");
        assert_eq!((found.id, found.granted_ttl), (30, 3000));
        assert!(0 < found.ttl && found.ttl <= 3000, "{found:?}");
    });
}

/// Messages that cannot be read get an answer, and the connection goes on.
#[test]
fn garbage_is_answered() {
    let server = start();
    block_on(async {
        let mut client = Client::connect(&server).await;
        for path in [
            "/etcdserverpb.Lease/LeaseGrant",
            "/etcdserverpb.Lease/LeaseRevoke",
            "/etcdserverpb.Lease/LeaseTimeToLive",
            "/etcdserverpb.Lease/LeaseLeases",
        ] {
            for body in [vec![0x08], vec![0xff; 40], vec![0x0f, 1]] {
                let failure = client.call_bytes(path, body).await.expect_err("garbage");
                assert_eq!(failure.code, 13, "{path}: {failure:?}");
                let text = "grpc: error unmarshalling request: ";
                assert!(failure.text.starts_with(text), "{path}: {failure:?}");
            }
        }
        // Fields nobody knows are skipped.
        let unknown = vec![0x08, 60, 0x7a, 2, b'x', b'y'];
        let granted = client.call_bytes("/etcdserverpb.Lease/LeaseGrant", unknown);
        granted.await.expect("a grant");
    });
}
