//! Weights in blocks of 256: a group's are widened once for all rows, block after block, into a panel of f32.

use std::ops::Range;

use sparkherd_checkpoint::Dtype;

use super::super::layout::GROUP;
use crate::backend::blocks::{SUPER_BLOCK_ELEMENTS, widen_super_block};

/// Bytes of a panel: half of a first-level cache.
pub(super) type Panel = [[f32; GROUP]; SUPER_BLOCK_ELEMENTS];

/// Calls `with` for each block of inputs with the values of `outputs` (at most a group), input by input; missing outputs
/// are 0.
pub(super) fn widen(
    dtype: Dtype,
    weight: &[u8],
    inputs: usize,
    outputs: Range<usize>,
    with: &mut dyn FnMut(Range<usize>, &Panel),
) {
    let mut panel = [[0.0; GROUP]; SUPER_BLOCK_ELEMENTS];
    let mut values = [0.0; SUPER_BLOCK_ELEMENTS];
    let blocks = inputs / SUPER_BLOCK_ELEMENTS;
    for block in 0..blocks {
        for (lane, output) in outputs.clone().enumerate() {
            widen_super_block(dtype, weight, output * blocks + block, &mut values);
            for (panel, value) in panel.iter_mut().zip(values) {
                panel[lane] = value;
            }
        }
        with(block * SUPER_BLOCK_ELEMENTS..(block + 1) * SUPER_BLOCK_ELEMENTS, &panel);
    }
}
