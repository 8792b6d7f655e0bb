//! Q4_K: `d`, `m`, 12 bytes of eight scales and eight minima of six bits, 128 bytes of four-bit numbers.
//!
//! Element `i` of sub-block `s = i / 32` is `d · scale[s] · q[i] − m · minimum[s]`. Bytes `32 c ..` of the numbers hold
//! sub-block `2 c` in their low halves and `2 c + 1` in their high ones.

use super::{Q4_K_BYTES, SUPER_BLOCK_ELEMENTS, widen};

/// Scale and minimum of a sub-block, 0 to 63 each. Of the first four they are the low six bits of bytes `s` and `s + 4`;
/// of the last four the low four bits are in byte `s + 4` and the upper two at the top of bytes `s − 4` and `s`.
pub fn q4_k_scale_and_minimum(scales: &[u8; 12], sub_block: usize) -> (u8, u8) {
    let s = sub_block;
    if s < 4 {
        (scales[s] & 63, scales[s + 4] & 63)
    } else {
        ((scales[s + 4] & 15) | scales[s - 4] >> 6 << 4, scales[s + 4] >> 4 | scales[s] >> 6 << 4)
    }
}

pub(super) fn element(block: &[u8; Q4_K_BYTES], index: usize) -> f32 {
    let sub_block = index / 32;
    let mut scales = [0; 12];
    scales.copy_from_slice(&block[4..16]);
    let (scale, minimum) = q4_k_scale_and_minimum(&scales, sub_block);
    let byte = block[16 + sub_block / 2 * 32 + index % 32];
    let quant = if sub_block.is_multiple_of(2) { byte & 15 } else { byte >> 4 };
    widen(block, 0) * f32::from(scale) * f32::from(quant) - widen(block, 2) * f32::from(minimum)
}

/// All elements, each with the bits that [`element`] gives.
pub(super) fn widen_block(block: &[u8; Q4_K_BYTES], values: &mut [f32; SUPER_BLOCK_ELEMENTS]) {
    let mut scales = [0; 12];
    scales.copy_from_slice(&block[4..16]);
    let (d, m) = (widen(block, 0), widen(block, 2));
    let pairs = values.as_chunks_mut::<64>().0.iter_mut().zip(block[16..].as_chunks::<32>().0);
    for (pair, (values, bytes)) in pairs.enumerate() {
        let (low, high) = values.split_at_mut(32);
        for (half, values) in [low, high].into_iter().enumerate() {
            let (scale, minimum) = q4_k_scale_and_minimum(&scales, 2 * pair + half);
            let (scale, minimum) = (d * f32::from(scale), m * f32::from(minimum));
            for (value, byte) in values.iter_mut().zip(bytes) {
                *value = scale * f32::from(byte >> (4 * half) & 15) - minimum;
            }
        }
    }
}
