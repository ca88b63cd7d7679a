//! Turns decoded requests into commands for the log.
//!
//! Always true: keys and values are borrowed from the request until the arena copies them into the payload, once; a
//! transaction's tables are laid out breadth first, as [`storage::command::Txn`] demands. Called by the net cores after
//! the checks of [`super::validate`]. Does not check.

use storage::command::{Body, Branches, Compare, DeleteRange, Op, Put, Range, Span, Txn};
use wire::kv::{
    CompareRef, CompareUnion, DeleteRangeRequestRef, OpRef, PutRequestRef, RangeRequestRef,
    TxnRequestRef,
};

/// etcd's numbers for the target of a comparison.
pub mod compare_target {
    pub const VERSION: i32 = 0;
    pub const CREATE: i32 = 1;
    pub const MOD: i32 = 2;
    pub const VALUE: i32 = 3;
    pub const LEASE: i32 = 4;
}

/// etcd's numbers for the result a comparison asks for.
pub mod compare_result {
    pub const EQUAL: i32 = 0;
    pub const GREATER: i32 = 1;
    pub const LESS: i32 = 2;
    pub const NOT_EQUAL: i32 = 3;
}

pub fn put_body<'a>(request: &PutRequestRef<'a>) -> Body<'a> {
    Body::Put(put(request))
}

pub fn delete_range_body<'a>(request: &DeleteRangeRequestRef<'a>) -> Body<'a> {
    Body::DeleteRange(delete_range(request))
}

/// Memory for a transaction's tables, kept between requests.
#[derive(Default)]
pub struct TxnTables {
    compares: Vec<Compare<'static>>,
    ops: Vec<Op<'static>>,
    nested: Vec<(usize, TxnRequestRef<'static>)>,
}

impl TxnTables {
    /// Hands `encode` the transaction as tables.
    pub fn with_txn<R>(
        &mut self,
        request: &TxnRequestRef<'_>,
        encode: impl FnOnce(Txn<'_>) -> R,
    ) -> R {
        let mut tables = Tables {
            compares: reuse(std::mem::take(&mut self.compares)),
            ops: reuse(std::mem::take(&mut self.ops)),
            nested: reuse(std::mem::take(&mut self.nested)),
        };
        let root = tables.add(request);
        let mut at = 0;
        // Grows while it is worked off: nested transactions of nested ones come behind.
        while let Some((slot, txn)) = tables.nested.get(at).copied() {
            let branches = tables.add(&txn);
            tables.ops[slot] = Op::Txn(branches);
            at += 1;
        }
        let result = encode(Txn {
            compares: &tables.compares,
            ops: &tables.ops,
            root,
        });
        self.compares = reuse(tables.compares);
        self.ops = reuse(tables.ops);
        self.nested = reuse(tables.nested);
        result
    }
}

struct Tables<'a> {
    compares: Vec<Compare<'a>>,
    ops: Vec<Op<'a>>,
    /// Nested transactions and where their operation is, in the order of those places.
    nested: Vec<(usize, TxnRequestRef<'a>)>,
}

impl<'a> Tables<'a> {
    fn add(&mut self, request: &TxnRequestRef<'a>) -> Branches {
        let from = self.compares.len();
        self.compares.extend(request.compares().map(compare));
        let compares = span(from, self.compares.len());
        Branches {
            compares,
            success: self.add_ops(request.success()),
            failure: self.add_ops(request.failure()),
        }
    }

    fn add_ops(&mut self, ops: impl Iterator<Item = OpRef<'a>>) -> Span {
        let from = self.ops.len();
        for op in ops {
            let op = match op {
                OpRef::Range(request) => Op::Range(range(&request)),
                OpRef::Put(request) => Op::Put(put(&request)),
                OpRef::DeleteRange(request) => Op::DeleteRange(delete_range(&request)),
                OpRef::Txn(request) => {
                    self.nested.push((self.ops.len(), request));
                    Op::Txn(Branches::default())
                }
                OpRef::Unset => unreachable!("refused by check_txn"),
            };
            self.ops.push(op);
        }
        span(from, self.ops.len())
    }
}

/// Empties a vector and gives its memory to elements of another lifetime.
fn reuse<A, B>(mut vec: Vec<A>) -> Vec<B> {
    vec.clear();
    // Same layout, so the standard library keeps the allocation.
    vec.into_iter()
        .map(|_| unreachable!("the vector is empty"))
        .collect()
}

fn span(from: usize, end: usize) -> Span {
    // A message is at most a few MiB, an operation at least two bytes.
    Span {
        from: u32::try_from(from).expect("tables are bounded by the request size"),
        len: u32::try_from(end - from).expect("tables are bounded by the request size"),
    }
}

fn put<'a>(request: &PutRequestRef<'a>) -> Put<'a> {
    Put {
        lease: request.lease,
        key: request.key,
        value: request.value,
        prev_kv: request.prev_kv,
        ignore_value: request.ignore_value,
        ignore_lease: request.ignore_lease,
    }
}

fn delete_range<'a>(request: &DeleteRangeRequestRef<'a>) -> DeleteRange<'a> {
    DeleteRange {
        key: request.key,
        range_end: request.range_end,
        prev_kv: request.prev_kv,
    }
}

fn range<'a>(request: &RangeRequestRef<'a>) -> Range<'a> {
    Range {
        limit: request.limit,
        revision: request.revision,
        min_mod_revision: request.min_mod_revision,
        max_mod_revision: request.max_mod_revision,
        min_create_revision: request.min_create_revision,
        max_create_revision: request.max_create_revision,
        key: request.key,
        range_end: request.range_end,
        sort_order: u8::try_from(request.sort_order).expect("checked by check_range"),
        sort_target: u8::try_from(request.sort_target).expect("checked by check_range"),
        keys_only: request.keys_only,
        count_only: request.count_only,
    }
}

/// A comparison with the operand its target asks for; an operand of another kind counts as none.
pub fn compare<'a>(request: CompareRef<'a>) -> Compare<'a> {
    let mut compare = Compare {
        key: request.key,
        range_end: request.range_end,
        target: request.target,
        result: request.result,
        ..Compare::default()
    };
    match (request.target, request.union) {
        (compare_target::VERSION, CompareUnion::Version(number))
        | (compare_target::CREATE, CompareUnion::CreateRevision(number))
        | (compare_target::MOD, CompareUnion::ModRevision(number))
        | (compare_target::LEASE, CompareUnion::Lease(number)) => compare.number = number,
        (compare_target::VALUE, CompareUnion::Value(value)) => compare.value = value,
        _ => {}
    }
    compare
}
