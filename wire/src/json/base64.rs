//! Base64 in the forms that JSON requests may use: either alphabet, with and without padding.
//!
//! Always true here: what Go's decoder takes is taken. Line ends inside the text are skipped, bits behind the last whole
//! byte are not looked at.

/// Decodes `text`, whose alphabet and padding are read off it as protobuf's JSON reader does. `None` if it is neither.
pub(super) fn decode(text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let is_url = text.iter().any(|byte| matches!(byte, b'-' | b'_'));
    let is_padded = text.len().is_multiple_of(4);
    out.reserve(text.len() / 4 * 3 + 3);
    let mut bytes = text
        .iter()
        .copied()
        .filter(|byte| !matches!(byte, b'\r' | b'\n'));
    let (mut bits, mut digits) = (0u32, 0);
    while let Some(byte) = bytes.next() {
        if byte == b'=' {
            // One or two of them end the last group, and only line ends follow.
            let missing = 4 - digits;
            let is_end = is_padded && digits >= 2 && bytes.by_ref().eq((1..missing).map(|_| b'='));
            return is_end.then(|| put_group(bits, digits, out));
        }
        bits = bits << 6 | u32::from(digit(byte, is_url)?);
        digits += 1;
        if digits == 4 {
            put_group(bits, 4, out);
            (bits, digits) = (0, 0);
        }
    }
    match digits {
        0 => Some(()),
        2 | 3 if !is_padded => {
            put_group(bits, digits, out);
            Some(())
        }
        _ => None,
    }
}

fn put_group(bits: u32, digits: u32, out: &mut Vec<u8>) {
    let bytes = (bits << (6 * (4 - digits))).to_be_bytes();
    out.extend_from_slice(&bytes[1..digits as usize]);
}

fn digit(byte: u8, is_url: bool) -> Option<u8> {
    match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' if !is_url => Some(62),
        b'/' if !is_url => Some(63),
        b'-' if is_url => Some(62),
        b'_' if is_url => Some(63),
        _ => None,
    }
}

/// Appends `bytes` in the standard alphabet, padded.
pub(super) fn encode(bytes: &[u8], out: &mut Vec<u8>) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let symbol = |group: u32, at: u32| ALPHABET[(group >> (18 - 6 * at)) as usize & 63];
    out.reserve(bytes.len().div_ceil(3) * 4);
    let (groups, rest) = bytes.as_chunks::<3>();
    for &[a, b, c] in groups {
        let group = u32::from_be_bytes([0, a, b, c]);
        out.extend_from_slice(&[0, 1, 2, 3].map(|at| symbol(group, at)));
    }
    match *rest {
        [a] => {
            let group = u32::from_be_bytes([0, a, 0, 0]);
            out.extend_from_slice(&[symbol(group, 0), symbol(group, 1), b'=', b'=']);
        }
        [a, b] => {
            let group = u32::from_be_bytes([0, a, b, 0]);
            out.extend_from_slice(&[symbol(group, 0), symbol(group, 1), symbol(group, 2), b'=']);
        }
        _ => {}
    }
}
