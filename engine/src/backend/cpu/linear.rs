#![expect(unsafe_code, reason = "pieces write disjoint columns of one matrix")]
//! Matrix times transposed weight.
//!
//! Every output is one dot product over the inputs: sixteen running sums, input `k` into sum `k mod 16`, added up in one
//! fixed order. Tiles only decide how many dot products run side by side to share loads, never their order, so a row's
//! result is the same alone, in a batch and in a chunk of a prompt (I20).

use std::ops::Range;

use super::{
    pool::Pool,
    shared_slice::SharedSlice,
    simd::{Element, Kernel, LANES, Path, Simd, sum},
};
use crate::backend::{BackendError, check::WeightValues};

/// Multiply-adds worth handing to another thread: some 20 µs of work against some 5 µs to hand it over.
const PIECE_PRODUCTS: usize = 128 << 10;
/// Outputs of a piece are a multiple of both tile widths, 3 and 4.
const PIECE_OUTPUTS: usize = 12;
/// With many rows a piece has at least this many outputs, or reading the rows again for each would bind it to the speed
/// of the shared cache.
const PIECE_OUTPUTS_MANY_ROWS: usize = 48;
/// Bytes of the rows that a piece goes through before its next outputs: half of the second-level cache (1 MiB or more on
/// all cores we know), the other half is the weights'.
const ROWS_BYTES: usize = 512 << 10;

/// `out [rows, outputs] = x [rows, inputs] · weight [outputs, inputs]ᵀ`; shapes were checked.
pub(super) fn linear(
    path: Path,
    pool: &mut Pool,
    x: &[f32],
    weight: WeightValues<'_>,
    inputs: usize,
    out: &mut [f32],
) -> Result<(), BackendError> {
    match weight {
        WeightValues::F32(weight) => product(path, pool, x, weight, inputs, out),
        WeightValues::F16(weight) => product(path, pool, x, weight, inputs, out),
        WeightValues::Bf16(weight) => product(path, pool, x, weight, inputs, out),
        WeightValues::Blocks(..) => blocks(pool, x, weight, inputs, out),
    }
}

/// Of a block format: each value is widened where it is used.
fn blocks(
    pool: &mut Pool,
    x: &[f32],
    weight: WeightValues<'_>,
    inputs: usize,
    out: &mut [f32],
) -> Result<(), BackendError> {
    let outputs = out.len() / (x.len() / inputs);
    let out = SharedSlice::new(out);
    pool.run(outputs, &|output| {
        for (row, x) in x.chunks_exact(inputs).enumerate() {
            let sum = (0..inputs).map(|k| x[k] * weight.at(output * inputs + k)).sum();
            let at = row * outputs + output;
            // SAFETY: a column belongs to one piece.
            let out = unsafe { out.range(at..at + 1) };
            out.fill(sum);
        }
    })
}

fn product<W: Element>(
    path: Path,
    pool: &mut Pool,
    x: &[f32],
    weight: &[W],
    inputs: usize,
    out: &mut [f32],
) -> Result<(), BackendError> {
    let (rows, outputs) = (x.len() / inputs, weight.len() / inputs);
    let fewest = if rows < 8 { PIECE_OUTPUTS } else { PIECE_OUTPUTS_MANY_ROWS };
    let wanted = PIECE_PRODUCTS / (inputs * rows).max(1);
    let piece_outputs = wanted.next_multiple_of(PIECE_OUTPUTS).max(fewest);
    let out = SharedSlice::new(out);
    pool.run(outputs.div_ceil(piece_outputs), &|piece| {
        let first = piece * piece_outputs;
        let range = first..outputs.min(first + piece_outputs);
        path.run(Columns { x, weight, inputs, outputs, range, out: &out });
    })
}

/// All rows of some outputs.
struct Columns<'a, W> {
    x: &'a [f32],
    weight: &'a [W],
    inputs: usize,
    outputs: usize,
    range: Range<usize>,
    out: &'a SharedSlice<'a>,
}

#[expect(clippy::inline_always, reason = "must be compiled for the path's instructions")]
impl<W: Element> Kernel for Columns<'_, W> {
    type Output = ();

    #[inline(always)]
    fn call<S: Simd>(self, simd: S) {
        let rows = self.x.len() / self.inputs;
        let rows_in_cache = (ROWS_BYTES / (self.inputs * size_of::<f32>())).next_multiple_of(8).max(8);
        for first_row in (0..rows).step_by(rows_in_cache) {
            let rows = first_row..rows.min(first_row + rows_in_cache);
            let mut output = self.range.start;
            if S::WIDE && rows.len() >= 8 {
                // 8 × 3 sums, 3 weights and a row's values take 28 of 32 registers.
                while output + 3 <= self.range.end {
                    self.strip::<S, 8, 3>(simd, rows.clone(), output);
                    output += 3;
                }
            } else if S::WIDE || rows.len() == 1 {
                while output + 4 <= self.range.end {
                    self.strip::<S, 4, 4>(simd, rows.clone(), output);
                    output += 4;
                }
            }
            while output + 2 <= self.range.end {
                self.strip::<S, 2, 2>(simd, rows.clone(), output);
                output += 2;
            }
            while output < self.range.end {
                self.strip::<S, 4, 1>(simd, rows.clone(), output);
                output += 1;
            }
        }
    }
}

#[expect(clippy::inline_always, reason = "must be compiled for the path's instructions")]
impl<W: Element> Columns<'_, W> {
    /// `C` outputs from `output` on of all `rows`, `R` rows at a time and the rest one by one.
    #[inline(always)]
    fn strip<S: Simd, const R: usize, const C: usize>(&self, simd: S, rows: Range<usize>, output: usize) {
        let mut row = rows.start;
        while row + R <= rows.end {
            self.tile::<S, R, C>(simd, row, output);
            row += R;
        }
        while row < rows.end {
            self.tile::<S, 1, C>(simd, row, output);
            row += 1;
        }
    }

    #[inline(always)]
    fn tile<S: Simd, const R: usize, const C: usize>(&self, simd: S, row: usize, output: usize) {
        let mut x: [&[f32]; R] = [&[]; R];
        for (index, x) in x.iter_mut().enumerate() {
            *x = &self.x[(row + index) * self.inputs..][..self.inputs];
        }
        let mut weight: [&[W]; C] = [&[]; C];
        for (index, weight) in weight.iter_mut().enumerate() {
            *weight = &self.weight[(output + index) * self.inputs..][..self.inputs];
        }
        let sums = dot_products::<S, W, R, C>(simd, x, weight, self.inputs);
        for (index, sums) in sums.iter().enumerate() {
            let first = (row + index) * self.outputs + output;
            // SAFETY: columns of this piece's range, which no other piece has; the slice ends before the next is made.
            unsafe { self.out.range(first..first + C) }.copy_from_slice(sums);
        }
    }
}

/// The `R × C` dot products of `R` rows with `C` weights, all of `inputs` elements.
#[expect(clippy::inline_always, reason = "must be compiled for the path's instructions")]
#[inline(always)]
fn dot_products<S: Simd, W: Element, const R: usize, const C: usize>(
    simd: S,
    x: [&[f32]; R],
    weight: [&[W]; C],
    inputs: usize,
) -> [[f32; C]; R] {
    let steps = inputs / LANES;
    let mut x_steps: [&[[f32; LANES]]; R] = [&[]; R];
    let mut weight_steps: [&[[W; LANES]]; C] = [&[]; C];
    for (steps_of, x) in x_steps.iter_mut().zip(x) {
        *steps_of = &x.as_chunks().0[..steps];
    }
    for (steps_of, weight) in weight_steps.iter_mut().zip(weight) {
        *steps_of = &weight.as_chunks().0[..steps];
    }
    let mut sums = [[simd.splat(0.0); C]; R];
    for step in 0..steps {
        let mut weights = [simd.splat(0.0); C];
        for (lanes, weight) in weights.iter_mut().zip(&weight_steps) {
            *lanes = W::lanes(simd, &weight[step]);
        }
        for (sums, x) in sums.iter_mut().zip(&x_steps) {
            let x = simd.load(&x[step]);
            for (sum, weight) in sums.iter_mut().zip(&weights) {
                *sum = simd.multiply_add(x, *weight, *sum);
            }
        }
    }
    // To memory in a loop of its own: whatever else touched the sums would keep them there during the loop above.
    let mut lanes = [[[0.0; LANES]; C]; R];
    for (lanes, sums) in lanes.iter_mut().zip(&sums) {
        for (lanes, sum) in lanes.iter_mut().zip(sums) {
            *lanes = simd.to_array(*sum);
        }
    }
    let mut totals = [[0.0; C]; R];
    for ((totals, lanes), x) in totals.iter_mut().zip(&mut lanes).zip(x) {
        for ((total, lanes), weight) in totals.iter_mut().zip(lanes).zip(weight) {
            let rest = x[steps * LANES..].iter().zip(&weight[steps * LANES..]);
            for (lane, (x, weight)) in lanes.iter_mut().zip(rest) {
                *lane = x.mul_add(weight.widen(), *lane);
            }
            *total = sum(*lanes);
        }
    }
    totals
}
