//! Q6_K: 128 bytes of low four bits, 64 bytes of upper two bits, sixteen i8 scales, `d`.
//!
//! Element `i` is `d · scale[i / 16] · (q[i] − 32)`. In each half of 128 elements, element `32 a + b` has its low bits in
//! byte `32 (a mod 2) + b` of the half's 64, the low half of it where `a < 2`; its upper bits are bits `2 a` and `2 a + 1`
//! of byte `b` of the half's 32.

use super::{Q6_K_BYTES, widen};

pub(super) fn element(block: &[u8; Q6_K_BYTES], index: usize) -> f32 {
    let (half, a, b) = (index / 128, index % 128 / 32, index % 32);
    let low = block[64 * half + 32 * (a % 2) + b] >> (4 * (a / 2)) & 15;
    let upper = block[128 + 32 * half + b] >> (2 * a) & 3;
    let scale = block[192 + index / 16].cast_signed();
    widen(block, 208) * f32::from(scale) * (f32::from(low | upper << 4) - 32.0)
}
