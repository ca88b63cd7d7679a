//! Golden requests through a whole session: bytes in, bytes out, whole and split.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use super::*;
use crate::http1::{Handler, Http1Session, ReplyBody, RequestBody, Versions};

/// A member whose answers the test chooses.
struct Fake {
    alarms: RefCell<Vec<AlarmKind>>,
    has_leader: Cell<bool>,
    is_learner: Cell<bool>,
    /// What reads answer; `None` never answers.
    serializable: RefCell<Option<Result<(), String>>>,
    linearizable: RefCell<Option<Result<(), String>>>,
    health: RefCell<Vec<bool>>,
    checks: RefCell<Vec<(&'static str, &'static str, bool)>>,
}

impl Fake {
    fn new() -> Rc<Fake> {
        Rc::new(Fake {
            alarms: RefCell::default(),
            has_leader: Cell::new(true),
            is_learner: Cell::new(false),
            serializable: RefCell::new(Some(Ok(()))),
            linearizable: RefCell::new(Some(Ok(()))),
            health: RefCell::default(),
            checks: RefCell::default(),
        })
    }

    async fn result(answer: &RefCell<Option<Result<(), String>>>) -> Result<(), String> {
        std::future::poll_fn(|_| match &*answer.borrow() {
            Some(result) => Poll::Ready(result.clone()),
            None => Poll::Pending,
        })
        .await
    }
}

impl Backend for Fake {
    fn versions(&self) -> Versions {
        Versions {
            server: "3.7.1".to_owned(),
            cluster: Some("3.7.0".to_owned()),
            storage: None,
        }
    }

    fn alarms(&self) -> Vec<AlarmKind> {
        self.alarms.borrow().clone()
    }

    fn has_leader(&self) -> bool {
        self.has_leader.get()
    }

    fn is_learner(&self) -> bool {
        self.is_learner.get()
    }

    async fn serializable_read(&self) -> Result<(), String> {
        Fake::result(&self.serializable).await
    }

    async fn linearizable_read(&self) -> Result<(), String> {
        Fake::result(&self.linearizable).await
    }

    async fn metrics(&self) -> Bytes {
        Bytes::from("# HELP x y\n".repeat(50_000))
    }

    fn variables(&self) -> Bytes {
        Bytes::from_static(b"{}")
    }

    fn on_health(&self, healthy: bool) {
        self.health.borrow_mut().push(healthy);
    }

    fn on_check(&self, family: CheckFamily, check: &'static str, passed: bool) {
        self.checks
            .borrow_mut()
            .push((family.name(), check, passed));
    }
}

impl Handler for Fake {
    async fn handle(self: Rc<Self>, request: Request<()>, _: RequestBody) -> Response<ReplyBody> {
        let reply = match refuse_hostless(&request) {
            Some(reply) => reply,
            None => answer(&*self, &request, false).await,
        };
        reply.map(ReplyBody::whole)
    }
}

struct Woken;

impl Wake for Woken {
    fn wake(self: Arc<Self>) {}
}

fn poll(session: &mut Http1Session<Fake>) -> Poll<Result<(), crate::http1::session::Http1Error>> {
    let waker = Waker::from(Arc::new(Woken));
    session.poll(&mut Context::from_waker(&waker))
}

/// Feeds all pieces, polling after each, and returns everything answered.
fn converse<'a>(fake: &Rc<Fake>, pieces: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut session = Http1Session::new(Rc::clone(fake));
    let mut out = Vec::new();
    for piece in pieces {
        session.feed(piece);
        loop {
            let before = out.len();
            let _ = poll(&mut session);
            session.take_output(&mut out);
            if out.len() == before {
                break;
            }
        }
    }
    String::from_utf8(out).unwrap()
}

/// One reply: status line, headers in lower case and in order of name (without the date), body.
fn request(fake: &Rc<Fake>, line: &str) -> (String, Vec<String>, String) {
    let reply = converse(
        fake,
        [format!("{line} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()],
    );
    let (head, body) = reply
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("{line}: {reply:?}"));
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().to_owned();
    let mut headers: Vec<String> = lines
        .map(str::to_owned)
        .filter(|line| !line.starts_with("Date: ") && !line.starts_with("Access-Control-"))
        .collect();
    headers.sort();
    (status, headers, body.to_owned())
}

#[track_caller]
fn check(fake: &Rc<Fake>, line: &str, status: u16, headers: &[&str], body: &str) {
    let (got_status, got_headers, got_body) = request(fake, line);
    assert!(
        got_status.starts_with(&format!("HTTP/1.1 {status} ")),
        "{line}: {got_status}"
    );
    let length = format!("Content-Length: {}", body.len());
    let mut expected: Vec<&str> = headers.to_vec();
    expected.push(&length);
    expected.sort_unstable();
    assert_eq!(got_headers, expected, "{line}");
    assert_eq!(got_body, body, "{line}");
}

const PLAIN: &str = "Content-Type: text/plain; charset=utf-8";
const NOSNIFF: &str = "X-Content-Type-Options: nosniff";
const ALLOW: &str = "Allow: GET";

#[test]
fn version_and_unknown_paths() {
    let fake = Fake::new();
    check(
        &fake,
        "GET /version",
        200,
        &["Content-Type: application/json"],
        r#"{"etcdserver":"3.7.1","etcdcluster":"3.7.0","storage":"unknown"}"#,
    );
    let denied = |line| {
        check(
            &fake,
            line,
            405,
            &[ALLOW, PLAIN, NOSNIFF],
            "Method Not Allowed\n",
        )
    };
    denied("POST /version");
    denied("PUT /health");
    denied("DELETE /livez");
    denied("POST /readyz/non_learner");
    for path in [
        "/",
        "/nothing",
        "/livez/",
        "/livez/non_learner",
        "/config",
        "/health/",
    ] {
        check(
            &fake,
            &format!("GET {path}"),
            404,
            &[PLAIN, NOSNIFF],
            "404 page not found\n",
        );
    }
}

#[test]
fn health_goes_through_alarms_leader_and_read() {
    let fake = Fake::new();
    let good = || {
        check(
            &fake,
            "GET /health",
            200,
            &[PLAIN],
            r#"{"health":"true","reason":""}"#,
        )
    };
    let bad = |line: &str, reason: &str| {
        let body = format!("{{\"health\":\"false\",\"reason\":\"{reason}\"}}\n");
        check(&fake, line, 503, &[PLAIN, NOSNIFF], &body);
    };
    good();
    *fake.linearizable.borrow_mut() = Some(Err("etcdserver: request timed out <&>".to_owned()));
    let escaped = "RANGE ERROR:etcdserver: request timed out \\u003c\\u0026\\u003e";
    bad("GET /health", escaped);
    check(
        &fake,
        "GET /health?serializable=true",
        200,
        &[PLAIN],
        r#"{"health":"true","reason":""}"#,
    );
    fake.has_leader.set(false);
    bad("GET /health?serializable=1", "RAFT NO LEADER");
    fake.alarms
        .borrow_mut()
        .extend([AlarmKind::NoSpace, AlarmKind::Corrupt]);
    bad("GET /health", "ALARM NOSPACE");
    bad("GET /health?exclude=NOSPACE", "ALARM CORRUPT");
    bad(
        "GET /health?exclude=NO%53PACE&exclude=CORRUPT",
        "RAFT NO LEADER",
    );
    assert_eq!(
        *fake.health.borrow(),
        [true, false, true, false, false, false, false]
    );
}

#[test]
fn livez_and_readyz_list_their_checks() {
    let fake = Fake::new();
    let ok = |line: &str, body: &str| check(&fake, line, 200, &[PLAIN, NOSNIFF], body);
    ok("GET /livez", "ok\n");
    ok("GET /livez?verbose", "[+]serializable_read ok\nok\n");
    ok(
        "GET /readyz?verbose=",
        "[+]data_corruption ok\n[+]serializable_read ok\n[+]linearizable_read ok\n[+]non_learner ok\nok\n",
    );
    ok("GET /readyz/non_learner?verbose", "[+]non_learner ok\nok\n");
    fake.is_learner.set(true);
    fake.alarms.borrow_mut().push(AlarmKind::Corrupt);
    *fake.linearizable.borrow_mut() = Some(Err("etcdserver: no leader".to_owned()));
    fake.checks.borrow_mut().clear();
    let failed = |line: &str, body: &str| check(&fake, line, 503, &[PLAIN, NOSNIFF], body);
    failed(
        "GET /readyz",
        "[-]data_corruption failed: alarm activated: CORRUPT\n\
         [+]serializable_read ok\n\
         [-]linearizable_read failed: etcdserver: no leader\n\
         [-]non_learner failed: not supported for learner\n\n",
    );
    assert_eq!(
        *fake.checks.borrow(),
        [
            ("readyz", "data_corruption", false),
            ("readyz", "serializable_read", true),
            ("readyz", "linearizable_read", false),
            ("readyz", "non_learner", false),
        ]
    );
    ok(
        "GET /readyz?exclude=data_corruption&exclude=linearizable_read&exclude=non_learner&exclude=x",
        "ok\n",
    );
    // Below the root, nothing can be excluded.
    failed(
        "GET /readyz/non_learner?exclude=non_learner",
        "[-]non_learner failed: not supported for learner\n\n",
    );
}

#[test]
fn metrics_are_text_of_version_0_0_4_and_larger_than_the_pipe() {
    let (status, headers, body) = request(&Fake::new(), "GET /metrics");
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert!(headers.contains(&format!("Content-Type: {METRICS_TEXT}")));
    assert_eq!(body.len(), 550_000);
    let (_, headers, body) = request(&Fake::new(), "HEAD /metrics");
    assert!(headers.contains(&"Content-Length: 550000".to_owned()) && body.is_empty());
}

#[test]
fn split_and_pipelined_requests_are_answered_in_order() {
    let fake = Fake::new();
    let bytes = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\nGET /nothing HTTP/1.1\r\nHost: x\r\n\r\n\
        POST /health HTTP/1.1\r\nHost: x\r\n\r\nGET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let statuses = |reply: &str| -> Vec<String> {
        reply
            .lines()
            .filter(|line| line.starts_with("HTTP/1.1 "))
            .map(|line| line[9..12].to_owned())
            .collect()
    };
    let whole = converse(&fake, [&bytes[..]]);
    assert_eq!(statuses(&whole), ["200", "404", "405", "200"]);
    let split = converse(&fake, bytes.chunks(1));
    assert_eq!(statuses(&split), ["200", "404", "405", "200"]);
}

#[test]
fn a_waiting_check_keeps_the_connection_busy_until_it_answers() {
    let fake = Fake::new();
    *fake.linearizable.borrow_mut() = None;
    let mut session = Http1Session::new(Rc::clone(&fake));
    assert!(session.is_idle());
    session.feed(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(poll(&mut session).is_pending());
    assert!(!session.is_idle() && !session.has_output());
    *fake.linearizable.borrow_mut() = Some(Ok(()));
    assert!(poll(&mut session).is_pending());
    assert!(session.has_output());
    let mut out = Vec::new();
    session.take_output(&mut out);
    assert!(out.starts_with(b"HTTP/1.1 200 OK\r\n") && session.is_idle());
    session.shutdown();
    assert!(matches!(poll(&mut session), Poll::Ready(Ok(()))));
    assert!(!session.wants_input());
}

#[test]
fn broken_and_oversized_heads_end_the_connection() {
    let fake = Fake::new();
    // Go's words, which etcd sends: the status line again as the body.
    let ends = |bytes: &[u8], status: &str| {
        let mut session = Http1Session::new(Rc::clone(&fake));
        session.feed(bytes);
        let result = poll(&mut session);
        let mut out = Vec::new();
        session.take_output(&mut out);
        assert!(result.is_ready(), "{status}");
        assert!(
            out.starts_with(status.as_bytes()),
            "{}",
            String::from_utf8_lossy(&out)
        );
        let text = String::from_utf8(out).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
        let line = head.lines().next().expect("a status line");
        assert!(body.starts_with(&line["HTTP/1.1 ".len()..]), "{text}");
        assert!(head.to_lowercase().contains("connection: close"), "{text}");
    };
    ends(b"GET / HTTP/9\r\n\r\n", "HTTP/1.1 400 ");
    ends(b"GET /version HTTP/1.1\r\n\r\n", "HTTP/1.1 400 ");
    let large = format!(
        "GET / HTTP/1.1\r\nHost: x\r\nA: {}\r\n\r\n",
        "x".repeat(70_000)
    );
    ends(large.as_bytes(), "HTTP/1.1 431 ");
    let many = format!(
        "GET / HTTP/1.1\r\nHost: x\r\n{}\r\n",
        "A: b\r\n".repeat(101)
    );
    ends(many.as_bytes(), "HTTP/1.1 431 ");
    let mut session = Http1Session::new(fake);
    session.feed(b"GET /ver");
    session.feed_eof();
    assert!(matches!(poll(&mut session), Poll::Ready(Err(_))));
}

#[test]
fn input_pushes_back_while_a_request_waits() {
    let fake = Fake::new();
    *fake.linearizable.borrow_mut() = None;
    let mut session = Http1Session::new(fake);
    session.feed(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(poll(&mut session).is_pending());
    assert!(session.wants_input());
    for _ in 0..200 {
        session.feed(&b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n".repeat(64));
        let _ = poll(&mut session);
        if !session.wants_input() {
            return;
        }
    }
    panic!("a client can fill the memory with pipelined requests");
}

#[test]
fn queries_decode_as_gos_do() {
    let query = Query::parse("a=1&a=2&&b&c=%41+b&d=%zz&e=1;f=2&g=%ff&h==");
    let all = |key| query.all(key).collect::<Vec<_>>();
    assert_eq!(all("a"), ["1", "2"]);
    assert_eq!(
        (query.first("b"), query.first("c")),
        (Some(""), Some("A b"))
    );
    assert_eq!(
        (query.first("d"), query.first("e"), query.first("g")),
        (None, None, None)
    );
    assert_eq!(query.first("h"), Some("="));
}
