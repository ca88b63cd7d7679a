//! Clients that ask for much and take nothing: what they cost is bounded for all of them together.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use pilaster_tests::{Client, Kind, Options, Server, plain, raw};

const BOUND: usize = 32 << 20;
const KEYS: usize = 100;
const VALUE_BYTES: usize = 100_000;
/// What one range of everything is, about.
const ANSWER_BYTES: usize = KEYS * VALUE_BYTES;
const SLOW: usize = 30;
/// Counts are published once a second; how late they may be.
const COUNTED_MAX: Duration = Duration::from_secs(10);

/// Windows that stay shut: answers wait inside the server, and the calls that hold most end.
#[test]
fn answers_that_wait_for_windows_are_bounded() {
    let Some(mut server) = full_server() else {
        return;
    };
    raw::block_on(async {
        let mut slow = Vec::new();
        for _ in 0..SLOW {
            let mut client = Client::connect(&server).await;
            // The headers have come; of the rest only what the first window lets through.
            slow.push(client.range_unread(&raw::get_all()).await);
        }
        is_served(&server).await;
        assert!(
            server.await_log(|line| line.contains("do not take their answers")),
            "not told"
        );
        let (mut whole, mut cut_off) = (0, 0);
        for stream in slow {
            match stream.finish().await {
                Ok(bytes) => {
                    assert!(ANSWER_BYTES < bytes, "{bytes} bytes");
                    whole += 1;
                }
                Err(failure) => {
                    // A part of each answer has left, so calls end by a reset: ENHANCE_YOUR_CALM, which gRPC takes for
                    // RESOURCE_EXHAUSTED; this client's library tells no more than that the body broke off.
                    let is_reset = failure.text.contains("reading a body");
                    assert!(failure.code == 8 || is_reset, "{failure:?}");
                    cut_off += 1;
                }
            }
        }
        // As many as fit are held on; the rest were cut off.
        assert!(0 < whole && 0 < cut_off, "{whole} whole, {cut_off} cut off");
        assert!(whole <= BOUND / ANSWER_BYTES + 1, "{whole} were held");
        println!("{whole} answers held for slow clients, {cut_off} calls ended");
    });
    await_metric(&server, "pilaster_answers_given_up_total", |calls| {
        0.0 < calls
    });
}

/// Sockets that take nothing: what was made for them can not be taken back, so the connection ends.
#[test]
fn answers_that_wait_for_sockets_are_bounded() {
    let Some(mut server) = full_server() else {
        return;
    };
    let mut slow: Vec<TcpStream> = (0..SLOW).map(|_| plain::connect(&server)).collect();
    for stream in &mut slow {
        stream
            .write_all(&range_of_everything())
            .expect("a few bytes");
        // An answer is sent when it is whole: with its first bytes all of it lies before this socket.
        await_answer(stream);
    }
    assert!(
        server.await_log(|line| line.contains("do not take their answers")),
        "not told"
    );
    raw::block_on(is_served(&server));
    let closed = "pilaster_connections_closed_total{core=\"0\",reason=\"slow_reader\"}";
    await_metric(&server, closed, |count| 0.0 < count);
    let bound = (BOUND + ANSWER_BYTES) as f64;
    let held = await_metric(&server, "pilaster_answer_bytes", |bytes| bytes <= bound);
    println!("{held} bytes held for {SLOW} clients that read nothing");
}

fn full_server() -> Option<Server> {
    if !Kind::subject().is_pilaster() {
        println!("left out: a real etcd holds answers without bound");
        return None;
    }
    let options = Options::new(Kind::subject())
        .core(0)
        .flag(format!("--unsent-answer-bytes={BOUND}"));
    let server = Server::start(options);
    raw::block_on(async {
        let mut client = Client::connect(&server).await;
        for number in 0..KEYS {
            let put = raw::put(format!("key {number:03}"), vec![b'x'; VALUE_BYTES]);
            client.put(&put).await.expect("a put");
        }
    });
    Some(server)
}

/// A client that takes its answers has them, small and large.
async fn is_served(server: &Server) {
    let mut client = Client::connect(server).await;
    client.put(&raw::put("a", "b")).await.expect("a put");
    let all = client.range(&raw::get_all()).await.expect("a range");
    assert_eq!(all.kvs.len(), KEYS + 1);
}

/// A connection's first bytes: windows as large as they can be, and one range of everything.
fn range_of_everything() -> Vec<u8> {
    const MOST: [u8; 4] = 0x7fff_0000_u32.to_be_bytes();
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    let mut frame = |kind: u8, flags: u8, stream: u8, payload: &[u8]| {
        bytes.extend_from_slice(&[0, 0, payload.len() as u8, kind, flags, 0, 0, 0, stream]);
        bytes.extend_from_slice(payload);
    };
    // SETTINGS_INITIAL_WINDOW_SIZE, and WINDOW_UPDATE for the connection.
    frame(4, 0, 0, &[&[0, 4][..], &MOST].concat());
    frame(8, 0, 0, &MOST);
    let mut block = Vec::new();
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/etcdserverpb.KV/Range"),
        (":authority", "x"),
        ("content-type", "application/grpc"),
    ] {
        block.extend_from_slice(&[0, name.len() as u8]);
        block.extend_from_slice(name.as_bytes());
        block.push(value.len() as u8);
        block.extend_from_slice(value.as_bytes());
    }
    frame(1, 4, 1, &block);
    // Key and range end of one zero byte each.
    frame(0, 1, 1, &[0, 0, 0, 0, 6, 0x0a, 1, 0, 0x12, 1, 0]);
    bytes
}

/// Reads the beginning of an answer, or its status, or the end: who holds most is cut off.
fn await_answer(stream: &mut TcpStream) {
    let mut seen = Vec::new();
    let mut chunk = [0; 100];
    while let Ok(count @ 1..) = stream.read(&mut chunk) {
        seen.extend_from_slice(&chunk[..count]);
        let mut rest = &seen[..];
        while let [a, b, c, kind, flags, _, _, _, _, frame @ ..] = rest {
            let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
            // DATA, or a header block that ends the stream.
            if *kind == 0 || (*kind == 1 && flags & 1 == 1) {
                return;
            }
            rest = frame.get(length..).unwrap_or_default();
        }
    }
}

/// Waits until the sum of a family's samples, those whose name begins so, is as wanted, and returns it.
fn await_metric(server: &Server, name: &str, wanted: impl Fn(f64) -> bool) -> f64 {
    let until = Instant::now() + COUNTED_MAX;
    loop {
        let page = plain::get(server, "/metrics").body;
        let sum: f64 = page
            .lines()
            .filter(|line| line.starts_with(name))
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
            .sum();
        if wanted(sum) {
            return sum;
        }
        assert!(Instant::now() < until, "{name} is {sum}");
    }
}
