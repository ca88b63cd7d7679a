//! The archived layout of a command, stated once.
//!
//! Always true: the types here borrow everything and are only ever archived; their archived twins own the layout. Every
//! kind of command sits behind a relative pointer, so the root has one size whatever kinds are added later: new kinds go
//! to the end of [`Body`], new fields of a kind make a new kind, and bytes already in a log stay readable. Built by the
//! net cores. Does not check meaning.

use rkyv::with::{AsBox, InlineAsBox};
use rkyv::{Archive, Portable, Serialize};

use super::auth::Auth;

/// Number of the layout, kept in the payload's trailer. Raised when old readers could misread new bytes.
pub const LAYOUT_VERSION: u16 = 1;

/// How deep transactions may nest in an archive, the outermost counted as 1.
///
/// Requests that nest deeper are refused before they are proposed; an archive that does is damaged.
pub const TXN_DEPTH_MAX: u32 = 256;

/// A command read in place.
pub type CommandView = ArchivedCommand<'static>;

/// What one log entry asks of the state machine.
#[derive(Archive, Serialize, Clone, Copy, Debug)]
pub struct Command<'a> {
    pub header: Header<'a>,
    pub body: Body<'a>,
}

/// Who asks.
#[derive(Archive, Serialize, Clone, Copy, Default, Debug)]
pub struct Header<'a> {
    /// Finds the waiting client on the member that proposed.
    pub request_id: u64,
    /// The member that proposed; on every other one nobody waits for a reply.
    pub member_id: u64,
    /// Revision of the auth store the request was checked at; 0 while authentication is off.
    pub auth_revision: u64,
    /// Empty while authentication is off.
    #[rkyv(with = InlineAsBox)]
    pub user: &'a str,
}

/// The kinds of command. The order is the layout: add at the end, never reuse a place.
#[derive(Archive, Serialize, Clone, Copy, Debug)]
#[repr(u8)]
pub enum Body<'a> {
    Put(#[rkyv(with = AsBox)] Put<'a>),
    DeleteRange(#[rkyv(with = AsBox)] DeleteRange<'a>),
    Txn(#[rkyv(with = AsBox)] Txn<'a>),
    Compact(#[rkyv(with = AsBox)] Compact),
    Alarm(#[rkyv(with = AsBox)] Alarm),
    ClusterVersionSet(#[rkyv(with = AsBox)] ClusterVersionSet<'a>),
    MemberAttrSet(#[rkyv(with = AsBox)] MemberAttrSet<'a>),
    LeaseGrant(#[rkyv(with = AsBox)] LeaseGrant),
    LeaseRevoke(#[rkyv(with = AsBox)] LeaseRevoke),
    LeaseCheckpoint(#[rkyv(with = AsBox)] LeaseCheckpoint<'a>),
    DowngradeInfoSet(#[rkyv(with = AsBox)] DowngradeInfoSet<'a>),
    MemberPeerUrlsSet(#[rkyv(with = AsBox)] MemberPeerUrlsSet<'a>),
    Auth(#[rkyv(with = AsBox)] Auth<'a>),
}

#[derive(Archive, Serialize, Clone, Copy, Default, Debug)]
pub struct Put<'a> {
    pub lease: i64,
    #[rkyv(with = InlineAsBox)]
    pub key: &'a [u8],
    #[rkyv(with = InlineAsBox)]
    pub value: &'a [u8],
    pub prev_kv: bool,
    pub ignore_value: bool,
    pub ignore_lease: bool,
}

#[derive(Archive, Serialize, Clone, Copy, Default, Debug)]
pub struct DeleteRange<'a> {
    #[rkyv(with = InlineAsBox)]
    pub key: &'a [u8],
    #[rkyv(with = InlineAsBox)]
    pub range_end: &'a [u8],
    pub prev_kv: bool,
}

/// A range inside a transaction.
#[derive(Archive, Serialize, Clone, Copy, Default, Debug)]
pub struct Range<'a> {
    pub limit: i64,
    pub revision: i64,
    pub min_mod_revision: i64,
    pub max_mod_revision: i64,
    pub min_create_revision: i64,
    pub max_create_revision: i64,
    #[rkyv(with = InlineAsBox)]
    pub key: &'a [u8],
    #[rkyv(with = InlineAsBox)]
    pub range_end: &'a [u8],
    pub sort_order: u8,
    pub sort_target: u8,
    pub keys_only: bool,
    pub count_only: bool,
}

/// A transaction with everything nested in it, as two tables.
///
/// The operations of one branch lie side by side. The tables are in breadth-first order: first the outermost branches,
/// `success` before `failure`, then those of each nested transaction in the order of their operations. So every span
/// begins where the one before it ended, which one pass can check, and no operation has two parents.
#[derive(Archive, Serialize, Clone, Copy, Default, Debug)]
pub struct Txn<'a> {
    #[rkyv(with = InlineAsBox)]
    pub compares: &'a [Compare<'a>],
    #[rkyv(with = InlineAsBox)]
    pub ops: &'a [Op<'a>],
    pub root: Branches,
}

/// What one transaction, outermost or nested, refers to.
#[derive(Archive, Serialize, Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Branches {
    /// In [`Txn::compares`].
    pub compares: Span,
    /// In [`Txn::ops`].
    pub success: Span,
    /// In [`Txn::ops`].
    pub failure: Span,
}

/// A run of table entries.
#[derive(Archive, Serialize, Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Span {
    pub from: u32,
    pub len: u32,
}

/// One operation of a transaction.
#[derive(Archive, Serialize, Clone, Copy, Debug)]
#[repr(u8)]
pub enum Op<'a> {
    Range(#[rkyv(with = AsBox)] Range<'a>),
    Put(#[rkyv(with = AsBox)] Put<'a>),
    DeleteRange(#[rkyv(with = AsBox)] DeleteRange<'a>),
    Txn(Branches),
}

/// One comparison of a transaction. The operand is the one its target asks for: 0 or empty when the request gave none,
/// or one of another kind.
#[derive(Archive, Serialize, Clone, Copy, Default, Debug)]
pub struct Compare<'a> {
    /// The operand of every target but the value.
    pub number: i64,
    #[rkyv(with = InlineAsBox)]
    pub key: &'a [u8],
    #[rkyv(with = InlineAsBox)]
    pub range_end: &'a [u8],
    /// The operand of the value target.
    #[rkyv(with = InlineAsBox)]
    pub value: &'a [u8],
    /// etcd's number; unknown ones are kept, they have a meaning.
    pub target: i32,
    /// etcd's number; unknown ones are kept, they have a meaning.
    pub result: i32,
}

#[derive(Archive, Serialize, Clone, Copy, Default, Debug)]
pub struct Compact {
    pub revision: i64,
    /// The client waits until the old revisions are gone from the tree.
    pub physical: bool,
}

#[derive(Archive, Serialize, Clone, Copy, Default, Debug)]
pub struct Alarm {
    pub member_id: u64,
    /// etcd's number: 0 get, 1 activate, 2 deactivate.
    pub action: i32,
    /// etcd's number: 0 none, 1 no space, 2 corrupt.
    pub alarm: i32,
}

#[derive(Archive, Serialize, Clone, Copy, Default, Debug)]
pub struct ClusterVersionSet<'a> {
    /// For example `3.7.0`.
    #[rkyv(with = InlineAsBox)]
    pub version: &'a str,
}

#[derive(Archive, Serialize, Clone, Copy, Default, Debug)]
pub struct MemberAttrSet<'a> {
    pub member_id: u64,
    #[rkyv(with = InlineAsBox)]
    pub name: &'a str,
    #[rkyv(with = InlineAsBox)]
    pub client_urls: &'a [Url<'a>],
}

#[derive(Archive, Serialize, Clone, Copy, Default, Debug)]
pub struct Url<'a> {
    #[rkyv(with = InlineAsBox)]
    pub url: &'a str,
}

#[derive(Archive, Serialize, Clone, Copy, Default, Debug)]
pub struct LeaseGrant {
    /// Chosen by the client, or by the member that took the request; not 0.
    pub id: i64,
    /// In seconds, with the minimum of the member that took the request applied.
    pub ttl_s: i64,
}

#[derive(Archive, Serialize, Clone, Copy, Default, Debug)]
pub struct LeaseRevoke {
    pub id: i64,
}

/// What a leader knows of the remaining time of some leases.
#[derive(Archive, Serialize, Clone, Copy, Default, Debug)]
pub struct LeaseCheckpoint<'a> {
    #[rkyv(with = InlineAsBox)]
    pub leases: &'a [LeaseRemaining],
}

#[derive(Archive, Serialize, Clone, Copy, Default, Debug)]
pub struct LeaseRemaining {
    pub id: i64,
    /// In seconds; 0 takes an earlier checkpoint back.
    pub remaining_ttl_s: i64,
}

/// Whether the cluster is on its way down, and to which version.
#[derive(Archive, Serialize, Clone, Copy, Default, Debug)]
pub struct DowngradeInfoSet<'a> {
    pub is_enabled: bool,
    /// For example `3.6.0`; empty when not enabled.
    #[rkyv(with = InlineAsBox)]
    pub target: &'a str,
}

#[derive(Archive, Serialize, Clone, Copy, Default, Debug)]
pub struct MemberPeerUrlsSet<'a> {
    pub member_id: u64,
    #[rkyv(with = InlineAsBox)]
    pub peer_urls: &'a [Url<'a>],
}

impl Command<'_> {
    /// No archive of this command is longer. Exact but for alignment, which is counted at its worst.
    pub fn archived_bytes_max(&self) -> usize {
        size_of::<CommandView>() + slack(self.header.user.len()) + self.body.archived_bytes_max()
    }
}

impl Body<'_> {
    fn archived_bytes_max(&self) -> usize {
        match self {
            Body::Put(put) => put.archived_bytes_max(),
            Body::DeleteRange(delete) => delete.archived_bytes_max(),
            Body::Txn(txn) => {
                let compares: usize = txn
                    .compares
                    .iter()
                    .map(|compare| {
                        slack(size_of::<ArchivedCompare<'static>>())
                            + slack(compare.key.len())
                            + slack(compare.range_end.len())
                            + slack(compare.value.len())
                    })
                    .sum();
                let ops: usize = txn
                    .ops
                    .iter()
                    .map(|op| {
                        slack(size_of::<ArchivedOp<'static>>())
                            + match op {
                                Op::Range(range) => {
                                    slack(size_of::<ArchivedRange<'static>>())
                                        + slack(range.key.len())
                                        + slack(range.range_end.len())
                                }
                                Op::Put(put) => put.archived_bytes_max(),
                                Op::DeleteRange(delete) => delete.archived_bytes_max(),
                                Op::Txn(_) => 0,
                            }
                    })
                    .sum();
                slack(size_of::<ArchivedTxn<'static>>()) + compares + ops
            }
            Body::Compact(_) => slack(size_of::<ArchivedCompact>()),
            Body::Alarm(_) => slack(size_of::<ArchivedAlarm>()),
            Body::ClusterVersionSet(set) => {
                slack(size_of::<ArchivedClusterVersionSet<'static>>()) + slack(set.version.len())
            }
            Body::MemberAttrSet(set) => {
                slack(size_of::<ArchivedMemberAttrSet<'static>>())
                    + slack(set.name.len())
                    + set
                        .client_urls
                        .iter()
                        .map(|url| slack(size_of::<ArchivedUrl<'static>>()) + slack(url.url.len()))
                        .sum::<usize>()
            }
            Body::DowngradeInfoSet(set) => {
                slack(size_of::<ArchivedDowngradeInfoSet<'static>>()) + slack(set.target.len())
            }
            Body::MemberPeerUrlsSet(set) => {
                slack(size_of::<ArchivedMemberPeerUrlsSet<'static>>())
                    + set
                        .peer_urls
                        .iter()
                        .map(|url| slack(size_of::<ArchivedUrl<'static>>()) + slack(url.url.len()))
                        .sum::<usize>()
            }
            Body::LeaseGrant(_) => slack(size_of::<ArchivedLeaseGrant>()),
            Body::LeaseRevoke(_) => slack(size_of::<ArchivedLeaseRevoke>()),
            Body::LeaseCheckpoint(checkpoint) => {
                slack(size_of::<ArchivedLeaseCheckpoint<'static>>())
                    + slack(checkpoint.leases.len() * size_of::<ArchivedLeaseRemaining>())
            }
            Body::Auth(auth) => auth.archived_bytes_max(),
        }
    }
}

impl Put<'_> {
    fn archived_bytes_max(&self) -> usize {
        slack(size_of::<ArchivedPut<'static>>()) + slack(self.key.len()) + slack(self.value.len())
    }
}

impl DeleteRange<'_> {
    fn archived_bytes_max(&self) -> usize {
        slack(size_of::<ArchivedDeleteRange<'static>>())
            + slack(self.key.len())
            + slack(self.range_end.len())
    }
}

/// `bytes` and the worst padding before them.
pub(super) const fn slack(bytes: usize) -> usize {
    bytes + 8
}

/// Readers rely on a root of this size at the end of the archive.
const _: () = assert!(size_of::<CommandView>() == 40);
const _: () = assert!(align_of::<CommandView>() == 8);
const _: () = assert!(size_of::<ArchivedPut<'static>>() == 32);
const _: () = assert!(size_of::<ArchivedOp<'static>>() == 28);
const _: () = assert!(size_of::<ArchivedCompare<'static>>() == 40);

/// The archived types hold no pointers that depend on where they lie.
const fn assert_portable<T: Portable>() {}
const _: () = assert_portable::<CommandView>();
