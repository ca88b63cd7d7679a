//! The clock in virtual time: restart, a leader's long life, keepalives that race the end, very many leases at once.

use super::*;

const EXTEND_NS: u64 = SECOND_NS;
const RETRY_NS: u64 = 7 * SECOND_NS;

fn settings(checkpoint_interval_s: Option<u64>) -> ClockSettings {
    ClockSettings {
        retry_ns: RETRY_NS,
        checkpoint_interval_ns: checkpoint_interval_s.map(|interval| interval * SECOND_NS),
    }
}

/// A leader with its table, in virtual time.
struct Member {
    table: LeaseTable,
    clock: LeaseClock,
    now_ns: u64,
}

impl Member {
    fn new(checkpoint_interval_s: Option<u64>) -> Member {
        let mut member = Member {
            table: LeaseTable::new(2, 1),
            clock: LeaseClock::new(settings(checkpoint_interval_s)),
            now_ns: 5 * SECOND_NS,
        };
        member.promote();
        member
    }

    fn promote(&mut self) {
        self.clock.promote(&self.table, EXTEND_NS, self.now_ns);
    }

    fn grant(&mut self, id: i64, ttl_s: i64) {
        self.table.grant(LeaseId(id), ttl_s).unwrap();
        self.clock.on_granted(&self.table, LeaseId(id), self.now_ns);
    }

    fn revoke(&mut self, id: i64) {
        self.table.revoke(LeaseId(id)).unwrap();
        self.clock.on_revoked(LeaseId(id));
    }

    fn pass(&mut self, seconds: f64) {
        self.now_ns += (seconds * SECOND_NS as f64) as u64;
    }

    fn renew(&mut self, id: i64) -> Renewal {
        self.clock.renew(&self.table, LeaseId(id), self.now_ns)
    }

    fn expired(&mut self) -> Vec<i64> {
        let mut expired = Vec::new();
        self.clock.take_expired(self.now_ns, &mut expired);
        expired.into_iter().map(|id| id.0).collect()
    }

    fn remaining_s(&self, id: i64) -> Option<i64> {
        self.clock.remaining_s(LeaseId(id), self.now_ns)
    }

    fn check(&self) {
        let clock = &self.clock;
        assert!(clock.in_flight.len() <= REVOKES_IN_FLIGHT_MAX);
        assert_eq!(clock.queue.len() + clock.in_flight.len(), clock.times.len());
        if clock.is_primary {
            assert_eq!(clock.times.len(), self.table.len());
        }
        for (id, times) in &clock.times {
            match times.retry_ns {
                Some(retry_ns) => assert!(clock.in_flight.contains(&(retry_ns, *id))),
                None => assert!(clock.queue.contains(&(times.ends_ns, *id))),
            }
        }
    }
}

#[test]
fn a_lease_ends_when_its_time_is_over_and_not_before() {
    let mut member = Member::new(None);
    member.grant(7, 10);
    assert_eq!(member.remaining_s(7), Some(10));
    member.pass(9.999);
    assert_eq!(member.expired(), [0; 0]);
    assert_eq!(member.remaining_s(7), Some(0));
    member.pass(0.001);
    assert_eq!(member.expired(), [7]);
    assert_eq!(member.expired(), [0; 0], "it is in flight");
    member.revoke(7);
    assert_eq!(member.remaining_s(7), None);
    member.check();
}

#[test]
fn a_keepalive_gives_all_of_it_again() {
    let mut member = Member::new(None);
    member.grant(7, 10);
    for _ in 0..100 {
        member.pass(9.5);
        assert_eq!(member.renew(7), Renewal::Renewed { ttl_s: 10 });
        assert_eq!(member.expired(), [0; 0]);
    }
    assert_eq!(member.remaining_s(7), Some(10));
    assert_eq!(member.renew(8), Renewal::Unknown);
    member.check();
}

/// The race at the end: before it the keepalive wins, from then on the revocation does, whoever is looked at first.
#[test]
fn a_keepalive_races_the_end() {
    let mut member = Member::new(None);
    member.grant(1, 10);
    member.grant(2, 10);
    member.pass(10.0 - 1e-9);
    assert_eq!(member.renew(1), Renewal::Renewed { ttl_s: 10 });
    member.pass(1e-9);
    assert_eq!(member.renew(2), Renewal::Expired, "before it was named");
    assert_eq!(member.expired(), [2]);
    assert_eq!(member.renew(2), Renewal::Expired, "and in flight");
    member.revoke(2);
    assert_eq!(member.renew(2), Renewal::Unknown);
    assert_eq!(member.remaining_s(1), Some(9));
    member.check();
}

#[test]
fn time_that_is_over_counts_below_zero() {
    let mut member = Member::new(None);
    member.grant(7, 10);
    member.pass(10.9);
    assert_eq!(member.remaining_s(7), Some(0));
    member.pass(0.2);
    assert_eq!(member.remaining_s(7), Some(-1));
}

#[test]
fn what_was_named_and_not_revoked_is_named_again() {
    let mut member = Member::new(None);
    member.grant(7, 10);
    member.pass(10.0);
    assert_eq!(member.expired(), [7]);
    member.pass(6.9);
    assert_eq!(member.expired(), [0; 0]);
    member.pass(0.1);
    assert_eq!(member.expired(), [7]);
    member.check();
}

/// Proposals that are all lost must not block those that were never named.
#[test]
fn lost_proposals_do_not_hold_up_the_others() {
    let mut member = Member::new(None);
    let all = 3 * REVOKES_IN_FLIGHT_MAX as i64;
    for id in 1..=all {
        member.grant(id, 10);
    }
    member.pass(10.0);
    assert_eq!(member.expired().len(), REVOKES_IN_FLIGHT_MAX);
    assert!(member.clock.has_backlog(member.now_ns));
    assert_eq!(member.expired(), [0; 0]);
    // None of them came through.
    let mut rounds = 0;
    while !member.table.is_empty() {
        rounds += 1;
        assert!(rounds < 10);
        member.pass(7.0);
        for id in member.expired() {
            member.revoke(id);
        }
        member.check();
    }
    assert_eq!(rounds, 3);
}

/// A member that restarts gives every lease its whole time, and one election timeout more.
#[test]
fn a_restart_begins_anew() {
    let mut member = Member::new(None);
    member.grant(7, 10);
    member.pass(9.0);
    let mut next = Member {
        table: member.table,
        clock: LeaseClock::new(settings(None)),
        now_ns: 3,
    };
    assert_eq!(next.remaining_s(7), None, "nobody counts yet");
    assert_eq!(next.renew(7), Renewal::NotPrimary);
    next.promote();
    assert_eq!(next.remaining_s(7), Some(11));
    next.pass(10.999);
    assert_eq!(next.expired(), [0; 0]);
    next.pass(0.001);
    assert_eq!(next.expired(), [7]);
}

#[test]
fn a_leader_that_lost_its_office_ends_nothing() {
    let mut member = Member::new(Some(300));
    member.grant(7, 1000);
    member.clock.demote();
    member.pass(2000.0);
    assert_eq!(member.expired(), [0; 0]);
    assert!(
        member
            .clock
            .take_checkpoints(&member.table, member.now_ns)
            .is_empty()
    );
    // What is applied meanwhile does not matter to the clock.
    member.grant(8, 10);
    member.revoke(7);
    member.check();
    member.promote();
    assert_eq!(member.remaining_s(8), Some(11));
    member.check();
}

/// A leader of a year: the clock neither drifts nor grows.
#[test]
fn a_leader_lives_long() {
    let mut member = Member::new(Some(300));
    member.grant(1, 3600);
    member.grant(2, LEASE_YEAR_S);
    const LEASE_YEAR_S: i64 = 365 * 24 * 3600;
    for _ in 0..365 * 24 * 2 {
        member.pass(1800.0);
        for checkpoint in member.clock.take_checkpoints(&member.table, member.now_ns) {
            member
                .table
                .checkpoint(checkpoint.id, checkpoint.remaining_ttl_s);
            member
                .clock
                .on_checkpointed(&member.table, checkpoint.id, member.now_ns);
        }
        if member.renew(1) == Renewal::NeedsCheckpoint {
            member.table.checkpoint(LeaseId(1), 0);
            assert_eq!(member.renew(1), Renewal::Renewed { ttl_s: 3600 });
        }
        for id in member.expired() {
            assert_eq!(id, 2);
            assert_eq!(member.remaining_s(2), Some(0));
            member.revoke(2);
        }
        member.check();
    }
    assert!(!member.table.contains(LeaseId(2)));
    assert_eq!(member.remaining_s(1), Some(3600));
    assert!(member.clock.checkpoints.len() <= 1);
}

#[test]
fn the_longest_time_to_live_fits() {
    let mut member = Member::new(None);
    member.grant(1, crate::lease::LEASE_TTL_MAX);
    assert_eq!(member.remaining_s(1), Some(crate::lease::LEASE_TTL_MAX));
    member.promote();
    assert_eq!(member.remaining_s(1), Some(crate::lease::LEASE_TTL_MAX + 1));
    member.now_ns = u64::MAX - 5;
    member.promote();
    assert_eq!(member.expired(), [0; 0]);
    member.check();
}

/// 100,000 leases that end together: named in bounded batches, each once, and gone as fast as they are revoked.
#[test]
fn a_hundred_thousand_end_at_once() {
    const ALL: i64 = 100_000;
    let mut member = Member::new(None);
    for id in 1..=ALL {
        member.grant(id, 60);
    }
    member.pass(60.0);
    let mut gone = 0;
    let mut looks = 0;
    while gone < ALL {
        looks += 1;
        let expired = member.expired();
        assert!(expired.len() <= REVOKES_IN_FLIGHT_MAX);
        for id in &expired {
            member.revoke(*id);
        }
        gone += expired.len() as i64;
        member.pass(0.01);
    }
    assert_eq!(looks, ALL as usize / REVOKES_IN_FLIGHT_MAX + 1);
    assert!(!member.clock.has_backlog(member.now_ns));
    member.check();
}

/// After a change of leader at most 750 end in any second, and none early.
#[test]
fn many_ends_are_spread_at_a_promotion() {
    const ALL: i64 = 10_000;
    let mut member = Member::new(None);
    for id in 1..=ALL {
        // Two clusters of ends, and some alone.
        member.grant(id, if id % 100 == 0 { 100 + id } else { 60 + id % 2 });
    }
    member.promote();
    member.check();
    let mut by_second = std::collections::BTreeMap::<u64, u64>::new();
    for (id, times) in &member.clock.times {
        let whole_ns = seconds(member.table.ttl_s(*id).unwrap()) + EXTEND_NS;
        assert!(
            times.ends_ns >= member.now_ns + whole_ns,
            "{id:?} ends early"
        );
        *by_second.entry(times.ends_ns / SECOND_NS).or_default() += 1;
    }
    assert_eq!(by_second.values().sum::<u64>(), ALL as u64);
    let most = by_second.values().max().unwrap();
    // A window's first 750 may share a second with the last ones of the window before.
    assert!(
        *most <= 2 * SPREAD_ENDS_PER_SECOND,
        "{most} end in one second"
    );
    let seconds_used = by_second.len() as u64;
    assert!(
        seconds_used >= 9_900 / SPREAD_ENDS_PER_SECOND,
        "{seconds_used}"
    );
}

/// The same numbers as etcd's lessor gives for 2000 leases of 60 s: number n > 750 is delayed by n/750 s.
#[test]
fn the_spread_is_etcds() {
    let mut member = Member::new(None);
    for id in 1..=2000 {
        member.grant(id, 60);
    }
    member.promote();
    for (id, delay_ns) in [
        (1, 0),
        (750, 0),
        (751, 1_001_333_333),
        (1500, 2 * SECOND_NS),
        (2000, 2_666_666_666),
    ] {
        let ends_ns = member.clock.ends_ns(LeaseId(id)).unwrap();
        assert_eq!(
            ends_ns - member.now_ns,
            61 * SECOND_NS + delay_ns,
            "lease {id}"
        );
    }
}

#[test]
fn few_leases_are_not_spread() {
    let mut member = Member::new(None);
    for id in 1..=999 {
        member.grant(id, 60);
    }
    member.promote();
    member.pass(61.0);
    assert!(
        member
            .clock
            .times
            .values()
            .all(|times| times.ends_ns == member.now_ns)
    );
}

#[test]
fn checkpoints_carry_the_remaining_time_over_a_change_of_leader() {
    let mut member = Member::new(Some(300));
    member.grant(1, 1000);
    member.grant(2, 300);
    member.pass(299.0);
    assert_eq!(
        member.clock.take_checkpoints(&member.table, member.now_ns),
        []
    );
    member.pass(1.0);
    let due = member.clock.take_checkpoints(&member.table, member.now_ns);
    let wanted = Checkpoint {
        id: LeaseId(1),
        remaining_ttl_s: 700,
    };
    assert_eq!(due, [wanted], "the other is not longer than the interval");
    assert_eq!(
        member.clock.take_checkpoints(&member.table, member.now_ns),
        []
    );
    member.table.checkpoint(LeaseId(1), 700);
    member
        .clock
        .on_checkpointed(&member.table, LeaseId(1), member.now_ns);
    member.pass(300.0);
    assert_eq!(
        member.clock.take_checkpoints(&member.table, member.now_ns)[0].remaining_ttl_s,
        400
    );
    // The entry with 400 was lost; the next leader begins at 700.
    member.promote();
    assert_eq!(member.remaining_s(1), Some(701));
    // A keepalive first takes the checkpoint back.
    assert_eq!(member.renew(1), Renewal::NeedsCheckpoint);
    member.table.checkpoint(LeaseId(1), 0);
    assert_eq!(member.renew(1), Renewal::Renewed { ttl_s: 1000 });
    assert_eq!(member.remaining_s(1), Some(1000));
    member.check();
}

/// Without the feature a checkpoint of an earlier life still shortens the lease, as in etcd.
#[test]
fn without_the_feature_an_old_checkpoint_stays() {
    let mut member = Member::new(None);
    member.grant(1, 1000);
    member.table.checkpoint(LeaseId(1), 400);
    assert_eq!(member.renew(1), Renewal::Renewed { ttl_s: 1000 });
    assert_eq!(member.remaining_s(1), Some(400));
}

#[test]
fn a_lease_renewed_at_its_checkpoint_is_planned_again() {
    let mut member = Member::new(Some(300));
    member.grant(1, 1000);
    member.pass(300.0);
    assert_eq!(member.renew(1), Renewal::Renewed { ttl_s: 1000 });
    assert_eq!(
        member.clock.take_checkpoints(&member.table, member.now_ns),
        []
    );
    member.pass(300.0);
    assert_eq!(
        member
            .clock
            .take_checkpoints(&member.table, member.now_ns)
            .len(),
        1
    );
}

#[test]
fn checkpoints_come_in_bounded_batches() {
    let mut member = Member::new(Some(300));
    for id in 1..=2500 {
        member.grant(id, 1000);
    }
    member.pass(300.0);
    let sizes: Vec<usize> = (0..4)
        .map(|_| {
            member
                .clock
                .take_checkpoints(&member.table, member.now_ns)
                .len()
        })
        .collect();
    assert_eq!(sizes, [1000, 1000, 500, 0]);
}
