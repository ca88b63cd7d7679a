//! Who may ask over plain HTTP: hosts, origins, and a gateway that is switched off.

use pilaster_tests::{Kind, Options, Server, plain, tls};

use super::shown;

fn pair(flags: &[&str]) -> [Server; 2] {
    [Kind::Etcd371, Kind::subject()].map(|kind| {
        let options = Options::new(kind);
        Server::start(
            flags
                .iter()
                .fold(options, |options, flag| options.flag(*flag)),
        )
    })
}

fn same(
    servers: &[Server; 2],
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> u16 {
    let [right, ours] = servers;
    let ask = |server| shown(&plain::ask(server, method, path, headers, body.as_bytes()));
    let ours = ask(ours);
    assert_eq!(ours, ask(right), "{method} {path} {headers:?}");
    ours.0
}

#[test]
fn hosts_that_are_not_listed_are_refused() {
    let servers = pair(&["--host-whitelist=good.example,127.0.0.1"]);
    for (host, status) in [
        ("good.example", 200),
        ("good.example:99", 200),
        ("127.0.0.1:1", 200),
        ("evil.example", 421),
        ("[::1]:80", 421),
        ("", 421),
    ] {
        let body = r#"{"key":"YQ=="}"#;
        for path in ["/v3/kv/range", "/v3beta/kv/range"] {
            assert_eq!(
                same(&servers, "POST", path, &[("Host", host)], body),
                status,
                "{host}"
            );
        }
        let headers = [("Host", host)];
        assert_eq!(
            same(&servers, "GET", "/health", &headers, ""),
            status,
            "{host}"
        );
        assert_eq!(
            same(&servers, "OPTIONS", "/x", &headers, ""),
            status,
            "{host}"
        );
    }
}

#[test]
fn a_host_is_not_asked_for_over_tls() {
    let flag = "--host-whitelist=good.example";
    let options = Options::new(Kind::subject())
        .tls(tls::TlsFiles::create())
        .flag(flag);
    let server = Server::start(options);
    let reply = plain::ask(&server, "GET", "/health", &[("Host", "evil.example")], b"");
    assert_eq!(reply.status, 200);
}

#[test]
fn origins_are_told_by_name() {
    let servers = pair(&["--cors=http://a.example:80,http://b.example:80"]);
    for origin in [
        None,
        Some("http://a.example:80"),
        Some("http://c.example:80"),
    ] {
        let headers: Vec<_> = origin
            .map(|origin| ("Origin", origin))
            .into_iter()
            .collect();
        same(&servers, "GET", "/health", &headers, "");
        same(&servers, "OPTIONS", "/v3/kv/put", &headers, "");
        same(
            &servers,
            "POST",
            "/v3/kv/range",
            &headers,
            r#"{"key":"YQ=="}"#,
        );
    }
}

#[test]
fn without_the_gateway_its_paths_are_not_there() {
    let servers = pair(&["--enable-grpc-gateway=false"]);
    for path in ["/v3/kv/range", "/v3/", "/v3beta/kv/range", "/v3/watch"] {
        assert_eq!(same(&servers, "POST", path, &[], "{}"), 404);
    }
    assert_eq!(same(&servers, "GET", "/health", &[], ""), 200);
}
