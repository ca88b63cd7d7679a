//! Tells what a new connection speaks from its first bytes.
//!
//! Always true here: the answer depends on the bytes alone, and `NeedMore` is answered only while fewer
//! than `SNIFF_BYTES_MAX` bytes could still turn out to be something we serve, so a caller that keeps
//! reading always gets a final answer within that many bytes.
//!
//! Called by a net core on the first read of a plaintext connection (under TLS, ALPN decides) and on the
//! first read of a TLS port, where anything but a client hello is refused. Keeps no state, reads nothing.

/// The most bytes a caller needs to hold before the answer is final.
pub const SNIFF_BYTES_MAX: usize = 24;

/// The fixed opening of an HTTP/2 connection (RFC 9113 section 3.4).
const HTTP2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The longest method token we are ready to read before the first space.
const METHOD_BYTES_MAX: usize = 16;

/// What the first bytes say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sniff {
    /// A prefix of more than one thing; read on, then ask again with all bytes so far.
    NeedMore,
    /// The HTTP/2 preface, whole.
    Http2,
    /// A method token and a space: an HTTP/1.x request line.
    Http1,
    /// A TLS handshake record that opens with a client hello.
    TlsClientHello,
    /// Nothing we serve; the text says why, as a label of the counter of closed connections.
    Garbage(&'static str),
}

/// Classifies a connection by all bytes received so far.
pub fn sniff(bytes: &[u8]) -> Sniff {
    let Some(&first) = bytes.first() else {
        return Sniff::NeedMore;
    };
    if first == 0x16 {
        return sniff_tls(bytes);
    }
    if HTTP2_PREFACE.starts_with(bytes) {
        return if bytes.len() == HTTP2_PREFACE.len() {
            Sniff::Http2
        } else {
            Sniff::NeedMore
        };
    }
    if bytes.starts_with(HTTP2_PREFACE) {
        return Sniff::Http2;
    }
    if bytes.starts_with(b"PRI ") {
        return Sniff::Garbage("broken_http2_preface");
    }
    for (position, &byte) in bytes.iter().enumerate().take(METHOD_BYTES_MAX + 1) {
        if byte == b' ' {
            return if position == 0 {
                Sniff::Garbage("no_method")
            } else {
                Sniff::Http1
            };
        }
        if !is_token(byte) {
            return Sniff::Garbage("neither_http_nor_tls");
        }
    }
    if bytes.len() <= METHOD_BYTES_MAX {
        Sniff::NeedMore
    } else {
        Sniff::Garbage("method_too_long")
    }
}

/// Record header: type 22, version 3.x, length; then handshake type 1.
fn sniff_tls(bytes: &[u8]) -> Sniff {
    match *bytes {
        [_, major, ..] if major != 3 => Sniff::Garbage("broken_tls_record"),
        [_, _, _, _, _, 1, ..] => Sniff::TlsClientHello,
        [_, _, _, _, _, _, ..] => Sniff::Garbage("no_client_hello"),
        _ => Sniff::NeedMore,
    }
}

/// `tchar` of RFC 9110 section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8], expected: Sniff) {
        assert_eq!(
            sniff(bytes),
            expected,
            "{:?}",
            String::from_utf8_lossy(bytes)
        );
    }

    #[test]
    fn whole_openings_are_recognised() {
        check(HTTP2_PREFACE, Sniff::Http2);
        check(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04",
            Sniff::Http2,
        );
        check(b"GET /health HTTP/1.1\r\n", Sniff::Http1);
        check(b"POST ", Sniff::Http1);
        check(b"PROPFIND /", Sniff::Http1);
        check(&[0x16, 3, 1, 0, 200, 1, 0], Sniff::TlsClientHello);
    }

    #[test]
    fn prefixes_ask_for_more() {
        check(b"", Sniff::NeedMore);
        check(b"P", Sniff::NeedMore);
        check(b"PRI", Sniff::NeedMore);
        check(b"GE", Sniff::NeedMore);
        check(&[0x16, 3, 1], Sniff::NeedMore);
        for cut in 0..HTTP2_PREFACE.len() {
            check(&HTTP2_PREFACE[..cut], Sniff::NeedMore);
        }
    }

    #[test]
    fn garbage_is_named() {
        check(b"\0", Sniff::Garbage("neither_http_nor_tls"));
        check(b" GET", Sniff::Garbage("no_method"));
        check(b"PRI * HTTP/1", Sniff::Garbage("broken_http2_preface"));
        check(b"AAAAAAAAAAAAAAAAAAAA", Sniff::Garbage("method_too_long"));
        check(&[0x16, 0x50], Sniff::Garbage("broken_tls_record"));
        check(&[0x16, 3, 1, 0, 4, 2], Sniff::Garbage("no_client_hello"));
    }

    #[test]
    fn the_answer_is_final_within_the_bound() {
        for first in 0..=255u8 {
            for fill in [b'A', b' ', 0, 3] {
                let mut bytes = [fill; SNIFF_BYTES_MAX];
                bytes[0] = first;
                assert_ne!(
                    sniff(&bytes),
                    Sniff::NeedMore,
                    "first byte {first}, fill {fill}"
                );
            }
        }
    }
}
