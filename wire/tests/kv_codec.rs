//! The hot path codec against a protobuf library, on made-up messages and on damaged ones.

use proptest::prelude::*;
use prost::Message;
use wire::kv::{
    CompactionRequestRef, CompareUnion, DecodeError, DeleteRangeRequestRef, KeyValueParts, OpRef,
    PutRequestRef, RangeRequestRef, ReplyKind, RequestEnvelope, ResponseHeader, TXN_DEPTH_MAX,
    TxnReply, TxnRequestRef, etcd_request_bytes, put_delete_range_response, put_deleted_prev_kv,
    put_put_response, put_range_end, put_range_header, put_range_kv, put_range_kv_parts,
};
use wire::messages::etcdserverpb::compare::TargetUnion;
use wire::messages::etcdserverpb::request_op::Request;
use wire::messages::etcdserverpb::response_op::Response;
use wire::messages::{etcdserverpb as pb, mvccpb};

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..6),
        1 => prop::collection::vec(any::<u8>(), 100..300),
    ]
}

fn number() -> impl Strategy<Value = i64> {
    prop_oneof![Just(0), 0..200i64, any::<i64>()]
}

fn range_request() -> impl Strategy<Value = pb::RangeRequest> {
    let numbers = prop::array::uniform6(number());
    (
        bytes(),
        bytes(),
        numbers,
        any::<[bool; 3]>(),
        -1..5i32,
        any::<i32>(),
    )
        .prop_map(
            |(key, range_end, n, flags, sort_order, sort_target)| pb::RangeRequest {
                key,
                range_end,
                limit: n[0],
                revision: n[1],
                sort_order,
                sort_target,
                serializable: flags[0],
                keys_only: flags[1],
                count_only: flags[2],
                min_mod_revision: n[2],
                max_mod_revision: n[3],
                min_create_revision: n[4],
                max_create_revision: n[5],
            },
        )
}

fn put_request() -> impl Strategy<Value = pb::PutRequest> {
    (bytes(), bytes(), number(), any::<[bool; 3]>()).prop_map(|(key, value, lease, flags)| {
        pb::PutRequest {
            key,
            value,
            lease,
            prev_kv: flags[0],
            ignore_value: flags[1],
            ignore_lease: flags[2],
        }
    })
}

fn delete_request() -> impl Strategy<Value = pb::DeleteRangeRequest> {
    (bytes(), bytes(), any::<bool>()).prop_map(|(key, range_end, prev_kv)| pb::DeleteRangeRequest {
        key,
        range_end,
        prev_kv,
    })
}

fn compare() -> impl Strategy<Value = pb::Compare> {
    let union = prop_oneof![
        Just(None),
        number().prop_map(|n| Some(TargetUnion::Version(n))),
        number().prop_map(|n| Some(TargetUnion::CreateRevision(n))),
        number().prop_map(|n| Some(TargetUnion::ModRevision(n))),
        bytes().prop_map(|b| Some(TargetUnion::Value(b))),
        number().prop_map(|n| Some(TargetUnion::Lease(n))),
    ];
    (0..5i32, 0..6i32, bytes(), bytes(), union).prop_map(
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
    let leaf = Just(pb::TxnRequest::default());
    leaf.prop_recursive(3, 12, 3, |nested| {
        let op = prop_oneof![
            Just(None),
            range_request().prop_map(|r| Some(Request::RequestRange(r))),
            put_request().prop_map(|r| Some(Request::RequestPut(r))),
            delete_request().prop_map(|r| Some(Request::RequestDeleteRange(r))),
            nested.prop_map(|r| Some(Request::RequestTxn(r))),
        ]
        .prop_map(|request| pb::RequestOp { request });
        (
            prop::collection::vec(compare(), 0..3),
            prop::collection::vec(op.clone(), 0..3),
            prop::collection::vec(op, 0..3),
        )
            .prop_map(|(compare, success, failure)| pb::TxnRequest {
                compare,
                success,
                failure,
            })
    })
}

fn key_value() -> impl Strategy<Value = mvccpb::KeyValue> {
    (bytes(), bytes(), prop::array::uniform4(number())).prop_map(|(key, value, n)| {
        mvccpb::KeyValue {
            key,
            value,
            create_revision: n[0],
            mod_revision: n[1],
            version: n[2],
            lease: n[3],
        }
    })
}

fn owned_range(r: &RangeRequestRef<'_>) -> pb::RangeRequest {
    pb::RangeRequest {
        key: r.key.to_vec(),
        range_end: r.range_end.to_vec(),
        limit: r.limit,
        revision: r.revision,
        sort_order: r.sort_order,
        sort_target: r.sort_target,
        serializable: r.serializable,
        keys_only: r.keys_only,
        count_only: r.count_only,
        min_mod_revision: r.min_mod_revision,
        max_mod_revision: r.max_mod_revision,
        min_create_revision: r.min_create_revision,
        max_create_revision: r.max_create_revision,
    }
}

fn owned_put(r: &PutRequestRef<'_>) -> pb::PutRequest {
    pb::PutRequest {
        key: r.key.to_vec(),
        value: r.value.to_vec(),
        lease: r.lease,
        prev_kv: r.prev_kv,
        ignore_value: r.ignore_value,
        ignore_lease: r.ignore_lease,
    }
}

fn owned_delete(r: &DeleteRangeRequestRef<'_>) -> pb::DeleteRangeRequest {
    pb::DeleteRangeRequest {
        key: r.key.to_vec(),
        range_end: r.range_end.to_vec(),
        prev_kv: r.prev_kv,
    }
}

fn owned_op(op: &OpRef<'_>) -> pb::RequestOp {
    let request = match op {
        OpRef::Range(r) => Some(Request::RequestRange(owned_range(r))),
        OpRef::Put(r) => Some(Request::RequestPut(owned_put(r))),
        OpRef::DeleteRange(r) => Some(Request::RequestDeleteRange(owned_delete(r))),
        OpRef::Txn(r) => Some(Request::RequestTxn(owned_txn(r))),
        OpRef::Unset => None,
    };
    pb::RequestOp { request }
}

fn owned_txn(r: &TxnRequestRef<'_>) -> pb::TxnRequest {
    let lens = r.lens();
    assert_eq!(
        (lens.compares, lens.success, lens.failure),
        (
            r.compares().count(),
            r.success().count(),
            r.failure().count()
        )
    );
    let compare = r
        .compares()
        .map(|c| pb::Compare {
            result: c.result,
            target: c.target,
            key: c.key.to_vec(),
            range_end: c.range_end.to_vec(),
            target_union: match c.union {
                CompareUnion::Unset => None,
                CompareUnion::Version(n) => Some(TargetUnion::Version(n)),
                CompareUnion::CreateRevision(n) => Some(TargetUnion::CreateRevision(n)),
                CompareUnion::ModRevision(n) => Some(TargetUnion::ModRevision(n)),
                CompareUnion::Value(b) => Some(TargetUnion::Value(b.to_vec())),
                CompareUnion::Lease(n) => Some(TargetUnion::Lease(n)),
            },
        })
        .collect();
    pb::TxnRequest {
        compare,
        success: r.success().map(|op| owned_op(&op)).collect(),
        failure: r.failure().map(|op| owned_op(&op)).collect(),
    }
}

fn owned_kv(kv: &KeyValueParts<'_>) -> mvccpb::KeyValue {
    mvccpb::KeyValue {
        key: kv.key.to_vec(),
        create_revision: kv.create_revision,
        mod_revision: kv.mod_revision,
        version: kv.version,
        value: kv.value.to_vec(),
        lease: kv.lease,
    }
}

fn parts(kv: &mvccpb::KeyValue) -> KeyValueParts<'_> {
    KeyValueParts {
        key: &kv.key,
        create_revision: kv.create_revision,
        mod_revision: kv.mod_revision,
        version: kv.version,
        value: &kv.value,
        lease: kv.lease,
    }
}

/// Both decoders refuse the bytes, or both read the same message from them.
fn check_all(bytes: &[u8]) {
    fn same<A, B: PartialEq + std::fmt::Debug>(
        ours: Result<A, DecodeError>,
        to_owned: impl Fn(&A) -> B,
        theirs: Result<B, prost::DecodeError>,
    ) {
        assert_eq!(ours.ok().as_ref().map(to_owned), theirs.ok());
    }
    same(
        RangeRequestRef::decode(bytes),
        owned_range,
        pb::RangeRequest::decode(bytes),
    );
    same(
        PutRequestRef::decode(bytes),
        owned_put,
        pb::PutRequest::decode(bytes),
    );
    same(
        DeleteRangeRequestRef::decode(bytes),
        owned_delete,
        pb::DeleteRangeRequest::decode(bytes),
    );
    same(
        TxnRequestRef::decode(bytes),
        owned_txn,
        pb::TxnRequest::decode(bytes),
    );
    same(
        KeyValueParts::decode(bytes),
        owned_kv,
        mvccpb::KeyValue::decode(bytes),
    );
    same(
        CompactionRequestRef::decode(bytes),
        |r| pb::CompactionRequest {
            revision: r.revision,
            physical: r.physical,
        },
        pb::CompactionRequest::decode(bytes),
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn requests_decode_to_what_was_encoded(
        range in range_request(),
        put in put_request(),
        delete in delete_request(),
        txn in txn_request(),
    ) {
        let bytes = range.encode_to_vec();
        let decoded = RangeRequestRef::decode(&bytes).unwrap();
        prop_assert_eq!(owned_range(&decoded), range);
        prop_assert_eq!(decoded.encoded_len(), bytes.len());
        let bytes = put.encode_to_vec();
        let decoded = PutRequestRef::decode(&bytes).unwrap();
        prop_assert_eq!(owned_put(&decoded), put);
        prop_assert_eq!(decoded.encoded_len(), bytes.len());
        let bytes = delete.encode_to_vec();
        let decoded = DeleteRangeRequestRef::decode(&bytes).unwrap();
        prop_assert_eq!(owned_delete(&decoded), delete);
        prop_assert_eq!(decoded.encoded_len(), bytes.len());
        let bytes = txn.encode_to_vec();
        let decoded = TxnRequestRef::decode(&bytes).unwrap();
        let lens = decoded.lens();
        prop_assert_eq!(
            (lens.compares, lens.success, lens.failure),
            (txn.compare.len(), txn.success.len(), txn.failure.len())
        );
        prop_assert_eq!(owned_txn(&decoded), txn);
        prop_assert_eq!(decoded.encoded_len(), bytes.len());
    }

    #[test]
    fn damaged_and_merged_messages_are_read_alike(
        first in txn_request(),
        second in txn_request(),
        kv in key_value(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
    ) {
        // One after the other they merge; nested in an operation, occurrences of one field merge too.
        let first = first.encode_to_vec();
        let second = second.encode_to_vec();
        let mut op = Vec::new();
        for part in [&first, &second] {
            prost::encoding::bytes::encode(4, part, &mut op);
        }
        let mut message = [first, second, kv.encode_to_vec()].concat();
        prost::encoding::bytes::encode(2, &op, &mut message);
        check_all(&message);
        for (at, byte) in edits {
            let at = at.index(message.len());
            message[at] = byte;
            check_all(&message);
        }
        check_all(&message[..cut.index(message.len())]);
    }

    #[test]
    fn arbitrary_bytes_are_read_alike(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        check_all(&bytes);
    }

    #[test]
    fn records_are_encoded_alike(kv in key_value()) {
        let mut bytes = Vec::new();
        parts(&kv).encode(&mut bytes);
        prop_assert_eq!(&bytes, &kv.encode_to_vec());
        prop_assert_eq!(parts(&kv).encoded_len(), bytes.len());
        prop_assert_eq!(owned_kv(&KeyValueParts::decode(&bytes).unwrap()), kv);
    }

    #[test]
    fn replies_are_encoded_alike(
        numbers in (any::<u64>(), any::<u64>(), number(), any::<u64>()),
        kvs in prop::collection::vec(key_value(), 0..4),
        more in any::<bool>(),
        count in number(),
    ) {
        let header = ResponseHeader {
            cluster_id: numbers.0,
            member_id: numbers.1,
            revision: numbers.2,
            raft_term: numbers.3,
        };
        let pb_header = Some(pb_header(&header));
        let mut out = Vec::new();
        put_range_header(&mut out, &header);
        for (at, kv) in kvs.iter().enumerate() {
            if at % 2 == 0 {
                put_range_kv(&mut out, &kv.encode_to_vec());
            } else {
                put_range_kv_parts(&mut out, &parts(kv));
            }
        }
        put_range_end(&mut out, more, count);
        let expected =
            pb::RangeResponse { header: pb_header, kvs: kvs.clone(), more, count };
        prop_assert_eq!(&out, &expected.encode_to_vec());

        let prev_kv = kvs.first().cloned();
        out.clear();
        put_put_response(&mut out, &header, prev_kv.as_ref().map(|kv| kv.encode_to_vec()).as_deref());
        let expected = pb::PutResponse { header: pb_header, prev_kv };
        prop_assert_eq!(&out, &expected.encode_to_vec());

        let mut prev_kvs = Vec::new();
        for kv in &kvs {
            put_deleted_prev_kv(&mut prev_kvs, &kv.encode_to_vec());
        }
        out.clear();
        put_delete_range_response(&mut out, &header, count, &prev_kvs);
        let expected =
            pb::DeleteRangeResponse { header: pb_header, deleted: count, prev_kvs: kvs };
        prop_assert_eq!(&out, &expected.encode_to_vec());
    }

    #[test]
    fn transaction_replies_are_encoded_alike(reply in txn_response(), revision in number()) {
        let header = ResponseHeader { cluster_id: 1, member_id: u64::MAX, revision, raft_term: 300 };
        let mut expected = reply;
        expected.header = Some(pb_header(&header));
        let mut out = b"before".to_vec();
        let mut builder = TxnReply::default();
        for _ in 0..2 {
            out.truncate(6);
            builder.begin(&mut out, expected.succeeded);
            for op in &expected.responses {
                build(&mut builder, &mut out, op);
            }
            builder.finish(&mut out, &header);
            prop_assert_eq!(&out[..6], b"before");
            prop_assert_eq!(&out[6..], &expected.encode_to_vec());
        }
    }

    #[test]
    fn entry_sizes_are_those_of_etcd(
        txn in txn_request(),
        put in put_request(),
        id in any::<u64>(),
        username in "[a-z]{0,5}",
        auth_revision in any::<u64>(),
    ) {
        let header =
            Some(pb::RequestHeader { id, username: username.clone(), auth_revision });
        let bytes = txn.encode_to_vec();
        let request = TxnRequestRef::decode(&bytes).unwrap();
        let ours =
            etcd_request_bytes(RequestEnvelope::Txn(&request), id, &username, auth_revision);
        let theirs = pb::InternalRaftRequest {
            header: header.clone(),
            txn: Some(txn),
            ..Default::default()
        };
        prop_assert_eq!(ours, theirs.encoded_len());
        let bytes = put.encode_to_vec();
        let request = PutRequestRef::decode(&bytes).unwrap();
        let ours =
            etcd_request_bytes(RequestEnvelope::Put(&request), id, &username, auth_revision);
        let theirs = pb::InternalRaftRequest { header, put: Some(put), ..Default::default() };
        prop_assert_eq!(ours, theirs.encoded_len());
    }
}

fn pb_header(header: &ResponseHeader) -> pb::ResponseHeader {
    pb::ResponseHeader {
        cluster_id: header.cluster_id,
        member_id: header.member_id,
        revision: header.revision,
        raft_term: header.raft_term,
    }
}

fn txn_response() -> impl Strategy<Value = pb::TxnResponse> {
    let leaf = Just(pb::TxnResponse {
        header: Some(pb::ResponseHeader::default()),
        ..Default::default()
    });
    leaf.prop_recursive(4, 24, 4, |nested| {
        let kvs = prop::collection::vec(key_value(), 0..3);
        let op = prop_oneof![
            kvs.prop_map(|kvs| Response::ResponseRange(pb::RangeResponse {
                header: Some(pb::ResponseHeader::default()),
                kvs,
                ..Default::default()
            })),
            Just(Response::ResponsePut(pb::PutResponse {
                header: Some(pb::ResponseHeader {
                    revision: 7,
                    ..Default::default()
                }),
                prev_kv: None,
            })),
            nested.prop_map(Response::ResponseTxn),
        ]
        .prop_map(|response| pb::ResponseOp {
            response: Some(response),
        });
        (any::<bool>(), prop::collection::vec(op, 0..4)).prop_map(|(succeeded, responses)| {
            pb::TxnResponse {
                header: Some(pb::ResponseHeader::default()),
                succeeded,
                responses,
            }
        })
    })
}

fn build(builder: &mut TxnReply, out: &mut Vec<u8>, op: &pb::ResponseOp) {
    match op.response.as_ref().expect("generated with one") {
        Response::ResponseRange(range) => {
            builder.begin_op(out, ReplyKind::Range);
            out.extend(range.encode_to_vec());
        }
        Response::ResponsePut(put) => {
            builder.begin_op(out, ReplyKind::Put);
            out.extend(put.encode_to_vec());
        }
        Response::ResponseDeleteRange(_) => unreachable!("not generated"),
        Response::ResponseTxn(txn) => {
            builder.begin_nested(out, txn.succeeded);
            for op in &txn.responses {
                build(builder, out, op);
            }
        }
    }
    builder.end_op(out);
}

/// A transaction in a transaction in a transaction.
fn nested(depth: u32) -> Vec<u8> {
    let mut message = Vec::new();
    for _ in 1..depth {
        let mut op = Vec::new();
        prost::encoding::bytes::encode(4, &message, &mut op);
        message.clear();
        prost::encoding::bytes::encode(2, &op, &mut message);
    }
    message
}

#[test]
fn nesting_is_bounded() {
    assert!(TxnRequestRef::decode(&nested(TXN_DEPTH_MAX)).is_ok());
    assert_eq!(
        TxnRequestRef::decode(&nested(TXN_DEPTH_MAX + 1)).err(),
        Some(DecodeError::TooDeep)
    );
    assert_eq!(
        TxnRequestRef::decode(&nested(3000)).err(),
        Some(DecodeError::TooDeep)
    );
}

#[test]
fn groups_are_skipped_and_bounded() {
    // Field 20 as a group that holds a number, then the key.
    let group = [0xa3, 0x01, 0x08, 0x05, 0xa4, 0x01, 0x0a, 0x01, b'k'];
    assert_eq!(PutRequestRef::decode(&group).unwrap().key, b"k");
    let endless = [0xa3, 0x01].repeat(1000);
    assert_eq!(PutRequestRef::decode(&endless), Err(DecodeError::Malformed));
}

#[test]
fn a_field_of_another_type_is_refused() {
    assert_eq!(
        PutRequestRef::decode(&[0x08, 0x01]),
        Err(DecodeError::WireType(1))
    );
    assert_eq!(
        PutRequestRef::decode(&[0x1a, 0x00]),
        Err(DecodeError::WireType(3))
    );
}

#[test]
fn numbers_end_after_64_bits() {
    let lease = |bytes: &[u8]| {
        let message = [&[0x18], bytes].concat();
        let ours = PutRequestRef::decode(&message).map(|put| put.lease).ok();
        assert_eq!(
            ours,
            pb::PutRequest::decode(&*message).map(|put| put.lease).ok()
        );
        ours
    };
    assert_eq!(lease(&[0x80, 0x00]), Some(0));
    let mut longest = [0xff; 10];
    longest[9] = 1;
    assert_eq!(lease(&longest), Some(-1));
    longest[9] = 2;
    assert_eq!(lease(&longest), None);
    longest[9] = 0x81;
    assert_eq!(lease(&longest), None);
    assert_eq!(lease(&[0xff; 9]), None);
}
