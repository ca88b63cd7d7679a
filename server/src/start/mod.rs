//! From a checked configuration to a running member, and back to a stopped one.
//!
//! In reading order: [`limits`] asks what the host allows, [`listen`] binds the addresses, [`find`] reads what the disk holds and judges it ([`fit`],
//! [`metadata`]), [`open`] brings it up, [`cores`] lays the rings between the stages and starts the cores, [`signals`] waits
//! for the operator.
//!
//! Always true here: addresses are bound first, so that a second server is refused before it touches a
//! file, and accepted from last: clients are served only
//! after the member has applied everything it had acknowledged and has published itself.

pub mod cores;
mod find;
mod fit;
pub mod limits;
mod listen;
mod metadata;
pub mod open;
#[cfg(test)]
mod pairs_test;
pub mod signals;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use wire::grpc::Limits;

use crate::apply::{ApplySettings, LeaseSettings};
use crate::auth::{AuthSettings, TokenKind};
use crate::config::{self, Config, CoreChoice, DataDir, Notice, Quota, Start};
use crate::logging;
use crate::metrics::{MemberInfo, Metrics};
use crate::net::core::{CONNECTIONS_MAX, Clock};
use crate::net::{CallSettings, LeaseCallSettings};
use crate::pipeline::{CorePlan, plan};
use crate::version::{CLUSTER_VERSION, COMPATIBLE_VERSION};
use crate::watch::HubSettings;

/// etcd's default quota.
const QUOTA_BYTES_DEFAULT: u64 = 2 << 30;
/// A gRPC message may be this much larger than the largest request.
const GRPC_OVERHEAD_BYTES: usize = 512 << 10;

type AnyError = Box<dyn std::error::Error>;

/// The whole program.
pub fn run() -> ExitCode {
    let (config, notices) = match config::start(std::env::args_os().skip(1), std::env::vars_os()) {
        Start::Run { config, notices } => (config, notices),
        Start::Print(text) => {
            print!("{text}");
            return ExitCode::SUCCESS;
        }
        Start::Refuse(refusal) => {
            eprintln!("{}", refusal.text);
            return ExitCode::from(refusal.exit_code as u8);
        }
    };
    let _guard = match logging::init(&config.log) {
        Ok(guard) => guard,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    log_notices(&notices);
    match serve(&config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            logging::fatal("cannot start", &[("error", &error.to_string())]);
            ExitCode::FAILURE
        }
    }
}

/// Runs the member until it is asked to stop.
fn serve(config: &Config) -> Result<(), AnyError> {
    let started = Instant::now();
    signals::block()?;
    if let Some(files) = &config.client_tls
        && !files.is_missing()
    {
        // Each net core reads them again; here a wrong file is told before anything else happens.
        files.load()?;
    }
    let tokens = TokenKind::load(&config.auth.tokens)?;
    let plan = place(&config.cores)?;
    let nets = plan.iter().filter(|core| core.is_net).count();
    // A URL with a name may have an address of each family.
    let urls = config.listen_client_urls.len()
        + config.listen_client_http_urls.len()
        + config.listen_metrics_urls.len();
    let descriptors = limits::descriptors(plan.len(), 2 * nets * urls)?;
    let mut listeners = listen::Listeners::bind(config, nets)?;
    let mut notices = Vec::new();
    let dir = DataDir::inspect(&config.data_dir, &config.wal_dir, &mut notices)?;
    log_notices(&notices);
    if !dir.is_initialized {
        // Before anything is made: a refused first start leaves nothing to adopt.
        config.check_bootstrap()?;
    }
    let made = dir.create()?;
    report_host(config, &plan);

    let opened = match open::open(config, &dir, nets) {
        Ok(opened) => opened,
        Err(refused) => {
            made.remove();
            return Err(refused.into());
        }
    };
    let metrics = Metrics::new(
        MemberInfo {
            server_version: COMPATIBLE_VERSION.to_owned(),
            cluster_version: CLUSTER_VERSION.trim_end_matches(".0").to_owned(),
            server_id: format!("{:x}", opened.shared.member_id),
            runtime_version: format!("rust {}", env!("CARGO_PKG_RUST_VERSION")),
            features: config.features,
        },
        config.metrics_extensive,
    );
    let quota_bytes = quota(config);
    let quota_shown = quota_bytes.map_or(0, |bytes| bytes as i64);
    metrics.gauges().quota_backend_bytes.set(quota_shown);
    let auth_revision = opened.auth.revision() as i64;
    metrics.gauges().auth_revision.set(auth_revision);
    tracing::info!(
        name = config.name,
        member_id = %format_args!("{:x}", opened.shared.member_id),
        cluster_id = %format_args!("{:x}", opened.shared.cluster_id),
        revision = opened.store.revision(),
        entries_to_apply = opened.entries_to_apply,
        took = ?started.elapsed(),
        "starting the member"
    );
    let parts = cores::Parts {
        plan,
        tree: opened.tree,
        store: opened.store,
        leases: opened.leases,
        auth: opened.auth,
        token_ttl: config.auth.token_ttl,
        reader: opened.reader,
        wal: opened.wal,
        raft: opened.raft,
        shared: opened.shared,
        clock: Clock::start(),
        metrics,
        limits: Arc::new(limits(config)),
        calls: CallSettings {
            request_timeout_ns: config.request_timeout().as_nanos() as u64,
            request_bytes_max: config.request_bytes_max,
            entry_bytes_max: opened.entry_bytes_max,
            txn_ops_max: config.txn_ops_max,
            quota_bytes,
            quota_shown,
            warning_apply: config.warning_apply_duration,
            warning_unary: config.warning_unary_request_duration,
            leases: LeaseCallSettings {
                ttl_min_s: config.lease_ttl_min_s(),
                tick_ns: config.heartbeat_interval.as_nanos() as u64,
                has_priority: config.features.priority_request,
            },
            watch: HubSettings {
                fragment_bytes: config.request_bytes_max + GRPC_OVERHEAD_BYTES,
                progress_interval_ns: config.watch_progress_notify_interval.as_nanos() as u64,
            },
            auth: AuthSettings {
                tokens,
                bcrypt_cost: config.auth.bcrypt_cost,
                uses_certificates: config.auth.uses_certificates,
            },
            leaderless_max_ns: 3 * config.election_timeout.as_nanos() as u64,
        },
        http: config.http.clone(),
        apply: ApplySettings {
            commit_interval: config.backend_batch_interval,
            commit_changes_max: config.backend_batch_limit,
            quota_bytes,
            compaction_keys: config.compaction_batch_limit,
            compaction_pause: config.compaction_sleep_interval,
            warning_apply: config.warning_apply_duration,
            member: opened.member,
        },
        lease_settings: LeaseSettings {
            extend_ns: config.election_timeout.as_nanos() as u64,
            has_checkpoints: config.features.lease_checkpoint,
            keeps_checkpoints: config.features.lease_checkpoint_persist,
            is_fast: config.features.fast_lease_keep_alive,
            request_timeout_ns: config.request_timeout().as_nanos() as u64,
        },
        auto_compaction: config.auto_compaction,
        tick: config.heartbeat_interval,
        tls: config.client_tls.clone(),
        listeners: listeners.take_sets(),
        held_bytes_max: config.unsent_answer_bytes / nets,
        connections_max: descriptors.connections_per_core(nets, CONNECTIONS_MAX),
    };
    if let Some(tls) = &config.client_tls {
        tls.make_missing()?;
    }
    let cores = cores::start(parts).map_err(|error| explain_start(error.as_ref()))?;
    let signal = signals::wait();
    tracing::info!(
        signal,
        "stopping: calls under way finish, then everything is committed"
    );
    std::thread::spawn(|| {
        signals::wait();
        tracing::warn!("second signal: ending at once; what was acknowledged is in the log");
        logging::fatal("ended by a second signal", &[]);
        std::process::exit(1);
    });
    cores.stop();
    tracing::info!("stopped");
    Ok(())
}

fn log_notices(notices: &[Notice]) {
    for notice in notices {
        if notice.is_warning {
            tracing::warn!("{}", notice.message);
        } else {
            tracing::info!("{}", notice.message);
        }
    }
}

/// Chooses the cores of the stages.
fn place(choice: &CoreChoice) -> Result<Vec<CorePlan>, AnyError> {
    let allowed: Vec<usize> = core_affinity::get_core_ids()
        .unwrap_or_default()
        .into_iter()
        .map(|core| core.id)
        .collect();
    let cores = match choice {
        CoreChoice::Auto if allowed.is_empty() => {
            return Err(
                "the affinity mask of this process cannot be read; name cores with --cores".into(),
            );
        }
        CoreChoice::Auto => allowed,
        CoreChoice::List(cores) => {
            if let Some(core) = cores.iter().find(|core| !allowed.contains(core)) {
                return Err(format!(
                    "--cores names core {core}, which this process may not run on (it may run on {allowed:?}); change the list or the affinity mask (taskset, cpuset)"
                )
                .into());
            }
            cores.clone()
        }
    };
    Ok(plan(&cores))
}

fn report_host(config: &Config, plan: &[CorePlan]) {
    let cores: Vec<String> = plan
        .iter()
        .map(|core| {
            let stages = [
                (core.is_net, "net"),
                (core.is_log, "log"),
                (core.is_apply, "apply"),
            ];
            let names: Vec<&str> = stages
                .iter()
                .filter(|stage| stage.0)
                .map(|stage| stage.1)
                .collect();
            format!("{}={}", core.cpu, names.join("+"))
        })
        .collect();
    tracing::info!(
        etcd_version = COMPATIBLE_VERSION,
        version = env!("CARGO_PKG_VERSION"),
        cores = cores.join(" "),
        data_dir = %config.data_dir.display(),
        "starting Pilaster"
    );
}

fn quota(config: &Config) -> Option<u64> {
    match config.quota {
        Quota::Bytes(0) => Some(QUOTA_BYTES_DEFAULT),
        Quota::Bytes(bytes) => Some(bytes),
        Quota::Off(_) => None,
    }
}

fn limits(config: &Config) -> Limits {
    let mut limits = Limits::default();
    let nanoseconds = |duration: std::time::Duration| duration.as_nanos() as u64;
    limits.message_bytes_max =
        u32::try_from(config.request_bytes_max + GRPC_OVERHEAD_BYTES).unwrap_or(u32::MAX);
    limits.concurrent_streams_max = limits.concurrent_streams_max.min(config.streams_max);
    limits.keepalive_min_time_ns = nanoseconds(config.keepalive.client_ping_interval_min);
    limits.keepalive_interval_ns = config
        .keepalive
        .server_ping_interval
        .map_or(u64::MAX, nanoseconds);
    if let Some(timeout) = config.keepalive.server_ping_timeout {
        limits.keepalive_timeout_ns = nanoseconds(timeout);
    }
    limits
}

/// Says what to do when a limit refuses the cores.
fn explain_start(error: &dyn std::error::Error) -> AnyError {
    let text = error.to_string();
    let remedy = if text.contains("Too many open files") {
        "; raise the limit on open files (`ulimit -n`, or LimitNOFILE= in the unit)"
    } else {
        ""
    };
    format!("the cores cannot be started: {text}{remedy}").into()
}
