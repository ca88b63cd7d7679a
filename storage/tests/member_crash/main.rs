//! Everything a member keeps, through crashes: log, tree file and store together on one disk.
//!
//! Always true of every case: what was acknowledged is there after the restart, with its value, revision and version;
//! nothing is applied twice; what was not acknowledged is absent or whole, and what is there is a prefix; tree,
//! consistent index and compaction marks are those of a model that applied the recovered entries once; and the member
//! goes on. Every case follows from its number.

mod canaries;
mod check;
mod faults;
mod member;
mod model;
mod power;

use storage::device::CrashDisk;
use storage::device::crash::Crash;

use member::{Habit, Halt, Member};
use model::Ledger;

/// Opens, lives, stops in good order: the whole life of one process.
fn life(
    disk: &CrashDisk,
    ledger: &mut Ledger,
    habit: Habit,
    seed: u64,
    steps: usize,
) -> Result<(), Halt> {
    let mut member = Member::open(disk, ledger, habit, seed)?;
    member.start(ledger)?;
    member.live(ledger, steps)?;
    member.close(ledger)
}

/// Restarts after a crash, checks, goes on with a second life, and finds that again.
fn goes_on(disk: &CrashDisk, ledger: &mut Ledger, habit: Habit, seed: u64) -> Result<(), String> {
    let told = |halt| match halt {
        Halt::Stopped(why) => format!("stopped: {why}"),
        Halt::Wrong(what) => what,
    };
    life(disk, ledger, habit, seed, 12).map_err(told)?;
    let last = ledger.last();
    let member = Member::open(disk, ledger, habit, seed + 1).map_err(told)?;
    if ledger.last() != last || ledger.persisted != last {
        return Err(format!(
            "closed with {last} entries, opened with {}",
            ledger.last()
        ));
    }
    drop(member);
    Ok(())
}

/// Nothing, everything, only the process, and some chances.
fn crashes(seed: u64, chances: u64) -> impl Iterator<Item = Crash> {
    let subsets = (0..chances).map(move |slot| Crash::Subset(seed.wrapping_mul(1000) + slot));
    [Crash::LoseAll, Crash::KeepAll, Crash::ProcessOnly]
        .into_iter()
        .chain(subsets)
}
