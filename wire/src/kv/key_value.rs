//! The stored record `mvccpb.KeyValue`: encoding it, and reading one in place.
//!
//! Always true: the bytes written are those etcd stores, so a record is encoded once, at the put, and copied from then
//! on; reading a record borrows from it. Called by the apply core (encode) and the net cores (filters, sorting). Does not
//! know where records are kept.

use super::decode::{DecodeError, Reader};
use super::field::{bytes_len, i64_len, put_bytes, put_i64};

/// The fields of a record.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct KeyValueParts<'a> {
    pub key: &'a [u8],
    pub create_revision: i64,
    pub mod_revision: i64,
    /// Number of puts since creation.
    pub version: i64,
    pub value: &'a [u8],
    /// 0 = none.
    pub lease: i64,
}

/// A record read in place.
pub type KeyValueRef<'a> = KeyValueParts<'a>;

impl<'a> KeyValueParts<'a> {
    /// Reads an encoded record.
    pub fn decode(message: &'a [u8]) -> Result<Self, DecodeError> {
        let mut kv = Self::default();
        let mut reader = Reader::new(message);
        while let Some((field, value)) = reader.next_field()? {
            match field {
                1 => kv.key = value.bytes(field)?,
                2 => kv.create_revision = value.i64(field)?,
                3 => kv.mod_revision = value.i64(field)?,
                4 => kv.version = value.i64(field)?,
                5 => kv.value = value.bytes(field)?,
                6 => kv.lease = value.i64(field)?,
                _ => {}
            }
        }
        Ok(kv)
    }

    pub fn encoded_len(&self) -> usize {
        bytes_len(1, self.key.len())
            + i64_len(2, self.create_revision)
            + i64_len(3, self.mod_revision)
            + i64_len(4, self.version)
            + bytes_len(5, self.value.len())
            + i64_len(6, self.lease)
    }

    /// Appends the encoded record.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.reserve(self.encoded_len());
        put_bytes(out, 1, self.key);
        put_i64(out, 2, self.create_revision);
        put_i64(out, 3, self.mod_revision);
        put_i64(out, 4, self.version);
        put_bytes(out, 5, self.value);
        put_i64(out, 6, self.lease);
    }
}
