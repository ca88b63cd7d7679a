//! Every bound of a connection, and floods that run into it: the right end, the right counter,
//! bounded memory.

mod h2_support;

use h2_support::*;
use wire::grpc::limits::Rate;
use wire::grpc::stats::LimitHits;
use wire::grpc::{Code, ErrorCode, Limits, StreamId};
use wire::h2::frame::{flag, kind};

const FEW: Rate = Rate {
    burst: 5,
    per_second: 1,
};

/// Repeats what `bytes` makes of 0, 1, 2, ... until the connection ends; returns how many were
/// taken.
#[track_caller]
fn flood(session: &mut Session, mut bytes: impl FnMut(u32) -> Vec<u8>) -> u32 {
    for round in 0..10_000 {
        session.send(&bytes(round));
        session
            .sent
            .extend(session.connection.take_output(Vec::new()));
        if let Some(error) = session.error {
            assert_eq!(error.code, ErrorCode::EnhanceYourCalm, "{error}");
            let frames = session.frames();
            let last = frames.lines().last().expect("a GOAWAY");
            assert!(last.contains(error.reason), "{last}");
            return round;
        }
    }
    panic!("the flood was never stopped");
}

/// A flood against a rate of `FEW`: five are taken, one more a second later.
#[track_caller]
fn flood_few(
    limits: Limits,
    hits: impl Fn(&LimitHits) -> u64,
    bytes: impl Fn(u32) -> Vec<u8>,
    start: &[u8],
) {
    let mut session = Session::new(limits.clone());
    session.send(start);
    assert_eq!(flood(&mut session, &bytes), 5);
    assert_eq!(hits(&session.connection.stats().limits), 1);

    let mut session = Session::new(limits);
    session.send(start);
    for round in 0..5 {
        session.send(&bytes(round));
    }
    assert_eq!(session.error, None);
    session.now_ns += SECOND;
    assert_eq!(flood(&mut session, |round| bytes(round + 5)), 1);
}

#[test]
fn rapid_reset() {
    flood_few(
        Limits {
            resets: FEW,
            ..Limits::default()
        },
        |hits| hits.resets,
        |round| [call(2 * round + 1, "/t.T/Hold", b"x"), rst(2 * round + 1)].concat(),
        b"",
    );
}

#[test]
fn resets_that_the_client_makes_us_send() {
    flood_few(
        Limits {
            resets: FEW,
            ..Limits::default()
        },
        |hits| hits.resets,
        |round| {
            [
                open(2 * round + 1, "/t.T/Chat"),
                window_update(2 * round + 1, 0),
            ]
            .concat()
        },
        b"",
    );
    flood_few(
        Limits {
            resets: FEW,
            ..Limits::default()
        },
        |hits| hits.resets,
        |round| headers(2 * round + 1, b""),
        b"",
    );
}

#[test]
fn settings_flood() {
    // The session itself has sent two.
    flood_few(
        Limits {
            settings: Rate {
                burst: 7,
                per_second: 1,
            },
            ..Limits::default()
        },
        |hits| hits.settings,
        |_| settings(&[]),
        b"",
    );
}

#[test]
fn ping_flood() {
    let limits = Limits {
        pings: FEW,
        keepalive_min_time_ns: 0,
        keepalive_permit_without_stream: true,
        ..Limits::default()
    };
    flood_few(limits.clone(), |hits| hits.pings, |_| ping(), b"");
    let ack = |_| frame(kind::PING, flag::ACK, 0, b"unasked!");
    flood_few(limits, |hits| hits.pings, ack, b"");
}

#[test]
fn empty_frame_floods() {
    let limits = || Limits {
        empty_frames: FEW,
        ..Limits::default()
    };
    flood_few(
        limits(),
        |hits| hits.empty_frames,
        |_| data(1, b""),
        &open(1, "/t.T/Chat"),
    );
    let padding = |_| frame(kind::DATA, flag::PADDED, 1, &[3, 0, 0, 0]);
    flood_few(
        limits(),
        |hits| hits.empty_frames,
        padding,
        &open(1, "/t.T/Chat"),
    );
    let begin = frame(kind::HEADERS, 0, 1, b"\x83");
    let empty = |_| frame(kind::CONTINUATION, 0, 1, b"");
    flood_few(limits(), |hits| hits.empty_frames, empty, &begin);
}

#[test]
fn window_update_flood() {
    let limits = || Limits {
        window_updates: FEW,
        ..Limits::default()
    };
    flood_few(
        limits(),
        |hits| hits.window_updates,
        |_| window_update(0, 1),
        b"",
    );
    flood_few(
        limits(),
        |hits| hits.window_updates,
        |_| window_update(1, 1),
        &open(1, "/t.T/Chat"),
    );
    // Answers explain window updates.
    let mut session = Session::new(limits());
    for round in 0..200 {
        session.send(&[call(2 * round + 1, "/t.T/Echo", b"x"), window_update(0, 1)].concat());
        assert_eq!(session.error, None);
    }
}

#[test]
fn floods_of_frames_without_effect() {
    let limits = || Limits {
        ignored_frames: FEW,
        ..Limits::default()
    };
    let hits = |hits: &LimitHits| hits.ignored_frames;
    flood_few(
        limits(),
        hits,
        |_| frame(kind::PRIORITY, 0, 7, &[0; 5]),
        b"",
    );
    flood_few(limits(), hits, |_| frame(0x77, 0, 7, b"?"), b"");
    flood_few(limits(), hits, |_| frame(kind::GOAWAY, 0, 0, &[0; 8]), b"");
    flood_few(limits(), hits, |_| rst(1), &call(1, "/t.T/Echo", b""));
    flood_few(limits(), hits, |_| data(1, b"x"), &open(1, "/t.T/Nope"));
}

#[test]
fn control_frames_while_nobody_takes_the_output() {
    let limits = Limits {
        control_bytes_max: 100,
        keepalive_min_time_ns: 0,
        keepalive_permit_without_stream: true,
        ..Limits::default()
    };
    let mut session = Session::new(limits);
    for _ in 0..5 {
        session.send(&ping());
    }
    session.frames();
    for _ in 0..5 {
        session.send(&ping());
    }
    assert_eq!(session.error, None);
    session.check_error(&ping(), ErrorCode::EnhanceYourCalm);
    assert_eq!(session.connection.stats().limits.control_bytes, 1);
}

#[test]
fn continuation_flood() {
    let mut session = Session::new(Limits {
        continuation_frames_max: 5,
        ..Limits::default()
    });
    session.send(&frame(kind::HEADERS, 0, 1, b"\x83"));
    assert_eq!(
        flood(&mut session, |_| frame(
            kind::CONTINUATION,
            0,
            1,
            &literal(b"a", b"b")
        )),
        5
    );
    assert_eq!(session.connection.stats().limits.continuation_frames, 1);

    let mut session = Session::new(Limits {
        header_block_bytes_max: 1000,
        ..Limits::default()
    });
    session.send(&frame(kind::HEADERS, 0, 1, b"\x83"));
    assert_eq!(
        flood(&mut session, |_| frame(
            kind::CONTINUATION,
            0,
            1,
            &[0x82; 99]
        )),
        10
    );
    assert_eq!(session.connection.stats().limits.header_block_bytes, 1);
}

/// A block cut into HEADERS and as many CONTINUATION frames as it takes.
fn long_headers(stream: u32, block: &[u8]) -> Vec<u8> {
    let chunks: Vec<&[u8]> = block.chunks(16_384).collect();
    let mut out = Vec::new();
    for (index, chunk) in chunks.iter().enumerate() {
        let kind = if index == 0 {
            kind::HEADERS
        } else {
            kind::CONTINUATION
        };
        let flags = if index + 1 == chunks.len() {
            flag::END_HEADERS
        } else {
            0
        };
        out.extend(frame(kind, flags, stream, chunk));
    }
    out
}

#[test]
fn a_header_list_of_a_megabyte_is_taken_by_default() {
    let mut session = Session::new(Limits::default());
    let value = "x".repeat(1 << 20);
    let block = request_block("/t.T/Echo", &[("token", &value)]);
    session.send(&[long_headers(1, &block), data_end(1, &message(b"x"))].concat());
    assert_eq!(session.frames(), answer(1, b"x"));
    assert!(session.service.log[0].len() > 1 << 20);
}

#[test]
fn header_lists_too_large_reset_their_stream() {
    let mut session = Session::new(Limits {
        header_list_bytes_max: 1000,
        ..Limits::default()
    });
    let block = request_block("/t.T/Echo", &[("token", &"x".repeat(1000))]);
    session.check(&headers(1, &block), "RST 1 FrameSizeError");
    // A short block can mean a long list.
    let mut bomb = b"\x40\x01a\x7f\x81\x02".to_vec();
    bomb.extend([b'x'; 384]);
    bomb.extend([0xbe; 500]);
    session.check(&headers(3, &bomb), "RST 3 FrameSizeError");
    assert_eq!(session.connection.stats().limits.header_list_bytes, 2);
    session.check(&call(5, "/t.T/Echo", b"x"), &answer(5, b"x"));
}

#[test]
fn metadata_of_all_calls_is_bounded() {
    let mut session = Session::new(Limits {
        metadata_bytes_max: 50_000,
        ..Limits::default()
    });
    let block = request_block("/t.T/Hold", &[("token", &"x".repeat(9_000))]);
    for id in [1, 3, 5, 7, 9] {
        session.send(&[headers(id, &block), data_end(id, &message(b"x"))].concat());
    }
    session.check(
        &headers(11, &block),
        &(failure(
            11,
            Code::ResourceExhausted,
            "too much metadata on this connection",
        ) + "RST 11 NoError"),
    );
    assert_eq!(session.connection.stats().limits.metadata_bytes, 1);
    session.connection.responder().unary(StreamId(1), |_| {});
    session.frames();
    session.send(&[headers(13, &block), data_end(13, &message(b"x"))].concat());
    assert_eq!(session.frames(), "");
}

#[test]
fn incomplete_messages_are_bounded() {
    let mut session = Session::new(Limits {
        assembly_bytes_max: 30_000,
        ..Limits::default()
    });
    let part = &message(&[0; 20_000])[..10_000];
    for id in [1, 3] {
        session.check(&[open(id, "/t.T/Echo"), data(id, part)].concat(), "");
    }
    session.check(&[open(5, "/t.T/Echo"), data(5, part)].concat(), "");
    session.send(&[open(7, "/t.T/Echo"), data(7, part)].concat());
    assert!(session.frames().contains("grpc-status=8"));
    assert_eq!(session.connection.stats().limits.assembly_bytes, 1);
    // The others can still finish.
    session.send(&data_end(1, &[0; 10_005]));
    assert!(session.frames().starts_with("HEADERS 1 :status=200"));
}

#[test]
fn frames_too_large() {
    let mut session = Session::new(Limits::default());
    session.check_error(
        &[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1],
        ErrorCode::FrameSizeError,
    );
    assert_eq!(session.connection.stats().limits.frame_bytes, 1);
}

#[test]
fn the_connection_window_is_enforced() {
    let mut session = Session::new(Limits {
        connection_window_bytes: 65_535,
        stream_window_bytes: 1 << 30,
        ..Limits::default()
    });
    session.send(&open(1, "/t.T/Sum"));
    // It refills itself, so no client that sends can ever pass it but one that ignores it from the
    // start: frames are at most a quarter of it. Shrink the proof to what can be seen: it is
    // refilled in halves.
    session.send(&data(1, &message(&[0; 16_000])));
    assert_eq!(session.frames(), "");
    session.send(
        &[
            data(1, &message(&[0; 16_000])),
            data(1, &message(&[0; 16_000])),
        ]
        .concat(),
    );
    assert_eq!(session.frames(), "WINDOW_UPDATE 0 48015\n");
}

#[test]
fn a_reader_that_is_slow_is_not_read_from() {
    let mut session = Session::with_settings(
        Limits {
            output_bytes_max: 1000,
            ..Limits::default()
        },
        &[(4, 1 << 20)],
    );
    assert!(session.connection.wants_input());
    for id in [1, 3, 5, 7] {
        session.send(&call(id, "/t.T/Echo", &[b'x'; 600]));
    }
    assert!(!session.connection.wants_input());
    assert!(
        session.connection.output_bytes() < 2000,
        "what is above waits in its stream"
    );
    assert_eq!(session.connection.stats().answers_parked, 2);
    let frames = session.frames();
    assert!(
        [1, 3, 5, 7]
            .into_iter()
            .all(|id| frames.contains(&format!("HEADERS {id} grpc-status=0")))
    );
    assert!(session.connection.wants_input());
}

#[test]
fn parked_answers_are_bounded() {
    let limits = Limits {
        parked_bytes_max: 1000,
        ..Limits::default()
    };
    let mut session = Session::with_settings(limits, &[(4, 0)]);
    session.send(&call(1, "/t.T/Echo", &[b'x'; 10_000]));
    assert_eq!(
        session.connection.responder().backlog_bytes(StreamId(1)),
        10_005,
        "one always fits"
    );
    session.frames();
    session.check(
        &call(3, "/t.T/Echo", b"y"),
        "HEADERS 3 :status=200 content-type=application/grpc\nHEADERS 3 grpc-status=8 grpc-message=too many answers wait for the client end",
    );
    assert_eq!(session.connection.stats().limits.parked_bytes, 1);
    session.check(
        &call(5, "/t.T/Fail", b""),
        &failure(5, Code::NotFound, "100%25 gone%0A"),
    );
    session.send(&rst(1));
    session.send(&call(7, "/t.T/Echo", b"y"));
    assert_eq!(session.connection.responder().backlog_bytes(StreamId(7)), 6);
    // A stream with a backlog that is given more can only be reset.
    session.frames();
    session.send(&[open(9, "/t.T/Chat"), data(9, &message(&[b'x'; 2000]))].concat());
    session.frames();
    session.check(&data(9, &message(b"z")), "RST 9 EnhanceYourCalm");
    assert_eq!(
        session.service.log.last().map(String::as_str),
        Some("cancel 9 3 SlowReader")
    );
}

#[test]
fn answers_that_nobody_takes_are_given_up() {
    let stall_ns = Limits::default().stall_timeout_ns;
    let mut session = Session::with_settings(Limits::default(), &[(4, 10)]);
    session.send(&[open(1, "/t.T/Chat"), data(1, &message(&[b'x'; 50]))].concat());
    session.frames();
    let due_ns = session
        .connection
        .next_timer_ns()
        .expect("a stall time-out");
    assert_eq!(due_ns, stall_ns);
    // A single byte is progress.
    session.now_ns = stall_ns - 1;
    session.send(&window_update(1, 1));
    session.frames();
    session.timer(stall_ns);
    assert_eq!(session.frames(), "");
    session.timer(2 * stall_ns - 1);
    assert_eq!(session.frames(), "RST 1 EnhanceYourCalm\n");
    assert_eq!(
        session.service.log,
        ["message 1 50", "cancel 1 3 SlowReader"]
    );
    assert_eq!(session.connection.stats().limits.stall_timeout, 1);
    assert_eq!(session.connection.open_calls(), 0);
}

#[test]
fn output_that_nobody_takes_ends_the_connection() {
    let stall_ns = Limits::default().stall_timeout_ns;
    let mut session = Session::new(Limits::default());
    session.send(&call(1, "/t.T/Echo", b"x"));
    let due_ns = session
        .connection
        .next_timer_ns()
        .expect("a stall time-out");
    assert_eq!(due_ns, stall_ns);
    session.timer(due_ns);
    assert_eq!(session.error, None, "only now it is known to wait");
    session.timer(2 * stall_ns);
    assert_eq!(
        session.error.map(|error| error.code),
        Some(ErrorCode::EnhanceYourCalm)
    );
}

#[test]
fn deadlines_by_the_thousand_cost_few_timers() {
    let mut session = Session::new(Limits::default());
    for id in 0..1000u32 {
        let timeout = format!("{}u", 1_000_000 + id);
        let block = request_block("/t.T/Hold", &[("grpc-timeout", &timeout)]);
        session.send(
            &[
                headers(2 * id + 1, &block),
                data_end(2 * id + 1, &message(b"")),
            ]
            .concat(),
        );
    }
    session.frames();
    let mut timers = 0;
    while session.connection.open_calls() > 0 {
        let due_ns = session
            .connection
            .next_timer_ns()
            .expect("deadlines are left");
        session.timer(due_ns);
        session.frames();
        timers += 1;
    }
    assert!(timers <= 3, "{timers}");
    assert_eq!(session.connection.stats().deadlines_passed, 1000);
}

#[test]
fn long_texts_do_not_multiply_what_a_client_sends() {
    let mut session = Session::new(Limits {
        output_bytes_max: 10_000,
        resets: FEW,
        ..Limits::default()
    });
    // A path of 3,000 bytes enters the table with the content type; then four bytes ask for it
    // again.
    let mut first = b"\x83\x86\x44\x7f\xb9\x16/".to_vec();
    first.extend([b's'; 2997]);
    first.extend(b"/x\x5f\x10application/grpc");
    let mut bytes = headers(1, &first);
    for id in 1..200 {
        bytes.extend(headers(2 * id + 1, &[0x83, 0x86, 0xbf, 0xbe]));
    }
    session.send(&bytes);
    assert_eq!(
        session.error.map(|error| error.reason),
        Some("too many stream resets")
    );
    assert_eq!(session.connection.stats().limits.output_bytes, 6);
    assert!(session.connection.output_bytes() < 15_000);
}

#[test]
fn a_connection_can_move_to_its_core() {
    fn check<T: Send>() {}
    check::<wire::grpc::Connection>();
}

#[test]
fn parked_answers_can_be_given_up() {
    // No window at all: headers go out, messages wait whole.
    let mut session = Session::with_settings(
        Limits::default(),
        &[(wire::h2::frame::setting::INITIAL_WINDOW_SIZE, 0)],
    );
    let calls = [
        call(1, "/t.T/Echo", b"hello"),
        call(3, "/t.T/Many", b"part"),
        [open(5, "/t.T/Chat"), data(5, &message(b"chat"))].concat(),
        open(7, "/t.T/Hold"),
    ];
    session.send(&calls.concat());
    session.frames();
    assert_eq!(session.connection.parked_bytes(), 10 + 3 * 9 + 9);
    // One of them gets a piece of its message, so that no status may follow.
    session.check(&window_update(3, 4), r"DATA 3 \x00\x00\x00\x00");
    session.service.log.clear();
    let ended = session
        .connection
        .end_parked("too slow", &mut session.service);
    assert_eq!((ended, session.connection.parked_bytes()), (3, 0));
    assert_eq!(
        session.frames(),
        "HEADERS 1 grpc-status=8 grpc-message=too slow end\n\
         RST 3 EnhanceYourCalm\n\
         HEADERS 5 grpc-status=8 grpc-message=too slow end\n\
         RST 5 NoError\n"
    );
    // Only the call that its service had not finished is news to the service.
    assert_eq!(session.service.log, ["cancel 5 3 SlowReader"]);
    // What was not waiting goes on, and so does the connection.
    assert_eq!(session.connection.open_calls(), 1);
    session.check(
        &call(9, "/t.T/Fail", b""),
        &failure(9, Code::NotFound, "100%25 gone%0A"),
    );
}
