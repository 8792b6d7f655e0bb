//! Q4_0: `d`, then 16 bytes; byte `j` holds `q[j]` in its low half and `q[j + 16]` in its high one; element `i` is
//! `d · (q[i] − 8)`.

use half::f16;

use super::{BLOCK_ELEMENTS, Q4_0_BYTES, widen};

const HALF: usize = BLOCK_ELEMENTS / 2;

/// Rounds a block: the value of largest size becomes −8 exactly, so `d = value / −8` and `q = value / d + 8.5` rounded
/// down, at most 15.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 15 by construction")]
pub fn quantize_q4_0(values: &[f32; BLOCK_ELEMENTS]) -> [u8; Q4_0_BYTES] {
    let largest = values
        .iter()
        .fold(0.0_f32, |largest, value| if value.abs() > largest.abs() { *value } else { largest });
    let step = largest / -8.0;
    let inverse = if step == 0.0 { 0.0 } else { 1.0 / step };
    let quant = |value: f32| (value * inverse + 8.5).min(15.0) as u8;
    let mut block = [0; Q4_0_BYTES];
    block[..2].copy_from_slice(&f16::from_f32(step).to_le_bytes());
    for (index, byte) in block[2..].iter_mut().enumerate() {
        *byte = quant(values[index]) | quant(values[index + HALF]) << 4;
    }
    block
}

pub(super) fn element(block: &[u8; Q4_0_BYTES], index: usize) -> f32 {
    let byte = block[2 + index % HALF];
    let quant = if index < HALF { byte & 15 } else { byte >> 4 };
    widen(block, 0) * (f32::from(quant) - 8.0)
}
