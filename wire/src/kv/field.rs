//! Writes protobuf fields, and computes their lengths.
//!
//! Always true: a field with its zero value is left out, unless the function says `present`. Used by the encoders of
//! this module. Does not know any message.

/// Bytes a number takes as a varint.
#[inline]
pub(super) const fn varint_len(value: u64) -> usize {
    // One byte for each started group of seven bits.
    (((value | 1).ilog2() as usize) * 9 + 73) / 64
}

#[inline]
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

const fn key_len(field: u32) -> usize {
    varint_len((field as u64) << 3)
}

#[inline]
fn put_key(out: &mut Vec<u8>, field: u32, wire_type: u32) {
    put_varint(out, u64::from(field << 3 | wire_type));
}

/// The key of a length-delimited field.
#[inline]
pub(super) fn put_message_key(out: &mut Vec<u8>, field: u32) {
    put_key(out, field, 2);
}

/// A byte string or an encoded message, written even when empty.
#[inline]
pub(super) fn put_present_bytes(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    put_key(out, field, 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

#[inline]
pub(super) fn put_bytes(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    if !bytes.is_empty() {
        put_present_bytes(out, field, bytes);
    }
}

#[inline]
pub(super) fn put_u64(out: &mut Vec<u8>, field: u32, value: u64) {
    if value != 0 {
        put_key(out, field, 0);
        put_varint(out, value);
    }
}

#[inline]
pub(super) fn put_i64(out: &mut Vec<u8>, field: u32, value: i64) {
    put_u64(out, field, value as u64);
}

#[inline]
pub(super) fn put_bool(out: &mut Vec<u8>, field: u32, value: bool) {
    put_u64(out, field, u64::from(value));
}

/// Length of a length-delimited field whose content is `len` bytes, written even when empty.
#[inline]
pub(super) const fn present_bytes_len(field: u32, len: usize) -> usize {
    key_len(field) + varint_len(len as u64) + len
}

#[inline]
pub(super) const fn bytes_len(field: u32, len: usize) -> usize {
    if len == 0 {
        0
    } else {
        present_bytes_len(field, len)
    }
}

/// Length of a number field written even when zero.
#[inline]
pub(super) const fn present_i64_len(field: u32, value: i64) -> usize {
    key_len(field) + varint_len(value as u64)
}

#[inline]
pub(super) const fn i64_len(field: u32, value: i64) -> usize {
    if value == 0 {
        0
    } else {
        present_i64_len(field, value)
    }
}

#[inline]
pub(super) const fn u64_len(field: u32, value: u64) -> usize {
    i64_len(field, value as i64)
}

#[inline]
pub(super) const fn bool_len(field: u32, value: bool) -> usize {
    if value { key_len(field) + 1 } else { 0 }
}
