//! One state of users and roles, as every core reads it.
//!
//! Always true: a view never changes; the next one shares with it every user that is as before.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::intervals::IntervalSet;

/// What a request asks of a user.
#[derive(PartialEq, Eq)]
pub struct UserView {
    /// The bcrypt hash.
    pub password: Box<[u8]>,
    pub is_without_password: bool,
    /// Has the role that may do everything.
    pub is_root: bool,
    pub reads: IntervalSet,
    pub writes: IntervalSet,
}

#[derive(Clone, Default)]
pub struct AuthView {
    pub is_enabled: bool,
    /// Counts the changes; 1 in a store that nobody has changed.
    pub revision: u64,
    pub(super) users: FxHashMap<Box<str>, Arc<UserView>>,
}

impl AuthView {
    pub fn user(&self, name: &str) -> Option<&Arc<UserView>> {
        self.users.get(name)
    }
}
