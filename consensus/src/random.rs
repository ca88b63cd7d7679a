//! A seeded generator for election timeouts (SplitMix64).
//!
//! Always true: the same seed gives the same numbers on every machine. Not for secrets.

#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `0 .. bound`.
    pub(crate) fn below(&mut self, bound: u32) -> u32 {
        assert!(bound > 0, "no number is below zero");
        ((u64::from(bound) * (self.next() >> 32)) >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first numbers of the published generator (Steele, Lea, Flood 2014) for this seed.
    #[test]
    fn numbers_are_those_of_splitmix64() {
        let mut random = Random::new(1234567);
        let expected = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
        ];
        assert_eq!(expected.map(|_| random.next()), expected);
    }

    #[test]
    fn every_number_below_a_bound_comes_up() {
        let mut random = Random::new(7);
        let mut seen = [0; 5];
        (0..500).for_each(|_| seen[random.below(5) as usize] += 1);
        assert!(seen.iter().all(|times| *times > 60), "{seen:?}");
    }
}
