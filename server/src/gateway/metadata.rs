//! A call's metadata and deadline out of a request's headers.
//!
//! Always true here: which headers become metadata, and under which names, is the rule of etcd's gateway; what gRPC could
//! not carry (control characters, bytes beyond ASCII) is left out as there.

use std::fmt::Write;
use std::net::IpAddr;

use http::header::{self, HeaderMap};
use wire::grpc::MetadataBuf;

/// What makes a header the call's own metadata.
const PREFIX: &str = "grpc-metadata-";

/// Headers that reach the call as `grpcgateway-<name>`.
const PERMANENT: &[&str] = &[
    "accept",
    "accept-charset",
    "accept-language",
    "accept-ranges",
    "authorization",
    "cache-control",
    "content-type",
    "cookie",
    "date",
    "expect",
    "from",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-schedule-tag-match",
    "if-unmodified-since",
    "max-forwards",
    "origin",
    "pragma",
    "referer",
    "user-agent",
    "via",
    "warning",
];

/// `host` is what the request names as its host, if it does.
pub fn metadata(headers: &HeaderMap, host: Option<&str>, peer: Option<IpAddr>) -> MetadataBuf {
    let mut metadata = MetadataBuf::default();
    let mut name_in_call = String::new();
    for (name, value) in headers {
        let is_text = |byte: &u8| matches!(byte, b' '..=b'~');
        if !value.as_bytes().iter().all(is_text) {
            continue;
        }
        if name == header::AUTHORIZATION {
            metadata.push(b"authorization", value.as_bytes());
        }
        let name = name.as_str();
        if let Some(own) = name.strip_prefix(PREFIX) {
            metadata.push(own.as_bytes(), value.as_bytes());
        } else if PERMANENT.contains(&name) {
            name_in_call.clear();
            let _ = write!(name_in_call, "grpcgateway-{name}");
            metadata.push(name_in_call.as_bytes(), value.as_bytes());
        }
    }
    let forwarded_host = headers.get("x-forwarded-host");
    let host = forwarded_host.and_then(|host| host.to_str().ok()).or(host);
    if let Some(host) = host {
        metadata.push(b"x-forwarded-host", host.as_bytes());
    }
    let mut through: Vec<String> = headers
        .get_all("x-forwarded-for")
        .iter()
        .filter_map(|value| value.to_str().ok().map(str::to_owned))
        .collect();
    through.extend(peer.map(|peer| peer.to_string()));
    if !through.is_empty() {
        metadata.push(b"x-forwarded-for", through.join(", ").as_bytes());
    }
    metadata
}

/// How long the client wants to wait, from `Grpc-Timeout`; the error is the text of the refusal. Zero or less is no
/// limit, as in etcd's gateway.
pub fn timeout_ns(headers: &HeaderMap) -> Result<Option<u64>, String> {
    let Some(text) = headers.get("grpc-timeout") else {
        return Ok(None);
    };
    let text = String::from_utf8_lossy(text.as_bytes());
    if text.is_empty() {
        return Ok(None);
    }
    let unit_ns = |unit: char| match unit {
        'H' => Some(3_600_000_000_000i64),
        'M' => Some(60_000_000_000),
        'S' => Some(1_000_000_000),
        'm' => Some(1_000_000),
        'u' => Some(1000),
        'n' => Some(1),
        _ => None,
    };
    let mut number = text.chars();
    let unit = number.next_back().and_then(unit_ns);
    let timeout = unit.zip(number.as_str().parse::<i64>().ok());
    let (unit, number) = timeout.ok_or_else(|| format!("invalid grpc-timeout: {text}"))?;
    let timeout_ns = unit.saturating_mul(number);
    Ok(u64::try_from(timeout_ns).ok().filter(|ns| *ns > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_become_metadata_as_in_etcd() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("authorization", "token.1"),
            ("accept", "*/*"),
            ("grpc-metadata-hasleader", "true"),
            ("x-other", "no"),
            ("x-forwarded-for", "10.0.0.1"),
        ] {
            headers.append(name, value.parse().unwrap());
        }
        let peer = IpAddr::from([127, 0, 0, 1]);
        let made = metadata(&headers, Some("host:1"), Some(peer));
        let mut fields: Vec<(&[u8], &[u8])> = made.view().iter().collect();
        fields.sort_unstable();
        let expected: [(&[u8], &[u8]); 6] = [
            (b"authorization", b"token.1"),
            (b"grpcgateway-accept", b"*/*"),
            (b"grpcgateway-authorization", b"token.1"),
            (b"hasleader", b"true"),
            (b"x-forwarded-for", b"10.0.0.1, 127.0.0.1"),
            (b"x-forwarded-host", b"host:1"),
        ];
        assert_eq!(fields, expected);
    }

    #[test]
    fn timeouts_have_a_unit() {
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", text.parse().unwrap());
            timeout_ns(&headers)
        };
        assert_eq!(timeout_ns(&HeaderMap::new()), Ok(None));
        assert_eq!(read("20m"), Ok(Some(20_000_000)));
        assert_eq!(read("99999999H"), Ok(Some(i64::MAX as u64)));
        assert_eq!(read("0S"), Ok(None));
        for text in ["S", "5", "5x", "1.5S"] {
            assert_eq!(read(text), Err(format!("invalid grpc-timeout: {text}")));
        }
    }
}
