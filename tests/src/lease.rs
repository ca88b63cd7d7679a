//! The lease service as the suites speak it: messages from the published field numbers, calls, and keepalive streams.
//!
//! A keepalive stream is driven by hand: the test says when a request goes out and asks for each answer, and sees the
//! status that ends the stream.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use prost::Message;
use tokio::sync::mpsc;
use tonic::Streaming;

use crate::pb::ResponseHeader;
use crate::raw::{Answer, Client, Failure};

/// An answer that is not there by then fails the test.
const ANSWER_MAX: Duration = Duration::from_secs(30);

#[derive(Clone, PartialEq, Message)]
pub struct LeaseGrantRequest {
    #[prost(int64, tag = "1")]
    pub ttl: i64,
    #[prost(int64, tag = "2")]
    pub id: i64,
}

#[derive(Clone, PartialEq, Message)]
pub struct LeaseGrantResponse {
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    #[prost(int64, tag = "2")]
    pub id: i64,
    #[prost(int64, tag = "3")]
    pub ttl: i64,
    #[prost(string, tag = "4")]
    pub error: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct LeaseRevokeRequest {
    #[prost(int64, tag = "1")]
    pub id: i64,
}

#[derive(Clone, PartialEq, Message)]
pub struct LeaseRevokeResponse {
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
}

#[derive(Clone, PartialEq, Message)]
pub struct LeaseKeepAliveRequest {
    #[prost(int64, tag = "1")]
    pub id: i64,
}

#[derive(Clone, PartialEq, Message)]
pub struct LeaseKeepAliveResponse {
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    #[prost(int64, tag = "2")]
    pub id: i64,
    #[prost(int64, tag = "3")]
    pub ttl: i64,
}

#[derive(Clone, PartialEq, Message)]
pub struct LeaseTimeToLiveRequest {
    #[prost(int64, tag = "1")]
    pub id: i64,
    #[prost(bool, tag = "2")]
    pub keys: bool,
}

#[derive(Clone, PartialEq, Message)]
pub struct LeaseTimeToLiveResponse {
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    #[prost(int64, tag = "2")]
    pub id: i64,
    #[prost(int64, tag = "3")]
    pub ttl: i64,
    #[prost(int64, tag = "4")]
    pub granted_ttl: i64,
    #[prost(bytes = "vec", repeated, tag = "5")]
    pub keys: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
pub struct LeaseLeasesRequest {}

#[derive(Clone, PartialEq, Message)]
pub struct LeaseStatus {
    #[prost(int64, tag = "1")]
    pub id: i64,
}

#[derive(Clone, PartialEq, Message)]
pub struct LeaseLeasesResponse {
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    #[prost(message, repeated, tag = "2")]
    pub leases: Vec<LeaseStatus>,
}

impl Client {
    pub async fn grant(&mut self, id: i64, ttl: i64) -> Answer<LeaseGrantResponse> {
        let request = LeaseGrantRequest { ttl, id };
        self.call("/etcdserverpb.Lease/LeaseGrant", &request).await
    }

    pub async fn revoke(&mut self, id: i64) -> Answer<LeaseRevokeResponse> {
        let request = LeaseRevokeRequest { id };
        self.call("/etcdserverpb.Lease/LeaseRevoke", &request).await
    }

    /// The keys come sorted: their order in the answer means nothing.
    pub async fn time_to_live(&mut self, id: i64, keys: bool) -> Answer<LeaseTimeToLiveResponse> {
        let request = LeaseTimeToLiveRequest { id, keys };
        let path = "/etcdserverpb.Lease/LeaseTimeToLive";
        let mut reply: LeaseTimeToLiveResponse = self.call(path, &request).await?;
        reply.keys.sort();
        Ok(reply)
    }

    pub async fn leases(&mut self) -> Answer<LeaseLeasesResponse> {
        self.call("/etcdserverpb.Lease/LeaseLeases", &LeaseLeasesRequest {})
            .await
    }

    /// Opens a keepalive stream.
    pub async fn keep_alives(&mut self) -> KeepAlives {
        let (requests, outgoing) = mpsc::unbounded_channel();
        let path = "/etcdserverpb.Lease/LeaseKeepAlive";
        // The server answers the call with its first message, so the first request must be on its way before.
        KeepAlives {
            opening: Some(Box::pin(self.clone().stream(path, Outgoing(outgoing)))),
            requests: Some(requests),
            answers: None,
        }
    }

    async fn stream(
        mut self,
        path: &'static str,
        outgoing: Outgoing,
    ) -> Result<Streaming<Bytes>, Failure> {
        self.open_stream(path, outgoing).await
    }
}

type Opening = Pin<Box<dyn Future<Output = Result<Streaming<Bytes>, Failure>> + Send>>;

/// One keepalive stream.
pub struct KeepAlives {
    opening: Option<Opening>,
    requests: Option<mpsc::UnboundedSender<Bytes>>,
    answers: Option<Streaming<Bytes>>,
}

impl KeepAlives {
    pub fn send(&self, id: i64) {
        self.send_bytes(LeaseKeepAliveRequest { id }.encode_to_vec());
    }

    pub fn send_bytes(&self, bytes: Vec<u8>) {
        let requests = self.requests.as_ref().expect("the stream is not closed");
        requests.send(bytes.into()).expect("the stream lives");
    }

    /// No more requests.
    pub fn close(&mut self) {
        self.requests = None;
    }

    /// The next answer; `None` once the stream has ended with OK.
    pub async fn next(&mut self) -> Answer<Option<LeaseKeepAliveResponse>> {
        let answer = async {
            if let Some(opening) = self.opening.take() {
                self.answers = Some(opening.await?);
            }
            let answers = self.answers.as_mut().expect("opened above");
            let message = answers.message().await.map_err(|status| Failure {
                code: status.code() as i32,
                text: status.message().to_owned(),
            })?;
            Ok(message.map(|bytes| LeaseKeepAliveResponse::decode(bytes).expect("an answer")))
        };
        let done = tokio::time::timeout(ANSWER_MAX, answer).await;
        done.unwrap_or_else(|_| panic!("no answer on the keepalive stream within {ANSWER_MAX:?}"))
    }

    /// The time to live of the next answer, which must be for `id`.
    pub async fn ttl(&mut self, id: i64) -> i64 {
        let answer = self.next().await.expect("an answer").expect("no end yet");
        assert_eq!(answer.id, id, "answers come in the order of the requests");
        answer.ttl
    }
}

/// Requests on their way to the connection.
pub struct Outgoing(mpsc::UnboundedReceiver<Bytes>);

impl Stream for Outgoing {
    type Item = Bytes;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        self.0.poll_recv(cx)
    }
}
