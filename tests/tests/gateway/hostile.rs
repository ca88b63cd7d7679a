//! Garbage: bodies that are no JSON, JSON that is no request, requests that end in the middle. The server answers or closes,
//! goes on serving, and takes no more memory than before.

use std::io::{Read, Write};

use pilaster_tests::random::Random;
use pilaster_tests::{Server, plain};

use super::start;

const PATHS: &[&str] = &[
    "/v3/kv/range",
    "/v3/kv/put",
    "/v3/kv/txn",
    "/v3/lease/grant",
    "/v3/watch",
    "/v3/lease/keepalive",
    "/v3/cluster/member/add",
    "/v3/maintenance/status",
    "/v3/auth/user/add",
    "/v3/election/observe",
];

/// What bodies are glued together from.
const PIECES: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "\"",
    "\\",
    "\\u",
    "\\ud800",
    "null",
    "true",
    "1e9",
    "-",
    "0",
    "\"key\"",
    "\"YQ==\"",
    "\"compare\"",
    "\"success\"",
    "\"request_txn\"",
    "\"create_request\"",
    "\"ID\"",
    "\u{0}",
    "\u{ff}",
    " ",
    "\n",
    "{\"key\":\"YQ==\"}",
    "\"limit\":",
    "99999999999999999999",
    "1e99999",
    "\"a\":{\"a\":[",
];

fn garbage(random: &mut Random) -> Vec<u8> {
    let mut body = Vec::new();
    for _ in 0..random.below(60) {
        if random.chance(1, 10) {
            body.push(random.below(256) as u8);
        } else {
            body.extend_from_slice(random.pick(PIECES).as_bytes());
        }
    }
    body
}

fn resident_kib(server: &Server) -> u64 {
    let status = format!("/proc/{}/status", server.pid());
    let status = std::fs::read_to_string(status).expect("a running server");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let word = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    word.expect("its memory in KiB")
}

/// Sends a request and reads for as long as the server answers at once; streams are left in the middle.
fn throw(server: &Server, random: &mut Random) {
    let body = garbage(random);
    let path = random.pick(PATHS);
    let mut stream = plain::connect(server);
    let claimed = match random.below(10) {
        0 => body.len() as u64 + random.below(1 << 20),
        1 => random.below(body.len() as u64 + 1),
        _ => body.len() as u64,
    };
    let head = match random.chance(1, 5) {
        true => format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n",
            body.len()
        ),
        false => format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {claimed}\r\n\r\n"),
    };
    // The server may close in the middle.
    let _ = stream.write_all(head.as_bytes());
    let _ = stream.write_all(&body);
    if random.chance(1, 2) {
        let _ = stream.shutdown(std::net::Shutdown::Write);
    }
    if claimed == body.len() as u64
        && !path.contains("watch")
        && !path.contains("observe")
        && !head.contains("chunked")
    {
        let mut first = [0; 12];
        if stream.read_exact(&mut first).is_ok() {
            assert!(first.starts_with(b"HTTP/1.1 "), "{first:?}");
        }
    }
}

#[test]
fn garbage_neither_stops_nor_feeds_the_server() {
    let server = start();
    let seed = std::env::var("PILASTER_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or(1);
    println!("seed {seed}");
    let mut random = Random::new(seed);
    let alive = || {
        let put = plain::post(&server, "/v3/kv/put", r#"{"key":"YQ==","value":"MQ=="}"#);
        assert_eq!(put.status, 200, "{}", put.body);
    };
    let mut round = |requests: u32| {
        for _ in 0..requests {
            throw(&server, &mut random);
        }
        alive();
        resident_kib(&server)
    };
    round(1000);
    let before = round(1000);
    let after = round(2000);
    println!("memory: {before} KiB, then {after} KiB");
    assert!(
        after < before + (64 << 10),
        "memory grows with garbage: {before} KiB, {after} KiB"
    );
}

#[test]
fn a_reader_that_stops_costs_a_bounded_part() {
    let server = start();
    let value = "QUFB".repeat(1 << 16);
    for key in ["YQ==", "Yg==", "Yw==", "ZA=="] {
        let put = format!(r#"{{"key":"{key}","value":"{value}"}}"#);
        assert_eq!(plain::post(&server, "/v3/kv/put", &put).status, 200);
    }
    let body = r#"{"create_request":{"key":"AA==","range_end":"AA==","start_revision":"1"}}"#;
    let request = format!(
        "POST /v3/watch HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let idle: Vec<_> = (0..50)
        .map(|_| {
            let mut stream = plain::connect(&server);
            stream
                .write_all(request.as_bytes())
                .expect("the server reads");
            stream
        })
        .collect();
    // More than a socket takes; their watchers read it when they are asked for it, and not before.
    for _ in 0..40 {
        let put = format!(r#"{{"key":"YQ==","value":"{value}"}}"#);
        assert_eq!(plain::post(&server, "/v3/kv/put", &put).status, 200);
    }
    let kib = resident_kib(&server);
    println!("{} readers, {kib} KiB", idle.len());
    // All of it for each would be 50 times 11 MiB as JSON.
    assert!(kib < 400 << 10, "{kib} KiB");
}
