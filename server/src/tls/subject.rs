//! Reads the common name out of a certificate's subject.
//!
//! Always true here: any bytes are safe to give; what is not a well-formed certificate has no name.
//! Called once per connection that presented a verified certificate. Reads DER just as far as the
//! subject; deliberately checks nothing else, because the verifier already has.

use super::der::{EXPLICIT_0, OBJECT_IDENTIFIER, SEQUENCE, element, expect};

/// Object identifier 2.5.4.3 (commonName), as encoded.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

const SET: u8 = 0x31;
const UTF8_STRING: u8 = 0x0c;
const PRINTABLE_STRING: u8 = 0x13;
const TELETEX_STRING: u8 = 0x14;
const IA5_STRING: u8 = 0x16;

/// The last common name of the subject, as Go's `Subject.CommonName` gives it.
pub(super) fn common_name(certificate: &[u8]) -> Option<String> {
    let (certificate, _) = expect(certificate, SEQUENCE)?;
    let (mut fields, _) = expect(certificate, SEQUENCE)?;
    if let Some((_, rest)) = expect(fields, EXPLICIT_0) {
        fields = rest; // version
    }
    for _ in ["serial number", "signature algorithm", "issuer", "validity"] {
        (_, _, fields) = element(fields)?;
    }
    let (mut names, _) = expect(fields, SEQUENCE)?;
    let mut found = None;
    while !names.is_empty() {
        let (mut attributes, rest) = expect(names, SET)?;
        names = rest;
        while !attributes.is_empty() {
            let (attribute, rest) = expect(attributes, SEQUENCE)?;
            attributes = rest;
            let (kind, value) = expect(attribute, OBJECT_IDENTIFIER)?;
            if kind == COMMON_NAME {
                let (tag, text, _) = element(value)?;
                if matches!(
                    tag,
                    UTF8_STRING | PRINTABLE_STRING | TELETEX_STRING | IA5_STRING
                ) {
                    found = Some(std::str::from_utf8(text).ok()?.to_owned());
                }
            }
        }
    }
    found
}
