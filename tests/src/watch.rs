//! The watch service as the suites speak it: messages from the published field numbers, and streams driven by hand.
//!
//! A stream sends what the test says and shows every message and the status that ends it. Answers are collected by
//! watcher in [`Log`], so that two servers can be compared whatever they put into one message.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use prost::{Message, Oneof};
use tokio::sync::mpsc;
use tonic::Streaming;

use crate::pb::{KeyValue, ResponseHeader};
use crate::raw::{Answer, Client, Failure};

/// A message that is not there by then fails the test.
const MESSAGE_MAX: Duration = Duration::from_secs(30);
/// A progress request that found watchers behind is sent again after this long without any message.
const PROGRESS_AGAIN: Duration = Duration::from_millis(50);

#[derive(Clone, PartialEq, Message)]
pub struct WatchRequest {
    #[prost(oneof = "Union", tags = "1, 2, 3")]
    pub union: Option<Union>,
}

#[derive(Clone, PartialEq, Oneof)]
pub enum Union {
    #[prost(message, tag = "1")]
    Create(WatchCreate),
    #[prost(message, tag = "2")]
    Cancel(WatchCancel),
    #[prost(message, tag = "3")]
    Progress(WatchProgress),
}

#[derive(Clone, PartialEq, Message)]
pub struct WatchCreate {
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub range_end: Vec<u8>,
    #[prost(int64, tag = "3")]
    pub start_revision: i64,
    #[prost(bool, tag = "4")]
    pub progress_notify: bool,
    /// 0 drops puts, 1 drops deletions; other numbers are sent too.
    #[prost(int32, repeated, tag = "5")]
    pub filters: Vec<i32>,
    #[prost(bool, tag = "6")]
    pub prev_kv: bool,
    #[prost(int64, tag = "7")]
    pub watch_id: i64,
    #[prost(bool, tag = "8")]
    pub fragment: bool,
}

#[derive(Clone, PartialEq, Message)]
pub struct WatchCancel {
    #[prost(int64, tag = "1")]
    pub watch_id: i64,
}

#[derive(Clone, PartialEq, Message)]
pub struct WatchProgress {}

#[derive(Clone, PartialEq, Message)]
pub struct WatchResponse {
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    #[prost(int64, tag = "2")]
    pub watch_id: i64,
    #[prost(bool, tag = "3")]
    pub created: bool,
    #[prost(bool, tag = "4")]
    pub canceled: bool,
    #[prost(int64, tag = "5")]
    pub compact_revision: i64,
    #[prost(string, tag = "6")]
    pub cancel_reason: String,
    #[prost(bool, tag = "7")]
    pub fragment: bool,
    #[prost(message, repeated, tag = "11")]
    pub events: Vec<Event>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Event {
    /// 0 is a put, 1 a deletion.
    #[prost(int32, tag = "1")]
    pub kind: i32,
    #[prost(message, optional, tag = "2")]
    pub kv: Option<KeyValue>,
    #[prost(message, optional, tag = "3")]
    pub prev_kv: Option<KeyValue>,
}

impl WatchResponse {
    pub fn revision(&self) -> i64 {
        self.header
            .as_ref()
            .expect("every message has a header")
            .revision
    }

    pub fn is_progress(&self) -> bool {
        self.events.is_empty() && !self.created && !self.canceled
    }
}

impl Event {
    pub fn revision(&self) -> i64 {
        self.kv
            .as_ref()
            .expect("every event has a record")
            .mod_revision
    }

    /// Its key and value as text; a deletion has `-` for a value.
    pub fn text(&self) -> String {
        let kv = self.kv.as_ref().expect("every event has a record");
        let value = match self.kind {
            0 => String::from_utf8_lossy(&kv.value).into_owned(),
            _ => "-".to_owned(),
        };
        format!("{}={value}", String::from_utf8_lossy(&kv.key))
    }
}

/// A request for one key.
pub fn watch(key: &str) -> WatchCreate {
    WatchCreate {
        key: key.into(),
        ..WatchCreate::default()
    }
}

/// A request for every key.
pub fn watch_all() -> WatchCreate {
    WatchCreate {
        key: vec![0],
        range_end: vec![0],
        ..WatchCreate::default()
    }
}

enum State {
    /// The server answers with its first message; until then the call is on its way.
    Opening(Pin<Box<dyn Future<Output = Answer<Streaming<Bytes>>>>>),
    Open(Box<Streaming<Bytes>>),
    Over,
}

/// One watch call. Dropping it cancels the call.
pub struct WatchStream {
    requests: Option<mpsc::UnboundedSender<Bytes>>,
    state: State,
}

impl WatchStream {
    pub fn open(client: &Client) -> WatchStream {
        let (requests, queue) = mpsc::unbounded_channel();
        let mut client = client.clone();
        let opening = async move {
            client
                .open_stream("/etcdserverpb.Watch/Watch", Queue(queue))
                .await
        };
        WatchStream {
            requests: Some(requests),
            state: State::Opening(Box::pin(opening)),
        }
    }

    pub fn send(&self, union: Union) {
        let request = WatchRequest { union: Some(union) };
        self.send_bytes(request.encode_to_vec());
    }

    pub fn send_bytes(&self, bytes: Vec<u8>) {
        let requests = self.requests.as_ref().expect("not half-closed");
        // The call may be over, which `next` will tell.
        let _ = requests.send(bytes.into());
    }

    pub fn half_close(&mut self) {
        self.requests = None;
    }

    /// The next message, or the status that ended the stream.
    pub async fn next(&mut self) -> Answer<WatchResponse> {
        let next = tokio::time::timeout(MESSAGE_MAX, self.receive()).await;
        next.unwrap_or_else(|_| panic!("no message within {MESSAGE_MAX:?}"))
    }

    /// The next message, however long it takes.
    pub async fn receive(&mut self) -> Answer<WatchResponse> {
        if let State::Opening(opening) = &mut self.state {
            match opening.await {
                Ok(stream) => self.state = State::Open(Box::new(stream)),
                Err(failure) => {
                    self.state = State::Over;
                    return Err(failure);
                }
            }
        }
        let State::Open(stream) = &mut self.state else {
            panic!("the stream is over");
        };
        let bytes = match stream.message().await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => {
                return Err(Failure {
                    code: 0,
                    text: String::new(),
                });
            }
            Err(status) => {
                return Err(Failure {
                    code: status.code() as i32,
                    text: status.message().to_owned(),
                });
            }
        };
        let response = WatchResponse::decode(&*bytes).expect("a watch response");
        assert_eq!(
            response.encoded_len(),
            bytes.len(),
            "fields nobody described: {response:?}"
        );
        Ok(response)
    }

    /// Creates a watcher and gives the answer, which must be the next message.
    pub async fn create(&mut self, request: WatchCreate) -> WatchResponse {
        self.send(Union::Create(request));
        let answer = self.next().await.expect("an answer");
        assert!(answer.created, "{answer:?}");
        answer
    }

    /// Cancels a watcher and gives the answer, which must be the next message.
    pub async fn cancel(&mut self, watch_id: i64) -> WatchResponse {
        self.send(Union::Cancel(WatchCancel { watch_id }));
        let answer = self.next().await.expect("an answer");
        assert!(answer.canceled && !answer.created, "{answer:?}");
        answer
    }

    /// Events until there are `count`, of any watcher, as text.
    pub async fn events(&mut self, count: usize) -> Vec<String> {
        let mut events = Vec::new();
        while events.len() < count {
            let message = self.next().await.expect("events");
            assert!(!message.events.is_empty(), "{message:?}");
            events.extend(message.events.iter().map(Event::text));
        }
        assert_eq!(events.len(), count, "{events:?}");
        events
    }

    /// Collects messages until the server says that every watcher has everything up to `revision`.
    pub async fn sync(&mut self, log: &mut Log, revision: i64) {
        self.send(Union::Progress(WatchProgress {}));
        loop {
            match tokio::time::timeout(PROGRESS_AGAIN, self.receive()).await {
                Err(_) => self.send(Union::Progress(WatchProgress {})),
                Ok(message) => {
                    let message = message.expect("the stream goes on");
                    let told = message.is_progress() && message.watch_id == -1;
                    let told = told.then(|| message.revision());
                    log.add(message);
                    if told.is_some_and(|told| told >= revision) {
                        return;
                    }
                }
            }
        }
    }
}

/// What a stream's watchers were told, whatever was in one message.
#[derive(Default, Debug)]
pub struct Log {
    pub events: BTreeMap<i64, Vec<Event>>,
    /// Of watchers that were cancelled before, in the order of their ends.
    pub retired: Vec<(i64, Vec<Event>)>,
    /// Cancelled watchers and why.
    pub ended: BTreeMap<i64, (i64, String)>,
    /// Parts whose continuation is not there yet.
    is_continued: BTreeMap<i64, bool>,
}

impl Log {
    /// The id is free for another watcher: what the last one was told is kept under another number.
    pub fn retire(&mut self, watch_id: i64) {
        self.is_continued.remove(&watch_id);
        if let Some(events) = self.events.remove(&watch_id) {
            self.retired.push((watch_id, events));
        }
    }

    /// Takes a message in, and checks what must hold on any server: revisions ascend, none is split.
    pub fn add(&mut self, message: WatchResponse) {
        if message.is_progress() {
            for (watch_id, events) in &self.events {
                let is_concerned = message.watch_id == -1 || message.watch_id == *watch_id;
                let last = events.last().map_or(0, Event::revision);
                assert!(
                    !is_concerned || last <= message.revision(),
                    "progress goes back"
                );
            }
            return;
        }
        if message.canceled {
            let end = (message.compact_revision, message.cancel_reason);
            self.ended.insert(message.watch_id, end);
            return;
        }
        let first = message.events.first().map(Event::revision);
        let was_continued = self
            .is_continued
            .insert(message.watch_id, message.fragment)
            .unwrap_or(false);
        let events = self.events.entry(message.watch_id).or_default();
        let last = events.last().map(Event::revision);
        assert!(
            was_continued || last != first || last.is_none(),
            "revision {last:?} is split over messages"
        );
        for event in message.events {
            let last = events.last().map_or(0, Event::revision);
            assert!(last <= event.revision(), "revisions go back: {event:?}");
            events.push(event);
        }
    }
}

struct Queue(mpsc::UnboundedReceiver<Bytes>);

impl Stream for Queue {
    type Item = Bytes;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        self.0.poll_recv(cx)
    }
}
