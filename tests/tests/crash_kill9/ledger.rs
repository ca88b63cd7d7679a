//! What the clients were told, and whether a store that came back agrees with it.
//!
//! One ledger per group of keys that is always written together (one key, or the keys of one txn), kept by one client that
//! has one request in flight. So at most the last write of a group is in doubt, and only after a crash.
//!
//! Checked of each group, after each crash:
//! - what was acknowledged is there: value, create and mod revision as answered;
//! - a write in doubt is there whole or not at all; either way it is settled from then on;
//! - none is there twice: the version counts each write that is there exactly once;
//! - acknowledged revisions grow.
//!
//! Knows no server: it is told what was answered and what was read.

use pilaster_tests::pb::KeyValue;

/// The writes of one group of keys.
pub struct Ledger {
    pub keys: Vec<Vec<u8>>,
    /// Writes begun so far; each write's value holds its number.
    begun: u64,
    /// Writes known to be in the store.
    present: u64,
    /// The newest of them: its number and its revision.
    last: Option<(u64, i64)>,
    /// Revision of the first write.
    created: i64,
    /// The number of a write without an answer.
    in_doubt: Option<u64>,
}

impl Ledger {
    pub fn new(keys: Vec<Vec<u8>>) -> Ledger {
        Ledger {
            keys,
            begun: 0,
            present: 0,
            last: None,
            created: 0,
            in_doubt: None,
        }
    }

    /// Starts a write and returns the value that all keys of the group get.
    pub fn begin(&mut self) -> Vec<u8> {
        assert_eq!(self.in_doubt, None, "one write in flight");
        self.begun += 1;
        self.in_doubt = Some(self.begun);
        value(self.begun)
    }

    /// The write in flight was acknowledged at `revision`.
    pub fn acknowledge(&mut self, revision: i64) {
        let number = self.in_doubt.take().expect("an answer follows a request");
        self.settle(number, revision);
    }

    /// Writes that are in the store; each took one revision.
    pub fn present(&self) -> u64 {
        self.present
    }

    pub fn last_revision(&self) -> i64 {
        self.last.map_or(0, |(_, revision)| revision)
    }

    /// The value and revision of the newest write that is there.
    pub fn newest(&self) -> Option<(Vec<u8>, i64)> {
        self.last
            .map(|(number, revision)| (value(number), revision))
    }

    /// Judges what the store holds for the group's keys, in their order. `Err` says what is wrong.
    pub fn check(&mut self, found: &[Option<KeyValue>]) -> Result<(), String> {
        let name = String::from_utf8_lossy(&self.keys[0]).into_owned();
        let newest = found[0].as_ref();
        for (key, other) in self.keys.iter().zip(found) {
            let same = match (newest, other) {
                (None, None) => true,
                (Some(one), Some(other)) => {
                    (&one.value, one.mod_revision, one.version)
                        == (&other.value, other.mod_revision, other.version)
                }
                _ => false,
            };
            if !same {
                let key = String::from_utf8_lossy(key);
                return Err(format!(
                    "{name} and {key} were written together: {newest:?}, {other:?}"
                ));
            }
        }
        if let Some(number) = self.in_doubt.take()
            && let Some(kv) = newest
            && kv.value == value(number)
        {
            if kv.mod_revision <= self.last_revision() {
                return Err(format!(
                    "{name}: a later write has an earlier revision: {kv:?}"
                ));
            }
            self.settle(number, kv.mod_revision);
        }
        match (self.last, newest) {
            (None, None) => Ok(()),
            (None, Some(kv)) => Err(format!("{name}: nobody wrote {kv:?}")),
            (Some((number, revision)), None) => Err(format!(
                "{name}: write {number}, acknowledged at revision {revision}, is lost"
            )),
            (Some((number, revision)), Some(kv)) => {
                let wanted = (value(number), revision, self.created, self.present as i64);
                let got = (
                    kv.value.clone(),
                    kv.mod_revision,
                    kv.create_revision,
                    kv.version,
                );
                if got == wanted {
                    return Ok(());
                }
                Err(format!(
                    "{name}: holds {kv:?}; acknowledged is write {number} at revision {revision}, version {}",
                    self.present
                ))
            }
        }
    }

    fn settle(&mut self, number: u64, revision: i64) {
        assert!(
            self.last_revision() < revision,
            "revisions grow: {revision} after {:?}",
            self.last
        );
        if self.last.is_none() {
            self.created = revision;
        }
        self.present += 1;
        self.last = Some((number, revision));
    }
}

fn value(number: u64) -> Vec<u8> {
    // Long enough that a round fills more than one block of a log.
    format!("write {number:08} {}", "x".repeat((number % 700) as usize)).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kv(number: u64, revision: i64, version: i64) -> Option<KeyValue> {
        Some(KeyValue {
            key: b"a".to_vec(),
            value: value(number),
            create_revision: 2,
            mod_revision: revision,
            version,
            lease: 0,
        })
    }

    /// Write 1 acknowledged at revision 2, write 2 at 5, write 3 in doubt.
    fn ledger() -> Ledger {
        let mut ledger = Ledger::new(vec![b"a".to_vec()]);
        ledger.begin();
        ledger.acknowledge(2);
        ledger.begin();
        ledger.acknowledge(5);
        ledger.begin();
        ledger
    }

    #[test]
    fn a_write_in_doubt_may_be_there_or_not() {
        assert_eq!(ledger().check(&[kv(2, 5, 2)]), Ok(()));
        assert_eq!(ledger().check(&[kv(3, 9, 3)]), Ok(()));
    }

    /// The checker must be able to fail.
    #[test]
    fn losses_doubles_and_halves_are_noticed() {
        let wrong = [
            vec![None],
            vec![kv(1, 2, 1)],
            vec![kv(2, 4, 2)],
            vec![kv(2, 5, 3)],
            vec![kv(3, 9, 4)],
            vec![kv(3, 5, 3)],
            vec![kv(4, 9, 3)],
        ];
        for found in wrong {
            assert!(ledger().check(&found).is_err(), "{found:?}");
        }
        let mut pair = Ledger::new(vec![b"a".to_vec(), b"b".to_vec()]);
        pair.begin();
        assert!(pair.check(&[kv(1, 2, 1), None]).is_err());
    }
}
