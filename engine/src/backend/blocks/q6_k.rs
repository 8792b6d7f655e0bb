//! Q6_K: 128 bytes of low four bits, 64 bytes of upper two bits, sixteen i8 scales, `d`.
//!
//! Element `i` is `d · scale[i / 16] · (q[i] − 32)`. In each half of 128 elements, element `32 a + b` has its low bits in
//! byte `32 (a mod 2) + b` of the half's 64, the low half of it where `a < 2`; its upper bits are bits `2 a` and `2 a + 1`
//! of byte `b` of the half's 32.

use super::{Q6_K_BYTES, SUPER_BLOCK_ELEMENTS, widen};

pub(super) fn element(block: &[u8; Q6_K_BYTES], index: usize) -> f32 {
    let (half, a, b) = (index / 128, index % 128 / 32, index % 32);
    let low = block[64 * half + 32 * (a % 2) + b] >> (4 * (a / 2)) & 15;
    let upper = block[128 + 32 * half + b] >> (2 * a) & 3;
    let scale = block[192 + index / 16].cast_signed();
    widen(block, 208) * f32::from(scale) * (f32::from(low | upper << 4) - 32.0)
}

/// All elements, each with the bits that [`element`] gives.
pub(super) fn widen_block(block: &[u8; Q6_K_BYTES], values: &mut [f32; SUPER_BLOCK_ELEMENTS]) {
    let d = widen(block, 208);
    for (part, values) in values.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let (half, a, b) = (part / 8, part % 8 / 2, part % 2 * 16);
        let low = &block[64 * half + 32 * (a % 2) + b..][..16];
        let upper = &block[128 + 32 * half + b..][..16];
        let scale = d * f32::from(block[192 + part].cast_signed());
        for ((value, low), upper) in values.iter_mut().zip(low).zip(upper) {
            let number = low >> (4 * (a / 2)) & 15 | (upper >> (2 * a) & 3) << 4;
            *value = scale * (f32::from(number) - 32.0);
        }
    }
}
