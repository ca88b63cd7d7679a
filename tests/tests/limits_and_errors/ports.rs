//! Wrong bytes on the client port: the connection ends or is told so, everybody else is served on.

use std::io::Write;
use std::time::{Duration, Instant};

use pilaster_tests::random::Random;
use pilaster_tests::{Client, Kind, Options, Server, plain, raw, tls};
use serde_json::Value;

/// The start of a TLS handshake, as far as any server must read to know it is one.
const CLIENT_HELLO: &[u8] = b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03\x16\x03\x01";
/// Pilaster's counter of closed connections, and how late it may be.
const CLOSED: &str = "pilaster_connections_closed_total{";
const COUNTED_MAX: Duration = Duration::from_secs(10);
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

#[test]
fn garbage_hurts_nobody_else() {
    let server = Server::start(Options::new(Kind::subject()));
    raw::block_on(async {
        let mut bystander = Client::connect(&server).await;
        bystander
            .put(&raw::put("before", "x"))
            .await
            .expect("a put");
        let mut random = Random::new(11);
        let mut cases: Vec<(String, Vec<u8>)> = (0..20)
            .map(|number| {
                let size = 30 + random.below(400);
                // Not beginning like a method, so that no server waits for the end of a header.
                let mut bytes: Vec<u8> = (0..size).map(|_| random.word() as u8).collect();
                bytes.splice(0..0, *b"\x01\x02\x03 \r\n\r\n");
                (format!("random bytes {number}"), bytes)
            })
            .collect();
        cases.push(("a TLS handshake".into(), CLIENT_HELLO.to_vec()));
        cases.push((
            "a preface and garbage".into(),
            [PREFACE, &[0xff; 64]].concat(),
        ));
        // A frame larger than any server of ours or theirs agreed to.
        let frame = b"\xff\xff\xff\x00\x00\x00\x00\x00\x01";
        cases.push((
            "a preface and a huge frame".into(),
            [PREFACE, frame].concat(),
        ));
        cases.push(("a broken request line".into(), b"GET\r\n\r\n".to_vec()));
        for (what, bytes) in &cases {
            let mut stream = plain::connect(&server);
            // The server may close before all is sent.
            let _ = stream.write_all(bytes);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            drop(stream);
            let answer = bystander.range(&raw::get("before")).await;
            assert_eq!(answer.expect("served on").count, 1, "after {what}");
        }
        println!("{} kinds of garbage, one undisturbed client", cases.len());
    });
}

#[test]
fn tls_on_a_plain_port_and_plain_on_a_tls_port_are_closed() {
    let files = tls::TlsFiles::create();
    let open = Server::start(Options::new(Kind::subject()));
    let answer = plain::send_bytes(&open, CLIENT_HELLO);
    assert!(answer.len() < 1000, "closed or refused: {answer:?}");
    let secured = Server::start(Options::new(Kind::subject()).tls(files.clone()));
    for bytes in [PREFACE, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"] {
        let answer = plain::send_bytes(&secured, bytes);
        let text = String::from_utf8_lossy(&answer).into_owned();
        assert!(
            !text.contains("200 OK") && answer.len() < 1000,
            "closed or refused: {text}"
        );
    }
    raw::block_on(async {
        let url = secured.url().replace("https", "http");
        let served = match Client::connect_to(&url, None).await {
            Ok(mut client) => client.status().await.is_ok(),
            Err(_) => false,
        };
        assert!(!served, "a plain client on a TLS port");
        for server in [&open, &secured] {
            Client::connect(server)
                .await
                .status()
                .await
                .expect("served on");
        }
    });
    if open.kind().is_pilaster() {
        await_counted(&open, "tls_on_plain_port");
        await_counted(&secured, "not_tls");
    }
    println!("TLS on a plain port, plain on a TLS port: closed, and served on");
}

/// A flood of failed handshakes is counted, and leaves a few lines that tell of the others.
#[test]
fn refused_handshakes_do_not_flood_the_log() {
    if !Kind::subject().is_pilaster() {
        println!("left out: a real etcd logs each of them");
        return;
    }
    const FLOOD: usize = 500;
    let mut server = Server::start(Options::new(Kind::subject()).tls(tls::TlsFiles::create()));
    for _ in 0..FLOOD {
        plain::send_bytes(&server, PREFACE);
    }
    // Left without a word: not worth a line.
    drop(plain::connect(&server));
    await_counted(&server, "not_tls");
    let rejected = |line: &&String| line.contains("rejected connection on client endpoint");
    let lines = server.log().iter().filter(rejected).count();
    assert!(0 < lines && lines < FLOOD / 2, "{lines} lines");
    // With the next that is logged comes the number of those that were not.
    let mut seen = false;
    for _ in 0..100_000 {
        plain::send_bytes(&server, PREFACE);
        seen = server
            .log()
            .iter()
            .any(|line| line.contains("\"suppressed\":"));
        if seen {
            break;
        }
    }
    assert!(seen, "nobody is told how many were left out");
    println!("{lines} lines for {FLOOD} refused handshakes");
}

/// Waits until the metrics page names `reason` for a connection that was closed.
fn await_counted(server: &Server, reason: &str) {
    let wanted = format!("reason=\"{reason}\"");
    let until = Instant::now() + COUNTED_MAX;
    loop {
        let page = plain::get(server, "/metrics").body;
        let mut lines = page.lines();
        if lines.any(|line| line.starts_with(CLOSED) && line.contains(&wanted)) {
            return;
        }
        assert!(Instant::now() < until, "{reason} is not counted");
    }
}

/// With `--client-cert-auth` a client without a certificate gets nothing.
#[test]
fn a_client_without_a_certificate_is_refused() {
    let files = tls::TlsFiles::create();
    let strangers = tls::TlsFiles::create();
    let mut server = Server::start(Options::new(Kind::subject()).tls(files.clone()));
    raw::block_on(async {
        // A certificate of an authority the server does not know, checked against the server's own.
        let served =
            match Client::connect_to(&server.url(), Some(&strangers.trusting(&files))).await {
                Ok(mut client) => client.status().await.is_ok(),
                Err(_) => false,
            };
        assert!(!served, "a stranger's certificate was accepted");
        Client::connect(&server)
            .await
            .status()
            .await
            .expect("ours is accepted");
    });
    let refused = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap_or_default();
        let has =
            |name: &str, wanted: &dyn Fn(&str) -> bool| line[name].as_str().is_some_and(wanted);
        has("msg", &|text| {
            text == "rejected connection on client endpoint"
        }) && has("level", &|text| text == "warn")
            && has("remote-addr", &|text| text.starts_with("127.0.0.1:"))
            && has("server-name", &|text| text == "localhost")
            && has("error", &|text| !text.is_empty())
    };
    assert!(server.await_log(refused), "the refusal is not in the log");
    println!("a stranger's certificate is refused and logged, ours accepted");
}
