//! What each call needs: the user of the test may read and write [a, c), read [m, n) and write [x, y), and nothing else.

use pilaster_tests::auth::{Ask, READ, WRITE};
use pilaster_tests::pb::{
    AlarmRequest, CompactionRequest, Compare, DeleteRangeRequest, PutRequest, RangeRequest,
    Request, RequestOp, TxnRequest,
};
use pilaster_tests::raw::{self, block_on};
use pilaster_tests::watch::{self, WatchCreate, WatchStream};
use pilaster_tests::{Client, Server};

use super::*;

async fn people(server: &Server) -> (Client, Client, Client) {
    let mut nobody = Client::connect(server).await;
    let mut root = turn_on(&mut nobody).await;
    let ann = add_user(&mut root, "ann", "a", "c").await;
    let asks = [grant("ann", READ, "m", "n"), grant("ann", WRITE, "x", "y")];
    all(&mut root, &asks).await;
    (nobody, root, ann)
}

fn empty() -> Failure {
    refused(INVALID_ARGUMENT, "user name is empty")
}

fn range(key: &str, range_end: &str) -> RangeRequest {
    RangeRequest {
        range_end: range_end.into(),
        ..raw::get(key)
    }
}

fn delete(key: &str, range_end: &str, prev_kv: bool) -> DeleteRangeRequest {
    DeleteRangeRequest {
        key: key.into(),
        range_end: range_end.into(),
        prev_kv,
    }
}

fn op(request: Request) -> RequestOp {
    RequestOp {
        request: Some(request),
    }
}

fn success(ops: Vec<RequestOp>) -> TxnRequest {
    TxnRequest {
        success: ops,
        ..TxnRequest::default()
    }
}

fn failure(ops: Vec<RequestOp>) -> TxnRequest {
    TxnRequest {
        failure: ops,
        ..TxnRequest::default()
    }
}

#[test]
fn ranges_need_every_key_of_theirs() {
    let server = start();
    block_on(async {
        let (mut nobody, mut root, mut ann) = people(&server).await;
        // Gaps, ends without end, intervals that reach over what is granted.
        let cases = [
            (("a", ""), true),
            (("b", "c"), true),
            (("a", "c"), true),
            (("m", "n"), true),
            (("bz", "c"), true),
            (("c", ""), false),
            (("a", "c\0"), false),
            (("a", "\0"), false),
            (("\0", "\0"), false),
            (("0", "b"), false),
            (("a", "n"), false),
            (("m", "\0"), false),
            (("x", ""), false),
            (("x", "y"), false),
        ];
        for ((key, end), is_allowed) in cases {
            for serializable in [false, true] {
                let request = RangeRequest {
                    serializable,
                    ..range(key, end)
                };
                let answers = [
                    ann.range(&request).await.err(),
                    ann.range_stream(&request).await.err(),
                ];
                let wanted = (!is_allowed).then(denied);
                assert_eq!(answers, [wanted.clone(), wanted], "[{key:?}, {end:?})");
                assert_eq!(refusal(nobody.range(&request).await), empty());
                assert_eq!(refusal(nobody.range_stream(&request).await), empty());
                root.range(&request).await.expect("root may");
            }
        }
        // What the request itself gets wrong is told first.
        let bad = refused(INVALID_ARGUMENT, "key is not provided");
        assert_eq!(refusal(nobody.range(&range("", "b")).await), bad);
    });
}

#[test]
fn writes_need_theirs_and_reading_for_what_they_tell() {
    let server = start();
    block_on(async {
        let (mut nobody, mut root, mut ann) = people(&server).await;
        let telling = |key: &str| PutRequest {
            prev_kv: true,
            ..put(key)
        };
        for (request, is_allowed) in [
            (put("a"), true),
            (put("x"), true),
            (put("c"), false),
            (put("m"), false),
            (telling("a"), true),
            (telling("x"), false),
        ] {
            let wanted = (!is_allowed).then(denied);
            assert_eq!(ann.put(&request).await.err(), wanted, "{request:?}");
            assert_eq!(refusal(nobody.put(&request).await), empty());
            root.put(&request).await.expect("root may");
        }
        for (request, is_allowed) in [
            (delete("a", "c", true), true),
            (delete("x", "y", false), true),
            (delete("x", "y", true), false),
            (delete("a", "\0", false), false),
            (delete("m", "n", false), false),
            (delete("a", "n", false), false),
        ] {
            let wanted = (!is_allowed).then(denied);
            assert_eq!(
                ann.delete_range(&request).await.err(),
                wanted,
                "{request:?}"
            );
            assert_eq!(refusal(nobody.delete_range(&request).await), empty());
            root.delete_range(&request).await.expect("root may");
        }
    });
}

/// Both branches and all that is nested in them are asked for, whichever runs.
#[test]
fn transactions_need_what_every_branch_needs() {
    let server = start();
    block_on(async {
        let (mut nobody, mut root, mut ann) = people(&server).await;
        let read = |key: &str, end: &str| op(Request::Range(range(key, end)));
        let write = |key: &str| op(Request::Put(put(key)));
        let remove = |key: &str, prev_kv| op(Request::DeleteRange(delete(key, "", prev_kv)));
        let nest = |txn: TxnRequest| op(Request::Txn(txn));
        let compare = |key: &str, range_end: &str| TxnRequest {
            compare: vec![Compare {
                key: key.into(),
                range_end: range_end.into(),
                ..Compare::default()
            }],
            ..TxnRequest::default()
        };
        let telling = PutRequest {
            prev_kv: true,
            ..put("x")
        };
        let cases = [
            (success(vec![read("a", "c"), write("a")]), true),
            (success(vec![read("a", "c")]), true),
            (success(vec![read("m", "n"), write("x")]), true),
            (success(vec![read("c", "")]), false),
            (failure(vec![read("c", "")]), false),
            (success(vec![read("a", "\0")]), false),
            (success(vec![write("c")]), false),
            (failure(vec![write("c")]), false),
            (compare("a", "c"), true),
            (compare("c", ""), false),
            (compare("a", "\0"), false),
            (compare("x", ""), false),
            (success(vec![op(Request::Put(telling))]), false),
            (success(vec![remove("x", false)]), true),
            (success(vec![remove("x", true)]), false),
            (success(vec![remove("m", false)]), false),
            (success(vec![nest(success(vec![write("b")]))]), true),
            (success(vec![nest(success(vec![write("c")]))]), false),
            (success(vec![nest(failure(vec![write("c")]))]), false),
            (failure(vec![nest(failure(vec![read("c", "")]))]), false),
            (success(vec![nest(compare("c", ""))]), false),
            (
                success(vec![nest(success(vec![nest(failure(vec![remove(
                    "m", false,
                )]))]))]),
                false,
            ),
            (
                success(vec![nest(success(vec![nest(compare("z", "\0"))]))]),
                false,
            ),
            (
                success(vec![nest(success(vec![nest(success(vec![read(
                    "b", "",
                )]))]))]),
                true,
            ),
        ];
        for (request, is_allowed) in cases {
            let wanted = (!is_allowed).then(denied);
            assert_eq!(ann.txn(&request).await.err(), wanted, "{request:?}");
            assert_eq!(refusal(nobody.txn(&request).await), empty(), "{request:?}");
            root.txn(&request).await.expect("root may");
        }
        let nothing = TxnRequest::default();
        nobody.txn(&nothing).await.expect("it asks for nothing");
    });
}

/// A lease is as good as the keys it takes with it.
#[test]
fn leases_need_what_is_attached_to_them() {
    let server = start();
    block_on(async {
        let (mut nobody, mut root, mut ann) = people(&server).await;
        assert_eq!(refusal(nobody.grant(0, 600).await), empty());
        for id in 1..=3 {
            ann.grant(id, 600).await.expect("anybody with a name may");
        }
        let attach = |key: &str, lease| PutRequest { lease, ..put(key) };
        ann.put(&attach("a", 1)).await.expect("her own");
        root.put(&attach("a2", 2)).await.expect("root may");
        root.put(&attach("z", 2)).await.expect("root may");
        // Else the end of the lease would take a key of hers, and she its.
        assert_eq!(refusal(ann.put(&attach("b", 2)).await), denied());
        let nested = success(vec![op(Request::Txn(success(vec![op(Request::Put(
            attach("b", 2),
        ))])))]);
        assert_eq!(refusal(ann.txn(&nested).await), denied());
        assert_eq!(refusal(ann.revoke(2).await), denied());
        assert_eq!(refusal(nobody.revoke(1).await), empty());
        let told = ann.time_to_live(1, true).await.expect("her own");
        assert_eq!(told.keys, [b"a"]);
        ann.time_to_live(2, false)
            .await
            .expect("times are nobody's");
        assert_eq!(refusal(ann.time_to_live(2, true).await), denied());
        assert_eq!(refusal(nobody.time_to_live(2, false).await), empty());
        assert_eq!(refusal(ann.leases().await), denied());
        assert_eq!(refusal(nobody.leases().await), empty());
        root.leases().await.expect("root may");
        let mut stream = ann.keep_alives().await;
        stream.send(1);
        assert_eq!(stream.ttl(1).await, 600);
        stream.send(3);
        assert_eq!(stream.ttl(3).await, 600);
        stream.send(2);
        assert_eq!(refusal(stream.next().await), denied());
        let mut stream = nobody.keep_alives().await;
        stream.send(1);
        assert_eq!(refusal(stream.next().await), empty());
        root.delete_range(&delete("z", "", false))
            .await
            .expect("root may");
        ann.revoke(2).await.expect("only her own is attached now");
        ann.revoke(3).await.expect("nothing is attached");
        ann.leases().await.expect("only her own is attached");
        let gone = ann
            .time_to_live(2, true)
            .await
            .expect("anybody with a name may");
        assert_eq!(gone.ttl, -1);
    });
}

#[test]
fn watchers_need_what_they_watch() {
    let server = start();
    block_on(async {
        let (nobody, mut root, ann) = people(&server).await;
        let reason = |failure: &Failure, code: &str| {
            format!("rpc error: code = {code} desc = {}", failure.text)
        };
        let from = |key: &str, range_end: &str| WatchCreate {
            range_end: range_end.into(),
            ..watch::watch(key)
        };
        let mut stream = WatchStream::open(&ann);
        let mut watching = None;
        for (request, is_allowed) in [
            (watch::watch("a"), true),
            (from("a", "c"), true),
            (watch::watch("c"), false),
            (watch::watch("x"), false),
            (watch::watch(""), false),
            (from("a", "\0"), false),
            (from("", "\0"), false),
            (watch::watch_all(), false),
        ] {
            let answer = stream.create(request.clone()).await;
            assert_eq!(answer.canceled, !is_allowed, "{request:?}");
            if is_allowed {
                watching = Some(answer.watch_id);
                assert_eq!(answer.cancel_reason, "");
            } else {
                assert_eq!(answer.watch_id, -1);
                let wanted = reason(&denied(), "PermissionDenied");
                assert_eq!(answer.cancel_reason, wanted, "{request:?}");
            }
        }
        let mut stranger = WatchStream::open(&nobody);
        let answer = stranger.create(watch::watch("a")).await;
        let wanted = reason(&empty(), "InvalidArgument");
        assert_eq!((answer.canceled, answer.cancel_reason), (true, wanted));
        let mut forger = WatchStream::open(&nobody.with("token", "bad.1"));
        let answer = forger.create(watch::watch("a")).await;
        let invalid = refused(UNAUTHENTICATED, "invalid auth token");
        assert_eq!(answer.cancel_reason, reason(&invalid, "Unauthenticated"));
        let negative = WatchCreate {
            start_revision: -1,
            ..watch::watch("c")
        };
        let answer = stream.create(negative).await;
        assert!(answer.cancel_reason.contains("compacted"), "{answer:?}");
        // A watcher that is there stays, whatever becomes of its user.
        assert!(watching.is_some());
        all(&mut root, &[Ask::UserDelete(text("ann"))]).await;
        root.put(&put("a")).await.expect("root may");
        let events = stream.events(2).await;
        assert_eq!(events, ["a=v", "a=v"], "both watchers");
    });
}

#[test]
fn services_need_a_name_or_the_root_role() {
    let server = start();
    block_on(async {
        let (mut nobody, mut root, mut ann) = people(&server).await;
        let alarm = |action| AlarmRequest {
            action,
            member_id: 1,
            alarm: 1,
        };
        let compaction = CompactionRequest {
            revision: 1,
            physical: false,
        };
        assert_eq!(refusal(nobody.status().await), empty());
        ann.status().await.expect("anybody with a name may");
        assert_eq!(refusal(nobody.member_list().await), empty());
        ann.member_list().await.expect("anybody with a name may");
        assert_eq!(refusal(nobody.alarm(&alarm(0)).await), empty());
        ann.alarm(&alarm(0)).await.expect("anybody with a name may");
        for action in [1, 2] {
            assert_eq!(refusal(nobody.alarm(&alarm(action)).await), empty());
            assert_eq!(refusal(ann.alarm(&alarm(action)).await), denied());
        }
        assert_eq!(refusal(nobody.compact(&compaction).await), empty());
        assert_eq!(refusal(ann.compact(&compaction).await), denied());
        assert_eq!(refusal(nobody.hash_kv(0).await), empty());
        assert_eq!(refusal(ann.hash_kv(0).await), denied());
        root.hash_kv(0).await.expect("root may");
        root.put(&put("a")).await.expect("root may");
        root.compact(&compaction).await.expect("root may");
        // A user that is gone is no user, to those who ask for the role.
        let cases = [
            Ask::UserAddWithout(text("late")),
            Ask::GrantRole(text("late"), text("root")),
        ];
        all(&mut root, &cases).await;
    });
}

/// Locks and elections are done with the caller's own rights; hashes and changes of the cluster are root's.
#[test]
fn locks_have_the_rights_of_their_caller() {
    #[derive(Clone, PartialEq, prost::Message)]
    struct Named {
        #[prost(bytes = "vec", tag = "1")]
        name: Vec<u8>,
        #[prost(int64, tag = "2")]
        lease: i64,
    }
    let server = start();
    block_on(async {
        let (nobody, root, mut ann) = people(&server).await;
        ann.grant(7, 600).await.expect("anybody with a name may");
        let lock = "/v3lockpb.Lock/Lock";
        let leader = "/v3electionpb.Election/Leader";
        let ask = async |client: &Client, path, name: &str| {
            let request = Named {
                name: name.into(),
                lease: 7,
            };
            let mut client = client.clone();
            let body = prost::Message::encode_to_vec(&request);
            let answer = client.call_bytes(path, body).await;
            answer.err().map(|refusal| (refusal.code, refusal.text))
        };
        let refused = |text: &str| Some((UNKNOWN, format!("etcdserver: {text}")));
        assert_eq!(ask(&ann, lock, "a/lock").await, None, "her own");
        assert_eq!(
            ask(&ann, lock, "z/lock").await,
            refused("permission denied")
        );
        assert_eq!(
            ask(&nobody, lock, "a/lock").await,
            refused("user name is empty")
        );
        let forger = nobody.with("token", "bad.1");
        assert_eq!(
            ask(&forger, lock, "a/lock").await,
            refused("invalid auth token")
        );
        let no_leader = Some((UNKNOWN, text("election: no leader")));
        assert_eq!(ask(&root, leader, "z").await, no_leader);
        assert_eq!(ask(&ann, leader, "z").await, refused("permission denied"));
        assert_eq!(
            ask(&nobody, leader, "a").await,
            refused("user name is empty")
        );
        for path in [
            "/etcdserverpb.Maintenance/Hash",
            "/etcdserverpb.Maintenance/MoveLeader",
            "/etcdserverpb.Maintenance/Downgrade",
            "/etcdserverpb.Cluster/MemberRemove",
            "/etcdserverpb.Cluster/MemberPromote",
            "/etcdserverpb.Cluster/MemberUpdate",
        ] {
            let told = ann.call_bytes(path, Vec::new()).await.expect_err("root's");
            assert_eq!(told, denied(), "{path}");
            let told = nobody.clone().call_bytes(path, Vec::new()).await;
            assert_eq!(told.expect_err("root's"), empty(), "{path}");
        }
    });
}
