//! The lease service, as clients and tools see it: every answer and refusal, attaching and detaching, keepalive streams,
//! ends of leases, restarts and kills, three generations of etcdctl.
//!
//! Everything here also passes against a real etcd (`--subject etcd-3.7.1`), except what is ours alone and says so. How long
//! leases live is checked in virtual time, beside the code; here nothing measures time, but some tests wait for a lease of
//! the shortest time to live to end.

mod ends;
mod restart;
mod service;
mod streams;
mod tools;

use std::time::{Duration, Instant};

use pilaster_tests::pb::{KeyValue, PutRequest, RangeRequest};
use pilaster_tests::raw::{self, Failure};
use pilaster_tests::{Client, Kind, Options, Server};

/// Between two looks at something that will happen by itself.
const LOOK: Duration = Duration::from_millis(20);
/// What has not happened by then never will.
const HAPPEN_MAX: Duration = Duration::from_secs(60);

fn start() -> Server {
    Server::start(Options::new(Kind::subject()))
}

fn refused(code: i32, text: &str) -> Failure {
    Failure {
        code,
        text: text.to_owned(),
    }
}

fn with_lease(key: &str, lease: i64) -> PutRequest {
    PutRequest {
        lease,
        ..raw::put(key, "v")
    }
}

async fn all(client: &mut Client) -> Vec<KeyValue> {
    let reply = client.range(&raw::get_all()).await;
    reply.expect("a ready server answers").kvs
}

async fn revision(client: &mut Client) -> i64 {
    let count = RangeRequest {
        count_only: true,
        ..raw::get_all()
    };
    let reply = client.range(&count).await.expect("a ready server answers");
    reply.header.expect("a header").revision
}

/// Looks again and again until `look` finds something.
async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(began.elapsed() < HAPPEN_MAX, "never happened: {what}");
        tokio::time::sleep(LOOK).await;
    }
}
