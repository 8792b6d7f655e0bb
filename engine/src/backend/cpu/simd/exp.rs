//! `e^x` in plain multiplications and additions, so that it has the same bits on every processor and vectorises.

/// Below this the result is no longer a normal f32; above its negative it would overflow.
const LIMIT: f32 = 87.0;
/// ln 2 in two parts: the first has so few bits that its product with any exponent is exact (Cody and Waite).
const LN_2_HIGH: f32 = 0.693_359_4;
const LN_2_LOW: f32 = -2.121_944_4e-4;
/// 1.5 · 2²³: adding it to a small number rounds that to an integer, which is then in the low bits.
const ROUND: f32 = 12_582_912.0;

/// `e^x`, within 2 ulp; `x` is first clamped to ±87.
#[expect(clippy::inline_always, reason = "must be compiled for the caller's instructions")]
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    let x = x.clamp(-LIMIT, LIMIT);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let exponent = shifted - ROUND;
    let rest = (x - exponent * LN_2_HIGH) - exponent * LN_2_LOW;
    // Taylor series to the seventh power: |rest| ≤ ln(2) / 2, so what is left out is below 6e-9 of the result.
    let mut series = 1.0 / 5040.0;
    for coefficient in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        series = series * rest + coefficient;
    }
    // The integer sits in the low bits of `shifted`; moved up by 23 it is the exponent field's increment.
    let scale = f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0_f32.to_bits()));
    series * scale
}

#[cfg(test)]
mod tests {
    use super::exp;

    #[test]
    fn matches_the_double_precision_exponential() {
        let mut worst = 0.0_f64;
        for step in -8700..=8700_i16 {
            let x = f32::from(step) / 100.0;
            let truth = f64::from(x).exp();
            worst = worst.max((f64::from(exp(x)) / truth - 1.0).abs());
        }
        assert!(worst < 2.5e-7, "relative error {worst:e}");
    }

    #[test]
    fn zero_is_exactly_one_and_far_below_is_negligible() {
        assert_eq!(exp(0.0).to_bits(), 1.0_f32.to_bits());
        assert!(exp(f32::NEG_INFINITY) < 1e-37);
    }
}
