//! One number for everything a state of the file holds, as etcd's `Hash` call gives it.
//!
//! CRC-32C over the buckets in the order of their names: the name, then every key and value of it (semantics sheet, 13).
//! Worked off in pieces, so that one thread can do other things between them. Reads through the map, so it may wait for the disk:
//! for helper threads. Holds its state until it is dropped.

use super::error::PageDamage;
use super::snapshot::Snapshot;

pub struct ContentHash {
    snapshot: Snapshot,
    /// Keys that do not count, by bucket and key.
    is_left_out: fn(&[u8], &[u8]) -> bool,
    bucket: Vec<u8>,
    /// The last key that was taken in `bucket`; `None` before the first.
    after: Option<Vec<u8>>,
    /// `bucket` is done.
    is_between: bool,
    crc: u32,
}

impl ContentHash {
    pub fn new(snapshot: Snapshot, is_left_out: fn(&[u8], &[u8]) -> bool) -> ContentHash {
        ContentHash {
            snapshot,
            is_left_out,
            bucket: Vec::new(),
            after: None,
            is_between: true,
            crc: 0,
        }
    }

    /// Works off about `budget` bytes; the number once all is done.
    ///
    /// # Errors
    /// A page is damaged.
    pub fn step(&mut self, mut budget: usize) -> Result<Option<u32>, PageDamage> {
        loop {
            if self.is_between && !self.next_bucket()? {
                return Ok(Some(self.crc));
            }
            let held = self.snapshot.bucket(&self.bucket)?;
            let Some(held) = held else {
                // A value beside the buckets; etcd writes none.
                self.is_between = true;
                continue;
            };
            let mut cursor = held.range(self.after.as_deref().unwrap_or_default())?;
            while let Some((key, value)) = cursor.next()? {
                if self.after.as_deref() == Some(key) {
                    continue;
                }
                if !(self.is_left_out)(&self.bucket, key) {
                    self.crc = crc32c::crc32c_append(self.crc, key);
                    self.crc = crc32c::crc32c_append(self.crc, value);
                }
                budget = budget.saturating_sub(key.len() + value.len());
                if budget == 0 {
                    self.after = Some(key.to_vec());
                    return Ok(None);
                }
            }
            self.is_between = true;
        }
    }

    /// Moves to the first bucket behind the present one; false at the end.
    fn next_bucket(&mut self) -> Result<bool, PageDamage> {
        let mut cursor = self.snapshot.root_bucket().range(&self.bucket)?;
        while let Some(element) = cursor.next_element()? {
            if element.is_bucket() && self.bucket.as_slice() < element.key {
                self.bucket = element.key.to_vec();
                self.crc = crc32c::crc32c_append(self.crc, element.key);
                self.after = None;
                self.is_between = false;
                return Ok(true);
            }
        }
        Ok(false)
    }
}
