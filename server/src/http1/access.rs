//! Who may ask over plain HTTP: names of hosts and origins of web pages.
//!
//! Always true here: the rules and texts are etcd's. An empty list, or one that holds `*`, lets everybody in. gRPC is not
//! asked.

use std::collections::BTreeSet;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Request, Response, StatusCode, Uri};

/// Names that are let in.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Allowed(BTreeSet<String>);

impl Allowed {
    pub fn new(names: impl IntoIterator<Item = String>) -> Allowed {
        Allowed(names.into_iter().collect())
    }

    fn is_everybody(&self) -> bool {
        self.0.is_empty() || self.0.contains("*")
    }

    pub fn has(&self, name: &str) -> bool {
        self.is_everybody() || self.0.contains(name)
    }
}

/// `--host-whitelist` and `--cors`.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Access {
    pub hosts: Allowed,
    pub origins: Allowed,
}

/// The host that a request names, with its port if it has one.
pub fn host<T>(request: &Request<T>) -> Option<&str> {
    let from_uri = request
        .uri()
        .authority()
        .map(|authority| authority.as_str());
    let from_header = || request.headers().get(header::HOST)?.to_str().ok();
    from_uri.or_else(from_header)
}

impl Access {
    /// Refuses a request whose host is not let in: a web page may have led a browser here under a name of its own.
    pub fn refuse_host<T>(&self, request: &Request<T>) -> Option<Response<Bytes>> {
        let host = name_of(host(request).unwrap_or_default());
        if self.hosts.has(host) {
            return None;
        }
        tracing::warn!(
            host,
            "rejecting HTTP request to prevent DNS rebinding attacks"
        );
        let text = format!(
            "\netcd received your request, but the Host header was unrecognized.\n\n\
             To fix this, choose one of the following options:\n\
             - Enable TLS, then any HTTPS request will be allowed.\n\
             - Add the hostname you want to use to the whitelist in settings.\n  \
             - e.g. etcd --host-whitelist {host:?}\n\n\
             This requirement has been added to help prevent \"DNS Rebinding\" attacks (CVE-2018-5702).\n\n"
        );
        let mut reply = Response::new(Bytes::from(text));
        *reply.status_mut() = StatusCode::MISDIRECTED_REQUEST;
        let text = HeaderValue::from_static("text/plain; charset=utf-8");
        let headers = reply.headers_mut();
        headers.insert(header::CONTENT_TYPE, text);
        headers.insert(
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        );
        Some(reply)
    }

    /// Tells a browser which pages may read the answer.
    pub fn put_cors(&self, request: &HeaderMap, reply: &mut HeaderMap) {
        let origin = if self.origins.is_everybody() {
            HeaderValue::from_static("*")
        } else {
            let empty = HeaderValue::from_static("");
            let origin = request.get(header::ORIGIN).unwrap_or(&empty);
            if !origin.to_str().is_ok_and(|origin| self.origins.has(origin)) {
                return;
            }
            origin.clone()
        };
        reply.insert(
            header::ACCESS_CONTROL_ALLOW_METHODS,
            HeaderValue::from_static("POST, GET, OPTIONS, PUT, DELETE"),
        );
        reply.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        reply.insert(
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            HeaderValue::from_static("accept, content-type, authorization"),
        );
    }
}

/// A host without its port, as Go splits them; what cannot be split is all name.
fn name_of(host: &str) -> &str {
    if let Some(rest) = host.strip_prefix('[') {
        return match rest.split_once(']') {
            Some((name, port)) if port.starts_with(':') => name,
            _ => host,
        };
    }
    match host.split_once(':') {
        Some((name, port)) if !port.contains(':') => name,
        _ => host,
    }
}

/// The path as it is served: an older name of the API is the API.
pub fn served_path(uri: &Uri) -> std::borrow::Cow<'_, str> {
    match uri.path().strip_prefix("/v3beta/") {
        Some(rest) => format!("/v3/{rest}").into(),
        None => uri.path().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(host: &str, origin: Option<&str>) -> Request<()> {
        let mut request = Request::builder().uri("/").header("host", host);
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        request.body(()).unwrap()
    }

    #[test]
    fn hosts_are_compared_without_their_port() {
        let access = |names: &[&str]| Access {
            hosts: Allowed::new(names.iter().map(|name| name.to_string())),
            origins: Allowed::default(),
        };
        for host in ["a.b", "a.b:1", "::1", "[::1]:80"] {
            assert!(access(&[]).refuse_host(&request(host, None)).is_none());
            assert!(
                access(&["*", "x"])
                    .refuse_host(&request(host, None))
                    .is_none()
            );
            let own = access(&["a.b", "::1"]);
            assert!(own.refuse_host(&request(host, None)).is_none(), "{host}");
        }
        let refused = access(&["a.b"]).refuse_host(&request("evil:80", None));
        let refused = refused.expect("not in the list");
        assert_eq!(refused.status(), 421);
        let text = std::str::from_utf8(refused.body()).unwrap();
        assert!(
            text.contains("--host-whitelist \"evil\"\n\nThis requirement"),
            "{text}"
        );
    }

    #[test]
    fn origins_are_answered_by_name_unless_all_are_let_in() {
        let origin_shown = |names: &[&str], origin: Option<&str>| {
            let access = Access {
                hosts: Allowed::default(),
                origins: Allowed::new(names.iter().map(|name| name.to_string())),
            };
            let mut headers = HeaderMap::new();
            access.put_cors(request("x", origin).headers(), &mut headers);
            let shown = headers.get(header::ACCESS_CONTROL_ALLOW_ORIGIN).cloned();
            shown.map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(origin_shown(&["*"], None).as_deref(), Some("*"));
        assert_eq!(origin_shown(&[], Some("http://a")).as_deref(), Some("*"));
        assert_eq!(
            origin_shown(&["http://a"], Some("http://a")).as_deref(),
            Some("http://a")
        );
        assert_eq!(origin_shown(&["http://a"], Some("http://b")), None);
        assert_eq!(origin_shown(&["http://a"], None), None);
    }
}
