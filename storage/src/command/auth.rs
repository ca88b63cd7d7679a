//! The archived layout of requests about users and roles.
//!
//! Always true: as in [`super::layout`], kinds are added at the end and fields of a kind never change. Hashes and tokens
//! are in here, so nothing of this is printed but its kind and whom it names.

use std::fmt;

use rkyv::with::InlineAsBox;
use rkyv::{Archive, Serialize};

use super::layout::slack;

/// The order is the layout: add at the end, never reuse a place.
#[derive(Archive, Serialize, Clone, Copy)]
#[repr(u8)]
pub enum Auth<'a> {
    Enable,
    Disable,
    Status,
    /// The password was checked before.
    Authenticate {
        #[rkyv(with = InlineAsBox)]
        user: &'a str,
        /// What makes the token hard to guess; empty where tokens are signed.
        #[rkyv(with = InlineAsBox)]
        token: &'a str,
    },
    UserAdd {
        #[rkyv(with = InlineAsBox)]
        name: &'a str,
        /// The bcrypt hash.
        #[rkyv(with = InlineAsBox)]
        password: &'a [u8],
        is_without_password: bool,
    },
    UserDelete {
        #[rkyv(with = InlineAsBox)]
        name: &'a str,
    },
    UserGet {
        #[rkyv(with = InlineAsBox)]
        name: &'a str,
    },
    UserChangePassword {
        #[rkyv(with = InlineAsBox)]
        name: &'a str,
        /// The bcrypt hash.
        #[rkyv(with = InlineAsBox)]
        password: &'a [u8],
        /// The client gave a hash itself, and not in base64.
        is_unreadable: bool,
    },
    UserGrantRole {
        #[rkyv(with = InlineAsBox)]
        name: &'a str,
        #[rkyv(with = InlineAsBox)]
        role: &'a str,
    },
    UserRevokeRole {
        #[rkyv(with = InlineAsBox)]
        name: &'a str,
        #[rkyv(with = InlineAsBox)]
        role: &'a str,
    },
    UserList,
    RoleList,
    RoleAdd {
        #[rkyv(with = InlineAsBox)]
        role: &'a str,
    },
    RoleDelete {
        #[rkyv(with = InlineAsBox)]
        role: &'a str,
    },
    RoleGet {
        #[rkyv(with = InlineAsBox)]
        role: &'a str,
    },
    RoleGrantPermission {
        #[rkyv(with = InlineAsBox)]
        role: &'a str,
        /// Without it the request is refused, in its turn.
        has_permission: bool,
        /// etcd's number: 0 read, 1 write, 2 both.
        access: i32,
        #[rkyv(with = InlineAsBox)]
        key: &'a [u8],
        #[rkyv(with = InlineAsBox)]
        range_end: &'a [u8],
    },
    RoleRevokePermission {
        #[rkyv(with = InlineAsBox)]
        role: &'a str,
        #[rkyv(with = InlineAsBox)]
        key: &'a [u8],
        #[rkyv(with = InlineAsBox)]
        range_end: &'a [u8],
    },
}

/// The request's name in etcd's metrics and log lines, and whom it is about.
macro_rules! described {
    ($auth:expr, $kind:ident) => {
        match $auth {
            $kind::Enable => ("AuthEnable", ""),
            $kind::Disable => ("AuthDisable", ""),
            $kind::Status => ("AuthStatus", ""),
            $kind::Authenticate { user, .. } => ("Authenticate", &**user),
            $kind::UserAdd { name, .. } => ("AuthUserAdd", &**name),
            $kind::UserDelete { name } => ("AuthUserDelete", &**name),
            $kind::UserGet { name } => ("AuthUserGet", &**name),
            $kind::UserChangePassword { name, .. } => ("AuthUserChangePassword", &**name),
            $kind::UserGrantRole { name, .. } => ("AuthUserGrantRole", &**name),
            $kind::UserRevokeRole { name, .. } => ("AuthUserRevokeRole", &**name),
            $kind::UserList => ("AuthUserList", ""),
            $kind::RoleList => ("AuthRoleList", ""),
            $kind::RoleAdd { role } => ("AuthRoleAdd", &**role),
            $kind::RoleDelete { role } => ("AuthRoleDelete", &**role),
            $kind::RoleGet { role } => ("AuthRoleGet", &**role),
            $kind::RoleGrantPermission { role, .. } => ("AuthRoleGrantPermission", &**role),
            $kind::RoleRevokePermission { role, .. } => ("AuthRoleRevokePermission", &**role),
        }
    };
}

impl ArchivedAuth<'_> {
    /// The request's name in etcd's metrics, and the user or role it is about.
    pub fn describe(&self) -> (&'static str, &str) {
        described!(self, ArchivedAuth)
    }
}

impl fmt::Debug for Auth<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, whom): (&str, &str) = described!(self, Auth);
        write!(f, "{kind}({whom:?})")
    }
}

impl Auth<'_> {
    pub(super) fn archived_bytes_max(&self) -> usize {
        let texts = match self {
            Auth::Enable | Auth::Disable | Auth::Status | Auth::UserList | Auth::RoleList => 0,
            Auth::Authenticate { user, token } => slack(user.len()) + slack(token.len()),
            Auth::UserAdd { name, password, .. }
            | Auth::UserChangePassword { name, password, .. } => {
                slack(name.len()) + slack(password.len())
            }
            Auth::UserDelete { name } | Auth::UserGet { name } => slack(name.len()),
            Auth::UserGrantRole { name, role } | Auth::UserRevokeRole { name, role } => {
                slack(name.len()) + slack(role.len())
            }
            Auth::RoleAdd { role } | Auth::RoleDelete { role } | Auth::RoleGet { role } => {
                slack(role.len())
            }
            Auth::RoleGrantPermission {
                role,
                key,
                range_end,
                ..
            }
            | Auth::RoleRevokePermission {
                role,
                key,
                range_end,
            } => slack(role.len()) + slack(key.len()) + slack(range_end.len()),
        };
        slack(size_of::<ArchivedAuth<'static>>()) + texts
    }
}
