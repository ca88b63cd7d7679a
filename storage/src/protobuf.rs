//! The little of protocol buffers that records of the tree file need.
//!
//! Always true: any bytes are safe to read; what is no message gives `None`. Fields this release does not know are
//! skipped. Does not know any message.

/// Wire types.
pub(crate) const VARINT: u64 = 0;
const FIXED64: u64 = 1;
pub(crate) const BYTES: u64 = 2;
const FIXED32: u64 = 5;

pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A field of bytes, also an empty one.
pub(crate) fn put_bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    put_varint(out, field << 3 | BYTES);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

pub(crate) fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for place in 0..10 {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        if place == 9 && byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

pub(crate) fn take_bytes<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(take_varint(bytes)?).ok()?;
    let (content, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(content)
}

/// Number and wire type of the next field; a field has no number 0.
pub(crate) fn take_tag(bytes: &mut &[u8]) -> Option<(u64, u64)> {
    let tag = take_varint(bytes)?;
    (tag >> 3 != 0).then_some((tag >> 3, tag & 7))
}

/// Leaves out a field's value.
pub(crate) fn skip(bytes: &mut &[u8], wire_type: u64) -> Option<()> {
    match wire_type {
        VARINT => take_varint(bytes).map(drop),
        BYTES => take_bytes(bytes).map(drop),
        FIXED64 => {
            *bytes = bytes.get(8..)?;
            Some(())
        }
        FIXED32 => {
            *bytes = bytes.get(4..)?;
            Some(())
        }
        _ => None,
    }
}
