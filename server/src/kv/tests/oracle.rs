//! The rules told again in the plainest way: owned messages, whole lists, no slices, no tables.

use std::cmp::Ordering;

use wire::error::EtcdError;
use wire::messages::etcdserverpb as pb;
use wire::messages::etcdserverpb::compare::TargetUnion;
use wire::messages::etcdserverpb::request_op::Request;
use wire::messages::etcdserverpb::response_op::Response;
use wire::messages::mvccpb::KeyValue;

use super::super::model::{ModelStore, ModelTxn};
use super::super::store::{KeyRange, WriteTxn};

fn live(store: &ModelStore, key: &[u8], end: &[u8], at: i64) -> Vec<KeyValue> {
    store
        .live_range(KeyRange::new(key, end), at)
        .into_iter()
        .map(|(key, record)| KeyValue {
            key: key.to_vec(),
            create_revision: record.meta.create_revision,
            mod_revision: record.meta.mod_revision,
            version: record.meta.version,
            value: record.value.clone(),
            lease: record.lease,
        })
        .collect()
}

/// A range at the newest revision `newest`; the header has only the revision.
pub(super) fn range(
    store: &ModelStore,
    newest: i64,
    r: &pb::RangeRequest,
) -> Result<pb::RangeResponse, EtcdError> {
    if r.revision > newest {
        return Err(EtcdError::FutureRevision);
    }
    let at = if r.revision <= 0 { newest } else { r.revision };
    if at < store.compact_revision {
        return Err(EtcdError::Compacted);
    }
    let mut kvs = live(store, &r.key, &r.range_end, at);
    let count = kvs.len() as i64;
    let header = super::op_header(newest);
    if r.count_only {
        return Ok(pb::RangeResponse {
            header,
            count,
            ..Default::default()
        });
    }
    let filtered = [
        r.min_mod_revision,
        r.max_mod_revision,
        r.min_create_revision,
        r.max_create_revision,
    ]
    .iter()
    .any(|&bound| bound != 0);
    let natural = r.sort_order == 0 || (r.sort_target == 0 && r.sort_order == 1);
    if natural && !filtered && r.limit > 0 {
        kvs.truncate(r.limit as usize + 1);
    }
    kvs.retain(|kv| {
        (r.max_mod_revision == 0 || kv.mod_revision <= r.max_mod_revision)
            && (r.min_mod_revision == 0 || kv.mod_revision >= r.min_mod_revision)
            && (r.max_create_revision == 0 || kv.create_revision <= r.max_create_revision)
            && (r.min_create_revision == 0 || kv.create_revision >= r.min_create_revision)
    });
    let by_target = |a: &KeyValue, b: &KeyValue| -> Ordering {
        match r.sort_target {
            0 => a.key.cmp(&b.key),
            1 => a.version.cmp(&b.version),
            2 => a.create_revision.cmp(&b.create_revision),
            3 => a.mod_revision.cmp(&b.mod_revision),
            _ => a.value.cmp(&b.value),
        }
    };
    // The sort is stable and the keys come in order, so ties go by ascending key whatever the order.
    match r.sort_order {
        2 => kvs.sort_by(|a, b| by_target(b, a)),
        _ => kvs.sort_by(by_target),
    }
    let more = r.limit > 0 && kvs.len() as i64 > r.limit;
    if more {
        kvs.truncate(r.limit as usize);
    }
    if r.keys_only {
        for kv in &mut kvs {
            kv.value.clear();
            if r.sort_target != 4 {
                kv.lease = 0;
            }
        }
    }
    Ok(pb::RangeResponse {
        header,
        kvs,
        more,
        count,
    })
}

fn compare_one(c: &pb::Compare, kv: &KeyValue) -> bool {
    let number = |kind: i32| match (&c.target_union, kind) {
        (Some(TargetUnion::Version(n)), 0) => *n,
        (Some(TargetUnion::CreateRevision(n)), 1) => *n,
        (Some(TargetUnion::ModRevision(n)), 2) => *n,
        (Some(TargetUnion::Lease(n)), 4) => *n,
        _ => 0,
    };
    let order = match c.target {
        0 => kv.version.cmp(&number(0)),
        1 => kv.create_revision.cmp(&number(1)),
        2 => kv.mod_revision.cmp(&number(2)),
        3 => match &c.target_union {
            Some(TargetUnion::Value(value)) => kv.value.cmp(value),
            _ => kv.value.cmp(&Vec::new()),
        },
        4 => kv.lease.cmp(&number(4)),
        _ => Ordering::Equal,
    };
    match c.result {
        0 => order == Ordering::Equal,
        1 => order == Ordering::Greater,
        2 => order == Ordering::Less,
        3 => order != Ordering::Equal,
        _ => true,
    }
}

/// Which branch each transaction takes, outermost first, in the order they are met.
fn path(store: &ModelStore, r: &pb::TxnRequest, path: &mut Vec<bool>) {
    let holds = r.compare.iter().all(|c| {
        let kvs = live(store, &c.key, &c.range_end, store.revision);
        match (kvs.is_empty(), c.target) {
            (true, 3) => false,
            (true, _) => compare_one(c, &KeyValue::default()),
            (false, _) => kvs.iter().all(|kv| compare_one(c, kv)),
        }
    });
    path.push(holds);
    for op in if holds { &r.success } else { &r.failure } {
        if let Some(Request::RequestTxn(nested)) = &op.request {
            self::path(store, nested, path);
        }
    }
}

/// The operations that will run, flat.
fn chosen<'a>(
    r: &'a pb::TxnRequest,
    path: &mut impl Iterator<Item = bool>,
    out: &mut Vec<&'a Request>,
) {
    let holds = path.next().unwrap();
    for op in if holds { &r.success } else { &r.failure } {
        match op.request.as_ref().unwrap() {
            Request::RequestTxn(nested) => chosen(nested, path, out),
            request => out.push(request),
        }
    }
}

/// A transaction; on an error the store must be thrown away.
pub(super) fn txn(
    store: &mut ModelStore,
    r: &pb::TxnRequest,
) -> Result<pb::TxnResponse, EtcdError> {
    let mut taken = Vec::new();
    path(store, r, &mut taken);
    let mut ops = Vec::new();
    chosen(r, &mut taken.iter().copied(), &mut ops);
    for op in ops {
        match op {
            Request::RequestRange(r) if r.revision == 0 => {}
            Request::RequestRange(r) if r.revision > store.revision => {
                return Err(EtcdError::FutureRevision);
            }
            Request::RequestRange(r) if r.revision < store.compact_revision => {
                return Err(EtcdError::Compacted);
            }
            Request::RequestPut(r) => {
                if r.lease != 0 && !store.leases.contains(&r.lease) {
                    return Err(EtcdError::LeaseNotFound);
                }
                if (r.ignore_value || r.ignore_lease)
                    && store.live(&r.key, store.revision).is_none()
                {
                    return Err(EtcdError::KeyNotFound);
                }
                let kept = live(store, &r.key, b"", store.revision)
                    .pop()
                    .map_or(0, |record| record.lease);
                if r.ignore_lease && kept != 0 && !store.leases.contains(&kept) {
                    return Err(EtcdError::LeaseNotFound);
                }
            }
            _ => {}
        }
    }
    let mut writes = store.begin();
    let mut reply = run(&mut writes, r, &mut taken.into_iter())?;
    writes.commit();
    reply.header = super::header(store.revision);
    Ok(reply)
}

fn newest(txn: &ModelTxn<'_>) -> i64 {
    txn.store.revision + i64::from(txn.has_changed())
}

fn run(
    txn: &mut ModelTxn<'_>,
    r: &pb::TxnRequest,
    path: &mut impl Iterator<Item = bool>,
) -> Result<pb::TxnResponse, EtcdError> {
    let succeeded = path.next().unwrap();
    let mut responses = Vec::new();
    for op in if succeeded { &r.success } else { &r.failure } {
        let response = match op.request.as_ref().unwrap() {
            Request::RequestRange(r) => Response::ResponseRange(range(txn.store, newest(txn), r)?),
            Request::RequestPut(r) => {
                let previous = live(txn.store, &r.key, b"", newest(txn)).pop();
                let (mut value, mut lease) = (r.value.clone(), r.lease);
                if r.ignore_value {
                    value = previous.clone().ok_or(EtcdError::KeyNotFound)?.value;
                }
                if r.ignore_lease {
                    lease = previous.clone().ok_or(EtcdError::KeyNotFound)?.lease;
                }
                txn.put(&r.key, &value, lease);
                Response::ResponsePut(pb::PutResponse {
                    header: super::op_header(newest(txn)),
                    prev_kv: previous.filter(|_| r.prev_kv),
                })
            }
            Request::RequestDeleteRange(r) => {
                let previous = live(txn.store, &r.key, &r.range_end, newest(txn));
                let range = KeyRange::new(&r.key, &r.range_end);
                let deleted = txn.delete_range(range, None) as i64;
                Response::ResponseDeleteRange(pb::DeleteRangeResponse {
                    header: super::op_header(newest(txn)),
                    deleted,
                    prev_kvs: if r.prev_kv { previous } else { Vec::new() },
                })
            }
            Request::RequestTxn(nested) => Response::ResponseTxn(run(txn, nested, path)?),
        };
        responses.push(pb::ResponseOp {
            response: Some(response),
        });
    }
    let header = Some(pb::ResponseHeader::default());
    Ok(pb::TxnResponse {
        header,
        succeeded,
        responses,
    })
}
