//! The addresses that plain HTTP may have: for itself, for metrics, and behind a path of the file system.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;

use pilaster_tests::{Client, Kind, Options, Server, plain, raw};

/// A port that nobody has at the moment.
fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("bound").port()
}

/// One request over any stream, whole.
fn ask(mut stream: impl Read + Write, method: &str, path: &str, body: &str) -> (u16, String) {
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut reply = Vec::new();
    // A server that wants no HTTP closes.
    if stream.write_all(request.as_bytes()).is_err() || stream.read_to_end(&mut reply).is_err() {
        return (0, String::new());
    }
    let reply = String::from_utf8_lossy(&reply).into_owned();
    let status = reply.split(' ').nth(1).and_then(|word| word.parse().ok());
    let body = reply
        .split_once("\r\n\r\n")
        .map(|(_, body)| body.to_owned());
    (status.unwrap_or(0), body.unwrap_or_default())
}

fn tcp(port: u16) -> std::net::TcpStream {
    std::net::TcpStream::connect(("127.0.0.1", port)).expect("the server listens")
}

#[test]
fn metrics_have_an_address_of_their_own() {
    let port = free_port();
    let flag = format!("--listen-metrics-urls=http://127.0.0.1:{port}");
    let server = Server::start(Options::new(Kind::subject()).flag(flag));
    for path in [
        "/metrics",
        "/health",
        "/livez",
        "/readyz",
        "/readyz/serializable_read",
    ] {
        let (status, body) = ask(tcp(port), "GET", path, "");
        assert_eq!((status, body.is_empty()), (200, false), "{path}");
        assert_eq!(plain::get(&server, path).status, 200, "{path}");
    }
    for path in ["/version", "/v3/kv/range", "/debug/vars", "/"] {
        assert_eq!(ask(tcp(port), "GET", path, "").0, 404, "{path}");
    }
}

#[test]
fn http_and_grpc_can_be_apart() {
    let port = free_port();
    let flag = format!("--listen-client-http-urls=http://127.0.0.1:{port}");
    let server = Server::start(Options::new(Kind::subject()).flag(flag));
    let (status, body) = ask(tcp(port), "POST", "/v3/kv/range", r#"{"key":"YQ=="}"#);
    assert_eq!(status, 200, "{body}");
    assert_eq!(ask(tcp(port), "GET", "/version", "").0, 200);
    let grpc_port = server
        .address()
        .rsplit_once(':')
        .and_then(|(_, port)| port.parse().ok());
    assert_eq!(
        ask(tcp(grpc_port.expect("a port")), "GET", "/version", "").0,
        0,
        "no HTTP there"
    );
    raw::block_on(async {
        let mut client = Client::connect(&server).await;
        client
            .put(&raw::put("a", "b"))
            .await
            .expect("gRPC is there");
    });
}

#[test]
fn one_address_cannot_be_both() {
    let port = free_port();
    let refused = Server::try_start(
        Options::new(Kind::subject())
            .flag(format!("--listen-client-urls=http://127.0.0.1:{port}"))
            .flag(format!("--listen-client-http-urls=http://127.0.0.1:{port}")),
    );
    let text = refused.expect_err("refused").text();
    let wanted =
        "cannot bind both --listen-client-urls and --listen-client-http-urls on the same url";
    assert!(text.contains(wanted), "{text}");
}

#[test]
fn a_path_of_the_file_system_serves_clients() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let path = folder.path().join("client.sock");
    let flag = format!("--listen-client-http-urls=unix:{}", path.display());
    let mut server = Server::start(Options::new(Kind::subject()).flag(&flag));
    let connect = || UnixStream::connect(&path).expect("the server listens");
    let (status, body) = ask(
        connect(),
        "POST",
        "/v3/kv/put",
        r#"{"key":"YQ==","value":"Yg=="}"#,
    );
    assert_eq!(status, 200, "{body}");
    let (status, body) = ask(connect(), "POST", "/v3/kv/range", r#"{"key":"YQ=="}"#);
    assert_eq!(status, 200);
    assert!(body.contains(r#""value":"Yg==""#), "{body}");
    // A killed member leaves its socket behind; the next one takes the path over.
    server.kill9();
    assert!(path.exists());
    server.launch();
    assert_eq!(ask(connect(), "GET", "/health", "").0, 200);
    let (status, log) = server.terminate();
    assert!(status.success(), "{log:?}");
    assert!(!path.exists(), "a member that stops takes its socket along");
}

#[test]
fn a_certificate_is_made_where_none_is_given() {
    let port = free_port();
    let server = Server::start(
        Options::new(Kind::subject())
            .flag(format!("--listen-metrics-urls=https://127.0.0.1:{port}"))
            .flag("--auto-tls"),
    );
    let folder = server.data_dir().join("fixtures/client");
    for name in ["cert.pem", "key.pem"] {
        assert!(folder.join(name).is_file(), "{name}");
    }
    assert_eq!(plain::get(&server, "/health").status, 200);
    assert_ne!(
        ask(tcp(port), "GET", "/health", "").0,
        200,
        "that address speaks TLS"
    );
}
