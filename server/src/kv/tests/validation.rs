//! Checks before a request is proposed or read.

use prost::Message;
use wire::error::EtcdError;
use wire::kv::{PutRequestRef, RangeRequestRef, TxnRequestRef};

use super::super::quota::{put_cost, txn_cost};
use super::super::validate::{
    check_delete_range, check_put, check_range, check_range_stream, check_txn, is_readonly,
    is_serializable,
};
use super::*;

fn check(request: &pb::TxnRequest, ops_max: usize) -> Result<(), EtcdError> {
    let bytes = request.encode_to_vec();
    check_txn(&TxnRequestRef::decode(&bytes).unwrap(), ops_max)
}

#[test]
fn ranges() {
    let base = RangeRequestRef {
        key: b"a",
        ..Default::default()
    };
    assert_eq!(check_range(&base), Ok(()));
    assert_eq!(
        check_range(&RangeRequestRef::default()),
        Err(EtcdError::EmptyKey)
    );
    for (order, target, is_valid) in [
        (2, 4, true),
        (3, 0, false),
        (-1, 0, false),
        (0, 5, false),
        (0, -1, false),
    ] {
        let request = RangeRequestRef {
            sort_order: order,
            sort_target: target,
            ..base
        };
        let expected = if is_valid {
            Ok(())
        } else {
            Err(EtcdError::InvalidSortOption)
        };
        assert_eq!(check_range(&request), expected);
    }
    // The key comes first.
    let request = RangeRequestRef {
        sort_order: 9,
        ..Default::default()
    };
    assert_eq!(check_range(&request), Err(EtcdError::EmptyKey));
}

#[test]
fn range_streams() {
    let base = RangeRequestRef {
        key: b"a",
        ..Default::default()
    };
    for (order, target, expected) in [
        (0, 0, Ok(())),
        (1, 0, Ok(())),
        (0, 3, Ok(())),
        (2, 0, Err(EtcdError::RangeStreamSort)),
        (1, 1, Err(EtcdError::RangeStreamSort)),
        (9, 1, Err(EtcdError::InvalidSortOption)),
    ] {
        let request = RangeRequestRef {
            sort_order: order,
            sort_target: target,
            ..base
        };
        assert_eq!(check_range_stream(&request), expected);
    }
    let request = RangeRequestRef {
        max_create_revision: 1,
        ..base
    };
    assert_eq!(
        check_range_stream(&request),
        Err(EtcdError::RangeStreamFilters)
    );
    let request = RangeRequestRef {
        min_mod_revision: -1,
        sort_order: 2,
        ..base
    };
    assert_eq!(
        check_range_stream(&request),
        Err(EtcdError::RangeStreamSort)
    );
}

#[test]
fn puts_and_deletes() {
    let base = PutRequestRef {
        key: b"a",
        ..Default::default()
    };
    assert_eq!(check_put(&base), Ok(()));
    let request = PutRequestRef {
        value: b"v",
        ignore_value: true,
        ..Default::default()
    };
    assert_eq!(check_put(&request), Err(EtcdError::EmptyKey));
    let request = PutRequestRef {
        value: b"v",
        lease: 1,
        ignore_value: true,
        ignore_lease: true,
        ..base
    };
    assert_eq!(check_put(&request), Err(EtcdError::ValueProvided));
    let request = PutRequestRef {
        lease: 1,
        ignore_lease: true,
        ..base
    };
    assert_eq!(check_put(&request), Err(EtcdError::LeaseProvided));
    assert_eq!(
        check_delete_range(&Default::default()),
        Err(EtcdError::EmptyKey)
    );
}

#[test]
fn operation_counts() {
    let ranges = |n: usize| vec![range_op("a", ""); n];
    let too_many = Err(EtcdError::TooManyOps);
    assert_eq!(check(&success(ranges(4)), 4), Ok(()));
    assert_eq!(check(&success(ranges(5)), 4), too_many);
    let failure = pb::TxnRequest {
        failure: ranges(5),
        ..Default::default()
    };
    assert_eq!(check(&failure, 4), too_many);
    let compares = vec![super::compare(0, 0, "a", None); 5];
    assert_eq!(
        check(
            &pb::TxnRequest {
                compare: compares,
                ..Default::default()
            },
            4
        ),
        too_many
    );
    // A child has what its parent's longest list leaves.
    let nested = |n: usize| success(vec![txn_op(success(ranges(n))), range_op("a", "")]);
    assert_eq!(check(&nested(2), 4), Ok(()));
    assert_eq!(check(&nested(3), 4), too_many);
    // As deep as the budget of 128 carries, and one further.
    let mut deep = pb::TxnRequest::default();
    for _ in 0..128 {
        deep = success(vec![txn_op(deep)]);
    }
    assert_eq!(check(&deep, 128), Ok(()));
    assert_eq!(check(&success(vec![txn_op(deep)]), 128), too_many);
}

#[test]
fn operations_are_checked_in_both_branches_and_in_order() {
    let bad_key = put_op("", "v");
    let unset = pb::RequestOp { request: None };
    let bad_sort = op(Request::RequestRange(pb::RangeRequest {
        key: b"a".to_vec(),
        sort_order: 7,
        ..Default::default()
    }));
    let cases = [
        (vec![bad_key.clone(), unset.clone()], EtcdError::EmptyKey),
        (vec![unset.clone(), bad_key.clone()], EtcdError::KeyNotFound),
        (
            vec![bad_sort.clone(), unset.clone()],
            EtcdError::InvalidSortOption,
        ),
        (
            vec![txn_op(success(vec![bad_key.clone()]))],
            EtcdError::EmptyKey,
        ),
        (vec![delete_op("", "")], EtcdError::EmptyKey),
        // Duplicates come after everything else.
        (
            vec![put_op("a", ""), put_op("a", ""), bad_key],
            EtcdError::EmptyKey,
        ),
    ];
    for (ops, expected) in cases {
        assert_eq!(check(&success(ops.clone()), 128), Err(expected));
        let request = pb::TxnRequest {
            failure: ops,
            ..Default::default()
        };
        assert_eq!(check(&request, 128), Err(expected));
    }
    let request = pb::TxnRequest {
        compare: vec![super::compare(0, 0, "", None)],
        success: vec![unset],
        ..Default::default()
    };
    assert_eq!(check(&request, 128), Err(EtcdError::EmptyKey));
}

#[test]
fn duplicate_keys() {
    let both = |success, failure| {
        txn_op(pb::TxnRequest {
            success,
            failure,
            ..Default::default()
        })
    };
    let put = |key: &str| put_op(key, "");
    let cases = [
        (vec![put("a"), put("b")], true),
        (vec![put("a"), put("a")], false),
        (vec![put("a"), delete_op("a", "")], false),
        (vec![delete_op("a", ""), put("a")], false),
        (vec![delete_op("a", "c"), put("b")], false),
        (vec![delete_op("a", "c"), put("c")], true),
        (
            vec![delete_op("a", "c"), delete_op("b", "d"), delete_op("b", "")],
            true,
        ),
        // An end below its begin, and "everything from here on", cover nothing.
        (vec![delete_op("c", "a"), put("b")], true),
        (vec![delete_op("c", "a"), put("c")], true),
        (vec![delete_op("a", "\0"), put("b")], true),
        (vec![delete_op("a", "\0"), put("a")], true),
        // Children against this level, wherever the operations stand.
        (vec![both(vec![put("a")], vec![]), put("a")], false),
        (vec![put("a"), both(vec![], vec![put("a")])], false),
        (
            vec![both(vec![put("a")], vec![]), delete_op("a", "")],
            false,
        ),
        (
            vec![both(vec![delete_op("a", "")], vec![]), put("a")],
            false,
        ),
        // Branches of one child exclude each other.
        (vec![both(vec![put("a")], vec![put("a")])], true),
        (vec![both(vec![put("a")], vec![delete_op("a", "")])], true),
        (vec![both(vec![put("a")], vec![put("a")]), put("a")], false),
        // Siblings: a later child's puts meet an earlier child's puts and deletes, not the other way round.
        (
            vec![both(vec![put("a")], vec![]), both(vec![put("a")], vec![])],
            false,
        ),
        (
            vec![both(vec![put("a")], vec![]), both(vec![], vec![put("a")])],
            false,
        ),
        (
            vec![
                both(vec![delete_op("a", "")], vec![]),
                both(vec![put("a")], vec![]),
            ],
            false,
        ),
        (
            vec![
                both(vec![put("a")], vec![]),
                both(vec![delete_op("a", "")], vec![]),
            ],
            true,
        ),
        (
            vec![both(vec![both(vec![put("a")], vec![])], vec![]), put("a")],
            false,
        ),
    ];
    for (ops, is_valid) in cases {
        let expected = if is_valid {
            Ok(())
        } else {
            Err(EtcdError::DuplicateKey)
        };
        assert_eq!(check(&success(ops.clone()), 128), expected, "{ops:?}");
        let request = pb::TxnRequest {
            failure: ops.clone(),
            ..Default::default()
        };
        assert_eq!(check(&request, 128), expected, "{ops:?}");
    }
    // The outermost branches exclude each other too.
    let request = pb::TxnRequest {
        success: vec![put("a")],
        failure: vec![put("a")],
        ..Default::default()
    };
    assert_eq!(check(&request, 128), Ok(()));
}

#[test]
fn read_only_and_serializable() {
    let serializable = op(Request::RequestRange(pb::RangeRequest {
        key: b"a".to_vec(),
        serializable: true,
        ..Default::default()
    }));
    let cases = [
        (vec![], vec![], true, true),
        (vec![range_op("a", "")], vec![], true, false),
        (
            vec![serializable.clone()],
            vec![serializable.clone()],
            true,
            true,
        ),
        (
            vec![serializable.clone()],
            vec![range_op("a", "")],
            true,
            false,
        ),
        (vec![put_op("a", "")], vec![], false, false),
        (
            vec![serializable],
            vec![txn_op(pb::TxnRequest::default())],
            false,
            false,
        ),
    ];
    for (success, failure, read_only, local) in cases {
        let request = pb::TxnRequest {
            success,
            failure,
            ..Default::default()
        };
        let bytes = request.encode_to_vec();
        let decoded = TxnRequestRef::decode(&bytes).unwrap();
        assert_eq!(
            (is_readonly(&decoded), is_serializable(&decoded)),
            (read_only, local)
        );
    }
}

#[test]
fn costs() {
    let put = PutRequestRef {
        key: b"abc",
        value: b"12345",
        ..Default::default()
    };
    assert_eq!(put_cost(&put), 264);
    let request = pb::TxnRequest {
        success: vec![
            put_op("abc", "12345"),
            range_op("a", ""),
            delete_op("a", ""),
        ],
        failure: vec![put_op("a", ""), txn_op(success(vec![put_op("b", "1")]))],
        ..Default::default()
    };
    let bytes = request.encode_to_vec();
    let decoded = TxnRequestRef::decode(&bytes).unwrap();
    assert_eq!(txn_cost(&decoded), 257 + 258);
    TxnTables::default().with_txn(&decoded, |txn| {
        let command = Command {
            header: Header::default(),
            body: Body::Txn(txn),
        };
        let payload = CommandArena::default().encode(&command).unwrap();
        assert_eq!(
            super::super::quota::command_cost(access(&payload).unwrap()),
            257 + 258
        );
    });
}
