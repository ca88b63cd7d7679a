//! The requests of the key-value service without nesting: range, put, delete, compaction.
//!
//! Always true: `decode` borrows from its input and allocates nothing; `merge` adds a second occurrence of the same
//! message, as protobuf demands of a repeated singular field; `encoded_len` is what etcd computes for the decoded
//! message (unknown fields are not part of it). Called by the net cores. Does not check what a request means.

use super::decode::{DecodeError, Reader};
use super::field::{bool_len, bytes_len, i64_len};

/// `etcdserverpb.RangeRequest`.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct RangeRequestRef<'a> {
    pub key: &'a [u8],
    pub range_end: &'a [u8],
    pub limit: i64,
    pub revision: i64,
    /// The number as sent; not every number is a sort order.
    pub sort_order: i32,
    /// The number as sent; not every number is a sort target.
    pub sort_target: i32,
    pub serializable: bool,
    pub keys_only: bool,
    pub count_only: bool,
    pub min_mod_revision: i64,
    pub max_mod_revision: i64,
    pub min_create_revision: i64,
    pub max_create_revision: i64,
}

/// `etcdserverpb.PutRequest`.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct PutRequestRef<'a> {
    pub key: &'a [u8],
    pub value: &'a [u8],
    pub lease: i64,
    pub prev_kv: bool,
    pub ignore_value: bool,
    pub ignore_lease: bool,
}

/// `etcdserverpb.DeleteRangeRequest`.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct DeleteRangeRequestRef<'a> {
    pub key: &'a [u8],
    pub range_end: &'a [u8],
    pub prev_kv: bool,
}

/// `etcdserverpb.CompactionRequest`; it holds no bytes, so it borrows nothing.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct CompactionRequestRef {
    pub revision: i64,
    pub physical: bool,
}

impl<'a> RangeRequestRef<'a> {
    /// Decodes a whole message.
    pub fn decode(message: &'a [u8]) -> Result<Self, DecodeError> {
        let mut request = Self::default();
        request.merge(message)?;
        Ok(request)
    }

    /// Adds the fields of another occurrence of the message.
    pub fn merge(&mut self, message: &'a [u8]) -> Result<(), DecodeError> {
        let mut reader = Reader::new(message);
        while let Some((field, value)) = reader.next_field()? {
            match field {
                1 => self.key = value.bytes(field)?,
                2 => self.range_end = value.bytes(field)?,
                3 => self.limit = value.i64(field)?,
                4 => self.revision = value.i64(field)?,
                5 => self.sort_order = value.i32(field)?,
                6 => self.sort_target = value.i32(field)?,
                7 => self.serializable = value.bool(field)?,
                8 => self.keys_only = value.bool(field)?,
                9 => self.count_only = value.bool(field)?,
                10 => self.min_mod_revision = value.i64(field)?,
                11 => self.max_mod_revision = value.i64(field)?,
                12 => self.min_create_revision = value.i64(field)?,
                13 => self.max_create_revision = value.i64(field)?,
                _ => {}
            }
        }
        Ok(())
    }

    pub fn encoded_len(&self) -> usize {
        bytes_len(1, self.key.len())
            + bytes_len(2, self.range_end.len())
            + i64_len(3, self.limit)
            + i64_len(4, self.revision)
            + i64_len(5, i64::from(self.sort_order))
            + i64_len(6, i64::from(self.sort_target))
            + bool_len(7, self.serializable)
            + bool_len(8, self.keys_only)
            + bool_len(9, self.count_only)
            + i64_len(10, self.min_mod_revision)
            + i64_len(11, self.max_mod_revision)
            + i64_len(12, self.min_create_revision)
            + i64_len(13, self.max_create_revision)
    }
}

impl<'a> PutRequestRef<'a> {
    /// Decodes a whole message.
    pub fn decode(message: &'a [u8]) -> Result<Self, DecodeError> {
        let mut request = Self::default();
        request.merge(message)?;
        Ok(request)
    }

    /// Adds the fields of another occurrence of the message.
    pub fn merge(&mut self, message: &'a [u8]) -> Result<(), DecodeError> {
        let mut reader = Reader::new(message);
        while let Some((field, value)) = reader.next_field()? {
            match field {
                1 => self.key = value.bytes(field)?,
                2 => self.value = value.bytes(field)?,
                3 => self.lease = value.i64(field)?,
                4 => self.prev_kv = value.bool(field)?,
                5 => self.ignore_value = value.bool(field)?,
                6 => self.ignore_lease = value.bool(field)?,
                _ => {}
            }
        }
        Ok(())
    }

    pub fn encoded_len(&self) -> usize {
        bytes_len(1, self.key.len())
            + bytes_len(2, self.value.len())
            + i64_len(3, self.lease)
            + bool_len(4, self.prev_kv)
            + bool_len(5, self.ignore_value)
            + bool_len(6, self.ignore_lease)
    }
}

impl<'a> DeleteRangeRequestRef<'a> {
    /// Decodes a whole message.
    pub fn decode(message: &'a [u8]) -> Result<Self, DecodeError> {
        let mut request = Self::default();
        request.merge(message)?;
        Ok(request)
    }

    /// Adds the fields of another occurrence of the message.
    pub fn merge(&mut self, message: &'a [u8]) -> Result<(), DecodeError> {
        let mut reader = Reader::new(message);
        while let Some((field, value)) = reader.next_field()? {
            match field {
                1 => self.key = value.bytes(field)?,
                2 => self.range_end = value.bytes(field)?,
                3 => self.prev_kv = value.bool(field)?,
                _ => {}
            }
        }
        Ok(())
    }

    pub fn encoded_len(&self) -> usize {
        bytes_len(1, self.key.len())
            + bytes_len(2, self.range_end.len())
            + bool_len(3, self.prev_kv)
    }
}

impl CompactionRequestRef {
    /// Decodes a whole message.
    pub fn decode(message: &[u8]) -> Result<Self, DecodeError> {
        let mut request = Self::default();
        let mut reader = Reader::new(message);
        while let Some((field, value)) = reader.next_field()? {
            match field {
                1 => request.revision = value.i64(field)?,
                2 => request.physical = value.bool(field)?,
                _ => {}
            }
        }
        Ok(request)
    }

    pub fn encoded_len(&self) -> usize {
        i64_len(1, self.revision) + bool_len(2, self.physical)
    }
}
