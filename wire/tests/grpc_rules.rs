//! gRPC as grpc-go serves it: statuses, texts, message counts, deadlines, keepalive.

mod h2_support;

use h2_support::*;
use wire::grpc::{Code, ErrorCode, Limits, StreamId};
use wire::h2::frame::{flag, kind};

fn session() -> Session {
    Session::new(Limits::default())
}

/// A request with these fields, and the answer to it.
#[track_caller]
fn answers(block: &[u8], expected: &str) {
    let bytes = frame(
        kind::HEADERS,
        flag::END_HEADERS | flag::END_STREAM,
        1,
        block,
    );
    session().check(&bytes, expected);
}

#[track_caller]
fn answers_path(path: &str, more: &[(&str, &str)], code: Code, text: &str) {
    answers(&request_block(path, more), &failure(1, code, text));
}

fn request(method: &str, content_type: &str) -> Vec<u8> {
    block(&[
        (":method", method),
        (":scheme", "http"),
        (":path", "/t.T/Echo"),
        ("content-type", content_type),
    ])
}

#[test]
fn unary_calls() {
    let mut session = session();
    session.check(&call(1, "/t.T/Echo", b"hello"), &answer(1, b"hello"));
    session.check(&call(3, "/t.T/Echo", b""), &answer(3, b""));
    session.check(
        &call(5, "/t.T/Fail", b""),
        &failure(5, Code::NotFound, "100%25 gone%0A"),
    );
    let stats = session.connection.take_stats();
    assert_eq!(
        (
            stats.calls_started,
            stats.calls_finished[0],
            stats.calls_finished[5]
        ),
        (3, 2, 1)
    );
    assert_eq!((stats.messages_received, stats.messages_sent), (3, 2));
    assert_eq!(session.connection.stats().calls_started, 0);
}

#[test]
fn messages_cut_at_every_byte() {
    let whole = message(b"hello");
    for cut in 0..=whole.len() {
        let (first, second) = whole.split_at(cut);
        session().check(
            &[
                open(1, "/t.T/Echo"),
                data(1, first),
                data(1, second),
                data_end(1, b""),
            ]
            .concat(),
            &answer(1, b"hello"),
        );
        session().check(
            &[open(1, "/t.T/Echo"), data(1, first), data_end(1, second)].concat(),
            &answer(1, b"hello"),
        );
    }
}

/// Messages of one stream that follow each other share frames, as far as frames and windows go.
#[test]
fn small_messages_share_frames() {
    for bytes in [0, 1, 4000, 5456, 5457, 8000, 8188, 16_379] {
        let mut session = session();
        let request = message(&vec![b'q'; bytes]);
        session.send(&[open(1, "/t.T/Many"), data_end(1, &request)].concat());
        let mut streamed = Vec::new();
        let mut frames = 0;
        let output = session.connection.take_output(Vec::new());
        let mut output = &output[..];
        while let Some((header, rest)) = output.split_at_checked(9) {
            let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
            let (payload, rest) = rest.split_at(length);
            if header[3] == kind::DATA {
                assert!(0 < length && length <= 16_384);
                frames += 1;
                streamed.extend_from_slice(payload);
            }
            output = rest;
        }
        assert_eq!(streamed, request.repeat(3), "{bytes}");
        // Three messages: in one frame if they fit, else two and one, else each in its own.
        let wanted = match bytes + 5 {
            0..=5461 => 1,
            5462..=8192 => 2,
            _ => 3,
        };
        assert_eq!(frames, wanted, "{bytes}");
    }
}

#[test]
fn streams_of_every_kind() {
    let mut session = session();
    let three = [message(b"a"), message(b"bc"), message(b"")].concat();
    session.check(
        &[
            open(1, "/t.T/Chat"),
            data(1, &three[..9]),
            data_end(1, &three[9..]),
        ]
        .concat(),
        r"
HEADERS 1 :status=200 content-type=application/grpc
DATA 1 \x00\x00\x00\x00\x01a\x00\x00\x00\x00\x02bc\x00\x00\x00\x00\x00
HEADERS 1 grpc-status=0 grpc-message= end"
            .trim_start(),
    );
    session.check(
        &[open(3, "/t.T/Sum"), data_end(3, &three)].concat(),
        &answer(3, b"\0\0\0\x03"),
    );
    session.check(
        &[
            open(5, "/t.T/Many"),
            data(5, &message(b"q")),
            data_end(5, b""),
        ]
        .concat(),
        r"
HEADERS 5 :status=200 content-type=application/grpc
DATA 5 \x00\x00\x00\x00\x01q\x00\x00\x00\x00\x01q\x00\x00\x00\x00\x01q
HEADERS 5 grpc-status=0 grpc-message= end"
            .trim_start(),
    );
    // Without any message.
    let ended = |id, path| {
        frame(
            kind::HEADERS,
            flag::END_HEADERS | flag::END_STREAM,
            id,
            &request_block(path, &[]),
        )
    };
    session.check(&ended(7, "/t.T/Sum"), &answer(7, b"\0\0\0\0"));
    session.check(&ended(9, "/t.T/Chat"), &failure(9, Code::Ok, ""));
}

#[test]
fn answers_may_come_later() {
    let mut session = session();
    session.check(&call(1, "/t.T/Hold", b"x"), "");
    assert!(session.connection.responder().is_open(StreamId(1)));
    session
        .connection
        .responder()
        .unary(StreamId(1), |reply| reply.push(b'y'));
    assert_eq!(session.frames(), answer(1, b"y"));
    assert!(!session.connection.responder().is_open(StreamId(1)));
}

#[test]
fn unknown_paths() {
    answers_path(
        "/pkg.Svc/Do",
        &[],
        Code::Unimplemented,
        "unknown service pkg.Svc",
    );
    answers_path("/a/b/Do", &[], Code::Unimplemented, "unknown service a/b");
    answers_path(
        "/t.T/Do",
        &[],
        Code::Unimplemented,
        "unknown method Do for service t.T",
    );
    answers_path(
        "nope",
        &[],
        Code::Unimplemented,
        "malformed method name: \"nope\"",
    );
    answers_path(
        "/nope",
        &[],
        Code::Unimplemented,
        "malformed method name: \"/nope\"",
    );
}

#[test]
fn content_types() {
    let rejected = |text: &str| {
        format!(
            ":status=415 content-type=application/grpc grpc-status=3 grpc-message=invalid gRPC request content-type \"{text}\" end"
        )
    };
    for wrong in ["text/html", "application/grpcx", "application/json"] {
        answers(
            &request("POST", wrong),
            &format!("HEADERS 1 {}", rejected(wrong)),
        );
    }
    let none = block(&[
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/t.T/Echo"),
    ]);
    answers(&none, &format!("HEADERS 1 {}", rejected("")));
    for (sent, answered) in [
        ("application/grpc", "application/grpc"),
        ("application/grpc+", "application/grpc"),
        ("application/grpc;", "application/grpc"),
        ("application/grpc+proto", "application/grpc+proto"),
        ("application/grpc+json", "application/grpc+json"),
    ] {
        let mut session = session();
        let bytes = [
            headers(1, &request("POST", sent)),
            data_end(1, &message(b"x")),
        ]
        .concat();
        session.check(
            &bytes,
            &answer(1, b"x").replace("=application/grpc\n", &format!("={answered}\n")),
        );
    }
}

#[test]
fn methods_other_than_post() {
    answers(
        &request("GET", "application/grpc"),
        "HEADERS 1 :status=405 content-type=application/grpc grpc-status=13 grpc-message=Received a HEADERS frame with :method \"GET\" which should be POST end",
    );
}

#[test]
fn two_hosts() {
    answers(
        &request_block("/t.T/Echo", &[("host", "a"), ("host", "b")]),
        "HEADERS 1 :status=400 content-type=application/grpc grpc-status=13 grpc-message=num values of :authority: 1, num values of host: 2, both must only have 1 value as per HTTP/2 spec end",
    );
}

#[test]
fn any_te_is_fine() {
    let fields = request_block("/t.T/Echo", &[("te", "gzip")]);
    session().check(
        &[headers(1, &fields), data_end(1, &message(b"x"))].concat(),
        &answer(1, b"x"),
    );
}

#[test]
fn encodings() {
    answers_path(
        "/t.T/Echo",
        &[("grpc-encoding", "gzip")],
        Code::Unimplemented,
        "grpc: Decompressor is not installed for grpc-encoding \"gzip\"",
    );
    let identity = headers(
        1,
        &request_block("/t.T/Echo", &[("grpc-encoding", "identity")]),
    );
    session().check(
        &[identity, data_end(1, &message(b"x"))].concat(),
        &answer(1, b"x"),
    );
    let mut compressed = message(b"x");
    compressed[0] = 1;
    session().check(
        &[open(1, "/t.T/Echo"), data_end(1, &compressed)].concat(),
        &failure(
            1,
            Code::Internal,
            "grpc: compressed flag set with identity or empty encoding",
        ),
    );
    compressed[0] = 7;
    session().check(
        &[open(1, "/t.T/Echo"), data_end(1, &compressed)].concat(),
        &failure(
            1,
            Code::Internal,
            "grpc: received unexpected payload format 7",
        ),
    );
}

#[test]
fn message_counts_of_calls_with_one_request() {
    // As gRPC for Go words it for unary calls.
    let none = "EOF";
    let many =
        "cardinality violation: received multiple request messages for non-client-streaming RPC";
    answers_path("/t.T/Echo", &[], Code::Unknown, none);
    let opened = open(1, "/t.T/Echo");
    session().check(
        &[opened.clone(), data_end(1, b"")].concat(),
        &failure(1, Code::Unknown, none),
    );
    let two = [message(b"x"), message(b"y")].concat();
    session().check(
        &[opened.clone(), data_end(1, &two)].concat(),
        &failure(1, Code::Internal, many),
    );
    session().check(
        &[
            opened.clone(),
            data(1, &message(b"x")),
            data(1, &message(b"y")),
        ]
        .concat(),
        &(failure(1, Code::Internal, many) + "RST 1 NoError"),
    );
    session().check(
        &[opened.clone(), data_end(1, b"\0\0\0")].concat(),
        &failure(1, Code::Unknown, none),
    );
    session().check(
        &[opened.clone(), data_end(1, b"\0\0\0\0\x05abcd")].concat(),
        &failure(1, Code::Unknown, "unexpected EOF"),
    );
    session().check(
        &[open(1, "/t.T/Chat"), data_end(1, b"\0\0\0\0\x05abcd")].concat(),
        &failure(1, Code::Internal, "unexpected EOF"),
    );
}

#[test]
fn messages_too_large() {
    let mut session = Session::new(Limits {
        message_bytes_max: 10,
        ..Limits::default()
    });
    session.check(&call(1, "/t.T/Echo", &[b'x'; 10]), &answer(1, &[b'x'; 10]));
    let text = "grpc: received message larger than max (11 vs. 10)";
    session.check(
        &[open(3, "/t.T/Echo"), data(3, b"\0\0\0\0\x0b")].concat(),
        &(failure(3, Code::ResourceExhausted, text) + "RST 3 NoError"),
    );
    session.check(&data_end(3, &[0; 11]), "");
    assert_eq!(session.connection.stats().limits.message_bytes, 1);
}

#[test]
fn timeouts_that_can_not_be_read() {
    for (value, text) in [
        ("S", "transport: timeout string is too short: \"S\""),
        (
            "123456789S",
            "transport: timeout string is too long: \"123456789S\"",
        ),
        ("1x", "transport: timeout unit is not recognized: \"1x\""),
        ("aS", "strconv.ParseUint: parsing \"a\": invalid syntax"),
    ] {
        answers(
            &request_block("/t.T/Echo", &[("grpc-timeout", value)]),
            &format!(
                "HEADERS 1 :status=400 content-type=application/grpc grpc-status=13 grpc-message=malformed grpc-timeout: {text} end"
            ),
        );
    }
    answers_path(
        "/t.T/Echo",
        &[("grpc-timeout", "0n")],
        Code::DeadlineExceeded,
        "context deadline exceeded",
    );
}

#[test]
fn deadlines() {
    let mut session = session();
    session.now_ns = 5;
    let timed = |id, value| headers(id, &request_block("/t.T/Hold", &[("grpc-timeout", value)]));
    session.send(&[timed(1, "1S"), data_end(1, &message(b"x")), timed(3, "2S")].concat());
    assert_eq!(session.service.log, ["message 1 1 deadline 1000000005"]);
    let due_ns = session.connection.next_timer_ns().expect("a deadline");
    assert!(
        (SECOND + 5..SECOND + 5 + 5_000_000).contains(&due_ns),
        "{due_ns}"
    );
    session.timer(due_ns - 1);
    assert_eq!(session.frames(), "");
    session.timer(due_ns);
    assert_eq!(
        session.frames(),
        failure(1, Code::DeadlineExceeded, "context deadline exceeded")
    );
    assert_eq!(session.service.log[1], "cancel 1 1 Deadline");
    // The client of the second call has not even finished sending; the service has not heard of it.
    let due_ns = session
        .connection
        .next_timer_ns()
        .expect("the other deadline");
    session.timer(due_ns);
    let expected =
        failure(3, Code::DeadlineExceeded, "context deadline exceeded") + "RST 3 NoError\n";
    assert_eq!(session.frames(), expected);
    assert_eq!(session.service.log.len(), 2);
    assert_eq!(session.connection.stats().deadlines_passed, 2);
    assert!(session.connection.next_timer_ns() > Some(3000 * SECOND));
}

#[test]
fn a_deadline_in_the_middle_of_an_answer_resets() {
    let mut session = Session::with_settings(Limits::default(), &[(4, 3)]);
    let timed = headers(1, &request_block("/t.T/Echo", &[("grpc-timeout", "1S")]));
    session.send(&[timed, data_end(1, &message(b"hello"))].concat());
    session.frames();
    session.timer(2 * SECOND);
    assert_eq!(session.frames(), "RST 1 Cancel\n");
    assert_eq!(session.service.log.len(), 1, "the service had answered");
}

#[test]
fn metadata() {
    let more = [
        ("token", "abc"),
        ("x-bin", "aGVsbG8"),
        ("grpc-timeout", "9H"),
        ("user-agent", "me"),
    ];
    let fields = request_block("/t.T/Echo", &more);
    let mut session = session();
    session.check(
        &[headers(1, &fields), data_end(1, &message(b"x"))].concat(),
        &answer(1, b"x"),
    );
    assert_eq!(
        session.service.log,
        ["message 1 1 token abc deadline 32400000000000"]
    );
    answers(
        &request_block("/t.T/Echo", &[("x-bin", "a!")]),
        "HEADERS 1 :status=400 content-type=application/grpc grpc-status=13 grpc-message=malformed binary metadata \"a!\" in header \"x-bin\": illegal base64 data at input byte 1 end",
    );
}

#[test]
fn errors_before_the_end_of_the_request_stop_the_client() {
    session().check(
        &open(1, "/x.Y/Z"),
        &(failure(1, Code::Unimplemented, "unknown service x.Y") + "RST 1 NoError"),
    );
}

#[test]
fn long_texts_are_cut() {
    let mut session = Session::new(Limits {
        status_message_bytes_max: 8,
        ..Limits::default()
    });
    session.send(&call(1, "/t.T/Hold", b""));
    session
        .connection
        .responder()
        .error(StreamId(1), Code::Internal, "1234567\u{e4}89");
    assert_eq!(session.frames(), failure(1, Code::Internal, "1234567"));
}

#[test]
fn a_client_that_takes_no_trailers_gets_a_reset() {
    let mut session = Session::with_settings(Limits::default(), &[(6, 50)]);
    session.check(&call(1, "/t.T/Fail", b""), "RST 1 InternalError");
}

#[test]
fn small_client_tables_get_literals() {
    let mut session = Session::with_settings(Limits::default(), &[(1, 0)]);
    for id in [1, 3, 5] {
        session.check(&call(id, "/t.T/Echo", b"x"), &answer(id, b"x"));
    }
}

#[test]
fn pings_without_a_call_are_struck_at_the_third() {
    let mut session = session();
    for _ in 0..3 {
        session.check(&ping(), "PING ack pingping");
        session.now_ns += 60 * SECOND;
    }
    session.check_error(&ping(), ErrorCode::EnhanceYourCalm);
    assert_eq!(
        session.connection.stats().error_reason,
        Some("too_many_pings")
    );
    assert_eq!(session.connection.stats().limits.keepalive_min_time, 1);
}

#[test]
fn pings_with_a_call_may_come_every_five_seconds() {
    let mut session = session();
    session.send(&open(1, "/t.T/Chat"));
    for _ in 0..20 {
        session.check(&ping(), "PING ack pingping");
        session.now_ns += 5 * SECOND;
    }
    session.now_ns += SECOND;
    for _ in 0..3 {
        session.check(&ping(), "PING ack pingping");
        session.now_ns += 4 * SECOND;
    }
    session.check_error(&ping(), ErrorCode::EnhanceYourCalm);
}

#[test]
fn answers_excuse_pings() {
    let mut session = session();
    // A client that measures its link pings for each answer, however fast they come.
    for id in 0..5_000 {
        session.send(&ping());
        session.send(&call(2 * id + 1, "/t.T/Echo", b"x"));
        assert_eq!(session.error, None);
    }
}

#[test]
fn pings_may_be_permitted_without_a_call() {
    let limits = Limits {
        keepalive_permit_without_stream: true,
        ..Limits::default()
    };
    let mut session = Session::new(limits);
    for _ in 0..20 {
        session.check(&ping(), "PING ack pingping");
        session.now_ns += 5 * SECOND;
    }
}

#[test]
fn the_server_pings_a_silent_client() {
    let mut session = session();
    let interval_ns = 7200 * SECOND;
    assert_eq!(session.connection.next_timer_ns(), Some(interval_ns));
    session.timer(interval_ns);
    assert_eq!(
        session.frames(),
        "PING \\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\n"
    );
    session.now_ns += SECOND;
    session.check(&frame(kind::PING, flag::ACK, 0, &[0; 8]), "");
    let next_ns = session.now_ns + interval_ns;
    assert_eq!(session.connection.next_timer_ns(), Some(next_ns));
    session.timer(next_ns);
    session.frames();
    assert_eq!(
        session.connection.next_timer_ns(),
        Some(next_ns + 20 * SECOND)
    );
    session.timer(next_ns + 20 * SECOND);
    assert!(session.error.is_some());
    assert_eq!(session.connection.stats().limits.keepalive_timeout, 1);
}

#[test]
fn clients_that_go_silent_at_the_start() {
    let mut session = Session::raw(Limits::default());
    let due_ns = session.connection.next_timer_ns().expect("handshake");
    assert_eq!(due_ns, Limits::default().handshake_timeout_ns);
    session.timer(due_ns);
    assert_eq!(
        session.error.map(|error| error.code),
        Some(ErrorCode::ProtocolError)
    );

    let mut session = Session::raw(Limits::default());
    session.send(&[&wire::h2::frame::PREFACE[..], &settings(&[])].concat());
    session.frames();
    session.timer(Limits::default().settings_ack_timeout_ns);
    assert_eq!(
        session.error.map(|error| error.code),
        Some(ErrorCode::SettingsTimeout)
    );
}
