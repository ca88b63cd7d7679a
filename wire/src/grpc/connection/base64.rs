//! Base64 of `-bin` metadata: the standard alphabet, with or without padding, as grpc-go accepts
//! it.

/// Position of the first byte that can not be part of the encoding, for the error text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Corrupt(pub(crate) usize);

/// Decodes a value. As in grpc-go, a length divisible by four means padded (or none needed); any
/// other means no padding.
pub(crate) fn decode(text: &[u8]) -> Result<Vec<u8>, Corrupt> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3 + 2);
    walk(text, |byte| out.push(byte))?;
    Ok(out)
}

/// Whether [`decode`] would succeed, without allocating.
pub(crate) fn check(text: &[u8]) -> Result<(), Corrupt> {
    walk(text, |_| {})
}

fn walk(text: &[u8], mut emit: impl FnMut(u8)) -> Result<(), Corrupt> {
    let mut digits = text;
    if text.len().is_multiple_of(4) {
        digits = digits.strip_suffix(b"=").unwrap_or(digits);
        digits = digits.strip_suffix(b"=").unwrap_or(digits);
    }
    let (mut bits, mut count) = (0u32, 0u32);
    for (position, &byte) in digits.iter().enumerate() {
        let digit = digit(byte).ok_or(Corrupt(position))?;
        bits = bits << 6 | digit;
        count += 6;
        if count >= 8 {
            count -= 8;
            emit((bits >> count) as u8);
        }
    }
    if digits.len() % 4 == 1 {
        Err(Corrupt(digits.len()))
    } else {
        Ok(())
    }
}

fn digit(byte: u8) -> Option<u32> {
    let value = match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    };
    Some(u32::from(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padded_and_unpadded() {
        for (text, bytes) in [
            (&b""[..], &b""[..]),
            (b"Zg==", b"f"),
            (b"Zg", b"f"),
            (b"Zm8=", b"fo"),
            (b"Zm8", b"fo"),
            (b"Zm9v", b"foo"),
            (b"+/+/", &[0xfb, 0xff, 0xbf]),
        ] {
            assert_eq!(decode(text).as_deref(), Ok(bytes));
            assert_eq!(check(text), Ok(()));
        }
    }

    #[test]
    fn corrupt_texts_are_refused() {
        for text in [&b"Z"[..], b"Zg=", b"Z!==", b"====", b"Zm9vZ", b"a-b_"] {
            assert!(decode(text).is_err(), "{text:?}");
            assert_eq!(check(text).err(), decode(text).err());
        }
    }
}
