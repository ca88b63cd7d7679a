//! The static table (RFC 7541 appendix A) with what each entry is to a server.

use super::field::FieldKind;

/// Name, value, and kind of the field with that value.
pub(super) type Entry = (&'static [u8], &'static [u8], FieldKind);

/// Number of entries; dynamic ones are counted from `COUNT + 1`.
pub const COUNT: usize = 61;

/// Entry `n` is at position `n - 1`. A [`FieldKind::Malformed`] entry is one a request must not use
/// as it is; its name with another value is classified anew.
#[rustfmt::skip]
pub(super) static ENTRIES: [Entry; COUNT] = [
    (b":authority", b"", FieldKind::Authority),
    (b":method", b"GET", FieldKind::Method),
    (b":method", b"POST", FieldKind::Method),
    (b":path", b"/", FieldKind::Path),
    (b":path", b"/index.html", FieldKind::Path),
    (b":scheme", b"http", FieldKind::Scheme),
    (b":scheme", b"https", FieldKind::Scheme),
    (b":status", b"200", FieldKind::Malformed),
    (b":status", b"204", FieldKind::Malformed),
    (b":status", b"206", FieldKind::Malformed),
    (b":status", b"304", FieldKind::Malformed),
    (b":status", b"400", FieldKind::Malformed),
    (b":status", b"404", FieldKind::Malformed),
    (b":status", b"500", FieldKind::Malformed),
    (b"accept-charset", b"", FieldKind::Metadata),
    (b"accept-encoding", b"gzip, deflate", FieldKind::Metadata),
    (b"accept-language", b"", FieldKind::Metadata),
    (b"accept-ranges", b"", FieldKind::Metadata),
    (b"accept", b"", FieldKind::Metadata),
    (b"access-control-allow-origin", b"", FieldKind::Metadata),
    (b"age", b"", FieldKind::Metadata),
    (b"allow", b"", FieldKind::Metadata),
    (b"authorization", b"", FieldKind::Metadata),
    (b"cache-control", b"", FieldKind::Metadata),
    (b"content-disposition", b"", FieldKind::Metadata),
    (b"content-encoding", b"", FieldKind::Metadata),
    (b"content-language", b"", FieldKind::Metadata),
    (b"content-length", b"", FieldKind::ContentLength),
    (b"content-location", b"", FieldKind::Metadata),
    (b"content-range", b"", FieldKind::Metadata),
    (b"content-type", b"", FieldKind::ContentType),
    (b"cookie", b"", FieldKind::Metadata),
    (b"date", b"", FieldKind::Metadata),
    (b"etag", b"", FieldKind::Metadata),
    (b"expect", b"", FieldKind::Metadata),
    (b"expires", b"", FieldKind::Metadata),
    (b"from", b"", FieldKind::Metadata),
    (b"host", b"", FieldKind::Host),
    (b"if-match", b"", FieldKind::Metadata),
    (b"if-modified-since", b"", FieldKind::Metadata),
    (b"if-none-match", b"", FieldKind::Metadata),
    (b"if-range", b"", FieldKind::Metadata),
    (b"if-unmodified-since", b"", FieldKind::Metadata),
    (b"last-modified", b"", FieldKind::Metadata),
    (b"link", b"", FieldKind::Metadata),
    (b"location", b"", FieldKind::Metadata),
    (b"max-forwards", b"", FieldKind::Metadata),
    (b"proxy-authenticate", b"", FieldKind::Metadata),
    (b"proxy-authorization", b"", FieldKind::Metadata),
    (b"range", b"", FieldKind::Metadata),
    (b"referer", b"", FieldKind::Metadata),
    (b"refresh", b"", FieldKind::Metadata),
    (b"retry-after", b"", FieldKind::Metadata),
    (b"server", b"", FieldKind::Metadata),
    (b"set-cookie", b"", FieldKind::Metadata),
    (b"strict-transport-security", b"", FieldKind::Metadata),
    (b"transfer-encoding", b"", FieldKind::Malformed),
    (b"user-agent", b"", FieldKind::UserAgent),
    (b"vary", b"", FieldKind::Metadata),
    (b"via", b"", FieldKind::Metadata),
    (b"www-authenticate", b"", FieldKind::Metadata),
];

#[cfg(test)]
mod tests {
    use super::super::field::classify;
    use super::*;

    #[test]
    fn kinds_agree_with_the_rules() {
        for (name, value, kind) in ENTRIES {
            assert_eq!(
                classify(name, value),
                kind,
                "{}",
                String::from_utf8_lossy(name)
            );
        }
    }
}
