//! Raw gRPC calls: bytes in, bytes and the exact status out.
//!
//! A client library hides codes, texts and unknown fields behind its own errors; this one shows them. An answer with a field
//! that [`crate::pb`] does not describe, or encoded longer than it must be, fails the test that got it.
//!
//! One connection per client; the caller decides how many calls are in flight. No retry, ever.

use std::fmt;
use std::future::{Future, poll_fn};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use futures_core::Stream;
use http_body_util::BodyExt;
use prost::Message;
use tonic::body::Body;
use tonic::client::{Grpc, GrpcService};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::MetadataMap;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Status, Streaming};

use crate::pb;
use crate::plain::Reply;
use crate::server::Server;
use crate::tls::TlsFiles;

/// A call without an answer by then has failed; longer than any server's own limit.
const CALL_MAX: Duration = Duration::from_secs(30);

/// What a call brought back.
pub type Answer<T> = Result<T, Failure>;

/// A gRPC status other than OK.
#[derive(Clone, PartialEq, Eq)]
pub struct Failure {
    pub code: i32,
    pub text: String,
}

impl Failure {
    /// True when the server sent this status, false when the connection failed under the call.
    pub fn is_from_server(&self) -> bool {
        self.text.starts_with("etcdserver: ") || self.text.starts_with("grpc: ")
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} ({}) {:?}",
            tonic::Code::from_i32(self.code),
            self.code,
            self.text
        )
    }
}

/// An answer that its client has not read.
pub struct Unread(Answer<Streaming<Bytes>>);

impl Unread {
    /// Reads it: how many bytes its message has.
    pub async fn finish(self) -> Answer<usize> {
        let mut stream = self.0?;
        let read = async {
            let mut bytes = 0;
            while let Some(message) = stream.message().await? {
                bytes += message.len();
            }
            Ok(bytes)
        };
        within_bound("an unread answer", read).await
    }
}

/// One connection to one server. Clones share the connection.
#[derive(Clone)]
pub struct Client {
    grpc: Grpc<Channel>,
    channel: Channel,
    /// Sent with every call.
    metadata: MetadataMap,
}

impl Client {
    pub async fn connect(server: &Server) -> Client {
        Client::connect_to(&server.url(), server.tls())
            .await
            .expect("a ready server accepts")
    }

    pub async fn connect_to(url: &str, tls: Option<&TlsFiles>) -> Result<Client, String> {
        let mut endpoint = Endpoint::from_shared(url.to_owned()).map_err(|e| e.to_string())?;
        if let Some(tls) = tls {
            endpoint = endpoint
                .tls_config(tls_config(tls))
                .map_err(|e| e.to_string())?;
        }
        let endpoint = endpoint.connect_timeout(CALL_MAX);
        let channel = endpoint.connect().await.map_err(|e| format!("{e:?}"))?;
        let grpc = Grpc::new(channel.clone())
            .max_decoding_message_size(usize::MAX)
            .max_encoding_message_size(usize::MAX);
        Ok(Client {
            grpc,
            channel,
            metadata: MetadataMap::new(),
        })
    }

    /// The same connection, with one more piece of metadata in every call.
    pub fn with(&self, key: &'static str, value: &str) -> Client {
        let mut with = self.clone();
        let value = value.parse().expect("a value that metadata may have");
        with.metadata.insert(key, value);
        with
    }

    fn request<T>(&self, body: T) -> Request<T> {
        let mut request = Request::new(body);
        *request.metadata_mut() = self.metadata.clone();
        request
    }

    /// A request that is not gRPC, on the connection that calls use.
    pub async fn http(&mut self, method: &str, path: &str) -> Reply {
        self.http_with(method, path, "").await
    }

    /// The same with a body.
    pub async fn http_with(&mut self, method: &str, path: &str, body: &str) -> Reply {
        let request = http::Request::builder().method(method).uri(path);
        let body = http_body_util::Full::new(Bytes::from(body.to_owned()));
        let request = request
            .body(Body::new(body))
            .expect("a well-formed request");
        let channel = &mut self.channel;
        let exchange = async {
            poll_fn(|cx| GrpcService::<Body>::poll_ready(channel, cx))
                .await
                .expect("an open connection");
            let reply = GrpcService::call(channel, request).await;
            let (head, body) = reply.expect("an answer").into_parts();
            let body = body.collect().await.expect("a whole body").to_bytes();
            let headers = head.headers.iter().map(|(name, value)| {
                let value = String::from_utf8_lossy(value.as_bytes());
                (name.as_str().to_owned(), value.into_owned())
            });
            Reply {
                status: head.status.as_u16(),
                headers: headers.collect(),
                body: String::from_utf8_lossy(&body).into_owned(),
            }
        };
        let done = tokio::time::timeout(CALL_MAX, exchange).await;
        done.unwrap_or_else(|_| panic!("{path} had no answer within {CALL_MAX:?}"))
    }

    /// One unary call of a method such as `/etcdserverpb.KV/Range` with a body of the caller's making.
    pub async fn call_bytes(&mut self, path: &'static str, body: Vec<u8>) -> Answer<Bytes> {
        let call = async {
            self.grpc
                .ready()
                .await
                .map_err(|error| Status::unavailable(format!("{error:?}")))?;
            let path = http::uri::PathAndQuery::from_static(path);
            let request = self.request(Bytes::from(body));
            let reply = self.grpc.unary(request, path, Plain).await?;
            Ok(reply.into_inner())
        };
        within_bound(path, call).await
    }

    /// As [`Client::call_bytes`], with a deadline that the server is told.
    pub(crate) async fn call_within(
        &mut self,
        path: &'static str,
        body: Vec<u8>,
        timeout: Duration,
    ) -> Answer<Bytes> {
        let call = async {
            self.grpc
                .ready()
                .await
                .map_err(|error| Status::unavailable(format!("{error:?}")))?;
            let mut request = Request::new(Bytes::from(body));
            request.set_timeout(timeout);
            let path = http::uri::PathAndQuery::from_static(path);
            Ok(self.grpc.unary(request, path, Plain).await?.into_inner())
        };
        within_bound(path, call).await
    }

    pub async fn call<Reply: Message + Default + fmt::Debug>(
        &mut self,
        path: &'static str,
        request: &impl Message,
    ) -> Answer<Reply> {
        let bytes = self.call_bytes(path, request.encode_to_vec()).await?;
        Ok(decode(path, &bytes))
    }

    pub async fn range(&mut self, request: &pb::RangeRequest) -> Answer<pb::RangeResponse> {
        self.call("/etcdserverpb.KV/Range", request).await
    }

    /// A range whose answer is not read beyond its headers; the client's first window lets a little more through.
    pub async fn range_unread(&mut self, request: &pb::RangeRequest) -> Unread {
        let path = "/etcdserverpb.KV/Range";
        let call = async {
            self.grpc
                .ready()
                .await
                .map_err(|error| Status::unavailable(format!("{error:?}")))?;
            let request = self.request(Bytes::from(request.encode_to_vec()));
            let path = http::uri::PathAndQuery::from_static(path);
            let reply = self.grpc.server_streaming(request, path, Plain).await?;
            Ok(reply.into_inner())
        };
        Unread(within_bound(path, call).await)
    }

    /// All messages of a streamed range as one answer: pairs in order, the rest from the message that closes it.
    pub async fn range_stream(&mut self, request: &pb::RangeRequest) -> Answer<pb::RangeResponse> {
        let mut whole = pb::RangeResponse::default();
        for mut part in self.range_stream_parts(request).await? {
            assert!(
                whole.header.is_none(),
                "a message after the one with the header"
            );
            whole.kvs.append(&mut part.kvs);
            (whole.header, whole.more, whole.count) = (part.header, part.more, part.count);
        }
        Ok(whole)
    }

    /// The messages of a streamed range as they came.
    pub async fn range_stream_parts(
        &mut self,
        request: &pb::RangeRequest,
    ) -> Answer<Vec<pb::RangeResponse>> {
        let path = "/etcdserverpb.KV/RangeStream";
        let call = async {
            self.grpc
                .ready()
                .await
                .map_err(|error| Status::unavailable(format!("{error:?}")))?;
            let request = self.request(Bytes::from(request.encode_to_vec()));
            let path = http::uri::PathAndQuery::from_static(path);
            let mut stream = self
                .grpc
                .server_streaming(request, path, Plain)
                .await?
                .into_inner();
            let mut parts = Vec::new();
            while let Some(bytes) = stream.message().await? {
                let part: pb::RangeStreamResponse = decode("RangeStream", &bytes);
                parts.push(part.range_response.unwrap_or_default());
            }
            Ok(parts)
        };
        within_bound(path, call).await
    }

    /// Opens a call that is answered with any number of messages.
    pub(crate) async fn server_stream(
        &mut self,
        path: &'static str,
        request: &impl Message,
    ) -> Answer<Streaming<Bytes>> {
        let call = async {
            self.grpc
                .ready()
                .await
                .map_err(|error| Status::unavailable(format!("{error:?}")))?;
            let request = Request::new(Bytes::from(request.encode_to_vec()));
            let path = http::uri::PathAndQuery::from_static(path);
            let reply = self.grpc.server_streaming(request, path, Plain).await?;
            Ok(reply.into_inner())
        };
        within_bound(path, call).await
    }

    /// Opens a call whose both sides send any number of messages.
    pub(crate) async fn open_stream(
        &mut self,
        path: &'static str,
        requests: impl Stream<Item = Bytes> + Send + 'static,
    ) -> Answer<Streaming<Bytes>> {
        let call = async {
            self.grpc
                .ready()
                .await
                .map_err(|error| Status::unavailable(format!("{error:?}")))?;
            let path = http::uri::PathAndQuery::from_static(path);
            let request = self.request(requests);
            let reply = self.grpc.streaming(request, path, Plain).await?;
            Ok(reply.into_inner())
        };
        within_bound(path, call).await
    }

    pub async fn put(&mut self, request: &pb::PutRequest) -> Answer<pb::PutResponse> {
        self.call("/etcdserverpb.KV/Put", request).await
    }

    pub async fn delete_range(
        &mut self,
        request: &pb::DeleteRangeRequest,
    ) -> Answer<pb::DeleteRangeResponse> {
        self.call("/etcdserverpb.KV/DeleteRange", request).await
    }

    pub async fn txn(&mut self, request: &pb::TxnRequest) -> Answer<pb::TxnResponse> {
        self.call("/etcdserverpb.KV/Txn", request).await
    }

    pub async fn compact(
        &mut self,
        request: &pb::CompactionRequest,
    ) -> Answer<pb::CompactionResponse> {
        self.call("/etcdserverpb.KV/Compact", request).await
    }

    pub async fn hash_kv(&mut self, revision: i64) -> Answer<pb::HashKvResponse> {
        self.call(
            "/etcdserverpb.Maintenance/HashKV",
            &pb::HashKvRequest { revision },
        )
        .await
    }

    pub async fn alarm(&mut self, request: &pb::AlarmRequest) -> Answer<pb::AlarmResponse> {
        self.call("/etcdserverpb.Maintenance/Alarm", request).await
    }

    pub async fn status(&mut self) -> Answer<pb::StatusResponse> {
        self.call("/etcdserverpb.Maintenance/Status", &pb::StatusRequest {})
            .await
    }

    pub async fn member_list(&mut self) -> Answer<pb::MemberListResponse> {
        let request = pb::MemberListRequest { linearizable: true };
        self.call("/etcdserverpb.Cluster/MemberList", &request)
            .await
    }
}

fn decode<Reply: Message + Default + fmt::Debug>(path: &str, bytes: &[u8]) -> Reply {
    let reply = Reply::decode(bytes)
        .unwrap_or_else(|error| panic!("{path}: answer does not decode: {error}: {bytes:?}"));
    assert_eq!(
        reply.encoded_len(),
        bytes.len(),
        "{path}: the answer holds more than the described fields: {reply:?}, from {bytes:?}"
    );
    reply
}

async fn within_bound<T>(path: &str, call: impl Future<Output = Result<T, Status>>) -> Answer<T> {
    let done = tokio::time::timeout(CALL_MAX, call).await;
    let result = done.unwrap_or_else(|_| panic!("{path} had no answer within {CALL_MAX:?}"));
    result.map_err(|status| Failure {
        code: status.code() as i32,
        text: status.message().to_owned(),
    })
}

/// Runs one asynchronous test body on this thread.
pub fn block_on<T>(body: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime on this thread")
        .block_on(body)
}

/// A request for one key.
pub fn get(key: impl Into<Vec<u8>>) -> pb::RangeRequest {
    pb::RangeRequest {
        key: key.into(),
        ..Default::default()
    }
}

/// A request for every key.
pub fn get_all() -> pb::RangeRequest {
    pb::RangeRequest {
        key: vec![0],
        range_end: vec![0],
        ..Default::default()
    }
}

pub fn put(key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> pb::PutRequest {
    pb::PutRequest {
        key: key.into(),
        value: value.into(),
        ..Default::default()
    }
}

fn tls_config(tls: &TlsFiles) -> ClientTlsConfig {
    let read = |file| std::fs::read(file).expect("the suite wrote its certificates");
    ClientTlsConfig::new()
        .domain_name("localhost")
        .ca_certificate(Certificate::from_pem(read(&tls.ca_cert)))
        .identity(Identity::from_pem(
            read(&tls.client_cert),
            read(&tls.client_key),
        ))
}

/// The codec that leaves messages as bytes.
struct Plain;

impl Codec for Plain {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Plain;
    type Decoder = Plain;

    fn encoder(&mut self) -> Plain {
        Plain
    }

    fn decoder(&mut self) -> Plain {
        Plain
    }
}

impl Encoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(item);
        Ok(())
    }
}

impl Decoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, input: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(input.copy_to_bytes(input.remaining())))
    }
}
