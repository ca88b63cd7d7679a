//! The stored record: one protobuf `mvccpb.KeyValue`, written and read without a protobuf library.
//!
//! Always true: what `encode_put` writes is byte for byte what etcd's encoder writes (fields ascending, zero
//! values left out), so a range answer copies stored bytes and members agree on HashKV.
//! Pure; the apply core encodes, every core parses. Does not know revisions' places in the store.

use super::revision::Revision;

const KEY: u64 = 1;
const CREATE_REVISION: u64 = 2;
const MOD_REVISION: u64 = 3;
const VERSION: u64 = 4;
const VALUE: u64 = 5;
const LEASE: u64 = 6;

const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;
const FIXED32: u64 = 5;

/// A parsed record that borrows from the stored bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyValue<'a> {
    pub key: &'a [u8],
    pub create_revision: i64,
    pub mod_revision: i64,
    pub version: i64,
    pub value: &'a [u8],
    pub lease: i64,
}

impl<'a> KeyValue<'a> {
    /// Reads a record; `None` if the bytes are not one. Unknown fields are skipped.
    pub fn parse(mut bytes: &'a [u8]) -> Option<Self> {
        let mut record = Self::default();
        while !bytes.is_empty() {
            let tag = take_varint(&mut bytes)?;
            match (tag >> 3, tag & 7) {
                (KEY, BYTES) => record.key = take_bytes(&mut bytes)?,
                (CREATE_REVISION, VARINT) => {
                    record.create_revision = take_varint(&mut bytes)? as i64;
                }
                (MOD_REVISION, VARINT) => record.mod_revision = take_varint(&mut bytes)? as i64,
                (VERSION, VARINT) => record.version = take_varint(&mut bytes)? as i64,
                (VALUE, BYTES) => record.value = take_bytes(&mut bytes)?,
                (LEASE, VARINT) => record.lease = take_varint(&mut bytes)? as i64,
                (0, _) => return None,
                (_, VARINT) => {
                    take_varint(&mut bytes)?;
                }
                (_, FIXED64) => bytes = bytes.get(8..)?,
                (_, BYTES) => {
                    take_bytes(&mut bytes)?;
                }
                (_, FIXED32) => bytes = bytes.get(4..)?,
                _ => return None,
            }
        }
        Some(record)
    }

    /// Length of `encode_into`'s output.
    pub fn encoded_bytes(&self) -> usize {
        bytes_field_bytes(self.key)
            + varint_field_bytes(self.create_revision)
            + varint_field_bytes(self.mod_revision)
            + varint_field_bytes(self.version)
            + bytes_field_bytes(self.value)
            + varint_field_bytes(self.lease)
    }

    /// Writes the record to the front of `out`, which must hold `encoded_bytes`; returns the written length.
    pub fn encode_into(&self, out: &mut [u8]) -> usize {
        let mut at = 0;
        put_bytes_field(out, &mut at, KEY, self.key);
        put_varint_field(out, &mut at, CREATE_REVISION, self.create_revision);
        put_varint_field(out, &mut at, MOD_REVISION, self.mod_revision);
        put_varint_field(out, &mut at, VERSION, self.version);
        put_bytes_field(out, &mut at, VALUE, self.value);
        put_varint_field(out, &mut at, LEASE, self.lease);
        at
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![0; self.encoded_bytes()];
        let written = self.encode_into(&mut out);
        debug_assert_eq!(written, out.len());
        out
    }
}

/// What the index knows of a key at a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyMeta {
    pub create_revision: i64,
    /// Where the record lies in the `key` bucket; `.main` is the API's `mod_revision`.
    pub mod_revision: Revision,
    pub version: i64,
}

fn varint_bytes(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

fn bytes_field_bytes(value: &[u8]) -> usize {
    if value.is_empty() {
        0
    } else {
        1 + varint_bytes(value.len() as u64) + value.len()
    }
}

fn varint_field_bytes(value: i64) -> usize {
    if value == 0 {
        0
    } else {
        1 + varint_bytes(value as u64)
    }
}

fn put_varint(out: &mut [u8], at: &mut usize, mut value: u64) {
    while value >= 0x80 {
        out[*at] = value as u8 | 0x80;
        *at += 1;
        value >>= 7;
    }
    out[*at] = value as u8;
    *at += 1;
}

fn put_bytes_field(out: &mut [u8], at: &mut usize, field: u64, value: &[u8]) {
    if !value.is_empty() {
        put_varint(out, at, field << 3 | BYTES);
        put_varint(out, at, value.len() as u64);
        out[*at..*at + value.len()].copy_from_slice(value);
        *at += value.len();
    }
}

fn put_varint_field(out: &mut [u8], at: &mut usize, field: u64, value: i64) {
    if value != 0 {
        put_varint(out, at, field << 3 | VARINT);
        put_varint(out, at, value as u64);
    }
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for (position, &byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * position);
        if byte < 0x80 {
            *bytes = &bytes[position + 1..];
            return Some(value);
        }
    }
    None
}

fn take_bytes<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(take_varint(bytes)?).ok()?;
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn encodes_like_any_protobuf_encoder() {
        let record = KeyValue {
            key: b"k",
            create_revision: 2,
            mod_revision: 300,
            version: 1,
            value: b"v",
            lease: 0,
        };
        assert_eq!(
            record.encode(),
            b"\x0a\x01k\x10\x02\x18\xac\x02\x20\x01\x2a\x01v"
        );
        assert_eq!(
            KeyValue {
                key: b"k",
                ..KeyValue::default()
            }
            .encode(),
            b"\x0a\x01k"
        );
        assert!(KeyValue::default().encode().is_empty());
    }

    #[test]
    fn damaged_records_are_refused() {
        for bytes in [
            &b"\x0a\x05k"[..],
            b"\x0a",
            b"\x10\xff",
            b"\x00\x01",
            b"\x0b",
        ] {
            assert_eq!(KeyValue::parse(bytes), None, "{bytes:?}");
        }
        // An unknown field is not damage.
        assert!(KeyValue::parse(b"\x0a\x01k\x78\x01").is_some());
    }

    proptest! {
        #[test]
        fn parses_what_it_encodes(
            key: Vec<u8>, value: Vec<u8>, create_revision: i64, mod_revision: i64, version: i64, lease: i64,
        ) {
            let record = KeyValue {
                key: &key, create_revision, mod_revision, version, value: &value, lease,
            };
            let bytes = record.encode();
            prop_assert_eq!(KeyValue::parse(&bytes), Some(record));
        }

        #[test]
        fn any_bytes_are_answered(bytes: Vec<u8>) {
            let _ = KeyValue::parse(&bytes);
        }
    }
}
