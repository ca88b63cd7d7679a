//! Leases on the apply core: the leader's clock says when leases end, and net cores ask. Entries about leases are carried
//! out in [`super::lease_entries`].
//!
//! Ends of leases become proposals, one for each lease, in bounded number ([`REVOKES_IN_FLIGHT_MAX`] in flight, looked
//! at every [`BUSY_LOOK`]); a proposal that was lost is made again.
//!
//! Always true here: the clock decides what is proposed and what is answered, never what an entry does. A question is answered from the state after some entry, at the end of a pass, so its answer shows
//! everything that was acknowledged before it was asked. Questions that wait are those of calls that net cores bound.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use storage::command::{Body, LeaseCheckpoint, LeaseRemaining, LeaseRevoke};
use storage::lease::{
    Checkpoint, ClockSettings, LeaseClock, LeaseId, LeaseTable, REVOKES_IN_FLIGHT_MAX, Renewal,
};
use wire::error::EtcdError;

use crate::auth::checks::{check_lease_reads, check_lease_writes};
use crate::auth::gate::named;
use crate::auth::{Identity, refusal};
use crate::pipeline::{
    Inbox, LeaseAnswer, LeaseAsk, LeaseCaller, LeaseFound, LeaseSaid, LeaseWhat, NetId, RequestId,
    ToNet,
};
use crate::runtime::sleep;

use super::stage::ApplyStage;

/// Between two looks at the clock while leases end. With the number that may be in flight this bounds how many end in a
/// second, to some 25,000 where etcd takes 1000, and leaves most of the core to clients.
const BUSY_LOOK: Duration = Duration::from_millis(10);
/// And otherwise: a lease ends at most so much late.
const IDLE_LOOK: Duration = Duration::from_millis(100);
/// How long a question waits for entries that were committed when it was asked; etcd's number.
const APPLY_WAIT_NS: u64 = 1_000_000_000;
/// With so many entries committed and not yet applied nothing is proposed here, like clients' writes.
const BEHIND_ENTRIES: u64 = 5000;
/// Leases listed in one pass.
const LIST_SLICE: usize = 8192;
const _: () = assert!(REVOKES_IN_FLIGHT_MAX <= 1024, "a pass applies them all");

/// etcd's interval of checkpoints.
pub const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(300);

/// What the configuration says about leases.
#[derive(Clone, Copy, Debug)]
pub struct LeaseSettings {
    /// One election timeout: what every lease gets more when this member begins to lead.
    pub extend_ns: u64,
    /// The feature gate `LeaseCheckpoint`.
    pub has_checkpoints: bool,
    /// The feature gate `LeaseCheckpointPersist`.
    pub keeps_checkpoints: bool,
    /// The feature gate `FastLeaseKeepAlive`.
    pub is_fast: bool,
    /// How long a proposal may take.
    pub request_timeout_ns: u64,
}

/// A keepalive that waits.
#[derive(Clone, Copy)]
pub(super) struct Waiting {
    net: usize,
    caller: LeaseCaller,
    place: u64,
}

/// A checkpoint that is being taken back, and the keepalives that wait for it.
pub(super) struct TakingBack {
    until_ns: u64,
    pub(super) waiting: Vec<Waiting>,
}

/// A list in the making.
struct Listing {
    net: usize,
    caller: LeaseCaller,
    who: Option<Identity>,
    started_ns: u64,
    after: Option<LeaseId>,
    leases: Vec<(u64, LeaseId)>,
}

pub struct Leases {
    pub(super) table: LeaseTable,
    pub(super) clock: LeaseClock,
    pub(super) settings: LeaseSettings,
    /// By net core.
    asks: Vec<Inbox<Vec<LeaseAsk>>>,
    answers: Vec<Vec<LeaseAnswer>>,
    /// Wait until what was committed is applied, with their deadlines.
    parked: VecDeque<(u64, usize, LeaseAsk)>,
    /// Wait until their lease, which is due, is gone.
    ending: BTreeMap<LeaseId, Vec<Waiting>>,
    pub(super) taking_back: BTreeMap<LeaseId, TakingBack>,
    listings: VecDeque<Listing>,
    /// The checkpoint entry under way and when it counts as lost.
    pub(super) checkpointing: Option<(RequestId, u64)>,
    expired: Vec<LeaseId>,
    pub(super) record: Vec<u8>,
}

impl Leases {
    pub fn new(
        table: LeaseTable,
        settings: LeaseSettings,
        asks: Vec<Inbox<Vec<LeaseAsk>>>,
    ) -> Leases {
        let interval_ns = CHECKPOINT_INTERVAL.as_nanos() as u64;
        let clock = LeaseClock::new(ClockSettings {
            retry_ns: settings.request_timeout_ns,
            checkpoint_interval_ns: settings.has_checkpoints.then_some(interval_ns),
        });
        Leases {
            table,
            clock,
            settings,
            answers: asks.iter().map(|_| Vec::new()).collect(),
            asks,
            parked: VecDeque::new(),
            ending: BTreeMap::new(),
            taking_back: BTreeMap::new(),
            listings: VecDeque::new(),
            checkpointing: None,
            expired: Vec::new(),
            record: Vec::new(),
        }
    }

    /// This member leads and has applied what earlier leaders left.
    pub(super) fn promote(&mut self, now_ns: u64) {
        let extend_ns = self.settings.extend_ns;
        self.clock.promote(&self.table, extend_ns, now_ns);
        if !self.table.is_empty() {
            tracing::info!(
                leases = self.table.len(),
                "counting the time of leases anew"
            );
        }
    }

    fn demote(&mut self) {
        self.clock.demote();
        let ending = std::mem::take(&mut self.ending).into_values().flatten();
        let taking_back = std::mem::take(&mut self.taking_back).into_values();
        let taking_back = taking_back.flat_map(|held| held.waiting);
        let waiting: Vec<Waiting> = ending.chain(taking_back).collect();
        for keep_alive in waiting {
            self.answer_keep_alive(keep_alive, Err(EtcdError::NotPrimaryLessor));
        }
        self.checkpointing = None;
    }

    /// Questions that wait here.
    pub fn waiting(&self) -> usize {
        let ending: usize = self.ending.values().map(Vec::len).sum();
        ending + self.parked.len() + self.listings.len()
    }

    fn answer_keep_alive(&mut self, to: Waiting, result: Result<i64, EtcdError>) {
        let what = LeaseSaid::KeepAlive {
            place: to.place,
            result,
        };
        self.answers[to.net].push(LeaseAnswer {
            caller: to.caller,
            what,
        });
    }

    /// A lease is gone: who asked to keep it alive learns it.
    pub(super) fn on_gone(&mut self, id: LeaseId) {
        self.clock.on_revoked(id);
        let ending = self.ending.remove(&id).unwrap_or_default();
        let taking_back = self.taking_back.remove(&id);
        for keep_alive in ending
            .into_iter()
            .chain(taking_back.into_iter().flat_map(|held| held.waiting))
        {
            self.answer_keep_alive(keep_alive, Ok(0));
        }
    }
}

impl ApplyStage {
    /// Answers what can be answered, and works on one list; true if there is more to do.
    pub(super) fn serve_leases(&mut self) -> bool {
        let is_leader = self.shared.leader() == self.shared.member_id;
        if self.leases.clock.is_primary() && !is_leader {
            self.leases.demote();
        }
        self.serve_parked();
        for net in 0..self.leases.asks.len() {
            while let Some(asks) = self.leases.asks[net].pop() {
                for ask in asks {
                    self.serve_ask(net, ask);
                }
            }
        }
        self.work_on_list();
        for (net, answers) in self.leases.answers.iter_mut().enumerate() {
            if !answers.is_empty() {
                self.to_net[net].push(ToNet::Leases(std::mem::take(answers)));
            }
        }
        !self.leases.listings.is_empty()
    }

    /// What waited for entries that are applied now, or waited too long.
    fn serve_parked(&mut self) {
        let applied = self.store.applied().index;
        for _ in 0..self.leases.parked.len() {
            let Some((until_ns, net, ask)) = self.leases.parked.pop_front() else {
                return;
            };
            if ask.committed <= applied {
                self.serve_ask(net, ask);
            } else if until_ns <= self.now_ns {
                self.refuse(net, ask, EtcdError::TimeoutWaitAppliedIndex);
            } else {
                self.leases.parked.push_back((until_ns, net, ask));
            }
        }
    }

    fn serve_ask(&mut self, net: usize, ask: LeaseAsk) {
        let leases = &mut self.leases;
        let is_applied = ask.committed <= self.store.applied().index;
        let must_wait = match ask.what {
            // The lease may be about to be granted.
            LeaseWhat::KeepAlive { id, .. } => {
                !(leases.settings.is_fast && leases.table.contains(id))
            }
            LeaseWhat::TimeToLive { .. } => true,
            LeaseWhat::List { .. } => false,
        };
        if must_wait && !is_applied {
            let until_ns = self.now_ns.saturating_add(APPLY_WAIT_NS);
            return leases.parked.push_back((until_ns, net, ask));
        }
        if let Err(error) = self.check_lease_ask(&ask) {
            return self.refuse(net, ask, error);
        }
        let caller = ask.caller;
        match ask.what {
            LeaseWhat::KeepAlive { id, place } => {
                self.renew(Waiting { net, caller, place }, id, false);
            }
            LeaseWhat::TimeToLive {
                id,
                with_keys,
                started_ns,
            } => {
                let result = self.time_to_live(id, with_keys);
                let what = LeaseSaid::TimeToLive {
                    id,
                    started_ns,
                    result,
                };
                self.leases.answers[net].push(LeaseAnswer { caller, what });
            }
            LeaseWhat::List { started_ns } => self.leases.listings.push_back(Listing {
                net,
                caller,
                who: ask.who,
                started_ns,
                after: None,
                leases: Vec::new(),
            }),
        }
    }

    /// A keepalive needs the right to write what is attached, its keys the right to read it.
    fn check_lease_ask(&self, ask: &LeaseAsk) -> Result<(), EtcdError> {
        let view = self.auth.store.view();
        if !view.is_enabled {
            return Ok(());
        }
        let Some(who) = &ask.who else {
            return Err(EtcdError::UserEmpty);
        };
        let asker = named(Some(who), view);
        let table = &self.leases.table;
        let checked = match ask.what {
            LeaseWhat::KeepAlive { id, .. } => check_lease_writes(view, table, asker, id),
            LeaseWhat::TimeToLive {
                id,
                with_keys: true,
                ..
            } => check_lease_reads(view, table, asker, id),
            // The list is checked as it is made.
            LeaseWhat::TimeToLive { .. } | LeaseWhat::List { .. } => Ok(()),
        };
        checked.map_err(refusal)
    }

    fn refuse(&mut self, net: usize, ask: LeaseAsk, error: EtcdError) {
        let what = match ask.what {
            LeaseWhat::KeepAlive { place, .. } => LeaseSaid::KeepAlive {
                place,
                result: Err(error),
            },
            LeaseWhat::TimeToLive { id, started_ns, .. } => LeaseSaid::TimeToLive {
                id,
                started_ns,
                result: Err(error),
            },
            LeaseWhat::List { started_ns } => LeaseSaid::List {
                started_ns,
                result: Err(error),
            },
        };
        self.leases.answers[net].push(LeaseAnswer {
            caller: ask.caller,
            what,
        });
    }

    /// Renews a lease, or has the keepalive wait for what comes first.
    pub(super) fn renew(&mut self, keep_alive: Waiting, id: LeaseId, is_taken_back: bool) {
        let now_ns = self.now_ns;
        let leases = &mut self.leases;
        let renewal = match is_taken_back {
            true => leases.clock.renew_as_it_is(&leases.table, id, now_ns),
            false => leases.clock.renew(&leases.table, id, now_ns),
        };
        let result = match renewal {
            Renewal::Renewed { ttl_s } => {
                self.metrics.counters.lease_renewed.inc();
                Ok(ttl_s)
            }
            Renewal::Unknown => Ok(0),
            Renewal::NotPrimary => Err(EtcdError::NotPrimaryLessor),
            Renewal::Expired => {
                return leases.ending.entry(id).or_default().push(keep_alive);
            }
            Renewal::NeedsCheckpoint => return self.take_checkpoint_back(keep_alive, id),
        };
        leases.answer_keep_alive(keep_alive, result);
    }

    /// A lease that is renewed has its whole time again, also under the next leader: its checkpoint goes first.
    fn take_checkpoint_back(&mut self, keep_alive: Waiting, id: LeaseId) {
        if let Some(held) = self.leases.taking_back.get_mut(&id) {
            return held.waiting.push(keep_alive);
        }
        let until_ns = self
            .now_ns
            .saturating_add(self.leases.settings.request_timeout_ns);
        self.leases.taking_back.insert(
            id,
            TakingBack {
                until_ns,
                waiting: vec![keep_alive],
            },
        );
        let leases = &[LeaseRemaining {
            id: id.0,
            remaining_ttl_s: 0,
        }];
        self.propose_as(
            NetId::LEASES,
            Body::LeaseCheckpoint(LeaseCheckpoint { leases }),
        );
    }

    fn time_to_live(&self, id: LeaseId, with_keys: bool) -> Result<Option<LeaseFound>, EtcdError> {
        let Leases { table, clock, .. } = &self.leases;
        let Some(granted_s) = table.ttl_s(id) else {
            return Ok(None);
        };
        // It has an end if this member leads.
        let remaining_s = clock
            .remaining_s(id, self.now_ns)
            .ok_or(EtcdError::LeaderChanged)?;
        let keys = match with_keys {
            true => table.keys(id).to_vec(),
            false => Vec::new(),
        };
        Ok(Some(LeaseFound {
            remaining_s,
            granted_s,
            keys,
        }))
    }

    /// One slice of the oldest list.
    fn work_on_list(&mut self) {
        let Some(mut listing) = self.leases.listings.pop_front() else {
            return;
        };
        let Leases { table, clock, .. } = &self.leases;
        let before = listing.leases.len();
        let slice = table.ids_after(listing.after).take(LIST_SLICE);
        let view = self.auth.store.view();
        let asker = named(listing.who.as_ref(), view);
        let mut allowed = Ok(());
        let ends = slice.map(|id| {
            if view.is_enabled && allowed.is_ok() {
                allowed = check_lease_reads(view, table, asker, id);
            }
            (clock.ends_ns(id).unwrap_or(u64::MAX), id)
        });
        listing.leases.extend(ends);
        listing.after = listing.leases.last().map(|(_, id)| *id);
        if allowed.is_ok() && listing.leases.len() - before == LIST_SLICE {
            return self.leases.listings.push_front(listing);
        }
        self.leases.answers[listing.net].push(LeaseAnswer {
            caller: listing.caller,
            what: LeaseSaid::List {
                started_ns: listing.started_ns,
                result: allowed.map(|()| listing.leases).map_err(refusal),
            },
        });
    }

    /// The stage's look at the clock: ends what is due, writes checkpoints, answers who waited too long.
    pub async fn keep_leases(stage: Rc<RefCell<ApplyStage>>) {
        loop {
            let pause = stage.borrow_mut().look_at_leases();
            sleep(pause).await;
        }
    }

    fn look_at_leases(&mut self) -> Duration {
        self.now_ns = self.clock.now_ns();
        self.give_up_taking_back();
        self.serve_leases();
        // What is committed must come first: it may hold the very revocations.
        let is_behind =
            self.is_congested || self.shared.committed() > self.shared.applied() + BEHIND_ENTRIES;
        if !is_behind {
            self.revoke_expired();
            self.write_checkpoints();
        }
        self.finish_pass();
        let clock = &self.leases.clock;
        match clock.has_backlog(self.now_ns) || clock.in_flight() > 0 {
            true => BUSY_LOOK,
            false => IDLE_LOOK,
        }
    }

    fn revoke_expired(&mut self) {
        let mut expired = std::mem::take(&mut self.leases.expired);
        self.leases.clock.take_expired(self.now_ns, &mut expired);
        for id in expired.drain(..) {
            let revoke = Body::LeaseRevoke(LeaseRevoke { id: id.0 });
            self.propose_as(NetId::LEASES, revoke);
        }
        self.leases.expired = expired;
    }

    fn write_checkpoints(&mut self) {
        let leases = &mut self.leases;
        if leases
            .checkpointing
            .is_some_and(|(_, until_ns)| self.now_ns < until_ns)
        {
            return;
        }
        let due = leases.clock.take_checkpoints(&leases.table, self.now_ns);
        if due.is_empty() {
            return;
        }
        let until_ns = self
            .now_ns
            .saturating_add(leases.settings.request_timeout_ns);
        let remaining = |checkpoint: &Checkpoint| LeaseRemaining {
            id: checkpoint.id.0,
            remaining_ttl_s: checkpoint.remaining_ttl_s,
        };
        let due: Vec<LeaseRemaining> = due.iter().map(remaining).collect();
        let body = Body::LeaseCheckpoint(LeaseCheckpoint { leases: &due });
        let request = self.propose_as(NetId::LEASES, body);
        self.leases.checkpointing = Some((request, until_ns));
    }

    /// As in etcd, a keepalive whose checkpoint could not be taken back in time is carried out all the same.
    fn give_up_taking_back(&mut self) {
        let now_ns = self.now_ns;
        let late = self
            .leases
            .taking_back
            .extract_if(.., |_, held| held.until_ns <= now_ns);
        let late: Vec<(LeaseId, TakingBack)> = late.collect();
        for (id, held) in late {
            for keep_alive in held.waiting {
                self.renew(keep_alive, id, true);
            }
        }
    }
}
