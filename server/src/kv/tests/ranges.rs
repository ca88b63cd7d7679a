//! Ranges: intervals, revisions, limits, filters, orders.

use super::super::store::read_record;
use super::*;

/// Six keys with distinct versions, revisions and values; `c` has a lease, `e` is gone.
fn store() -> ModelStore {
    let mut store = ModelStore::default();
    store.leases.insert(77);
    store.put(b"d", b"v1", 0); // 2
    store.put(b"a", b"v5", 0); // 3
    store.put(b"c", b"v3", 77); // 4
    store.put(b"b", b"v2", 0); // 5
    store.put(b"b", b"v4", 0); // 6
    store.put(b"e", b"gone", 0); // 7
    store.delete(b"e"); // 8
    store.put(b"b", b"v2", 0); // 9
    store.put(b"a", b"v6", 0); // 10
    store
}

fn all() -> pb::RangeRequest {
    pb::RangeRequest {
        key: b"\0".to_vec(),
        range_end: b"\0".to_vec(),
        ..Default::default()
    }
}

fn keys(store: &ModelStore, request: pb::RangeRequest) -> String {
    let reply = range(store, request).unwrap();
    assert_eq!(reply.header, header(store.revision));
    let keys: Vec<_> = reply
        .kvs
        .iter()
        .map(|kv| String::from_utf8_lossy(&kv.key).into_owned())
        .collect();
    format!(
        "{} count {}{}",
        keys.join(""),
        reply.count,
        if reply.more { " more" } else { "" }
    )
}

#[test]
fn intervals() {
    let store = store();
    let check = |key: &str, end: &str, expected: &str| {
        let request = pb::RangeRequest {
            key: key.into(),
            range_end: end.into(),
            ..Default::default()
        };
        assert_eq!(keys(&store, request), expected);
    };
    check("a", "", "a count 1");
    check("e", "", " count 0");
    check("\0", "\0", "abcd count 4");
    check("b", "\0", "bcd count 3");
    check("a", "c", "ab count 2");
    check("c", "a", " count 0");
    check("c", "c", " count 0");
    check("bb", "d", "c count 1");
}

#[test]
fn revisions() {
    let mut store = store();
    let at = |store: &ModelStore, revision| {
        range(store, pb::RangeRequest { revision, ..all() }).map(|reply| reply.count)
    };
    assert_eq!(at(&store, 0), Ok(4));
    assert_eq!(at(&store, -5), Ok(4));
    assert_eq!(at(&store, 1), Ok(0));
    assert_eq!(at(&store, 7), Ok(5));
    assert_eq!(at(&store, 10), Ok(4));
    assert_eq!(at(&store, 11), Err(EtcdError::FutureRevision));
    store.compact_revision = 7;
    assert_eq!(at(&store, 7), Ok(5));
    assert_eq!(at(&store, 6), Err(EtcdError::Compacted));
    assert_eq!(at(&store, -5), Ok(4));
    let single = |revision| {
        let key = b"b".to_vec();
        range(
            &store,
            pb::RangeRequest {
                key,
                revision,
                ..Default::default()
            },
        )
        .map(|reply| reply.kvs[0].version)
    };
    assert_eq!(single(0), Ok(3));
    assert_eq!(single(8), Ok(2));
    assert_eq!(single(6), Err(EtcdError::Compacted));
    assert_eq!(single(99), Err(EtcdError::FutureRevision));
}

#[test]
fn limits() {
    let store = store();
    let limited = |limit| keys(&store, pb::RangeRequest { limit, ..all() });
    assert_eq!(limited(0), "abcd count 4");
    assert_eq!(limited(1), "a count 4 more");
    assert_eq!(limited(3), "abc count 4 more");
    assert_eq!(limited(4), "abcd count 4");
    assert_eq!(limited(i64::MAX), "abcd count 4");
    assert_eq!(limited(-1), "abcd count 4");
}

#[test]
fn counts_only() {
    let store = store();
    let request = pb::RangeRequest {
        count_only: true,
        limit: 1,
        sort_order: 2,
        min_mod_revision: 100,
        ..all()
    };
    assert_eq!(keys(&store, request), " count 4");
    let request = pb::RangeRequest {
        key: b"a".to_vec(),
        count_only: true,
        ..Default::default()
    };
    assert_eq!(keys(&store, request), " count 1");
}

#[test]
fn filters() {
    let store = store();
    // mod: a10 b9 c4 d2; create: a3 b5 c4 d2.
    let check = |min_mod: i64, max_mod, min_create, max_create, limit, expected: &str| {
        let request = pb::RangeRequest {
            min_mod_revision: min_mod,
            max_mod_revision: max_mod,
            min_create_revision: min_create,
            max_create_revision: max_create,
            limit,
            ..all()
        };
        assert_eq!(keys(&store, request), expected);
    };
    check(4, 0, 0, 0, 0, "abc count 4");
    check(4, 9, 0, 0, 0, "bc count 4");
    check(0, 9, 0, 0, 0, "bcd count 4");
    check(0, 0, 3, 4, 0, "ac count 4");
    check(0, 0, 3, 0, 2, "ab count 4 more");
    check(0, 0, 3, 0, 3, "abc count 4");
    check(11, 0, 0, 0, 1, " count 4");
    let request = pb::RangeRequest {
        key: b"a".to_vec(),
        max_mod_revision: 9,
        ..Default::default()
    };
    assert_eq!(keys(&store, request), " count 1");
}

#[test]
fn orders() {
    let store = store();
    // version: a2 b3 c1 d1; create: a3 b5 c4 d2; mod: a10 b9 c4 d2; value: a v6, b v2, c v3, d v1.
    let check = |sort_order, sort_target, limit, expected: &str| {
        for keys_only in [false, true] {
            let request = pb::RangeRequest {
                sort_order,
                sort_target,
                limit,
                keys_only,
                ..all()
            };
            assert_eq!(
                keys(&store, request),
                expected,
                "{sort_order} {sort_target}"
            );
        }
    };
    check(0, 0, 0, "abcd count 4");
    check(1, 0, 2, "ab count 4 more");
    check(2, 0, 0, "dcba count 4");
    check(2, 0, 1, "d count 4 more");
    check(1, 1, 0, "cdab count 4");
    check(2, 1, 2, "ba count 4 more");
    check(1, 2, 0, "dacb count 4");
    check(2, 2, 4, "bcad count 4");
    check(1, 3, 0, "dcba count 4");
    check(2, 3, 1, "a count 4 more");
    check(1, 4, 0, "dbca count 4");
    check(2, 4, 2, "ac count 4 more");
}

/// Without an order the limit cuts in key order first: of the limit + 1 first keys the best are kept.
#[test]
fn a_target_without_an_order_is_cut_before_it_is_sorted() {
    let store = store();
    let check = |sort_target, limit, filter, expected: &str| {
        let request = pb::RangeRequest {
            sort_target,
            limit,
            min_mod_revision: filter,
            ..all()
        };
        assert_eq!(keys(&store, request), expected);
    };
    check(3, 0, 0, "dcba count 4");
    check(3, 2, 0, "cb count 4 more");
    check(3, 1, 0, "b count 4 more");
    check(3, 3, 0, "dcb count 4 more");
    check(3, 4, 0, "dcba count 4");
    // With a filter everything is scanned first.
    check(3, 2, 1, "dc count 4 more");
}

#[test]
fn keys_only_leaves_out_values_and_mostly_leases() {
    let store = store();
    let reply = |sort_target, sort_order| {
        let request = pb::RangeRequest {
            key: b"c".to_vec(),
            range_end: b"e".to_vec(),
            keys_only: true,
            sort_target,
            sort_order,
            ..Default::default()
        };
        range(&store, request).unwrap().kvs
    };
    for (kvs, lease) in [
        (reply(0, 0), 0),
        (reply(1, 1), 0),
        (reply(4, 2), 77),
        (reply(4, 0), 77),
    ] {
        let c = kvs.iter().find(|kv| kv.key == b"c").unwrap();
        assert_eq!(c.value, b"");
        assert_eq!(c.lease, lease);
        assert_eq!((c.create_revision, c.mod_revision, c.version), (4, 4, 1));
    }
    let request = pb::RangeRequest {
        key: b"c".to_vec(),
        keys_only: true,
        ..Default::default()
    };
    let single = range(&store, request).unwrap().kvs;
    assert_eq!((single[0].lease, single[0].value.len()), (0, 0));
}

#[test]
fn whole_records_are_returned() {
    let store = store();
    let kvs = range(&store, all()).unwrap().kvs;
    let c = &kvs[2];
    assert_eq!(
        (c.value.as_slice(), c.lease, c.version),
        (b"v3".as_slice(), 77, 1)
    );
    // They are the stored bytes.
    let mut out = Vec::new();
    let request = RangeRequestRef {
        key: b"c",
        ..Default::default()
    };
    RangeJob::default()
        .begin(&store, &request, &HEADER, &mut out)
        .unwrap();
    assert_eq!(read_record(&c.encode_to_vec()).lease, 77);
    assert!(
        out.windows(c.encoded_len())
            .any(|window| window == c.encode_to_vec())
    );
}
