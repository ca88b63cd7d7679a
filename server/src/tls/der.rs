//! The little of DER that certificates and keys need.
//!
//! Always true here: any bytes are safe to give. Does not know what the elements mean.

pub const SEQUENCE: u8 = 0x30;
pub const OBJECT_IDENTIFIER: u8 = 0x06;
pub const EXPLICIT_0: u8 = 0xa0;

/// The content of the first element, if it has this tag, and what follows it.
pub fn expect(bytes: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    let (tag, content, rest) = element(bytes)?;
    (tag == wanted).then_some((content, rest))
}

/// Tag, content and rest. Lengths of more than four bytes are no certificate's.
pub fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, mut rest) = rest.split_first()?;
    let mut length = usize::from(first);
    if first & 0x80 != 0 {
        let width = usize::from(first & 0x7f);
        if !(1..=4).contains(&width) {
            return None;
        }
        let (digits, tail) = rest.split_at_checked(width)?;
        length = digits
            .iter()
            .fold(0, |value, digit| value << 8 | usize::from(*digit));
        rest = tail;
    }
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}
