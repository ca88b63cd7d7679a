//! The Huffman code of RFC 7541 appendix B.
//!
//! The code is canonical: within one length, codes ascend with the symbol. So the 257 lengths below
//! are the whole table, and everything else is computed from them at compile time.
//!
//! Decoding looks ten bits up at once, which covers every letter and digit; longer codes are found
//! by comparing with the first code of each length. A read never passes the end of the input.

/// The text is not a valid encoding: a code that does not exist, the end-of-string symbol, or
/// padding that is too long or not ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidHuffman;

/// Bits of each symbol's code; the last one is the end-of-string symbol.
#[rustfmt::skip]
const CODE_BITS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28,
    28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11,
    10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8,
    15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5,
    6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7,
    7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23,
    23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21,
    23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25,
    26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26,
    28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];

const END_OF_STRING: usize = 256;
const BITS_MAX: usize = 30;
const FAST_BITS: u32 = 10;

/// `(code, bits)` of each byte.
const CODES: [(u32, u8); 256] = codes();

/// For the next ten bits: `bits << 8 | symbol`, or 0 if the code is longer.
static FAST: [u16; 1 << FAST_BITS] = fast_table();

/// Symbols in the order of their codes.
static SYMBOLS: [u16; 257] = symbols();

/// For each length: the first code, left-aligned in 32 bits, one past the last, and the position in
/// [`SYMBOLS`] of the first.
static LENGTHS: [Length; BITS_MAX + 1] = lengths();

#[derive(Clone, Copy)]
struct Length {
    first: u64,
    end: u64,
    position: u16,
}

const fn symbols() -> [u16; 257] {
    let mut out = [0; 257];
    let (mut position, mut bits) = (0, 1);
    while bits <= BITS_MAX {
        let mut symbol = 0;
        while symbol < 257 {
            if CODE_BITS[symbol] as usize == bits {
                out[position] = symbol as u16;
                position += 1;
            }
            symbol += 1;
        }
        bits += 1;
    }
    out
}

const fn lengths() -> [Length; BITS_MAX + 1] {
    let mut out = [Length {
        first: 0,
        end: 0,
        position: 0,
    }; BITS_MAX + 1];
    let (mut code, mut position, mut bits) = (0u64, 0u16, 1);
    while bits <= BITS_MAX {
        code <<= 1;
        let first = code;
        let start = position;
        let mut symbol = 0;
        while symbol < 257 {
            if CODE_BITS[symbol] as usize == bits {
                code += 1;
                position += 1;
            }
            symbol += 1;
        }
        let shift = 32 - bits as u32;
        out[bits] = Length {
            first: first << shift,
            end: code << shift,
            position: start,
        };
        bits += 1;
    }
    out
}

const fn codes() -> [(u32, u8); 256] {
    let mut out = [(0, 0); 256];
    let (symbols, lengths) = (symbols(), lengths());
    let mut position = 0;
    while position < 257 {
        let symbol = symbols[position] as usize;
        if symbol != END_OF_STRING {
            let bits = CODE_BITS[symbol] as usize;
            let rank = position as u64 - lengths[bits].position as u64;
            let code = (lengths[bits].first >> (32 - bits as u32)) + rank;
            out[symbol] = (code as u32, bits as u8);
        }
        position += 1;
    }
    out
}

const fn fast_table() -> [u16; 1 << FAST_BITS] {
    let mut out = [0; 1 << FAST_BITS];
    let mut symbol = 0;
    while symbol < 256 {
        let (code, bits) = CODES[symbol];
        if bits as u32 <= FAST_BITS {
            let spare = FAST_BITS - bits as u32;
            let mut low = 0;
            while low < 1 << spare {
                out[((code << spare) | low) as usize] = (bits as u16) << 8 | symbol as u16;
                low += 1;
            }
        }
        symbol += 1;
    }
    out
}

/// Appends the decoded text. On an error `out` holds what was decoded so far.
pub fn decode(text: &[u8], out: &mut Vec<u8>) -> Result<(), InvalidHuffman> {
    // Every code has at least five bits.
    out.reserve(text.len() * 8 / 5 + 1);
    let mut input = text.iter();
    // The next bits, left-aligned; below them zeroes.
    let (mut bits, mut available) = (0u64, 0u32);
    loop {
        while available <= 56 {
            let Some(&byte) = input.next() else { break };
            bits |= u64::from(byte) << (56 - available);
            available += 8;
        }
        if available == 0 {
            return Ok(());
        }
        let fast = FAST[(bits >> (64 - FAST_BITS)) as usize];
        let (symbol, used) = if fast != 0 {
            ((fast & 0xff) as usize, u32::from(fast >> 8))
        } else {
            let next = bits >> 32;
            let Some((length, used)) = LENGTHS
                .iter()
                .zip(0..)
                .skip(FAST_BITS as usize + 1)
                .find(|(l, _)| next < l.end)
            else {
                return padding(bits, available);
            };
            let rank = (next - length.first) >> (32 - used);
            (
                SYMBOLS[length.position as usize + rank as usize] as usize,
                used,
            )
        };
        if used > available {
            return padding(bits, available);
        }
        if symbol == END_OF_STRING {
            return Err(InvalidHuffman);
        }
        out.push(symbol as u8);
        bits <<= used;
        available -= used;
    }
}

/// What is left must be shorter than a byte, and all ones (RFC 7541 5.2).
fn padding(bits: u64, available: u32) -> Result<(), InvalidHuffman> {
    if available < 8 && bits >> (64 - available) == (1 << available) - 1 {
        Ok(())
    } else {
        Err(InvalidHuffman)
    }
}

/// Appends the encoded text.
pub fn encode(text: &[u8], out: &mut Vec<u8>) {
    let (mut bits, mut count) = (0u64, 0u32);
    for &byte in text {
        let (code, length) = CODES[usize::from(byte)];
        bits = bits << length | u64::from(code);
        count += u32::from(length);
        while count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
        }
    }
    if count > 0 {
        let spare = 8 - count;
        out.push((bits << spare) as u8 | ((1u16 << spare) - 1) as u8);
    }
}

/// Length of the encoded text in bytes.
pub fn encoded_bytes(text: &[u8]) -> usize {
    let bits: usize = text
        .iter()
        .map(|&byte| usize::from(CODE_BITS[usize::from(byte)]))
        .sum();
    bits.div_ceil(8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(text: &[u8]) {
        let mut encoded = Vec::new();
        encode(text, &mut encoded);
        assert_eq!(encoded.len(), encoded_bytes(text));
        let mut decoded = Vec::new();
        assert_eq!(decode(&encoded, &mut decoded), Ok(()), "{text:?}");
        assert_eq!(decoded, text);
    }

    #[test]
    fn codes_of_the_appendix() {
        for (symbol, code, bits) in [
            (b'0', 0x0, 5),
            (b'a', 0x3, 5),
            (b' ', 0x14, 6),
            (b'z', 0x7b, 7),
            (b'&', 0xf8, 8),
            (b'Z', 0xfd, 8),
            (b'!', 0x3f8, 10),
            (0, 0x1ff8, 13),
            (10, 0x3fff_fffc, 30),
            (22, 0x3fff_fffe, 30),
            (249, 0x0fff_fffe, 28),
            (255, 0x03ff_ffee, 26),
        ] {
            assert_eq!(CODES[usize::from(symbol)], (code, bits), "symbol {symbol}");
        }
    }

    #[test]
    fn every_symbol_alone_and_beside_every_other() {
        for first in 0..=255u8 {
            round_trip(&[first]);
            for second in 0..=255u8 {
                round_trip(&[first, second, b'x']);
            }
        }
        round_trip(&(0..=255).collect::<Vec<u8>>());
    }

    #[test]
    fn padding_must_be_short_and_ones() {
        let mut out = Vec::new();
        // 'a' = 00011, then padding 111.
        assert_eq!(decode(&[0b0001_1111], &mut out), Ok(()));
        assert_eq!(decode(&[0b0001_1110], &mut out), Err(InvalidHuffman));
        assert_eq!(decode(&[0b0001_1111, 0xff], &mut out), Err(InvalidHuffman));
        assert_eq!(decode(&[0xff], &mut out), Err(InvalidHuffman));
        // The end-of-string symbol itself.
        assert_eq!(
            decode(&[0xff, 0xff, 0xff, 0xff], &mut out),
            Err(InvalidHuffman)
        );
        assert_eq!(
            decode(&[0xff, 0xff, 0xff, 0xfc], &mut out),
            Err(InvalidHuffman)
        );
        assert_eq!(decode(&[], &mut out), Ok(()));
    }
}
