//! Repeatable choices: the SplitMix64 generator. The same seed gives the same choices on every machine.
//!
//! Not for secrets, and not shared between threads: each user makes its own from a printed seed.

/// A generator with 64 bits of state.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    pub fn new(seed: u64) -> Random {
        Random { state: seed }
    }

    pub fn word(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// A number in `0..bound`. The bias for bounds far below 2^64 does not matter to a test.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(0 < bound, "an empty interval has no member");
        self.word() % bound
    }

    /// True in `part` of `whole` cases.
    pub fn chance(&mut self, part: u64, whole: u64) -> bool {
        self.below(whole) < part
    }

    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len() as u64) as usize]
    }
}
