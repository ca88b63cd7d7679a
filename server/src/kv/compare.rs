//! Decides one comparison of a transaction.
//!
//! Always true: a missing key compares as zero, but never equal, greater or less in value; numbers outside the known ones
//! have a meaning too. Used where transactions are evaluated, on net cores and on the apply core. Does not read the store.

use std::cmp::Ordering;

use storage::command::{ArchivedCompare, Compare};

use super::command::{compare_result, compare_target};
use super::store::{StoredItem, read_record};

/// What a key is compared with.
#[derive(Clone, Copy, Debug)]
pub struct Operand<'a> {
    target: i32,
    result: i32,
    number: i64,
    value: &'a [u8],
}

impl<'a> From<&Compare<'a>> for Operand<'a> {
    fn from(compare: &Compare<'a>) -> Self {
        Operand {
            target: compare.target,
            result: compare.result,
            number: compare.number,
            value: compare.value,
        }
    }
}

impl<'a> From<&'a ArchivedCompare<'static>> for Operand<'a> {
    fn from(compare: &'a ArchivedCompare<'static>) -> Self {
        Operand {
            target: compare.target.to_native(),
            result: compare.result.to_native(),
            number: compare.number.to_native(),
            value: &compare.value,
        }
    }
}

impl Operand<'_> {
    /// For a live key.
    pub fn holds_for(&self, item: &dyn StoredItem) -> bool {
        let ordering = match self.target {
            compare_target::VERSION => item.meta().version.cmp(&self.number),
            compare_target::CREATE => item.meta().create_revision.cmp(&self.number),
            compare_target::MOD => item.meta().mod_revision.cmp(&self.number),
            compare_target::VALUE => read_record(item.record()).value.cmp(self.value),
            compare_target::LEASE => read_record(item.record()).lease.cmp(&self.number),
            _ => Ordering::Equal,
        };
        self.accepts(ordering)
    }

    /// For a key that is not there, or an interval without keys.
    pub fn holds_for_nothing(&self) -> bool {
        match self.target {
            // An empty value and no value look the same on the wire, so no comparison of values can be meant.
            compare_target::VALUE => false,
            compare_target::VERSION
            | compare_target::CREATE
            | compare_target::MOD
            | compare_target::LEASE => self.accepts(0.cmp(&self.number)),
            _ => self.accepts(Ordering::Equal),
        }
    }

    fn accepts(&self, ordering: Ordering) -> bool {
        match self.result {
            compare_result::EQUAL => ordering.is_eq(),
            compare_result::NOT_EQUAL => ordering.is_ne(),
            compare_result::GREATER => ordering.is_gt(),
            compare_result::LESS => ordering.is_lt(),
            _ => true,
        }
    }
}
