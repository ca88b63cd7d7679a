//! Calls that a driver must not make are assertions: each of these would lose or double something if
//! it were let through.

use consensus::*;

const ME: MemberId = MemberId(1);
const TWO: MemberId = MemberId(2);

/// A member alone that leads, with one command committed and not applied.
fn leader() -> (Raft, Ready) {
    let members = Membership::new([ME], []);
    let mut raft = Raft::new(Config::new(ME, 1), Restored::founding(members));
    let mut ready = Ready::new();
    raft.ready(&mut ready);
    raft.on_synced(ready.write);
    raft.propose("a".into()).expect("it leads");
    raft.ready(&mut ready);
    raft.on_synced(ready.write);
    raft.ready(&mut ready);
    assert_eq!(ready.committed.len(), 2);
    (raft, ready)
}

/// Leads two members; the other one has nothing, and the log begins behind entry 1.
fn leader_of_two() -> (Raft, Ready) {
    let members = Membership::new([ME, TWO], []);
    let mut config = Config::new(ME, 1);
    (config.pre_vote, config.check_quorum) = (false, false);
    config.cache_bytes_max = 1;
    let mut raft = Raft::new(config, Restored::founding(members));
    let mut ready = Ready::new();
    raft.campaign();
    raft.ready(&mut ready);
    raft.on_synced(ready.write);
    let say = |raft: &mut Raft, body| {
        let term = Term(2);
        raft.step(TWO, Message { term, body });
    };
    say(&mut raft, Body::VoteReply { granted: true });
    raft.ready(&mut ready);
    raft.on_synced(ready.write);
    (raft, ready)
}

fn from_two(raft: &mut Raft, body: Body) {
    let term = Term(2);
    raft.step(TWO, Message { term, body });
}

#[test]
fn a_driver_that_keeps_the_contract_is_let_through() {
    let (mut raft, _) = leader();
    raft.on_applied(LogIndex(2));
    raft.on_applied(LogIndex(3));
    raft.on_checkpoint(LogIndex(3));
    raft.on_synced(WriteNumber::NONE);
}

#[test]
#[should_panic(expected = "handed out")]
fn applying_beyond_what_was_committed() {
    let (mut raft, _) = leader();
    raft.propose("b".into()).unwrap();
    raft.on_applied(LogIndex(4));
}

#[test]
#[should_panic(expected = "after i3")]
fn applying_backwards() {
    let (mut raft, _) = leader();
    raft.on_applied(LogIndex(3));
    raft.on_applied(LogIndex(2));
}

#[test]
#[should_panic(expected = "was reported durable before")]
fn a_write_that_is_acknowledged_twice() {
    let (mut raft, mut ready) = leader();
    raft.propose("b".into()).unwrap();
    raft.ready(&mut ready);
    raft.on_synced(ready.write);
    raft.on_synced(ready.write);
}

#[test]
#[should_panic(expected = "was never handed out")]
fn a_write_that_was_never_handed_out() {
    let (mut raft, _) = leader();
    raft.on_synced(WriteNumber(99));
}

#[test]
#[should_panic(expected = "is past applied")]
fn a_checkpoint_of_what_is_not_applied() {
    let (mut raft, _) = leader();
    raft.on_checkpoint(LogIndex(3));
}

#[test]
#[should_panic(expected = "was passed over")]
fn a_membership_change_that_is_passed_over() {
    let (mut raft, mut ready) = leader();
    raft.on_applied(LogIndex(3));
    let change = ConfChange::simple(ConfStep::AddLearner(TWO));
    raft.propose_conf_change(&change).unwrap();
    raft.ready(&mut ready);
    raft.on_synced(ready.write);
    raft.ready(&mut ready);
    raft.on_applied(LogIndex(4));
}

#[test]
#[should_panic(expected = "next is")]
fn a_membership_change_where_there_is_none() {
    let (mut raft, _) = leader();
    let change = ConfChange::simple(ConfStep::AddLearner(TWO));
    raft.apply_conf_change(LogIndex(3), Some(&change));
}

#[test]
#[should_panic(expected = "an empty proposal")]
fn an_empty_proposal() {
    let (mut raft, _) = leader();
    let _ = raft.propose("".into());
}

#[test]
#[should_panic(expected = "it does not forward")]
fn a_leader_that_forwards() {
    let (mut raft, _) = leader();
    let _ = raft.forward("b".into());
}

#[test]
#[should_panic(expected = "no snapshot for")]
fn a_snapshot_that_was_not_asked_for() {
    let (mut raft, _) = leader_of_two();
    raft.on_snapshot_sent(TWO, Some(LogIndex(1)));
}

#[test]
#[should_panic(expected = "no snapshot for")]
fn a_snapshot_that_is_reported_twice() {
    let (mut raft, mut ready) = leader_of_two();
    let (rejected, hint, last) = (LogIndex(1), LogPosition::ZERO, LogIndex::ZERO);
    from_two(
        &mut raft,
        Body::AppendReject {
            rejected,
            hint,
            last,
        },
    );
    raft.ready(&mut ready);
    assert_eq!(ready.snapshots.len(), 1);
    raft.on_snapshot_sent(TWO, None);
    raft.on_snapshot_sent(TWO, None);
}

/// Asks for old entries on behalf of TWO.
fn with_load() -> (Raft, LoadRequest) {
    let (mut raft, mut ready) = leader_of_two();
    let ack = |matched| Body::AppendAck {
        matched: LogIndex(matched),
        commit: LogIndex::ZERO,
    };
    from_two(&mut raft, ack(2));
    for _ in 0..3 {
        raft.propose("b".into()).expect("it leads");
    }
    raft.ready(&mut ready);
    raft.on_synced(ready.write);
    from_two(&mut raft, ack(4));
    raft.ready(&mut ready);
    raft.on_applied(LogIndex(4));
    // What TWO has acknowledged it has; so it is asked about the rest anew.
    raft.on_unreachable(TWO);
    from_two(&mut raft, ack(5));
    raft.ready(&mut ready);
    raft.on_applied(LogIndex(5));
    // A member that joins needs all there is.
    let change = ConfChange::simple(ConfStep::AddLearner(MemberId(3)));
    raft.propose_conf_change(&change).expect("it leads");
    raft.ready(&mut ready);
    raft.on_synced(ready.write);
    from_two(&mut raft, ack(6));
    raft.ready(&mut ready);
    raft.apply_conf_change(LogIndex(6), Some(&change));
    raft.on_applied(LogIndex(6));
    let term = Term(2);
    let (rejected, hint) = (LogIndex(6), LogPosition::new(LogIndex(1), Term(1)));
    let body = Body::AppendReject {
        rejected,
        hint,
        last: LogIndex(1),
    };
    raft.ready(&mut ready);
    raft.step(MemberId(3), Message { term, body });
    raft.ready(&mut ready);
    (raft, ready.loads[0])
}

#[test]
#[should_panic(expected = "is not open")]
fn old_entries_that_come_twice() {
    let (mut raft, load) = with_load();
    raft.on_entries_loaded(load.id, Vec::new());
    raft.on_entries_loaded(load.id, Vec::new());
}

#[test]
#[should_panic(expected = "are not those of the log")]
fn old_entries_that_are_others() {
    let (mut raft, load) = with_load();
    let entry = Entry {
        term: Term(1),
        index: load.from,
        kind: EntryKind::Normal,
        payload: "z".into(),
    };
    raft.on_entries_loaded(load.id, vec![entry]);
}

#[test]
#[should_panic(expected = "does not follow")]
fn a_restored_log_with_a_gap() {
    let entry = |index| Entry {
        term: Term(1),
        index: LogIndex(index),
        kind: EntryKind::Normal,
        payload: "z".into(),
    };
    let mut restored = Restored::founding(Membership::new([ME], []));
    restored.entries = vec![entry(2), entry(4)];
    let _ = Raft::new(Config::new(ME, 1), restored);
}

#[test]
#[should_panic(expected = "outside the restored log")]
fn a_restored_log_that_ends_before_what_is_applied() {
    let mut restored = Restored::founding(Membership::new([ME], []));
    restored.applied = LogIndex(7);
    let _ = Raft::new(Config::new(ME, 1), restored);
}
