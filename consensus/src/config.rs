//! The settings of one member's core, every bound with its default and what happens when it is
//! reached. A bound at the highest value of its type never is.
//!
//! Always true after `Raft::new`: the relations that `Config::check` asserts. Made by the driver
//! once, at start.

use crate::types::MemberId;

#[derive(Clone, Debug)]
pub struct Config {
    /// This member. Never zero.
    pub id: MemberId,
    /// Ticks without a leader's word before a follower campaigns. The real timeout is drawn anew
    /// each time from `election_ticks .. 2 * election_ticks`. Also how long a follower honours a
    /// leader it heard from.
    pub election_ticks: u32,
    /// Ticks between heartbeats.
    pub heartbeat_ticks: u32,
    /// Ask whether an election could be won before raising the term, so that a member coming back
    /// from a partition does not unseat a healthy leader.
    pub pre_vote: bool,
    /// A leader that has not heard from a quorum for `election_ticks` steps down, and followers
    /// refuse votes while they hear from a leader.
    pub check_quorum: bool,
    /// Campaign at once when this member is the only voter, instead of waiting for the timeout.
    pub campaign_when_alone: bool,
    /// Answer reads from the leader's lease without a round of confirmation. Off by default, because
    /// it rests on clocks where nothing else does. Needs, on every member:
    ///
    /// - `check_quorum`, this setting, and the same `election_ticks`;
    /// - ticks of equal length within a bound: the leader's lease lasts at most `election_ticks -
    ///   lease_margin_ticks` of its ticks, a follower's promise at least `election_ticks - 1` of its
    ///   own (it may begin in the middle of one), and the first must be shorter. With 10 and 2 that
    ///   is 8 slow ticks before 9 fast ones: rates may differ by less than one eighth;
    /// - a driver that makes up for late ticks, and calls [`crate::Raft::on_woken`] when more than
    ///   it makes up for are missing, in both cases after it took a read and before it hands it in.
    ///   A clock that stops with the process cannot tell: where machines are suspended and their
    ///   clocks with them, leave this off.
    pub lease_reads: bool,
    /// How much sooner than its followers the leader lets its lease end. At least 1, for rounding.
    pub lease_margin_ticks: u32,
    /// A write that is not durable after so many ticks makes a leader hand over to another voter;
    /// after twice as many it steps down. At most half of `election_ticks` counts, so that it is
    /// gone within one election timeout. The only voter of a cluster waits instead: nobody could
    /// take over.
    pub disk_stall_ticks: u32,

    /// Append messages on the way to one follower. When full, that follower waits for an answer.
    pub inflight_messages_max: usize,
    /// Entries on the way to one follower. When full, that follower waits for an answer.
    pub inflight_entries_max: u64,
    /// Bytes on the way to one follower. When full, that follower waits for an answer; one message
    /// always goes.
    pub inflight_bytes_max: u64,
    /// Bytes of entries in one append message; an entry larger than that travels alone.
    pub message_bytes_max: u64,
    /// Entries in one append message.
    pub message_entries_max: u64,
    /// Bytes of entries a leader holds that are not yet committed. When full, proposals are refused
    /// with [`crate::ProposeError::Full`]; one entry is always let in.
    pub uncommitted_bytes_max: u64,
    /// Entries handed out to be applied and not yet reported applied. When full, no more are handed
    /// out.
    pub apply_entries_max: u64,
    /// The same in bytes; one entry is always handed out.
    pub apply_bytes_max: u64,
    /// Bytes of recent entries kept in memory for followers. Older ones come back through
    /// [`crate::LoadRequest`]. Entries not yet durable or not yet applied stay whatever their size.
    pub cache_bytes_max: u64,
    /// Entries of proposals sent to the leader and not yet answered. When full,
    /// [`crate::ProposeError::Full`].
    pub forward_entries_max: usize,
    /// The same in bytes.
    pub forward_bytes_max: u64,
    /// Reads that wait for confirmation. When full, [`crate::ReadError::Full`].
    pub reads_pending_max: usize,

    /// The log is trimmed when so many entries lie behind the checkpoint.
    pub trim_every_entries: u64,
    /// How many entries behind the checkpoint a trim leaves, for followers that are a little late.
    pub trim_keep_entries: u64,
    /// How far behind the checkpoint an active follower may hold back the trim before it must take
    /// a snapshot.
    pub trim_hold_entries_max: u64,

    /// A message whose term lies further ahead than this is not believed; nor is one in the upper half
    /// of all terms, whatever this says.
    pub term_jump_max: u64,
    /// Seeds the election timeouts and the number that tells this incarnation's reads from an
    /// earlier one's. The driver draws it anew at every start of a process.
    pub seed: u64,
    /// What to do wrong.
    #[cfg(feature = "sabotage")]
    pub sabotage: Option<crate::Sabotage>,
}

impl Config {
    /// The defaults for member `id`.
    pub fn new(id: MemberId, seed: u64) -> Config {
        Config {
            id,
            election_ticks: 10,
            heartbeat_ticks: 1,
            pre_vote: true,
            check_quorum: true,
            campaign_when_alone: true,
            lease_reads: false,
            lease_margin_ticks: 2,
            disk_stall_ticks: 5,
            inflight_messages_max: 512,
            inflight_entries_max: 64 * 1024,
            inflight_bytes_max: 64 << 20,
            message_bytes_max: 1 << 20,
            message_entries_max: 8 * 1024,
            uncommitted_bytes_max: 256 << 20,
            apply_entries_max: 64 * 1024,
            apply_bytes_max: 64 << 20,
            cache_bytes_max: 64 << 20,
            forward_entries_max: 16 * 1024,
            forward_bytes_max: 16 << 20,
            reads_pending_max: 64 * 1024,
            trim_every_entries: 10_000,
            trim_keep_entries: 5_000,
            trim_hold_entries_max: 100_000,
            term_jump_max: 1 << 32,
            seed,
            #[cfg(feature = "sabotage")]
            sabotage: None,
        }
    }

    /// Asserts the relations between settings that the core relies on.
    pub(crate) fn check(&self) {
        assert!(self.id != MemberId::NONE, "member id 0 means no member");
        assert!(self.heartbeat_ticks >= 1, "heartbeat_ticks is 0");
        assert!(
            self.heartbeat_ticks < self.election_ticks,
            "heartbeat_ticks {} is not below election_ticks {}",
            self.heartbeat_ticks,
            self.election_ticks
        );
        assert!(self.disk_stall_ticks >= 1, "disk_stall_ticks is 0");
        assert!(
            !self.lease_reads || self.check_quorum,
            "lease_reads needs check_quorum"
        );
        assert!(
            !self.lease_reads
                || (1 <= self.lease_margin_ticks && self.lease_margin_ticks < self.election_ticks),
            "lease_margin_ticks {} is not in 1 .. {}",
            self.lease_margin_ticks,
            self.election_ticks
        );
        assert!(self.inflight_messages_max >= 1 && self.inflight_entries_max >= 1);
        assert!(self.message_entries_max >= 1 && self.apply_entries_max >= 1);
        assert!(self.reads_pending_max >= 1 && self.forward_entries_max >= 1);
        assert!(
            self.trim_keep_entries <= self.trim_every_entries,
            "trim_keep_entries {} is above trim_every_entries {}",
            self.trim_keep_entries,
            self.trim_every_entries
        );
    }
}
