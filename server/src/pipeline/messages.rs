//! What stages say to each other.

use bytes::Bytes;
use consensus::Entry;
use storage::tree::Snapshot;
use wire::error::EtcdError;

use crate::auth::PasswordDone;
use crate::backup::Done;
use crate::watch::StreamKey;

use super::defrag::DefragAsk;
use super::leases::LeaseAnswer;

/// A net core's number, from 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NetId(pub u8);

impl NetId {
    /// Stands for the member itself where it proposes something that must come through.
    pub const MEMBER: NetId = NetId(u8::MAX);
    /// The same for what it proposes again if it was lost: ends and checkpoints of leases. Refused like a client's
    /// write while the disk is full.
    pub const LEASES: NetId = NetId(u8::MAX - 1);
}

/// Names one proposal of one net core of one life of this member.
///
/// Layout: 16 bits (the highest clear, the next set: ids are as long as etcd's on the wire) that tell this life of this member from others, 8 bits net core, 40 bits
/// sequence. It travels inside the entry, so a reply finds its way however the entry came to be
/// committed, and an entry of an earlier life finds nobody.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RequestId(pub u64);

impl RequestId {
    /// Of no life: nobody waits for it.
    pub const NOBODY: RequestId = RequestId(0);

    const SEQUENCE_BITS: u32 = 40;

    pub fn new(life: u16, net: NetId, sequence: u64) -> RequestId {
        assert!(
            sequence < 1 << Self::SEQUENCE_BITS,
            "{sequence} proposals in one life"
        );
        RequestId(u64::from(life) << 48 | u64::from(net.0) << Self::SEQUENCE_BITS | sequence)
    }

    pub fn life(self) -> u16 {
        (self.0 >> 48) as u16
    }

    pub fn net(self) -> NetId {
        NetId((self.0 >> Self::SEQUENCE_BITS) as u8)
    }

    pub fn sequence(self) -> u64 {
        self.0 & ((1 << Self::SEQUENCE_BITS) - 1)
    }
}

/// From a net core (or the apply core, for the member's own proposals) to the log core.
pub enum ToLog {
    /// Append this command; the answer comes from the apply core under the command's request id.
    Propose {
        id: RequestId,
        command: Bytes,
        parsed_ns: u64,
    },
    /// Confirm leadership and say up to which index a read must wait; one for all reads of a pass.
    ReadIndex { net: NetId, context: u64 },
    /// The tree file holds everything up to this index; the log may be trimmed behind it.
    Persisted { index: u64 },
}

/// A committed entry on its way to the apply core.
pub struct ToApply {
    pub entry: Entry,
    /// When it was durable here; 0 if that is unknown.
    pub durable_ns: u64,
}

/// To a net core, from the log core, the apply core or a helper thread.
pub enum ToNet {
    /// The member has published itself: accept clients.
    Serve,
    /// Answers of one pass of the apply core.
    Replies(ReplyBatch),
    /// The same to questions about leases.
    Leases(Vec<LeaseAnswer>),
    /// A state of the tree file with everything that was applied when it was asked for, or why there is none.
    State {
        caller: StreamKey,
        result: Result<Box<Snapshot>, EtcdError>,
    },
    /// What the backup thread did for a call.
    Backup { caller: StreamKey, done: Done },
    /// A helper thread is done with a password.
    Password(PasswordDone),
    /// The file is as short as it becomes, or the defragmentation ended without that.
    Defragmented {
        ask: DefragAsk,
        result: Result<(), EtcdError>,
    },
    /// The proposal never got into the log.
    Dropped { id: RequestId, error: EtcdError },
    /// Reads under this context may run once `index` is applied.
    ReadIndex { context: u64, index: u64 },
    /// Leadership was lost before the read was confirmed.
    ReadIndexFailed { context: u64, error: EtcdError },
}

/// Answers to several proposals in one piece of memory, which goes back to be filled again.
#[derive(Default)]
pub struct ReplyBatch {
    pub bytes: Vec<u8>,
    pub replies: Vec<Reply>,
    /// When it left the apply core.
    pub made_ns: u64,
}

/// One answer: the encoded response message, or the error.
pub struct Reply {
    pub id: RequestId,
    pub result: Result<std::ops::Range<usize>, EtcdError>,
}
