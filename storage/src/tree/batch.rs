//! A batch of changes, bucket by bucket, that one commit makes durable together.
//!
//! Keys and values are borrowed: a record is copied once, into the page it is written to. Ascending keys are the
//! fast path; a bucket whose changes came in another order is sorted once, and for equal keys the last change wins.

use std::collections::BTreeMap;

use super::format::{KEY_BYTES_MAX, VALUE_BYTES_MAX};

/// Changes to any number of buckets. Buckets that do not exist are created.
#[derive(Debug, Default)]
pub struct WriteBatch<'a> {
    pub(crate) buckets: BTreeMap<&'a [u8], BucketChanges<'a>>,
}

/// What happens to one bucket.
#[derive(Debug, Default)]
pub(crate) struct BucketChanges<'a> {
    /// All that was in the bucket before this batch goes.
    pub(crate) clear: bool,
    pub(crate) changes: Vec<Change<'a>>,
    unsorted: bool,
}

/// What happens at one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Change<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) action: Action<'a>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action<'a> {
    Put(&'a [u8]),
    Delete,
    /// The record stays as it is, and its leaf is written to another place.
    Move,
    /// The same, and the leaf is joined with neighbours that are packed too.
    Pack,
}

impl<'a> Change<'a> {
    pub(crate) fn put(key: &'a [u8], value: &'a [u8]) -> Change<'a> {
        let action = Action::Put(value);
        Change { key, action }
    }

    pub(crate) fn delete(key: &'a [u8]) -> Change<'a> {
        let action = Action::Delete;
        Change { key, action }
    }

    pub(crate) fn value(&self) -> Option<&'a [u8]> {
        match self.action {
            Action::Put(value) => Some(value),
            Action::Delete | Action::Move | Action::Pack => None,
        }
    }
}

impl<'a> WriteBatch<'a> {
    pub fn new() -> WriteBatch<'a> {
        WriteBatch::default()
    }

    /// True when a commit of this batch would change nothing.
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    /// Creates `bucket`, empty, if it does not exist.
    pub fn create_bucket(&mut self, bucket: &'a [u8]) {
        self.buckets.entry(bucket).or_default();
    }

    /// Sets `key` to `value`. Fast when keys of a bucket come in ascending order.
    pub fn put(&mut self, bucket: &'a [u8], key: &'a [u8], value: &'a [u8]) {
        self.push(bucket, Change::put(key, value));
    }

    /// Removes `key`; nothing happens if it is absent.
    pub fn delete(&mut self, bucket: &'a [u8], key: &'a [u8]) {
        self.push(bucket, Change::delete(key));
    }

    /// Empties `bucket`: what it held before this batch, and what this batch put into it so far. The cost is that
    /// of reading the bucket's pages once, so it is meant for small buckets.
    pub fn delete_all(&mut self, bucket: &'a [u8]) {
        *self.buckets.entry(bucket).or_default() = BucketChanges {
            clear: true,
            changes: Vec::new(),
            unsorted: false,
        };
    }

    /// Puts many records into one bucket without looking the bucket up for each.
    pub fn extend(
        &mut self,
        bucket: &'a [u8],
        records: impl IntoIterator<Item = (&'a [u8], Option<&'a [u8]>)>,
    ) {
        let bucket = self.buckets.entry(bucket).or_default();
        for (key, value) in records {
            bucket.push(value.map_or(Change::delete(key), |value| Change::put(key, value)));
        }
    }

    fn push(&mut self, bucket: &'a [u8], change: Change<'a>) {
        self.buckets.entry(bucket).or_default().push(change);
    }
}

impl<'a> BucketChanges<'a> {
    fn push(&mut self, change: Change<'a>) {
        if self
            .changes
            .last()
            .is_some_and(|last| last.key >= change.key)
        {
            self.unsorted = true;
        }
        self.changes.push(change);
    }

    /// The changes in strictly ascending key order, borrowed when they came that way.
    pub(crate) fn ascending(&self) -> std::borrow::Cow<'_, [Change<'a>]> {
        if !self.unsorted {
            return std::borrow::Cow::Borrowed(&self.changes);
        }
        let mut sorted = self.changes.clone();
        sorted.sort_by(|a, b| a.key.cmp(b.key));
        // The sort is stable, so of equal keys the last one is the latest change.
        let mut kept: Vec<Change<'a>> = Vec::with_capacity(sorted.len());
        for change in sorted {
            match kept.last_mut() {
                Some(last) if last.key == change.key => *last = change,
                _ => kept.push(change),
            }
        }
        std::borrow::Cow::Owned(kept)
    }

    /// Refuses what the format cannot hold, before anything is allocated for it.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        for change in &self.changes {
            check_key(change.key)?;
            if change.value().is_some_and(|v| v.len() > VALUE_BYTES_MAX) {
                return Err("a value is longer than 2 GiB");
            }
        }
        Ok(())
    }
}

pub(crate) fn check_key(key: &[u8]) -> Result<(), &'static str> {
    if key.is_empty() {
        return Err("a key or bucket name is empty");
    }
    if key.len() > KEY_BYTES_MAX {
        return Err("a key or bucket name is longer than 32768 bytes");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_change_of_a_key_wins_whatever_the_order() {
        let mut batch = WriteBatch::new();
        batch.put(b"b", b"2", b"old");
        batch.put(b"b", b"1", b"one");
        batch.delete(b"b", b"2");
        batch.put(b"b", b"2", b"new");
        let bucket = &batch.buckets[b"b".as_slice()];
        let sorted = bucket.ascending();
        assert_eq!(
            sorted.as_ref(),
            &[Change::put(b"1", b"one"), Change::put(b"2", b"new")]
        );
    }
}
