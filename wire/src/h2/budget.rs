//! How often a peer may do what costs us more than it costs the peer.
//!
//! A budget is a bucket of tokens. It is refilled only when it is empty, so an event that is within
//! its budget costs one subtraction and reads no clock.

/// A number of events allowed at once, and how many come back each second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    pub burst: u32,
    pub per_second: u32,
}

#[derive(Debug, Clone, Copy)]
pub struct Budget {
    tokens: u32,
    refilled_ns: u64,
}

const SECOND_NS: u128 = 1_000_000_000;

impl Budget {
    pub fn new(rate: Rate, now_ns: u64) -> Self {
        Self {
            tokens: rate.burst,
            refilled_ns: now_ns,
        }
    }

    /// Takes one token. False if there is none.
    #[inline]
    pub fn take(&mut self, rate: Rate, now_ns: u64) -> bool {
        if self.tokens == 0 {
            self.refill(rate, now_ns);
        }
        match self.tokens.checked_sub(1) {
            Some(tokens) => {
                self.tokens = tokens;
                true
            }
            None => false,
        }
    }

    /// Gives tokens for something that explains events to come; never above the burst.
    #[inline]
    pub fn earn(&mut self, rate: Rate, tokens: u32) {
        self.tokens = self.tokens.saturating_add(tokens).min(rate.burst);
    }

    #[cold]
    fn refill(&mut self, rate: Rate, now_ns: u64) {
        let elapsed_ns = u128::from(now_ns.saturating_sub(self.refilled_ns));
        let earned = elapsed_ns * u128::from(rate.per_second) / SECOND_NS;
        if earned > 0 {
            self.tokens = earned.min(u128::from(rate.burst)) as u32;
            self.refilled_ns = now_ns;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn burst_then_rate() {
        let rate = Rate {
            burst: 3,
            per_second: 2,
        };
        let mut budget = Budget::new(rate, 0);
        assert!((0..3).all(|_| budget.take(rate, 0)));
        assert!(!budget.take(rate, 499_999_999));
        assert!(budget.take(rate, 500_000_000));
        assert!(!budget.take(rate, 500_000_000));
        assert!(
            (0..3).all(|_| budget.take(rate, 60_000_000_000)),
            "no more than the burst comes back"
        );
        assert!(!budget.take(rate, 60_000_000_000));
        budget.earn(rate, 100);
        assert!((0..3).all(|_| budget.take(rate, 60_000_000_000)));
        assert!(!budget.take(rate, 60_000_000_000));
    }
}
