//! Users, roles and tokens as clients see them: every rule of the Auth service, the rights that each call needs, tokens of
//! every kind, certificates, restarts and kills, files that go to etcd and come back, and that nothing secret is printed.
//!
//! Everything here also passes against a real etcd (`--subject etcd-3.7.1`), except what is ours alone and says so.

mod admin;
mod differential;
mod moves;
mod restart;
mod rights;
mod secrets;
mod tokens;

use pilaster_tests::auth::{Ask, READWRITE};
use pilaster_tests::pb::PutRequest;
use pilaster_tests::raw::{self, Answer, Failure};
use pilaster_tests::{Client, Kind, Options, Server};

/// Passwords are tried often here; this is what one costs least.
const CHEAP: &str = "--bcrypt-cost=4";
const INVALID_ARGUMENT: i32 = 3;
const PERMISSION_DENIED: i32 = 7;
const FAILED_PRECONDITION: i32 = 9;
const UNKNOWN: i32 = 2;
const UNAUTHENTICATED: i32 = 16;

fn options() -> Options {
    Options::new(Kind::subject()).flag(CHEAP)
}

fn start() -> Server {
    Server::start(options())
}

fn refused(code: i32, text: &str) -> Failure {
    Failure {
        code,
        text: format!("etcdserver: {text}"),
    }
}

fn denied() -> Failure {
    refused(PERMISSION_DENIED, "permission denied")
}

/// What a call says that must have been refused.
fn refusal<T: std::fmt::Debug>(answer: Answer<T>) -> Failure {
    answer.expect_err("it is refused")
}

fn text(text: &str) -> String {
    text.to_owned()
}

fn user(name: &str) -> Ask {
    Ask::UserAdd(text(name), format!("{name}pw"))
}

fn grant(role: &str, access: i32, key: &str, range_end: &str) -> Ask {
    let bytes = |text: &str| text.as_bytes().to_vec();
    Ask::Grant(text(role), access, bytes(key), bytes(range_end))
}

async fn all(client: &mut Client, asks: &[Ask]) {
    for ask in asks {
        let answer = client.ask(ask).await;
        answer.unwrap_or_else(|refusal| panic!("{ask:?}: {refusal:?}"));
    }
}

/// Makes user root and turns authentication on; returns root's client.
async fn turn_on(client: &mut Client) -> Client {
    let role = Ask::GrantRole(text("root"), text("root"));
    all(client, &[user("root"), role, Ask::Enable]).await;
    client
        .sign_in("root", "rootpw")
        .await
        .expect("root is there")
}

/// User `name` with a role of his name over [from, to); signed in.
async fn add_user(root: &mut Client, name: &str, from: &str, to: &str) -> Client {
    let asks = [
        user(name),
        Ask::RoleAdd(text(name)),
        grant(name, READWRITE, from, to),
        Ask::GrantRole(text(name), text(name)),
    ];
    all(root, &asks).await;
    let password = format!("{name}pw");
    root.sign_in(name, &password).await.expect("added just now")
}

fn put(key: &str) -> PutRequest {
    raw::put(key, "v")
}
