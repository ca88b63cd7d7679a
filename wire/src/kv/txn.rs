//! Transactions, decoded lazily: a `TxnRequestRef` is a checked slice whose compares and operations are decoded when asked for.
//!
//! Always true: `decode` has walked every nested byte once, so the iterators cannot fail; nothing is allocated however
//! many operations there are; nesting is bounded by [`TXN_DEPTH_MAX`], so recursion over a decoded transaction is safe.
//! Called by the net cores. Does not check what a request means.

use super::decode::{DecodeError, Reader, Value};
use super::field::{bytes_len, i64_len, present_bytes_len, present_i64_len};
use super::request::{DeleteRangeRequestRef, PutRequestRef, RangeRequestRef};

/// How deep transactions may nest, the outermost counted as 1.
///
/// Each level uses up at least one of the operations a transaction may have (128 by default), so a deeper request is
/// refused as having too many operations anyway. The bound keeps the walk over it within a small stack.
pub const TXN_DEPTH_MAX: u32 = 256;

/// `etcdserverpb.TxnRequest`.
#[derive(Clone, Copy, Debug)]
pub struct TxnRequestRef<'a> {
    bytes: &'a [u8],
    /// False: `bytes` is the message. True: `bytes` is the tail of a `RequestOp` in which every `request_txn` field is
    /// a part of this transaction; several parts are merged by reading one after the other.
    in_op: bool,
}

/// Lengths of a transaction's lists.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct TxnLens {
    pub compares: usize,
    pub success: usize,
    pub failure: usize,
}

/// `etcdserverpb.RequestOp`.
#[derive(Clone, Copy, Debug)]
pub enum OpRef<'a> {
    Range(RangeRequestRef<'a>),
    Put(PutRequestRef<'a>),
    DeleteRange(DeleteRangeRequestRef<'a>),
    Txn(TxnRequestRef<'a>),
    /// No request was set.
    Unset,
}

/// `etcdserverpb.Compare`.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct CompareRef<'a> {
    /// The number as sent; an unknown result makes the comparison true.
    pub result: i32,
    /// The number as sent; an unknown target compares equal.
    pub target: i32,
    pub key: &'a [u8],
    pub union: CompareUnion<'a>,
    pub range_end: &'a [u8],
}

/// `target_union` of a compare. Zero and unset are different on the wire, equal in meaning.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum CompareUnion<'a> {
    #[default]
    Unset,
    Version(i64),
    CreateRevision(i64),
    ModRevision(i64),
    Value(&'a [u8]),
    Lease(i64),
}

impl<'a> TxnRequestRef<'a> {
    /// Checks a whole message, nested transactions included.
    pub fn decode(message: &'a [u8]) -> Result<Self, DecodeError> {
        check_txn(message, 1)?;
        Ok(TxnRequestRef {
            bytes: message,
            in_op: false,
        })
    }

    pub fn compares(&self) -> impl Iterator<Item = CompareRef<'a>> + Clone + use<'a> {
        self.items(1)
            .map(|bytes| CompareRef::decode(bytes).expect("checked at decode"))
    }

    /// Operations of the branch taken when all compares hold.
    pub fn success(&self) -> impl Iterator<Item = OpRef<'a>> + Clone + use<'a> {
        self.items(2)
            .map(|bytes| OpRef::decode(bytes).expect("checked at decode"))
    }

    /// Operations of the other branch.
    pub fn failure(&self) -> impl Iterator<Item = OpRef<'a>> + Clone + use<'a> {
        self.items(3)
            .map(|bytes| OpRef::decode(bytes).expect("checked at decode"))
    }

    /// How many comparisons and operations there are, counted in one pass.
    pub fn lens(&self) -> TxnLens {
        let mut lens = TxnLens::default();
        let mut count = |message| {
            let mut reader = Reader::new(message);
            while let Some((field, _)) = reader.next_field().expect("checked at decode") {
                match field {
                    1 => lens.compares += 1,
                    2 => lens.success += 1,
                    3 => lens.failure += 1,
                    _ => {}
                }
            }
        };
        if self.in_op {
            let mut parts = Reader::new(self.bytes);
            while let Some((field, value)) = parts.next_field().expect("checked at decode") {
                if let (4, Value::Bytes(part)) = (field, value) {
                    count(part);
                }
            }
        } else {
            count(self.bytes);
        }
        lens
    }

    pub fn encoded_len(&self) -> usize {
        self.compares()
            .map(|compare| present_bytes_len(1, compare.encoded_len()))
            .sum::<usize>()
            + self
                .success()
                .map(|op| present_bytes_len(2, op.encoded_len()))
                .sum::<usize>()
            + self
                .failure()
                .map(|op| present_bytes_len(3, op.encoded_len()))
                .sum::<usize>()
    }

    fn items(&self, field: u32) -> Items<'a> {
        let empty = Reader::new(&[]);
        let whole = Reader::new(self.bytes);
        if self.in_op {
            Items {
                parts: whole,
                part: empty,
                field,
            }
        } else {
            Items {
                parts: empty,
                part: whole,
                field,
            }
        }
    }
}

impl<'a> OpRef<'a> {
    pub fn encoded_len(&self) -> usize {
        match self {
            OpRef::Range(request) => present_bytes_len(1, request.encoded_len()),
            OpRef::Put(request) => present_bytes_len(2, request.encoded_len()),
            OpRef::DeleteRange(request) => present_bytes_len(3, request.encoded_len()),
            OpRef::Txn(request) => present_bytes_len(4, request.encoded_len()),
            OpRef::Unset => 0,
        }
    }

    /// Decodes one level; a nested transaction stays a slice.
    fn decode(message: &'a [u8]) -> Result<Self, DecodeError> {
        let mut op = OpRef::Unset;
        let mut reader = Reader::new(message);
        loop {
            let here = reader.rest();
            let Some((field, value)) = reader.next_field()? else {
                return Ok(op);
            };
            match field {
                1 => {
                    let mut request = match op {
                        OpRef::Range(request) => request,
                        _ => RangeRequestRef::default(),
                    };
                    request.merge(value.bytes(field)?)?;
                    op = OpRef::Range(request);
                }
                2 => {
                    let mut request = match op {
                        OpRef::Put(request) => request,
                        _ => PutRequestRef::default(),
                    };
                    request.merge(value.bytes(field)?)?;
                    op = OpRef::Put(request);
                }
                3 => {
                    let mut request = match op {
                        OpRef::DeleteRange(request) => request,
                        _ => DeleteRangeRequestRef::default(),
                    };
                    request.merge(value.bytes(field)?)?;
                    op = OpRef::DeleteRange(request);
                }
                4 => {
                    value.bytes(field)?;
                    // A further part belongs to the transaction already begun, whose slice reaches to the end.
                    if !matches!(op, OpRef::Txn(_)) {
                        op = OpRef::Txn(TxnRequestRef {
                            bytes: here,
                            in_op: true,
                        });
                    }
                }
                _ => {}
            }
        }
    }
}

impl<'a> CompareRef<'a> {
    pub fn encoded_len(&self) -> usize {
        let union_len = match self.union {
            CompareUnion::Unset => 0,
            CompareUnion::Version(value) => present_i64_len(4, value),
            CompareUnion::CreateRevision(value) => present_i64_len(5, value),
            CompareUnion::ModRevision(value) => present_i64_len(6, value),
            CompareUnion::Value(value) => present_bytes_len(7, value.len()),
            CompareUnion::Lease(value) => present_i64_len(8, value),
        };
        i64_len(1, i64::from(self.result))
            + i64_len(2, i64::from(self.target))
            + bytes_len(3, self.key.len())
            + union_len
            + bytes_len(64, self.range_end.len())
    }

    fn decode(message: &'a [u8]) -> Result<Self, DecodeError> {
        let mut compare = Self::default();
        let mut reader = Reader::new(message);
        while let Some((field, value)) = reader.next_field()? {
            match field {
                1 => compare.result = value.i32(field)?,
                2 => compare.target = value.i32(field)?,
                3 => compare.key = value.bytes(field)?,
                4 => compare.union = CompareUnion::Version(value.i64(field)?),
                5 => compare.union = CompareUnion::CreateRevision(value.i64(field)?),
                6 => compare.union = CompareUnion::ModRevision(value.i64(field)?),
                7 => compare.union = CompareUnion::Value(value.bytes(field)?),
                8 => compare.union = CompareUnion::Lease(value.i64(field)?),
                64 => compare.range_end = value.bytes(field)?,
                _ => {}
            }
        }
        Ok(compare)
    }
}

/// The occurrences of one repeated message field, over all parts of a transaction.
#[derive(Clone)]
struct Items<'a> {
    parts: Reader<'a>,
    part: Reader<'a>,
    field: u32,
}

impl<'a> Iterator for Items<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        loop {
            while let Some((field, value)) = self.part.next_field().expect("checked at decode") {
                if let (true, Value::Bytes(bytes)) = (field == self.field, value) {
                    return Some(bytes);
                }
            }
            loop {
                let (field, value) = self.parts.next_field().expect("checked at decode")?;
                if let (4, Value::Bytes(bytes)) = (field, value) {
                    self.part = Reader::new(bytes);
                    break;
                }
            }
        }
    }
}

fn check_txn(message: &[u8], depth: u32) -> Result<(), DecodeError> {
    if depth > TXN_DEPTH_MAX {
        return Err(DecodeError::TooDeep);
    }
    let mut reader = Reader::new(message);
    while let Some((field, value)) = reader.next_field()? {
        match field {
            1 => drop(CompareRef::decode(value.bytes(field)?)?),
            2 | 3 => check_op(value.bytes(field)?, depth)?,
            _ => {}
        }
    }
    Ok(())
}

fn check_op(message: &[u8], depth: u32) -> Result<(), DecodeError> {
    let mut reader = Reader::new(message);
    while let Some((field, value)) = reader.next_field()? {
        match field {
            1 => drop(RangeRequestRef::decode(value.bytes(field)?)?),
            2 => drop(PutRequestRef::decode(value.bytes(field)?)?),
            3 => drop(DeleteRangeRequestRef::decode(value.bytes(field)?)?),
            4 => check_txn(value.bytes(field)?, depth + 1)?,
            _ => {}
        }
    }
    Ok(())
}
