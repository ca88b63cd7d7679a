//! What the store needs of the tree file: buckets to read, and the form in which changes are handed to it.
//!
//! Always true: a `TreeSnapshot` never changes; bytes borrowed from it live as long as it does.
//! Readers call `TreeSnapshot` on any core; the tree thread consumes `Change`s. Knows nothing of pages.

use std::ops::ControlFlow;

/// The top-level buckets, in the byte order of their names, which is their order in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bucket {
    Alarm,
    Auth,
    AuthRoles,
    AuthUsers,
    Cluster,
    Key,
    Lease,
    Members,
    MembersRemoved,
    Meta,
}

impl Bucket {
    /// Created at start if missing.
    pub const ALL: [Self; 10] = [
        Self::Alarm,
        Self::Auth,
        Self::AuthRoles,
        Self::AuthUsers,
        Self::Cluster,
        Self::Key,
        Self::Lease,
        Self::Members,
        Self::MembersRemoved,
        Self::Meta,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Alarm => "alarm",
            Self::Auth => "auth",
            Self::AuthRoles => "authRoles",
            Self::AuthUsers => "authUsers",
            Self::Cluster => "cluster",
            Self::Key => "key",
            Self::Lease => "lease",
            Self::Members => "members",
            Self::MembersRemoved => "members_removed",
            Self::Meta => "meta",
        }
    }
}

/// What is wrong with the tree file, and where.
pub type TreeDamage = Box<dyn std::error::Error + Send + Sync>;

/// An immutable committed state of the tree file.
pub trait TreeSnapshot: Clone + Send + Sync + 'static {
    fn get(&self, bucket: Bucket, key: &[u8]) -> Result<Option<&[u8]>, TreeDamage>;

    /// Visits records of `bucket` with key >= `from` in key order until `visit` breaks.
    /// A missing bucket is an empty one.
    fn scan<'a>(
        &'a self,
        bucket: Bucket,
        from: &[u8],
        visit: &mut dyn FnMut(&'a [u8], &'a [u8]) -> ControlFlow<()>,
    ) -> Result<(), TreeDamage>;
}

/// One change of a group commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    Put {
        bucket: Bucket,
        key: &'a [u8],
        value: &'a [u8],
    },
    Delete {
        bucket: Bucket,
        key: &'a [u8],
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_listed_in_file_order() {
        assert!(
            Bucket::ALL
                .windows(2)
                .all(|pair| pair[0] < pair[1] && pair[0].name() < pair[1].name())
        );
    }
}
