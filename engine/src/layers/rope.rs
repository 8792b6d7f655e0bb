use std::f64::consts::TAU;

use sparkherd_checkpoint::{Rope, RopeScaling};

/// Angles of the rotary embedding: pair `i` of a head turns by `position · frequency[i]`.
#[derive(Clone, Debug, PartialEq)]
pub struct RotaryEmbedding {
    /// Radians per position, one for each pair of a head's elements.
    frequencies: Vec<f32>,
}

impl RotaryEmbedding {
    /// `frequency[i] = theta^(−2i / head_dim)`, stretched as the checkpoint says (see [`RopeScaling`]).
    #[expect(clippy::cast_possible_truncation, reason = "angles are f32, as in the reference implementation")]
    pub fn new(rope: &Rope, head_dim: usize) -> Self {
        let frequency = |pair: usize| {
            let plain = rope.theta.powf(-((2 * pair) as f64) / head_dim as f64);
            scaled(plain, &rope.scaling) as f32
        };
        Self { frequencies: (0..head_dim / 2).map(frequency).collect() }
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
            *cos = angle.cos() as f32;
            *sin = angle.sin() as f32;
        }
    }
}

fn scaled(frequency: f64, scaling: &RopeScaling) -> f64 {
    match *scaling {
        RopeScaling::None => frequency,
        RopeScaling::Linear { factor } => frequency / factor,
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position } => {
            // Whole turns that the pair made within the context of the first training.
            let turns = f64::from(original_max_position) * frequency / TAU;
            let kept = ((turns - low_freq_factor) / (high_freq_factor - low_freq_factor)).clamp(0.0, 1.0);
            (1.0 - kept) * frequency / factor + kept * frequency
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

    #[test]
    fn a_rotation_is_cosines_then_sines() {
        let rope = RotaryEmbedding::new(&Rope { theta: 100.0, scaling: RopeScaling::None }, 4);
        let mut rotation = [0.0; 4];
        rope.rotation(3, &mut rotation);
        let wanted = [3.0_f64.cos(), 0.3_f64.cos(), 3.0_f64.sin(), 0.3_f64.sin()];
        assert!(rotation.iter().zip(wanted).all(|(got, wanted)| (f64::from(*got) - wanted).abs() < 1e-6));
    }
}
