//! Integers with a prefix (RFC 7541 5.1).
//!
//! Values are bounded by 2^28, more than any length or index here can be, so the arithmetic can not
//! overflow and an endless continuation is refused after four bytes.

/// The integer is cut off or too large.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidInteger;

const VALUE_MAX: u32 = 1 << 28;

/// Reads an integer whose prefix is the low `prefix_bits` of `first`; the rest comes from `input`,
/// which is advanced.
#[inline]
pub fn decode(first: u8, prefix_bits: u32, input: &mut &[u8]) -> Result<u32, InvalidInteger> {
    let mask = (1u32 << prefix_bits) - 1;
    let prefix = u32::from(first) & mask;
    if prefix < mask {
        return Ok(prefix);
    }
    decode_long(mask, input)
}

fn decode_long(start: u32, input: &mut &[u8]) -> Result<u32, InvalidInteger> {
    let (mut value, mut shift) = (u64::from(start), 0);
    loop {
        let (&byte, rest) = input.split_first().ok_or(InvalidInteger)?;
        *input = rest;
        value += u64::from(byte & 0x7f) << shift;
        if value > u64::from(VALUE_MAX) {
            return Err(InvalidInteger);
        }
        if byte & 0x80 == 0 {
            return Ok(value as u32);
        }
        shift += 7;
        if shift > 28 {
            return Err(InvalidInteger);
        }
    }
}

/// Appends an integer; `flags` are the bits above the prefix.
pub fn encode(value: usize, prefix_bits: u32, flags: u8, out: &mut Vec<u8>) {
    let mask = (1usize << prefix_bits) - 1;
    if value < mask {
        out.push(flags | value as u8);
        return;
    }
    out.push(flags | mask as u8);
    let mut rest = value - mask;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_of_the_rfc() {
        for (value, prefix_bits, bytes) in [
            (10, 5, &[0b01010][..]),
            (1337, 5, &[0b11111, 154, 10]),
            (42, 8, &[42]),
        ] {
            let mut out = Vec::new();
            encode(value, prefix_bits, 0, &mut out);
            assert_eq!(out, bytes);
            let mut rest = &bytes[1..];
            assert_eq!(decode(bytes[0], prefix_bits, &mut rest), Ok(value as u32));
            assert!(rest.is_empty());
        }
    }

    #[test]
    fn cut_off_and_endless_integers_are_refused() {
        assert_eq!(decode(0x1f, 5, &mut &[][..]), Err(InvalidInteger));
        assert_eq!(decode(0x1f, 5, &mut &[0x80][..]), Err(InvalidInteger));
        assert_eq!(decode(0x1f, 5, &mut &[0x80; 20][..]), Err(InvalidInteger));
        assert_eq!(
            decode(0x1f, 5, &mut &[0xff, 0xff, 0xff, 0xff, 0x7f][..]),
            Err(InvalidInteger)
        );
    }
}
