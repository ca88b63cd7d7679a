//! Assembles a range reply, in steps.
//!
//! Always true: one job reads at one revision, fixed when it begins; a step does a bounded amount of work, so a range of
//! any length never holds its core; without sorting, records go from the store to the output and nowhere else. A sorted
//! range keeps the keys it may return (all of them, or `limit` + 1): never more than a small multiple of its reply. Runs
//! on the net cores, and inside transactions on the apply core. Does not check the request.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::ops::ControlFlow;

use wire::error::EtcdError;
use wire::kv::{
    KeyValueParts, RangeRequestRef, ResponseHeader, put_range_end, put_range_header, put_range_kv,
    put_range_kv_parts,
};

use super::store::{KeyMeta, KeyRange, Progress, ReadStore, ScanMode, StoredItem, read_record};
use super::validate::{has_filters, is_key_order, sort_order, sort_target};

/// How much one step may do. The step ends after the item that reaches a bound.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Keys looked at.
    pub keys: usize,
    /// Bytes appended to the output.
    pub bytes: usize,
}

impl Budget {
    /// For work that must not be interrupted.
    pub const UNBOUNDED: Budget = Budget {
        keys: usize::MAX,
        bytes: usize::MAX,
    };
}

impl Default for Budget {
    /// About 100 µs of work.
    fn default() -> Self {
        Budget {
            keys: 512,
            bytes: 256 * 1024,
        }
    }
}

/// A range under way. Reusable: its buffers are kept from one range to the next.
pub struct RangeJob<Scan> {
    spec: Spec,
    key: Vec<u8>,
    end: Vec<u8>,
    scan: Option<Scan>,
    /// `begin` has written the whole reply.
    is_answered: bool,
    /// Items that passed the filters.
    survivors: usize,
    sorted: Sorted,
}

/// The numbers of a request.
#[derive(Clone, Copy, Default, Debug)]
struct Spec {
    /// 0 = none.
    limit: usize,
    count_only: bool,
    has_filters: bool,
    /// The limit is applied while scanning, before any sorting.
    is_cut_first: bool,
    /// `None`: the store's order is the wanted one.
    sort: Option<Sort>,
    min_mod_revision: i64,
    max_mod_revision: i64,
    min_create_revision: i64,
    max_create_revision: i64,
    records: Records,
}

/// What of a record goes into the reply.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) enum Records {
    #[default]
    Whole,
    WithoutValue,
    /// Built from the index alone: no value, and no lease even if the key has one.
    FromIndex,
}

impl Records {
    pub(super) fn of(request: &RangeRequestRef<'_>) -> Self {
        match (request.keys_only, request.sort_target) {
            (false, _) => Records::Whole,
            (true, sort_target::VALUE) => Records::WithoutValue,
            (true, _) => Records::FromIndex,
        }
    }

    pub(super) fn put(self, item: &dyn StoredItem, meta: &KeyMeta, out: &mut Vec<u8>) {
        match self {
            Records::Whole => put_range_kv(out, item.record()),
            Records::WithoutValue => {
                let kv = read_record(item.record());
                put_range_kv_parts(out, &KeyValueParts { value: b"", ..kv });
            }
            Records::FromIndex => put_index_entry(item.key(), meta, out),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Sort {
    target: i32,
    descending: bool,
}

impl<Scan> Default for RangeJob<Scan> {
    fn default() -> Self {
        RangeJob {
            spec: Spec::default(),
            key: Vec::new(),
            end: Vec::new(),
            scan: None,
            is_answered: false,
            survivors: 0,
            sorted: Sorted::default(),
        }
    }
}

impl<Scan> RangeJob<Scan> {
    /// Begins a checked request and appends the reply's header to `out`; its revision is the store's.
    pub fn begin<S: ReadStore<Scan = Scan>>(
        &mut self,
        store: &S,
        request: &RangeRequestRef<'_>,
        header: &ResponseHeader,
        out: &mut Vec<u8>,
    ) -> Result<(), EtcdError> {
        self.begin_at(store, request, None, header, out)
    }

    /// The same inside a transaction whose state is `snapshot`: the newest revision is that one, whatever the store has
    /// seen since.
    pub fn begin_at<S: ReadStore<Scan = Scan>>(
        &mut self,
        store: &S,
        request: &RangeRequestRef<'_>,
        snapshot: Option<i64>,
        header: &ResponseHeader,
        out: &mut Vec<u8>,
    ) -> Result<(), EtcdError> {
        self.spec = Spec::of(request);
        self.key.clear();
        self.key.extend_from_slice(request.key);
        self.end.clear();
        self.end.extend_from_slice(request.range_end);
        self.survivors = 0;
        self.sorted.clear();
        self.is_answered = false;
        if request.range_end.is_empty() {
            self.answer_single(store, request, snapshot, header, out)?;
            self.is_answered = true;
            return Ok(());
        }
        let at = match snapshot {
            Some(newest) if request.revision > newest => return Err(EtcdError::FutureRevision),
            Some(newest) if request.revision <= 0 => newest,
            _ => request.revision,
        };
        let scan = store.scan(
            KeyRange::new(&self.key, &self.end),
            at,
            self.spec.scan_mode(),
        )?;
        let revision = snapshot.unwrap_or_else(|| store.scan_revision(&scan));
        self.scan = Some(scan);
        put_range_header(
            out,
            &ResponseHeader {
                revision,
                ..*header
            },
        );
        Ok(())
    }

    /// One key needs no scan: neither limit nor order can change the answer.
    fn answer_single<S: ReadStore<Scan = Scan>>(
        &mut self,
        store: &S,
        request: &RangeRequestRef<'_>,
        snapshot: Option<i64>,
        header: &ResponseHeader,
        out: &mut Vec<u8>,
    ) -> Result<(), EtcdError> {
        let base = out.len();
        loop {
            let newest = snapshot.unwrap_or_else(|| store.revision());
            if request.revision > newest {
                if snapshot.is_none() {
                    // The store is asked all the same: it counts, and knows what came meanwhile.
                    store.get(request.key, request.revision, &mut |_| {})?;
                    continue;
                }
                return Err(EtcdError::FutureRevision);
            }
            let at = if request.revision <= 0 {
                newest
            } else {
                request.revision
            };
            put_range_header(
                out,
                &ResponseHeader {
                    revision: newest,
                    ..*header
                },
            );
            let spec = &self.spec;
            let mut count = 0;
            let result = store.get(request.key, at, &mut |item| {
                count = 1;
                let meta = item.meta();
                if !spec.count_only && spec.keeps(&meta) {
                    spec.records.put(item, &meta, out);
                }
            });
            match result {
                Ok(()) => {
                    put_range_end(out, false, count);
                    return Ok(());
                }
                // Writes and a compaction went by since the newest revision was read. The client asked for the
                // newest, so it gets the newer one; each round means that another compaction was accepted.
                Err(_) if snapshot.is_none() && request.revision <= 0 => out.truncate(base),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Appends the next part of the reply. After an error the job is over, and what was appended is worthless.
    pub fn step<S: ReadStore<Scan = Scan>>(
        &mut self,
        store: &S,
        budget: Budget,
        out: &mut Vec<u8>,
    ) -> Result<Progress, EtcdError> {
        if self.is_answered {
            return Ok(Progress::Done);
        }
        if self.sorted.is_emitting {
            return self.emit_sorted(store, budget, out);
        }
        let spec = &self.spec;
        let survivors = &mut self.survivors;
        let sorted = &mut self.sorted;
        let scan = self
            .scan
            .as_mut()
            .expect("a job is begun before it is stepped");
        let bytes_end = out.len().saturating_add(budget.bytes);
        let range = KeyRange::new(&self.key, &self.end);
        let progress = store.step(scan, range, budget.keys, &mut |item| {
            let meta = item.meta();
            if !spec.keeps(&meta) {
                return ControlFlow::Continue(());
            }
            *survivors += 1;
            if let Some(sort) = spec.sort {
                sorted.add(sort, spec.limit, item, &meta);
            } else if spec.limit == 0 || *survivors <= spec.limit {
                spec.records.put(item, &meta, out);
            }
            if out.len() < bytes_end {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        })?;
        if progress == Progress::More {
            return Ok(Progress::More);
        }
        if self.spec.sort.is_some() {
            self.sorted.begin_emitting();
            return self.emit_sorted(store, budget, out);
        }
        self.end(store, out);
        Ok(Progress::Done)
    }

    /// Runs a job to its end; for callers that may not be interrupted.
    pub fn finish<S: ReadStore<Scan = Scan>>(
        &mut self,
        store: &S,
        out: &mut Vec<u8>,
    ) -> Result<(), EtcdError> {
        while self.step(store, Budget::UNBOUNDED, out)? == Progress::More {}
        Ok(())
    }

    fn emit_sorted<S: ReadStore<Scan = Scan>>(
        &mut self,
        store: &S,
        budget: Budget,
        out: &mut Vec<u8>,
    ) -> Result<Progress, EtcdError> {
        let at = store.scan_at(self.scan.as_ref().expect("emitting follows the scan"));
        let bytes_end = out.len().saturating_add(budget.bytes);
        let mut keys = 0;
        while let Some(Reverse(entry)) = self.sorted.first.pop() {
            let spec = &self.spec;
            if spec.records == Records::FromIndex {
                put_index_entry(&entry.key, &entry.meta, out);
            } else {
                let mut found = false;
                store.get(&entry.key, at, &mut |item| {
                    found = true;
                    spec.records.put(item, &entry.meta, out);
                })?;
                assert!(
                    found,
                    "a key that was live at revision {at} stays live there"
                );
            }
            keys += 1;
            if keys >= budget.keys || out.len() >= bytes_end {
                return Ok(Progress::More);
            }
        }
        self.end(store, out);
        self.sorted.clear();
        Ok(Progress::Done)
    }

    fn end<S: ReadStore<Scan = Scan>>(&mut self, store: &S, out: &mut Vec<u8>) {
        let scan = self.scan.take().expect("ends once");
        let count = store.scan_count(&scan);
        let spec = &self.spec;
        let more = if spec.count_only || spec.limit == 0 {
            false
        } else if spec.has_filters {
            self.survivors > spec.limit
        } else {
            count > spec.limit
        };
        put_range_end(out, more, count as i64);
    }
}

impl Spec {
    fn of(request: &RangeRequestRef<'_>) -> Self {
        let descending = request.sort_order == sort_order::DESCEND;
        let is_sorted = descending || request.sort_target != sort_target::KEY;
        let has_filters = has_filters(request);
        Spec {
            limit: usize::try_from(request.limit).unwrap_or(0),
            count_only: request.count_only,
            has_filters,
            is_cut_first: is_key_order(request) && !has_filters,
            sort: is_sorted.then_some(Sort {
                target: request.sort_target,
                descending,
            }),
            min_mod_revision: request.min_mod_revision,
            max_mod_revision: request.max_mod_revision,
            min_create_revision: request.min_create_revision,
            max_create_revision: request.max_create_revision,
            records: Records::of(request),
        }
    }

    fn scan_mode(&self) -> ScanMode {
        if self.count_only {
            ScanMode::Count
        } else if !self.is_cut_first || self.limit == 0 {
            ScanMode::Items { limit: 0 }
        } else if self.sort.is_some() {
            // etcd fetches one more than the limit to know whether there is more, and sorts that one too.
            ScanMode::Items {
                limit: self.limit.saturating_add(1),
            }
        } else {
            ScanMode::Items { limit: self.limit }
        }
    }

    fn keeps(&self, meta: &KeyMeta) -> bool {
        (self.max_mod_revision == 0 || meta.mod_revision <= self.max_mod_revision)
            && (self.min_mod_revision == 0 || meta.mod_revision >= self.min_mod_revision)
            && (self.max_create_revision == 0 || meta.create_revision <= self.max_create_revision)
            && (self.min_create_revision == 0 || meta.create_revision >= self.min_create_revision)
    }
}

fn put_index_entry(key: &[u8], meta: &KeyMeta, out: &mut Vec<u8>) {
    put_range_kv_parts(
        out,
        &KeyValueParts {
            key,
            create_revision: meta.create_revision,
            mod_revision: meta.mod_revision,
            version: meta.version,
            value: b"",
            lease: 0,
        },
    );
}

/// The keys of a sorted range on their way to the reply.
#[derive(Default)]
struct Sorted {
    /// With a limit: the best so far, the worst of them on top, so that a better one replaces it.
    kept: BinaryHeap<Entry>,
    /// Without a limit, and while emitting: the next to be emitted on top. Building and emptying it key by key spreads
    /// the sorting over the steps.
    first: BinaryHeap<Reverse<Entry>>,
    is_emitting: bool,
    /// Scratch for the value of an item.
    text: Vec<u8>,
}

/// Capacity, in entries, that stays between sorted ranges.
const ENTRIES_KEPT: usize = 1024;

struct Entry {
    rank: i64,
    text: Box<[u8]>,
    key: Box<[u8]>,
    sort: Sort,
    meta: KeyMeta,
}

impl Sorted {
    fn clear(&mut self) {
        self.kept.clear();
        self.first.clear();
        // One large range must not leave its memory behind for good.
        self.kept.shrink_to(ENTRIES_KEPT);
        self.first.shrink_to(ENTRIES_KEPT);
        self.is_emitting = false;
    }

    fn add(&mut self, sort: Sort, limit: usize, item: &dyn StoredItem, meta: &KeyMeta) {
        let rank = match sort.target {
            sort_target::VERSION => meta.version,
            sort_target::CREATE => meta.create_revision,
            sort_target::MOD => meta.mod_revision,
            _ => 0,
        };
        // The complement turns the order around and cannot overflow.
        let rank = if sort.descending { !rank } else { rank };
        self.text.clear();
        if sort.target == sort_target::VALUE {
            self.text
                .extend_from_slice(read_record(item.record()).value);
        }
        let is_full = limit != 0 && self.kept.len() == limit;
        if is_full
            && let Some(worst) = self.kept.peek()
            && worst.cmp_to(rank, &self.text, item.key()) != Ordering::Greater
        {
            return;
        }
        let entry = Entry {
            rank,
            text: self.text.as_slice().into(),
            key: item.key().into(),
            sort,
            meta: *meta,
        };
        if limit == 0 {
            self.first.push(Reverse(entry));
        } else {
            if is_full {
                self.kept.pop();
            }
            self.kept.push(entry);
        }
    }

    fn begin_emitting(&mut self) {
        self.first.extend(self.kept.drain().map(Reverse));
        self.is_emitting = true;
    }
}

impl Entry {
    /// Equal ranks go by ascending key whatever the order, as etcd's stable sort of few items leaves them (for many
    /// it promises nothing), so the order is the same on every run.
    fn cmp_to(&self, rank: i64, text: &[u8], key: &[u8]) -> Ordering {
        let turn = |ordering: Ordering, is_wanted: bool| {
            if is_wanted {
                ordering.reverse()
            } else {
                ordering
            }
        };
        let text = turn((*self.text).cmp(text), self.sort.descending);
        let by_key = self.sort.target == sort_target::KEY;
        let key = turn((*self.key).cmp(key), by_key && self.sort.descending);
        self.rank.cmp(&rank).then(text).then(key)
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        self.cmp_to(other.rank, &other.text, &other.key)
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}
