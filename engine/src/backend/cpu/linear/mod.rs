//! Matrices times transposed weights that share their rows: packed once, then pieces of all outputs on all threads.

mod benchmark;
mod columns;
mod float;
mod integer;
mod super_blocks;

use std::ops::Range;

use half::{bf16, f16};
use sparkherd_checkpoint::Dtype;

use self::{
    columns::{Columns, Format},
    float::Floats,
    integer::{Integers, Q4, Q8},
};
use super::{
    layout::GROUP,
    operand::{Height, Tiles, pack_floats, pack_integers},
    pool::Pool,
    shared_slice::SharedSlice,
    simd::Path,
};
use crate::backend::{BackendError, arena::Arena, check::WeightValues};

pub(super) use benchmark::Benchmark;

/// Multiply-adds worth handing to another thread: some 10 µs of work against some 2 µs to hand it over.
const PIECE_PRODUCTS: usize = 256 << 10;
/// Outputs of a piece are a multiple of what kernels compute side by side.
const PIECE_OUTPUTS: usize = 2 * GROUP;

/// One of the weights that the rows are multiplied with.
pub(super) struct Part<'a> {
    pub(super) weight: WeightValues<'a>,
    pub(super) outputs: usize,
    /// `[rows, outputs]`
    pub(super) out: &'a mut [f32],
}

/// The rows, `[rows, inputs]`.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) x: &'a [f32],
    pub(super) inputs: usize,
}

/// What rows must be packed as for a weight.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Packing {
    Floats,
    Integers,
}

impl Packing {
    fn of(weight: &WeightValues<'_>) -> Self {
        match weight {
            WeightValues::Blocks(Dtype::Q8_0 | Dtype::Q4_0, _) => Self::Integers,
            WeightValues::F32(_)
            | WeightValues::F16(_)
            | WeightValues::Bf16(_)
            | WeightValues::Blocks(..) => Self::Floats,
        }
    }
    /// Rows whose sums the path's registers hold for two groups of outputs (for one, where registers are few); of integers
    /// there are two sums each.
    const fn tallest(self, path: Path) -> Height {
        match (self, path.is_wide()) {
            (Self::Floats, true) => float::TALLEST,
            (Self::Integers, true) => integer::TALLEST,
            (_, false) => Height::Four,
        }
    }
}

/// `part.out = x · part.weightᵀ` for all parts; shapes were checked. `packed` holds any step's rows packed.
pub(super) fn linear(
    path: Path,
    pool: &mut Pool,
    packed: &mut Arena,
    rows: Rows<'_>,
    parts: &mut [Part<'_>],
) -> Result<(), BackendError> {
    let Rows { x, inputs } = rows;
    if x.is_empty() {
        return Ok(());
    }
    for packing in [Packing::Floats, Packing::Integers] {
        let mut parts: Vec<&mut Part<'_>> =
            parts.iter_mut().filter(|part| Packing::of(&part.weight) == packing).collect();
        if parts.is_empty() {
            continue;
        }
        let tiles = Tiles { rows: x.len() / inputs, tallest: packing.tallest(path) };
        check_packed(packed, tiles, inputs)?;
        match packing {
            Packing::Floats => pack_floats(pool, tiles, inputs, x, packed.as_mut_slice())?,
            Packing::Integers => pack_integers(path, pool, tiles, inputs, x, packed.as_mut_slice())?,
        }
        multiply(path, pool, packed, tiles, inputs, &mut parts)?;
    }
    Ok(())
}

fn check_packed(packed: &Arena, tiles: Tiles, inputs: usize) -> Result<(), BackendError> {
    let (got, wanted) = (packed.bytes(), tiles.padded_rows() * inputs * size_of::<f32>());
    if got < wanted { Err(BackendError::Packed { got, wanted }) } else { Ok(()) }
}

/// A part as threads share it.
struct SharedPart<'a> {
    weight: WeightValues<'a>,
    outputs: usize,
    out: SharedSlice<'a>,
}

fn multiply(
    path: Path,
    pool: &mut Pool,
    packed: &Arena,
    tiles: Tiles,
    inputs: usize,
    parts: &mut [&mut Part<'_>],
) -> Result<(), BackendError> {
    let rows = tiles.padded_rows();
    let piece_outputs =
        (PIECE_PRODUCTS / (inputs * rows).max(1)).next_multiple_of(PIECE_OUTPUTS).max(PIECE_OUTPUTS);
    let parts: Vec<SharedPart<'_>> = parts
        .iter_mut()
        .map(|part| SharedPart {
            weight: part.weight,
            outputs: part.outputs,
            out: SharedSlice::new(part.out),
        })
        .collect();
    let pieces_of = |part: &SharedPart<'_>| part.outputs.div_ceil(piece_outputs);
    let operand = Operand { path, packed, tiles, inputs };
    pool.run(parts.iter().map(pieces_of).sum(), &|piece| {
        let mut piece = piece;
        for part in &parts {
            let pieces = pieces_of(part);
            if piece < pieces {
                let first = piece * piece_outputs;
                operand.multiply(part, first..part.outputs.min(first + piece_outputs));
                return;
            }
            piece -= pieces;
        }
    })
}

/// Packed rows.
struct Operand<'a> {
    path: Path,
    packed: &'a Arena,
    tiles: Tiles,
    inputs: usize,
}

impl Operand<'_> {
    fn multiply(&self, part: &SharedPart<'_>, range: Range<usize>) {
        let (path, floats, integers) = (self.path, self.packed.as_slice(), self.packed.as_slice());
        match part.weight {
            WeightValues::F32(weight) => {
                path.run(self.columns::<Floats<f32>>(floats, weight, part, range));
            }
            WeightValues::F16(weight) => {
                path.run(self.columns::<Floats<f16>>(floats, weight, part, range));
            }
            WeightValues::Bf16(weight) => {
                path.run(self.columns::<Floats<bf16>>(floats, weight, part, range));
            }
            WeightValues::Blocks(Dtype::Q8_0, weight) => {
                path.run(self.columns::<Integers<Q8>>(integers, weight, part, range));
            }
            WeightValues::Blocks(Dtype::Q4_0, weight) => {
                path.run(self.columns::<Integers<Q4>>(integers, weight, part, range));
            }
            WeightValues::Blocks(dtype, weight) => self.super_blocks(dtype, weight, part, range),
        }
    }

    fn super_blocks(&self, dtype: Dtype, weight: &[u8], part: &SharedPart<'_>, range: Range<usize>) {
        for first in range.clone().step_by(GROUP) {
            let outputs = first..range.end.min(first + GROUP);
            super_blocks::widen(dtype, weight, self.inputs, outputs.clone(), &mut |slice, panel| {
                let (x, panel) = (self.packed.as_slice(), panel.as_flattened());
                let columns = self.columns(x, panel, part, outputs.clone());
                self.path.run(float::Panel { columns, slice });
            });
        }
    }

    fn columns<'a, F: Format>(
        &self,
        x: &'a [F::X],
        weight: &'a [F::W],
        part: &'a SharedPart<'_>,
        range: Range<usize>,
    ) -> Columns<'a, F> {
        let (tiles, inputs) = (self.tiles, self.inputs);
        Columns { x, tiles, weight, inputs, outputs: part.outputs, range, out: &part.out }
    }
}
