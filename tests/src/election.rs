//! The lock and election services as the suites speak them: messages from the published field numbers, and calls.

use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use tonic::Streaming;

use crate::pb::{KeyValue, ResponseHeader};
use crate::raw::{Answer, Client, Failure};

/// A message that is not there by then fails the test.
const MESSAGE_MAX: Duration = Duration::from_secs(30);

#[derive(Clone, PartialEq, Message)]
pub struct LockRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub name: Vec<u8>,
    #[prost(int64, tag = "2")]
    pub lease: i64,
}

/// Of Lock; the other answers with a header alone are read as this with an empty key.
#[derive(Clone, PartialEq, Message)]
pub struct LockResponse {
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    #[prost(bytes = "vec", tag = "2")]
    pub key: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub struct UnlockRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub struct CampaignRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub name: Vec<u8>,
    #[prost(int64, tag = "2")]
    pub lease: i64,
    #[prost(bytes = "vec", tag = "3")]
    pub value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub struct LeaderKey {
    #[prost(bytes = "vec", tag = "1")]
    pub name: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub key: Vec<u8>,
    #[prost(int64, tag = "3")]
    pub rev: i64,
    #[prost(int64, tag = "4")]
    pub lease: i64,
}

#[derive(Clone, PartialEq, Message)]
pub struct CampaignResponse {
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    #[prost(message, optional, tag = "2")]
    pub leader: Option<LeaderKey>,
}

#[derive(Clone, PartialEq, Message)]
pub struct LeaderRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub name: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub struct LeaderResponse {
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    #[prost(message, optional, tag = "2")]
    pub kv: Option<KeyValue>,
}

/// Of Proclaim; Resign has no value.
#[derive(Clone, PartialEq, Message)]
pub struct ProclaimRequest {
    #[prost(message, optional, tag = "1")]
    pub leader: Option<LeaderKey>,
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}

/// A stream of leaders. Dropping it cancels the call.
pub struct Leaders(Streaming<Bytes>);

impl Leaders {
    /// The next message; `None` at the good end.
    pub async fn next(&mut self) -> Answer<Option<LeaderResponse>> {
        let message = tokio::time::timeout(MESSAGE_MAX, self.0.message()).await;
        let message = message.unwrap_or_else(|_| panic!("no message within {MESSAGE_MAX:?}"));
        let message = message.map_err(|status| Failure {
            code: status.code() as i32,
            text: status.message().to_owned(),
        })?;
        Ok(message.map(|bytes| LeaderResponse::decode(bytes).expect("a message of leaders")))
    }

    /// The value of the next message, which must come.
    pub async fn value(&mut self) -> String {
        let message = self.next().await.expect("a message").expect("no end");
        String::from_utf8(message.kv.expect("a pair").value).expect("text")
    }
}

impl Client {
    pub async fn lock(&mut self, name: &str, lease: i64) -> Answer<LockResponse> {
        let name = name.into();
        let request = LockRequest { name, lease };
        self.call("/v3lockpb.Lock/Lock", &request).await
    }

    /// As [`Client::lock`], and the client gives up after `timeout` and tells the server so beforehand.
    pub async fn lock_within(
        &mut self,
        name: &str,
        lease: i64,
        timeout: Duration,
    ) -> Answer<LockResponse> {
        let name = name.into();
        let request = LockRequest { name, lease };
        let path = "/v3lockpb.Lock/Lock";
        let reply = self
            .call_within(path, request.encode_to_vec(), timeout)
            .await?;
        Ok(LockResponse::decode(reply).expect("an answer"))
    }

    pub async fn unlock(&mut self, key: &[u8]) -> Answer<LockResponse> {
        let key = key.to_vec();
        self.call("/v3lockpb.Lock/Unlock", &UnlockRequest { key })
            .await
    }

    pub async fn campaign(
        &mut self,
        name: &str,
        lease: i64,
        value: &str,
    ) -> Answer<CampaignResponse> {
        let request = CampaignRequest {
            name: name.into(),
            lease,
            value: value.into(),
        };
        self.call("/v3electionpb.Election/Campaign", &request).await
    }

    pub async fn proclaim(
        &mut self,
        leader: Option<LeaderKey>,
        value: &str,
    ) -> Answer<LockResponse> {
        let value = value.into();
        let request = ProclaimRequest { leader, value };
        self.call("/v3electionpb.Election/Proclaim", &request).await
    }

    pub async fn resign(&mut self, leader: Option<LeaderKey>) -> Answer<LockResponse> {
        let value = Vec::new();
        let request = ProclaimRequest { leader, value };
        self.call("/v3electionpb.Election/Resign", &request).await
    }

    pub async fn leader(&mut self, name: &str) -> Answer<LeaderResponse> {
        let name = name.into();
        self.call("/v3electionpb.Election/Leader", &LeaderRequest { name })
            .await
    }

    pub async fn observe(&mut self, name: &str) -> Answer<Leaders> {
        let name = name.into();
        let path = "/v3electionpb.Election/Observe";
        let stream = self.server_stream(path, &LeaderRequest { name }).await?;
        Ok(Leaders(stream))
    }
}
