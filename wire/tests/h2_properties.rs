//! Properties that hold for any input: no panic, and the same result however the bytes are cut into
//! reads.

mod h2_support;

use h2_support::*;
use proptest::collection::vec;
use proptest::prelude::*;
use wire::grpc::{Limits, StreamId};
use wire::h2::frame::{PREFACE, flag, kind};

/// One thing a client does, right or wrong.
#[derive(Debug, Clone)]
enum Step {
    Call {
        path: usize,
        size: usize,
        cut: usize,
        repeat: bool,
        end: bool,
    },
    Data {
        back: u32,
        size: usize,
        end: bool,
    },
    Reset {
        back: u32,
    },
    Window {
        back: u32,
        increment: u32,
    },
    ConnectionWindow {
        increment: u32,
    },
    Settings {
        id: u16,
        value: u32,
    },
    Ping,
    Frame {
        kind: u8,
        flags: u8,
        stream: u32,
        payload: Vec<u8>,
    },
}

const PATHS: [&str; 8] = [
    "/t.T/Echo",
    "/t.T/Hold",
    "/t.T/Fail",
    "/t.T/Chat",
    "/t.T/Many",
    "/t.T/Sum",
    "/t.T/None",
    "/x",
];

fn step() -> impl Strategy<Value = Step> {
    let back = 0..4u32;
    let window = (0..100_000u32).prop_map(|value| (4, value));
    let any_setting = (1..7u16, any::<u32>());
    let call = (
        0..PATHS.len(),
        0..40_000usize,
        any::<usize>(),
        any::<bool>(),
        any::<bool>(),
    );
    prop_oneof![
        400 => call.prop_map(|(path, size, cut, repeat, end)| {
            Step::Call { path, size: size / (1 + cut % 200), cut, repeat, end }
        }),
        150 => (back.clone(), 0..3000usize, any::<bool>())
            .prop_map(|(back, size, end)| Step::Data { back, size, end }),
        50 => back.clone().prop_map(|back| Step::Reset { back }),
        100 => (back, 1..100_000u32).prop_map(|(back, increment)| Step::Window { back, increment }),
        150 => (1..100_000u32).prop_map(|increment| Step::ConnectionWindow { increment }),
        50 => window.prop_map(|(id, value)| Step::Settings { id, value }),
        5 => any_setting.prop_map(|(id, value)| Step::Settings { id, value }),
        30 => Just(Step::Ping),
        5 => (0..12u8, any::<u8>(), 0..12u32, vec(any::<u8>(), 0..40))
            .prop_map(|(kind, flags, stream, payload)| Step::Frame { kind, flags, stream, payload }),
    ]
}

fn bytes(steps: &[Step], window: u32) -> Vec<u8> {
    let mut out = PREFACE.to_vec();
    out.extend(settings(&[(4, window)]));
    out.extend(frame(kind::SETTINGS, flag::ACK, 0, b""));
    let mut next = 1u32;
    for step in steps {
        let before = |back: &u32| next.saturating_sub(2 * (back + 1)).max(1) | 1;
        match step {
            Step::Data { .. } | Step::Reset { .. } | Step::Window { .. } if next == 1 => {}
            Step::Call {
                path,
                size,
                cut,
                repeat,
                end,
            } => {
                let token = if *repeat {
                    "same".to_owned()
                } else {
                    next.to_string()
                };
                let mut block = request_block(PATHS[*path], &[("token", &token)]);
                if !repeat {
                    // Enters the table, so that cached blocks lose their meaning.
                    block.extend(b"\x40\x01k\x01v");
                }
                out.extend(headers(next, &block));
                let framed = message(&vec![b'm'; *size]);
                let (first, rest) = framed.split_at(cut % (framed.len() + 1));
                for chunk in first.chunks(16_384).chain(rest.chunks(16_384)) {
                    out.extend(data(next, chunk));
                }
                if *end {
                    out.extend(data_end(next, b""));
                }
                next += 2;
            }
            Step::Data { back, size, end } => {
                let framed = message(&vec![b'd'; *size]);
                out.extend(if *end {
                    data_end(before(back), &framed)
                } else {
                    data(before(back), &framed)
                });
            }
            Step::Reset { back } => out.extend(rst(before(back))),
            Step::Window { back, increment } => out.extend(window_update(before(back), *increment)),
            Step::ConnectionWindow { increment } => out.extend(window_update(0, *increment)),
            Step::Settings { id, value } => out.extend(settings(&[(*id, *value)])),
            Step::Ping => out.extend(ping()),
            Step::Frame {
                kind,
                flags,
                stream,
                payload,
            } => out.extend(frame(*kind, *flags, *stream, payload)),
        }
    }
    out
}

fn limits() -> Limits {
    Limits {
        message_bytes_max: 30_000,
        assembly_bytes_max: 60_000,
        parked_bytes_max: 50_000,
        output_bytes_max: 60_000,
        stream_window_bytes: 70_000,
        connection_window_bytes: 100_000,
        ..Limits::default()
    }
}

/// Feeds pieces of these lengths in turn; what came out, what the service saw, and how it ended.
fn run(bytes: &[u8], lengths: &[usize]) -> (Vec<u8>, Vec<String>, String) {
    let mut session = Session::raw(limits());
    let mut rest = bytes;
    let mut lengths = lengths.iter().cycle();
    while !rest.is_empty() {
        let length = lengths
            .next()
            .map_or(rest.len(), |length| rest.len().min(1 + length));
        let (piece, after) = rest.split_at(length);
        session.send(piece);
        if session.error.is_some() {
            break;
        }
        rest = after;
    }
    let mut out = Vec::new();
    while session.connection.has_output() {
        out.extend(session.connection.take_output(Vec::new()));
    }
    // What is still open can be answered or not, but never panics.
    for id in (1..40).step_by(2) {
        session
            .connection
            .responder()
            .unary(StreamId(id), |reply| reply.push(b'l'));
    }
    session.timer(1 << 40);
    session.timer(1 << 50);
    session.connection.on_closed(&mut session.service);
    assert_eq!(session.connection.open_calls(), 0);
    let mut stats = session.connection.take_stats();
    stats.bytes_received = 0;
    (
        out,
        session.service.log,
        format!("{:?} {stats:?}", session.error),
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn reads_may_be_cut_anywhere(
        steps in vec(step(), 0..30),
        window in prop_oneof![0..500u32, Just(65_535)],
        lengths in vec(0..3000usize, 1..6),
    ) {
        let bytes = bytes(&steps, window);
        let whole = run(&bytes, &[]);
        prop_assert_eq!(&run(&bytes, &lengths), &whole);
        if bytes.len() < 20_000 {
            prop_assert_eq!(&run(&bytes, &[0]), &whole);
        }
    }

    #[test]
    fn arbitrary_bytes_do_no_harm(garbage in vec(any::<u8>(), 0..2000), lengths in vec(0..100usize, 0..4)) {
        run(&garbage, &lengths);
        let bytes = [&PREFACE[..], &settings(&[]), &garbage].concat();
        run(&bytes, &lengths);
        let opened = [&bytes[..33], &open(1, "/t.T/Chat"), &data(1, &garbage), &garbage].concat();
        run(&opened, &lengths);
    }

    #[test]
    fn arbitrary_header_blocks_do_no_harm(block in vec(any::<u8>(), 0..300), table in vec(0x40..=0xffu8, 0..300)) {
        let bytes = [
            &PREFACE[..],
            &settings(&[]),
            &frame(kind::HEADERS, flag::END_HEADERS, 1, &[&b"\x40\x01a\x01b"[..], &table].concat()),
            &headers(3, &block),
        ]
        .concat();
        run(&bytes, &[]);
    }
}
