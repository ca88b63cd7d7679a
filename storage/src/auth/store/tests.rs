//! The rules of users and roles, and that what is written to the file says all there is.

use proptest::prelude::*;

use super::*;
use crate::auth::{Refusal, Rights};
use crate::mvcc::{Change, MemoryTree};

fn permission(access: Access, key: &str, range_end: &str) -> Option<PermissionRecord> {
    Some(PermissionRecord {
        access,
        key: key.as_bytes().into(),
        range_end: range_end.as_bytes().into(),
    })
}

/// A store with authentication on, user root, and user `ann` with role `r` over [a, c).
fn on() -> AuthStore {
    let mut store = AuthStore::default();
    store.add_user("root", Some(b"hash"), false).unwrap();
    store.grant_role("root", "root").unwrap();
    store.add_user("ann", Some(b"hash"), false).unwrap();
    store.add_role("r").unwrap();
    store
        .grant_permission("r", permission(Access::READWRITE, "a", "c"))
        .unwrap();
    store.grant_role("ann", "r").unwrap();
    store.enable().unwrap();
    store
}

fn error(outcome: Outcome) -> Option<AuthError> {
    outcome.err()
}

#[test]
fn revisions_count_changes_and_nothing_else() {
    let mut store = AuthStore::default();
    assert_eq!(store.revision(), 1);
    assert_eq!(error(store.enable()), Some(AuthError::RootUserNotExist));
    store.add_user("root", Some(b"x"), false).unwrap();
    assert_eq!(error(store.enable()), Some(AuthError::RootRoleNotExist));
    assert_eq!(
        error(store.add_user("", None, true)),
        Some(AuthError::UserEmpty)
    );
    let again = store.add_user("root", Some(b"x"), false);
    assert_eq!(error(again), Some(AuthError::UserAlreadyExist));
    store.grant_role("root", "root").unwrap();
    assert!(store.grant_role("root", "root").unwrap().is_empty(), "held");
    assert_eq!(store.revision(), 3);
    store.enable().unwrap();
    assert!(store.enable().unwrap().is_empty(), "on already");
    assert_eq!(store.revision(), 3, "turning it on counts nothing");
    store.disable().unwrap();
    assert!(store.disable().unwrap().is_empty(), "off already");
    assert_eq!(store.revision(), 4);
    assert_eq!(store.view().revision, 4);
}

#[test]
fn nobody_locks_everybody_out() {
    let mut store = on();
    for outcome in [
        store.delete_user("root"),
        store.delete_role("root"),
        store.revoke_role("root", "root"),
    ] {
        assert_eq!(error(outcome), Some(AuthError::InvalidManagement));
    }
    store.disable().unwrap();
    assert_eq!(
        error(store.delete_role("root")),
        Some(AuthError::RoleNotFound)
    );
    store.revoke_role("root", "root").unwrap();
    store.delete_user("root").unwrap();
}

#[test]
fn what_does_not_exist_is_named() {
    let mut store = on();
    for (outcome, wanted) in [
        (store.delete_user("bob"), AuthError::UserNotFound),
        (store.change_password("bob", None), AuthError::UserNotFound),
        (store.grant_role("bob", "r"), AuthError::UserNotFound),
        (store.grant_role("ann", "s"), AuthError::RoleNotFound),
        (store.revoke_role("bob", "r"), AuthError::UserNotFound),
        (store.revoke_role("ann", "s"), AuthError::RoleNotGranted),
        (store.add_role(""), AuthError::RoleEmpty),
        (store.add_role("r"), AuthError::RoleAlreadyExist),
        (store.delete_role("s"), AuthError::RoleNotFound),
        (
            store.grant_permission("s", None),
            AuthError::PermissionNotGiven,
        ),
        (
            store.grant_permission("s", permission(Access::READ, "b", "a")),
            AuthError::InvalidManagement,
        ),
        (
            store.grant_permission("s", permission(Access::READ, "", "\0")),
            AuthError::InvalidManagement,
        ),
        (
            store.grant_permission("s", permission(Access::READ, "a", "")),
            AuthError::RoleNotFound,
        ),
        (
            store.revoke_permission("s", b"a", b""),
            AuthError::RoleNotFound,
        ),
        (
            store.revoke_permission("r", b"a", b"b"),
            AuthError::PermissionNotGranted,
        ),
        (store.change_password("ann", None), AuthError::BadHash),
        (store.add_user("eve", None, false), AuthError::BadHash),
    ] {
        assert_eq!(error(outcome), Some(wanted));
    }
}

#[test]
fn rights_follow_roles_and_reasons_come_in_order() {
    let mut store = on();
    let view = store.view().clone();
    let now = view.revision;
    let ann = Rights::of(&view, "ann", now);
    assert_eq!(ann.may_read(b"a", b"c"), Ok(()));
    assert_eq!(ann.may_write(b"b", b""), Ok(()));
    assert_eq!(ann.may_read(b"a", b"d"), Err(Refusal::Denied));
    assert_eq!(ann.may_read(b"a", b"\0"), Err(Refusal::Denied));
    let refusal = |user, revision| Rights::of(&view, user, revision).may_read(b"a", b"");
    assert_eq!(refusal("", 0), Err(Refusal::UserEmpty));
    assert_eq!(refusal("ann", now - 1), Err(Refusal::OldRevision));
    assert_eq!(refusal("bob", now), Err(Refusal::Denied));
    assert_eq!(refusal("root", now), Ok(()));
    assert_eq!(view.check_root(""), Err(Refusal::UserEmpty));
    assert_eq!(view.check_root("bob"), Err(Refusal::UserNotFound));
    assert_eq!(view.check_root("ann"), Err(Refusal::Denied));
    assert_eq!(view.check_root("root"), Ok(()));

    store.delete_role("r").unwrap();
    let later = store.view().clone();
    let ann = Rights::of(&later, "ann", later.revision);
    assert_eq!(ann.may_read(b"a", b""), Err(Refusal::Denied));
    assert_eq!(
        Rights::of(&view, "ann", now).may_read(b"a", b""),
        Ok(()),
        "a view stays"
    );
    store.disable().unwrap();
    let off = store.view().clone();
    assert_eq!(Rights::of(&off, "", 0).may_write(b"x", b"\0"), Ok(()));
    assert_eq!(off.check_root(""), Ok(()));
}

#[test]
fn a_permission_is_replaced_by_its_interval_as_in_etcd() {
    let mut store = on();
    let kinds = |store: &AuthStore| -> Vec<(Vec<u8>, i32)> {
        let role = store.role("r").unwrap();
        let held = role.permissions.iter();
        held.map(|held| (held.range_end.to_vec(), held.access.0))
            .collect()
    };
    store
        .grant_permission("r", permission(Access::READ, "a", "c"))
        .unwrap();
    assert_eq!(kinds(&store), [(b"c".to_vec(), 0)]);
    store
        .grant_permission("r", permission(Access::WRITE, "a", ""))
        .unwrap();
    assert_eq!(kinds(&store), [(b"c".to_vec(), 0), (b"".to_vec(), 1)]);
    // The second of a key is not found again.
    store
        .grant_permission("r", permission(Access::READ, "a", ""))
        .unwrap();
    assert_eq!(kinds(&store).len(), 3);
    store.revoke_permission("r", b"a", b"").unwrap();
    assert_eq!(kinds(&store), [(b"c".to_vec(), 0)]);
}

#[derive(Clone, Debug)]
enum Step {
    Enable,
    Disable,
    AddUser(u8, bool),
    DeleteUser(u8),
    Password(u8, u8),
    GrantRole(u8, u8),
    RevokeRole(u8, u8),
    AddRole(u8),
    DeleteRole(u8),
    Grant(u8, i32, u8, u8),
    Revoke(u8, u8, u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        Just(Step::Enable),
        Just(Step::Disable),
        (0..4u8, any::<bool>()).prop_map(|(user, none)| Step::AddUser(user, none)),
        (0..4u8).prop_map(Step::DeleteUser),
        (0..4u8, 0..3u8).prop_map(|(user, password)| Step::Password(user, password)),
        (0..4u8, 0..4u8).prop_map(|(user, role)| Step::GrantRole(user, role)),
        (0..4u8, 0..4u8).prop_map(|(user, role)| Step::RevokeRole(user, role)),
        (0..4u8).prop_map(Step::AddRole),
        (0..4u8).prop_map(Step::DeleteRole),
        (0..4u8, 0..4i32, 0..6u8, 0..6u8)
            .prop_map(|(role, kind, key, end)| { Step::Grant(role, kind, key, end) }),
        (0..4u8, 0..6u8, 0..6u8).prop_map(|(role, key, end)| Step::Revoke(role, key, end)),
    ]
}

/// Name 0 is root.
fn name(number: u8) -> &'static str {
    ["root", "ann", "bob", "cid"][usize::from(number)]
}

fn key(number: u8) -> &'static str {
    ["", "\0", "a", "b", "c", "d"][usize::from(number)]
}

fn apply(store: &mut AuthStore, step: &Step) -> Outcome {
    match *step {
        Step::Enable => store.enable(),
        Step::Disable => store.disable(),
        Step::AddUser(user, none) => store.add_user(name(user), Some(b"h"), none),
        Step::DeleteUser(user) => store.delete_user(name(user)),
        Step::Password(user, hash) => store.change_password(name(user), Some(&[hash])),
        Step::GrantRole(user, role) => store.grant_role(name(user), name(role)),
        Step::RevokeRole(user, role) => store.revoke_role(name(user), name(role)),
        Step::AddRole(role) => store.add_role(name(role)),
        Step::DeleteRole(role) => store.delete_role(name(role)),
        Step::Grant(role, kind, from, to) => {
            store.grant_permission(name(role), permission(Access(kind), key(from), key(to)))
        }
        Step::Revoke(role, from, to) => {
            let (from, to) = (key(from).as_bytes(), key(to).as_bytes());
            store.revoke_permission(name(role), from, to)
        }
    }
}

proptest! {
    /// The file's records say all there is to say, and the view that grew with the changes is the one they give.
    #[test]
    fn what_is_written_comes_back(steps in prop::collection::vec(step(), 0..60)) {
        let mut store = AuthStore::default();
        let mut tree = MemoryTree::default();
        let (_, missing) = AuthStore::load(&tree).unwrap();
        let mut write = |changes: Vec<AuthChange>| {
            for change in &changes {
                let (bucket, key) = (change.bucket, &*change.key);
                tree.apply(match &change.value {
                    Some(value) => Change::Put { bucket, key, value },
                    None => Change::Delete { bucket, key },
                });
            }
        };
        write(missing);
        for step in &steps {
            let before = store.revision();
            match apply(&mut store, step) {
                Ok(changes) => write(changes),
                Err(_) => prop_assert_eq!(store.revision(), before),
            }
        }
        let (read, missing) = AuthStore::load(&tree).unwrap();
        prop_assert!(missing.is_empty());
        prop_assert_eq!(read.is_enabled(), store.is_enabled());
        prop_assert_eq!(read.revision(), store.revision());
        prop_assert!(read.users().eq(store.users()));
        prop_assert!(read.roles().eq(store.roles()));
        let (grown, fresh) = (store.view(), read.view());
        prop_assert_eq!(grown.is_enabled, fresh.is_enabled);
        prop_assert_eq!(grown.revision, fresh.revision);
        prop_assert!(grown.users == fresh.users);
        let root = store.user(ROOT_USER);
        prop_assert!(!store.is_enabled() || root.is_some_and(is_root));
    }
}

#[test]
fn damaged_records_are_refused() {
    let damaged = |bucket, key: &[u8], value: &[u8]| {
        let mut tree = MemoryTree::default();
        tree.apply(Change::Put { bucket, key, value });
        matches!(AuthStore::load(&tree), Err(AuthLoadError::BadRecord { .. }))
    };
    assert!(
        damaged(Bucket::AuthUsers, b"ann", b"\x0a\x03bob"),
        "another's"
    );
    assert!(
        damaged(Bucket::AuthUsers, b"ann", b"\x0a\x09ann"),
        "cut short"
    );
    assert!(damaged(Bucket::AuthRoles, b"r", b"\x0a\x01r\x12\x01\x12"));
    assert!(damaged(Bucket::Auth, b"authRevision", b"\0\0\x01"));
}
