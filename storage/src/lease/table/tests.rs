//! The table against a plain model, and that replaying the same entries gives the same table.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::mvcc::MemoryTree;

fn keys_of(table: &LeaseTable, id: i64) -> Vec<Vec<u8>> {
    let mut keys: Vec<Vec<u8>> = table
        .keys(LeaseId(id))
        .iter()
        .map(|key| key.to_vec())
        .collect();
    keys.sort();
    keys
}

#[test]
fn grants_are_refused_in_etcds_order() {
    let mut table = LeaseTable::new(2, 7);
    assert_eq!(
        table.grant(LeaseId(0), LEASE_TTL_MAX + 1),
        Err(LeaseError::NotFound)
    );
    assert_eq!(table.grant(LeaseId(5), 9), Ok(Granted { ttl_s: 9 }));
    assert_eq!(
        table.grant(LeaseId(5), LEASE_TTL_MAX + 1),
        Err(LeaseError::TtlTooLarge)
    );
    assert_eq!(table.grant(LeaseId(5), 1), Err(LeaseError::Exists));
    assert_eq!(
        table.grant(LeaseId(-5), LEASE_TTL_MAX).unwrap().ttl_s,
        LEASE_TTL_MAX
    );
    assert_eq!(table.revoke(LeaseId(6)), Err(LeaseError::NotFound));
    assert_eq!(table.revoke(LeaseId(5)), Ok(vec![]));
    assert_eq!(table.grant(LeaseId(5), 1).unwrap().ttl_s, 2);
}

#[test]
fn a_key_moves_from_lease_to_lease() {
    let mut table = LeaseTable::new(1, 7);
    table.grant(LeaseId(1), 10).unwrap();
    table.grant(LeaseId(2), 10).unwrap();
    for key in [b"a", b"b", b"c"] {
        assert!(table.on_put(key, LeaseId(1)));
    }
    assert!(table.on_put(b"a", LeaseId(2)));
    assert!(table.on_put(b"c", LeaseId::NONE));
    table.on_delete(b"nothing");
    assert_eq!(keys_of(&table, 1), [b"b"]);
    assert_eq!(keys_of(&table, 2), [b"a"]);
    assert_eq!(table.lease_of(b"a"), LeaseId(2));
    assert_eq!(table.lease_of(b"c"), LeaseId::NONE);
    assert!(!table.on_put(b"b", LeaseId(9)), "there is no lease 9");
    assert_eq!(table.attached_keys(), 1);
    let gone: Vec<Vec<u8>> = table
        .revoke(LeaseId(2))
        .unwrap()
        .iter()
        .map(|key| key.to_vec())
        .collect();
    assert_eq!(gone, [b"a"]);
    assert_eq!(table.attached_keys(), 0);
}

#[test]
fn a_file_written_under_another_minimum_is_read() {
    let mut tree = MemoryTree::default();
    let mut bytes = Vec::new();
    LeaseRecord {
        id: LeaseId(7),
        ttl_s: 1,
        remaining_ttl_s: 0,
    }
    .encode_into(&mut bytes);
    tree.apply(crate::mvcc::Change::Put {
        bucket: Bucket::Lease,
        key: &bucket_key(LeaseId(7)),
        value: &bytes,
    });
    let keys = vec![(Box::from(&b"k"[..]), 7), (Box::from(&b"lost"[..]), 8)];
    let (table, report) = LeaseTable::load(&tree, keys.clone(), 5, 0).unwrap();
    assert_eq!(
        report,
        LoadReport {
            leases: 1,
            attached_keys: 1,
            dangling_keys: 1
        }
    );
    assert_eq!(table.ttl_s(LeaseId(7)), Some(5));
    let stored = table.record(LeaseId(7)).unwrap();
    assert_eq!(stored.ttl_s, 1, "the stored time stays");
    tree.apply(crate::mvcc::Change::Put {
        bucket: Bucket::Lease,
        key: &bucket_key(LeaseId(9)),
        value: &bytes,
    });
    assert!(matches!(
        LeaseTable::load(&tree, keys, 5, 0),
        Err(LeaseLoadError::BadRecord { .. })
    ));
}

#[derive(Clone, Debug)]
enum Step {
    Grant(i64),
    Revoke(i64),
    Put(u8, i64),
    Delete(u8),
    Checkpoint(i64, i64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (-3..5i64).prop_map(Step::Grant),
        (-3..5i64).prop_map(Step::Revoke),
        (0..12u8, -3..5i64).prop_map(|(key, lease)| Step::Put(key, lease)),
        (0..12u8).prop_map(Step::Delete),
        (-3..5i64, 0..9i64).prop_map(|(lease, left)| Step::Checkpoint(lease, left)),
    ]
}

fn apply(table: &mut LeaseTable, step: &Step) -> String {
    match step {
        Step::Grant(id) => format!("{:?}", table.grant(LeaseId(*id), 10)),
        Step::Revoke(id) => format!("{:?}", table.revoke(LeaseId(*id))),
        Step::Put(key, lease) => {
            // A put that names an unknown lease is refused before it comes here.
            let lease = LeaseId(*lease);
            let known = lease.is_none() || table.contains(lease);
            format!("{}", known && table.on_put(&[*key], lease))
        }
        Step::Delete(key) => {
            table.on_delete(&[*key]);
            String::new()
        }
        Step::Checkpoint(id, left) => format!("{}", table.checkpoint(LeaseId(*id), *left)),
    }
}

proptest! {
    #[test]
    fn the_table_agrees_with_a_model(steps in prop::collection::vec(step(), 0..200)) {
        let mut table = LeaseTable::new(1, 3);
        let mut leases: BTreeSet<i64> = BTreeSet::new();
        let mut attached: BTreeMap<u8, i64> = BTreeMap::new();
        for step in &steps {
            apply(&mut table, step);
            match step {
                Step::Grant(0) => {}
                Step::Grant(id) => { leases.insert(*id); }
                Step::Revoke(id) => {
                    leases.remove(id);
                    attached.retain(|_, lease| lease != id);
                }
                Step::Put(key, 0) => { attached.remove(key); }
                Step::Put(key, lease) if leases.contains(lease) => { attached.insert(*key, *lease); }
                Step::Delete(key) => { attached.remove(key); }
                _ => {}
            }
            prop_assert_eq!(table.len(), leases.len());
            prop_assert_eq!(table.attached_keys(), attached.len());
            for id in -3..5 {
                let wanted: Vec<Vec<u8>> = attached
                    .iter()
                    .filter(|(_, lease)| **lease == id)
                    .map(|(key, _)| vec![*key])
                    .collect();
                prop_assert_eq!(keys_of(&table, id), wanted);
            }
        }
        let listed: Vec<i64> = table.ids_after(None).map(|id| id.0).collect();
        prop_assert_eq!(listed, leases.into_iter().collect::<Vec<_>>());
    }

    /// Two members, whose maps have different seeds, answer every entry alike and end alike.
    #[test]
    fn replaying_gives_the_same(steps in prop::collection::vec(step(), 0..200)) {
        let mut one = LeaseTable::new(1, 1);
        let mut other = LeaseTable::new(1, 0xdead_beef);
        for step in &steps {
            prop_assert_eq!(apply(&mut one, step), apply(&mut other, step));
        }
        for id in one.ids_after(None) {
            prop_assert_eq!(one.record(id), other.record(id));
            prop_assert_eq!(one.keys(id), other.keys(id), "also the order of the keys");
        }
    }
}
