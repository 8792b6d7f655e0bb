/// A uniform number in [0, 1) for one position of one seed, without state between positions.
///
/// The generator is counter-based: splitmix64's output function (Steele, Lea and Flood, "Fast splittable pseudorandom
/// number generators", 2014) over `seed` mixed once and advanced by `position` steps of the golden gamma. Mixing the seed
/// first keeps neighbouring seeds from being shifted copies of one stream.
pub fn uniform(seed: u64, position: u64) -> f64 {
    const GOLDEN_GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;
    const DOUBLE_BITS: u32 = 53;
    let state = mix(seed).wrapping_add(position.wrapping_add(1).wrapping_mul(GOLDEN_GAMMA));
    (mix(state) >> (u64::BITS - DOUBLE_BITS)) as f64 / (1_u64 << DOUBLE_BITS) as f64
}

/// The 64-bit finaliser of splitmix64 (Stafford's variant 13): a bijection.
fn mix(state: u64) -> u64 {
    let state = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    state ^ (state >> 31)
}
