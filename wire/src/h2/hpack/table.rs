//! The dynamic table (RFC 7541 2.3.2 and 4) on the decoding side.
//!
//! Names and values lie in one buffer in the order they came; the live ones are always the tail of
//! it. When the buffer has grown to twice the table's bound it is moved to the front, so an
//! insertion costs no allocation once the buffer exists.
//!
//! Invariant: `size` is the sum of the entries' sizes and at most `size_max`.

use std::collections::VecDeque;

use super::field::FieldKind;

/// What RFC 7541 4.1 adds to each entry.
pub const ENTRY_OVERHEAD: usize = 32;

#[derive(Debug)]
pub(super) struct Table {
    entries: VecDeque<Entry>,
    bytes: Vec<u8>,
    size: usize,
    size_max: usize,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    offset: u32,
    name_bytes: u32,
    value_bytes: u32,
    kind: FieldKind,
}

impl Entry {
    fn size(&self) -> usize {
        self.name_bytes as usize + self.value_bytes as usize + ENTRY_OVERHEAD
    }
}

impl Table {
    pub(super) fn new(size_max: usize) -> Self {
        Self {
            entries: VecDeque::new(),
            bytes: Vec::new(),
            size: 0,
            size_max,
        }
    }

    /// Name, value and kind of the entry inserted `index` insertions ago (0: the last one).
    #[inline]
    pub(super) fn get(&self, index: usize) -> Option<(&[u8], &[u8], FieldKind)> {
        let entry = self.entries.get(index)?;
        let name = entry.offset as usize;
        let value = name + entry.name_bytes as usize;
        let end = value + entry.value_bytes as usize;
        Some((
            &self.bytes[name..value],
            &self.bytes[value..end],
            entry.kind,
        ))
    }

    /// Inserts a field with a new name.
    pub(super) fn insert(&mut self, name: &[u8], value: &[u8], kind: FieldKind) {
        let size = name.len() + value.len() + ENTRY_OVERHEAD;
        if self.make_room(size) {
            let offset = self.bytes.len() as u32;
            self.bytes.extend_from_slice(name);
            self.push(offset, name.len(), value, kind);
        }
    }

    /// Inserts a field that takes its name from entry `index`, which the insertion itself may evict
    /// (RFC 7541 4.4).
    pub(super) fn insert_named(&mut self, index: usize, value: &[u8], kind: FieldKind) {
        let Some(&named) = self.entries.get(index) else {
            return;
        };
        let name_bytes = named.name_bytes as usize;
        let size = name_bytes + value.len() + ENTRY_OVERHEAD;
        self.compact(size);
        // The bytes of an evicted entry stay where they are until the next compaction, so the name
        // can be copied after.
        let start = self.entries[index].offset as usize;
        if self.evict_for(size) {
            let offset = self.bytes.len() as u32;
            self.bytes.extend_from_within(start..start + name_bytes);
            self.push(offset, name_bytes, value, kind);
        }
    }

    /// A size update of the encoder (RFC 7541 4.3).
    pub(super) fn set_size_max(&mut self, size_max: usize) {
        self.size_max = size_max;
        self.evict_for(0);
    }

    fn push(&mut self, offset: u32, name_bytes: usize, value: &[u8], kind: FieldKind) {
        self.bytes.extend_from_slice(value);
        let entry = Entry {
            offset,
            name_bytes: name_bytes as u32,
            value_bytes: value.len() as u32,
            kind,
        };
        self.size += entry.size();
        assert!(
            self.size <= self.size_max,
            "table of {} over {}",
            self.size,
            self.size_max
        );
        self.entries.push_front(entry);
    }

    fn make_room(&mut self, size: usize) -> bool {
        self.compact(size);
        self.evict_for(size)
    }

    /// Evicts from the oldest end until `size` more fits. False if it never will: the table is then
    /// empty.
    fn evict_for(&mut self, size: usize) -> bool {
        while self.size + size > self.size_max {
            let Some(oldest) = self.entries.pop_back() else {
                self.bytes.clear();
                return false;
            };
            self.size -= oldest.size();
        }
        true
    }

    /// Moves the live tail to the front of the buffer when it is about to outgrow its bound.
    fn compact(&mut self, size: usize) {
        if self.bytes.len() + size <= 2 * self.size_max.max(1024) {
            return;
        }
        let start = self
            .entries
            .back()
            .map_or(self.bytes.len(), |oldest| oldest.offset as usize);
        self.bytes.copy_within(start.., 0);
        self.bytes.truncate(self.bytes.len() - start);
        for entry in &mut self.entries {
            entry.offset -= start as u32;
        }
    }

    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        self.size
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}
