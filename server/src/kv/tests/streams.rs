//! Streamed ranges: parts, their sizes, the last message.

use super::super::range_stream::{RangeStreamJob, StreamProgress};
use super::*;

fn stream(
    store: &ModelStore,
    request: &pb::RangeRequest,
    target_bytes: usize,
) -> Vec<pb::RangeResponse> {
    let bytes = request.encode_to_vec();
    let request = RangeRequestRef::decode(&bytes).unwrap();
    let results = BUDGETS.map(|budget| {
        let mut messages = Vec::new();
        let mut job = RangeStreamJob::begin(store, &request, &HEADER, target_bytes).unwrap();
        loop {
            let mut out = Vec::new();
            let progress = job.step(store, budget, &mut out).unwrap();
            if progress != StreamProgress::More {
                let message = pb::RangeStreamResponse::decode(&*out).unwrap();
                messages.push(message.range_response.unwrap());
            }
            if progress == StreamProgress::LastMessage {
                return messages;
            }
        }
    });
    for result in &results[1..] {
        assert_eq!(*result, results[0]);
    }
    results.into_iter().next().unwrap()
}

fn store(keys: usize) -> ModelStore {
    let mut store = ModelStore::default();
    for key in 0..keys {
        store.put(format!("k{key:04}").as_bytes(), b"0123456789", 0);
    }
    store
}

fn all(limit: i64) -> pb::RangeRequest {
    pb::RangeRequest {
        key: b"k".to_vec(),
        range_end: b"l".to_vec(),
        limit,
        ..Default::default()
    }
}

fn check(keys: usize, limit: i64, target_bytes: usize, sizes: &[usize], more: bool) {
    let store = store(keys);
    let messages = stream(&store, &all(limit), target_bytes);
    let got: Vec<usize> = messages.iter().map(|message| message.kvs.len()).collect();
    assert_eq!(got, sizes);
    let (last, earlier) = messages.split_last().unwrap();
    for message in earlier {
        assert_eq!(
            (message.header, message.more, message.count),
            (None, false, 0)
        );
    }
    assert_eq!(last.header, header(keys as i64 + 1));
    assert_eq!((last.more, last.count), (more, keys as i64));
    let sent: Vec<_> = messages.iter().flat_map(|message| &message.kvs).collect();
    let whole = range(&store, all(limit)).unwrap();
    assert!(sent.into_iter().eq(&whole.kvs));
}

#[test]
fn small_messages_double() {
    check(100, 0, 1 << 20, &[10, 20, 40, 30], false);
    check(70, 0, 1 << 20, &[10, 20, 40], false);
    check(10, 0, 1 << 20, &[10], false);
    check(0, 0, 1 << 20, &[0], false);
}

#[test]
fn large_messages_halve_down_to_one() {
    // A record of these takes about 30 bytes.
    check(30, 0, 120, &[10, 5, 5, 5, 5], false);
    check(20, 0, 1, &[10, 5, 2, 1, 1, 1], false);
}

#[test]
fn limits() {
    check(100, 5, 1 << 20, &[5], true);
    check(100, 10, 1 << 20, &[10], true);
    check(100, 35, 1 << 20, &[10, 20, 5], true);
    check(35, 35, 1 << 20, &[10, 20, 5], false);
    check(40, -1, 1 << 20, &[40], false);
}

#[test]
fn counts_only() {
    let store = store(50);
    let messages = stream(
        &store,
        &pb::RangeRequest {
            count_only: true,
            ..all(3)
        },
        1 << 20,
    );
    let expected = pb::RangeResponse {
        header: header(51),
        count: 50,
        ..Default::default()
    };
    assert_eq!(messages, [expected]);
}

#[test]
fn the_revision_is_fixed_at_the_first_part() {
    let mut store = store(50);
    let request = RangeRequestRef {
        key: b"k",
        range_end: b"l",
        ..Default::default()
    };
    let mut job = RangeStreamJob::begin(&store, &request, &HEADER, 1 << 20).unwrap();
    let mut keys = 0;
    loop {
        let mut out = Vec::new();
        let progress = job.step(&store, Budget::UNBOUNDED, &mut out).unwrap();
        let part = pb::RangeStreamResponse::decode(&*out)
            .unwrap()
            .range_response
            .unwrap();
        keys += part.kvs.len();
        store.put(b"k9", b"new", 0);
        store.delete(b"k0049");
        if progress == StreamProgress::LastMessage {
            assert_eq!((part.header, part.count), (header(51), 50));
            break;
        }
    }
    assert_eq!(keys, 50);
}

#[test]
fn keys_only_streams_are_built_from_the_index() {
    let store = store(3);
    let request = pb::RangeRequest {
        keys_only: true,
        ..all(0)
    };
    let kvs = &stream(&store, &request, 1 << 20)[0].kvs;
    assert_eq!(kvs.len(), 3);
    assert!(kvs.iter().all(|kv| kv.value.is_empty() && kv.version == 1));
}
