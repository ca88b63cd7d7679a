//! Requests that are not gRPC on a connection that speaks it: who gets them, and how answers flow.

mod h2_support;

use h2_support::*;
use wire::grpc::{Limits, StreamId};
use wire::h2::frame::{flag, kind, setting};

fn session() -> Session {
    session_with(Limits::default(), &[])
}

fn session_with(limits: Limits, settings: &[(u16, u32)]) -> Session {
    let mut session = Session::with_settings(limits, settings);
    session.service.answers_plain = true;
    session
}

fn head(method: &str, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let mut fields = vec![
        (":method", method),
        (":scheme", "https"),
        (":path", path),
        (":authority", "localhost"),
    ];
    fields.extend_from_slice(more);
    block(&fields)
}

/// A whole request without a body.
fn plain(id: u32, method: &str, path: &str) -> Vec<u8> {
    let flags = flag::END_HEADERS | flag::END_STREAM;
    frame(kind::HEADERS, flags, id, &head(method, path, &[]))
}

fn answered(id: u32, body: &str) -> String {
    let headers = format!("HEADERS {id} :status=200 content-type=text/plain");
    match body {
        "" => format!("{headers} end\n"),
        _ => format!("{headers}\nDATA {id} {body}\nDATA {id}  end\n"),
    }
}

#[test]
fn requests_without_grpc_reach_the_service_whole() {
    let mut session = session();
    session.check(
        &plain(1, "GET", "/health?a=b"),
        &answered(1, "GET /health?a=b"),
    );
    session.check(&plain(3, "HEAD", "/health"), &answered(3, ""));
    let json = [("content-type", "application/json")];
    let post = [
        headers(5, &head("POST", "/v3/kv", &json)),
        data(5, b"ab"),
        data_end(5, b"c"),
    ];
    session.check(
        &post.concat(),
        &answered(5, "POST /v3/kv application/json abc"),
    );
    // The block is recognised the second time, and means the same.
    session.check(
        &plain(7, "GET", "/health?a=b"),
        &answered(7, "GET /health?a=b"),
    );
    assert!(session.connection.stats().header_cache_hits > 0);
    // CONNECT has no path.
    let connect = block(&[(":method", "CONNECT"), (":authority", "localhost")]);
    let flags = flag::END_HEADERS | flag::END_STREAM;
    session.check(
        &frame(kind::HEADERS, flags, 9, &connect),
        &answered(9, "CONNECT "),
    );
    // Calls beside them are calls as ever, and the only ones that are counted as such.
    session.check(&call(11, "/t.T/Echo", b"hi"), &answer(11, b"hi"));
    let mut ended = 0;
    session.connection.take_ended(|_| ended += 1);
    let stats = session.connection.take_stats();
    assert_eq!(
        (ended, stats.calls_started, stats.message_bytes_sent),
        (1, 1, 2)
    );
    assert_eq!(session.connection.open_calls(), 0);
}

#[test]
fn what_speaks_of_grpc_is_refused_as_grpc() {
    let mut session = session();
    for (id, wrong) in [(1, "application/grpcx"), (3, "text/application/grpc")] {
        let post = head("POST", "/t.T/Echo", &[("content-type", wrong)]);
        session.send(&headers(id, &post));
        let frames = session.frames();
        assert!(frames.contains(":status=415"), "{frames}");
    }
    session.send(&headers(
        5,
        &head(
            "POST",
            "/t.T/Echo",
            &[("content-type", "a;application/grp")],
        ),
    ));
    session.check(
        &data_end(5, b""),
        &answered(5, "POST /t.T/Echo a;application/grp"),
    );
    // Without such a service it is grpc-go's refusal for everything.
    session.service.answers_plain = false;
    session.send(&plain(7, "GET", "/metrics"));
    assert!(session.frames().contains(":status=415"));
}

#[test]
fn an_answer_follows_the_windows() {
    let mut session = session_with(Limits::default(), &[(setting::INITIAL_WINDOW_SIZE, 10)]);
    session.check(
        &plain(1, "GET", "/big?25"),
        "HEADERS 1 :status=200 content-type=text/plain\nDATA 1 xxxxxxxxxx",
    );
    session.check(&window_update(1, 10), "DATA 1 xxxxxxxxxx");
    session.check(&window_update(1, 10), "DATA 1 xxxxx\nDATA 1  end");
    assert_eq!(session.connection.open_calls(), 0);

    // More than the connection's window and many frames: every byte arrives, once.
    let mut session = session_with(
        Limits::default(),
        &[(setting::INITIAL_WINDOW_SIZE, 1 << 20)],
    );
    session.send(&plain(1, "GET", "/big?200000"));
    let mut frames = session.frames();
    for _ in 0..3 {
        session.send(&window_update(0, 65_535));
        frames += &session.frames();
    }
    // One of them stands in the content type.
    assert_eq!(frames.matches('x').count(), 200_000 + 1);
    assert!(
        frames.ends_with("DATA 1  end\n"),
        "{}",
        &frames[frames.len() - 40..]
    );
}

#[test]
fn an_answer_waits_for_the_output_and_for_nobody_who_has_gone() {
    let limits = Limits {
        output_bytes_max: 1000,
        parked_bytes_max: 2000,
        ..Limits::default()
    };
    let mut session = session_with(limits, &[]);
    let asked: Vec<u8> = [1, 3, 5, 7]
        .iter()
        .flat_map(|id| plain(*id, "GET", "/big?1500"))
        .collect();
    session.send(&asked);
    // The first fills the output, two are parked, the fourth finds no room.
    let frames = session.frames();
    assert!(frames.contains("RST 7 EnhanceYourCalm"), "{frames}");
    for id in [1, 3, 5] {
        assert!(frames.contains(&format!("DATA {id}  end")), "{frames}");
    }
    assert_eq!(session.connection.stats().limits.parked_bytes, 1);

    session.check(&plain(9, "GET", "/later"), "");
    session.send(&rst(9));
    session
        .connection
        .responder()
        .plain(StreamId(9), 200, &[], b"late");
    assert_eq!(session.frames(), "");
    assert_eq!(session.connection.stats().late_answers, 1);
}

#[test]
fn bodies_and_header_blocks_are_bounded() {
    let limits = Limits {
        // A body may be twice as long.
        message_bytes_max: 5,
        assembly_bytes_max: 15,
        ..Limits::default()
    };
    let mut session = session_with(limits, &[]);
    session.send(&headers(1, &head("POST", "/a", &[])));
    session.check(
        &data(1, b"12345678901"),
        "HEADERS 1 :status=413 end\nRST 1 NoError",
    );
    // What was under way is dropped.
    session.check(&data_end(1, b"more"), "");
    for id in [3, 5] {
        session.send(&headers(id, &head("POST", "/a", &[])));
        session.send(&data(id, b"12345678"));
    }
    assert_eq!(session.frames(), "RST 5 EnhanceYourCalm\n");
    session.check(&data_end(3, b""), &answered(3, "POST /a 12345678"));

    session.check(&plain(7, "GET", "/later"), "");
    let long = vec![b'x'; 20_000];
    session
        .connection
        .responder()
        .plain(StreamId(7), 200, &[(b"a", &long)], b"x");
    assert_eq!(session.frames(), "RST 7 InternalError\n");
}

#[test]
fn a_body_must_be_as_long_as_it_says() {
    let mut session = session();
    let flags = flag::END_HEADERS | flag::END_STREAM;
    let promised = head("POST", "/a", &[("content-length", "3")]);
    session.check(
        &frame(kind::HEADERS, flags, 1, &promised),
        "RST 1 ProtocolError",
    );
    session.send(&headers(3, &promised));
    session.check(&data_end(3, b"abcd"), "RST 3 ProtocolError");
    session.send(&headers(5, &promised));
    session.check(&data_end(5, b"abc"), &answered(5, "POST /a abc"));
}
