//! The index against a map of versions; small enough for Miri.

use std::collections::BTreeMap;

use super::*;
use crate::mvcc::range::KeyRange;
use crate::mvcc::revision::Revision;

/// (main, (create, version)); `None` for a tombstone.
type Version = (i64, Option<(i64, i64)>);

#[derive(Default)]
struct Model {
    keys: BTreeMap<Vec<u8>, Vec<Version>>,
}

impl Model {
    fn at(&self, key: &[u8], at: i64) -> Option<(i64, i64, i64)> {
        let history = self.keys.get(key)?;
        let (main, life) = history.iter().rev().find(|(main, _)| *main <= at)?;
        life.map(|(create, version)| (*main, create, version))
    }

    fn put(&mut self, key: &[u8], main: i64) {
        let (create, version) = match self.at(key, main) {
            Some((_, create, version)) => (create, version + 1),
            None => (main, 1),
        };
        let history = self.keys.entry(key.to_vec()).or_default();
        history.push((main, Some((create, version))));
    }

    fn delete(&mut self, key: &[u8], main: i64) {
        if self.at(key, main).is_some() {
            self.keys.get_mut(key).expect("alive").push((main, None));
        }
    }
}

fn numbers(meta: KeyMeta) -> (i64, i64, i64) {
    (meta.mod_revision.main, meta.create_revision, meta.version)
}

fn check(view: IndexView<'_>, model: &Model, at: i64) {
    let expected: Vec<_> = model
        .keys
        .keys()
        .filter_map(|key| Some((key.clone(), model.at(key, at)?)))
        .collect();
    let seen: Vec<_> = view
        .cursor(b"")
        .filter_map(|record| {
            let meta = record.newest_at(at)?.live()?;
            Some((record.key().to_vec(), numbers(meta)))
        })
        .collect();
    assert_eq!(seen, expected, "at {at}");
    for (key, life) in &expected {
        assert_eq!(view.get(key, at).map(|(_, m)| numbers(m)), Some(*life));
    }
    for range in [
        KeyRange::all(),
        KeyRange::new(b"key/0010", b"key/0200"),
        KeyRange::new(b"key/0100", b"\0"),
        KeyRange::new(b"key/03", b"key/03"),
        KeyRange::new(b"l", b"a"),
        KeyRange::single(b"key/0007"),
    ] {
        let inside = |k: &[u8]| range.contains(k);
        let count = expected.iter().filter(|(key, _)| inside(key)).count();
        for budget in [1, 70, usize::MAX] {
            let (mut total, mut from) = (0, range.key.to_vec());
            loop {
                let slice = view.count(range, &from, at, budget);
                total += slice.count;
                match slice.resume {
                    Some(record) => from = record.key().to_vec(),
                    None => break,
                }
            }
            assert_eq!(total, count, "{range:?} at {at}, budget {budget}");
        }
    }
}

fn key(number: u64) -> Vec<u8> {
    // A key that is prefix of others, one outside the common prefix, keys that differ late.
    match number % 50 {
        0 => b"key/".to_vec(),
        1 => b"other".to_vec(),
        2 => format!("key/{:04}\0", number % 331).into_bytes(),
        _ => format!("key/{:04}", number % 331).into_bytes(),
    }
}

/// A fixed pseudo-random sequence.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        self.0 >> 33
    }
}

#[test]
fn puts_deletes_aborts_and_trims_agree_with_a_map() {
    let rounds = if cfg!(miri) { 150 } else { 4000 };
    let mut writer = Loader::new().finish(1).index;
    let index = writer.index().clone();
    let mut model = Model::default();
    let mut random = Numbers(7);
    let mut compact = 0;
    let mut deleted = Vec::new();
    for main in 2..2 + rounds {
        let is_aborted = random.next().is_multiple_of(5);
        for sub in 0..1 + random.next() % 4 {
            let key = key(random.next());
            let known = writer.view().get(&key, main);
            // One change of a key per transaction, as the store's callers guarantee.
            if known.is_some_and(|(_, meta)| meta.mod_revision.main == main) {
                continue;
            }
            writer.put(&key, Revision::new(main, sub as i64));
            if !is_aborted {
                model.put(&key, main);
            }
        }
        if random.next().is_multiple_of(6) {
            let (a, b) = (key(random.next()), key(random.next()));
            let range = if random.next().is_multiple_of(2) {
                KeyRange::single(&a)
            } else {
                KeyRange::new(&a, &b)
            };
            deleted.clear();
            writer.delete_range(range, main, 10, &mut deleted);
            if !is_aborted {
                let keys: Vec<_> = model.keys.keys().cloned().collect();
                for key in keys.iter().filter(|key| range.contains(key)) {
                    model.delete(key, main);
                }
            }
        }
        if is_aborted {
            writer.abort();
        }
        assert!(!is_aborted || writer.is_clean());
        writer.publish();
        if main % 41 == 0 {
            compact = main - (random.next() % 30) as i64;
            let mut from = Some(Vec::new());
            while let Some(key) = from {
                from = writer.trim(&key, compact, 70);
            }
        }
        if main % 37 == 0 {
            for at in [main, main - 3, main - 40] {
                if compact <= at {
                    check(index.pin().view(), &model, at);
                }
            }
        }
    }
    check(index.pin().view(), &model, 2 + rounds);
}

#[test]
fn ascending_and_descending_inserts_build_sound_trees() {
    let count = if cfg!(miri) { 200 } else { 20_000 };
    for is_ascending in [true, false] {
        let mut writer = Loader::new().finish(1).index;
        for n in 0..count {
            let number = if is_ascending { n } else { count - 1 - n };
            let key = format!("/registry/pods/{number:08}");
            writer.put(key.as_bytes(), Revision::new(2 + n, 0));
            writer.publish();
        }
        let seen: Vec<_> = writer
            .view()
            .cursor(b"")
            .map(|r| r.key().to_vec())
            .collect();
        assert_eq!(seen.len(), count as usize);
        assert!(seen.is_sorted());
        let slice = writer
            .view()
            .count(KeyRange::all(), b"", 1 + count, usize::MAX);
        assert_eq!(slice.count, count as usize);
    }
}

#[test]
fn a_loaded_index_equals_a_grown_one() {
    let count: usize = if cfg!(miri) { 150 } else { 110_000 };
    let mut random = Numbers(3);
    let keys: Vec<Vec<u8>> = (0..count)
        .map(|_| format!("p/{}", random.next() % (count as u64 / 3)).into_bytes())
        .collect();
    let mut model = Model::default();
    let mut loader = Loader::new();
    for (n, key) in keys.iter().enumerate() {
        let main = n as i64 + 2;
        let is_tombstone = n % 7 == 0 && model.at(key, main).is_some();
        if is_tombstone {
            model.delete(key, main);
        } else {
            model.put(key, main);
        }
        let (_, create_revision, version) = model.at(key, main).unwrap_or_default();
        loader.push(LoadedRevision {
            key,
            revision: Revision::new(main, 0),
            is_tombstone,
            create_revision,
            version,
            lease: 0,
        });
    }
    let loaded = loader.finish(3);
    assert_eq!(loaded.keys, model.keys.len());
    let top = count as i64 + 1;
    check(loaded.index.view(), &model, top);
    check(loaded.index.view(), &model, top / 2);
}

#[test]
fn keys_that_are_hard_to_order_are_loaded_in_order() {
    // Prefixes of one another, trailing zeros, long shared parts, many equal discriminators, three threads.
    let repeat = if cfg!(miri) { 3 } else { 1000 };
    let mut keys = vec![
        Vec::new(),
        b"\0".to_vec(),
        vec![0; 9],
        vec![0; 8],
        b"a".to_vec(),
    ];
    for n in 0..repeat {
        for tail in [
            &b""[..],
            b"\0",
            b"\0\0\0\0\0\0\0\0\0",
            b"/tail",
            b"/tail-that-is-long",
        ] {
            keys.push([format!("common/part/{:05}", n % 500).as_bytes(), tail].concat());
            keys.push([format!("common/part/x{n}").as_bytes(), tail].concat());
        }
    }
    let mut random = Numbers(5);
    for at in (1..keys.len()).rev() {
        keys.swap(at, random.next() as usize % (at + 1));
    }
    let mut model = Model::default();
    let mut loader = Loader::new();
    let copies = if cfg!(miri) { 1 } else { 18 };
    let mut main = 1;
    for key in std::iter::repeat_n(&keys, copies).flatten() {
        main += 1;
        model.put(key, main);
        let (_, create_revision, version) = model.at(key, main).expect("just put");
        loader.push(LoadedRevision {
            key,
            revision: Revision::new(main, 0),
            is_tombstone: false,
            create_revision,
            version,
            lease: 0,
        });
    }
    let loaded = loader.finish(3);
    assert_eq!(loaded.keys, model.keys.len());
    check(loaded.index.view(), &model, main);
    check(loaded.index.view(), &model, main / 2);
}
