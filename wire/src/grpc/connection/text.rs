//! Texts of statuses as grpc-go writes them: quoting, percent-encoding, timeouts.

/// Quotes as Go's `%q` does.
pub(super) fn quote(text: &[u8]) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for chunk in text.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' => out += "\\\"",
                '\\' => out += "\\\\",
                '\x07' => out += "\\a",
                '\x08' => out += "\\b",
                '\x0c' => out += "\\f",
                '\n' => out += "\\n",
                '\r' => out += "\\r",
                '\t' => out += "\\t",
                '\x0b' => out += "\\v",
                c if c < ' ' || c == '\x7f' => out += &format!("\\x{:02x}", c as u32),
                c if c.is_control() => out += &format!("\\u{:04x}", c as u32),
                c => out.push(c),
            }
        }
        for byte in chunk.invalid() {
            out += &format!("\\x{byte:02x}");
        }
    }
    out.push('"');
    out
}

/// Appends a text as `grpc-message` carries it: everything but printable ASCII, and the percent
/// sign, as `%XX`.
pub(super) fn percent_encode(text: &str, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in text.as_bytes() {
        if matches!(byte, b' '..=b'~') && byte != b'%' {
            out.push(byte);
        } else {
            let (high, low) = (usize::from(byte >> 4), usize::from(byte & 15));
            out.extend_from_slice(&[b'%', DIGITS[high], DIGITS[low]]);
        }
    }
}

/// Cuts a text to at most `bytes_max`, at a character.
pub(super) fn cut(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

/// Reads `grpc-timeout` into nanoseconds. The error is grpc-go's text.
pub(super) fn timeout_ns(value: &[u8]) -> Result<u64, String> {
    if value.len() < 2 {
        return Err(format!(
            "transport: timeout string is too short: {}",
            quote(value)
        ));
    }
    if value.len() > 9 {
        return Err(format!(
            "transport: timeout string is too long: {}",
            quote(value)
        ));
    }
    let (digits, unit) = value.split_at(value.len() - 1);
    let unit_ns: u64 = match unit {
        b"H" => 3_600_000_000_000,
        b"M" => 60_000_000_000,
        b"S" => 1_000_000_000,
        b"m" => 1_000_000,
        b"u" => 1_000,
        b"n" => 1,
        _ => {
            return Err(format!(
                "transport: timeout unit is not recognized: {}",
                quote(value)
            ));
        }
    };
    let mut amount = 0u64;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return Err(format!(
                "strconv.ParseUint: parsing {}: invalid syntax",
                quote(digits)
            ));
        }
        amount = amount * 10 + u64::from(digit - b'0');
    }
    // Beyond what Go's time.Duration holds, it means "no limit in practice".
    Ok(amount.saturating_mul(unit_ns).min(i64::MAX as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting() {
        assert_eq!(quote(b"gzip"), "\"gzip\"");
        assert_eq!(
            quote(b"a\"b\\c\n\x01\xff\x7f"),
            r#""a\"b\\c\n\x01\xff\x7f""#
        );
        assert_eq!(quote("\u{e4}".as_bytes()), "\"\u{e4}\"");
    }

    #[test]
    fn percent_encoding() {
        let encode = |text| {
            let mut out = Vec::new();
            percent_encode(text, &mut out);
            String::from_utf8(out).expect("ascii")
        };
        assert_eq!(encode("key not found"), "key not found");
        assert_eq!(encode("100%\n\u{e4}"), "100%25%0A%C3%A4");
    }

    #[test]
    fn timeouts() {
        assert_eq!(timeout_ns(b"5S"), Ok(5_000_000_000));
        assert_eq!(timeout_ns(b"12345678n"), Ok(12_345_678));
        assert_eq!(timeout_ns(b"99999999H"), Ok(i64::MAX as u64));
        assert_eq!(timeout_ns(b"0m"), Ok(0));
        for (value, error) in [
            ("S", "transport: timeout string is too short: \"S\""),
            (
                "123456789S",
                "transport: timeout string is too long: \"123456789S\"",
            ),
            ("5x", "transport: timeout unit is not recognized: \"5x\""),
            ("-5S", "strconv.ParseUint: parsing \"-5\": invalid syntax"),
        ] {
            assert_eq!(timeout_ns(value.as_bytes()), Err(error.to_owned()));
        }
    }

    #[test]
    fn cutting_keeps_characters_whole() {
        assert_eq!(cut("a\u{e4}b", 2), "a");
        assert_eq!(cut("a\u{e4}b", 3), "a\u{e4}");
        assert_eq!(cut("ab", 9), "ab");
    }
}
