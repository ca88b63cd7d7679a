//! The API as JSON over plain HTTP, in lockstep on etcd 3.7.1 and the subject: the same status, headers and bodies, but for
//! what belongs to one server; streams; garbage; who may ask; the addresses HTTP may have; a Python client.

mod access;
mod addresses;
mod answers;
mod generate;
mod hostile;
mod python;
mod streams;

use pilaster_tests::plain::{self, Reply};
use pilaster_tests::{Kind, Options, Server};

/// The server that is right by definition, and the one under test.
struct Pair {
    etcd: Server,
    subject: Server,
}

impl Pair {
    fn start() -> Pair {
        Pair {
            etcd: Server::start(Options::new(Kind::Etcd371)),
            subject: start(),
        }
    }

    /// Asks both and compares.
    fn check(&self, path: &str, body: &str) {
        self.check_with(path, &[], body);
    }

    fn check_with(&self, path: &str, headers: &[(&str, &str)], body: &str) {
        let ask = |server| plain::ask(server, "POST", path, headers, body.as_bytes());
        let (right, ours) = (ask(&self.etcd), ask(&self.subject));
        assert_eq!(
            shown(&ours),
            shown(&right),
            "POST {path} {headers:?} {body}"
        );
    }
}

fn start() -> Server {
    Server::start(Options::new(Kind::subject()))
}

/// What of an answer is the same on both servers.
fn shown(reply: &Reply) -> (u16, Vec<(String, String)>, String) {
    let is_shared = |name: &str| {
        name.starts_with("access-control-")
            || name.starts_with("grpc-")
            || matches!(
                name,
                "content-type" | "allow" | "www-authenticate" | "x-content-type-options"
            )
    };
    let mut headers = reply.headers.clone();
    headers.retain(|(name, _)| is_shared(name));
    headers.sort();
    (reply.status, headers, normal(&reply.body))
}

/// Fields whose values belong to one server.
const OWN: &[&str] = &[
    "cluster_id",
    "member_id",
    "raft_term",
    "memberID",
    "leader",
    "raftIndex",
    "raftTerm",
    "raftAppliedIndex",
    "dbSize",
    "dbSizeInUse",
    "hash",
    "compact_revision",
    "hash_revision",
];

/// A body without what belongs to one server, and without the spaces that one build of etcd puts behind commas and another
/// does not (and neither do we).
fn normal(body: &str) -> String {
    let mut out = String::new();
    let mut rest = body;
    while let Some(first) = rest.chars().next() {
        if first == '"' {
            let end = string_end(rest);
            let (text, behind) = rest.split_at(end);
            out.push_str(&text.replace('\u{a0}', " "));
            rest = behind;
            let name = &text[1..text.len() - 1];
            if OWN.contains(&name) && rest.starts_with(':') {
                let value = match rest[1..].starts_with('"') {
                    true => string_end(&rest[1..]),
                    false => rest[1..]
                        .find([',', '}'])
                        .expect("an object goes on or ends"),
                };
                out.push_str(":_");
                rest = &rest[1 + value..];
            }
        } else {
            out.push(first);
            rest = &rest[first.len_utf8()..];
            if first == ',' {
                rest = rest.strip_prefix(' ').unwrap_or(rest);
            }
        }
    }
    out
}

/// Where the string ends that `text` begins with.
fn string_end(text: &str) -> usize {
    let mut is_escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}
