//! The users and roles that exist, and how entries change them.
//!
//! Invariants
//! - A request that is refused changes nothing; one that changes anything raises the revision by one, but for turning
//!   authentication on.
//! - While authentication is on, user root exists and has role root.
//! - What the tree file holds is what the changes say that each method hands out; they belong in one transaction of the
//!   store with the entry's index.
//!
//! Rules and their order are etcd's (`server/auth/store.go`). Apply core. Knows no passwords, only their hashes.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use thiserror::Error;

use super::intervals::IntervalSet;
use super::record::{Access, PermissionRecord, RoleRecord, UserRecord};
use super::view::{AuthView, UserView};
use super::{ROOT_ROLE, ROOT_USER};
use crate::mvcc::{Bucket, TreeDamage, TreeSnapshot};

const ENABLED_KEY: &[u8] = b"authEnabled";
const REVISION_KEY: &[u8] = b"authRevision";

/// Why a request about users and roles has no effect.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum AuthError {
    #[error("root user does not exist")]
    RootUserNotExist,
    #[error("root user does not have root role")]
    RootRoleNotExist,
    #[error("user already exists")]
    UserAlreadyExist,
    #[error("user name is empty")]
    UserEmpty,
    #[error("user not found")]
    UserNotFound,
    #[error("role already exists")]
    RoleAlreadyExist,
    #[error("role not found")]
    RoleNotFound,
    #[error("role name is empty")]
    RoleEmpty,
    #[error("role is not granted to the user")]
    RoleNotGranted,
    #[error("permission is not granted to the role")]
    PermissionNotGranted,
    #[error("permission not given")]
    PermissionNotGiven,
    #[error("it would lock everybody out, or names an interval that holds no key")]
    InvalidManagement,
    #[error("the password's hash cannot be read")]
    BadHash,
}

/// Why the buckets cannot be read.
#[derive(Debug, Error)]
pub enum AuthLoadError {
    #[error(
        "tree file: bucket {bucket}: key {key:02x?} holds no readable record; restore this member from a backup"
    )]
    BadRecord { bucket: &'static str, key: Vec<u8> },
    #[error("tree file: {0}; restore this member from a backup")]
    Damaged(#[source] TreeDamage),
}

/// One record that a change writes, or takes away.
pub struct AuthChange {
    pub bucket: Bucket,
    pub key: Box<[u8]>,
    pub value: Option<Vec<u8>>,
}

pub struct AuthStore {
    is_enabled: bool,
    revision: u64,
    users: BTreeMap<Box<str>, UserRecord>,
    roles: BTreeMap<Box<str>, RoleRecord>,
    view: Arc<AuthView>,
}

type Outcome = Result<Vec<AuthChange>, AuthError>;

impl Default for AuthStore {
    /// As etcd's in a new file.
    fn default() -> AuthStore {
        let mut store = AuthStore {
            is_enabled: false,
            revision: 1,
            users: BTreeMap::new(),
            roles: BTreeMap::new(),
            view: Arc::default(),
        };
        store.show_all();
        store
    }
}

impl AuthStore {
    /// Reads a tree file's users and roles. The changes are what a new file lacks.
    ///
    /// # Errors
    /// A record that cannot be read, or a damaged file.
    pub fn load(tree: &impl TreeSnapshot) -> Result<(AuthStore, Vec<AuthChange>), AuthLoadError> {
        let mut store = AuthStore::default();
        let get = |key| tree.get(Bucket::Auth, key).map_err(AuthLoadError::Damaged);
        store.is_enabled = get(ENABLED_KEY)? == Some(&[1]);
        let mut missing = Vec::new();
        match get(REVISION_KEY)? {
            None => missing.push(store.revision_change()),
            Some(bytes) => {
                let number = bytes.try_into().map(u64::from_be_bytes);
                store.revision = number.map_err(|_| AuthLoadError::BadRecord {
                    bucket: Bucket::Auth.name(),
                    key: REVISION_KEY.to_vec(),
                })?;
            }
        }
        load_bucket(tree, Bucket::AuthUsers, |name, value| {
            let user = UserRecord::decode(value)?;
            (user.name.as_bytes() == name).then(|| store.users.insert(user.name.clone(), user))?;
            Some(())
        })?;
        load_bucket(tree, Bucket::AuthRoles, |name, value| {
            let role = RoleRecord::decode(value)?;
            (role.name.as_bytes() == name).then(|| store.roles.insert(role.name.clone(), role))?;
            Some(())
        })?;
        store.show_all();
        Ok((store, missing))
    }

    /// The state after the last change.
    pub fn view(&self) -> &Arc<AuthView> {
        &self.view
    }

    pub fn is_enabled(&self) -> bool {
        self.is_enabled
    }

    pub fn revision(&self) -> u64 {
        self.revision
    }

    pub fn user(&self, name: &str) -> Option<&UserRecord> {
        self.users.get(name)
    }

    pub fn role(&self, name: &str) -> Option<&RoleRecord> {
        self.roles.get(name)
    }

    /// Ascending by name.
    pub fn users(&self) -> impl Iterator<Item = &UserRecord> {
        self.users.values()
    }

    /// Ascending by name.
    pub fn roles(&self) -> impl Iterator<Item = &RoleRecord> {
        self.roles.values()
    }

    /// Whether the user exists and was granted the role.
    pub fn has_role(&self, user: &str, role: &str) -> bool {
        let user = self.user(user);
        user.is_some_and(|user| user.roles.iter().any(|held| **held == *role))
    }

    pub fn enable(&mut self) -> Outcome {
        if self.is_enabled {
            return Ok(Vec::new());
        }
        let root = self.user(ROOT_USER).ok_or(AuthError::RootUserNotExist)?;
        if !is_root(root) {
            return Err(AuthError::RootRoleNotExist);
        }
        self.is_enabled = true;
        self.show(|_| false);
        Ok(vec![self.enabled_change()])
    }

    pub fn disable(&mut self) -> Outcome {
        if !self.is_enabled {
            return Ok(Vec::new());
        }
        self.is_enabled = false;
        let enabled = self.enabled_change();
        let revision = self.next_revision();
        self.show(|_| false);
        Ok(vec![enabled, revision])
    }

    /// `password` is the hash, `None` if it could not be read; it does not matter for a user without one.
    pub fn add_user(
        &mut self,
        name: &str,
        password: Option<&[u8]>,
        is_without_password: bool,
    ) -> Outcome {
        if name.is_empty() {
            return Err(AuthError::UserEmpty);
        }
        if self.users.contains_key(name) {
            return Err(AuthError::UserAlreadyExist);
        }
        let password = match is_without_password {
            true => &[],
            false => password.ok_or(AuthError::BadHash)?,
        };
        let user = UserRecord {
            name: name.into(),
            password: password.into(),
            roles: Vec::new(),
            no_password: Some(is_without_password),
        };
        Ok(self.put_user(user))
    }

    pub fn delete_user(&mut self, name: &str) -> Outcome {
        if self.is_enabled && name == ROOT_USER {
            return Err(AuthError::InvalidManagement);
        }
        self.users.remove(name).ok_or(AuthError::UserNotFound)?;
        let gone = AuthChange {
            bucket: Bucket::AuthUsers,
            key: name.as_bytes().into(),
            value: None,
        };
        let revision = self.next_revision();
        let mut view = self.next_view();
        view.users.remove(name);
        self.view = Arc::new(view);
        Ok(vec![gone, revision])
    }

    /// `password` is the hash, `None` if it could not be read.
    pub fn change_password(&mut self, name: &str, password: Option<&[u8]>) -> Outcome {
        let mut user = self.user(name).ok_or(AuthError::UserNotFound)?.clone();
        user.password = match user.is_without_password() {
            true => Box::default(),
            false => password.ok_or(AuthError::BadHash)?.into(),
        };
        Ok(self.put_user(user))
    }

    pub fn grant_role(&mut self, name: &str, role: &str) -> Outcome {
        let mut user = self.user(name).ok_or(AuthError::UserNotFound)?.clone();
        if role != ROOT_ROLE && !self.roles.contains_key(role) {
            return Err(AuthError::RoleNotFound);
        }
        match user.roles.binary_search_by(|held| (**held).cmp(role)) {
            Ok(_) => Ok(Vec::new()),
            Err(place) => {
                user.roles.insert(place, role.into());
                Ok(self.put_user(user))
            }
        }
    }

    pub fn revoke_role(&mut self, name: &str, role: &str) -> Outcome {
        if self.is_enabled && name == ROOT_USER && role == ROOT_ROLE {
            return Err(AuthError::InvalidManagement);
        }
        let mut user = self.user(name).ok_or(AuthError::UserNotFound)?.clone();
        let held = user.roles.len();
        user.roles.retain(|held| **held != *role);
        if user.roles.len() == held {
            return Err(AuthError::RoleNotGranted);
        }
        Ok(self.put_user(user))
    }

    pub fn add_role(&mut self, name: &str) -> Outcome {
        if name.is_empty() {
            return Err(AuthError::RoleEmpty);
        }
        if self.roles.contains_key(name) {
            return Err(AuthError::RoleAlreadyExist);
        }
        let role = RoleRecord {
            name: name.into(),
            permissions: Vec::new(),
        };
        Ok(self.put_role(role))
    }

    pub fn delete_role(&mut self, name: &str) -> Outcome {
        if self.is_enabled && name == ROOT_ROLE {
            return Err(AuthError::InvalidManagement);
        }
        self.roles.remove(name).ok_or(AuthError::RoleNotFound)?;
        let mut changes = vec![AuthChange {
            bucket: Bucket::AuthRoles,
            key: name.as_bytes().into(),
            value: None,
        }];
        let mut touched = Vec::new();
        for user in self.users.values_mut() {
            let held = user.roles.len();
            user.roles.retain(|held| **held != *name);
            if user.roles.len() < held {
                changes.push(user_change(user));
                touched.push(user.name.clone());
            }
        }
        changes.push(self.next_revision());
        self.show(|user| touched.contains(&user.name));
        Ok(changes)
    }

    /// `permission` is `None` if the request has none.
    pub fn grant_permission(
        &mut self,
        role: &str,
        permission: Option<PermissionRecord>,
    ) -> Outcome {
        let permission = permission.ok_or(AuthError::PermissionNotGiven)?;
        let (key, range_end) = (&permission.key, &permission.range_end);
        let holds_keys = range_end.is_empty() || **range_end == *b"\0" || key < range_end;
        if key.is_empty() || !holds_keys {
            return Err(AuthError::InvalidManagement);
        }
        let mut role = self.role(role).ok_or(AuthError::RoleNotFound)?.clone();
        let held = &mut role.permissions;
        // As in etcd, only the first permission of the same key is compared, so a second interval from a key can come
        // twice.
        let place = held.partition_point(|held| held.key < permission.key);
        match held.get_mut(place) {
            Some(held) if held.key == *key && held.range_end == *range_end => {
                held.access = permission.access;
            }
            _ => {
                held.push(permission);
                held.sort_by(|left, right| left.key.cmp(&right.key));
            }
        }
        Ok(self.put_role(role))
    }

    pub fn revoke_permission(&mut self, role: &str, key: &[u8], range_end: &[u8]) -> Outcome {
        let mut role = self.role(role).ok_or(AuthError::RoleNotFound)?.clone();
        let held = role.permissions.len();
        role.permissions
            .retain(|held| *held.key != *key || *held.range_end != *range_end);
        if role.permissions.len() == held {
            return Err(AuthError::PermissionNotGranted);
        }
        Ok(self.put_role(role))
    }

    fn put_user(&mut self, user: UserRecord) -> Vec<AuthChange> {
        let change = user_change(&user);
        let name = user.name.clone();
        self.users.insert(name.clone(), user);
        let revision = self.next_revision();
        self.show(|user| user.name == name);
        vec![change, revision]
    }

    fn put_role(&mut self, role: RoleRecord) -> Vec<AuthChange> {
        let change = AuthChange {
            bucket: Bucket::AuthRoles,
            key: role.name.as_bytes().into(),
            value: Some(role.encode()),
        };
        let name = role.name.clone();
        self.roles.insert(name.clone(), role);
        let revision = self.next_revision();
        self.show(|user| user.roles.contains(&name));
        vec![change, revision]
    }

    fn next_revision(&mut self) -> AuthChange {
        self.revision += 1;
        self.revision_change()
    }

    fn revision_change(&self) -> AuthChange {
        AuthChange {
            bucket: Bucket::Auth,
            key: REVISION_KEY.into(),
            value: Some(self.revision.to_be_bytes().to_vec()),
        }
    }

    fn enabled_change(&self) -> AuthChange {
        AuthChange {
            bucket: Bucket::Auth,
            key: ENABLED_KEY.into(),
            value: Some(vec![u8::from(self.is_enabled)]),
        }
    }

    /// The last view with what is counted brought up to date.
    fn next_view(&self) -> AuthView {
        AuthView {
            is_enabled: self.is_enabled,
            revision: self.revision,
            users: self.view.users.clone(),
        }
    }

    fn show_all(&mut self) {
        self.show(|_| true);
    }

    /// Makes the next view; of the users, those that `is_touched` names are seen anew.
    fn show(&mut self, is_touched: impl Fn(&UserRecord) -> bool) {
        let mut view = self.next_view();
        for user in self.users.values().filter(|user| is_touched(user)) {
            view.users
                .insert(user.name.clone(), Arc::new(self.seen(user)));
        }
        self.view = Arc::new(view);
    }

    fn seen(&self, user: &UserRecord) -> UserView {
        let granted = |allows: fn(Access) -> bool| {
            let roles = user.roles.iter().filter_map(|role| self.roles.get(role));
            let permissions = roles.flat_map(|role| &role.permissions);
            IntervalSet::new(
                permissions
                    .filter(|permission| allows(permission.access))
                    .map(|permission| (&*permission.key, &*permission.range_end)),
            )
        };
        UserView {
            password: user.password.clone(),
            is_without_password: user.is_without_password(),
            is_root: is_root(user),
            reads: granted(Access::reads),
            writes: granted(Access::writes),
        }
    }
}

fn is_root(user: &UserRecord) -> bool {
    user.roles.iter().any(|role| **role == *ROOT_ROLE)
}

fn user_change(user: &UserRecord) -> AuthChange {
    AuthChange {
        bucket: Bucket::AuthUsers,
        key: user.name.as_bytes().into(),
        value: Some(user.encode()),
    }
}

fn load_bucket(
    tree: &impl TreeSnapshot,
    bucket: Bucket,
    mut take: impl FnMut(&[u8], &[u8]) -> Option<()>,
) -> Result<(), AuthLoadError> {
    let mut bad = None;
    let scanned = tree.scan(bucket, b"", &mut |key, value| match take(key, value) {
        Some(()) => ControlFlow::Continue(()),
        None => {
            bad = Some(key.to_vec());
            ControlFlow::Break(())
        }
    });
    scanned.map_err(AuthLoadError::Damaged)?;
    match bad {
        None => Ok(()),
        Some(key) => Err(AuthLoadError::BadRecord {
            bucket: bucket.name(),
            key,
        }),
    }
}

#[cfg(test)]
mod tests;
