//! The semantics on a model store: one case for every rule, and made-up requests against a plain re-telling of the rules.

mod apply;
mod oracle;
mod properties;
mod ranges;
mod streams;
mod validation;

use prost::Message;
use storage::command::{Body, Command, CommandArena, Header, access};
use wire::error::EtcdError;
use wire::kv::{
    DeleteRangeRequestRef, PutRequestRef, RangeRequestRef, ResponseHeader, TxnRequestRef,
};
use wire::messages::etcdserverpb as pb;
use wire::messages::etcdserverpb::compare::TargetUnion;
use wire::messages::etcdserverpb::request_op::Request;

use super::apply::Applier;
use super::command::{TxnTables, delete_range_body, put_body};
use super::model::ModelStore;
use super::range::{Budget, RangeJob};
use super::read_txn::ReadTxnJob;
use super::store::Progress;
use super::validate::{check_delete_range, check_put, check_range, check_txn};

const HEADER: ResponseHeader = ResponseHeader {
    cluster_id: 11,
    member_id: 22,
    revision: 0,
    raft_term: 33,
};

const BUDGETS: [Budget; 4] = [
    Budget::UNBOUNDED,
    Budget {
        keys: 1,
        bytes: usize::MAX,
    },
    Budget { keys: 3, bytes: 1 },
    Budget {
        keys: usize::MAX,
        bytes: 40,
    },
];

fn header(revision: i64) -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader {
        cluster_id: 11,
        member_id: 22,
        revision,
        raft_term: 33,
    })
}

fn op_header(revision: i64) -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader {
        revision,
        ..Default::default()
    })
}

/// Applies a command as every member would: with and without a client waiting, to the same state.
fn apply_body(store: &mut ModelStore, body: Body<'_>) -> Result<Vec<u8>, EtcdError> {
    let command = Command {
        header: Header::default(),
        body,
    };
    let payload = CommandArena::default().encode(&command).unwrap();
    let command = access(&payload).unwrap();
    let before = store.clone();

    let mut follower = store.clone();
    let mut txn = follower.begin();
    let silent = Applier::default()
        .apply(command, &mut txn, &HEADER, None)
        .unwrap();
    txn.commit();

    let mut reply = b"before".to_vec();
    let mut txn = store.begin();
    let result = Applier::default()
        .apply(command, &mut txn, &HEADER, Some(&mut reply))
        .unwrap();
    txn.commit();

    assert_eq!(silent, result);
    assert_eq!(follower, *store, "members stay equal");
    if result.is_err() {
        assert_eq!(before, *store, "a failed command changes nothing");
        assert_eq!(reply, b"before");
    }
    result.map(|()| reply.split_off(6))
}

fn put(store: &mut ModelStore, request: pb::PutRequest) -> Result<pb::PutResponse, EtcdError> {
    let bytes = request.encode_to_vec();
    let request = PutRequestRef::decode(&bytes).unwrap();
    check_put(&request)?;
    let reply = apply_body(store, put_body(&request))?;
    Ok(pb::PutResponse::decode(&*reply).unwrap())
}

fn delete(
    store: &mut ModelStore,
    request: pb::DeleteRangeRequest,
) -> Result<pb::DeleteRangeResponse, EtcdError> {
    let bytes = request.encode_to_vec();
    let request = DeleteRangeRequestRef::decode(&bytes).unwrap();
    check_delete_range(&request)?;
    let reply = apply_body(store, delete_range_body(&request))?;
    Ok(pb::DeleteRangeResponse::decode(&*reply).unwrap())
}

fn txn(store: &mut ModelStore, request: pb::TxnRequest) -> Result<pb::TxnResponse, EtcdError> {
    let bytes = request.encode_to_vec();
    let request = TxnRequestRef::decode(&bytes).unwrap();
    check_txn(&request, 128)?;
    let reply = TxnTables::default().with_txn(&request, |txn| apply_body(store, Body::Txn(txn)))?;
    Ok(pb::TxnResponse::decode(&*reply).unwrap())
}

fn range_with(
    store: &ModelStore,
    request: &pb::RangeRequest,
    budget: Budget,
) -> Result<pb::RangeResponse, EtcdError> {
    let bytes = request.encode_to_vec();
    let request = RangeRequestRef::decode(&bytes).unwrap();
    check_range(&request)?;
    let mut job = RangeJob::default();
    let mut out = Vec::new();
    job.begin(store, &request, &HEADER, &mut out)?;
    while job.step(store, budget, &mut out)? == Progress::More {}
    Ok(pb::RangeResponse::decode(&*out).unwrap())
}

/// A range, which must not depend on how it is sliced.
fn range(store: &ModelStore, request: pb::RangeRequest) -> Result<pb::RangeResponse, EtcdError> {
    let results = BUDGETS.map(|budget| range_with(store, &request, budget));
    for result in &results[1..] {
        assert_eq!(*result, results[0], "{request:?}");
    }
    results.into_iter().next().unwrap()
}

/// A read-only transaction outside the log, which must not depend on how it is sliced.
fn read_txn(store: &ModelStore, request: &pb::TxnRequest) -> Result<pb::TxnResponse, EtcdError> {
    let bytes = request.encode_to_vec();
    check_txn(&TxnRequestRef::decode(&bytes).unwrap(), 128)?;
    let results = BUDGETS.map(|budget| {
        let mut job = ReadTxnJob::default();
        let mut out = Vec::new();
        job.begin(store, &bytes, &HEADER);
        while job.step(store, budget, &mut out)? == Progress::More {}
        Ok(pb::TxnResponse::decode(&*out).unwrap())
    });
    for result in &results[1..] {
        assert_eq!(*result, results[0], "{request:?}");
    }
    results.into_iter().next().unwrap()
}

fn put_op(key: &str, value: &str) -> pb::RequestOp {
    let put = pb::PutRequest {
        key: key.into(),
        value: value.into(),
        ..Default::default()
    };
    op(Request::RequestPut(put))
}

fn delete_op(key: &str, range_end: &str) -> pb::RequestOp {
    op(Request::RequestDeleteRange(pb::DeleteRangeRequest {
        key: key.into(),
        range_end: range_end.into(),
        prev_kv: false,
    }))
}

fn range_op(key: &str, range_end: &str) -> pb::RequestOp {
    op(Request::RequestRange(pb::RangeRequest {
        key: key.into(),
        range_end: range_end.into(),
        ..Default::default()
    }))
}

fn txn_op(txn: pb::TxnRequest) -> pb::RequestOp {
    op(Request::RequestTxn(txn))
}

fn op(request: Request) -> pb::RequestOp {
    pb::RequestOp {
        request: Some(request),
    }
}

fn success(ops: Vec<pb::RequestOp>) -> pb::TxnRequest {
    pb::TxnRequest {
        success: ops,
        ..Default::default()
    }
}

fn compare(target: i32, result: i32, key: &str, union: Option<TargetUnion>) -> pb::Compare {
    pb::Compare {
        target,
        result,
        key: key.into(),
        target_union: union,
        range_end: Vec::new(),
    }
}
