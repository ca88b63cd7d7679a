//! What the host allows this process: open files, and how many of them clients may have.
//!
//! Always true here: the soft limit is raised to the hard one before anything is opened, as the Go runtime does for etcd,
//! so what an operator sets is the hard limit. A limit that cannot carry the member is refused with the number that can;
//! no core starts that would run out of descriptors in the middle of its own start.
//!
//! Called once, on the main thread, before the first socket. Counts nothing while the member runs: the net cores keep to
//! the number of connections they are given.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use thiserror::Error;

/// A connection reads and sends through one descriptor.
pub const DESCRIPTORS_PER_CONNECTION: u64 = 1;
/// With room for fewer connections than this a start is refused.
pub const CONNECTIONS_MIN: u64 = 32;
/// With room for fewer the log warns: a default limit of 1024 was probably never looked at.
const CONNECTIONS_RECOMMENDED_MIN: u64 = 1024;

/// Standard streams, log outputs, tree file, log segments and their ring, and files that are open for a moment (certificates,
/// `/proc`, a segment being prepared).
const FIXED: u64 = 40;
/// What one core waits through, and its doorbell.
const PER_CORE: u64 = 4;

/// Why the limit cannot carry the member.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum LimitError {
    #[error(
        "this process may open {limit} files, and needs at least {needed}: {own} of its own on {cores} cores, the others for clients; \
         raise the hard limit (`ulimit -Hn`, LimitNOFILE= in a systemd unit, --ulimit nofile= for a container) or use fewer cores (--cores)"
    )]
    TooFewDescriptors {
        limit: u64,
        needed: u64,
        own: u64,
        cores: usize,
    },
}

/// How many files the process may have open, and what they are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptors {
    /// `u64::MAX` where there is no limit.
    pub limit: u64,
    /// At most this many are the member's own.
    pub own: u64,
}

/// Raises the soft limit of open files to the hard one, and divides what there is between the member and its clients.
///
/// # Errors
/// Fewer than the member needs with [`CONNECTIONS_MIN`] connections.
pub fn descriptors(cores: usize, listeners: usize) -> Result<Descriptors, LimitError> {
    let descriptors = divide(raise(), cores, listeners)?;
    let connections = descriptors.connections();
    if connections < CONNECTIONS_RECOMMENDED_MIN {
        tracing::warn!(
            limit = descriptors.limit,
            connections,
            "the limit of open files leaves room for few connections; raise it (LimitNOFILE=, ulimit -Hn)"
        );
    }
    Ok(descriptors)
}

/// The limit that holds after the soft one was raised.
fn raise() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return current.unwrap_or(u64::MAX);
    }
    let wanted = Rlimit {
        current: maximum,
        maximum,
    };
    match setrlimit(Resource::Nofile, wanted) {
        Ok(()) => {
            tracing::debug!(from = ?current, to = ?maximum, "raised the limit of open files");
            maximum.unwrap_or(u64::MAX)
        }
        Err(error) => {
            tracing::warn!(error = %error, "the soft limit of open files cannot be raised to the hard one");
            current.unwrap_or(u64::MAX)
        }
    }
}

fn divide(limit: u64, cores: usize, listeners: usize) -> Result<Descriptors, LimitError> {
    let own = FIXED + PER_CORE * cores as u64 + listeners as u64;
    let needed = own + CONNECTIONS_MIN * DESCRIPTORS_PER_CONNECTION;
    if limit < needed {
        return Err(LimitError::TooFewDescriptors {
            limit,
            needed,
            own,
            cores,
        });
    }
    Ok(Descriptors { limit, own })
}

impl Descriptors {
    /// Connections that all net cores together may have open.
    pub fn connections(&self) -> u64 {
        (self.limit - self.own) / DESCRIPTORS_PER_CONNECTION
    }

    /// Connections that each of `nets` net cores may have open, at most `bound`.
    pub fn connections_per_core(&self, nets: usize, bound: usize) -> usize {
        let share = self.connections() / nets.max(1) as u64;
        usize::try_from(share).unwrap_or(usize::MAX).clamp(1, bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_divided_or_refused_with_the_number_that_would_do() {
        let refused = divide(20, 2, 3).expect_err("20 are too few");
        let LimitError::TooFewDescriptors { needed, own, .. } = refused;
        assert_eq!(
            divide(needed - 1, 2, 3),
            Err(LimitError::TooFewDescriptors {
                limit: needed - 1,
                needed,
                own,
                cores: 2,
            })
        );
        let least = divide(needed, 2, 3).expect("that many do");
        assert_eq!(least.connections(), CONNECTIONS_MIN);
        assert_eq!(
            least.connections_per_core(2, 1000),
            CONNECTIONS_MIN as usize / 2
        );
        let text = refused_text(20);
        assert!(
            text.contains(&needed.to_string()) && text.contains("LimitNOFILE"),
            "{text}"
        );
    }

    #[test]
    fn no_limit_leaves_each_core_its_own_bound() {
        let endless = divide(u64::MAX, 1, 1).expect("endless");
        assert_eq!(endless.connections_per_core(1, 65_536), 65_536);
    }

    fn refused_text(limit: u64) -> String {
        divide(limit, 2, 3).expect_err("too few").to_string()
    }
}
