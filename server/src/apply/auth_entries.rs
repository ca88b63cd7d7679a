//! Entries about users and roles, carried out; and the rights of every other entry, asked before it is.
//!
//! Always true here: what an entry does follows from the store of users and roles, the table of leases and the entry;
//! tokens are told afterwards. A change's records and the consistent index land in one transaction of the store, and the
//! new view is published before the entry's answer leaves, so who was told of a change meets it everywhere.

use prost::Message;
use storage::auth::{
    Access, AuthChange, AuthError, AuthStore, PermissionRecord, ROOT_ROLE, ROOT_USER,
};
use storage::command::{ArchivedAuth, CommandView};
use storage::mvcc::Applied;
use wire::error::EtcdError;
use wire::messages::authpb::Permission;
use wire::messages::etcdserverpb as pb;

use crate::auth::checks::check_write;
use crate::auth::{AuthShared, TokenKeeper, refusal};
use crate::metrics::ApplyOp;
use crate::services::status;

use super::stage::ApplyStage;

/// Between two looks for tokens whose time is over; etcd's number.
const SWEEP_INTERVAL_NS: u64 = 1_000_000_000;

/// Users, roles and simple tokens on the apply core.
pub struct AuthRoom {
    pub(super) store: AuthStore,
    pub(super) tokens: TokenKeeper,
    shared: AuthShared,
    swept_ns: u64,
}

impl AuthRoom {
    pub fn new(store: AuthStore, shared: AuthShared, token_ttl_ns: u64) -> AuthRoom {
        shared.view.store(store.view().clone());
        AuthRoom {
            tokens: TokenKeeper::new(token_ttl_ns, shared.tokens.clone()),
            store,
            shared,
            swept_ns: 0,
        }
    }

    /// In whose name the member proposes, and at which revision.
    pub(super) fn own_name(&self) -> (&'static str, u64) {
        match self.store.is_enabled() {
            true => (ROOT_USER, self.store.revision()),
            false => ("", 0),
        }
    }
}

impl ApplyStage {
    /// Whether who proposed a write may do it, by the users and roles of this entry's place in the log.
    pub(super) fn check_rights(&self, command: &CommandView) -> Result<(), EtcdError> {
        let (view, leases) = (self.auth.store.view(), &self.leases.table);
        check_write(view, leases, command).map_err(refusal)
    }

    /// Forgets tokens whose time is over, once a second.
    pub(super) fn sweep_tokens(&mut self) {
        let now_ns = self.clock.now_ns();
        if self.auth.swept_ns + SWEEP_INTERVAL_NS <= now_ns {
            self.auth.swept_ns = now_ns;
            self.auth.tokens.sweep(now_ns);
        }
    }

    pub(super) fn apply_auth(
        &mut self,
        applied: Applied,
        command: &CommandView,
        auth: &ArchivedAuth<'_>,
    ) -> Result<(), EtcdError> {
        let done = self
            .check_auth(&command.header.user, auth)
            .and_then(|()| self.change_auth(applied, auth));
        match done {
            Ok(Some(changes)) => self.put_auth(applied, changes, auth),
            Ok(None) => self.store.set_applied(applied),
            Err(error) => {
                self.store.set_applied(applied);
                return Err(error);
            }
        }
        self.answer_auth(applied, auth)
    }

    /// Who may ask this: root, and everybody about himself.
    fn check_auth(&self, user: &str, auth: &ArchivedAuth<'_>) -> Result<(), EtcdError> {
        let store = &self.auth.store;
        let is_own = match auth {
            ArchivedAuth::Status | ArchivedAuth::Authenticate { .. } => return Ok(()),
            ArchivedAuth::UserGet { name } => **name == *user,
            ArchivedAuth::RoleGet { role } => store.has_role(user, role),
            _ => false,
        };
        match store.view().check_root(user) {
            Err(_) if is_own => Ok(()),
            checked => checked.map_err(refusal),
        }
    }

    /// Changes the store; `None` for a request that changes nothing, whatever the store.
    fn change_auth(
        &mut self,
        applied: Applied,
        auth: &ArchivedAuth<'_>,
    ) -> Result<Option<Vec<AuthChange>>, EtcdError> {
        let store = &mut self.auth.store;
        let changed = match auth {
            ArchivedAuth::Enable => store.enable(),
            ArchivedAuth::Disable => store.disable(),
            ArchivedAuth::UserAdd {
                name,
                password,
                is_without_password,
            } => store.add_user(name, Some(password), *is_without_password),
            ArchivedAuth::UserDelete { name } => store.delete_user(name),
            ArchivedAuth::UserChangePassword {
                name,
                password,
                is_unreadable,
            } => store.change_password(name, (!is_unreadable).then_some(&**password)),
            ArchivedAuth::UserGrantRole { name, role } => store.grant_role(name, role),
            ArchivedAuth::UserRevokeRole { name, role } => store.revoke_role(name, role),
            ArchivedAuth::RoleAdd { role } => store.add_role(role),
            ArchivedAuth::RoleDelete { role } => store.delete_role(role),
            ArchivedAuth::RoleGrantPermission {
                role,
                has_permission,
                access,
                key,
                range_end,
            } => {
                let permission = has_permission.then(|| PermissionRecord {
                    access: Access(access.to_native()),
                    key: (**key).into(),
                    range_end: (**range_end).into(),
                });
                store.grant_permission(role, permission)
            }
            ArchivedAuth::RoleRevokePermission {
                role,
                key,
                range_end,
            } => store.revoke_permission(role, key, range_end),
            ArchivedAuth::Authenticate { user, token } => {
                return self.sign_in(applied, user, token).map(|()| None);
            }
            ArchivedAuth::Status
            | ArchivedAuth::UserGet { .. }
            | ArchivedAuth::UserList
            | ArchivedAuth::RoleGet { .. }
            | ArchivedAuth::RoleList => return Ok(None),
        };
        changed.map(Some).map_err(answer)
    }

    /// The password was checked before; the user may have gone since.
    fn sign_in(&mut self, applied: Applied, user: &str, token: &str) -> Result<(), EtcdError> {
        let auth = &mut self.auth;
        if !auth.store.is_enabled() {
            return Err(EtcdError::AuthNotEnabled);
        }
        let known = auth.store.user(user).ok_or(EtcdError::AuthFailed)?;
        if known.is_without_password() {
            return Err(EtcdError::AuthFailed);
        }
        if !token.is_empty()
            && !auth
                .tokens
                .add(&format!("{token}.{}", applied.index), user, self.now_ns)
        {
            return Err(EtcdError::TooManyRequests);
        }
        Ok(())
    }

    /// Writes what changed, publishes it, and takes back the tokens that it ends.
    fn put_auth(&mut self, applied: Applied, changes: Vec<AuthChange>, auth: &ArchivedAuth<'_>) {
        if changes.is_empty() {
            return self.store.set_applied(applied);
        }
        let mut txn = self.store.begin(applied);
        for change in &changes {
            match &change.value {
                Some(value) => txn.put_bucket(change.bucket, &change.key, value),
                None => txn.delete_bucket(change.bucket, &change.key),
            }
        }
        txn.commit();
        let room = &mut self.auth;
        room.shared.view.store(room.store.view().clone());
        let revision = room.store.revision();
        match auth {
            ArchivedAuth::Disable => room.tokens.clear(),
            ArchivedAuth::UserDelete { name } | ArchivedAuth::UserChangePassword { name, .. } => {
                room.tokens.drop_user(name);
            }
            _ => {}
        }
        self.metrics.gauges().auth_revision.set(revision as i64);
        let (what, name) = auth.describe();
        tracing::info!(
            change = what,
            name,
            auth_revision = revision,
            "changed users and roles"
        );
    }

    /// Encodes the answer of a request that was carried out.
    fn answer_auth(&mut self, applied: Applied, auth: &ArchivedAuth<'_>) -> Result<(), EtcdError> {
        let header = Some(status::header(&self.shared, self.store.revision()));
        let store = &self.auth.store;
        let out = &mut self.scratch;
        let encoded = match auth {
            ArchivedAuth::Status => pb::AuthStatusResponse {
                header,
                enabled: store.is_enabled(),
                auth_revision: store.revision(),
            }
            .encode(out),
            ArchivedAuth::Authenticate { token, .. } => pb::AuthenticateResponse {
                header,
                token: match token.is_empty() {
                    true => String::new(),
                    false => format!("{}.{}", &**token, applied.index),
                },
            }
            .encode(out),
            ArchivedAuth::UserGet { name } => {
                let user = store.user(name).ok_or(EtcdError::UserNotFound)?;
                let roles = user.roles.iter().map(|role| role.to_string()).collect();
                pb::AuthUserGetResponse { header, roles }.encode(out)
            }
            ArchivedAuth::UserList => {
                let users = store.users().map(|user| user.name.to_string()).collect();
                pb::AuthUserListResponse { header, users }.encode(out)
            }
            ArchivedAuth::RoleGet { role } => {
                let role = store.role(role).ok_or(EtcdError::RoleNotFound)?;
                let perm = match &*role.name {
                    ROOT_ROLE => vec![Permission {
                        perm_type: Access::READWRITE.0,
                        key: Vec::new(),
                        range_end: b"\0".to_vec(),
                    }],
                    _ => role.permissions.iter().map(shown).collect(),
                };
                pb::AuthRoleGetResponse { header, perm }.encode(out)
            }
            ArchivedAuth::RoleList => {
                let roles = store.roles().map(|role| role.name.to_string()).collect();
                pb::AuthRoleListResponse { header, roles }.encode(out)
            }
            // All other answers are a header alone.
            _ => pb::AuthEnableResponse { header }.encode(out),
        };
        encoded.expect("a Vec takes all bytes");
        Ok(())
    }
}

fn shown(permission: &PermissionRecord) -> Permission {
    Permission {
        perm_type: permission.access.0,
        key: permission.key.to_vec(),
        range_end: permission.range_end.to_vec(),
    }
}

fn answer(error: AuthError) -> EtcdError {
    match error {
        AuthError::RootUserNotExist => EtcdError::RootUserNotExist,
        AuthError::RootRoleNotExist => EtcdError::RootRoleNotExist,
        AuthError::UserAlreadyExist => EtcdError::UserAlreadyExist,
        AuthError::UserEmpty => EtcdError::UserEmpty,
        AuthError::UserNotFound => EtcdError::UserNotFound,
        AuthError::RoleAlreadyExist => EtcdError::RoleAlreadyExist,
        AuthError::RoleNotFound => EtcdError::RoleNotFound,
        AuthError::RoleEmpty => EtcdError::RoleEmpty,
        AuthError::RoleNotGranted => EtcdError::RoleNotGranted,
        AuthError::PermissionNotGranted => EtcdError::PermissionNotGranted,
        AuthError::PermissionNotGiven => EtcdError::PermissionNotGiven,
        AuthError::InvalidManagement => EtcdError::InvalidAuthMgmt,
        AuthError::BadHash => EtcdError::NoPasswordUser,
    }
}

/// Its label in etcd's metrics; the status has none there.
pub(super) fn auth_op(auth: &ArchivedAuth<'_>) -> ApplyOp {
    match auth {
        ArchivedAuth::Enable => ApplyOp::AuthEnable,
        ArchivedAuth::Disable => ApplyOp::AuthDisable,
        ArchivedAuth::Status => ApplyOp::Unknown,
        ArchivedAuth::Authenticate { .. } => ApplyOp::Authenticate,
        ArchivedAuth::UserAdd { .. } => ApplyOp::AuthUserAdd,
        ArchivedAuth::UserDelete { .. } => ApplyOp::AuthUserDelete,
        ArchivedAuth::UserGet { .. } => ApplyOp::AuthUserGet,
        ArchivedAuth::UserChangePassword { .. } => ApplyOp::AuthUserChangePassword,
        ArchivedAuth::UserGrantRole { .. } => ApplyOp::AuthUserGrantRole,
        ArchivedAuth::UserRevokeRole { .. } => ApplyOp::AuthUserRevokeRole,
        ArchivedAuth::UserList => ApplyOp::AuthUserList,
        ArchivedAuth::RoleList => ApplyOp::AuthRoleList,
        ArchivedAuth::RoleAdd { .. } => ApplyOp::AuthRoleAdd,
        ArchivedAuth::RoleDelete { .. } => ApplyOp::AuthRoleDelete,
        ArchivedAuth::RoleGet { .. } => ApplyOp::AuthRoleGet,
        ArchivedAuth::RoleGrantPermission { .. } => ApplyOp::AuthRoleGrantPermission,
        ArchivedAuth::RoleRevokePermission { .. } => ApplyOp::AuthRoleRevokePermission,
    }
}
