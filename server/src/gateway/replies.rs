//! Answers of the JSON API: bodies, status codes and headers, as etcd's gateway words them.
//!
//! Always true here: a unary answer is whole; a line of a stream is one object, `result` or `error`, and a line end.

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use wire::grpc::Code;
use wire::json::{Escapes, MessageType, encode, put_string};

use crate::http1::ReplyBody;

pub type JsonReply = Response<ReplyBody>;

/// The HTTP status that stands for a code.
fn http_status(code: Code) -> StatusCode {
    let status = match code {
        Code::Ok => 200,
        Code::Canceled => 499,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => 400,
        Code::DeadlineExceeded => 504,
        Code::NotFound => 404,
        Code::AlreadyExists | Code::Aborted => 409,
        Code::PermissionDenied => 403,
        Code::Unauthenticated => 401,
        Code::ResourceExhausted => 429,
        Code::Unimplemented => 501,
        Code::Unavailable => 503,
        Code::Unknown | Code::Internal | Code::DataLoss => 500,
    };
    StatusCode::from_u16(status).expect("three digits")
}

/// Answers a unary call with its message.
pub fn message(message: &[u8], reply: MessageType) -> JsonReply {
    let mut text = Vec::with_capacity(message.len() * 2);
    encode(message, reply, Escapes::Plain, &mut text);
    let mut reply = json(StatusCode::OK, ReplyBody::whole(text.into()));
    called(&mut reply);
    reply
}

/// Answers a unary call with an error, or a request that leads to no call.
pub fn error(code: Code, text: &str) -> JsonReply {
    let mut body = Vec::new();
    put_status(code, text, Escapes::Plain, &mut body);
    let mut reply = json(http_status(code), ReplyBody::whole(body.into()));
    if code == Code::Unauthenticated
        && let Ok(value) = HeaderValue::from_str(text)
    {
        reply.headers_mut().insert(header::WWW_AUTHENTICATE, value);
    }
    reply
}

/// Begins the answer to a stream whose first line is in `body`.
pub fn stream(body: ReplyBody) -> JsonReply {
    let mut reply = json(StatusCode::OK, body);
    called(&mut reply);
    reply
}

/// The answer to a stream that ended well without a message.
pub fn empty_stream() -> JsonReply {
    Response::new(ReplyBody::whole(Bytes::new()))
}

/// The answer to a stream that ended with an error before its first message.
pub fn stream_error(code: Code, text: &str) -> JsonReply {
    json(http_status(code), ReplyBody::whole(error_line(code, text)))
}

/// A message of a stream.
pub fn result_line(message: &[u8], reply: MessageType) -> Bytes {
    let mut line = b"{\"result\":".to_vec();
    encode(message, reply, Escapes::Html, &mut line);
    line.extend_from_slice(b"}\n");
    line.into()
}

/// The error that ends a stream.
pub fn error_line(code: Code, text: &str) -> Bytes {
    let mut line = b"{\"error\":".to_vec();
    put_status(code, text, Escapes::Html, &mut line);
    line.extend_from_slice(b"}\n");
    line.into()
}

/// Like every message: what is zero or empty is left out.
fn put_status(code: Code, text: &str, escapes: Escapes, out: &mut Vec<u8>) {
    out.push(b'{');
    if code != Code::Ok {
        out.extend_from_slice(format!("\"code\":{}", code as u8).as_bytes());
    }
    if !text.is_empty() {
        if code != Code::Ok {
            out.push(b',');
        }
        out.extend_from_slice(b"\"message\":");
        put_string(text, escapes, out);
    }
    out.push(b'}');
}

fn json(status: StatusCode, body: ReplyBody) -> JsonReply {
    let mut reply = Response::new(body);
    *reply.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    reply.headers_mut().insert(header::CONTENT_TYPE, json);
    reply
}

/// The header that tells of a call behind the answer.
fn called(reply: &mut JsonReply) {
    const NAME: HeaderName = HeaderName::from_static("grpc-metadata-content-type");
    let grpc = HeaderValue::from_static("application/grpc");
    reply.headers_mut().insert(NAME, grpc);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_in_both_shapes() {
        let line = error_line(Code::NotFound, "a <b> \"c\"");
        let expected = "{\"error\":{\"code\":5,\"message\":\"a \\u003cb\\u003e \\\"c\\\"\"}}\n";
        assert_eq!(line, expected);
        let reply = error(Code::Unauthenticated, "etcdserver: invalid auth token");
        assert_eq!(reply.status(), 401);
        assert_eq!(
            reply.headers()["www-authenticate"],
            "etcdserver: invalid auth token"
        );
        assert_eq!(stream_error(Code::Canceled, "").status(), 499);
    }
}
