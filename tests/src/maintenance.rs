//! The maintenance service as the suites speak it: what [`crate::pb`] lacks of it, and a snapshot stream read by hand.

use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use tonic::Streaming;

use crate::pb::ResponseHeader;
use crate::raw::{Answer, Client, Failure};

/// A message that is not there by then fails the test.
const MESSAGE_MAX: Duration = Duration::from_secs(30);

#[derive(Clone, PartialEq, Message)]
pub struct Empty {}

#[derive(Clone, PartialEq, Message)]
pub struct HashResponse {
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    #[prost(uint32, tag = "2")]
    pub hash: u32,
}

#[derive(Clone, PartialEq, Message)]
pub struct SnapshotResponse {
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    #[prost(uint64, tag = "2")]
    pub remaining_bytes: u64,
    #[prost(bytes = "vec", tag = "3")]
    pub blob: Vec<u8>,
    #[prost(string, tag = "4")]
    pub version: String,
}

/// A snapshot that is read a message at a time. Dropping it cancels the call.
pub struct SnapshotStream(Streaming<Bytes>);

impl SnapshotStream {
    /// The next message; `None` at the good end.
    pub async fn message(&mut self) -> Answer<Option<SnapshotResponse>> {
        let message = tokio::time::timeout(MESSAGE_MAX, self.0.message()).await;
        let message = message.unwrap_or_else(|_| panic!("no message within {MESSAGE_MAX:?}"));
        let message = message.map_err(|status| Failure {
            code: status.code() as i32,
            text: status.message().to_owned(),
        })?;
        Ok(message.map(|bytes| SnapshotResponse::decode(bytes).expect("a snapshot message")))
    }

    /// Reads to the end whatever comes, from anywhere in the stream.
    pub async fn finish_any(mut self) -> Answer<()> {
        while self.message().await?.is_some() {}
        Ok(())
    }

    /// Reads to the end: the file, and the digest that follows it. Every message must be as etcd sends it.
    pub async fn finish(mut self) -> Answer<(Vec<u8>, Vec<u8>)> {
        let mut file = Vec::new();
        let mut total = None;
        while let Some(message) = self.message().await? {
            assert_eq!(message.header, None, "etcd sends no header");
            let total = *total.get_or_insert(message.blob.len() as u64 + message.remaining_bytes);
            if file.len() as u64 == total {
                assert_eq!(message.remaining_bytes, 0);
                assert!(self.message().await?.is_none(), "the digest is the last");
                return Ok((file, message.blob));
            }
            file.extend_from_slice(&message.blob);
            let left = total - file.len() as u64;
            assert_eq!(message.remaining_bytes, left, "what remains");
            assert!(message.blob.len() == 32 << 10 || left == 0, "32 KiB each");
        }
        panic!("a snapshot of {} bytes without its digest", file.len());
    }
}

impl Client {
    /// Begins a snapshot; nothing of it is read yet.
    pub async fn snapshot(&mut self) -> Answer<SnapshotStream> {
        let path = "/etcdserverpb.Maintenance/Snapshot";
        let stream = self.server_stream(path, &Empty {}).await?;
        Ok(SnapshotStream(stream))
    }

    /// The hash of everything in the file.
    pub async fn hash(&mut self) -> Answer<HashResponse> {
        self.call("/etcdserverpb.Maintenance/Hash", &Empty {}).await
    }
}

/// Of MoveLeader, MemberRemove and MemberPromote: one id.
#[derive(Clone, PartialEq, Message)]
pub struct IdRequest {
    #[prost(uint64, tag = "1")]
    pub id: u64,
}

#[derive(Clone, PartialEq, Message)]
pub struct DowngradeRequest {
    /// 0 validate, 1 enable, 2 cancel.
    #[prost(int32, tag = "1")]
    pub action: i32,
    #[prost(string, tag = "2")]
    pub version: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct DowngradeResponse {
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    #[prost(string, tag = "2")]
    pub version: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct MemberAddRequest {
    #[prost(string, repeated, tag = "1")]
    pub peer_urls: Vec<String>,
    #[prost(bool, tag = "2")]
    pub is_learner: bool,
}

#[derive(Clone, PartialEq, Message)]
pub struct MemberUpdateRequest {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(string, repeated, tag = "2")]
    pub peer_urls: Vec<String>,
}

impl Client {
    pub async fn move_leader(&mut self, id: u64) -> Answer<Empty> {
        let path = "/etcdserverpb.Maintenance/MoveLeader";
        self.call(path, &IdRequest { id }).await
    }

    pub async fn downgrade(&mut self, action: i32, version: &str) -> Answer<DowngradeResponse> {
        let version = version.to_owned();
        let request = DowngradeRequest { action, version };
        self.call("/etcdserverpb.Maintenance/Downgrade", &request)
            .await
    }

    pub async fn member_update(
        &mut self,
        id: u64,
        peer_urls: &[&str],
    ) -> Answer<crate::pb::MemberListResponse> {
        let peer_urls = peer_urls.iter().map(|&url| url.to_owned()).collect();
        let request = MemberUpdateRequest { id, peer_urls };
        self.call("/etcdserverpb.Cluster/MemberUpdate", &request)
            .await
    }

    pub async fn member_add(&mut self, peer_urls: &[&str]) -> Answer<Empty> {
        let request = MemberAddRequest {
            peer_urls: peer_urls.iter().map(|&url| url.to_owned()).collect(),
            is_learner: false,
        };
        self.call("/etcdserverpb.Cluster/MemberAdd", &request).await
    }

    pub async fn member_remove(&mut self, id: u64) -> Answer<Empty> {
        self.call("/etcdserverpb.Cluster/MemberRemove", &IdRequest { id })
            .await
    }

    pub async fn member_promote(&mut self, id: u64) -> Answer<Empty> {
        self.call("/etcdserverpb.Cluster/MemberPromote", &IdRequest { id })
            .await
    }
}
