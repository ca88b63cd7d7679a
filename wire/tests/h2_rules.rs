//! RFC 9113, rule by rule: what the engine answers to each kind of frame in each state.
//!
//! Section numbers are those of RFC 9113. Limits are tested in `h2_limits.rs`, gRPC in
//! `grpc_rules.rs`.

mod h2_support;

use h2_support::*;
use wire::grpc::{Code, ErrorCode, Limits};
use wire::h2::frame::{PREFACE, flag, kind};

fn session() -> Session {
    Session::new(Limits::default())
}

/// Bytes that must end a fresh connection with this code.
#[track_caller]
fn ends(bytes: &[u8], code: ErrorCode) {
    session().check_error(bytes, code);
}

/// Bytes on an open `/t.T/Chat` stream 1 that must reset it with this code and leave the connection
/// usable.
#[track_caller]
fn resets(bytes: &[u8], code: ErrorCode) {
    let mut session = session();
    session.send(&open(1, "/t.T/Chat"));
    session.check(bytes, &format!("RST 1 {code:?}"));
    session.check(&call(3, "/t.T/Echo", b"x"), &answer(3, b"x"));
}

/// A header block that must reset its stream with PROTOCOL_ERROR (8.1.1).
#[track_caller]
fn malformed(block: &[u8]) {
    let mut session = session();
    session.check(&headers(1, block), "RST 1 ProtocolError");
    session.check(&call(3, "/t.T/Echo", b"x"), &answer(3, b"x"));
}

#[test]
fn s3_4_preface_and_settings_come_first() {
    let mut session = Session::raw(Limits::default());
    assert_eq!(session.frames(), "SETTINGS\nWINDOW_UPDATE 0 16711681\n");
    session.check(&PREFACE[..10], "");
    session.check(&PREFACE[10..], "");
    session.check(&settings(&[]), "SETTINGS ack");
    for wrong in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"PRI * HTTP/2.0\r\n\r\nXX"] {
        Session::raw(Limits::default()).check_error(wrong, ErrorCode::ProtocolError);
    }
    for first in [
        ping(),
        frame(kind::SETTINGS, flag::ACK, 0, b""),
        open(1, "/t.T/Echo"),
    ] {
        let bytes = [&PREFACE[..], &first].concat();
        Session::raw(Limits::default()).check_error(&bytes, ErrorCode::ProtocolError);
    }
}

#[test]
fn s4_1_unknown_frames_and_flags_are_ignored() {
    session().check(&frame(0x42, 0xff, 7, b"whatever"), "");
    let mut session = session();
    session.send(&frame(
        kind::HEADERS,
        flag::END_HEADERS | 0x42,
        1,
        &request_block("/t.T/Echo", &[]),
    ));
    session.check(&data_end(1, &message(b"x")), &answer(1, b"x"));
}

#[test]
fn s4_2_frame_sizes() {
    ends(
        &[0, 0x40, 1, kind::DATA, 0, 0, 0, 0, 1],
        ErrorCode::FrameSizeError,
    );
    for (kind, payload) in [
        (kind::PING, &b"short"[..]),
        (kind::SETTINGS, b"12345"),
        (kind::WINDOW_UPDATE, b"123"),
        (kind::RST_STREAM, b"12345"),
        (kind::GOAWAY, b"1234567"),
    ] {
        let stream = if kind == kind::RST_STREAM { 1 } else { 0 };
        ends(&frame(kind, 0, stream, payload), ErrorCode::FrameSizeError);
    }
    resets(
        &frame(kind::PRIORITY, 0, 1, b"1234"),
        ErrorCode::FrameSizeError,
    );
    ends(
        &frame(
            kind::HEADERS,
            flag::END_HEADERS | flag::PRIORITY,
            1,
            b"1234",
        ),
        ErrorCode::FrameSizeError,
    );
}

#[test]
fn s4_3_header_blocks_are_contiguous_and_decodable() {
    let begin = frame(kind::HEADERS, 0, 1, b"\x83");
    ends(&[begin.clone(), ping()].concat(), ErrorCode::ProtocolError);
    ends(
        &[begin.clone(), frame(kind::CONTINUATION, 0, 3, b"\x86")].concat(),
        ErrorCode::ProtocolError,
    );
    ends(
        &[begin, frame(0x42, 0, 1, b"")].concat(),
        ErrorCode::ProtocolError,
    );
    ends(&headers(1, b"\xbe"), ErrorCode::CompressionError);
    ends(&headers(1, b"\x80"), ErrorCode::CompressionError);
}

#[test]
fn s5_1_idle_streams_take_nothing_but_headers_and_priority() {
    ends(&data(1, b"x"), ErrorCode::ProtocolError);
    ends(&rst(1), ErrorCode::ProtocolError);
    ends(&window_update(1, 1), ErrorCode::ProtocolError);
    ends(
        &frame(kind::CONTINUATION, flag::END_HEADERS, 1, b""),
        ErrorCode::ProtocolError,
    );
    session().check(&frame(kind::PRIORITY, 0, 5, &[0, 0, 0, 0, 1]), "");
}

#[test]
fn s5_1_half_closed_streams_take_no_data() {
    let half_closed = [open(1, "/t.T/Hold"), data_end(1, &message(b"x"))].concat();
    let mut session = session();
    session.check(
        &[half_closed.clone(), data(1, b"x")].concat(),
        "RST 1 StreamClosed",
    );
    assert_eq!(session.service.log, ["message 1 1", "cancel 1 1 Protocol"]);
    let trailers = frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 1, b"");
    let mut session = Session::new(Limits::default());
    session.check(
        &[half_closed.clone(), trailers].concat(),
        "RST 1 StreamClosed",
    );
    Session::new(Limits::default()).check(&[half_closed, window_update(1, 5)].concat(), "");
}

#[test]
fn s5_1_closed_streams() {
    let done = call(1, "/t.T/Echo", b"x");
    let closed = || {
        let mut session = session();
        session.send(&done);
        session.frames();
        session
    };
    closed().check(&window_update(1, 5), "");
    closed().check(&rst(1), "");
    closed().check(&frame(kind::PRIORITY, 0, 1, &[0, 0, 0, 0, 1]), "");
    closed().check(&data(1, b"x"), "RST 1 StreamClosed");
    closed().check(
        &[data(1, b"x"), data(1, b"y")].concat(),
        "RST 1 StreamClosed",
    );
    closed().check_error(&open(1, "/t.T/Echo"), ErrorCode::StreamClosed);
    // After our own reset, what was under way is ignored, but still decoded.
    let mut session = session();
    session.send(&open(1, "/t.T/Nope"));
    assert!(session.frames().contains("RST 1 NoError"));
    session.check(&data_end(1, &message(b"x")), "");
    let trailers = b"\x40\x01a\x01b";
    session.check(
        &frame(
            kind::HEADERS,
            flag::END_HEADERS | flag::END_STREAM,
            1,
            trailers,
        ),
        "",
    );
    session.check(&headers(3, b"\xbe"), "RST 3 ProtocolError");
}

#[test]
fn s5_1_1_stream_ids() {
    ends(&open(2, "/t.T/Echo"), ErrorCode::ProtocolError);
    ends(&open(0, "/t.T/Echo"), ErrorCode::ProtocolError);
    ends(
        &[open(5, "/t.T/Echo"), open(3, "/t.T/Echo")].concat(),
        ErrorCode::ProtocolError,
    );
    session().check(
        &call(0x7fff_ffff, "/t.T/Echo", b"x"),
        &answer(0x7fff_ffff, b"x"),
    );
}

#[test]
fn s5_1_2_concurrency() {
    let mut session = Session::new(Limits {
        concurrent_streams_max: 2,
        ..Limits::default()
    });
    session.send(&[open(1, "/t.T/Chat"), open(3, "/t.T/Chat")].concat());
    session.check(&open(5, "/t.T/Chat"), "RST 5 RefusedStream");
    assert_eq!(session.connection.stats().limits.concurrent_streams, 1);
    session.send(&rst(1));
    session.check(&call(7, "/t.T/Echo", b"x"), &answer(7, b"x"));
    assert_eq!(session.connection.open_calls(), 1);
}

#[test]
fn s6_1_data_and_padding() {
    ends(&data(0, b"x"), ErrorCode::ProtocolError);
    let padded = |payload: &[u8]| frame(kind::DATA, flag::PADDED | flag::END_STREAM, 1, payload);
    let opened = open(1, "/t.T/Echo");
    session().check(
        &[opened.clone(), padded(b"\x03\0\0\0\0\x01xPAD")].concat(),
        &answer(1, b"x"),
    );
    ends(
        &[opened.clone(), padded(b"\x04PAD")].concat(),
        ErrorCode::ProtocolError,
    );
    ends(&[opened, padded(b"")].concat(), ErrorCode::ProtocolError);
}

#[test]
fn s6_2_headers_with_padding_and_priority() {
    let mut payload = vec![2, 0x80, 0, 0, 0, 200];
    payload.extend(request_block("/t.T/Echo", &[]));
    payload.extend([0, 0]);
    let flags = flag::END_HEADERS | flag::PADDED | flag::PRIORITY;
    let mut session = session();
    session.send(&frame(kind::HEADERS, flags, 1, &payload));
    session.check(&data_end(1, &message(b"x")), &answer(1, b"x"));
    payload[0] = 255;
    ends(
        &frame(kind::HEADERS, flags, 1, &payload),
        ErrorCode::ProtocolError,
    );
}

#[test]
fn s6_3_to_6_8_frames_on_the_wrong_stream() {
    ends(
        &frame(kind::PRIORITY, 0, 0, &[0; 5]),
        ErrorCode::ProtocolError,
    );
    ends(&rst(0), ErrorCode::ProtocolError);
    ends(&frame(kind::SETTINGS, 0, 1, b""), ErrorCode::ProtocolError);
    ends(
        &frame(kind::PING, 0, 1, b"12345678"),
        ErrorCode::ProtocolError,
    );
    ends(
        &frame(kind::GOAWAY, 0, 1, b"12345678"),
        ErrorCode::ProtocolError,
    );
    ends(
        &frame(kind::PUSH_PROMISE, flag::END_HEADERS, 1, b"\0\0\0\x02"),
        ErrorCode::ProtocolError,
    );
}

#[test]
fn s6_5_settings() {
    session().check(
        &settings(&[(1, 0), (2, 0), (3, 9), (5, 16_384), (6, 9_999), (0x99, 1)]),
        "SETTINGS ack",
    );
    ends(
        &frame(kind::SETTINGS, flag::ACK, 0, &[0; 6]),
        ErrorCode::FrameSizeError,
    );
    ends(&settings(&[(2, 2)]), ErrorCode::ProtocolError);
    ends(&settings(&[(4, 1 << 31)]), ErrorCode::FlowControlError);
    ends(&settings(&[(5, 16_383)]), ErrorCode::ProtocolError);
    ends(&settings(&[(5, 1 << 24)]), ErrorCode::ProtocolError);
}

#[test]
fn s6_7_ping_is_answered_with_its_payload() {
    session().check(&ping(), "PING ack pingping");
    session().check(&frame(kind::PING, flag::ACK, 0, b"pingping"), "");
}

#[test]
fn s6_8_goaway_of_a_client_changes_nothing() {
    let mut session = session();
    session.check(&frame(kind::GOAWAY, 0, 0, &[0; 8]), "");
    session.check(&call(1, "/t.T/Echo", b"x"), &answer(1, b"x"));
}

#[test]
fn s6_8_graceful_end() {
    let mut session = session();
    session.send(&open(1, "/t.T/Hold"));
    session.connection.shutdown();
    session.connection.shutdown();
    assert_eq!(
        session.frames(),
        "GOAWAY 2147483647 NoError graceful_stop\nPING draining\n"
    );
    // Calls that were under way are still taken until the client has seen it.
    session.check(&call(3, "/t.T/Echo", b"x"), &answer(3, b"x"));
    session.check(
        &frame(kind::PING, flag::ACK, 0, b"draining"),
        "GOAWAY 3 NoError ",
    );
    session.check(&call(5, "/t.T/Echo", b"x"), "");
    assert!(!session.connection.is_finished());
    session.send(&data_end(1, &message(b"y")));
    session
        .connection
        .responder()
        .unary(wire::grpc::StreamId(1), |reply| reply.push(b'z'));
    assert!(!session.connection.is_finished());
    assert_eq!(session.frames(), answer(1, b"z"));
    assert!(session.connection.is_finished());
}

#[test]
fn s6_8_graceful_end_without_confirmation() {
    let limits = Limits::default();
    let grace_ns = limits.shutdown_grace_ns;
    let mut session = Session::new(limits);
    session.connection.shutdown();
    session.frames();
    assert!(session.connection.next_timer_ns() <= Some(grace_ns));
    session.timer(grace_ns);
    assert_eq!(session.frames(), "GOAWAY 0 NoError \n");
    assert!(session.connection.is_finished());
}

#[test]
fn s6_9_window_updates() {
    ends(&window_update(0, 0), ErrorCode::ProtocolError);
    resets(&window_update(1, 0), ErrorCode::ProtocolError);
    ends(&window_update(0, 0x7fff_ffff), ErrorCode::FlowControlError);
    resets(&window_update(1, 0x7fff_ffff), ErrorCode::FlowControlError);
    // 6.9.2: a raised initial window may overflow one that was raised already.
    let raised = [open(1, "/t.T/Chat"), window_update(1, 0x7fff_ffff - 65_535)].concat();
    ends(
        &[raised, settings(&[(4, 65_536)])].concat(),
        ErrorCode::FlowControlError,
    );
}

#[test]
fn s6_9_answers_wait_for_the_windows() {
    let mut session = Session::with_settings(Limits::default(), &[(4, 10)]);
    session.check(
        &call(1, "/t.T/Echo", b"0123456789"),
        r"
HEADERS 1 :status=200 content-type=application/grpc
DATA 1 \x00\x00\x00\x00\n01234"
            .trim_start(),
    );
    let stream = wire::grpc::StreamId(1);
    assert_eq!(session.connection.responder().backlog_bytes(stream), 5);
    assert!(
        !session.connection.responder().is_open(stream),
        "the service has answered"
    );
    session.check(&window_update(1, 2), "DATA 1 56");
    // 6.9.2: windows may turn negative and must be raised past zero.
    session.check(&settings(&[(4, 8)]), "SETTINGS ack");
    session.check(&window_update(1, 2), "");
    session.check(&window_update(1, 1), "DATA 1 7");
    session.check(
        &settings(&[(4, 1000)]),
        "SETTINGS ack\nDATA 1 89\nHEADERS 1 grpc-status=0 grpc-message= end",
    );
}

#[test]
fn s6_9_streams_share_the_connection_window_in_turns() {
    let mut session = Session::with_settings(Limits::default(), &[(4, 1 << 20)]);
    let large = |id| {
        let mut bytes = open(id, "/t.T/Echo");
        for chunk in message(&[b'x'; 70_000]).chunks(16_384) {
            bytes.extend(data(id, chunk));
        }
        bytes.extend(data_end(id, b""));
        bytes
    };
    session.send(&[large(1), large(3), large(5)].concat());
    session.frames();
    assert_eq!(session.connection.stats().answers_parked, 3);
    session.send(&window_update(0, 4470 + 5 * 16_384));
    let frames = session.frames();
    let order: Vec<&str> = frames
        .lines()
        .map(|line| &line[..line.len().min(6)])
        .collect();
    assert_eq!(
        order,
        [
            "DATA 1", "HEADER", "DATA 3", "DATA 5", "DATA 3", "DATA 5", "DATA 3"
        ]
    );
    session.send(&window_update(0, 200_000));
    session.frames();
    assert_eq!(session.connection.open_calls(), 0);
}

#[test]
fn s6_9_we_refill_windows_in_halves_and_enforce_them() {
    let limits = Limits {
        stream_window_bytes: 100_000,
        connection_window_bytes: 200_000,
        message_bytes_max: 1 << 30,
        ..Limits::default()
    };
    let mut session = Session::new(limits.clone());
    session.send(&open(1, "/t.T/Sum"));
    let mut chunk = message(&[0; 24_995]);
    chunk.truncate(12_500);
    let rest = vec![0; 12_500];
    session.check(
        &[data(1, &chunk), data(1, &rest), data(1, &chunk)].concat(),
        "",
    );
    session.check(&data(1, &rest), "WINDOW_UPDATE 1 50000");
    session.check(
        &[data(1, &chunk), data(1, &rest), data(1, &chunk)].concat(),
        "",
    );
    session.check(
        &data(1, &rest),
        "WINDOW_UPDATE 0 100000\nWINDOW_UPDATE 1 50000",
    );
    assert_eq!(session.service.log.len(), 4);

    // A client that ignores what it was granted.
    let mut session = Session::new(Limits {
        stream_window_bytes: 10,
        ..limits
    });
    session.send(&open(1, "/t.T/Sum"));
    session.check(&data(1, &[0; 11]), "RST 1 FlowControlError");
    assert_eq!(session.connection.stats().limits.stream_window, 1);
}

#[test]
fn s8_1_trailers_of_a_request_end_it() {
    let trailers = |flags, block: &[u8]| frame(kind::HEADERS, flag::END_HEADERS | flags, 1, block);
    let begun = [open(1, "/t.T/Echo"), data(1, &message(b"x"))].concat();
    let end = trailers(flag::END_STREAM, &literal(b"a", b"b"));
    session().check(&[begun.clone(), end].concat(), &answer(1, b"x"));
    resets(&trailers(0, &literal(b"a", b"b")), ErrorCode::ProtocolError);
    resets(
        &trailers(flag::END_STREAM, b"\x83"),
        ErrorCode::ProtocolError,
    );
    resets(
        &trailers(flag::END_STREAM, &literal(b"A", b"b")),
        ErrorCode::ProtocolError,
    );
}

#[test]
fn s8_1_1_content_length() {
    let with_length = |length| {
        headers(
            1,
            &request_block("/t.T/Echo", &[("content-length", length)]),
        )
    };
    let check = |length, frames: &[u8], expected: &str| {
        session().check(&[with_length(length), frames.to_vec()].concat(), expected);
    };
    check("6", &data_end(1, &message(b"x")), &answer(1, b"x"));
    check("7", &data_end(1, &message(b"x")), "RST 1 ProtocolError");
    check("5", &data_end(1, &message(b"x")), "RST 1 ProtocolError");
    check("5", &data(1, &message(b"x")), "RST 1 ProtocolError");
    for length in ["", "x", "-1", "1x"] {
        check(length, b"", "RST 1 ProtocolError");
    }
    malformed(&request_block(
        "/t.T/Echo",
        &[("content-length", "1"), ("content-length", "2")],
    ));
    let ended = frame(
        kind::HEADERS,
        flag::END_HEADERS | flag::END_STREAM,
        1,
        &request_block("/t.T/Echo", &[("content-length", "1")]),
    );
    session().check(&ended, "RST 1 ProtocolError");
}

#[test]
fn s8_2_field_names_and_values() {
    for field in [
        ("Token", "x"),
        ("to ken", "x"),
        ("", "x"),
        ("token", "a\r\nb"),
        ("token", "a\0"),
        ("token", " a"),
        ("connection", "close"),
        ("keep-alive", "1"),
        ("proxy-connection", "x"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
    ] {
        malformed(&request_block("/t.T/Echo", &[field]));
    }
}

#[test]
fn s8_3_pseudo_headers() {
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/t.T/Echo"),
        ("content-type", "application/grpc"),
    ];
    for missing in 0..3 {
        let mut fields = fields.to_vec();
        fields.remove(missing);
        malformed(&block(&fields));
    }
    for twice in 0..3 {
        let mut fields = fields.to_vec();
        fields.insert(twice, fields[twice]);
        malformed(&block(&fields));
    }
    let mut late = fields.to_vec();
    late.swap(2, 3);
    malformed(&block(&late));
    for extra in [(":status", "200"), (":what", "x"), (":path", "")] {
        malformed(&block(&[&[extra][..], &fields].concat()));
    }
    malformed(&block(&[
        (":method", "CONNECT"),
        (":scheme", "http"),
        (":path", "/"),
    ]));
    malformed(&block(&[
        (":authority", "a"),
        (":authority", "b"),
        fields[0],
        fields[1],
        fields[2],
        fields[3],
    ]));
    malformed(b"");
}

#[test]
fn s8_3_continuation_frames_make_one_block() {
    let block = request_block("/t.T/Echo", &[("token", "abc")]);
    let (first, rest) = block.split_at(7);
    let (second, third) = rest.split_at(20);
    let bytes = [
        frame(kind::HEADERS, 0, 1, first),
        frame(kind::CONTINUATION, 0, 1, second),
        frame(kind::CONTINUATION, flag::END_HEADERS, 1, third),
        data_end(1, &message(b"x")),
    ]
    .concat();
    let mut session = session();
    session.check(&bytes, &answer(1, b"x"));
    assert_eq!(session.service.log, ["message 1 1 token abc"]);
}

#[test]
fn resets_of_the_client_reach_the_service_once() {
    let mut session = session();
    session.send(&open(1, "/t.T/Chat"));
    session.send(&rst(1));
    assert!(
        session.service.log.is_empty(),
        "it had not heard of the call"
    );
    session.send(&[open(3, "/t.T/Chat"), data(3, &message(b"x")), rst(3)].concat());
    assert_eq!(session.service.log, ["message 3 1", "cancel 3 3 Reset"]);
    session.frames();
    let mut responder = session.connection.responder();
    responder.message(wire::grpc::StreamId(3), |_| {
        unreachable!("not called for a call that is over")
    });
    responder.error(wire::grpc::StreamId(99), Code::Internal, "");
    assert_eq!(session.frames(), "");
    assert_eq!(session.connection.stats().late_answers, 2);
    session.send(&rst(3));
    assert_eq!(session.service.log.len(), 2);
}

#[test]
fn a_lost_socket_cancels_what_is_open() {
    let mut session = session();
    session.send(
        &[
            open(1, "/t.T/Hold"),
            data_end(1, &message(b"x")),
            open(3, "/t.T/Hold"),
        ]
        .concat(),
    );
    session.connection.on_closed(&mut session.service);
    assert_eq!(
        session.service.log,
        ["message 1 1", "cancel 1 1 Disconnected"]
    );
    assert_eq!(session.connection.next_timer_ns(), None);
}

#[test]
fn repeated_blocks_are_recognised_until_the_table_changes() {
    let mut session = session();
    // Path and content type enter the table.
    let mut first = vec![0x83, 0x86, 0x44, 9];
    first.extend(b"/t.T/Echo");
    first.extend([0x5f, 16]);
    first.extend(b"application/grpc");
    let again = [0x83, 0x86, 0xbf, 0xbe];
    let request = |id, block: &[u8]| [headers(id, block), data_end(id, &message(b"x"))].concat();
    session.check(&request(1, &first), &answer(1, b"x"));
    for id in [3, 5, 7] {
        session.check(&request(id, &again), &answer(id, b"x"));
    }
    assert_eq!(session.connection.stats().header_cache_hits, 2);
    assert_eq!(session.service.routes, 2);
    // A new entry moves the others: the same bytes now mean something else, here a request without
    // a path.
    session.check(&headers(9, b"\x40\x01a\x01b"), "RST 9 ProtocolError");
    session.check(&request(11, &again), "RST 11 ProtocolError");
    session.check(&request(13, &[0x83, 0x86, 0xc0, 0xbf]), &answer(13, b"x"));
}
