//! Fields of certificates and revocation lists that the TLS library does not show.
//!
//! Always true here: any bytes are safe to give; what is not well formed has no fields. Reads DER as far as it must and
//! checks no signature: a certificate was verified before, and a revocation list is the operator's own file.

use super::der::{element, expect};

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const EXPLICIT_0: u8 = 0xa0;

/// What follows the version in a certificate: first its serial number.
fn certificate_fields(certificate: &[u8]) -> Option<&[u8]> {
    let (certificate, _) = expect(certificate, SEQUENCE)?;
    let (fields, _) = expect(certificate, SEQUENCE)?;
    match expect(fields, EXPLICIT_0) {
        Some((_, rest)) => Some(rest),
        None => Some(fields),
    }
}

/// A serial number without leading zeros.
pub(super) fn serial(certificate: &[u8]) -> Option<&[u8]> {
    let (serial, _) = expect(certificate_fields(certificate)?, INTEGER)?;
    Some(without_zeros(serial))
}

/// The second after which a certificate is no longer valid, since 1970.
pub(super) fn not_after(certificate: &[u8]) -> Option<i64> {
    let mut fields = certificate_fields(certificate)?;
    for _ in ["serial number", "signature algorithm", "issuer"] {
        (_, _, fields) = element(fields)?;
    }
    let (validity, _) = expect(fields, SEQUENCE)?;
    let (_, _, rest) = element(validity)?;
    let (tag, text, _) = element(rest)?;
    seconds(tag, text)
}

/// The serial numbers on a revocation list.
pub(super) fn revoked_serials(list: &[u8]) -> Option<Vec<Vec<u8>>> {
    let (list, _) = expect(list, SEQUENCE)?;
    let (mut fields, _) = expect(list, SEQUENCE)?;
    if let Some((_, rest)) = expect(fields, INTEGER) {
        fields = rest; // version
    }
    for _ in ["signature algorithm", "issuer", "this update"] {
        (_, _, fields) = element(fields)?;
    }
    if let Some((UTC_TIME | GENERALIZED_TIME, _, rest)) = element(fields) {
        fields = rest; // next update
    }
    let Some((mut entries, _)) = expect(fields, SEQUENCE) else {
        return Some(Vec::new());
    };
    let mut serials = Vec::new();
    while !entries.is_empty() {
        let (entry, rest) = expect(entries, SEQUENCE)?;
        entries = rest;
        let (serial, _) = expect(entry, INTEGER)?;
        serials.push(without_zeros(serial).to_vec());
    }
    Some(serials)
}

fn without_zeros(bytes: &[u8]) -> &[u8] {
    let first = bytes.iter().position(|byte| *byte != 0);
    &bytes[first.unwrap_or(bytes.len())..]
}

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ` (RFC 5280, 4.1.2.5).
fn seconds(tag: u8, text: &[u8]) -> Option<i64> {
    let digits = std::str::from_utf8(text.strip_suffix(b"Z")?).ok()?;
    let (year, rest) = match tag {
        UTC_TIME => {
            let (year, rest) = digits.split_at_checked(2)?;
            let year: i64 = year.parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        GENERALIZED_TIME => {
            let (year, rest) = digits.split_at_checked(4)?;
            (year.parse().ok()?, rest)
        }
        _ => return None,
    };
    let part = |at: usize| rest.get(2 * at..2 * at + 2)?.parse::<i64>().ok();
    let (month, day) = (part(0)?, part(1)?);
    // Days since 1970-01-01 in the proleptic calendar, with the year beginning in March.
    let (year, month) = if month <= 2 {
        (year - 1, month + 9)
    } else {
        (year, month - 3)
    };
    let days = 365 * year + year.div_euclid(4) - year.div_euclid(100)
        + year.div_euclid(400)
        + (153 * month + 2) / 5
        + day
        - 1
        - 719_468;
    Some(((days * 24 + part(2)?) * 60 + part(3)?) * 60 + part(4)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_in_both_forms() {
        assert_eq!(seconds(UTC_TIME, b"700101000000Z"), Some(0));
        assert_eq!(seconds(UTC_TIME, b"491231235959Z"), Some(2_524_607_999));
        assert_eq!(
            seconds(GENERALIZED_TIME, b"20000301000001Z"),
            Some(951_868_801)
        );
        assert_eq!(seconds(GENERALIZED_TIME, b"2000"), None);
        assert_eq!(seconds(INTEGER, b"700101000000Z"), None);
    }

    #[test]
    fn garbage_has_no_fields() {
        for bytes in [&b""[..], b"\x30", b"\x30\x03\x30\x01\x00", &[0x30; 40]] {
            assert_eq!(serial(bytes), None);
            assert_eq!(not_after(bytes), None);
        }
        assert_eq!(revoked_serials(b"\x30\x84\xff\xff\xff\xff"), None);
    }
}
