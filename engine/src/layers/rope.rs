use std::f64::consts::TAU;

use sparkherd_checkpoint::{Rope, RopeScaling};

/// Width of the ramp where both ends meet, so that it stays a step and no division by zero; as in the reference.
const YARN_RAMP_LEAST: f64 = 0.001;

/// Angles of the rotary embedding: pair `i` of a head turns by `position · frequency[i]`.
#[derive(Clone, Debug, PartialEq)]
pub struct RotaryEmbedding {
    /// Radians per position, one for each pair of a head's elements.
    frequencies: Vec<f32>,
    /// What cosines and sines are multiplied by; 1 except for `YaRN`.
    amplitude: f64,
}

impl RotaryEmbedding {
    /// `frequency[i] = theta^(−2i / head_dim)`, stretched as the checkpoint says (see [`RopeScaling`]).
    #[expect(clippy::cast_possible_truncation, reason = "angles are f32, as in the reference implementation")]
    pub fn new(rope: &Rope, head_dim: usize) -> Self {
        let frequency = |pair: usize| {
            let plain = rope.theta.powf(-((2 * pair) as f64) / head_dim as f64);
            scaled(plain, pair, rope, head_dim) as f32
        };
        let amplitude = match rope.scaling {
            RopeScaling::Yarn { attention_factor, .. } => attention_factor,
            RopeScaling::None
            | RopeScaling::Linear { .. }
            | RopeScaling::Llama3 { .. }
            | RopeScaling::Pairs { .. } => 1.0,
        };
        Self { frequencies: (0..head_dim / 2).map(frequency).collect(), amplitude }
    }

    /// Elements of a head.
    pub fn head_dim(&self) -> usize {
        2 * self.frequencies.len()
    }

    /// The cosines, then the sines, of all pairs at a position. The angle is the f32 product that the reference
    /// implementation takes; at position 100 000 a more exact one would turn the pairs differently than in training.
    #[expect(clippy::cast_possible_truncation, reason = "cosines and sines are f32 values")]
    pub fn rotation(&self, position: u32, out: &mut [f32]) {
        let (cosines, sines) = out.split_at_mut(self.frequencies.len());
        for ((cos, sin), frequency) in cosines.iter_mut().zip(sines).zip(&self.frequencies) {
            let angle = f64::from(position as f32 * frequency);
            *cos = (angle.cos() * self.amplitude) as f32;
            *sin = (angle.sin() * self.amplitude) as f32;
        }
    }
}

fn scaled(frequency: f64, pair: usize, rope: &Rope, head_dim: usize) -> f64 {
    match rope.scaling {
        RopeScaling::None => frequency,
        RopeScaling::Linear { factor } => frequency / factor,
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position } => {
            // Whole turns that the pair made within the context of the first training.
            let turns = f64::from(original_max_position) * frequency / TAU;
            let kept = ((turns - low_freq_factor) / (high_freq_factor - low_freq_factor)).clamp(0.0, 1.0);
            (1.0 - kept) * frequency / factor + kept * frequency
        }
        RopeScaling::Pairs { ref divisors } => {
            frequency / divisors.get(pair).map_or(1.0, |divisor| f64::from(*divisor))
        }
        RopeScaling::Yarn { factor, original_max_position, beta_fast, beta_slow, truncate, .. } => {
            // The pair that makes so many turns within the context of the first training, as a fraction.
            let pair_of = |turns: f64| {
                let wavelength = f64::from(original_max_position) / (turns * TAU);
                head_dim as f64 * wavelength.ln() / (2.0 * rope.theta.ln())
            };
            let (low, high) = (pair_of(beta_fast), pair_of(beta_slow));
            let (low, high) = if truncate { (low.floor(), high.ceil()) } else { (low, high) };
            // Upper end as in the reference: the last element of a head, although pairs are only half as many.
            let (low, high) = (low.max(0.0), high.min((head_dim - 1) as f64));
            let divided = ((pair as f64 - low) / (high - low).max(YARN_RAMP_LEAST)).clamp(0.0, 1.0);
            divided * frequency / factor + (1.0 - divided) * frequency
        }
    }
}

#[cfg(test)]
mod tests {
    use sparkherd_checkpoint::{Rope, RopeScaling};

    use super::RotaryEmbedding;

    fn frequencies(theta: f64, scaling: RopeScaling) -> Vec<f32> {
        RotaryEmbedding::new(&Rope { theta, scaling }, 128).frequencies
    }

    fn close(got: f32, wanted: f64) -> bool {
        (f64::from(got) / wanted - 1.0).abs() < 1e-6
    }

    #[test]
    fn plain_frequencies_fall_from_one_by_powers_of_theta() {
        let plain = frequencies(10_000.0, RopeScaling::None);
        assert_eq!(plain.len(), 64);
        assert!(close(plain[0], 1.0) && close(plain[32], 0.01) && close(plain[16], 0.1));
    }

    #[test]
    fn linear_divides_every_frequency() {
        let plain = frequencies(10_000.0, RopeScaling::None);
        let linear = frequencies(10_000.0, RopeScaling::Linear { factor: 4.0 });
        assert!(plain.iter().zip(&linear).all(|(plain, linear)| close(*linear, f64::from(*plain) / 4.0)));
    }

    #[test]
    fn llama3_keeps_fast_pairs_divides_slow_ones_and_mixes_between() {
        let plain = frequencies(500_000.0, RopeScaling::None);
        let llama3 = frequencies(
            500_000.0,
            RopeScaling::Llama3 {
                factor: 8.0,
                low_freq_factor: 1.0,
                high_freq_factor: 4.0,
                original_max_position: 8192,
            },
        );
        let mut mixed = 0;
        for (plain, llama3) in plain.iter().map(|plain| f64::from(*plain)).zip(llama3) {
            let wavelength = std::f64::consts::TAU / plain;
            if wavelength < 8192.0 / 4.0 {
                assert!(close(llama3, plain));
            } else if wavelength > 8192.0 {
                assert!(close(llama3, plain / 8.0));
            } else {
                assert!(f64::from(llama3) > plain / 8.0 && f64::from(llama3) < plain);
                mixed += 1;
            }
        }
        assert!(mixed > 0);
    }

    /// The values of a published file: original 32768, factor 4, theta 10⁶, heads of 128.
    #[test]
    fn yarn_keeps_fast_pairs_divides_slow_ones_and_scales_the_circle() {
        let scaling = RopeScaling::Yarn {
            factor: 4.0,
            original_max_position: 32_768,
            beta_fast: 32.0,
            beta_slow: 1.0,
            attention_factor: 1.25,
            truncate: true,
        };
        let plain = frequencies(1e6, RopeScaling::None);
        let yarn = frequencies(1e6, scaling.clone());
        // 128 · ln(32768 / 64π) / (2 · ln 10⁶) = 23.6 and 128 · ln(32768 / 2π) / (2 · ln 10⁶) = 39.6
        for (pair, (plain, yarn)) in plain.iter().map(|plain| f64::from(*plain)).zip(yarn).enumerate() {
            let divided = ((pair as f64 - 23.0) / (40.0 - 23.0)).clamp(0.0, 1.0);
            assert!(close(yarn, plain * (1.0 - 0.75 * divided)), "{pair}");
        }
        let rope = RotaryEmbedding::new(&Rope { theta: 1e6, scaling }, 128);
        let mut rotation = [0.0; 128];
        rope.rotation(5, &mut rotation);
        assert!((rotation[0].hypot(rotation[64]) - 1.25).abs() < 1e-6);
    }

    #[test]
    fn a_rotation_is_cosines_then_sines() {
        let rope = RotaryEmbedding::new(&Rope { theta: 100.0, scaling: RopeScaling::None }, 4);
        let mut rotation = [0.0; 4];
        rope.rotation(3, &mut rotation);
        let wanted = [3.0_f64.cos(), 0.3_f64.cos(), 3.0_f64.sin(), 0.3_f64.sin()];
        assert!(rotation.iter().zip(wanted).all(|(got, wanted)| (f64::from(*got) - wanted).abs() < 1e-6));
    }
}
