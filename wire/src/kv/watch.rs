//! The messages of the watch service: requests decoded by borrowing, responses put together from parts.
//!
//! A response is the header, the watcher's id and the events, in this order. Watchers that ask the same differ in the
//! id alone, so header and events are encoded once for all of them, and a message is three pieces copied one after the
//! other. Records go out as they are stored.
//!
//! Always true: fields in number order, zero fields left out: the bytes any protobuf library would write. Called by the
//! net cores. Does not check what a request means.

use super::decode::{DecodeError, Reader, Value};
use super::encode::ResponseHeader;
use super::field::{
    i64_len, present_bytes_len, put_bool, put_i64, put_message_key, put_present_bytes, put_varint,
};

/// `etcdserverpb.WatchRequest`: one of three, or none that is known.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum WatchRequestRef<'a> {
    #[default]
    None,
    Create(WatchCreateRef<'a>),
    /// The watcher to cancel.
    Cancel(i64),
    Progress,
}

/// `etcdserverpb.WatchCreateRequest`.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct WatchCreateRef<'a> {
    pub key: &'a [u8],
    pub range_end: &'a [u8],
    pub start_revision: i64,
    pub progress_notify: bool,
    /// NOPUT is among the filters.
    pub no_put: bool,
    /// NODELETE is among the filters.
    pub no_delete: bool,
    pub prev_kv: bool,
    pub watch_id: i64,
    pub fragment: bool,
}

impl<'a> WatchRequestRef<'a> {
    /// Decodes a whole message. Of several members of the union the last one counts; the same one again is merged.
    pub fn decode(message: &'a [u8]) -> Result<Self, DecodeError> {
        let mut request = Self::None;
        let mut reader = Reader::new(message);
        while let Some((field, value)) = reader.next_field()? {
            request = match field {
                1 => {
                    let mut create = match request {
                        Self::Create(create) => create,
                        _ => WatchCreateRef::default(),
                    };
                    create.merge(value.bytes(field)?)?;
                    Self::Create(create)
                }
                2 => {
                    let mut watch_id = match request {
                        Self::Cancel(watch_id) => watch_id,
                        _ => 0,
                    };
                    let mut cancel = Reader::new(value.bytes(field)?);
                    while let Some((field, value)) = cancel.next_field()? {
                        if field == 1 {
                            watch_id = value.i64(field)?;
                        }
                    }
                    Self::Cancel(watch_id)
                }
                3 => {
                    let mut progress = Reader::new(value.bytes(field)?);
                    while progress.next_field()?.is_some() {}
                    Self::Progress
                }
                _ => request,
            };
        }
        Ok(request)
    }
}

impl<'a> WatchCreateRef<'a> {
    fn merge(&mut self, message: &'a [u8]) -> Result<(), DecodeError> {
        let mut reader = Reader::new(message);
        while let Some((field, value)) = reader.next_field()? {
            match field {
                1 => self.key = value.bytes(field)?,
                2 => self.range_end = value.bytes(field)?,
                3 => self.start_revision = value.i64(field)?,
                4 => self.progress_notify = value.bool(field)?,
                5 => match value {
                    Value::Bytes(packed) => {
                        let mut numbers = Reader::new(packed);
                        while !numbers.rest().is_empty() {
                            self.filter(numbers.varint()? as i32);
                        }
                    }
                    _ => self.filter(value.i32(field)?),
                },
                6 => self.prev_kv = value.bool(field)?,
                7 => self.watch_id = value.i64(field)?,
                8 => self.fragment = value.bool(field)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Numbers that name no filter are ignored.
    fn filter(&mut self, number: i32) {
        self.no_put |= number == 0;
        self.no_delete |= number == 1;
    }
}

/// What a response without events says besides its header.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct WatchControl<'a> {
    pub watch_id: i64,
    pub created: bool,
    pub canceled: bool,
    pub compact_revision: i64,
    pub cancel_reason: &'a str,
}

/// Appends a `WatchResponse` without events.
pub fn put_watch_control(out: &mut Vec<u8>, header: &ResponseHeader, control: &WatchControl<'_>) {
    header.put(out);
    put_watch_id(out, control.watch_id);
    put_watch_verdict(out, control);
}

/// Appends what follows the id in a response without events.
pub fn put_watch_verdict(out: &mut Vec<u8>, control: &WatchControl<'_>) {
    put_bool(out, 3, control.created);
    put_bool(out, 4, control.canceled);
    put_i64(out, 5, control.compact_revision);
    if !control.cancel_reason.is_empty() {
        put_present_bytes(out, 6, control.cancel_reason.as_bytes());
    }
}

/// Appends the field for the id, which follows the header.
pub fn put_watch_id(out: &mut Vec<u8>, watch_id: i64) {
    put_i64(out, 2, watch_id);
}

/// Appends the mark of a part that others follow; it stands between the id and the events.
pub fn put_watch_fragment(out: &mut Vec<u8>) {
    put_bool(out, 7, true);
}

/// One event of a `WatchResponse`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WatchEvent<'a> {
    /// Of a deletion, whose stored record has the key alone: its revision.
    pub deleted_at: Option<i64>,
    /// The stored record.
    pub record: &'a [u8],
    /// The record before, if it was asked for and is there.
    pub prev: Option<&'a [u8]>,
}

/// Appends an event.
pub fn put_watch_event(out: &mut Vec<u8>, event: &WatchEvent<'_>) {
    let deleted_at = event.deleted_at.unwrap_or(0);
    let kv_len = event.record.len() + i64_len(3, deleted_at);
    let kind = i64::from(event.deleted_at.is_some());
    let prev_len = event
        .prev
        .map_or(0, |prev| present_bytes_len(3, prev.len()));
    let len = i64_len(1, kind) + present_bytes_len(2, kv_len) + prev_len;
    out.reserve(len + 16);
    put_message_key(out, 11);
    put_varint(out, len as u64);
    put_i64(out, 1, kind);
    put_message_key(out, 2);
    put_varint(out, kv_len as u64);
    out.extend_from_slice(event.record);
    put_i64(out, 3, deleted_at);
    if let Some(prev) = event.prev {
        put_present_bytes(out, 3, prev);
    }
}

/// The key of a stored record, which is its first field in all that this server and etcd write.
pub fn record_key(record: &[u8]) -> Option<&[u8]> {
    let mut reader = Reader::new(record);
    while let Ok(Some((field, value))) = reader.next_field() {
        if let (1, Value::Bytes(key)) = (field, value) {
            return Some(key);
        }
    }
    None
}
