//! An independent client, the `h2` crate, over an in-memory pipe: calls of every kind and size,
//! small windows, small frames, resets, a graceful end.
//!
//! One thread, no clock: the pipe's size and a seeded generator decide the interleaving.

mod h2_support;

use std::future::poll_fn;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use h2_support::*;
use http::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use wire::grpc::{Connection, Limits, Stats};

/// Counters and log of a server that has ended.
type End = Arc<Mutex<Option<(Stats, Vec<String>)>>>;

/// Drives a connection until the client is gone or it is finished; leaves its counters and its
/// service's log.
async fn serve(mut pipe: DuplexStream, limits: Limits, end: End, calls_max: u64) {
    let mut connection = Connection::new(Arc::new(limits), 0);
    let mut service = TestService::default();
    let (mut spare, mut input) = (Vec::new(), vec![0; 3000]);
    let mut now_ns = 0;
    loop {
        while connection.has_output() {
            spare = connection.take_output(spare);
            if pipe.write_all(&spare).await.is_err() {
                break;
            }
        }
        if connection.is_finished() {
            break;
        }
        let Ok(length @ 1..) = pipe.read(&mut input).await else {
            break;
        };
        now_ns += 1000;
        connection
            .receive(&input[..length], now_ns, &mut service)
            .expect("a correct client");
        if connection.stats().calls_started == calls_max {
            connection.shutdown();
        }
    }
    connection.on_closed(&mut service);
    *end.lock().expect("one thread") = Some((connection.take_stats(), service.log));
}

/// A small generator; the same seed gives the same calls.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

async fn send_all(
    stream: &mut h2::SendStream<Bytes>,
    mut bytes: Bytes,
    end: bool,
) -> Result<(), h2::Error> {
    while !bytes.is_empty() {
        stream.reserve_capacity(bytes.len());
        let Some(capacity) = poll_fn(|context| stream.poll_capacity(context)).await else {
            return Ok(());
        };
        let piece = bytes.split_to(capacity?.min(bytes.len()));
        stream.send_data(piece, false)?;
    }
    if end {
        stream.send_data(Bytes::new(), true)
    } else {
        Ok(())
    }
}

/// One call: sends the messages, returns the bytes and the status that came back.
async fn call(
    mut client: SendRequest<Bytes>,
    path: &'static str,
    messages: Vec<Bytes>,
) -> Result<(Vec<u8>, String), h2::Error> {
    client = client.ready().await?;
    let request = Request::post(format!("http://localhost{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("token", "some-token")
        .body(())
        .expect("a valid request");
    let (response, mut stream) = client.send_request(request, false)?;
    let sender = async move {
        let last = messages.len().saturating_sub(1);
        if messages.is_empty() {
            stream.send_data(Bytes::new(), true)?;
        }
        for (index, bytes) in messages.into_iter().enumerate() {
            send_all(&mut stream, Bytes::from(message(&bytes)), index == last).await?;
        }
        Ok::<(), h2::Error>(())
    };
    let receiver = async move {
        let response = response.await?;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "application/grpc");
        let early = response.headers().get("grpc-status").cloned();
        let mut body = response.into_body();
        let mut received = Vec::new();
        while let Some(piece) = body.data().await {
            let piece = piece?;
            received.extend_from_slice(&piece);
            body.flow_control().release_capacity(piece.len())?;
        }
        let trailers = body.trailers().await?;
        let status = early
            .or_else(|| trailers?.get("grpc-status").cloned())
            .expect("a status");
        Ok::<_, h2::Error>((received, status.to_str().expect("text").to_owned()))
    };
    let sending = tokio::spawn(sender);
    let received = receiver.await;
    sending.await.expect("no panic").ok();
    received
}

/// What the call must return.
fn expected(path: &str, messages: &[Bytes]) -> Vec<u8> {
    let framed: Vec<u8> = messages.iter().flat_map(|bytes| message(bytes)).collect();
    match path {
        "/t.T/Many" => framed.repeat(3),
        "/t.T/Sum" => message(&(messages.len() as u32).to_be_bytes()),
        _ => framed,
    }
}

fn with_client(
    builder: Builder,
    limits: Limits,
    pipe_bytes: usize,
    calls_max: u64,
    test: impl AsyncFnOnce(SendRequest<Bytes>),
) -> (Stats, Vec<String>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let end = Arc::new(Mutex::new(None));
    runtime.block_on(async {
        let (ours, theirs) = tokio::io::duplex(pipe_bytes);
        let server = tokio::spawn(serve(ours, limits, end.clone(), calls_max));
        let (client, connection) = builder
            .handshake::<_, Bytes>(theirs)
            .await
            .expect("handshake");
        let connection = tokio::spawn(connection);
        test(client).await;
        // The last handle is gone, so the client ends the connection.
        connection.await.expect("no panic").expect("a clean end");
        server.await.expect("no panic");
    });
    let end = end.lock().expect("one thread").take();
    end.expect("the server has ended")
}

async fn many_calls(client: SendRequest<Bytes>, seed: u64, count: u64, size_max: u64) {
    let mut random = Random(seed);
    let mut running = Vec::new();
    for _ in 0..count {
        let path = ["/t.T/Echo", "/t.T/Chat", "/t.T/Many", "/t.T/Sum"][random.below(4) as usize];
        let number = match path {
            "/t.T/Chat" | "/t.T/Sum" => random.below(5),
            _ => 1,
        };
        let messages: Vec<Bytes> = (0..number)
            .map(|_| {
                let size = 1 + random.below(size_max);
                let size = random.below(size) as usize;
                Bytes::from(vec![random.below(256) as u8; size])
            })
            .collect();
        let client = client.clone();
        running.push(tokio::spawn(async move {
            let (bytes, status) = call(client, path, messages.clone())
                .await
                .expect("an answer");
            assert_eq!(status, "0");
            assert!(
                bytes == expected(path, &messages),
                "{path} of {} messages",
                messages.len()
            );
        }));
        if random.below(3) == 0 {
            while running.len() > 20 {
                running.remove(0).await.expect("no panic");
            }
        }
    }
    for call in running {
        call.await.expect("no panic");
    }
}

#[test]
fn calls_of_every_kind_and_size() {
    let (stats, _) = with_client(
        Builder::new(),
        Limits::default(),
        10_000,
        u64::MAX,
        async |client| {
            many_calls(client, 1, 300, 100_000).await;
        },
    );
    assert_eq!(stats.calls_finished[0], 300);
    assert!(stats.header_cache_hits > 200, "{}", stats.header_cache_hits);
}

#[test]
fn small_windows_on_both_sides() {
    let mut builder = Builder::new();
    builder
        .initial_window_size(100)
        .initial_connection_window_size(70_000)
        .header_table_size(0);
    let limits = Limits {
        stream_window_bytes: 500,
        connection_window_bytes: 70_000,
        ..Limits::default()
    };
    let (stats, _) = with_client(builder, limits, 777, u64::MAX, async |client| {
        many_calls(client, 2, 60, 20_000).await;
    });
    assert_eq!(stats.calls_finished[0], 60);
    assert!(stats.answers_parked > 0);
}

#[test]
fn a_small_output_bound() {
    let mut builder = Builder::new();
    builder
        .initial_window_size(1 << 20)
        .initial_connection_window_size(1 << 24);
    let limits = Limits {
        output_bytes_max: 2000,
        concurrent_streams_max: 10,
        ..Limits::default()
    };
    let (stats, _) = with_client(builder, limits, 1000, u64::MAX, async |client| {
        many_calls(client, 3, 100, 50_000).await;
    });
    assert_eq!(stats.calls_finished[0], 100);
}

#[test]
fn resets_in_the_middle_of_everything() {
    let (stats, log) = with_client(
        Builder::new(),
        Limits::default(),
        5000,
        u64::MAX,
        async |client| {
            let mut random = Random(4);
            for round in 0..100 {
                let mut ready = client.clone().ready().await.expect("ready");
                let path = ["/t.T/Chat", "/t.T/Hold", "/t.T/Echo"][round % 3];
                let request = Request::post(format!("http://localhost{path}"))
                    .header("content-type", "application/grpc")
                    .body(())
                    .expect("a valid request");
                let (response, mut stream) = ready.send_request(request, false).expect("sent");
                let framed = Bytes::from(message(&vec![b'r'; random.below(30_000) as usize]));
                send_all(&mut stream, framed, round % 2 == 0)
                    .await
                    .expect("sent");
                if path == "/t.T/Chat" {
                    // Until the first bytes are back, so that the service surely knows the call.
                    response
                        .await
                        .expect("headers")
                        .into_body()
                        .data()
                        .await
                        .expect("data")
                        .expect("data");
                }
                stream.send_reset(h2::Reason::CANCEL);
                let echo = Bytes::from_static(b"still alive");
                let (bytes, status) = call(client.clone(), "/t.T/Echo", vec![echo.clone()])
                    .await
                    .expect("an answer");
                assert_eq!((bytes, status.as_str()), (message(&echo), "0"));
            }
        },
    );
    assert!(stats.resets_received > 30, "{}", stats.resets_received);
    assert!(
        log.iter()
            .any(|line| line.starts_with("cancel") && line.ends_with("Reset")),
        "{log:?}"
    );
}

#[test]
fn errors_reach_the_client() {
    with_client(
        Builder::new(),
        Limits::default(),
        5000,
        u64::MAX,
        async |client| {
            for (path, status) in [
                ("/t.T/Fail", "5"),
                ("/t.T/None", "12"),
                ("/no.Such/Thing", "12"),
            ] {
                let one = vec![Bytes::from_static(b"x")];
                let answered = call(client.clone(), path, one).await.expect("an answer");
                assert_eq!(answered, (Vec::new(), status.to_owned()));
            }
            let answered = call(client, "/t.T/Echo", Vec::new())
                .await
                .expect("an answer");
            assert_eq!(answered.1, "2");
        },
    );
}

#[test]
fn a_graceful_end_loses_no_call() {
    let (stats, _) = with_client(
        Builder::new(),
        Limits::default(),
        3000,
        50,
        async |client| {
            let calls: Vec<_> = (0..100)
                .map(|_| {
                    let client = client.clone();
                    tokio::spawn(async move {
                        let one = vec![Bytes::from_static(b"payload")];
                        call(client, "/t.T/Echo", one).await
                    })
                })
                .collect();
            drop(client);
            let (mut answered, mut refused) = (0, 0);
            for call in calls {
                match call.await.expect("no panic") {
                    Ok((bytes, status)) => {
                        assert_eq!((bytes, status.as_str()), (message(b"payload"), "0"));
                        answered += 1;
                    }
                    Err(error) => {
                        assert!(
                            error.is_go_away() || error.is_io() || error.is_library(),
                            "{error}"
                        );
                        refused += 1;
                    }
                }
            }
            assert!(answered >= 50, "{answered} answered, {refused} refused");
        },
    );
    assert!(stats.calls_finished[0] >= 50);
    assert_eq!(stats.calls_started, stats.calls_finished[0]);
}
