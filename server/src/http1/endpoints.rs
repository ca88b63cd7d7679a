//! Answers to plain HTTP requests: version, health checks, metrics; everything else is not found.
//!
//! Always true here: paths, methods, status codes, content types and bodies are etcd's, byte for byte,
//! because probes and monitoring match on them. A failed check is an answer (503), never an error.
//!
//! Called on the net core that owns the connection. Deliberately reads no request bodies
//! (nothing served here has one) and knows nothing of how a check is made; `Backend` does.

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};

use super::backend::{AlarmKind, Backend, CheckFamily};

pub type Reply = Response<Bytes>;

const TEXT: &str = "text/plain; charset=utf-8";
const METRICS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores";

/// The refusal of a request that does not say whom it is for; it ends the connection.
pub fn refuse_hostless<T>(request: &Request<T>) -> Option<Reply> {
    if request.version() != Version::HTTP_11 || request.headers().contains_key(header::HOST) {
        return None;
    }
    let mut reply = text(
        StatusCode::BAD_REQUEST,
        "400 Bad Request: missing required Host header",
    );
    let close = HeaderValue::from_static("close");
    reply.headers_mut().insert(header::CONNECTION, close);
    Some(reply)
}

/// The answer to a request of any version of HTTP whose body is not wanted. With `only_metrics`, as on the addresses of
/// `--listen-metrics-urls`, fewer paths are known.
pub async fn answer<B: Backend, T>(backend: &B, request: &Request<T>, only_metrics: bool) -> Reply {
    let path = decode(request.uri().path(), false).unwrap_or_default();
    let query = Query::parse(request.uri().query().unwrap_or(""));
    let is_get = request.method() == Method::GET;
    match path.as_str() {
        "/metrics" => typed(StatusCode::OK, METRICS_TEXT, backend.metrics().await),
        "/version" | "/debug/vars" if only_metrics => not_found(),
        "/version" | "/health" | "/livez" | "/readyz" | "/debug/vars" if !is_get => {
            method_not_allowed()
        }
        "/version" => version(backend),
        "/debug/vars" => {
            let json = "application/json; charset=utf-8";
            typed(StatusCode::OK, json, backend.variables())
        }
        "/health" => health(backend, &query).await,
        "/livez" => checks(backend, CheckFamily::Livez, LIVEZ, &path, &query).await,
        "/readyz" => checks(backend, CheckFamily::Readyz, READYZ, &path, &query).await,
        _ => match single_check(&path) {
            Some(_) if !is_get => method_not_allowed(),
            // `exclude` has no effect below the root paths.
            Some((family, check)) => {
                let query = Query {
                    pairs: query.only("verbose"),
                };
                checks(backend, family, &[check], &path, &query).await
            }
            None => not_found(),
        },
    }
}

fn not_found() -> Reply {
    text(StatusCode::NOT_FOUND, "404 page not found")
}

fn version<B: Backend>(backend: &B) -> Reply {
    #[derive(serde::Serialize)]
    struct Body<'a> {
        etcdserver: &'a str,
        etcdcluster: &'a str,
        storage: &'a str,
    }
    let versions = backend.versions();
    let body = serde_json::to_vec(&Body {
        etcdserver: &versions.server,
        etcdcluster: versions.cluster.as_deref().unwrap_or("not_decided"),
        storage: versions.storage.as_deref().unwrap_or("unknown"),
    })
    .expect("three strings always encode");
    typed(StatusCode::OK, "application/json", body.into())
}

async fn health<B: Backend>(backend: &B, query: &Query) -> Reply {
    let serializable = query.first("serializable") == Some("true");
    let reason = unhealthy_reason(backend, query, serializable).await;
    backend.on_health(reason.is_none());
    match reason {
        None => typed(
            StatusCode::OK,
            TEXT,
            Bytes::from_static(br#"{"health":"true","reason":""}"#),
        ),
        Some(reason) => {
            let output = format!(
                r#"{{"health":"false","reason":{}}}"#,
                go_json_string(&reason)
            );
            tracing::warn!(output, "status-code" = 503, "/health error");
            text(StatusCode::SERVICE_UNAVAILABLE, &output)
        }
    }
}

/// Alarms first, then the leader, then one read; the first that fails gives the reason.
async fn unhealthy_reason<B: Backend>(
    backend: &B,
    query: &Query,
    serializable: bool,
) -> Option<String> {
    for alarm in backend.alarms() {
        let name = alarm.text();
        if !query.all("exclude").any(|excluded| excluded == name) {
            return Some(format!("ALARM {name}"));
        }
    }
    if !serializable && !backend.has_leader() {
        return Some("RAFT NO LEADER".to_owned());
    }
    let read = if serializable {
        backend.serializable_read().await
    } else {
        backend.linearizable_read().await
    };
    read.err().map(|error| format!("RANGE ERROR:{error}"))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Check {
    DataCorruption,
    SerializableRead,
    LinearizableRead,
    NonLearner,
}

const LIVEZ: &[Check] = &[Check::SerializableRead];
const READYZ: &[Check] = &[
    Check::DataCorruption,
    Check::SerializableRead,
    Check::LinearizableRead,
    Check::NonLearner,
];

impl Check {
    fn name(self) -> &'static str {
        match self {
            Check::DataCorruption => "data_corruption",
            Check::SerializableRead => "serializable_read",
            Check::LinearizableRead => "linearizable_read",
            Check::NonLearner => "non_learner",
        }
    }

    async fn run<B: Backend>(self, backend: &B) -> Result<(), String> {
        match self {
            Check::DataCorruption if backend.alarms().contains(&AlarmKind::Corrupt) => {
                Err("alarm activated: CORRUPT".to_owned())
            }
            Check::NonLearner if backend.is_learner() => {
                Err("not supported for learner".to_owned())
            }
            Check::DataCorruption | Check::NonLearner => Ok(()),
            Check::SerializableRead => backend.serializable_read().await,
            Check::LinearizableRead => backend.linearizable_read().await,
        }
    }
}

/// `/livez/<check>` and `/readyz/<check>`.
fn single_check(path: &str) -> Option<(CheckFamily, Check)> {
    let (family, table, name) = if let Some(name) = path.strip_prefix("/livez/") {
        (CheckFamily::Livez, LIVEZ, name)
    } else {
        (CheckFamily::Readyz, READYZ, path.strip_prefix("/readyz/")?)
    };
    let check = table.iter().find(|check| check.name() == name)?;
    Some((family, *check))
}

async fn checks<B: Backend>(
    backend: &B,
    family: CheckFamily,
    table: &[Check],
    path: &str,
    query: &Query,
) -> Reply {
    let mut report = String::new();
    let mut passed = true;
    for check in table {
        let name = check.name();
        if query.all("exclude").any(|excluded| excluded == name) {
            continue;
        }
        let result = check.run(backend).await;
        backend.on_check(family, name, result.is_ok());
        match result {
            Ok(()) => report += &format!("[+]{name} ok\n"),
            Err(error) => {
                passed = false;
                report += &format!("[-]{name} failed: {error}\n");
            }
        }
    }
    if !passed {
        tracing::error!(
            path,
            reason = report,
            "status-code" = 503,
            "Health check error"
        );
        return text(StatusCode::SERVICE_UNAVAILABLE, &report);
    }
    let mut body = if query.first("verbose").is_some() {
        report
    } else {
        String::new()
    };
    body += "ok\n";
    let mut reply = typed(StatusCode::OK, TEXT, body.into());
    reply.headers_mut().insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    reply
}

/// A plain-text error: the text and one newline, never sniffed for another type.
fn text(status: StatusCode, message: &str) -> Reply {
    let mut reply = typed(status, TEXT, Bytes::from(format!("{message}\n")));
    reply.headers_mut().insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    reply
}

fn method_not_allowed() -> Reply {
    let mut reply = text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    reply
        .headers_mut()
        .insert(header::ALLOW, HeaderValue::from_static("GET"));
    reply
}

fn typed(status: StatusCode, content_type: &'static str, body: Bytes) -> Reply {
    const CONTENT_TYPE: HeaderName = header::CONTENT_TYPE;
    let mut reply = Response::new(body);
    *reply.status_mut() = status;
    reply
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply
}

/// A JSON string as Go's encoder writes it: `<`, `>` and `&` escaped, too.
fn go_json_string(value: &str) -> String {
    serde_json::Value::from(value)
        .to_string()
        .replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029")
}

/// Query parameters, decoded, in the order given.
struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    /// Pairs that do not decode, or hold a semicolon, are skipped and the rest is used, as etcd does.
    fn parse(query: &str) -> Query {
        let pairs = query
            .split('&')
            .filter(|part| !part.is_empty() && !part.contains(';'))
            .filter_map(|part| {
                let (key, value) = part.split_once('=').unwrap_or((part, ""));
                Some((decode(key, true)?, decode(value, true)?))
            })
            .collect();
        Query { pairs }
    }

    fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs
            .iter()
            .filter(move |(k, _)| k == key)
            .map(|(_, value)| value.as_str())
    }

    fn first<'a>(&'a self, key: &'a str) -> Option<&'a str> {
        self.all(key).next()
    }

    fn only(self, key: &str) -> Vec<(String, String)> {
        self.pairs.into_iter().filter(|(k, _)| k == key).collect()
    }
}

/// Undoes percent encoding; `None` for a broken escape or text that is not UTF-8.
fn decode(text: &str, plus_is_space: bool) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        match first {
            b'%' => {
                let [high, low, tail @ ..] = tail else {
                    return None;
                };
                let digit = |byte: &u8| char::from(*byte).to_digit(16);
                bytes.push((digit(high)? * 16 + digit(low)?) as u8);
                rest = tail;
            }
            b'+' if plus_is_space => bytes.push(b' '),
            other => bytes.push(*other),
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
#[path = "endpoints_test.rs"]
mod tests;
