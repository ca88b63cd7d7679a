//! What one request may do.
//!
//! Always true: while authentication is off, everything may be done; the order in which reasons are given is etcd's.
//! Asked on net cores before a read and on the apply core before a write, so both give the same answer for one view.

use thiserror::Error;

use super::view::{AuthView, UserView};

/// Why not.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum Refusal {
    #[error("the request names no user")]
    UserEmpty,
    #[error("the request was checked at an older revision of users and roles")]
    OldRevision,
    #[error("permission denied")]
    Denied,
    #[error("there is no such user")]
    UserNotFound,
}

/// The rights of one request.
#[derive(Clone, Copy)]
pub struct Rights<'v>(Result<Scope<'v>, Refusal>);

#[derive(Clone, Copy)]
enum Scope<'v> {
    All,
    Of(&'v UserView),
}

impl<'v> Rights<'v> {
    /// Of a request by `user` that was checked at `revision`; revision 0 says that it named nobody.
    pub fn of(view: &'v AuthView, user: &str, revision: u64) -> Rights<'v> {
        Rights(if !view.is_enabled {
            Ok(Scope::All)
        } else if revision == 0 {
            Err(Refusal::UserEmpty)
        } else if revision < view.revision {
            Err(Refusal::OldRevision)
        } else {
            match view.user(user) {
                None => Err(Refusal::Denied),
                Some(user) if user.is_root => Ok(Scope::All),
                Some(user) => Ok(Scope::Of(user)),
            }
        })
    }

    /// Every key of the interval may be read. Ends as in requests: empty for one key, one zero byte for none.
    pub fn may_read(&self, key: &[u8], range_end: &[u8]) -> Result<(), Refusal> {
        match self.0? {
            Scope::All => Ok(()),
            Scope::Of(user) => granted(user.reads.covers(key, range_end)),
        }
    }

    /// Every key of the interval may be written.
    pub fn may_write(&self, key: &[u8], range_end: &[u8]) -> Result<(), Refusal> {
        match self.0? {
            Scope::All => Ok(()),
            Scope::Of(user) => granted(user.writes.covers(key, range_end)),
        }
    }
}

fn granted(is_granted: bool) -> Result<(), Refusal> {
    match is_granted {
        true => Ok(()),
        false => Err(Refusal::Denied),
    }
}

impl AuthView {
    /// The user has the root role. As in etcd, at whatever revision the request was checked.
    pub fn check_root(&self, user: &str) -> Result<(), Refusal> {
        if !self.is_enabled {
            return Ok(());
        }
        if user.is_empty() {
            return Err(Refusal::UserEmpty);
        }
        let user = self.user(user).ok_or(Refusal::UserNotFound)?;
        granted(user.is_root)
    }
}
