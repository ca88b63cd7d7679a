//! The log line of a TLS handshake that came to nothing, as etcd words it, but thinned.
//!
//! A client with the wrong certificate tries again and again, and so does a scanner; each core logs
//! [`LINES`] of them and the next line says how many it did not. Always true here: nothing is decided;
//! what is not logged is still counted by reason.

use std::net::SocketAddr;

use wire::h2::budget::{Budget, Rate};

/// Lines at once, and how many more each second.
const LINES: Rate = Rate {
    burst: 10,
    per_second: 1,
};

/// A handshake that failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rejection {
    /// The name the client asked for; empty if it did not say.
    pub server_name: String,
    pub error: String,
    /// The client left without a word, as port checks do: not worth a warning.
    pub is_eof: bool,
}

pub struct Rejections {
    budget: Budget,
    suppressed: u64,
}

impl Rejections {
    pub fn new(now_ns: u64) -> Rejections {
        Rejections {
            budget: Budget::new(LINES, now_ns),
            suppressed: 0,
        }
    }

    pub fn log(&mut self, now_ns: u64, peer: Option<SocketAddr>, rejection: &Rejection) {
        let peer = peer.map_or_else(String::new, |peer| peer.to_string());
        if rejection.is_eof {
            tracing::debug!(
                "remote-addr" = peer,
                "server-name" = rejection.server_name,
                error = rejection.error,
                "rejected connection on client endpoint"
            );
        } else if let Some(suppressed) = self.admit(now_ns) {
            // How many were left out is told only where some were: the line is etcd's otherwise.
            let suppressed = (suppressed > 0).then_some(suppressed);
            tracing::warn!(
                "remote-addr" = peer,
                "server-name" = rejection.server_name,
                error = rejection.error,
                suppressed,
                "rejected connection on client endpoint"
            );
        }
    }

    /// Whether to write a line now; says how many were left out since the last one.
    fn admit(&mut self, now_ns: u64) -> Option<u64> {
        if self.budget.take(LINES, now_ns) {
            Some(std::mem::take(&mut self.suppressed))
        } else {
            self.suppressed += 1;
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_thinned_and_the_rest_is_told() {
        const SECOND: u64 = 1_000_000_000;
        let mut rejections = Rejections::new(0);
        let told: Vec<Option<u64>> = (0..100).map(|_| rejections.admit(0)).collect();
        assert!(told[..10].iter().all(|told| *told == Some(0)));
        assert!(told[10..].iter().all(Option::is_none));
        assert_eq!(rejections.admit(SECOND / 2), None);
        assert_eq!(rejections.admit(SECOND), Some(91));
        assert_eq!(rejections.admit(SECOND), None);
        assert_eq!(rejections.admit(10 * SECOND), Some(1));
        assert_eq!(rejections.admit(10 * SECOND), Some(0));
    }
}
