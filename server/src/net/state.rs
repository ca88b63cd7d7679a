//! A net core's state behind its connections: who waits for what, and the reads it serves.
//!
//! Always true here: everything is synchronous and short; a range that is not done after one slice
//! leaves as a [`LongRead`]; nothing is allocated for a small read in steady state.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use storage::command::CommandArena;
use storage::mvcc::Reader;
use storage::tree::Snapshot;
use wire::error::EtcdError;
use wire::grpc::{Code, MethodId, Responder, StreamId};
use wire::kv::ResponseHeader;
use wire::messages::etcdserverpb::AlarmRequest;

use crate::auth::checks::check_read;
use crate::auth::{AuthGate, AuthSettings, Identity, PasswordDesk, refusal};
use crate::backup::BackupThread;
use crate::kv::command::TxnTables;
use crate::metrics::{ApplyOp, CoreMetrics};
use crate::pipeline::{DefragAsk, LeaseAsk, NetId, Reply, ReplyBatch, Shared, ToLog, Watcher};
use crate::services::methods::{Router, id};
use crate::services::status;
use crate::watch::{Hub, HubSettings, StreamKey};

use super::auth_calls::AuthCalls;
use super::backups::Backups;
use super::books::{Books, Ended, Work};
use super::connection::ConnectionKey;
use super::core::fail;
use super::errands::Errands;
use super::http_client::Serves;
use super::lease_calls::{LeaseCallSettings, LeaseCalls};
use super::long_reads::{LONG_READ_BYTES_MAX, LONG_READS_MAX, LongRead, ReadJob, ReadOutcome};
use super::plain_http::WaitingPlain;
use super::proposals::{Pending, Proposals};
use super::reads::{ReadBatch, Reads};
use super::watching::Watching;

#[derive(Clone)]
pub struct CallSettings {
    pub request_timeout_ns: u64,
    pub request_bytes_max: usize,
    /// Largest command that the log takes.
    pub entry_bytes_max: usize,
    pub txn_ops_max: usize,
    /// `None`: no quota.
    pub quota_bytes: Option<u64>,
    /// What Status shows.
    pub quota_shown: i64,
    /// Reads slower than this are logged.
    pub warning_apply: Duration,
    /// Unary calls slower than this are logged.
    pub warning_unary: Duration,
    pub watch: HubSettings,
    /// Without a leader for this long, streams end whose clients want one.
    pub leaderless_max_ns: u64,
    pub leases: LeaseCallSettings,
    pub auth: AuthSettings,
}

/// What a net core says to the other stages.
pub struct NetRings {
    pub to_log: Watcher<ToLog>,
    /// Memory of replies goes back.
    pub to_apply: Watcher<ReplyBatch>,
    pub to_leases: Watcher<Vec<LeaseAsk>>,
    /// Asks for a state of the tree file.
    pub to_states: Watcher<StreamKey>,
    pub passwords: PasswordDesk,
    pub to_defrag: Watcher<DefragAsk>,
}

/// A net core's state behind its connections.
pub struct NetState {
    pub id: NetId,
    /// Of the pass that is running.
    pub now_ns: u64,
    /// Of the connection that is read in this pass.
    pub serves: Serves,
    pub shared: Arc<Shared>,
    pub settings: Rc<CallSettings>,
    pub proposals: Proposals,
    pub reads: Reads,
    pub leases: LeaseCalls,
    pub backups: Backups,
    pub errands: Errands,
    /// Who calls, and what he may do.
    pub auth: AuthGate,
    pub(super) auth_calls: AuthCalls,
    pub to_log: Watcher<ToLog>,
    pub to_apply: Watcher<ReplyBatch>,
    pub(super) to_defrag: Watcher<DefragAsk>,
    pub reader: Reader<Snapshot>,
    /// Begun in this pass, for the background task to take.
    pub long_reads: Vec<LongRead>,
    pub long_reads_running: usize,
    /// What their replies hold so far.
    pub long_read_bytes: usize,
    /// Begun in this pass, for their tasks to take.
    pub plain: Vec<WaitingPlain>,
    pub plain_running: usize,
    pub(super) arena: CommandArena,
    pub(super) tables: TxnTables,
    pub(super) router: Router,
    pub metrics: Rc<CoreMetrics>,
    pub books: Books,
    pub watching: Watching,
    pub(super) job: ReadJob,
    pub(super) scratch: Vec<u8>,
}

impl NetState {
    pub fn new(
        id: NetId,
        shared: Arc<Shared>,
        settings: CallSettings,
        rings: NetRings,
        backup_thread: BackupThread,
        reader: Reader<Snapshot>,
        metrics: Rc<CoreMetrics>,
    ) -> NetState {
        // Spreads the progress messages of streams; any number will do.
        let seed = u64::from(shared.life) << 8 | u64::from(id.0);
        let auth = AuthGate::new(&shared.auth, settings.auth.clone());
        let hub = Hub::new(settings.watch.clone(), reader.clone(), seed);
        NetState {
            id,
            now_ns: 0,
            serves: Serves::Everything,
            shared,
            settings: Rc::new(settings),
            proposals: Proposals::default(),
            reads: Reads::default(),
            leases: LeaseCalls::new(rings.to_leases),
            errands: Errands::default(),
            backups: Backups::new(rings.to_states, backup_thread),
            auth,
            auth_calls: AuthCalls::new(rings.passwords),
            to_log: rings.to_log,
            to_apply: rings.to_apply,
            to_defrag: rings.to_defrag,
            reader,
            long_reads: Vec::new(),
            long_reads_running: 0,
            long_read_bytes: 0,
            plain: Vec::new(),
            plain_running: 0,
            arena: CommandArena::default(),
            tables: TxnTables::default(),
            router: Router::new(),
            books: Books::new(metrics.clone()),
            watching: Watching::new(hub),
            metrics,
            job: ReadJob::default(),
            scratch: Vec::new(),
        }
    }

    /// Asks for the reads that gathered in this pass and wakes the log core for what was pushed.
    pub fn end_pass(&mut self) {
        self.end_lease_pass();
        let deadline_ns = self.now_ns + self.settings.request_timeout_ns;
        if let Some(context) = self.reads.ask(deadline_ns)
            && self
                .to_log
                .push(ToLog::ReadIndex {
                    net: self.id,
                    context,
                })
                .is_err()
        {
            self.reads.unask();
        }
        self.to_log.flush();
        self.metrics
            .proposals_pending
            .set(self.proposals.waiting() as i64);
    }

    pub fn on_read_index(&mut self, context: u64, index: u64) {
        self.reads.confirm(context, index);
        self.end_pass();
    }

    /// The reads of this context, which are to be told; those that gathered meanwhile are asked for.
    pub fn on_read_index_failed(&mut self, context: u64) -> ReadBatch {
        let failed = self.reads.take_failed(context);
        self.end_pass();
        failed
    }

    /// Who waits for this reply.
    pub fn on_reply(&mut self, reply: &Reply) -> Option<Pending> {
        let is_ours = reply.id.life() == self.shared.life && reply.id.net() == self.id;
        is_ours
            .then(|| self.proposals.take(reply.id.sequence()))
            .flatten()
    }

    /// Gives a batch's memory back to the apply core.
    pub fn recycle(&mut self, mut batch: ReplyBatch) {
        batch.bytes.clear();
        batch.replies.clear();
        // A full ring only means that enough memory is on its way back already.
        let _ = self.to_apply.push(batch);
    }

    pub fn header(&self) -> ResponseHeader {
        ResponseHeader {
            cluster_id: self.shared.cluster_id,
            member_id: self.shared.member_id,
            revision: self.reader.revision(),
            raft_term: self.shared.term(),
        }
    }

    /// Answers a read whose time has come.
    pub fn serve_read(
        &mut self,
        (connection, stream, method): (ConnectionKey, StreamId, MethodId),
        started_ns: u64,
        who: Option<&Identity>,
        request: &[u8],
        out: &mut Responder<'_>,
    ) {
        if method == id::AUTH_AUTHENTICATE {
            return self.check_password(connection, stream, out);
        }
        let ended = |work| Ended {
            connection,
            method,
            work,
            started_ns,
        };
        if method == id::CLUSTER_MEMBER_LIST {
            let cluster = self.shared.cluster.load();
            out.unary(stream, |buffer| {
                status::put_member_list(buffer, &self.shared, &cluster);
            });
            return self.books.ended(ended(Work::Other));
        }
        if method == id::MAINTENANCE_ALARM {
            let kind = AlarmRequest::decode(request).map_or(0, |request| request.alarm);
            let cluster = self.shared.cluster.load();
            let header = status::header(&self.shared, self.reader.revision());
            out.unary(stream, |buffer| {
                status::put_alarms(buffer, header, &cluster, kind);
            });
            // For etcd's books it is an entry that was carried out.
            self.metrics.applied(ApplyOp::Alarm, true, Duration::ZERO);
            return self.books.ended(ended(Work::Write { success: true }));
        }
        let mut auth_revision = 0;
        if self.auth.view().is_enabled {
            let rights;
            (rights, auth_revision) = self.auth.rights(who);
            if let Err(error) = check_read(method, request, &rights) {
                fail(out, stream, refusal(error));
                return self.books.ended(ended(Work::Read { success: false }));
            }
        }
        self.scratch.clear();
        let header = self.header();
        let begun = self.job.begin(
            (method, request),
            &self.reader,
            &header,
            self.settings.request_bytes_max,
            &mut self.scratch,
        );
        let mut outcome = begun.and_then(|()| self.job.step(&self.reader, &mut self.scratch));
        // What was read may have been written after the caller lost the right to read it.
        if outcome.is_ok() && !self.auth.is_current(auth_revision) {
            outcome = Err(EtcdError::AuthOldRevision);
        }
        match outcome {
            Ok(ReadOutcome::Done) => {
                let reply = &self.scratch;
                out.unary(stream, |buffer| buffer.extend_from_slice(reply));
                self.books.ended(ended(Work::Read { success: true }));
                self.job.count(&self.metrics);
            }
            Ok(ReadOutcome::LastMessage) => {
                let reply = &self.scratch;
                out.message(stream, |buffer| buffer.extend_from_slice(reply));
                out.finish(stream, Code::Ok, "");
                self.books.sent(method);
                self.books.ended(ended(Work::Read { success: true }));
                self.job.count(&self.metrics);
            }
            Ok(outcome)
                if self.long_reads_running < LONG_READS_MAX
                    && self.long_read_bytes < LONG_READ_BYTES_MAX =>
            {
                if outcome == ReadOutcome::Message {
                    let reply = &self.scratch;
                    out.message(stream, |buffer| buffer.extend_from_slice(reply));
                    self.books.sent(method);
                    self.scratch.clear();
                }
                self.long_reads_running += 1;
                self.long_reads.push(LongRead {
                    connection,
                    stream,
                    method,
                    started_ns,
                    auth_revision,
                    begun_ns: self.now_ns,
                    request: request.into(),
                    job: std::mem::take(&mut self.job),
                    reply: std::mem::take(&mut self.scratch),
                    booked: None,
                });
            }
            Ok(_) => fail(out, stream, EtcdError::TooManyRequests),
            Err(error) => {
                fail(out, stream, error);
                self.books.ended(ended(Work::Read { success: false }));
                self.job.count(&self.metrics);
            }
        }
    }

    /// Takes the oldest reads whose index is applied.
    pub fn take_ready_reads(&mut self) -> Option<ReadBatch> {
        self.reads.take_ready(self.shared.applied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{PasswordHelpers, TokenKind};
    use crate::metrics::{MemberInfo, Metrics};
    use crate::pipeline::{Doorbell, Inbox, ring};
    use crate::runtime::Signal;
    use storage::mvcc::{self, Store};
    use storage::tree::{Tree, TreeFiles, TreeOptions};

    /// A core's state over an empty store, and what it tells the log core.
    fn state(dir: &std::path::Path) -> (NetState, Inbox<ToLog>) {
        let files = TreeFiles::open(dir).unwrap();
        let (tree, snapshot, _) = Tree::open(files, TreeOptions::default()).unwrap();
        let file = tree.backup_file().unwrap();
        let backup_thread = BackupThread::start(file, Vec::new(), Vec::new()).unwrap();
        let (_, reader, _) = Store::open(snapshot, mvcc::Options::default()).unwrap();
        let shared = Shared {
            cluster_id: 1,
            member_id: 2,
            life: 3,
            replayed_through: 0,
            progress: Default::default(),
            cluster: Default::default(),
            auth: Default::default(),
            waits_for_apply: Vec::new(),
            watches: Vec::new(),
            lease_ids: Default::default(),
        };
        let settings = CallSettings {
            request_timeout_ns: 1,
            request_bytes_max: 1,
            entry_bytes_max: 1,
            txn_ops_max: 1,
            quota_bytes: None,
            quota_shown: 0,
            warning_apply: Duration::MAX,
            warning_unary: Duration::MAX,
            watch: HubSettings {
                fragment_bytes: 1,
                progress_interval_ns: 1,
            },
            leaderless_max_ns: 1,
            leases: LeaseCallSettings {
                ttl_min_s: 1,
                tick_ns: 1,
                has_priority: false,
            },
            auth: AuthSettings {
                tokens: TokenKind::Simple,
                bcrypt_cost: 4,
                uses_certificates: false,
            },
        };
        let info = MemberInfo {
            server_version: String::new(),
            cluster_version: String::new(),
            server_id: String::new(),
            runtime_version: String::new(),
            features: Default::default(),
        };
        let bell = || Doorbell::Local(Signal::new());
        let ((to_log, log), (to_apply, _), (to_leases, _)) = (ring(8), ring(8), ring(8));
        let (to_states, _) = ring(8);
        let state = NetState::new(
            NetId(0),
            Arc::new(shared),
            settings,
            NetRings {
                to_log: to_log.with_doorbell(bell()),
                to_apply: to_apply.with_doorbell(bell()),
                to_leases: to_leases.with_doorbell(bell()),
                to_states: to_states.with_doorbell(bell()),
                passwords: PasswordHelpers::new(0, &[]).0.desk(),
                to_defrag: ring(8).0.with_doorbell(bell()),
            },
            backup_thread,
            reader,
            Rc::new(Metrics::new(info, false).join("0")),
        );
        (state, log.with_doorbell(bell()))
    }

    #[test]
    fn reads_behind_a_failed_confirmation_are_asked_for_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let (mut state, mut log) = state(dir.path());
        let mut asked = || match log.pop() {
            Some(ToLog::ReadIndex { context, .. }) => Some(context),
            _ => None,
        };
        let add = |state: &mut NetState| {
            let nobody = ConnectionKey::default();
            let reads = &mut state.reads;
            reads.add(nobody, StreamId(1), id::KV_RANGE, b"", 0, None);
            state.end_pass();
        };
        add(&mut state);
        assert_eq!(asked(), Some(1));
        add(&mut state);
        assert_eq!(asked(), None, "one is under way");
        assert_eq!(state.on_read_index_failed(1).reads().len(), 1);
        assert_eq!(asked(), Some(2), "the one that gathered meanwhile");
        assert_eq!(state.on_read_index_failed(2).reads().len(), 1);
        assert_eq!(asked(), None);
    }
}
