//! Weights of a case: seeded numbers in any format.

use half::{bf16, f16};
use sparkherd_checkpoint::Dtype;

use super::{CaseError, Random};
use crate::backend::{BackendError, Weight, arena::Arena};

/// Of these types, rows and columns, one after the other.
pub(super) fn seeded(
    wanted: &[(Dtype, usize, usize)],
    random: &mut Random,
) -> Result<(Arena, Vec<Weight>), CaseError> {
    let mut weights = Vec::new();
    let mut offset_bytes = 0;
    for (dtype, rows, columns) in wanted {
        weights.push(Weight { offset_bytes, dtype: *dtype, rows: *rows, columns: *columns });
        let row_bytes = dtype.row_bytes(*columns as u64);
        let row_bytes = row_bytes.map_err(|source| BackendError::Row { operation: "case", source })?;
        offset_bytes += (rows * row_bytes as usize).next_multiple_of(256);
    }
    let mut arena = Arena::map(offset_bytes)?;
    for weight in &weights {
        store(&mut arena, *weight, &random.values(weight.rows * weight.columns));
    }
    Ok((arena, weights))
}

fn store(arena: &mut Arena, weight: Weight, values: &[f32]) {
    let range = |bytes: usize| weight.offset_bytes / bytes..weight.offset_bytes / bytes + values.len();
    match weight.dtype {
        Dtype::F32 => arena.as_mut_slice::<f32>()[range(4)].copy_from_slice(values),
        Dtype::F16 => {
            for (to, value) in arena.as_mut_slice::<f16>()[range(2)].iter_mut().zip(values) {
                *to = f16::from_f32(*value);
            }
        }
        Dtype::Bf16 => {
            for (to, value) in arena.as_mut_slice::<bf16>()[range(2)].iter_mut().zip(values) {
                *to = bf16::from_f32(*value);
            }
        }
        Dtype::Q8_0 | Dtype::Q4_0 | Dtype::Q4K | Dtype::Q6K => store_blocks(arena, weight, values),
    }
}

/// Any bytes are valid numbers of a block format; only its f16 scales are given sensible values.
fn store_blocks(arena: &mut Arena, weight: Weight, values: &[f32]) {
    let (elements, bytes) = (weight.dtype.block_elements() as usize, weight.dtype.block_bytes() as usize);
    let blocks = arena.as_mut_slice::<u8>()[weight.offset_bytes..].chunks_exact_mut(bytes);
    for (block, values) in blocks.zip(values.chunks_exact(elements)) {
        for (byte, value) in block.iter_mut().zip(values) {
            *byte = (value.to_bits() >> 8) as u8;
        }
        // Products of some size 1, whatever the range of the format's own numbers.
        let (scale_places, range): (&[usize], f32) = match weight.dtype {
            Dtype::Q8_0 => (&[0], 128.0),
            Dtype::Q4_0 => (&[0], 8.0),
            Dtype::Q4K => (&[0, 2], 64.0 * 16.0),
            _ => (&[208], 32.0 * 128.0),
        };
        for (place, value) in scale_places.iter().zip(values) {
            block[*place..*place + 2].copy_from_slice(&f16::from_f32(value / range).to_le_bytes());
        }
    }
}
