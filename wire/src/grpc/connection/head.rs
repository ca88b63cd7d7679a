//! The head of a request: what a header block says, judged by the rules of HTTP/2 and of grpc-go.
//!
//! A head is built field by field while its block is decoded, then judged once. Heads and their
//! buffers are recycled. The order of the checks is grpc-go's, so a request with several faults
//! gets the same answer.

use super::text::{quote, timeout_ns};
use super::{base64, text};
use crate::grpc::Code;
use crate::grpc::metadata::Fields;
use crate::grpc::service::{CallKind, MethodId, Route, Service};
use crate::h2::hpack::field::FieldKind;

/// What is to be done with a request.
#[derive(Debug, Clone)]
pub(super) enum Verdict {
    Call(MethodId, CallKind),
    /// Not gRPC, and the service answers such requests.
    Plain,
    /// RST_STREAM(PROTOCOL_ERROR).
    Malformed,
    /// `header_list_bytes_max` passed: RST_STREAM(FRAME_SIZE_ERROR).
    ListTooLarge,
    Reject(Box<Rejection>),
}

/// An answer that needs no service.
#[derive(Debug, Clone)]
pub(super) struct Rejection {
    pub(super) http_status: &'static str,
    pub(super) code: Code,
    pub(super) message: String,
}

/// `content-type` of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Subtype {
    /// Missing, or not gRPC.
    #[default]
    Invalid,
    None,
    Proto,
    Other,
}

#[derive(Debug)]
pub(super) struct Head {
    pub(super) fields: Fields,
    pub(super) verdict: Verdict,
    pub(super) subtype: Subtype,
    /// What follows `application/grpc+` if the subtype is `Other`; the whole value if it is
    /// `Invalid`.
    pub(super) subtype_text: Vec<u8>,
    pub(super) timeout_ns: Option<u64>,
    pub(super) content_length: Option<u64>,
    /// The block this head came from, if it is in the cache.
    pub(super) block: Vec<u8>,
    /// The table's version the block depends on, if it does.
    pub(super) block_version: Option<u64>,
    /// Calls and cache places that hold this head.
    pub(super) holders: u32,

    path: Vec<u8>,
    method: Vec<u8>,
    encoding: Vec<u8>,
    error: Option<String>,
    list_bytes: u64,
    seen: Seen,
}

#[derive(Debug, Default, Clone, Copy)]
struct Seen {
    method: bool,
    scheme: bool,
    path: bool,
    authority: bool,
    host: u32,
    regular: bool,
    malformed: bool,
}

/// A longer sub-type is not repeated in the answer.
const SUBTYPE_BYTES_MAX: usize = 64;

impl Default for Head {
    fn default() -> Self {
        Self {
            fields: Fields::default(),
            verdict: Verdict::Malformed,
            subtype: Subtype::Invalid,
            subtype_text: Vec::new(),
            timeout_ns: None,
            content_length: None,
            block: Vec::new(),
            block_version: None,
            holders: 0,
            path: Vec::new(),
            method: Vec::new(),
            encoding: Vec::new(),
            error: None,
            list_bytes: 0,
            seen: Seen::default(),
        }
    }
}

impl Head {
    /// Forgets everything but the buffers.
    pub(super) fn clear(&mut self) {
        self.fields.clear();
        self.verdict = Verdict::Malformed;
        self.subtype = Subtype::Invalid;
        self.timeout_ns = None;
        self.content_length = None;
        self.block_version = None;
        self.holders = 0;
        self.error = None;
        self.list_bytes = 0;
        self.seen = Seen::default();
        for buffer in [
            &mut self.subtype_text,
            &mut self.block,
            &mut self.path,
            &mut self.method,
            &mut self.encoding,
        ] {
            if buffer.capacity() > 1024 {
                *buffer = Vec::new();
            } else {
                buffer.clear();
            }
        }
    }

    /// Takes one field.
    #[inline]
    pub(super) fn add(&mut self, kind: FieldKind, name: &[u8], value: &[u8], list_bytes_max: u32) {
        self.list_bytes += (name.len() + value.len() + 32) as u64;
        if self.list_bytes > u64::from(list_bytes_max) {
            return;
        }
        let seen = &mut self.seen;
        match kind {
            FieldKind::Method => {
                seen.malformed |= std::mem::replace(&mut seen.method, true) || seen.regular;
                replace(&mut self.method, value);
                return;
            }
            FieldKind::Scheme => {
                seen.malformed |= std::mem::replace(&mut seen.scheme, true) || seen.regular;
                return;
            }
            FieldKind::Path => {
                seen.malformed |= std::mem::replace(&mut seen.path, true) || seen.regular;
                replace(&mut self.path, value);
                return;
            }
            FieldKind::Authority => {
                seen.malformed |= std::mem::replace(&mut seen.authority, true) || seen.regular;
                self.fields.push(name, value);
                return;
            }
            FieldKind::Host => {
                seen.host += 1;
                // Without `:authority`, `host` takes its place; pseudo-headers come first, so we
                // know already.
                if !seen.authority {
                    self.fields.push(b":authority", value);
                }
            }
            FieldKind::ContentType => self.content_type(value),
            FieldKind::ContentLength => match parse_length(value) {
                Some(length) if self.content_length.is_none_or(|known| known == length) => {
                    self.content_length = Some(length);
                }
                _ => seen.malformed = true,
            },
            FieldKind::GrpcTimeout => match timeout_ns(value) {
                Ok(timeout) => self.timeout_ns = Some(timeout),
                Err(error) => self.error = Some(format!("malformed grpc-timeout: {error}")),
            },
            FieldKind::GrpcEncoding => replace(&mut self.encoding, value),
            FieldKind::Te | FieldKind::GrpcReserved => {}
            FieldKind::Binary => {
                if let Err(base64::Corrupt(at)) = base64::check(value) {
                    self.error = Some(format!(
                        "malformed binary metadata {} in header {}: illegal base64 data at input byte {at}",
                        quote(value),
                        quote(name),
                    ));
                }
                self.fields.push(name, value);
            }
            FieldKind::UserAgent | FieldKind::Metadata => self.fields.push(name, value),
            FieldKind::Malformed => seen.malformed = true,
        }
        self.seen.regular = true;
    }

    fn content_type(&mut self, value: &[u8]) {
        let Some(rest) = value.strip_prefix(b"application/grpc") else {
            replace(&mut self.subtype_text, value);
            return;
        };
        self.subtype = match rest {
            b"" | b"+" | b";" => Subtype::None,
            b"+proto" | b";proto" => Subtype::Proto,
            [b'+' | b';', subtype @ ..] if subtype.len() <= SUBTYPE_BYTES_MAX => {
                replace(&mut self.subtype_text, subtype);
                Subtype::Other
            }
            [b'+' | b';', ..] => Subtype::None,
            _ => {
                replace(&mut self.subtype_text, value);
                return;
            }
        };
    }

    /// Judges the finished list.
    pub(super) fn judge<S: Service>(&mut self, list_bytes_max: u32, service: &mut S) {
        self.verdict = if self.list_bytes > u64::from(list_bytes_max) {
            Verdict::ListTooLarge
        } else if self.is_malformed() {
            Verdict::Malformed
        } else if self.subtype == Subtype::Invalid
            && service.answers_plain()
            && !self.mentions_grpc()
        {
            Verdict::Plain
        } else {
            match self.reject().map_or_else(|| self.route(service), Err) {
                Ok((method, kind)) => Verdict::Call(method, kind),
                Err(rejection) => Verdict::Reject(Box::new(rejection)),
            }
        };
    }

    /// Where gRPC and plain HTTP share a port, etcd gives gRPC every request whose content type holds
    /// this anywhere, and gRPC then refuses those that do not begin with it.
    fn mentions_grpc(&self) -> bool {
        const GRPC: &[u8] = b"application/grpc";
        self.subtype_text.windows(GRPC.len()).any(|at| at == GRPC)
    }

    pub(super) fn method(&self) -> &[u8] {
        &self.method
    }

    pub(super) fn path(&self) -> &[u8] {
        &self.path
    }

    /// RFC 9113 8.3.1: each of the three exactly once, but for CONNECT, which has only a method and
    /// an authority.
    fn is_malformed(&self) -> bool {
        let seen = self.seen;
        let complete = if self.method == b"CONNECT" {
            seen.authority && !seen.scheme && !seen.path
        } else {
            seen.method && seen.scheme && seen.path
        };
        seen.malformed || !complete
    }

    fn reject(&mut self) -> Option<Rejection> {
        let rejection = |http_status, code, message| {
            Some(Rejection {
                http_status,
                code,
                message,
            })
        };
        if self.seen.host > 1 {
            let message = format!(
                "num values of :authority: {}, num values of host: {}, both must only have 1 value as per HTTP/2 spec",
                u32::from(self.seen.authority),
                self.seen.host,
            );
            return rejection("400", Code::Internal, message);
        }
        if self.subtype == Subtype::Invalid {
            let message = format!(
                "invalid gRPC request content-type {}",
                quote(&self.subtype_text)
            );
            return rejection("415", Code::InvalidArgument, message);
        }
        if let Some(error) = self.error.take() {
            return rejection("400", Code::Internal, error);
        }
        if self.method != b"POST" {
            let message = format!(
                "Received a HEADERS frame with :method {} which should be POST",
                quote(&self.method)
            );
            return rejection("405", Code::Internal, message);
        }
        None
    }

    fn route<S: Service>(&self, service: &mut S) -> Result<(MethodId, CallKind), Rejection> {
        let unimplemented = |message| Rejection {
            http_status: "200",
            code: Code::Unimplemented,
            message,
        };
        let split = self.path.strip_prefix(b"/").and_then(|path| {
            let at = path.iter().rposition(|&byte| byte == b'/')?;
            Some((&path[..at], &path[at + 1..]))
        });
        let Some((name, method)) = split else {
            return Err(unimplemented(format!(
                "malformed method name: {}",
                quote(&self.path)
            )));
        };
        let (name, method) = (
            String::from_utf8_lossy(name),
            String::from_utf8_lossy(method),
        );
        match service.route(&self.path) {
            Route::UnknownService => Err(unimplemented(format!("unknown service {name}"))),
            Route::UnknownMethod => Err(unimplemented(format!(
                "unknown method {method} for service {name}"
            ))),
            Route::Method(..) if !matches!(&self.encoding[..], b"" | b"identity") => {
                Err(unimplemented(format!(
                    "grpc: Decompressor is not installed for grpc-encoding {}",
                    text::quote(&self.encoding)
                )))
            }
            Route::Method(method, kind) => Ok((method, kind)),
        }
    }
}

fn replace(buffer: &mut Vec<u8>, value: &[u8]) {
    buffer.clear();
    buffer.extend_from_slice(value);
}

fn parse_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok()
}
