//! The watch service: every field and answer, hostile clients, the same streams on a real etcd, and a history that
//! outlives kill -9.
//!
//! `answers` asks for one thing at a time and holds on any subject; `differential` runs made-up sequences on etcd 3.7.1 and
//! the subject; `checker` kills the server under writers and watchers; `hostile` sends what nobody should; `tools` runs
//! three generations of etcdctl.

mod answers;
mod checker;
mod differential;
mod hostile;
mod tools;

use pilaster_tests::watch::{WatchStream, watch};
use pilaster_tests::{Client, Kind, Options, Server, pb, raw};

/// A running subject and one connection to it.
struct Setup {
    server: Server,
    client: Client,
}

impl Setup {
    async fn new() -> Setup {
        Setup::with(Options::new(Kind::subject())).await
    }

    async fn with(options: Options) -> Setup {
        let server = Server::start(options);
        let client = Client::connect(&server).await;
        Setup { server, client }
    }

    fn stream(&self) -> WatchStream {
        WatchStream::open(&self.client)
    }

    /// Puts and gives the new revision.
    async fn put(&mut self, key: &str, value: &str) -> i64 {
        let reply = self.client.put(&raw::put(key, value)).await;
        reply.expect("a put").header.expect("a header").revision
    }

    async fn delete(&mut self, key: &str) -> i64 {
        let request = pb::DeleteRangeRequest {
            key: key.into(),
            ..Default::default()
        };
        let reply = self.client.delete_range(&request).await;
        reply
            .expect("a deletion")
            .header
            .expect("a header")
            .revision
    }

    async fn compact(&mut self, revision: i64) {
        let request = pb::CompactionRequest {
            revision,
            physical: true,
        };
        self.client.compact(&request).await.expect("a compaction");
    }

    /// Puts several keys in one transaction.
    async fn put_all(&mut self, pairs: &[(&str, String)]) -> i64 {
        let puts = pairs.iter().map(|(key, value)| pb::RequestOp {
            request: Some(pb::Request::Put(raw::put(*key, value.as_str()))),
        });
        let txn = pb::TxnRequest {
            success: puts.collect(),
            ..Default::default()
        };
        let reply = self.client.txn(&txn).await;
        reply.expect("a txn").header.expect("a header").revision
    }

    /// Proves that nothing is on its way on `stream`: the next message is the answer to a request of now.
    async fn assert_quiet(&self, stream: &mut WatchStream) {
        let answer = stream.create(watch("nobody puts this")).await;
        stream.cancel(answer.watch_id).await;
    }
}
