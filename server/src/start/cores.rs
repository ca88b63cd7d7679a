//! Lays the rings between the stages, gives each stage its core, and starts and stops the cores.
//!
//! Always true here: every ring has one producer and one consumer, fixed at start; a stage is woken
//! by a local flag when its producer runs on the same core, else by the core's doorbell. A stop runs
//! through the stages in the order of the pipeline: net drains, log closes, apply commits.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender as StdSender;
use std::time::Duration;

use consensus::Raft;
use storage::auth::AuthStore;
use storage::lease::LeaseTable;
use storage::mvcc::{Reader, Store};
use storage::tree::{Snapshot, Tree};
use storage::wal;
use wire::grpc::Limits;

use crate::apply::{
    ApplyParts, ApplySettings, ApplyStage, AuthRoom, Committer, Defrag, LeaseSettings, Leases,
    States,
};
use crate::auth::{PasswordDesk, PasswordHelpers};
use crate::backup::{BackupThread, JOBS_MAX};
use crate::config::AutoCompaction;
use crate::log::{LogParts, LogStage};
use crate::metrics::{CoreMetrics, Metrics, Published, thread_major_faults};
use crate::net::core::{BoundListener, Clock, NetCore};
use crate::net::health::HttpBackend;
use crate::net::{CallSettings, HttpSettings, LEASE_ASK_BATCHES, NetRings, NetState};
use crate::pipeline::{
    CorePlan, DEFRAG_ASKS, DefragAsk, Doorbell, Inbox, Inlet, LeaseAsk, NetId, Outbox, ReplyBatch,
    Shared, Spill, ToApply, ToLog, ToNet, ring,
};
use crate::runtime::{Bell, BellRinger, Class, Signal, run_on_core, sleep, spawn};
use crate::tls::{CertReloader, TlsFiles};
use crate::watch::StreamKey;

/// Proposals and reads of one net core on their way to the log core.
const TO_LOG_ENTRIES: usize = 8192;
/// Committed entries on their way to the apply core.
const TO_APPLY_ENTRIES: usize = 8192;
/// Messages on their way to one net core from one stage.
const TO_NET_ENTRIES: usize = 1024;
/// Reply batches on their way back.
const RECYCLED_ENTRIES: usize = 64;
/// How long open calls may take to finish when the member stops.
const DRAIN_PATIENCE: Duration = Duration::from_secs(5);
/// One thread for passwords for so many cores, and at most so many.
const PASSWORD_CORES: usize = 4;
const PASSWORD_THREADS_MAX: usize = 4;
const STOP_POLL: Duration = Duration::from_millis(2);

/// Everything the cores are made of.
pub struct Parts {
    pub plan: Vec<CorePlan>,
    pub tree: Tree,
    pub store: Store<Snapshot>,
    pub leases: LeaseTable,
    pub reader: Reader<Snapshot>,
    pub wal: wal::Log,
    pub raft: Raft,
    pub shared: Arc<Shared>,
    pub clock: Clock,
    pub metrics: Arc<Metrics>,
    pub limits: Arc<Limits>,
    pub calls: CallSettings,
    pub http: HttpSettings,
    pub apply: ApplySettings,
    pub lease_settings: LeaseSettings,
    pub auth: AuthStore,
    /// How long a simple token is good that is not used.
    pub token_ttl: Duration,
    pub auto_compaction: AutoCompaction,
    pub tick: Duration,
    pub tls: Option<TlsFiles>,
    /// For each net core, its own sockets on every address.
    pub listeners: Vec<Vec<BoundListener>>,
    /// Connections that one net core may have open.
    pub connections_max: usize,
    /// Bytes of answers that one net core may hold for its clients.
    pub held_bytes_max: usize,
}

/// The running cores.
pub struct Cores {
    ringers: Vec<BellRinger>,
    shared: Arc<Shared>,
    stopped: std::sync::mpsc::Receiver<()>,
}

impl Cores {
    /// Stops in good order and returns when everything is committed and closed.
    pub fn stop(self) {
        self.shared
            .progress
            .is_stopping
            .store(true, Ordering::Release);
        for ringer in &self.ringers {
            ringer.ring();
        }
        // The apply core says when it has committed; without it there is nothing to wait for.
        let _ = self.stopped.recv();
    }
}

/// How far a stop has come.
#[derive(Default)]
struct StopSteps {
    nets_drained: AtomicUsize,
    log_closed: AtomicUsize,
}

/// One core before it runs.
struct Seat {
    place: usize,
    plan: CorePlan,
    bell: Bell,
    net: Option<NetSeat>,
    log: Option<LogSeat>,
    apply: Option<ApplySeat>,
    wiring: Wiring,
}

/// What a core must know of the others.
#[derive(Clone)]
struct Wiring {
    ringers: Vec<BellRinger>,
    log_place: usize,
    apply_place: usize,
    net_places: Vec<usize>,
    /// Processors of all cores.
    cpus: Vec<usize>,
    shared: Arc<Shared>,
    clock: Clock,
    metrics: Arc<Metrics>,
    steps: Arc<StopSteps>,
}

struct NetSeat {
    id: NetId,
    to_log: Outbox<ToLog>,
    to_apply: Outbox<ReplyBatch>,
    to_leases: Outbox<Vec<LeaseAsk>>,
    to_states: Outbox<StreamKey>,
    backup_thread: BackupThread,
    from_backup: Inlet<ToNet>,
    to_defrag: Outbox<DefragAsk>,
    from_log: Inlet<ToNet>,
    from_apply: Inlet<ToNet>,
    from_passwords: Vec<Inlet<ToNet>>,
    passwords: PasswordDesk,
    reader: Reader<Snapshot>,
    limits: Arc<Limits>,
    calls: CallSettings,
    http: HttpSettings,
    tls: Option<CertReloader>,
    listeners: Vec<BoundListener>,
    connections_max: usize,
    held_bytes_max: usize,
}

struct LogSeat {
    raft: Raft,
    wal: wal::Log,
    from_apply: Inlet<ToLog>,
    from_nets: Vec<Inlet<ToLog>>,
    to_apply: Outbox<ToApply>,
    to_net: Vec<Outbox<ToNet>>,
    tick: Duration,
}

struct ApplySeat {
    tree: Tree,
    store: Store<Snapshot>,
    leases: LeaseTable,
    lease_settings: LeaseSettings,
    auth: AuthStore,
    token_ttl: Duration,
    lease_asks: Vec<Inlet<Vec<LeaseAsk>>>,
    state_asks: Vec<Inlet<StreamKey>>,
    defrag_asks: Vec<Inlet<DefragAsk>>,
    entries: Inlet<ToApply>,
    recycled: Vec<Inlet<ReplyBatch>>,
    to_net: Vec<Outbox<ToNet>>,
    to_log: Outbox<ToLog>,
    settings: ApplySettings,
    auto_compaction: AutoCompaction,
    stopped: StdSender<()>,
}

/// Starts all cores.
///
/// # Errors
/// io_uring or descriptors are not to be had, or the TLS files cannot be read.
pub fn start(parts: Parts) -> Result<Cores, Box<dyn std::error::Error>> {
    let plan = parts.plan;
    let bells = plan
        .iter()
        .map(|_| Bell::new())
        .collect::<std::io::Result<Vec<Bell>>>()?;
    let place_of = |wanted: fn(&CorePlan) -> bool| {
        plan.iter()
            .position(wanted)
            .expect("the plan gives every stage a core")
    };
    let net_places: Vec<usize> = (0..plan.len())
        .filter(|&place| plan[place].is_net)
        .collect();
    let wiring = Wiring {
        ringers: bells.iter().map(Bell::ringer).collect(),
        log_place: place_of(|core| core.is_log),
        apply_place: place_of(|core| core.is_apply),
        net_places: net_places.clone(),
        cpus: plan.iter().map(|core| core.cpu).collect(),
        shared: parts.shared.clone(),
        clock: parts.clock,
        metrics: parts.metrics,
        steps: Arc::default(),
    };

    let (stopped_tx, stopped) = std::sync::mpsc::channel();
    let (entries_tx, entries_rx) = ring(TO_APPLY_ENTRIES);
    let (apply_to_log_tx, apply_to_log_rx) = ring(TO_LOG_ENTRIES);
    let (to_nets, mut from_backups): (Vec<_>, Vec<_>) = net_places
        .iter()
        .map(|&place| {
            let (outbox, inlet) = ring(2 * JOBS_MAX);
            ((outbox, wiring.ringers[place].clone()), inlet)
        })
        .unzip();
    let file = parts.tree.backup_file()?;
    let backup_thread = BackupThread::start(file, to_nets, wiring.cpus.clone())?;
    let mut log = LogSeat {
        raft: parts.raft,
        wal: parts.wal,
        from_apply: apply_to_log_rx,
        from_nets: Vec::new(),
        to_apply: entries_tx,
        to_net: Vec::new(),
        tick: parts.tick,
    };
    let mut apply = ApplySeat {
        tree: parts.tree,
        store: parts.store,
        leases: parts.leases,
        lease_settings: parts.lease_settings,
        auth: parts.auth,
        token_ttl: parts.token_ttl,
        lease_asks: Vec::new(),
        state_asks: Vec::new(),
        defrag_asks: Vec::new(),
        entries: entries_rx,
        recycled: Vec::new(),
        to_net: Vec::new(),
        to_log: apply_to_log_tx,
        settings: parts.apply,
        auto_compaction: parts.auto_compaction,
        stopped: stopped_tx,
    };
    let net_ringers: Vec<BellRinger> = net_places
        .iter()
        .map(|&place| wiring.ringers[place].clone())
        .collect();
    let threads = (plan.len() / PASSWORD_CORES).clamp(1, PASSWORD_THREADS_MAX);
    let (helpers, from_passwords) = PasswordHelpers::new(threads, &net_ringers);
    let mut from_passwords = from_passwords.into_iter();
    let mut nets = Vec::new();
    for (number, listeners) in parts.listeners.into_iter().enumerate() {
        let (to_log, log_inbox) = ring(TO_LOG_ENTRIES);
        let (log_to_net, from_log) = ring(TO_NET_ENTRIES);
        let (apply_to_net, from_apply) = ring(TO_NET_ENTRIES);
        let (to_apply, recycled) = ring(RECYCLED_ENTRIES);
        let (to_leases, lease_asks) = ring(LEASE_ASK_BATCHES);
        let (to_states, state_asks) = ring(2 * JOBS_MAX);
        let (to_defrag, defrag_asks) = ring(DEFRAG_ASKS);
        log.from_nets.push(log_inbox);
        log.to_net.push(log_to_net);
        apply.to_net.push(apply_to_net);
        apply.recycled.push(recycled);
        apply.lease_asks.push(lease_asks);
        apply.state_asks.push(state_asks);
        apply.defrag_asks.push(defrag_asks);
        let tls = match &parts.tls {
            Some(files) => Some(CertReloader::new(files.clone(), std::time::Instant::now())?),
            None => None,
        };
        nets.push(NetSeat {
            id: NetId(number as u8),
            to_log,
            to_apply,
            to_leases,
            to_states,
            backup_thread: backup_thread.clone(),
            from_backup: from_backups.remove(0),
            to_defrag,
            from_log,
            from_apply,
            from_passwords: from_passwords.next().unwrap_or_default(),
            passwords: helpers.desk(),
            reader: parts.reader.clone(),
            limits: parts.limits.clone(),
            calls: parts.calls.clone(),
            http: parts.http.clone(),
            tls,
            listeners,
            connections_max: parts.connections_max,
            held_bytes_max: parts.held_bytes_max,
        });
    }
    assert_eq!(
        nets.len(),
        net_places.len(),
        "one set of listeners for each net core"
    );

    helpers.start()?;

    let (mut log, mut apply, mut nets) = (Some(log), Some(apply), nets.into_iter());
    for (place, (plan, bell)) in plan.iter().cloned().zip(bells).enumerate() {
        let seat = Seat {
            place,
            bell,
            net: plan.is_net.then(|| nets.next()).flatten(),
            log: plan.is_log.then(|| log.take()).flatten(),
            apply: plan.is_apply.then(|| apply.take()).flatten(),
            plan,
            wiring: wiring.clone(),
        };
        let name = seat.name();
        let cpu = seat.plan.cpu;
        run_on_core(&name, Some(cpu), move || seat.run())?;
    }
    Ok(Cores {
        ringers: wiring.ringers,
        shared: parts.shared,
        stopped,
    })
}

/// A core's stages, once they run.
#[derive(Clone)]
struct Stages {
    net: Option<Rc<NetCore>>,
    log: Option<Rc<RefCell<LogStage>>>,
    apply: Option<(Rc<RefCell<ApplyStage>>, StdSender<()>)>,
}

/// The local flags of a core's stages.
#[derive(Default, Clone)]
struct Signals {
    net: Signal,
    log: Signal,
    apply: Signal,
}

impl Seat {
    fn name(&self) -> String {
        let stages = [
            (self.plan.is_net, "net"),
            (self.plan.is_log, "log"),
            (self.plan.is_apply, "apply"),
        ];
        let stages: Vec<&str> = stages
            .iter()
            .filter(|(runs, _)| *runs)
            .map(|(_, name)| *name)
            .collect();
        format!("{}{}", stages.join("-"), self.plan.cpu)
    }

    async fn run(self) {
        let signals = Signals::default();
        let wiring = self.wiring;
        let place = self.place;
        let core_metrics = Rc::new(wiring.metrics.join(self.plan.cpu.to_string()));
        let doorbell = |target: usize, local: &Signal| {
            if target == place {
                Doorbell::Local(local.clone())
            } else {
                Doorbell::Bell(wiring.ringers[target].clone())
            }
        };
        let to_log_bell = doorbell(wiring.log_place, &signals.log);
        let to_apply_bell = doorbell(wiring.apply_place, &signals.apply);
        let net_bells: Vec<Doorbell> = wiring
            .net_places
            .iter()
            .map(|&net| doorbell(net, &signals.net))
            .collect();

        let mut stages = Stages {
            net: None,
            log: None,
            apply: None,
        };
        if let Some(seat) = self.apply {
            let ringer = wiring.ringers[place].clone();
            stages.apply = Some(start_apply(
                seat,
                ringer,
                &wiring,
                &core_metrics,
                to_log_bell.clone(),
                &net_bells,
                signals.apply.clone(),
            ));
        }
        if let Some(seat) = self.log {
            stages.log = Some(start_log(
                seat,
                &wiring.ringers[place],
                &wiring,
                &core_metrics,
                to_apply_bell.clone(),
                &net_bells,
                signals.log.clone(),
            ));
        }
        if let Some(seat) = self.net {
            stages.net = Some(start_net(
                seat,
                &wiring,
                &core_metrics,
                to_log_bell,
                to_apply_bell,
                signals.net.clone(),
            ));
        }
        spawn(Class::Background, keep_books(core_metrics, stages.clone()));

        let mut bell = match self.bell.listen() {
            Ok(bell) => bell,
            Err(error) => crate::fatal::fatal("the core cannot watch its doorbell", &error),
        };
        while !wiring.shared.is_stopping() {
            bell.wait().await;
            signals.net.notify();
            signals.log.notify();
            signals.apply.notify();
        }
        // The doorbell must go on working while the stages finish.
        let woken = signals.clone();
        spawn(Class::Request, async move {
            loop {
                bell.wait().await;
                woken.net.notify();
                woken.log.notify();
                woken.apply.notify();
            }
        });
        stop(stages, &wiring).await;
    }
}

fn start_net(
    seat: NetSeat,
    wiring: &Wiring,
    metrics: &Rc<CoreMetrics>,
    to_log: Doorbell,
    to_apply: Doorbell,
    signal: Signal,
) -> Rc<NetCore> {
    let backend = Rc::new(HttpBackend::new(
        wiring.shared.clone(),
        wiring.metrics.clone(),
    ));
    let state = NetState::new(
        seat.id,
        wiring.shared.clone(),
        seat.calls,
        NetRings {
            to_log: seat.to_log.with_doorbell(to_log.clone()),
            to_apply: seat.to_apply.with_doorbell(to_apply.clone()),
            to_leases: seat.to_leases.with_doorbell(to_apply.clone()),
            to_states: seat.to_states.with_doorbell(to_apply.clone()),
            passwords: seat.passwords,
            to_defrag: seat.to_defrag.with_doorbell(to_apply.clone()),
        },
        seat.backup_thread,
        seat.reader,
        metrics.clone(),
    );
    let core = NetCore::new(
        seat.id,
        wiring.shared.clone(),
        wiring.clock,
        seat.limits,
        (backend.clone(), seat.http),
        seat.tls,
        state,
        seat.listeners,
        seat.connections_max,
        seat.held_bytes_max,
        signal,
    );
    backend.attach(Rc::downgrade(&core));
    let mut inboxes = vec![
        seat.from_log.with_doorbell(to_log),
        seat.from_apply.with_doorbell(to_apply),
        // Its ring is never full, so nobody is ever rung back.
        seat.from_backup
            .with_doorbell(Doorbell::Local(Signal::new())),
    ];
    // A helper thread looks for room by itself.
    let nobody = Doorbell::Local(Signal::new());
    let helpers = seat.from_passwords.into_iter();
    inboxes.extend(helpers.map(|inlet| inlet.with_doorbell(nobody.clone())));
    spawn(Class::Request, core.clone().answer(inboxes));
    spawn(Class::Request, core.clone().keep_time());
    spawn(Class::Request, core.clone().serve_gateway());
    spawn(Class::Request, core.clone().keep_watchers_time());
    spawn(Class::Background, core.clone().catch_watchers_up());
    core
}

fn start_log(
    seat: LogSeat,
    ringer: &BellRinger,
    wiring: &Wiring,
    metrics: &Rc<CoreMetrics>,
    to_apply: Doorbell,
    to_net: &[Doorbell],
    signal: Signal,
) -> Rc<RefCell<LogStage>> {
    let mut wal = seat.wal;
    if let Err(error) = wal.wake_through(ringer.event_fd()) {
        crate::fatal::fatal("the log's ring cannot wake its core", &error);
    }
    let mut log_inboxes = vec![seat.from_apply.with_doorbell(to_apply.clone())];
    log_inboxes.extend(inboxes(seat.from_nets, to_net));
    let stage = LogStage::new(LogParts {
        raft: seat.raft,
        wal,
        inboxes: log_inboxes,
        to_apply: Spill::new(seat.to_apply.with_doorbell(to_apply)),
        to_net: spills(seat.to_net, to_net),
        shared: wiring.shared.clone(),
        clock: wiring.clock,
        metrics: metrics.clone(),
    });
    spawn(Class::Request, LogStage::run(stage.clone(), signal));
    spawn(
        Class::Request,
        LogStage::keep_time(stage.clone(), seat.tick),
    );
    stage
}

fn start_apply(
    seat: ApplySeat,
    ringer: BellRinger,
    wiring: &Wiring,
    metrics: &Rc<CoreMetrics>,
    to_log: Doorbell,
    to_net: &[Doorbell],
    signal: Signal,
) -> (Rc<RefCell<ApplyStage>>, StdSender<()>) {
    let sizes = seat.tree.stats();
    let committer = match Committer::start(
        seat.tree,
        ringer,
        wiring.shared.clone(),
        wiring.cpus.clone(),
    ) {
        Ok(committer) => committer,
        Err(error) => crate::fatal::fatal("the tree thread cannot be started", &error),
    };
    let stage = ApplyStage::new(ApplyParts {
        store: seat.store,
        committer,
        entries: seat.entries.with_doorbell(to_log.clone()),
        recycled: inboxes(seat.recycled, to_net),
        to_net: spills(seat.to_net, to_net),
        to_log: Spill::new(seat.to_log.with_doorbell(to_log)),
        net_doorbells: to_net.to_vec(),
        shared: wiring.shared.clone(),
        settings: seat.settings,
        clock: wiring.clock,
        metrics: metrics.clone(),
        leases: Leases::new(
            seat.leases,
            seat.lease_settings,
            inboxes(seat.lease_asks, to_net),
        ),
        states: States::new(inboxes(seat.state_asks, to_net)),
        auth: AuthRoom::new(
            seat.auth,
            wiring.shared.auth.clone(),
            seat.token_ttl.as_nanos() as u64,
        ),
        defrag: Defrag::new(inboxes(seat.defrag_asks, to_net)),
    });
    {
        let stage = stage.borrow();
        stage.publish_sizes(sizes.high_water_bytes() as i64, sizes.in_use_bytes() as i64);
    }
    spawn(Class::Request, ApplyStage::run(stage.clone(), signal));
    spawn(Class::Request, ApplyStage::keep_time(stage.clone()));
    spawn(Class::Request, ApplyStage::keep_leases(stage.clone()));
    spawn(
        Class::Background,
        ApplyStage::compact_in_slices(stage.clone()),
    );
    spawn(Class::Background, ApplyStage::defragment(stage.clone()));
    spawn(
        Class::Background,
        ApplyStage::compact_by_schedule(stage.clone(), seat.auto_compaction),
    );
    (stage, seat.stopped)
}

fn spills(rings: Vec<Outbox<ToNet>>, doorbells: &[Doorbell]) -> Vec<Spill<ToNet>> {
    rings
        .into_iter()
        .zip(doorbells)
        .map(|(ring, doorbell)| Spill::new(ring.with_doorbell(doorbell.clone())))
        .collect()
}

/// The rings that the net cores fill, in their order.
fn inboxes<T>(rings: Vec<Inlet<T>>, doorbells: &[Doorbell]) -> Vec<Inbox<T>> {
    rings
        .into_iter()
        .zip(doorbells)
        .map(|(ring, doorbell)| ring.with_doorbell(doorbell.clone()))
        .collect()
}

/// Publishes what the core counts elsewhere, once a second.
async fn keep_books(metrics: Rc<CoreMetrics>, stages: Stages) {
    loop {
        sleep(Duration::from_secs(1)).await;
        let mut published = Published::default();
        if let Some(net) = &stages.net {
            published = net.counted();
        }
        if let Some(log) = &stages.log {
            published.queues.extend(log.borrow().queues());
        }
        if let Some((apply, _)) = &stages.apply {
            published.queues.extend(apply.borrow().queues());
        }
        if let Some(faults) = thread_major_faults() {
            metrics.major_faults.set(faults);
        }
        metrics.publish(published);
    }
}

/// Ends this core's stages, each after those before it in the pipeline.
async fn stop(stages: Stages, wiring: &Wiring) {
    let steps = &wiring.steps;
    if let Some(net) = stages.net {
        net.drain(DRAIN_PATIENCE).await;
        steps.nets_drained.fetch_add(1, Ordering::AcqRel);
    }
    if let Some(log) = stages.log {
        while steps.nets_drained.load(Ordering::Acquire) < wiring.net_places.len() {
            sleep(STOP_POLL).await;
        }
        LogStage::close(&log);
        steps.log_closed.store(1, Ordering::Release);
    }
    if let Some((apply, stopped)) = stages.apply {
        while steps.log_closed.load(Ordering::Acquire) == 0 {
            sleep(STOP_POLL).await;
        }
        ApplyStage::close(&apply);
        // The main thread may be gone only if the process is ending anyway.
        let _ = stopped.send(());
    }
}
