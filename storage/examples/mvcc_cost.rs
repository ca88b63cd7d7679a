//! What the MVCC store costs: nanoseconds per operation, bytes per key, time to open.
//!
//! `cargo run --release -p storage --example mvcc_cost [keys]`. One thread but for the index build; values of
//! 256 bytes, ascending and scattered keys. Times are processor times. Prints figures; checks nothing but that results are what they must be.

use std::hint::black_box;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use storage::mvcc::{
    Applied, Bucket, CompactProgress, KeyRange, KeyValue, Options, Progress, Revision, Scan,
    ScanMode, Store, TreeDamage, TreeSnapshot,
};

/// The `key` bucket as one sorted array of pages' worth of bytes: cheap to read, like the mapped file.
#[derive(Clone)]
struct Flat {
    records: Arc<Vec<([u8; 17], usize, usize)>>,
    bytes: Arc<Vec<u8>>,
}

impl Flat {
    fn value(&self, position: usize) -> &[u8] {
        let (_, start, end) = self.records[position];
        &self.bytes[start..end]
    }
}

impl TreeSnapshot for Flat {
    fn get(&self, bucket: Bucket, key: &[u8]) -> Result<Option<&[u8]>, TreeDamage> {
        if bucket != Bucket::Key {
            return Ok(None);
        }
        let found = self
            .records
            .binary_search_by(|record| record.0[..].cmp(key));
        Ok(found.ok().map(|position| self.value(position)))
    }

    fn scan<'a>(
        &'a self,
        bucket: Bucket,
        from: &[u8],
        visit: &mut dyn FnMut(&'a [u8], &'a [u8]) -> ControlFlow<()>,
    ) -> Result<(), TreeDamage> {
        if bucket == Bucket::Key {
            let start = self.records.partition_point(|record| &record.0[..] < from);
            for position in start..self.records.len() {
                if visit(&self.records[position].0, self.value(position)).is_break() {
                    break;
                }
            }
        }
        Ok(())
    }
}

/// Bytes that the allocator has given out, its own overhead included.
fn allocated_bytes() -> usize {
    // SAFETY: reads the allocator's counters.
    let info = unsafe { libc::mallinfo2() };
    info.uordblks + info.hblkhd
}

/// Processor time of the calling thread: unlike wall time it does not count what others do on this machine.
fn thread_nanoseconds() -> u64 {
    processor_nanoseconds(libc::CLOCK_THREAD_CPUTIME_ID)
}

fn process_nanoseconds() -> u64 {
    processor_nanoseconds(libc::CLOCK_PROCESS_CPUTIME_ID)
}

fn processor_nanoseconds(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: writes one timespec.
    let result = unsafe { libc::clock_gettime(clock, &mut time) };
    assert_eq!(result, 0, "every Linux has this clock");
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

fn scattered(number: u64, keys: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % keys
}

fn key8(number: u64) -> [u8; 8] {
    format!("{number:08}")
        .into_bytes()
        .try_into()
        .expect("below 10^8")
}

fn flat(keys: u64, key: impl Fn(u64) -> Vec<u8>) -> Flat {
    let (mut records, mut bytes) = (Vec::new(), Vec::new());
    let value = [7; 256];
    for number in 0..keys {
        let revision = Revision::new(number as i64 + 2, 0);
        let record = KeyValue {
            key: &key(number),
            create_revision: revision.main,
            mod_revision: revision.main,
            version: 1,
            value: &value,
            lease: 0,
        }
        .encode();
        let start = bytes.len();
        bytes.extend_from_slice(&record);
        records.push((revision.put_key(), start, bytes.len()));
    }
    Flat {
        records: Arc::new(records),
        bytes: Arc::new(bytes),
    }
}

fn per_operation(name: &str, count: u64, mut operation: impl FnMut(u64)) {
    let start = thread_nanoseconds();
    for number in 0..count {
        operation(number);
    }
    let nanoseconds = (thread_nanoseconds() - start) / count;
    println!("{name:<44} {nanoseconds:>10} ns");
}

struct Entries(u64);

impl Entries {
    fn next(&mut self) -> Applied {
        self.0 += 1;
        Applied {
            index: self.0,
            term: 1,
        }
    }
}

fn open(name: &str, tree: Flat, keys: u64) -> Store<Flat> {
    let before = allocated_bytes();
    let (wall, processor) = (Instant::now(), process_nanoseconds());
    let (store, _, report) = Store::open(tree, Options::default()).expect("a sound tree");
    let milliseconds = wall.elapsed().as_millis();
    let processor = (process_nanoseconds() - processor) / 1_000_000;
    assert_eq!(report.keys as u64, keys);
    let bytes = (allocated_bytes() - before) as u64 / keys;
    println!(
        "{name:<44} {milliseconds:>10} ms ({processor} ms of processor time), {bytes} bytes per key"
    );
    store
}

fn main() {
    let keys: u64 = std::env::args()
        .nth(1)
        .map_or(1_000_000, |n| n.parse().expect("a number"));
    let tree = flat(keys, |n| key8(n).to_vec());
    let (mut store, reader, _) = Store::open(tree.clone(), Options::default()).expect("sound");
    drop((store, reader));
    store = open("open, 8-byte keys in order", tree, keys);
    drop(store);
    let tree = flat(keys, |n| key8(scattered(n, keys)).to_vec());
    let distinct = {
        let mut all: Vec<_> = (0..keys).map(|n| scattered(n, keys)).collect();
        all.sort_unstable();
        all.dedup();
        all.len() as u64
    };
    drop(open("open, 8-byte keys scattered", tree, distinct));
    let pods = |n| format!("/registry/pods/namespace-{:03}/pod-{n:08}", n % 500).into_bytes();
    drop(open("open, 40-byte registry keys", flat(keys, pods), keys));

    let empty = flat(0, |_| Vec::new());
    let (mut store, reader, _) = Store::open(empty, Options::default()).expect("an empty tree");
    let mut entries = Entries(0);
    let value = [1; 256];
    let before = allocated_bytes();
    per_operation("put of a new key, ascending", keys, |n| {
        let mut txn = store.begin(entries.next());
        txn.put(&key8(n), &value, 0);
        black_box(txn.commit());
    });
    let bytes = (allocated_bytes() - before) as u64 / keys;
    println!(
        "{:<44} {bytes:>10} bytes per key with its 300-byte buffered record",
        ""
    );
    per_operation("put to an existing key, scattered", keys, |n| {
        let mut txn = store.begin(entries.next());
        txn.put(&key8(scattered(n, keys)), &value, 0);
        black_box(txn.commit());
    });
    per_operation("put of a new key, scattered among them", keys / 4, |n| {
        let mut txn = store.begin(entries.next());
        txn.put(&[&key8(scattered(n, keys))[..], b"x"].concat(), &value, 0);
        black_box(txn.commit());
    });
    per_operation("delete of one key, scattered", keys / 4, |n| {
        let mut txn = store.begin(entries.next());
        let key = [&key8(scattered(n, keys))[..], b"x"].concat();
        txn.delete_range(KeyRange::single(&key), &mut |_| {});
        black_box(txn.commit());
    });
    per_operation("begin and commit of nothing", keys, |_| {
        black_box(store.begin(entries.next()).commit());
    });
    per_operation("get with record, scattered", keys, |n| {
        let view = reader.view();
        let item = view.get(&key8(scattered(n, keys)), 0).expect("readable");
        black_box(item.expect("written above").record());
    });
    per_operation("get without record, scattered", keys, |n| {
        let view = reader.view();
        black_box(
            view.get(&key8(scattered(n, keys)), 0)
                .expect("readable")
                .is_some(),
        );
    });
    per_operation("get of a missing key", keys, |n| {
        let view = reader.view();
        black_box(view.get(&[0, n as u8], 0).expect("readable").is_some());
    });
    let thousand = |with_records: bool, n: u64| {
        let from = key8(scattered(n, keys - 1000));
        let range = KeyRange::new(&from, b"\0");
        let mode = ScanMode::Items { limit: 1000 };
        let mut scan = Scan::new(&reader, range, 0, mode).expect("readable");
        let mut bytes = 0;
        while scan
            .step(&reader, 1 << 20, &mut |item| {
                bytes += if with_records {
                    item.record().len()
                } else {
                    item.key.len()
                };
                ControlFlow::Continue(())
            })
            .expect("pinned")
            == Progress::More
        {}
        assert_eq!(scan.yielded(), 1000);
        black_box((bytes, scan.count()));
    };
    per_operation("range of 1,000 keys and count, with records", 2000, |n| {
        thousand(true, n)
    });
    per_operation("range of 1,000 keys and count, index only", 2000, |n| {
        thousand(false, n)
    });
    let at = store.revision();
    let count_all = |at| {
        let mut scan = Scan::new(&reader, KeyRange::all(), at, ScanMode::Count).expect("readable");
        while scan.step(&reader, 4096, &mut |_| ControlFlow::Break(())) == Ok(Progress::More) {}
        black_box(scan.count());
    };
    per_operation("count of all keys, newest revision", 10_000, |_| {
        count_all(at)
    });
    per_operation("count of all keys, half-way revision", 10, |_| {
        count_all(at / 2)
    });

    // One hot key with a long history.
    per_operation("put to one hot key", keys, |_| {
        let mut txn = store.begin(entries.next());
        txn.put(b"hot", &value[..8], 0);
        black_box(txn.commit());
    });
    let (first, last) = (store.revision() - keys as i64 + 1, store.revision());
    per_operation("get of the hot key at an old revision", keys, |n| {
        let at = first + scattered(n, (last - first) as u64) as i64;
        let view = reader.view();
        black_box(view.get(b"hot", at).expect("readable").is_some());
    });

    // Compaction of everything above: the slowest slice matters.
    store.compact(store.revision()).expect("the first");
    store.freeze().expect("waiting changes");
    store.on_committed(flat(0, |_| Vec::new()));
    let (start, mut slices, mut slowest) = (thread_nanoseconds(), 0u64, 0);
    loop {
        let slice = thread_nanoseconds();
        let progress = store.compact_step(1000);
        let took = (thread_nanoseconds() - slice) / 1000;
        slowest = slowest.max(took);
        slices += 1;
        match progress {
            CompactProgress::Finished { .. } => break,
            _ if progress == CompactProgress::Waiting || store.pending_changes() >= 10_000 => {
                store.freeze();
                store.on_committed(flat(0, |_| Vec::new()));
            }
            _ => {}
        }
    }
    println!(
        "{:<44} {:>10} ms, {slices} slices of 1,000, slowest {slowest} us",
        "compaction of all that history",
        (thread_nanoseconds() - start) / 1_000_000
    );
}
