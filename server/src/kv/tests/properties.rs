//! Made-up stores and requests against the oracle.

use proptest::prelude::*;

use super::super::validate::is_readonly;
use super::*;

/// Few keys, so that requests meet.
fn key() -> impl Strategy<Value = Vec<u8>> {
    prop::sample::select(vec!["a", "b", "c", "cc", "d", "e"]).prop_map(|key| key.into())
}

fn range_end() -> impl Strategy<Value = Vec<u8>> {
    prop::sample::select(vec!["", "", "\0", "b", "c", "d", "f"]).prop_map(|key| key.into())
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop::sample::select(vec!["", "x", "y", "yy"]).prop_map(|value| value.into())
}

fn lease() -> impl Strategy<Value = i64> {
    prop_oneof![6 => Just(0), 2 => Just(5), 1 => Just(6)]
}

/// Lease 5 exists, lease 6 does not, and some keys still name it.
fn store() -> impl Strategy<Value = ModelStore> {
    let change = (
        key(),
        prop::option::weighted(
            0.8,
            (
                value(),
                prop_oneof![4 => Just(0), 4 => Just(5), 1 => Just(6)],
            ),
        ),
    );
    (prop::collection::vec(change, 0..14), -1..6i64).prop_map(|(changes, compacted)| {
        let mut store = ModelStore::default();
        store.leases.insert(5);
        for (key, put) in changes {
            match put {
                Some((value, lease)) => store.put(&key, &value, lease),
                None => store.delete(&key),
            }
        }
        store.compact_revision = compacted.min(store.revision);
        store
    })
}

fn bound() -> impl Strategy<Value = i64> {
    prop_oneof![5 => Just(0), 2 => 1..12i64]
}

fn range_request() -> impl Strategy<Value = pb::RangeRequest> {
    let numbers = (-1..5i64, prop_oneof![3 => Just(0), 1 => -2..16i64]);
    let sort = (0..3i32, 0..5i32);
    let flags = (any::<bool>(), prop::bool::weighted(0.1));
    (
        key(),
        range_end(),
        numbers,
        sort,
        flags,
        prop::array::uniform4(bound()),
    )
        .prop_map(
            |(key, range_end, (limit, revision), sort, (keys_only, count_only), bounds)| {
                pb::RangeRequest {
                    key,
                    range_end,
                    limit,
                    revision,
                    sort_order: sort.0,
                    sort_target: sort.1,
                    keys_only,
                    count_only,
                    min_mod_revision: bounds[0],
                    max_mod_revision: bounds[1],
                    min_create_revision: bounds[2],
                    max_create_revision: bounds[3],
                    ..Default::default()
                }
            },
        )
}

fn compare() -> impl Strategy<Value = pb::Compare> {
    let union = prop_oneof![
        Just(None),
        (0..4i64).prop_map(|n| Some(TargetUnion::Version(n))),
        (0..10i64).prop_map(|n| Some(TargetUnion::CreateRevision(n))),
        (0..10i64).prop_map(|n| Some(TargetUnion::ModRevision(n))),
        value().prop_map(|v| Some(TargetUnion::Value(v))),
        (0..7i64).prop_map(|n| Some(TargetUnion::Lease(n))),
    ];
    (0..5i32, 0..6i32, key(), range_end(), union).prop_map(
        |(result, target, key, range_end, target_union)| pb::Compare {
            result,
            target,
            key,
            range_end,
            target_union,
        },
    )
}

fn txn_request() -> impl Strategy<Value = pb::TxnRequest> {
    let put = (
        key(),
        value(),
        lease(),
        any::<bool>(),
        prop::array::uniform2(0..5u8),
    )
        .prop_map(|(key, value, lease, prev_kv, ignore)| {
            let (ignore_value, ignore_lease) = (ignore[0] == 0, ignore[1] == 0);
            Request::RequestPut(pb::PutRequest {
                key,
                value: if ignore_value { Vec::new() } else { value },
                lease: if ignore_lease { 0 } else { lease },
                prev_kv,
                ignore_value,
                ignore_lease,
            })
        });
    let delete = (key(), range_end(), any::<bool>()).prop_map(|(key, range_end, prev_kv)| {
        Request::RequestDeleteRange(pb::DeleteRangeRequest {
            key,
            range_end,
            prev_kv,
        })
    });
    let flat = prop_oneof![
        3 => put,
        1 => delete,
        2 => range_request().prop_map(Request::RequestRange),
    ];
    let flat = flat.prop_map(op).boxed();
    let leaf = Just(pb::TxnRequest::default());
    leaf.prop_recursive(3, 10, 3, move |nested| {
        let op = prop_oneof![4 => flat.clone(), 1 => nested.prop_map(txn_op)];
        (
            prop::collection::vec(compare(), 0..2),
            prop::collection::vec(op.clone(), 0..4),
            prop::collection::vec(op, 0..4),
        )
            .prop_map(|(compare, success, failure)| pb::TxnRequest {
                compare,
                success,
                failure,
            })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn ranges_follow_the_rules(store in store(), request in range_request()) {
        let expected = oracle::range(&store, store.revision, &request).map(|mut reply| {
            reply.header = header(store.revision);
            reply
        });
        prop_assert_eq!(range(&store, request), expected);
    }

    #[test]
    fn transactions_follow_the_rules(store in store(), request in txn_request()) {
        let mut ours = store.clone();
        let result = txn(&mut ours, request.clone());
        let bytes = request.encode_to_vec();
        let decoded = TxnRequestRef::decode(&bytes).unwrap();
        if result == Err(EtcdError::DuplicateKey) {
            prop_assert_eq!(&ours, &store);
        } else {
            let mut theirs = store.clone();
            let expected = oracle::txn(&mut theirs, &request);
            prop_assert_eq!(&result, &expected);
            prop_assert_eq!(&ours, if expected.is_ok() { &theirs } else { &store });
        }
        if is_readonly(&decoded) {
            prop_assert_eq!(read_txn(&store, &request), result);
        }
    }

    #[test]
    fn histories_stay_whole(requests in prop::collection::vec(txn_request(), 1..8)) {
        let mut store = ModelStore::default();
        store.leases.insert(5);
        for request in requests {
            let before = store.revision;
            if let Ok(reply) = txn(&mut store, request) {
                let after = reply.header.unwrap().revision;
                prop_assert!(after == before || after == before + 1);
                prop_assert_eq!(after, store.revision);
            }
            for versions in store.keys.values() {
                let mut create = 0;
                let mut version = 0;
                let mut last = (0, 0);
                for entry in versions {
                    prop_assert!(last < (entry.revision, entry.sub) || last == (0, 0));
                    last = (entry.revision, entry.sub);
                    match &entry.record {
                        Some(record) => {
                            if version == 0 {
                                create = entry.revision;
                            }
                            version += 1;
                            prop_assert_eq!(record.meta.mod_revision, entry.revision);
                            prop_assert_eq!(record.meta.create_revision, create);
                            prop_assert_eq!(record.meta.version, version);
                        }
                        None => version = 0,
                    }
                }
            }
        }
    }
}
