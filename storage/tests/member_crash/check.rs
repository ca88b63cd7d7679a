//! Whether a member's disk and store hold what the ledger says.
//!
//! Always true: nothing here changes anything; a difference is returned as a sentence, so that broken members can be
//! shown to be caught.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use storage::lease::{LeaseId, LeaseRecord, LeaseTable, bucket_key};
use storage::mvcc::{self, Bucket, ReadError, Reader, StoredMeta, TreeSnapshot};
use storage::tree::{self, Snapshot, SumsState};
use storage::wal::Recovered;

use super::member::{CONF_STATE, MEMBER, MEMBER_KEY};
use super::model::{Ledger, State};

type Verdict = Result<(), String>;

fn ensure(is_right: bool, what: impl FnOnce() -> String) -> Verdict {
    if is_right { Ok(()) } else { Err(what()) }
}

fn equal<T: PartialEq + std::fmt::Debug>(what: &str, found: T, wanted: T) -> Verdict {
    ensure(found == wanted, || {
        format!("{what} is {found:?}, not {wanted:?}")
    })
}

/// What opening tree, store and log gave, before anything is applied.
pub fn found(
    ledger: &Ledger,
    snapshot: &Snapshot,
    sums: SumsState,
    report: &mvcc::OpenReport,
    recovered: &Recovered,
) -> Verdict {
    let applied = report.applied.index;
    equal("state of the sums", sums, SumsState::Verified)?;
    tree_holds(ledger, snapshot, applied)?;
    let attached = ledger.state(applied).attachments();
    equal("what is attached", &report.lease_keys, &attached)?;
    ensure(ledger.persisted <= applied, || {
        let persisted = ledger.persisted;
        format!("the tree was committed at {persisted} and is at {applied}")
    })?;
    log_holds(ledger, recovered, applied)
}

fn log_holds(ledger: &Ledger, recovered: &Recovered, applied: u64) -> Verdict {
    let last = recovered.last_index.0;
    ensure(last <= ledger.last(), || {
        format!(
            "the log ends at {last}, nothing above {} was appended",
            ledger.last()
        )
    })?;
    ensure(ledger.acknowledged <= last && applied <= last, || {
        let acknowledged = ledger.acknowledged;
        format!("the log ends at {last}; {acknowledged} was acknowledged, {applied} applied")
    })?;
    let mut next = applied.max(1) + 1;
    for entry in &recovered.entries {
        equal("the next entry", entry.index.0, next)?;
        let wanted = ledger.get(next);
        equal("an entry's term", entry.term.0, wanted.term)?;
        equal("an entry's payload", &entry.payload, &wanted.payload)?;
        next += 1;
    }
    equal("the end of the entries", next.max(2) - 1, last.max(1))?;
    let (state, synced) = (recovered.hard_state, ledger.hard_state);
    ensure(
        synced.term <= state.term && synced.commit <= state.commit && state.commit.0 <= last,
        || format!("{synced:?} was durable, {state:?} came back"),
    )?;
    let mark = recovered.mark.as_ref().map_or(0, |mark| mark.index.0);
    ensure(mark <= applied.max(1), || {
        format!("the log was given up to {mark}, the tree is at {applied}")
    })
}

/// The tree is whole and holds the entries up to `applied`, each once, and of compactions any part.
fn tree_holds(ledger: &Ledger, snapshot: &Snapshot, applied: u64) -> Verdict {
    let account = tree::check(snapshot);
    ensure(account.is_sound(), || format!("{:?}", account.problems))?;
    ensure(applied <= ledger.last(), || {
        format!(
            "the tree is at {applied}, nothing above {} was appended",
            ledger.last()
        )
    })?;
    let meta = StoredMeta::read(snapshot).map_err(|error| error.to_string())?;
    equal("the consistent index", meta.applied.index, applied)?;
    let state = ledger.state(applied);
    let records = key_bucket(snapshot)?;
    if applied == 0 {
        return ensure(records.is_empty(), || "records without an index".to_owned());
    }
    equal("the term", meta.applied.term, ledger.get(applied).term)?;
    equal("confState", meta.conf_state.as_deref(), Some(CONF_STATE))?;
    let member = TreeSnapshot::get(snapshot, Bucket::Members, MEMBER_KEY);
    let member = member.map_err(|error| error.to_string())?;
    equal("the member's record", member, Some(MEMBER))?;

    let scheduled = meta.scheduled_compaction.unwrap_or(-1);
    let finished = meta.finished_compaction.unwrap_or(-1);
    equal("the scheduled mark", scheduled, state.compact_revision())?;
    ensure(
        finished <= scheduled && (finished == -1 || state.compactions.contains(&finished)),
        || {
            format!(
                "{finished} is marked finished, accepted: {:?}",
                state.compactions
            )
        },
    )?;
    let mut leases = BTreeMap::new();
    let scanned = snapshot.scan(Bucket::Lease, b"", &mut |key, value| {
        leases.insert(key.to_vec(), LeaseRecord::decode(value));
        ControlFlow::Continue(())
    });
    scanned.map_err(|error| error.to_string())?;
    let wanted = state.leases.iter().map(|(&id, &ttl_s)| {
        let id = LeaseId(id);
        let record = LeaseRecord {
            id,
            ttl_s,
            remaining_ttl_s: 0,
        };
        (bucket_key(id).to_vec(), Some(record))
    });
    equal("the bucket of leases", leases, wanted.collect())?;
    let (least, most) = (state.bucket(scheduled), state.bucket(finished));
    for (key, value) in &least {
        ensure(records.get(key) == Some(value), || {
            format!("at index {applied}, revision {key:02x?} is missing or different")
        })?;
    }
    for (key, value) in &records {
        ensure(most.get(key) == Some(value), || {
            format!("at index {applied}, revision {key:02x?} does not belong there")
        })?;
    }
    Ok(())
}

fn key_bucket(snapshot: &Snapshot) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, String> {
    let mut records = BTreeMap::new();
    let scanned = snapshot.scan(Bucket::Key, b"", &mut |key, value| {
        records.insert(key.to_vec(), value.to_vec());
        ControlFlow::Continue(())
    });
    scanned.map_err(|error| error.to_string())?;
    Ok(records)
}

/// The store answers as it should after `applied`.
pub fn serves(ledger: &Ledger, reader: &Reader<Snapshot>, applied: u64) -> Verdict {
    let state = ledger.state(applied);
    let view = reader.view();
    equal("the applied index", reader.applied_index(), applied)?;
    equal("the revision", view.revision, state.revision)?;
    let compact = state.compact_revision();
    equal("the compact revision", view.compact_revision, compact)?;
    let oldest = compact.max(1);
    for at in [oldest, (oldest + state.revision) / 2, state.revision] {
        for key in state.history.keys() {
            let item = view.get(key, at).map_err(|error| error.to_string())?;
            let record = item.as_ref().map(|item| item.record());
            ensure(record == state.at(key, at), || {
                let read = |bytes| mvcc::KeyValue::parse(bytes);
                let (found, wanted) = (record.map(read), state.at(key, at).map(read));
                format!("key {key:?} at {at} is {found:?}, not {wanted:?}")
            })?;
        }
    }
    if 1 < compact {
        let refused = view.resolve(compact - 1);
        let wanted = ReadError::Compacted {
            compact_revision: compact,
        };
        equal("a read below it", refused, Err(wanted))?;
    }
    Ok(())
}

/// The lease table is as it should be after `applied`.
pub fn holds_leases(ledger: &Ledger, table: &LeaseTable, applied: u64) -> Verdict {
    let state = ledger.state(applied);
    let ids: Vec<i64> = table.ids_after(None).map(|id| id.0).collect();
    equal("the leases", ids, state.leases.keys().copied().collect())?;
    let mut attached = Vec::new();
    for id in table.ids_after(None) {
        equal(
            "a time to live",
            table.ttl_s(id),
            state.leases.get(&id.0).copied(),
        )?;
        attached.extend(table.keys(id).iter().map(|key| (Box::from(&**key), id.0)));
    }
    attached.sort();
    equal("what is attached", attached, state.attachments())
}

/// Everything is in the tree and every compaction has ended.
pub fn settled(ledger: &Ledger, snapshot: &Snapshot) -> Verdict {
    let last = ledger.last();
    tree_holds(ledger, snapshot, last)?;
    let state: State = ledger.state(last);
    let meta = StoredMeta::read(snapshot).map_err(|error| error.to_string())?;
    let finished = meta.finished_compaction.unwrap_or(-1);
    equal("the finished mark", finished, state.compact_revision())?;
    let is_exact = key_bucket(snapshot)? == state.bucket(finished);
    ensure(is_exact, || "a compaction left dead revisions".to_owned())
}
