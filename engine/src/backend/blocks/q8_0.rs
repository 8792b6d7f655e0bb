//! Q8_0: `d`, then 32 × i8; element `i` is `d · q[i]`.

use half::f16;

use super::{BLOCK_ELEMENTS, Q8_0_BYTES, widen};

/// Rounds a block: `d = largest |value| / 127`, `q = value / d` to the nearest, halves away from zero.
#[expect(clippy::cast_possible_truncation, reason = "at most 127 by construction")]
pub fn quantize_q8_0(values: &[f32; BLOCK_ELEMENTS]) -> [u8; Q8_0_BYTES] {
    let largest = values.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    let step = largest / 127.0;
    let inverse = if step > 0.0 { 1.0 / step } else { 0.0 };
    let mut block = [0; Q8_0_BYTES];
    block[..2].copy_from_slice(&f16::from_f32(step).to_le_bytes());
    for (byte, value) in block[2..].iter_mut().zip(values) {
        *byte = ((value * inverse).round() as i8).cast_unsigned();
    }
    block
}

pub(super) fn element(block: &[u8; Q8_0_BYTES], index: usize) -> f32 {
    widen(block, 0) * f32::from(block[2 + index].cast_signed())
}
