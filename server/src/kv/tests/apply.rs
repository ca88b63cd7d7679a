//! Puts, deletes and transactions as they are applied.

use wire::messages::mvccpb::KeyValue;

use super::*;

fn kv(key: &str, value: &str, create: i64, modified: i64, version: i64, lease: i64) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: value.into(),
        create_revision: create,
        mod_revision: modified,
        version,
        lease,
    }
}

fn put_request(key: &str, value: &str) -> pb::PutRequest {
    pb::PutRequest {
        key: key.into(),
        value: value.into(),
        ..Default::default()
    }
}

fn get(store: &ModelStore, key: &str) -> Option<KeyValue> {
    let request = pb::RangeRequest {
        key: key.into(),
        ..Default::default()
    };
    range(store, request).unwrap().kvs.pop()
}

#[test]
fn versions_and_revisions() {
    let mut store = ModelStore::default();
    assert_eq!(
        put(&mut store, put_request("a", "1")).unwrap().header,
        header(2)
    );
    assert_eq!(
        put(&mut store, put_request("a", "2")).unwrap().header,
        header(3)
    );
    assert_eq!(get(&store, "a"), Some(kv("a", "2", 2, 3, 2, 0)));
    let request = pb::DeleteRangeRequest {
        key: b"a".to_vec(),
        ..Default::default()
    };
    assert_eq!(
        delete(&mut store, request.clone()).unwrap().header,
        header(4)
    );
    let again = delete(&mut store, request).unwrap();
    assert_eq!((again.header, again.deleted), (header(4), 0));
    put(&mut store, put_request("a", "3")).unwrap();
    assert_eq!(get(&store, "a"), Some(kv("a", "3", 5, 5, 1, 0)));
}

#[test]
fn previous_records() {
    let mut store = ModelStore::default();
    let with_prev = |value: &str| pb::PutRequest {
        prev_kv: true,
        ..put_request("a", value)
    };
    assert_eq!(put(&mut store, with_prev("1")).unwrap().prev_kv, None);
    assert_eq!(
        put(&mut store, with_prev("2")).unwrap().prev_kv,
        Some(kv("a", "1", 2, 2, 1, 0))
    );
    put(&mut store, put_request("b", "3")).unwrap();
    let request = pb::DeleteRangeRequest {
        key: b"a".to_vec(),
        range_end: b"\0".to_vec(),
        prev_kv: true,
    };
    let reply = delete(&mut store, request.clone()).unwrap();
    assert_eq!((reply.header, reply.deleted), (header(5), 2));
    assert_eq!(
        reply.prev_kvs,
        [kv("a", "2", 2, 3, 2, 0), kv("b", "3", 4, 4, 1, 0)]
    );
    let reply = delete(&mut store, request).unwrap();
    assert_eq!(
        (reply.header, reply.deleted, reply.prev_kvs.len()),
        (header(5), 0, 0)
    );
}

#[test]
fn values_and_leases_can_be_kept() {
    let mut store = ModelStore::default();
    store.leases.extend([5, 6]);
    let keep_value = |lease| pb::PutRequest {
        ignore_value: true,
        lease,
        prev_kv: true,
        ..put_request("a", "")
    };
    let keep_lease = |value: &str| pb::PutRequest {
        ignore_lease: true,
        ..put_request("a", value)
    };
    assert_eq!(put(&mut store, keep_value(0)), Err(EtcdError::KeyNotFound));
    assert_eq!(
        put(&mut store, keep_lease("1")),
        Err(EtcdError::KeyNotFound)
    );
    put(
        &mut store,
        pb::PutRequest {
            lease: 5,
            ..put_request("a", "1")
        },
    )
    .unwrap();
    put(&mut store, keep_lease("2")).unwrap();
    assert_eq!(get(&store, "a"), Some(kv("a", "2", 2, 3, 2, 5)));
    let reply = put(&mut store, keep_value(6)).unwrap();
    assert_eq!(reply.prev_kv, Some(kv("a", "2", 2, 3, 2, 5)));
    assert_eq!(get(&store, "a"), Some(kv("a", "2", 2, 4, 3, 6)));
    put(&mut store, keep_value(0)).unwrap();
    assert_eq!(get(&store, "a").unwrap().lease, 0);
    let both = pb::PutRequest {
        ignore_lease: true,
        ..keep_value(0)
    };
    put(&mut store, both).unwrap();
    assert_eq!(get(&store, "a"), Some(kv("a", "2", 2, 6, 5, 0)));
}

#[test]
fn unknown_leases() {
    let mut store = ModelStore::default();
    let request = pb::PutRequest {
        lease: 9,
        ..put_request("a", "1")
    };
    assert_eq!(
        put(&mut store, request.clone()),
        Err(EtcdError::LeaseNotFound)
    );
    // The lease is looked at before the key.
    let ignore = pb::PutRequest {
        ignore_value: true,
        lease: 9,
        ..put_request("a", "")
    };
    assert_eq!(put(&mut store, ignore), Err(EtcdError::LeaseNotFound));
    let ops = vec![put_op("b", "1"), op(Request::RequestPut(request.clone()))];
    assert_eq!(txn(&mut store, success(ops)), Err(EtcdError::LeaseNotFound));
    // The branch that is not taken is not asked.
    let request = pb::TxnRequest {
        failure: vec![op(Request::RequestPut(request))],
        ..Default::default()
    };
    assert!(txn(&mut store, request).is_ok());
}

fn holds(store: &mut ModelStore, compare: pb::Compare) -> bool {
    let request = pb::TxnRequest {
        compare: vec![compare],
        ..Default::default()
    };
    let read = read_txn(store, &request).unwrap();
    assert_eq!(txn(store, request).unwrap(), read);
    read.succeeded
}

#[test]
fn comparisons() {
    let mut store = ModelStore::default();
    store.leases.insert(5);
    store.put(b"a", b"m", 0); // 2
    store.put(b"a", b"m", 5); // 3
    let (equal, greater, less, not_equal) = (0, 1, 2, 3);
    let unions = |n: i64| {
        [
            (0, TargetUnion::Version(n), 2),
            (1, TargetUnion::CreateRevision(n), 2),
            (2, TargetUnion::ModRevision(n), 3),
            (4, TargetUnion::Lease(n), 5),
        ]
    };
    for number in 0..7 {
        for (target, union, actual) in unions(number) {
            for (result, expected) in [
                (equal, actual == number),
                (greater, actual > number),
                (less, actual < number),
                (not_equal, actual != number),
                (17, true),
            ] {
                let compare = compare(target, result, "a", Some(union.clone()));
                assert_eq!(
                    holds(&mut store, compare),
                    expected,
                    "{target} {result} {number}"
                );
            }
        }
    }
    for (value, ordering) in [("l", 1), ("m", 0), ("n", -1), ("", 1), ("mm", -1)] {
        for (result, expected) in [
            (equal, ordering == 0),
            (greater, ordering > 0),
            (less, ordering < 0),
            (9, true),
        ] {
            let union = Some(TargetUnion::Value(value.into()));
            assert_eq!(holds(&mut store, compare(3, result, "a", union)), expected);
        }
    }
    // No operand, or one of another kind, counts as zero or empty.
    assert!(holds(&mut store, compare(0, greater, "a", None)));
    assert!(!holds(
        &mut store,
        compare(0, equal, "a", Some(TargetUnion::ModRevision(2)))
    ));
    assert!(holds(
        &mut store,
        compare(3, greater, "a", Some(TargetUnion::Version(2)))
    ));
    // An unknown target compares equal.
    assert!(holds(
        &mut store,
        compare(42, equal, "a", Some(TargetUnion::Version(9)))
    ));
    assert!(!holds(&mut store, compare(42, greater, "a", None)));
}

#[test]
fn comparisons_of_missing_keys() {
    let mut store = ModelStore::default();
    for target in [0, 1, 2, 4, 42] {
        assert!(holds(&mut store, compare(target, 0, "a", None)));
        assert!(!holds(&mut store, compare(target, 1, "a", None)));
        assert!(!holds(&mut store, compare(target, 3, "a", None)));
    }
    assert!(holds(
        &mut store,
        compare(0, 2, "a", Some(TargetUnion::Version(1)))
    ));
    for result in [0, 1, 2, 3, 17] {
        assert!(!holds(&mut store, compare(3, result, "a", None)));
    }
}

#[test]
fn comparisons_of_intervals() {
    let mut store = ModelStore::default();
    store.put(b"a", b"1", 0);
    store.put(b"b", b"1", 0);
    store.put(b"b", b"1", 0);
    let over = |key: &str, end: &str, target, union| pb::Compare {
        range_end: end.into(),
        ..compare(target, 0, key, Some(union))
    };
    let one = || TargetUnion::Value(b"1".to_vec());
    assert!(holds(&mut store, over("a", "c", 3, one())));
    assert!(holds(&mut store, over("a", "\0", 3, one())));
    assert!(!holds(
        &mut store,
        over("a", "c", 0, TargetUnion::Version(1))
    ));
    assert!(holds(
        &mut store,
        over("a", "b", 0, TargetUnion::Version(1))
    ));
    // No key in it: like a missing key.
    assert!(holds(
        &mut store,
        over("x", "z", 0, TargetUnion::Version(0))
    ));
    assert!(!holds(
        &mut store,
        over("x", "z", 3, TargetUnion::Value(Vec::new()))
    ));
    assert!(holds(
        &mut store,
        over("c", "a", 0, TargetUnion::Version(0))
    ));
}

#[test]
fn operations_see_what_came_before_them() {
    let mut store = ModelStore::default();
    store.put(b"a", b"old", 0); // 2
    let ops = vec![
        range_op("a", "z"),
        put_op("b", "new"),
        range_op("a", "z"),
        delete_op("a", ""),
        delete_op("nothing", ""),
        range_op("a", "z"),
        put_op("c", "x"),
    ];
    let reply = txn(&mut store, success(ops)).unwrap();
    assert_eq!(reply.header, header(3));
    assert!(reply.succeeded);
    let revisions: Vec<_> = reply
        .responses
        .iter()
        .map(|op| {
            use pb::response_op::Response;
            let (header, size) = match op.response.as_ref().unwrap() {
                Response::ResponseRange(r) => (&r.header, r.kvs.len() as i64),
                Response::ResponsePut(r) => (&r.header, -1),
                Response::ResponseDeleteRange(r) => (&r.header, r.deleted),
                Response::ResponseTxn(_) => unreachable!(),
            };
            assert_eq!(*header, op_header(header.as_ref().unwrap().revision));
            (header.as_ref().unwrap().revision, size)
        })
        .collect();
    assert_eq!(
        revisions,
        [(2, 1), (3, -1), (3, 2), (3, 1), (3, 0), (3, 1), (3, -1)]
    );
    // One revision, numbered inside.
    let subs: Vec<_> = [b"b", b"a", b"c"]
        .map(|key| {
            store.keys[key.as_slice()]
                .last()
                .map(|v| (v.revision, v.sub))
                .unwrap()
        })
        .to_vec();
    assert_eq!(subs, [(3, 0), (3, 1), (3, 2)]);
}

#[test]
fn a_transaction_that_changes_nothing_takes_no_revision() {
    let mut store = ModelStore::default();
    let reply = txn(&mut store, success(vec![delete_op("a", "")])).unwrap();
    assert_eq!((reply.header, store.revision), (header(1), 1));
    let request = pb::TxnRequest {
        failure: vec![put_op("a", "")],
        ..Default::default()
    };
    let reply = txn(&mut store, request).unwrap();
    assert_eq!((reply.header, reply.responses.len()), (header(1), 0));
}

#[test]
fn nested_transactions_compare_with_the_state_before() {
    let mut store = ModelStore::default();
    let nested = pb::TxnRequest {
        compare: vec![compare(0, 0, "a", Some(TargetUnion::Version(0)))],
        success: vec![put_op("b", "yes")],
        failure: vec![put_op("b", "no")],
    };
    let reply = txn(&mut store, success(vec![put_op("a", "1"), txn_op(nested)])).unwrap();
    let Some(pb::response_op::Response::ResponseTxn(inner)) = &reply.responses[1].response else {
        panic!("the second operation is a transaction")
    };
    assert_eq!(inner.header, Some(pb::ResponseHeader::default()));
    assert!(inner.succeeded);
    assert_eq!(get(&store, "b").unwrap().value, b"yes");
    assert_eq!(reply.header, header(2));
}

#[test]
fn range_revisions_in_transactions() {
    let mut store = ModelStore::default();
    store.put(b"a", b"1", 0);
    store.put(b"a", b"2", 0);
    let at = |store: &mut ModelStore, revision, with_put: bool| {
        let mut ops = vec![op(Request::RequestRange(pb::RangeRequest {
            key: b"a".to_vec(),
            revision,
            ..Default::default()
        }))];
        if with_put {
            ops.insert(0, put_op("z", ""));
        } else {
            let read = read_txn(store, &success(ops.clone()));
            assert_eq!(read, txn(store, success(ops.clone())));
        }
        let reply = txn(store, success(ops))?;
        match reply.responses.last().unwrap().response.as_ref().unwrap() {
            pb::response_op::Response::ResponseRange(range) => Ok(range.kvs[0].value[0] as char),
            _ => unreachable!(),
        }
    };
    assert_eq!(at(&mut store, 0, false), Ok('2'));
    assert_eq!(at(&mut store, 2, false), Ok('1'));
    assert_eq!(at(&mut store, -1, false), Ok('2'));
    assert_eq!(at(&mut store, -2, false), Err(EtcdError::Compacted));
    assert_eq!(at(&mut store, 4, false), Err(EtcdError::FutureRevision));
    // Not even the transaction's own revision can be named.
    assert_eq!(at(&mut store, 4, true), Err(EtcdError::FutureRevision));
    store.compact_revision = 3;
    assert_eq!(at(&mut store, 2, false), Err(EtcdError::Compacted));
    assert_eq!(at(&mut store, -1, false), Err(EtcdError::Compacted));
    assert_eq!(at(&mut store, 3, true), Ok('2'));
}

fn keep_value_op(key: &str) -> pb::RequestOp {
    op(Request::RequestPut(pb::PutRequest {
        ignore_value: true,
        ..put_request(key, "")
    }))
}

/// etcd's members crash on these and cannot start again.
#[test]
fn a_value_that_the_transaction_deletes_cannot_be_kept() {
    let mut store = ModelStore::default();
    store.put(b"a", b"1", 0);
    store.put(b"b", b"1", 0);
    let keep_lease = op(Request::RequestPut(pb::PutRequest {
        ignore_lease: true,
        ..put_request("b", "2")
    }));
    let refused = [
        vec![delete_op("a", "\0"), keep_value_op("b")],
        vec![put_op("c", ""), delete_op("b", "\0"), keep_lease],
        vec![
            txn_op(success(vec![delete_op("a", "\0")])),
            txn_op(success(vec![keep_value_op("b")])),
        ],
        vec![
            put_op("b", "x"),
            delete_op("a", "\0"),
            txn_op(success(vec![keep_value_op("a")])),
        ],
    ];
    for ops in refused {
        assert_eq!(
            txn(&mut store, success(ops.clone())),
            Err(EtcdError::KeyNotFound),
            "{ops:?}"
        );
    }
    let allowed = [
        vec![keep_value_op("b"), delete_op("a", "\0")],
        vec![delete_op("b", "\0"), keep_value_op("a")],
    ];
    for ops in allowed {
        assert!(
            txn(&mut store.clone(), success(ops.clone())).is_ok(),
            "{ops:?}"
        );
    }
}

#[test]
fn checks_look_at_the_state_before() {
    let mut store = ModelStore::default();
    // The key will be there when the put runs, but was not before.
    let ops = vec![
        txn_op(pb::TxnRequest {
            success: vec![put_op("a", "1")],
            ..Default::default()
        }),
        keep_value_op("b"),
    ];
    assert_eq!(txn(&mut store, success(ops)), Err(EtcdError::KeyNotFound));
    assert_eq!(store.revision, 1);
}

#[test]
fn other_commands_are_left_to_others() {
    let mut store = ModelStore::default();
    let compact = storage::command::Compact {
        revision: 1,
        physical: false,
    };
    let command = Command {
        header: Header::default(),
        body: Body::Compact(compact),
    };
    let payload = CommandArena::default().encode(&command).unwrap();
    let mut txn = store.begin();
    let result = Applier::default().apply(access(&payload).unwrap(), &mut txn, &HEADER, None);
    assert_eq!(result, None);
}

#[test]
fn members_without_a_waiting_client_read_no_ranges() {
    let mut store = ModelStore::default();
    let bytes = success(vec![range_op("a", "b"), put_op("c", "")]).encode_to_vec();
    let request = TxnRequestRef::decode(&bytes).unwrap();
    TxnTables::default().with_txn(&request, |tables| {
        let command = Command {
            header: Header::default(),
            body: Body::Txn(tables),
        };
        let payload = CommandArena::default().encode(&command).unwrap();
        let command = access(&payload).unwrap();
        for (reply, ranges) in [(None, 0), (Some(&mut Vec::new()), 1)] {
            let mut txn = store.begin();
            Applier::default()
                .apply(command, &mut txn, &HEADER, reply)
                .unwrap()
                .unwrap();
            assert_eq!(txn.calls.get(), ranges);
            txn.commit();
        }
    });
}

/// The newest state is asked for, so a compaction between two steps makes the job begin again, not fail.
#[test]
fn read_only_transactions_outlive_compactions() {
    let mut store = ModelStore::default();
    for key in 0..40 {
        store.put(format!("a{key}").as_bytes(), b"1", 0);
    }
    let request = pb::TxnRequest {
        compare: vec![pb::Compare {
            range_end: b"b".to_vec(),
            ..compare(0, 1, "a", None)
        }],
        success: vec![range_op("a", "b"), range_op("a1", "")],
        ..Default::default()
    };
    for steps in 1..60 {
        let mut store = store.clone();
        let bytes = request.encode_to_vec();
        let mut job = ReadTxnJob::default();
        let mut out = b"before".to_vec();
        job.begin(&store, &bytes, &HEADER);
        let budget = Budget {
            keys: 2,
            bytes: usize::MAX,
        };
        let mut taken = 0;
        while job.step(&store, budget, &mut out).unwrap() == Progress::More {
            taken += 1;
            if taken == steps {
                store.put(b"a1", b"2", 0);
                store.put(b"a2", b"2", 0);
                store.compact_revision = store.revision;
            }
        }
        let reply = pb::TxnResponse::decode(&out[6..]).unwrap();
        if taken >= steps {
            assert_eq!(reply, txn(&mut store, request.clone()).unwrap());
        } else {
            assert_eq!(reply.header, header(41));
        }
    }
}

#[test]
fn tables_keep_their_memory() {
    let bytes = success(vec![
        put_op("a", "1"),
        txn_op(success(vec![put_op("b", "2")])),
    ])
    .encode_to_vec();
    let request = TxnRequestRef::decode(&bytes).unwrap();
    let mut tables = TxnTables::default();
    let first = tables.with_txn(&request, |txn| txn.ops.as_ptr().addr());
    let second = tables.with_txn(&request, |txn| txn.ops.as_ptr().addr());
    assert_eq!(first, second);
}
