//! The watch service's codec against a protobuf library, on made-up messages and on damaged ones.

use proptest::prelude::*;
use prost::Message;
use wire::kv::{
    ResponseHeader, WatchControl, WatchCreateRef, WatchEvent, WatchRequestRef, put_watch_control,
    put_watch_event, put_watch_fragment, put_watch_id, record_key,
};
use wire::messages::etcdserverpb::watch_request::RequestUnion;
use wire::messages::mvccpb::{Event, KeyValue, event::EventType};
use wire::messages::{etcdserverpb as pb, mvccpb};

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..40)
}

fn number() -> impl Strategy<Value = i64> {
    prop_oneof![Just(0), 0..200i64, any::<i64>()]
}

fn create() -> impl Strategy<Value = pb::WatchCreateRequest> {
    let filters = prop::collection::vec(-1..4i32, 0..4);
    (
        bytes(),
        bytes(),
        number(),
        number(),
        filters,
        any::<[bool; 3]>(),
    )
        .prop_map(
            |(key, range_end, start_revision, watch_id, filters, flags)| pb::WatchCreateRequest {
                key,
                range_end,
                start_revision,
                progress_notify: flags[0],
                filters,
                prev_kv: flags[1],
                watch_id,
                fragment: flags[2],
            },
        )
}

fn request() -> impl Strategy<Value = pb::WatchRequest> {
    prop_oneof![
        3 => create().prop_map(RequestUnion::CreateRequest),
        1 => number().prop_map(|watch_id| {
            RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id })
        }),
        1 => Just(RequestUnion::ProgressRequest(pb::WatchProgressRequest {})),
    ]
    .prop_map(|union| pb::WatchRequest {
        request_union: Some(union),
    })
}

fn key_value() -> impl Strategy<Value = KeyValue> {
    (bytes(), bytes(), [number(), number(), number(), number()]).prop_map(|(key, value, n)| {
        KeyValue {
            key,
            create_revision: n[0],
            mod_revision: n[1],
            version: n[2],
            value,
            lease: n[3],
        }
    })
}

/// What `decode` must see in a message that the library has decoded.
fn seen(request: &pb::WatchRequest) -> WatchRequestRef<'_> {
    match &request.request_union {
        None => WatchRequestRef::None,
        Some(RequestUnion::CreateRequest(create)) => WatchRequestRef::Create(WatchCreateRef {
            key: &create.key,
            range_end: &create.range_end,
            start_revision: create.start_revision,
            progress_notify: create.progress_notify,
            no_put: create.filters.contains(&0),
            no_delete: create.filters.contains(&1),
            prev_kv: create.prev_kv,
            watch_id: create.watch_id,
            fragment: create.fragment,
        }),
        Some(RequestUnion::CancelRequest(cancel)) => WatchRequestRef::Cancel(cancel.watch_id),
        Some(RequestUnion::ProgressRequest(_)) => WatchRequestRef::Progress,
    }
}

proptest! {
    #[test]
    fn requests_are_read_as_the_library_reads_them(requests in prop::collection::vec(request(), 1..4)) {
        // Several in one message: of a union the last counts, of a message the fields are merged.
        let message: Vec<u8> = requests.iter().flat_map(|request| request.encode_to_vec()).collect();
        let library = pb::WatchRequest::decode(&*message).unwrap();
        prop_assert_eq!(WatchRequestRef::decode(&message), Ok(seen(&library)));
    }

    #[test]
    fn damaged_requests_are_answered(request in request(), at: prop::sample::Index, byte: u8) {
        let mut message = request.encode_to_vec();
        if !message.is_empty() {
            let at = at.index(message.len());
            message[at] = byte;
        }
        // The library tells apart what is no UTF-8; there is no text in these messages.
        let library = pb::WatchRequest::decode(&*message).ok();
        if let (Ok(ours), Some(library)) = (WatchRequestRef::decode(&message), &library) {
            prop_assert_eq!(ours, seen(library));
        }
    }

    #[test]
    fn any_bytes_are_answered(bytes: Vec<u8>) {
        let _ = WatchRequestRef::decode(&bytes);
        let _ = record_key(&bytes);
    }

    #[test]
    fn responses_are_those_of_the_library(
        n: [u64; 4], watch_id in number(), flags: [bool; 3], compact_revision in number(),
        events in prop::collection::vec((key_value(), prop::option::of(key_value()), any::<bool>()), 0..4),
    ) {
        let header = ResponseHeader {
            cluster_id: n[0], member_id: n[1], revision: n[2] as i64, raft_term: n[3],
        };
        let mut library = pb::WatchResponse {
            header: Some(pb::ResponseHeader {
                cluster_id: n[0], member_id: n[1], revision: n[2] as i64, raft_term: n[3],
            }),
            watch_id,
            created: flags[0],
            canceled: flags[1],
            compact_revision,
            cancel_reason: if flags[2] { "reason".to_owned() } else { String::new() },
            ..pb::WatchResponse::default()
        };
        let control = WatchControl {
            watch_id,
            created: flags[0],
            canceled: flags[1],
            compact_revision,
            cancel_reason: &library.cancel_reason,
        };
        let mut ours = Vec::new();
        put_watch_control(&mut ours, &header, &control);
        prop_assert_eq!(&ours, &library.encode_to_vec());

        ours.clear();
        header.put(&mut ours);
        put_watch_id(&mut ours, watch_id);
        if flags[2] {
            put_watch_fragment(&mut ours);
        }
        library = pb::WatchResponse {
            header: library.header, watch_id, fragment: flags[2], ..pb::WatchResponse::default()
        };
        for (kv, prev, is_delete) in events {
            let stored = if is_delete {
                KeyValue { key: kv.key.clone(), ..KeyValue::default() }
            } else {
                kv.clone()
            };
            let record = stored.encode_to_vec();
            let prev_record = prev.as_ref().map(|prev| prev.encode_to_vec());
            put_watch_event(&mut ours, &WatchEvent {
                deleted_at: is_delete.then_some(kv.mod_revision),
                record: &record,
                prev: prev_record.as_deref(),
            });
            if !kv.key.is_empty() {
                prop_assert_eq!(record_key(&record), Some(&kv.key[..]));
            }
            let (kind, kv) = if is_delete {
                let shown = mvccpb::KeyValue { key: kv.key, mod_revision: kv.mod_revision, ..KeyValue::default() };
                (EventType::Delete, shown)
            } else {
                (EventType::Put, kv)
            };
            library.events.push(Event { r#type: kind.into(), kv: Some(kv), prev_kv: prev });
        }
        prop_assert_eq!(ours, library.encode_to_vec());
    }
}

#[test]
fn packed_and_single_filters_are_the_same() {
    for message in [&[0x28, 1, 0x28, 0][..], &[0x2a, 2, 1, 0]] {
        let mut request = vec![0x0a, message.len() as u8];
        request.extend_from_slice(message);
        let Ok(WatchRequestRef::Create(create)) = WatchRequestRef::decode(&request) else {
            panic!("{request:?} creates a watcher");
        };
        assert!(create.no_put && create.no_delete);
    }
}
