//! Block formats: elements of one row that share a scale, byte for byte as ggml lays them out (the table is at
//! [`sparkherd_checkpoint::Dtype`]). All numbers are little-endian, `d` and `m` are f16.

mod q4_0;
mod q4_k;
mod q6_k;
mod q8_0;

use half::f16;
use sparkherd_checkpoint::Dtype;

/// Elements that share a scale in Q8_0 and Q4_0, and in the activations that the CPU rounds to 8 bits.
pub const BLOCK_ELEMENTS: usize = 32;
/// Elements of a block of Q4_K and Q6_K.
pub const SUPER_BLOCK_ELEMENTS: usize = 256;
pub const Q8_0_BYTES: usize = 34;
pub const Q4_0_BYTES: usize = 18;
pub const Q4_K_BYTES: usize = 144;
pub const Q6_K_BYTES: usize = 210;

pub use q4_0::quantize_q4_0;
pub use q4_k::q4_k_scale_and_minimum;
pub use q8_0::quantize_q8_0;

/// The value of element `index` of a row-major matrix whose rows are whole blocks of `dtype`.
///
/// `dtype` is a block format; of the others the value is 0.
pub(super) fn element(dtype: Dtype, bytes: &[u8], index: usize) -> f32 {
    fn block<const N: usize>(bytes: &[u8], index: usize, elements: usize) -> (&[u8; N], usize) {
        (&bytes.as_chunks::<N>().0[index / elements], index % elements)
    }
    match dtype {
        Dtype::Q8_0 => {
            let (block, index) = block(bytes, index, BLOCK_ELEMENTS);
            q8_0::element(block, index)
        }
        Dtype::Q4_0 => {
            let (block, index) = block(bytes, index, BLOCK_ELEMENTS);
            q4_0::element(block, index)
        }
        Dtype::Q4K => {
            let (block, index) = block(bytes, index, SUPER_BLOCK_ELEMENTS);
            q4_k::element(block, index)
        }
        Dtype::Q6K => {
            let (block, index) = block(bytes, index, SUPER_BLOCK_ELEMENTS);
            q6_k::element(block, index)
        }
        Dtype::F32 | Dtype::F16 | Dtype::Bf16 => 0.0,
    }
}

/// All values of block `block` of a run of blocks; `dtype` is Q4_K or Q6_K, of the others nothing is written.
pub(super) fn widen_super_block(
    dtype: Dtype,
    bytes: &[u8],
    block: usize,
    values: &mut [f32; SUPER_BLOCK_ELEMENTS],
) {
    match dtype {
        Dtype::Q4K => q4_k::widen_block(&bytes.as_chunks().0[block], values),
        Dtype::Q6K => q6_k::widen_block(&bytes.as_chunks().0[block], values),
        Dtype::F32 | Dtype::F16 | Dtype::Bf16 | Dtype::Q8_0 | Dtype::Q4_0 => {}
    }
}

fn widen(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

#[cfg(test)]
mod tests {
    use sparkherd_checkpoint::Dtype;

    use super::{
        Q4_0_BYTES, Q4_K_BYTES, Q6_K_BYTES, Q8_0_BYTES, SUPER_BLOCK_ELEMENTS, element, quantize_q4_0,
        quantize_q8_0, widen_super_block,
    };

    #[test]
    fn block_sizes_are_those_of_the_formats() {
        let bytes = [Dtype::Q8_0, Dtype::Q4_0, Dtype::Q4K, Dtype::Q6K].map(Dtype::block_bytes);
        assert_eq!(bytes, [Q8_0_BYTES, Q4_0_BYTES, Q4_K_BYTES, Q6_K_BYTES].map(|bytes| bytes as u64));
    }

    #[test]
    fn rounding_to_eight_bits_is_within_half_a_step_and_keeps_the_largest() {
        let values: [f32; 32] = std::array::from_fn(|index| ((index * 37 % 64) as f32 - 31.5) / 8.0);
        let block = quantize_q8_0(&values);
        let step = 31.5 / 8.0 / 127.0;
        for (index, value) in values.iter().enumerate() {
            let error = (element(Dtype::Q8_0, &block, index) - value).abs();
            assert!(error <= step * 0.501 + 2e-3, "element {index} is off by {error}");
        }
        assert_eq!(quantize_q8_0(&[0.0; 32]), [0; 34]);
    }

    #[test]
    fn rounding_to_four_bits_keeps_the_value_of_largest_size_at_its_end_of_the_range() {
        let mut values: [f32; 32] = std::array::from_fn(|index| index as f32 / 16.0 - 1.0);
        values[5] = 4.0;
        let block = quantize_q4_0(&values);
        assert_eq!(element(Dtype::Q4_0, &block, 5).to_bits(), 4.0_f32.to_bits());
        for (index, value) in values.iter().enumerate() {
            assert!((element(Dtype::Q4_0, &block, index) - value).abs() <= 0.25);
        }
    }

    #[test]
    fn whole_blocks_have_the_bits_of_their_elements() {
        let mut byte = 0_u8;
        let bytes = [0_u8; 2 * Q6_K_BYTES].map(|_| {
            byte = byte.wrapping_mul(29).wrapping_add(151);
            byte
        });
        let mut values = [0.0; SUPER_BLOCK_ELEMENTS];
        for dtype in [Dtype::Q4K, Dtype::Q6K] {
            widen_super_block(dtype, &bytes, 1, &mut values);
            let wanted: Vec<u32> = (256..512).map(|index| element(dtype, &bytes, index).to_bits()).collect();
            assert_eq!(values.map(f32::to_bits).to_vec(), wanted, "{}", dtype.name());
        }
    }

    /// Blocks whose every field is distinct, against values worked out by hand from the table.
    #[test]
    fn super_blocks_find_their_scales_and_bits() {
        let mut q4_k = [0_u8; Q4_K_BYTES];
        q4_k[1] = 0x3c; // d = 1
        q4_k[3] = 0x40; // m = 2
        for (at, byte) in q4_k[4..16].iter_mut().enumerate() {
            *byte = [0x41, 0x82, 0xc3, 0x04, 0x45, 0x86, 0xc7, 0x08, 0x21, 0x43, 0x65, 0x87][at];
        }
        q4_k[16 + 3] = 0x5a; // elements 3 and 35
        q4_k[16 + 64 + 1] = 0x9c; // elements 129 and 161
        let at = |index| element(Dtype::Q4K, &q4_k, index);
        // Sub-block 0: scale 0x41 & 63 = 1, minimum 0x45 & 63 = 5. Sub-block 1: scale 2, minimum 6.
        assert_eq!([at(3), at(35)].map(f32::to_bits), [10.0 - 10.0, 2.0 * 5.0 - 12.0].map(f32::to_bits));
        // Sub-block 4: scale 1 | (0x41 >> 6) << 4 = 17, minimum 2 | (0x45 >> 6) << 4 = 18.
        // Sub-block 5: scale 3 | (0x82 >> 6) << 4 = 35, minimum 4 | (0x86 >> 6) << 4 = 36.
        assert_eq!(
            [at(129), at(161)].map(f32::to_bits),
            [17.0 * 12.0 - 36.0, 35.0 * 9.0 - 72.0].map(f32::to_bits)
        );
        let mut q6_k = [0_u8; Q6_K_BYTES];
        q6_k[209] = 0x3c; // d = 1
        q6_k[192..208].copy_from_slice(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0xff]);
        q6_k[17] = 0xb4; // elements 17 and 81
        q6_k[128 + 17] = 0b1101_1001; // upper bits of elements 17, 49, 81, 113
        let at = |index| element(Dtype::Q6K, &q6_k, index);
        assert_eq!(
            [at(17), at(49)].map(f32::to_bits),
            [2.0 * (20.0 - 32.0), 4.0 * (32.0 - 32.0)].map(f32::to_bits)
        );
        assert_eq!(
            [at(81), at(113)].map(f32::to_bits),
            [6.0 * (27.0 - 32.0), 8.0 * (48.0 - 32.0)].map(f32::to_bits)
        );
        assert_eq!(at(255).to_bits(), 32.0_f32.to_bits());
    }
}
