//! Users, roles, and what each user may do.
//!
//! [`AuthStore`] is part of the replicated state: it changes by log entries alone, and what it says is in the buckets
//! `auth`, `authUsers` and `authRoles` of the tree file in etcd's encoding ([`record`]). Every change makes a new
//! [`AuthView`], which is immutable and holds all that a request asks: each user's password hash, roles and key
//! intervals. [`Rights`] answers those questions for one request.
//!
//! Always true here: nothing hashes a password, makes a token or reads a clock; the same entries give the same store on
//! every member. The store belongs to the apply core; views are shared. Deliberately absent: requests, tokens,
//! certificates.

mod intervals;
mod record;
mod rights;
mod store;
mod view;

pub use intervals::IntervalSet;
pub use record::{Access, PermissionRecord, RoleRecord, UserRecord};
pub use rights::{Refusal, Rights};
pub use store::{AuthChange, AuthError, AuthLoadError, AuthStore};
pub use view::{AuthView, UserView};

/// The user that must exist, with the role of the same name, before authentication is turned on.
pub const ROOT_USER: &str = "root";
/// The role that may do everything.
pub const ROOT_ROLE: &str = "root";
