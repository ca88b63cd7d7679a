//! What a field is to a server, decided once from its name and value.
//!
//! The decoder's tables keep this beside each entry, so a repeated field costs neither a comparison
//! nor a validity check. Rules: RFC 9113 8.2 (names and values), 8.2.2 (fields of HTTP/1.1
//! connections), 8.3.1 (pseudo-header fields).

/// The part a field plays in a gRPC request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldKind {
    Method,
    Scheme,
    Path,
    Authority,
    Host,
    ContentType,
    ContentLength,
    /// `te`: accepted with any value, as grpc-go does.
    Te,
    UserAgent,
    GrpcTimeout,
    GrpcEncoding,
    /// `grpc-status`, `grpc-message`, `grpc-message-type`: the transport's own, not metadata.
    GrpcReserved,
    /// Metadata whose value is base64.
    Binary,
    Metadata,
    /// Makes the request malformed: an unknown or misplaced pseudo-header, a field of HTTP/1.1
    /// connections, an upper-case or otherwise forbidden name, a forbidden character in the value.
    Malformed,
}

/// Classifies a field and checks its characters.
pub fn classify(name: &[u8], value: &[u8]) -> FieldKind {
    if !is_valid_value(value) {
        return FieldKind::Malformed;
    }
    let kind = match name {
        b":method" => FieldKind::Method,
        b":scheme" => FieldKind::Scheme,
        b":path" => FieldKind::Path,
        b":authority" => FieldKind::Authority,
        b"host" => FieldKind::Host,
        b"content-type" => FieldKind::ContentType,
        b"content-length" => FieldKind::ContentLength,
        b"te" => FieldKind::Te,
        b"user-agent" => FieldKind::UserAgent,
        b"grpc-timeout" => FieldKind::GrpcTimeout,
        b"grpc-encoding" => FieldKind::GrpcEncoding,
        b"grpc-status" | b"grpc-message" | b"grpc-message-type" => FieldKind::GrpcReserved,
        b"connection" | b"keep-alive" | b"proxy-connection" | b"transfer-encoding" | b"upgrade" => {
            FieldKind::Malformed
        }
        _ if !is_valid_name(name) => FieldKind::Malformed,
        _ if name.ends_with(b"-bin") => FieldKind::Binary,
        _ => FieldKind::Metadata,
    };
    if kind == FieldKind::Path && value.is_empty() {
        FieldKind::Malformed
    } else {
        kind
    }
}

/// A token without upper-case letters (which also excludes the colon of pseudo-headers).
fn is_valid_name(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|&byte| {
        matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*'
                | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~')
    })
}

/// No control characters but a tab inside; no space at either end.
fn is_valid_value(value: &[u8]) -> bool {
    let is_space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    !is_space(value.first())
        && !is_space(value.last())
        && value
            .iter()
            .all(|&byte| (byte >= 0x20 && byte != 0x7f) || byte == b'\t')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds() {
        use FieldKind::*;
        for (name, value, kind) in [
            (":method", "POST", Method),
            (":path", "/a", Path),
            (":path", "", Malformed),
            (":status", "200", Malformed),
            (":other", "", Malformed),
            ("", "", Malformed),
            ("token", "x", Metadata),
            ("Token", "x", Malformed),
            ("a b", "x", Malformed),
            ("a:b", "x", Malformed),
            ("blob-bin", "aGk", Binary),
            ("connection", "close", Malformed),
            ("upgrade", "h2c", Malformed),
            ("te", "gzip", Te),
            ("token", "a\nb", Malformed),
            ("token", "a\0", Malformed),
            ("token", " a", Malformed),
            ("token", "a\t", Malformed),
            ("token", "a\tb \u{e9}", Metadata),
            ("token", "", Metadata),
            ("grpc-previous-rpc-attempts", "1", Metadata),
        ] {
            assert_eq!(
                classify(name.as_bytes(), value.as_bytes()),
                kind,
                "{name}: {value:?}"
            );
        }
    }
}
