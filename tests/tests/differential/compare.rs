//! Says whether two answers are the same answer.
//!
//! Everything counts: each field, revisions in headers, error code and error text. Masked are only the ids of member and
//! cluster and the term of the outermost header, which name the server and not the answer; they must be there on both sides.
//! Of a lease's remaining time only the sign counts.
//! Inner headers are compared as they are.
//!
//! A sort by something other than the key leaves the order of equal entries open, and with a limit even which of them are
//! cut. Real etcd sorts up to [`STABLE_MAX`] entries in a stable way and only more of them as it happens; only there are
//! equal entries compared as sets.

use std::fmt::Debug;

use pilaster_tests::lease::*;
use pilaster_tests::pb::*;
use pilaster_tests::raw::{Answer, Failure};

use crate::generate::Step;

/// Go's sort uses a stable method for this many entries.
const STABLE_MAX: usize = 12;

/// Any answer, ready to be compared.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    Range(RangeResponse),
    Put(PutResponse),
    DeleteRange(DeleteRangeResponse),
    Txn(TxnResponse),
    Compact(CompactionResponse),
    HashKv(HashKvResponse),
    Grant(LeaseGrantResponse),
    Revoke(LeaseRevokeResponse),
    TimeToLive(LeaseTimeToLiveResponse),
    Leases(LeaseLeasesResponse),
    KeepAlive(LeaseKeepAliveResponse),
    Refused(Failure),
}

impl Reply {
    pub fn of<T>(answer: Answer<T>, wrap: impl Fn(T) -> Reply) -> Reply {
        match answer {
            Ok(reply) => wrap(reply),
            Err(failure) => Reply::Refused(failure),
        }
    }

    pub fn name(&self) -> &'static str {
        match self {
            Reply::Range(_) => "Range",
            Reply::Put(_) => "Put",
            Reply::DeleteRange(_) => "DeleteRange",
            Reply::Txn(_) => "Txn",
            Reply::Compact(_) => "Compact",
            Reply::HashKv(_) => "HashKV",
            Reply::Grant(_) => "LeaseGrant",
            Reply::Revoke(_) => "LeaseRevoke",
            Reply::TimeToLive(_) => "LeaseTimeToLive",
            Reply::Leases(_) => "LeaseLeases",
            Reply::KeepAlive(_) => "LeaseKeepAlive",
            Reply::Refused(_) => "error",
        }
    }

    pub fn header(&self) -> Option<&ResponseHeader> {
        match self {
            Reply::Range(reply) => reply.header.as_ref(),
            Reply::Put(reply) => reply.header.as_ref(),
            Reply::DeleteRange(reply) => reply.header.as_ref(),
            Reply::Txn(reply) => reply.header.as_ref(),
            Reply::Compact(reply) => reply.header.as_ref(),
            Reply::HashKv(reply) => reply.header.as_ref(),
            Reply::Grant(reply) => reply.header.as_ref(),
            Reply::Revoke(reply) => reply.header.as_ref(),
            Reply::TimeToLive(reply) => reply.header.as_ref(),
            Reply::Leases(reply) => reply.header.as_ref(),
            Reply::KeepAlive(reply) => reply.header.as_ref(),
            Reply::Refused(_) => None,
        }
    }

    fn header_mut(&mut self) -> Option<&mut ResponseHeader> {
        match self {
            Reply::Range(reply) => reply.header.as_mut(),
            Reply::Put(reply) => reply.header.as_mut(),
            Reply::DeleteRange(reply) => reply.header.as_mut(),
            Reply::Txn(reply) => reply.header.as_mut(),
            Reply::Compact(reply) => reply.header.as_mut(),
            Reply::HashKv(reply) => reply.header.as_mut(),
            Reply::Grant(reply) => reply.header.as_mut(),
            Reply::Revoke(reply) => reply.header.as_mut(),
            Reply::TimeToLive(reply) => reply.header.as_mut(),
            Reply::Leases(reply) => reply.header.as_mut(),
            Reply::KeepAlive(reply) => reply.header.as_mut(),
            Reply::Refused(_) => None,
        }
    }

    fn masked(&self) -> Reply {
        let mut reply = self.clone();
        if let Some(header) = reply.header_mut() {
            let names = [
                &mut header.cluster_id,
                &mut header.member_id,
                &mut header.raft_term,
            ];
            for name in names {
                *name = if *name == 0 { 0 } else { 1 };
            }
        }
        // What is left of a lease depends on when it is asked.
        if let Reply::TimeToLive(found) = &mut reply {
            found.ttl = found.ttl.signum();
        }
        reply
    }
}

/// Nothing when the answers are the same, else the first thing that is not.
pub fn difference(step: &Step, reference: &Reply, subject: &Reply) -> Option<String> {
    let (mut reference, mut subject) = (reference.masked(), subject.masked());
    settle_ties(step, &mut reference, &mut subject);
    (reference != subject)
        .then(|| format!("etcd    {}\nsubject {}", short(&reference), short(&subject)))
}

/// Debug text without megabytes in it.
pub fn short(value: &impl Debug) -> String {
    let text = format!("{value:?}");
    match text.char_indices().nth(3000) {
        Some((end, _)) => format!("{}... ({} bytes)", &text[..end], text.len()),
        None => text,
    }
}

fn settle_ties(step: &Step, reference: &mut Reply, subject: &mut Reply) {
    match (step, reference, subject) {
        (Step::Range(request), Reply::Range(one), Reply::Range(other)) => {
            settle_range(request, one, other);
        }
        (Step::Txn(request), Reply::Txn(one), Reply::Txn(other)) => settle_txn(request, one, other),
        _ => {}
    }
}

fn settle_txn(request: &TxnRequest, one: &mut TxnResponse, other: &mut TxnResponse) {
    let branch = if one.succeeded {
        &request.success
    } else {
        &request.failure
    };
    for ((op, one), other) in branch
        .iter()
        .zip(&mut one.responses)
        .zip(&mut other.responses)
    {
        match (&op.request, &mut one.response, &mut other.response) {
            (
                Some(Request::Range(op)),
                Some(Response::Range(one)),
                Some(Response::Range(other)),
            ) => {
                settle_range(op, one, other);
            }
            (Some(Request::Txn(op)), Some(Response::Txn(one)), Some(Response::Txn(other))) => {
                settle_txn(op, one, other);
            }
            _ => {}
        }
    }
}

/// Makes both sides equal where they differ only by the order of equal entries.
fn settle_range(request: &RangeRequest, one: &mut RangeResponse, other: &mut RangeResponse) {
    let is_loose = request.sort_target != 0 && STABLE_MAX < one.count as usize;
    if !is_loose || one.kvs.len() != other.kvs.len() {
        return;
    }
    // A side that is not in the asked order is left as it is, so that it differs.
    if ![&*one, &*other]
        .iter()
        .all(|side| is_in_order(request, &side.kvs))
    {
        return;
    }
    let was_cut = one.more;
    for side in [&mut *one, &mut *other] {
        // Ties are adjacent; within one, the key decides.
        side.kvs.sort_by(|a, b| {
            rank(request, a)
                .cmp(&rank(request, b))
                .then(a.key.cmp(&b.key))
        });
        if request.sort_order == 2 {
            side.kvs.reverse();
        }
        // The last group may have been cut anywhere; its size is compared, its members are not.
        if let Some(last) = side
            .kvs
            .last()
            .filter(|_| was_cut)
            .map(|kv| rank(request, kv))
        {
            for kv in side.kvs.iter_mut().filter(|kv| rank(request, kv) == last) {
                *kv = KeyValue {
                    value: b"cut group".to_vec(),
                    ..Default::default()
                };
            }
        }
    }
}

fn is_in_order(request: &RangeRequest, kvs: &[KeyValue]) -> bool {
    let ranks: Vec<_> = kvs.iter().map(|kv| rank(request, kv)).collect();
    match request.sort_order {
        2 => ranks.is_sorted_by(|a, b| b <= a),
        _ => ranks.is_sorted(),
    }
}

/// What the request sorts by.
fn rank(request: &RangeRequest, kv: &KeyValue) -> (i64, Vec<u8>) {
    match request.sort_target {
        1 => (kv.version, Vec::new()),
        2 => (kv.create_revision, Vec::new()),
        3 => (kv.mod_revision, Vec::new()),
        _ => (0, kv.value.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str, value: &str) -> KeyValue {
        KeyValue {
            key: key.into(),
            value: value.into(),
            version: 1,
            ..Default::default()
        }
    }

    fn answer(kvs: Vec<KeyValue>, count: i64, more: bool) -> Reply {
        let header = ResponseHeader {
            cluster_id: 1,
            member_id: 2,
            revision: 3,
            raft_term: 4,
        };
        Reply::Range(RangeResponse {
            header: Some(header),
            kvs,
            more,
            count,
        })
    }

    /// The comparison must be able to fail: each of these differs in one thing.
    #[test]
    fn one_different_field_is_a_difference() {
        let step = Step::Range(RangeRequest {
            sort_target: 4,
            ..Default::default()
        });
        let one = answer(vec![entry("a", "1"), entry("b", "1")], 2, false);
        assert_eq!(difference(&step, &one, &one), None);
        let mut revision = one.clone();
        revision.header_mut().expect("a header").revision = 4;
        let mut nameless = one.clone();
        nameless.header_mut().expect("a header").member_id = 0;
        let swapped = answer(vec![entry("b", "1"), entry("a", "1")], 2, false);
        let others = [
            revision,
            nameless,
            swapped,
            answer(vec![entry("a", "1")], 2, false),
            answer(vec![entry("a", "1"), entry("b", "1")], 2, true),
            Reply::Refused(Failure {
                code: 3,
                text: "etcdserver: key is not provided".into(),
            }),
        ];
        for other in others {
            assert!(difference(&step, &one, &other).is_some(), "{other:?}");
        }
    }

    #[test]
    fn the_order_of_equal_entries_is_open_only_where_etcd_leaves_it_open() {
        let step = Step::Range(RangeRequest {
            sort_target: 4,
            ..Default::default()
        });
        let up = answer(
            vec![entry("a", "1"), entry("b", "1"), entry("c", "2")],
            20,
            false,
        );
        let swapped = answer(
            vec![entry("b", "1"), entry("a", "1"), entry("c", "2")],
            20,
            false,
        );
        assert_eq!(difference(&step, &up, &swapped), None);
        let wrong = answer(
            vec![entry("c", "2"), entry("a", "1"), entry("b", "1")],
            20,
            false,
        );
        let cut = answer(
            vec![entry("a", "1"), entry("c", "2"), entry("d", "2")],
            20,
            true,
        );
        let cut_elsewhere = answer(
            vec![entry("a", "1"), entry("d", "2"), entry("e", "2")],
            20,
            true,
        );
        assert_eq!(difference(&step, &cut, &cut_elsewhere), None);
        let other_first = answer(
            vec![entry("b", "1"), entry("d", "2"), entry("e", "2")],
            20,
            true,
        );
        assert!(difference(&step, &cut, &other_first).is_some());
        assert!(difference(&step, &up, &wrong).is_some());
    }
}
