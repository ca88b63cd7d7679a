//! What a run is made of, drawn from its seed: the cluster, its settings, and what may go wrong how
//! often.
//!
//! Always true: the plan and everything after it depend on the seed and the options alone. Each
//! fault is calm in most runs and wild in some: what breaks a protocol is rarely everything at
//! once, but two things at the wrong time.
//!
//! # The fault budget
//!
//! Disks lose what was not reported durable, in whole or from some point on, and nothing else; they
//! never lie nor damage what was synced (but for [`Options::lying_disk`], which must be noticed).
//! Links lose, double, delay and reorder messages and never change them; the answer to a snapshot
//! transfer is always heard by its sender. Clocks of lease runs differ by less than the setting
//! allows; other clocks may run at half or twice the speed. Until [`Plan::quiet_at`] any number of
//! members may fail at once; from then on nothing fails, and where there is no pre-vote clocks run alike
//! (`finish`).

use consensus::{Config, MemberId};

use crate::random::Random;

/// One nominal tick, in units of virtual time.
pub const TICK: u64 = 1000;

/// What a run may be asked to do differently.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// The disk says "durable" before it is. Raft cannot survive this: the checks must notice.
    pub lying_disk: bool,
    /// Only judge what members and clients end up with, not what stands behind single messages and
    /// answers; shows that the end-to-end checks see what the direct ones see.
    pub end_to_end: bool,
    /// What the core does wrong on purpose.
    #[cfg(feature = "sabotage")]
    pub sabotage: Option<consensus::Sabotage>,
}

/// Something that goes wrong or is asked for, for a while.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// One member dies and loses everything unsynced.
    Crash,
    /// Several at the same moment.
    PowerLoss,
    /// A process stands still; its disk does not.
    Pause,
    /// Two sides that cannot speak, or one that cannot be heard.
    Partition,
    /// One member cut off, or heard but not hearing, or hearing but not heard.
    Isolate,
    /// Single links, one way each.
    Links,
    /// A disk answers nothing for a while.
    DiskStall,
    DiskSlow,
    /// A state machine applies nothing for a while.
    ApplyStall,
    /// The network delays everything far more than usual.
    Storm,
    ClockRate,
    Transfer,
    Campaign,
    Change,
    /// The leader is cut off or stands still, and others campaign at once.
    Coup,
}

impl Fault {
    pub const ALL: [Fault; 15] = [
        Fault::Crash,
        Fault::PowerLoss,
        Fault::Pause,
        Fault::Partition,
        Fault::Isolate,
        Fault::Links,
        Fault::DiskStall,
        Fault::DiskSlow,
        Fault::ApplyStall,
        Fault::Storm,
        Fault::ClockRate,
        Fault::Transfer,
        Fault::Campaign,
        Fault::Change,
        Fault::Coup,
    ];
}

/// What a run is mostly about. Any fault may still happen, but those that go together happen often.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Focus {
    /// Nothing in particular.
    Mixed,
    /// Reads while leaders change.
    Reads,
    /// Members come and go.
    Members,
    /// What is durable and what is not.
    Disks,
}

impl Focus {
    fn weight(self, fault: Fault) -> Option<u64> {
        let often: &[Fault] = match self {
            Focus::Mixed => &[],
            Focus::Reads => &[
                Fault::Coup,
                Fault::Isolate,
                Fault::Pause,
                Fault::Storm,
                Fault::Transfer,
            ],
            Focus::Members => &[
                Fault::Change,
                Fault::ApplyStall,
                Fault::Crash,
                Fault::Isolate,
            ],
            Focus::Disks => &[
                Fault::Crash,
                Fault::PowerLoss,
                Fault::DiskSlow,
                Fault::DiskStall,
                Fault::Coup,
            ],
        };
        often.contains(&fault).then_some(12)
    }
}

/// One run. Times are in units of [`TICK`] thousandths, chances per mille.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub options: Options,
    pub focus: Focus,
    /// Members that found the cluster.
    pub voters: usize,
    /// Every machine the cluster may ever have; the ones beyond `voters` may join.
    pub machines: usize,
    /// Settings of every member; id and seed are each one's own.
    pub config: Config,
    /// Faults end here.
    pub quiet_at: u64,
    /// Mean time between faults.
    pub fault_every: u64,
    pub weights: [u64; Fault::ALL.len()],
    /// How long a fault lasts at most.
    pub fault_max: u64,
    pub loss: u64,
    pub duplicate: u64,
    /// Messages that take up to fifty times as long.
    pub late: u64,
    pub delay_max: u64,
    /// Links keep the order of what they do not lose.
    pub is_ordered: bool,
    pub write_max: u64,
    /// How long a driver may take to look at what arrived.
    pub turn_max: u64,
    pub apply_max: u64,
    /// How far a tick may be from the nominal one.
    pub clock_spread: u64,
    pub clients: usize,
    /// How long a client thinks between two operations, at most.
    pub think_max: u64,
    /// Operations that read.
    pub reads: u64,
}

impl Plan {
    pub fn drawn(seed: u64, options: Options) -> Plan {
        let mut random = Random::new(seed ^ 0x00fa_175f);
        let r = &mut random;
        let focus = r.pick(&[
            Focus::Mixed,
            Focus::Mixed,
            Focus::Reads,
            Focus::Members,
            Focus::Disks,
        ]);
        let is_about_reads = focus == Focus::Reads;
        let voters = match is_about_reads {
            true => r.pick(&[2, 3, 3, 5]),
            false => r.pick(&[1, 2, 3, 3, 3, 3, 4, 5, 5, 7]),
        };
        let machines = (voters + r.below(4) as usize).min(7);
        let config = config(r);
        let election = u64::from(config.election_ticks);
        let clock_spread = if config.lease_reads {
            lease_spread(&config)
        } else {
            calm_or(r, 20, 330)
        };
        let mut weights = [0; Fault::ALL.len()];
        for (weight, fault) in weights.iter_mut().zip(Fault::ALL) {
            let drawn = r.pick(&[0, 1, 1, 2, 10]);
            *weight = focus.weight(fault).unwrap_or(drawn);
        }
        let is_busy = is_about_reads || r.chance(200);
        Plan {
            seed,
            options,
            focus,
            voters,
            machines,
            quiet_at: r.between(80, 250) * TICK,
            fault_every: TICK * r.between(1, election),
            weights,
            fault_max: TICK * election * r.between(1, 4),
            loss: calm_or(r, 30, 250),
            duplicate: calm_or(r, 30, 250),
            late: calm_or(r, 5, 120),
            delay_max: 20 + calm_or(r, TICK / 4, 4 * TICK),
            is_ordered: r.chance(400),
            write_max: 10 + calm_or(r, TICK / 4, 4 * TICK),
            turn_max: 5 + calm_or(r, 30, TICK),
            apply_max: 10 + calm_or(r, TICK / 2, 8 * TICK),
            clock_spread,
            clients: match is_busy {
                true => 6,
                false => r.between(1, 6) as usize,
            },
            think_max: match is_busy {
                true => TICK / 2,
                false => r.pick(&[TICK / 3, TICK, 2 * TICK, 5 * TICK]),
            },
            reads: r.pick(&[300, 500, 700]),
            config,
        }
    }
}

/// Up to `calm` in most runs, up to `wild` in some.
fn calm_or(r: &mut Random, calm: u64, wild: u64) -> u64 {
    let bound = if r.chance(250) { wild } else { calm };
    r.below(bound + 1)
}

/// Small bounds, so that a short run meets all of them.
fn config(r: &mut Random) -> Config {
    let mut config = Config::new(MemberId(1), 0);
    config.election_ticks = r.between(6, 12) as u32;
    config.heartbeat_ticks = r.between(1, 2) as u32;
    config.disk_stall_ticks = r.between(1, 6) as u32;
    config.pre_vote = r.chance(800);
    config.check_quorum = r.chance(800);
    config.lease_reads = config.check_quorum && r.chance(400);
    config.lease_margin_ticks = r.between(2, 3) as u32;
    config.inflight_messages_max = r.between(1, 6) as usize;
    config.inflight_entries_max = r.between(4, 40);
    config.inflight_bytes_max = 4000;
    config.message_entries_max = r.between(1, 8);
    config.message_bytes_max = 600;
    config.uncommitted_bytes_max = 6000;
    config.apply_entries_max = r.between(1, 16);
    config.apply_bytes_max = 2000;
    config.cache_bytes_max = r.pick(&[300, 1500, 100_000]);
    config.forward_entries_max = 6;
    config.forward_bytes_max = 2000;
    config.reads_pending_max = 12;
    config.trim_every_entries = r.between(10, 60);
    config.trim_keep_entries = r.below(config.trim_every_entries);
    config.trim_hold_entries_max = r.between(10, 60);
    config
}

/// How far each clock of a lease run may be off: the slowest leader's lease must end before the
/// fastest follower's promise, which rounding may have shortened by one tick.
fn lease_spread(config: &Config) -> u64 {
    let lease = 1000 * u64::from(config.election_ticks - config.lease_margin_ticks);
    let promise = 1000 * u64::from(config.election_ticks - 1);
    (0..500)
        .rev()
        .find(|off| lease * (1000 + off) < promise * (1000 - off))
        .expect("equal clocks are allowed")
}
