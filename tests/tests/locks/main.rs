//! The lock and election services: every answer and refusal, whose turn it is, and what becomes of those who go.
//!
//! Everything here also passes against a real etcd (`--subject etcd-3.7.1`), except what is ours alone and says so.

mod election;
mod lock;
mod tools;

use std::time::{Duration, Instant};

use pilaster_tests::pb::{KeyValue, RangeRequest};
use pilaster_tests::raw::{self, Failure};
use pilaster_tests::{Client, Kind, Options, Server};

/// Between two looks at something that will happen by itself.
const LOOK: Duration = Duration::from_millis(20);
/// What has not happened by then never will.
const HAPPEN_MAX: Duration = Duration::from_secs(60);

fn start() -> Server {
    Server::start(Options::new(Kind::subject()))
}

/// The services of etcd are clients of their own server, so all codes are UNKNOWN.
fn unknown(text: &str) -> Failure {
    Failure {
        code: 2,
        text: text.to_owned(),
    }
}

/// Keys of a queue, oldest first.
async fn queue(client: &mut Client, name: &str) -> Vec<KeyValue> {
    let range = RangeRequest {
        key: format!("{name}/").into_bytes(),
        range_end: format!("{name}0").into_bytes(),
        sort_order: 1,
        sort_target: 2,
        ..Default::default()
    };
    client.range(&range).await.expect("an answer").kvs
}

/// Waits until the queue has as many keys.
async fn until_queued(client: &mut Client, name: &str, wanted: usize) {
    let began = Instant::now();
    loop {
        let keys = queue(client, name).await.len();
        if keys == wanted {
            return;
        }
        let waited = began.elapsed();
        assert!(waited < HAPPEN_MAX, "{keys} in the queue, not {wanted}");
        tokio::time::sleep(LOOK).await;
    }
}

async fn grant(client: &mut Client) -> i64 {
    client.grant(0, 600).await.expect("a grant").id
}

fn key_of(name: &str, lease: i64) -> Vec<u8> {
    format!("{name}/{lease:x}").into_bytes()
}

fn run<T>(body: impl Future<Output = T>) -> T {
    raw::block_on(body)
}
