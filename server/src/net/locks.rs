//! The lock service: a queue of keys under a name, each with its owner's lease, and the oldest has the lock.
//!
//! Who comes writes its key and waits until the newest of those before it is gone, then looks again: each end of a turn wakes one
//! waiter. The keys are etcd's, so clients that build locks from keys themselves (`clientv3/concurrency`) stand in the same queue.
//!
//! As etcd: a lease that the call did not name lives for a minute and is not renewed; a waiter that is cancelled deletes its key; one
//! that the member's end cuts off keeps it, for its client may come back with the same lease. Unlike etcd, a key that was written for
//! a client that had already gone is deleted as well.

use std::rc::Rc;

use prost::Message;
use wire::error::EtcdError;
use wire::kv::WatchCreateRef;
use wire::messages::etcdserverpb::{
    Compare, DeleteRangeRequest, DeleteRangeResponse, PutRequest, RangeRequest, RequestOp,
    ResponseHeader, TxnRequest, TxnResponse, compare, range_request, request_op, response_op,
};
use wire::messages::mvccpb::{KeyValue, event::EventType};
use wire::messages::v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse};

use super::core::NetCore;
use super::errands::{Errand, Failed, header_of};

/// What an errand answers: a message, or nothing for a stream that ends.
pub type Answered = Result<Option<Vec<u8>>, Failed>;

/// Waits for the lock.
pub async fn lock(core: &Rc<NetCore>, errand: &Errand) -> Answered {
    let request: LockRequest = errand.decode();
    let place = Place::take(core, errand, &request.name, request.lease, b"").await?;
    let turn = take_turn(core, errand, &place).await;
    let header = match turn {
        // Nobody is there to have it. What was held before this call stays held.
        Ok(turn) if errand.is_cancelled() && (place.is_new || turn.has_waited) => {
            Err(Failed::Cancelled)
        }
        Ok(turn) => Ok(turn.header),
        Err(failed) => Err(failed),
    };
    match header {
        Ok(header) => {
            let reply = LockResponse {
                header: Some(header),
                key: place.key,
            };
            Ok(Some(reply.encode_to_vec()))
        }
        // The key is gone already.
        Err(failed @ Failed::Etcd(EtcdError::SessionExpired)) => Err(failed),
        Err(failed) => {
            place.leave(core, errand).await;
            Err(failed)
        }
    }
}

struct Turn {
    header: ResponseHeader,
    has_waited: bool,
}

async fn take_turn(core: &Rc<NetCore>, errand: &Errand, place: &Place) -> Result<Turn, Failed> {
    let is_first = wait_for_turn(core, errand, &place.prefix, place.revision).await?;
    if is_first {
        return Ok(Turn {
            header: place.header,
            has_waited: false,
        });
    }
    // It took a while: the lease may have ended meanwhile.
    core.read_barrier().await?;
    let own = core.range(errand, &one(&place.key)).await?;
    if own.kvs.is_empty() {
        return Err(EtcdError::SessionExpired.into());
    }
    Ok(Turn {
        header: header_of(own.header),
        has_waited: true,
    })
}

/// Deletes a lock's key, whoever holds it.
pub async fn unlock(core: &Rc<NetCore>, errand: &Errand) -> Answered {
    let request: UnlockRequest = errand.decode();
    let reply = core
        .delete(errand, &delete(&request.key).encode_to_vec())
        .await?;
    let reply = DeleteRangeResponse::decode(&reply[..]).expect("we encoded it");
    let reply = UnlockResponse {
        header: reply.header,
    };
    Ok(Some(reply.encode_to_vec()))
}

/// A key in a queue.
pub struct Place {
    /// Of all keys of the queue.
    pub prefix: Vec<u8>,
    pub key: Vec<u8>,
    pub lease: i64,
    /// Its create revision, which orders the queue.
    pub revision: i64,
    /// What was there already under this name and lease.
    pub before: Option<KeyValue>,
    pub is_new: bool,
    pub header: ResponseHeader,
}

impl Place {
    /// Takes a place with a value, or finds the one that this lease has.
    pub async fn take(
        core: &Rc<NetCore>,
        errand: &Errand,
        name: &[u8],
        lease: i64,
        value: &[u8],
    ) -> Result<Place, Failed> {
        let lease = core.lease_or_new(errand, lease).await?;
        let mut prefix = name.to_vec();
        prefix.push(b'/');
        let mut key = prefix.clone();
        key.extend_from_slice(hex(lease).as_bytes());
        let txn = TxnRequest {
            compare: vec![is_created_at(&key, 0)],
            success: vec![put(&key, value, lease)],
            failure: vec![RequestOp {
                request: Some(request_op::Request::RequestRange(one(&key))),
            }],
        };
        let reply = core.txn(errand, &txn).await?;
        let before = first_found(&reply);
        let header = header_of(reply.header);
        Ok(Place {
            prefix,
            key,
            lease,
            revision: before
                .as_ref()
                .map_or(header.revision, |kv| kv.create_revision),
            before,
            is_new: reply.succeeded,
            header,
        })
    }

    /// Gives the place up; what goes wrong with that is left to the lease's end.
    async fn leave(&self, core: &Rc<NetCore>, errand: &Errand) {
        let left = core
            .delete(errand, &delete(&self.key).encode_to_vec())
            .await;
        if let Err(failed) = left {
            tracing::warn!(
                key = %self.key.escape_ascii(),
                reason = ?failed,
                "the key of a lock that nobody waits for stays until its lease ends"
            );
        }
    }
}

/// Waits until no key under `prefix` is older than `revision`; true if there was none.
pub async fn wait_for_turn(
    core: &Rc<NetCore>,
    errand: &Errand,
    prefix: &[u8],
    revision: i64,
) -> Result<bool, Failed> {
    let before = RangeRequest {
        max_create_revision: revision - 1,
        ..by_age(prefix, range_request::SortOrder::Descend)
    };
    let mut was_first = true;
    loop {
        let found = core.range(errand, &before).await?;
        let Some(newest) = found.kvs.first() else {
            return Ok(was_first);
        };
        was_first = false;
        let create = WatchCreateRef {
            key: &newest.key,
            start_revision: header_of(found.header).revision,
            no_put: true,
            ..WatchCreateRef::default()
        };
        let is_gone = |event: &wire::messages::mvccpb::Event| event.r#type == DELETE;
        core.watch(errand, &create, |news| {
            news.events.iter().any(is_gone).then_some(())
        })
        .await?;
    }
}

pub const DELETE: i32 = EventType::Delete as i32;

/// The oldest or newest key under `prefix`.
pub fn by_age(prefix: &[u8], order: range_request::SortOrder) -> RangeRequest {
    RangeRequest {
        key: prefix.to_vec(),
        range_end: prefix_end(prefix),
        limit: 1,
        sort_order: order as i32,
        sort_target: range_request::SortTarget::Create as i32,
        ..RangeRequest::default()
    }
}

pub fn one(key: &[u8]) -> RangeRequest {
    RangeRequest {
        key: key.to_vec(),
        ..RangeRequest::default()
    }
}

pub fn delete(key: &[u8]) -> DeleteRangeRequest {
    DeleteRangeRequest {
        key: key.to_vec(),
        ..DeleteRangeRequest::default()
    }
}

pub fn put(key: &[u8], value: &[u8], lease: i64) -> RequestOp {
    RequestOp {
        request: Some(request_op::Request::RequestPut(PutRequest {
            key: key.to_vec(),
            value: value.to_vec(),
            lease,
            ..PutRequest::default()
        })),
    }
}

/// That `key` was created at this revision; 0 means that it is not there.
pub fn is_created_at(key: &[u8], revision: i64) -> Compare {
    Compare {
        result: compare::CompareResult::Equal as i32,
        target: compare::CompareTarget::Create as i32,
        key: key.to_vec(),
        target_union: Some(compare::TargetUnion::CreateRevision(revision)),
        ..Compare::default()
    }
}

/// The first pair that the first operation of a transaction read.
fn first_found(reply: &TxnResponse) -> Option<KeyValue> {
    let response_op::Response::ResponseRange(range) = reply.responses.first()?.response.as_ref()?
    else {
        return None;
    };
    range.kvs.first().cloned()
}

/// The first key behind all that begin with `prefix`, which ends with a slash.
pub fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    let last = end.last_mut().expect("a slash at least");
    *last += 1;
    end
}

/// As Go prints a number in hex: with a sign.
fn hex(lease: i64) -> String {
    let sign = if lease < 0 { "-" } else { "" };
    format!("{sign}{:x}", lease.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_are_spelled_as_go_does() {
        assert_eq!(hex(0x7f0a), "7f0a");
        assert_eq!(hex(-31), "-1f");
        assert_eq!(hex(i64::MIN), "-8000000000000000");
    }

    #[test]
    fn a_prefix_ends_behind_its_slash() {
        assert_eq!(prefix_end(b"a/"), b"a0");
    }
}
