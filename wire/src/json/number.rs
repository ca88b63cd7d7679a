//! Whole numbers as protobuf's JSON reads them: `1e3`, `1.0` and `"12"` are whole, `1.5` is not.
//!
//! Always true here: the work is bounded by the digits that are there, however large the exponent says the number is.

/// Digits of the largest 64-bit number.
const DIGITS_MAX: usize = 20;

/// Length of the number that `text` begins with, if one does.
pub(super) fn length(text: &[u8]) -> Option<usize> {
    let digits = |from: usize| {
        let rest = text.get(from..).unwrap_or_default();
        rest.iter().take_while(|byte| byte.is_ascii_digit()).count()
    };
    let mut at = usize::from(text.first() == Some(&b'-'));
    at += match text.get(at)? {
        b'0' => 1,
        b'1'..=b'9' => digits(at),
        _ => return None,
    };
    if text.get(at) == Some(&b'.') && digits(at + 1) > 0 {
        at += 1 + digits(at + 1);
    }
    if matches!(text.get(at), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(text.get(at + 1), Some(b'+' | b'-')));
        if digits(at + 1 + sign) > 0 {
            at += 1 + sign + digits(at + 1 + sign);
        }
    }
    let is_delimited = text
        .get(at)
        .is_none_or(|byte| !byte.is_ascii_alphanumeric() && !b"-+._".contains(byte));
    is_delimited.then_some(at)
}

/// A number's value, if it is whole and fits.
pub(super) fn whole(text: &[u8]) -> Option<i128> {
    let (is_negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let exponent_at = text.iter().position(|byte| matches!(byte, b'e' | b'E'));
    let (mantissa, exponent) = text.split_at(exponent_at.unwrap_or(text.len()));
    let point_at = mantissa.iter().position(|byte| *byte == b'.');
    let (whole, fraction) = mantissa.split_at(point_at.unwrap_or(mantissa.len()));
    let fraction = fraction.strip_prefix(b".").unwrap_or_default();
    let fraction = fraction.trim_suffix_zeros();
    let whole = if whole == b"0" { &[][..] } else { whole };
    if whole.is_empty() && fraction.is_empty() {
        return Some(0);
    }
    let exponent: i32 = match exponent {
        [] => 0,
        [_, digits @ ..] => std::str::from_utf8(digits).ok()?.parse().ok()?,
    };
    let mut digits = [b'0'; DIGITS_MAX];
    let len = if let Ok(shift) = usize::try_from(exponent) {
        let len = whole.len().checked_add(shift)?;
        if fraction.len() > shift || len > DIGITS_MAX {
            return None;
        }
        digits[..whole.len()].copy_from_slice(whole);
        digits[whole.len()..][..fraction.len()].copy_from_slice(fraction);
        len
    } else {
        let cut = exponent.unsigned_abs() as usize;
        let len = whole.len().checked_sub(cut)?;
        if !fraction.is_empty() || whole[len..].iter().any(|byte| *byte != b'0') || len > DIGITS_MAX
        {
            return None;
        }
        digits[..len].copy_from_slice(&whole[..len]);
        len
    };
    if len == 0 {
        return None;
    }
    let digits = std::str::from_utf8(&digits[..len]).ok()?;
    let value: i128 = digits.parse().ok()?;
    Some(if is_negative { -value } else { value })
}

trait TrimZeros {
    fn trim_suffix_zeros(&self) -> &[u8];
}

impl TrimZeros for [u8] {
    fn trim_suffix_zeros(&self) -> &[u8] {
        let kept = self.iter().rposition(|byte| *byte != b'0');
        &self[..kept.map_or(0, |last| last + 1)]
    }
}
