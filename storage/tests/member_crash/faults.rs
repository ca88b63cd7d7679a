//! The disk refuses: one write or sync fails, or space runs out. The member stops, or goes on without what it could not
//! have; nothing acknowledged is lost.

use storage::device::CrashDisk;
use storage::device::crash::{Crash, Fault, Operation};

use super::member::{Habit, Halt, Member};
use super::model::Ledger;
use super::{crashes, goes_on, life};

#[test]
fn a_failed_operation_stops_the_member_and_loses_nothing_acknowledged() {
    let (seed, steps) = (5, 150);
    let disk = CrashDisk::new();
    life(&disk, &mut Ledger::new(), Habit::Sound, seed, steps).expect("a sound disk");
    let mut stops = 0;
    for (at, operation) in disk.journal().into_iter().enumerate() {
        let disk = CrashDisk::new();
        let at = at as u64;
        disk.inject(Fault::Error {
            at,
            errno: libc::EIO,
        });
        let mut ledger = Ledger::new();
        match life(&disk, &mut ledger, Habit::Sound, seed, steps) {
            Err(Halt::Stopped(_)) => stops += 1,
            Err(Halt::Wrong(what)) => panic!("operation {at} ({operation:?}) failed: {what}"),
            // Only where another attempt is sound: making a segment that is not needed yet, or growing in steps.
            Ok(()) => assert!(
                may_be_tried_again(&operation),
                "{operation:?} failed unnoticed"
            ),
        }
        for crash in crashes(at, 1) {
            let after = disk.restart(crash);
            if let Err(wrong) = goes_on(&after, &mut ledger.clone(), Habit::Sound, at) {
                panic!("operation {at} ({operation:?}) failed, then {crash:?}: {wrong}");
            }
        }
    }
    assert!(100 < stops, "{stops} failures stopped the member");
}

fn may_be_tried_again(operation: &Operation) -> bool {
    match operation {
        Operation::SetLen { .. } => true,
        Operation::Write { name, .. } | Operation::Sync { name } => {
            name.ends_with(".preparing") || name.ends_with(".spare")
        }
        Operation::Name { from, to } => from.ends_with(".preparing") || to.ends_with(".preparing"),
        Operation::SyncDirectory => true,
        Operation::Submit { .. } | Operation::Complete { .. } => false,
    }
}

/// A member on a disk with no more room than it has taken so far and `spare_bytes`.
fn on_a_full_disk(disk: &CrashDisk, ledger: &mut Ledger, spare_bytes: u64) -> Member {
    let mut member = Member::open(disk, ledger, Habit::Sound, 6).expect("a sound disk");
    member.start(ledger).expect("a sound disk");
    member.live(ledger, 40).expect("a sound disk");
    member.settle(ledger).expect("a sound disk");
    disk.limit_space(Some(disk.used_bytes() + spare_bytes));
    member
}

/// Refusing in time what is new, a member finds room for all that it accepted.
#[test]
fn a_log_that_lacks_room_still_takes_what_was_accepted() {
    let disk = CrashDisk::new();
    let mut ledger = Ledger::new();
    let mut member = on_a_full_disk(&disk, &mut ledger, 80 << 10);
    member.reserve(64 << 10);
    while !member.lacks_room() {
        member
            .live(&mut ledger, 5)
            .expect("a full disk stops nobody");
        assert!(ledger.last() < 5000, "the log takes more than there is");
    }
    let accepted = ledger.last();
    member.live(&mut ledger, 40).expect("it goes on serving");
    assert_eq!(ledger.last(), accepted, "and accepts nothing");
    assert!(member.flush(&mut ledger).expect("there is room"));
    assert_eq!(ledger.acknowledged, accepted);
    for crash in crashes(3, 2) {
        let after = disk.restart(crash);
        after.limit_space(None);
        goes_on(&after, &mut ledger.clone(), Habit::Sound, 3)
            .unwrap_or_else(|what| panic!("{crash:?}: {what}"));
    }
}

/// Without that foresight what was accepted last waits, unacknowledged, until there is room.
#[test]
fn a_log_without_room_for_a_segment_waits_and_loses_nothing() {
    for crash in crashes(1, 2) {
        let disk = CrashDisk::new();
        let mut ledger = Ledger::new();
        // Half a segment: what the tree wants is there.
        let mut member = on_a_full_disk(&disk, &mut ledger, 80 << 10);
        let before = ledger.acknowledged;
        while !member.is_held_up() {
            member
                .live(&mut ledger, 1)
                .expect("a full disk stops nobody");
            assert!(ledger.last() < 5000, "the log takes more than there is");
        }
        assert!(!member.flush(&mut ledger).expect("waits"));
        let held = ledger.acknowledged;
        assert!(before < held && held < ledger.last());
        member.serves(&ledger).expect("what was acknowledged");

        // After a crash, still full: it reads all it promised, and waits again when it needs the room.
        let after = disk.restart(crash);
        let mut later = ledger.clone();
        let mut next = Member::open(&after, &mut later, Habit::Sound, 8).expect("opens");
        next.start(&mut later).expect("serves");
        assert!(held <= later.acknowledged);
        assert!(matches!(next.close(&mut later), Err(Halt::Stopped(_))));
        let after = after.restart(Crash::ProcessOnly);
        after.limit_space(None);
        goes_on(&after, &mut later, Habit::Sound, 9)
            .unwrap_or_else(|what| panic!("{crash:?}: {what}"));

        // Without a crash it goes on where it stood.
        disk.limit_space(None);
        assert!(member.flush(&mut ledger).expect("there is room"));
        assert_eq!(ledger.acknowledged, ledger.last());
        member.close(&mut ledger).expect("a sound disk");
        goes_on(&disk.restart(crash), &mut ledger, Habit::Sound, 4)
            .unwrap_or_else(|what| panic!("{crash:?}: {what}"));
    }
}

#[test]
fn a_tree_without_room_keeps_its_batch_while_the_log_goes_on() {
    for crash in crashes(2, 2) {
        let disk = CrashDisk::new();
        let mut ledger = Ledger::new();
        // The log has a segment ahead of it already; the tree can grow a little.
        let mut member = on_a_full_disk(&disk, &mut ledger, 2 << 10);
        let mut refused = 0;
        let acknowledged = loop {
            member.live(&mut ledger, 5).expect("the log has room");
            if !member.commit(&mut ledger).expect("refused, not failed") {
                refused += 1;
                let txid = member.tree().current().txid();
                assert!(!member.commit(&mut ledger).expect("refused again"));
                assert_eq!(member.tree().current().txid(), txid);
            }
            if refused == 3 {
                break ledger.acknowledged;
            }
        };
        let persisted = ledger.persisted;
        assert!(
            persisted < acknowledged,
            "the log holds what the tree does not"
        );

        // A crash now leaves everything to the log.
        let after = disk.restart(crash);
        after.limit_space(None);
        goes_on(&after, &mut ledger.clone(), Habit::Sound, 3)
            .unwrap_or_else(|what| panic!("{crash:?}: {what}"));

        // And without one the same batch lands once there is room.
        disk.limit_space(None);
        assert!(member.commit(&mut ledger).expect("there is room"));
        assert!(persisted < ledger.persisted);
        member.live(&mut ledger, 20).expect("a sound disk");
        member.close(&mut ledger).expect("a sound disk");
        goes_on(&disk.restart(crash), &mut ledger, Habit::Sound, 4)
            .unwrap_or_else(|what| panic!("{crash:?}: {what}"));
    }
}
