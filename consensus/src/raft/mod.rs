//! The machine itself: its state, its inputs in the order of arrival, its outputs.
//!
//! The sub-protocols live beside this file, one each: `election`, `replication`, `reads`, `forward`
//! (proposals), `conf` (membership), `transfer`, `snapshot`, `writes` (the disk). This file holds
//! what they share, sorts messages to them by term, and gathers their outputs.
//!
//! Invariants
//! - `term` never falls; `vote` changes within a term only from nobody to somebody.
//! - `progress`, `transfer` and `leaving` are empty unless this member leads.
//! - A message is filtered first; what passes is asserted by its handler.

mod conf;
mod election;
mod forward;
mod reads;
mod replication;
mod snapshot;
mod transfer;
mod writes;

use self::forward::{Forwards, Taken};
use self::reads::Reads;
use self::transfer::Transfer;
use self::writes::Writes;
use crate::config::Config;
use crate::ignored::{Ignored, IgnoredCounts};
use crate::log::Log;
use crate::membership::Membership;
use crate::message::{Body, Message, SnapshotMeta};
use crate::progress::Progress;
use crate::random::Random;
use crate::ready::{Leadership, LoadRequest, Outgoing, Ready, SnapshotRequest, WriteNumber};
use crate::status::{FollowerStatus, Role, Status};
use crate::types::{Entry, HardState, LogIndex, LogPosition, MemberId, Term};

/// No real term gets here, and what lies beyond is not believed: however many messages of a broken or
/// hostile peer drive terms up, there is always a next one.
const TERM_MAX: Term = Term(u64::MAX / 2);

/// What a member knows when it starts, from its log and its state machine. All of it is durable.
#[derive(Clone, Debug, Default)]
pub struct Restored {
    pub hard_state: HardState,
    /// The position before the first entry that the log can still load: a snapshot's end or the
    /// last trim.
    pub log_base: LogPosition,
    /// Where terms begin between `log_base` and the first of `entries`, ascending: the position of
    /// the first entry of each term there. Empty when `entries` starts right behind `log_base`.
    pub term_starts: Vec<LogPosition>,
    /// The end of the log, contiguous through its last entry, so empty only when the log is. Must
    /// reach back to the entry after `applied`.
    pub entries: Vec<Entry>,
    /// The state machine holds the effects of the log through here, durably.
    pub applied: LogIndex,
    /// The members as of `applied`.
    pub membership: Membership,
}

impl Restored {
    /// A member of a new cluster whose founders agreed on `membership` beforehand. The agreement
    /// stands for entry 1 of term 1, committed and applied; the log begins behind it. So a member
    /// that joins later cannot replay the log from the start without it: it takes a snapshot, and
    /// with that the membership. The driver keeps `log_base`, `applied` and `hard_state` like those
    /// of any other start.
    pub fn founding(membership: Membership) -> Restored {
        assert!(
            !membership.voters.is_empty(),
            "a cluster is founded by voters"
        );
        let log_base = LogPosition::new(LogIndex(1), Term(1));
        Restored {
            hard_state: HardState {
                term: Term(1),
                vote: None,
                commit: LogIndex(1),
            },
            log_base,
            applied: log_base.index,
            membership,
            ..Restored::default()
        }
    }

    /// A member that joins an existing cluster knows nothing; the leader will send it a snapshot.
    pub fn joining() -> Restored {
        Restored::default()
    }
}

/// One member's Raft. See the crate's documentation. A clone goes on by itself from the same state:
/// for searches that branch. A driver owns one and never clones it.
#[derive(Clone, Debug)]
pub struct Raft {
    config: Config,
    random: Random,
    /// Tells this process's reads from an earlier one's.
    incarnation: u64,
    /// Ticks since the start.
    now: u64,

    term: Term,
    vote: Option<MemberId>,
    role: Role,
    leader: Option<MemberId>,
    log: Log,
    membership: Membership,
    /// The last change that `membership` includes.
    membership_index: LogIndex,
    /// The state machine is durable through here.
    checkpoint: LogIndex,

    /// Ticks since the leader was heard, or since the last quorum check on a leader.
    election_elapsed: u32,
    election_timeout: u32,
    heartbeat_elapsed: u32,
    /// With leases: no vote against the leader before this tick.
    lease_promise_end: u64,
    /// Candidates: who answered what.
    votes: Vec<(MemberId, bool)>,

    /// Leader: the other members, in order of their ids.
    progress: Vec<Progress>,
    /// Leader: the first entry of its term.
    term_start: LogIndex,
    transfer: Option<Transfer>,
    /// Leader: it stopped being a voter by the entry here, and hands over.
    leaving: Option<LogIndex>,
    reads: Reads,
    forwards: Forwards,
    forwards_refused: u64,
    /// Leader: which batches of other members arrived in this term.
    taken: Taken,
    stalls: u64,

    writes: Writes,
    /// The commit index as last written.
    commit_written: LogIndex,
    install: Option<SnapshotMeta>,
    /// The entries of the next write replace some that were handed out.
    truncates: bool,
    messages: Vec<Outgoing>,
    loads: Vec<LoadRequest>,
    load_id: u64,
    snapshots: Vec<SnapshotRequest>,
    /// Requests the driver has yet to answer. At most as many as it leaves unanswered.
    loads_open: Vec<u64>,
    snapshots_open: Vec<MemberId>,
    leadership: Leadership,
    ignored: IgnoredCounts,
    /// Empty buffers for append messages.
    spare: Vec<Vec<Entry>>,
}

impl Raft {
    /// Starts as a follower, or campaigns at once when alone. Asserts that what was restored fits
    /// together.
    pub fn new(config: Config, restored: Restored) -> Raft {
        config.check();
        restored.membership.check();
        let HardState {
            mut term,
            mut vote,
            commit,
        } = restored.hard_state;
        if restored.log_base.term > term {
            // A crash kept an installed snapshot without the hard state that came after it.
            (term, vote) = (restored.log_base.term, None);
        }
        let log = Log::new(
            restored.log_base,
            &restored.term_starts,
            restored.entries,
            restored.applied,
            commit,
            config.cache_bytes_max,
        );
        assert!(
            log.last().term <= term,
            "the log ends in term {:?}, after the member's own {term:?}",
            log.last().term
        );
        let mut random = Random::new(config.seed ^ config.id.0.rotate_left(32));
        let incarnation = random.next();
        let mut raft = Raft {
            random,
            incarnation,
            now: 0,
            term,
            vote,
            role: Role::Follower,
            leader: None,
            membership: restored.membership,
            membership_index: restored.applied,
            checkpoint: restored.applied,
            election_elapsed: 0,
            election_timeout: 0,
            heartbeat_elapsed: 0,
            lease_promise_end: u64::from(config.election_ticks),
            votes: Vec::new(),
            progress: Vec::new(),
            term_start: LogIndex::ZERO,
            transfer: None,
            leaving: None,
            reads: Reads::default(),
            forwards: Forwards::default(),
            forwards_refused: 0,
            taken: Taken::default(),
            stalls: 0,
            writes: Writes::default(),
            commit_written: log.commit(),
            install: None,
            truncates: false,
            messages: Vec::new(),
            loads: Vec::new(),
            load_id: 0,
            snapshots: Vec::new(),
            loads_open: Vec::new(),
            snapshots_open: Vec::new(),
            leadership: Leadership {
                role: Role::Follower,
                term,
                leader: None,
            },
            ignored: IgnoredCounts::default(),
            spare: Vec::new(),
            config,
            log,
        };
        raft.restart_election_timer();
        raft.campaign_if_alone();
        raft
    }

    /// One unit of time has passed.
    pub fn tick(&mut self) {
        self.now += 1;
        self.election_elapsed = self.election_elapsed.saturating_add(1);
        if self.role == Role::Leader {
            self.tick_leader();
        } else {
            self.age_reads();
            self.age_forwards();
            if self.election_elapsed >= self.election_timeout {
                self.on_election_timeout();
            }
        }
    }

    /// The process stood still for a while, or time was lost in some other way: fewer ticks were
    /// counted than passed. To be called before any other input. Whatever rests on this member's
    /// count of ticks is given up: its lease, and the impatience of a follower, which has yet to
    /// look at what arrived meanwhile.
    pub fn on_woken(&mut self) {
        if is_sabotaged!(self.config, LeaseOutlivesPause) {
            return;
        }
        self.reads.end_lease();
        if self.role != Role::Leader {
            self.election_elapsed = 0;
        }
    }

    fn tick_leader(&mut self) {
        if self.election_elapsed >= self.config.election_ticks {
            self.election_elapsed = 0;
            if !self.check_quorum_active() && self.config.check_quorum {
                return self.become_follower(self.term, None);
            }
        }
        self.tick_disk_stall();
        if self.role != Role::Leader {
            return;
        }
        self.tick_transfer();
        self.heartbeat_elapsed += 1;
        if self.heartbeat_elapsed >= self.config.heartbeat_ticks {
            self.heartbeat_elapsed = 0;
            self.begin_read_round(true);
            self.send_heartbeats();
        }
    }

    /// Whether a quorum was heard from since the last time this was asked.
    fn check_quorum_active(&mut self) -> bool {
        let is_active =
            |id| id == self.config.id || self.progress.iter().any(|p| p.id == id && p.is_active);
        let is_quorum = crate::quorum::is_majority(&self.membership.voters, is_active)
            && crate::quorum::is_majority(&self.membership.voters_outgoing, is_active);
        for p in &mut self.progress {
            p.is_active = false;
        }
        is_quorum
    }

    /// A message from a member arrived. Anything that makes no sense is ignored and counted.
    pub fn step(&mut self, from: MemberId, message: Message) {
        let Message { term, body } = message;
        if from == self.config.id || from == MemberId::NONE {
            return self.ignored.count(Ignored::FromSelf);
        }
        if term > TERM_MAX || term.0 > self.term.0.saturating_add(self.config.term_jump_max) {
            return self.ignored.count(Ignored::TermTooFar);
        }
        // Leaders and candidates may be newer than our membership; everyone else must be in it.
        if !body.is_from_leader_or_candidate() && !self.membership.contains(from) {
            return self.ignored.count(Ignored::UnknownMember);
        }
        // Pre-votes speak of a term that nobody has taken yet.
        match body {
            Body::PreVote { last } => return self.on_pre_vote(from, term, last),
            Body::PreVoteReply { granted: true } => {
                return self.on_pre_vote_reply(from, term, true);
            }
            _ => {}
        }
        if term < self.term {
            return self.on_old_term(from, &body);
        }
        // While a leader is alive nobody who does not hear it may unseat it (thesis section 4.2.3).
        if let Body::Vote {
            transfer: false, ..
        } = body
            && self.config.check_quorum
            && self.is_leader_alive()
            && !is_sabotaged!(self.config, LeaseUnpromised)
        {
            return self.ignored.count(Ignored::LeaderAlive);
        }
        if term > self.term {
            self.become_follower(term, None);
        }
        assert!(term == self.term);
        match body {
            Body::PreVote { .. } => unreachable!("handled above"),
            Body::PreVoteReply { granted } => self.on_pre_vote_reply(from, term, granted),
            Body::Vote { last, .. } => self.on_vote(from, last),
            Body::VoteReply { granted } => self.on_vote_reply(from, granted),
            Body::Committed { at } => self.on_committed(at),
            Body::Append {
                prev,
                commit,
                entries,
            } => self.on_append(from, prev, commit, entries),
            Body::AppendAck { matched, commit } => self.on_append_ack(from, matched, commit),
            Body::AppendReject {
                rejected,
                hint,
                last,
            } => {
                self.on_append_reject(from, rejected, hint, last);
            }
            Body::Heartbeat { commit, round } => self.on_heartbeat(from, commit, round),
            Body::HeartbeatAck { round, commit } => self.on_heartbeat_ack(from, round, commit),
            Body::Snapshot { snapshot } => self.on_snapshot(from, snapshot),
            Body::TimeoutNow => self.on_timeout_now(from),
            Body::ReadIndex {
                incarnation,
                context,
            } => {
                self.on_read_index(from, incarnation, context);
            }
            Body::ReadIndexReply {
                incarnation,
                context,
                index,
            } => {
                self.on_read_index_reply(from, incarnation, context, index);
            }
            Body::Propose {
                incarnation,
                batch,
                proposals,
            } => self.on_propose(from, incarnation, batch, proposals),
            Body::ProposeReply { batch, accepted } => self.on_propose_reply(batch, accepted),
        }
    }

    /// Whoever still leads or campaigns in an old term learns of ours and gives up.
    fn on_old_term(&mut self, from: MemberId, body: &Body) {
        self.ignored.count(Ignored::OldTerm);
        let reply = match body {
            Body::Append { .. } | Body::Heartbeat { .. } | Body::Snapshot { .. } => {
                Body::HeartbeatAck {
                    round: 0,
                    commit: LogIndex::ZERO,
                }
            }
            Body::Vote { .. } => Body::VoteReply { granted: false },
            _ => return,
        };
        self.send(from, self.writes.after_state(), reply);
    }

    /// Write `through` and all before it are durable. Asserts that this is news: each write is
    /// reported once, by its own number or by a later one.
    /// `NONE` says nothing.
    pub fn on_synced(&mut self, through: WriteNumber) {
        if through == WriteNumber::NONE {
            return;
        }
        let synced = self.writes.complete(through);
        self.log.set_durable(synced.last);
        if let Some(installed) = synced.installed {
            // A newer snapshot may have been taken meanwhile; the log is then further on already.
            self.log.set_installed(installed);
        }
        if self.writes.is_state_durable() {
            self.on_state_synced();
        }
        if self.role == Role::Leader {
            self.maybe_commit();
        }
    }

    /// The state machine has applied everything through `index`. Asserts that so much was handed out
    /// to be applied, and that it is not less than was reported before.
    pub fn on_applied(&mut self, index: LogIndex) {
        self.log.set_applied(index);
        // The changes that made it the only voter may have been among these.
        self.campaign_if_alone();
    }

    fn send(&mut self, to: MemberId, after: WriteNumber, body: Body) {
        self.send_message(
            to,
            after,
            Message {
                term: self.term,
                body,
            },
        );
    }

    fn send_message(&mut self, to: MemberId, after: WriteNumber, message: Message) {
        assert!(to != self.config.id, "a member does not write to itself");
        let is_hasty = match message.body {
            Body::VoteReply { .. } => is_sabotaged!(self.config, VoteNotDurable),
            Body::AppendAck { .. } => is_sabotaged!(self.config, AckNotDurable),
            _ => false,
        };
        let after = if is_hasty { WriteNumber::NONE } else { after };
        self.messages.push(Outgoing { to, after, message });
    }

    fn progress_mut(&mut self, id: MemberId) -> Option<&mut Progress> {
        self.progress.iter_mut().find(|p| p.id == id)
    }

    fn progress_round(&self, id: MemberId) -> u64 {
        self.progress
            .iter()
            .find(|p| p.id == id)
            .map_or(0, |p| p.round)
    }

    /// Moves what there is to do into `out`, whose old content is dropped. To be called until it
    /// comes back empty: what must be two writes comes in two calls.
    pub fn ready(&mut self, out: &mut Ready) {
        out.clear();
        if self.role == Role::Leader {
            self.maybe_leave_joint();
            self.begin_read_round(false);
            self.pump_all();
        } else {
            self.flush_forwards();
        }
        std::mem::swap(&mut out.messages, &mut self.messages);
        std::mem::swap(&mut out.read_states, &mut self.reads.states);
        std::mem::swap(&mut out.reads_failed, &mut self.reads.failed);
        std::mem::swap(&mut out.loads, &mut self.loads);
        std::mem::swap(&mut out.snapshots, &mut self.snapshots);
        self.hand_out_write(out);
        self.log.hand_to_apply(
            self.config.apply_entries_max,
            self.config.apply_bytes_max,
            &mut out.committed,
        );
        out.trim = self.maybe_trim();
        let leadership = Leadership {
            role: self.role,
            term: self.term,
            leader: self.leader,
        };
        if leadership != self.leadership {
            self.leadership = leadership;
            out.leadership = Some(leadership);
        }
    }

    fn hand_out_write(&mut self, out: &mut Ready) {
        let has_state = self.writes.is_state_dirty();
        if !has_state && !self.log.has_unhanded() && self.install.is_none() {
            return;
        }
        out.truncates = std::mem::take(&mut self.truncates);
        // The commit index is written before the entries it came with. If a crash keeps it without
        // them, it must not cover what they were to replace: member holds 10 of term 3; takes 10 to
        // 12 of term 4 with commit 11; the write is torn behind its state; after the restart 10 of
        // term 3 would count as committed. So a write that replaces entries holds the first of them
        // and a commit index before it; the next one brings the others.
        let commit = match out.truncates {
            true => self.log.commit().min(self.log.handed()),
            false => self.log.commit(),
        };
        // A commit index alone is not worth a write, but an entry must not be durable without the
        // commit index that came with it (`conf.rs`, rule 2).
        let has_commit =
            self.commit_written != commit && !is_sabotaged!(self.config, CommitIndexNotWritten);
        if has_state || self.install.is_some() || has_commit {
            self.commit_written = commit;
            out.hard_state = Some(HardState {
                term: self.term,
                vote: self.vote,
                commit,
            });
        }
        out.install = self.install.take();
        self.log.hand_out(out.truncates, &mut out.entries);
        let installed = out.install.as_ref().map(|snapshot| snapshot.last.index);
        out.write = self.writes.emit(self.log.handed(), self.now, installed);
    }

    pub fn status(&self) -> Status {
        Status {
            id: self.config.id,
            role: self.role,
            term: self.term,
            vote: self.vote,
            leader: self.leader,
            commit: self.log.commit(),
            applied: self.log.applied(),
            last_index: self.log.last_index(),
            durable: self.log.durable(),
            first_index: self.log.base().index.next(),
            is_voter: self.membership.is_voter(self.config.id),
            is_learner: self.membership.is_learner(self.config.id),
            transferee: self.transfer.map(|transfer| transfer.to),
            cached_bytes: self.log.cached_bytes(),
            uncommitted_bytes: self.log.uncommitted_bytes(),
        }
    }

    /// The followers as this leader sees them; nothing on other roles.
    pub fn followers(&self) -> impl Iterator<Item = FollowerStatus> + '_ {
        self.progress.iter().map(|p| FollowerStatus {
            id: p.id,
            state: p.state,
            matched: p.matched,
            next: p.next,
            is_active: p.is_active,
            is_learner: p.is_learner,
        })
    }

    /// The members as of the last applied change.
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// The term of the entry at `index`, while the log reaches there.
    pub fn term_at(&self, index: LogIndex) -> Option<Term> {
        self.log.term_at(index)
    }

    /// What was ignored, by reason.
    pub fn ignored(&self) -> IgnoredCounts {
        self.ignored
    }
}
