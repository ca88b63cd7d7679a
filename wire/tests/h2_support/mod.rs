//! A client made of bytes, and a service that does what the path says: what the tests of the engine
//! share.
//!
//! The client keeps no state but the decoder for what the server sends; every test writes the
//! frames it means to send. Not for what other clients would do: that is tested with a real one in
//! `h2_interop.rs`.
#![allow(dead_code)]

use std::sync::Arc;

use wire::grpc::{
    Call, CallKind, CancelReason, Code, Connection, ConnectionError, ErrorCode, Limits, MethodId,
    PlainRequest, Responder, Route, Service, StreamId,
};
use wire::h2::frame::{FrameHeader, HEADER_BYTES, PREFACE, flag, kind, put_header, put_settings};
use wire::h2::hpack::decoder::Decoder;

pub const SECOND: u64 = 1_000_000_000;

/// Paths: `/t.T/Echo` unary, answers the message; `/t.T/Hold` unary, answers nothing; `/t.T/Fail`
/// unary, fails; `/t.T/Chat` bidi, echoes and finishes at half-close; `/t.T/Many` server streaming,
/// sends the message three times; `/t.T/Sum` client streaming, answers the number of messages.
///
/// If it answers plain requests, it says what it was asked; `/big?n` answers n bytes, `/later`
/// nothing yet, and HEAD gets no body.
#[derive(Default)]
pub struct TestService {
    pub answers_plain: bool,
    /// What happened, in words.
    pub log: Vec<String>,
    pub routes: usize,
    messages: std::collections::BTreeMap<u32, u32>,
}

const METHODS: [(&[u8], CallKind); 6] = [
    (b"/t.T/Echo", CallKind::Unary),
    (b"/t.T/Hold", CallKind::Unary),
    (b"/t.T/Fail", CallKind::Unary),
    (b"/t.T/Chat", CallKind::Bidi),
    (b"/t.T/Many", CallKind::ServerStreaming),
    (b"/t.T/Sum", CallKind::ClientStreaming),
];

impl Service for TestService {
    fn route(&mut self, path: &[u8]) -> Route {
        self.routes += 1;
        match METHODS.iter().position(|(known, _)| *known == path) {
            Some(method) => Route::Method(MethodId(method as u16), METHODS[method].1),
            None if path.starts_with(b"/t.T/") => Route::UnknownMethod,
            None => Route::UnknownService,
        }
    }

    fn on_message(&mut self, call: &Call<'_>, message: &[u8], out: &mut Responder<'_>) {
        let stream = call.stream;
        assert!(out.is_open(stream));
        match call.method.0 {
            0 => out.unary(stream, |reply| reply.extend_from_slice(message)),
            1 => {}
            2 => out.error(stream, Code::NotFound, "100% gone\n"),
            3 => out.message(stream, |reply| reply.extend_from_slice(message)),
            4 => {
                for _ in 0..3 {
                    out.message(stream, |reply| reply.extend_from_slice(message));
                }
                out.finish(stream, Code::Ok, "");
            }
            _ => *self.messages.entry(stream.0).or_default() += 1,
        }
        let token = call
            .metadata
            .get(b"token")
            .map_or(String::new(), |t| format!(" token {}", t.escape_ascii()));
        let deadline = call
            .deadline_ns
            .map_or(String::new(), |d| format!(" deadline {d}"));
        self.log.push(format!(
            "message {} {}{token}{deadline}",
            stream.0,
            message.len()
        ));
    }

    fn answers_plain(&self) -> bool {
        self.answers_plain
    }

    fn on_plain(&mut self, request: &PlainRequest<'_>, out: &mut Responder<'_>) {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        let mut body = format!("{} {}", text(request.method), text(request.path));
        for part in [request.content_type, request.body] {
            if !part.is_empty() {
                body = format!("{body} {}", text(part));
            }
        }
        self.log.push(format!("plain {} {body}", request.stream.0));
        if let Some(bytes) = text(request.path).strip_prefix("/big?") {
            body = "x".repeat(bytes.parse().expect("a number"));
        }
        if request.method == b"HEAD" {
            body.clear();
        }
        if request.path != b"/later" {
            let fields: [(&[u8], &[u8]); 1] = [(b"content-type", b"text/plain")];
            out.plain(request.stream, 200, &fields, body.as_bytes());
        }
    }

    fn on_half_close(&mut self, call: &Call<'_>, out: &mut Responder<'_>) {
        let stream = call.stream;
        self.log.push(format!("half-close {}", stream.0));
        match call.method.0 {
            3 => out.finish(stream, Code::Ok, ""),
            _ => {
                let count = self.messages.remove(&stream.0).unwrap_or(0);
                out.unary(stream, |reply| {
                    reply.extend_from_slice(&count.to_be_bytes())
                });
            }
        }
    }

    fn on_cancel(&mut self, stream: StreamId, method: MethodId, reason: CancelReason) {
        self.messages.remove(&stream.0);
        self.log
            .push(format!("cancel {} {} {reason:?}", stream.0, method.0));
    }
}

/// A connection under test with its service, and the client's view of what came back.
pub struct Session {
    pub connection: Connection,
    pub service: TestService,
    pub now_ns: u64,
    pub error: Option<ConnectionError>,
    decoder: Decoder,
    /// Sent bytes not yet read as frames.
    pub sent: Vec<u8>,
}

impl Session {
    /// Preface and SETTINGS exchanged, and forgotten.
    pub fn new(limits: Limits) -> Self {
        Self::with_settings(limits, &[])
    }

    pub fn with_settings(limits: Limits, settings: &[(u16, u32)]) -> Self {
        let mut session = Self::raw(limits);
        let mut input = PREFACE.to_vec();
        put_settings(&mut input, settings);
        put_header(&mut input, 0, kind::SETTINGS, flag::ACK, 0);
        session.send(&input);
        session.frames();
        session
    }

    /// Nothing exchanged yet.
    pub fn raw(limits: Limits) -> Self {
        Self {
            connection: Connection::new(Arc::new(limits), 0),
            service: TestService::default(),
            now_ns: 0,
            error: None,
            decoder: Decoder::new(4096),
            sent: Vec::new(),
        }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.error = self
            .connection
            .receive(bytes, self.now_ns, &mut self.service)
            .err();
    }

    pub fn timer(&mut self, now_ns: u64) {
        self.now_ns = now_ns;
        self.error = self.connection.on_timer(now_ns, &mut self.service).err();
    }

    /// Takes the output and puts it in words, one line a frame.
    pub fn frames(&mut self) -> String {
        while self.connection.has_output() {
            let taken = self.connection.take_output(Vec::new());
            self.sent.extend(taken);
        }
        let sent = std::mem::take(&mut self.sent);
        let mut rest = &sent[..];
        let mut out = String::new();
        while let Some(header) = rest.first_chunk::<HEADER_BYTES>() {
            let header = FrameHeader::parse(header);
            let end = HEADER_BYTES + header.length as usize;
            out += &self.describe(&header, &rest[HEADER_BYTES..end]);
            out.push('\n');
            rest = &rest[end..];
        }
        assert!(rest.is_empty(), "half a frame sent");
        out
    }

    fn describe(&mut self, header: &FrameHeader, payload: &[u8]) -> String {
        let number =
            |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().expect("four bytes"));
        let id = header.stream;
        let end = if header.has(flag::END_STREAM) {
            " end"
        } else {
            ""
        };
        match header.kind {
            kind::DATA => format!("DATA {id} {}{end}", payload.escape_ascii()),
            kind::HEADERS => {
                assert!(header.has(flag::END_HEADERS));
                let mut fields = String::new();
                self.decoder
                    .decode(payload, |_, name, value| {
                        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
                        fields += &format!(" {}={}", text(name), text(value));
                    })
                    .expect("the server's header block");
                format!("HEADERS {id}{fields}{end}")
            }
            kind::RST_STREAM => format!("RST {id} {}", code_name(number(0))),
            kind::SETTINGS if header.has(flag::ACK) => "SETTINGS ack".to_owned(),
            kind::SETTINGS => "SETTINGS".to_owned(),
            kind::PING if header.has(flag::ACK) => format!("PING ack {}", payload.escape_ascii()),
            kind::PING => format!("PING {}", payload.escape_ascii()),
            kind::GOAWAY => {
                format!(
                    "GOAWAY {} {} {}",
                    number(0),
                    code_name(number(4)),
                    payload[8..].escape_ascii()
                )
            }
            kind::WINDOW_UPDATE => format!("WINDOW_UPDATE {id} {}", number(0)),
            other => format!("frame of type {other}"),
        }
    }

    /// Sends, and compares what comes back.
    #[track_caller]
    pub fn check(&mut self, bytes: &[u8], expected: &str) {
        self.send(bytes);
        let frames = self.frames();
        assert_eq!(frames.trim_end(), expected.trim_end());
    }

    /// Sends what must end the connection with this code.
    #[track_caller]
    pub fn check_error(&mut self, bytes: &[u8], code: ErrorCode) {
        self.send(bytes);
        let error = self.error.expect("the connection should have ended");
        assert_eq!(error.code, code, "{error}");
        let frames = self.frames();
        let last = frames.lines().last().expect("a GOAWAY");
        assert!(
            last.starts_with("GOAWAY") && last.contains(&format!("{code:?}")),
            "{last}"
        );
        assert!(self.connection.is_finished() && !self.connection.wants_input());
        assert_eq!(self.connection.stats().error_reason, Some(error.reason));
        assert!(
            self.connection
                .receive(b"more", 1, &mut self.service)
                .is_err()
        );
        assert!(!self.connection.has_output(), "nothing after GOAWAY");
    }
}

pub fn code_name(code: u32) -> String {
    use ErrorCode::*;
    [
        NoError,
        ProtocolError,
        InternalError,
        FlowControlError,
        SettingsTimeout,
        StreamClosed,
        FrameSizeError,
        RefusedStream,
        Cancel,
        CompressionError,
        ConnectError,
        EnhanceYourCalm,
    ]
    .into_iter()
    .find(|known| *known as u32 == code)
    .map_or(code.to_string(), |known| format!("{known:?}"))
}

/// A literal field that does not enter the table.
pub fn literal(name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut out = vec![0];
    for text in [name, value] {
        wire::h2::hpack::integer::encode(text.len(), 7, 0, &mut out);
        out.extend_from_slice(text);
    }
    out
}

/// A header block of literals.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    fields
        .iter()
        .flat_map(|(name, value)| literal(name.as_bytes(), value.as_bytes()))
        .collect()
}

/// The fields of a well-formed request.
pub fn request_block(path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let mut fields = vec![
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    fields.extend_from_slice(more);
    block(&fields)
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_header(&mut out, payload.len(), kind, flags, stream);
    out.extend_from_slice(payload);
    out
}

/// HEADERS with END_HEADERS that leave the stream open.
pub fn headers(stream: u32, block: &[u8]) -> Vec<u8> {
    frame(kind::HEADERS, flag::END_HEADERS, stream, block)
}

/// HEADERS of a well-formed request.
pub fn open(stream: u32, path: &str) -> Vec<u8> {
    headers(stream, &request_block(path, &[]))
}

/// A message with its prefix.
pub fn message(bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![0];
    out.extend((bytes.len() as u32).to_be_bytes());
    out.extend_from_slice(bytes);
    out
}

pub fn data(stream: u32, payload: &[u8]) -> Vec<u8> {
    frame(kind::DATA, 0, stream, payload)
}

pub fn data_end(stream: u32, payload: &[u8]) -> Vec<u8> {
    frame(kind::DATA, flag::END_STREAM, stream, payload)
}

pub fn rst(stream: u32) -> Vec<u8> {
    frame(kind::RST_STREAM, 0, stream, &8u32.to_be_bytes())
}

pub fn ping() -> Vec<u8> {
    frame(kind::PING, 0, 0, b"pingping")
}

pub fn window_update(stream: u32, increment: u32) -> Vec<u8> {
    frame(kind::WINDOW_UPDATE, 0, stream, &increment.to_be_bytes())
}

pub fn settings(settings: &[(u16, u32)]) -> Vec<u8> {
    let mut out = Vec::new();
    put_settings(&mut out, settings);
    out
}

/// A whole unary call.
pub fn call(stream: u32, path: &str, bytes: &[u8]) -> Vec<u8> {
    [open(stream, path), data_end(stream, &message(bytes))].concat()
}

/// What comes back for a unary call that succeeds.
pub fn answer(stream: u32, bytes: &[u8]) -> String {
    format!(
        "HEADERS {stream} :status=200 content-type=application/grpc\nDATA {stream} {}\nHEADERS {stream} grpc-status=0 grpc-message= end\n",
        message(bytes).escape_ascii()
    )
}

/// What comes back for a call that fails before any message.
pub fn failure(stream: u32, code: Code, message: &str) -> String {
    format!(
        "HEADERS {stream} :status=200 content-type=application/grpc grpc-status={} grpc-message={message} end\n",
        code as u8
    )
}
