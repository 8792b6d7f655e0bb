/// `SplitMix64` (Steele, Lea, Flood 2014): small, seeded, and far better than a load generator needs.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Above 0 and at most 1, so that its logarithm is finite.
    pub(super) fn unit(&mut self) -> f64 {
        /// Bits of an `f64`'s fraction, the implied one included.
        const BITS: u32 = 53;
        ((self.next() >> (u64::BITS - BITS)) + 1) as f64 / (1_u64 << BITS) as f64
    }

    /// Below `bound`, which is not 0. The bias of the remainder is 2⁻⁵⁰ for the bounds here.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_published_sequence() {
        // The first outputs for seed 0, as other implementations print them.
        let mut random = Random::new(0);
        assert_eq!([random.next(), random.next()], [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4]);
    }

    #[test]
    fn units_are_never_zero() {
        let mut random = Random::new(7);
        assert!((0..10_000).map(|_| random.unit()).all(|unit| unit > 0.0 && unit <= 1.0));
    }
}
