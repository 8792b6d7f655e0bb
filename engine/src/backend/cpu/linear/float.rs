#![expect(unsafe_code, reason = "pieces write disjoint columns of one matrix")]
//! Products of f32 rows with weights that widen to f32.
//!
//! An output is one running sum over the inputs in their order, every product fused into it. Lanes are outputs, so tiles of
//! more rows or outputs only share loads and never change the order.

use std::ops::Range;

use half::{bf16, f16};

use super::super::{
    layout::GROUP,
    operand::{Tile, Tiles},
    shared_slice::SharedSlice,
    simd::{Element, Kernel, LANES, Simd},
};

/// Rows of the tallest tile: with two groups of outputs 24 sums, beside four registers of weights.
pub(super) const TALLEST: usize = 12;
/// Two inputs of a group's outputs.
const STEP: usize = 2 * GROUP;
/// Inputs that all rows go through before the next: two groups' weights and a tile's values of so many inputs stay in the
/// first-level cache (at most 32 KiB and 12 KiB of its 48 KiB; as BF16 16 KiB).
const SLICE_INPUTS: usize = 256;
/// How far ahead of its use a weight is asked for: some 100 ns at 16 GB/s.
const PREFETCH_BYTES: usize = 2048;

/// A stored number, in the order of [`super::super::layout`].
pub(in super::super) trait Stored: Element {
    /// Both inputs of a step, widened.
    fn step<S: Simd>(simd: S, step: &[Self; STEP]) -> [S::Lanes; 2];
    const ZERO: Self;
    /// Of a step of a group of `width` outputs: how many numbers lie together, and how often.
    fn runs(width: usize) -> (usize, usize);
}

#[expect(clippy::inline_always, reason = "must be compiled for the path's instructions")]
#[inline(always)]
fn halves<S: Simd, W: Element>(simd: S, step: &[W; STEP]) -> [S::Lanes; 2] {
    let [first, second] = step.as_chunks::<LANES>().0 else { return [simd.splat(0.0); 2] };
    [W::lanes(simd, first), W::lanes(simd, second)]
}

#[expect(clippy::inline_always, reason = "must be compiled for the path's instructions")]
impl Stored for f32 {
    const ZERO: Self = 0.0;
    fn runs(width: usize) -> (usize, usize) {
        (width, 2)
    }
    #[inline(always)]
    fn step<S: Simd>(simd: S, step: &[Self; STEP]) -> [S::Lanes; 2] {
        halves(simd, step)
    }
}

#[expect(clippy::inline_always, reason = "must be compiled for the path's instructions")]
impl Stored for f16 {
    const ZERO: Self = f16::ZERO;
    fn runs(width: usize) -> (usize, usize) {
        (width, 2)
    }
    #[inline(always)]
    fn step<S: Simd>(simd: S, step: &[Self; STEP]) -> [S::Lanes; 2] {
        halves(simd, step)
    }
}

#[expect(clippy::inline_always, reason = "must be compiled for the path's instructions")]
impl Stored for bf16 {
    const ZERO: Self = bf16::ZERO;
    fn runs(width: usize) -> (usize, usize) {
        (2 * width, 1)
    }
    #[inline(always)]
    fn step<S: Simd>(simd: S, step: &[Self; STEP]) -> [S::Lanes; 2] {
        simd.load_bf16_pairs(step)
    }
}

/// All rows of some groups of outputs.
pub(super) struct Columns<'a, W> {
    pub(super) x: &'a [f32],
    pub(super) tiles: Tiles,
    pub(super) weight: &'a [W],
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    pub(super) range: Range<usize>,
    pub(super) out: &'a SharedSlice<'a>,
}

#[expect(clippy::inline_always, reason = "must be compiled for the path's instructions")]
impl<W: Stored> Kernel for Columns<'_, W> {
    type Output = ();

    #[inline(always)]
    fn call<S: Simd>(self, simd: S) {
        let mut output = self.range.start;
        while S::WIDE && output + 2 * GROUP <= self.range.end {
            self.groups::<S, 2>(simd, [output, output + GROUP]);
            output += 2 * GROUP;
        }
        while output + GROUP <= self.range.end {
            self.groups::<S, 1>(simd, [output]);
            output += GROUP;
        }
        if output < self.range.end {
            self.narrow_group(simd, output);
        }
    }
}

/// A slice of the inputs of one group, whole or not, whose weights were widened and padded: `[input][16]`.
pub(super) struct Panel<'a> {
    pub(super) columns: Columns<'a, f32>,
    pub(super) slice: Range<usize>,
}

#[expect(clippy::inline_always, reason = "must be compiled for the path's instructions")]
impl Kernel for Panel<'_> {
    type Output = ();

    #[inline(always)]
    fn call<S: Simd>(self, simd: S) {
        let Self { columns, slice } = self;
        let steps = columns.weight.as_chunks::<STEP>();
        columns.slice::<S, 1>(simd, [steps], slice, [columns.range.start], columns.range.len());
    }
}

#[expect(clippy::inline_always, reason = "must be compiled for the path's instructions")]
impl<W: Stored> Columns<'_, W> {
    #[inline(always)]
    fn groups<S: Simd, const G: usize>(&self, simd: S, outputs: [usize; G]) {
        // One tile needs nothing kept in a cache.
        let slice = if self.tiles.count() == 1 { self.inputs } else { SLICE_INPUTS };
        for first in (0..self.inputs).step_by(slice) {
            let inputs = first..self.inputs.min(first + slice);
            let steps = outputs.map(|output| {
                self.weight[output * self.inputs + first * GROUP..][..inputs.len() * GROUP]
                    .as_chunks::<STEP>()
            });
            self.slice::<S, G>(simd, steps, inputs, outputs, GROUP);
        }
    }

    /// The last group, which is not whole: its weights are padded on the way.
    #[inline(always)]
    fn narrow_group<S: Simd>(&self, simd: S, output: usize) {
        let width = self.range.end - output;
        let mut padded = [[W::ZERO; STEP]; SLICE_INPUTS / 2];
        for first in (0..self.inputs).step_by(SLICE_INPUTS) {
            let inputs = first..self.inputs.min(first + SLICE_INPUTS);
            let stored = &self.weight[output * self.inputs + first * width..][..inputs.len() * width];
            let steps = pad(stored, width, &mut padded);
            self.slice::<S, 1>(simd, [steps], inputs, [output], width);
        }
    }

    #[inline(always)]
    fn slice<S: Simd, const G: usize>(
        &self,
        simd: S,
        steps: [(&[[W; STEP]], &[W]); G],
        inputs: Range<usize>,
        outputs: [usize; G],
        width: usize,
    ) {
        for index in 0..self.tiles.count() {
            let tile = self.tiles.get(index);
            let x = &self.x[tile.first_row * self.inputs..][..tile.height * self.inputs];
            let at = Place { tile, inputs: inputs.clone(), outputs, width };
            match tile.height {
                1 => self.tile::<S, 1, G>(simd, steps, x, &at),
                2 => self.tile::<S, 2, G>(simd, steps, x, &at),
                4 => self.tile::<S, 4, G>(simd, steps, x, &at),
                8 if S::WIDE => self.tile::<S, 8, G>(simd, steps, x, &at),
                TALLEST if S::WIDE => self.tile::<S, TALLEST, G>(simd, steps, x, &at),
                _ => {}
            }
        }
    }

    #[inline(always)]
    fn tile<S: Simd, const R: usize, const G: usize>(
        &self,
        simd: S,
        steps: [(&[[W; STEP]], &[W]); G],
        x: &[f32],
        at: &Place<G>,
    ) {
        let x = &x.as_chunks::<R>().0[at.inputs.clone()];
        let mut sums = [[simd.splat(0.0); G]; R];
        if at.inputs.start > 0 {
            for (row, sums) in sums.iter_mut().enumerate().take(at.tile.rows) {
                for (sum, output) in sums.iter_mut().zip(at.outputs) {
                    *sum = load(simd, self.out(at, row, output));
                }
            }
        }
        let sums = multiply_add::<S, W, R, G>(simd, steps, x, sums);
        // To memory in a loop of its own: whatever else touched the sums would keep them there during the loop above.
        let mut lanes = [[[0.0; LANES]; G]; R];
        for (lanes, sums) in lanes.iter_mut().zip(&sums) {
            for (lanes, sum) in lanes.iter_mut().zip(sums) {
                *lanes = simd.to_array(*sum);
            }
        }
        for (row, lanes) in lanes.iter().enumerate().take(at.tile.rows) {
            for (lanes, output) in lanes.iter().zip(at.outputs) {
                let out = self.out(at, row, output);
                out.copy_from_slice(&lanes[..out.len()]);
            }
        }
    }

    #[inline(always)]
    #[expect(clippy::mut_from_ref, reason = "each part is this piece's alone, taken one at a time")]
    fn out<const G: usize>(&self, at: &Place<G>, row: usize, output: usize) -> &mut [f32] {
        let first = (at.tile.first_row + row) * self.outputs + output;
        // SAFETY: columns of this piece's range, which no other piece has; callers drop the slice before they take another.
        unsafe { self.out.range(first..first + at.width) }
    }
}

/// Where a tile's results go, and of which inputs.
struct Place<const G: usize> {
    tile: Tile,
    inputs: Range<usize>,
    outputs: [usize; G],
    width: usize,
}

/// The partial sums so far; lanes beyond the width are 0.
#[expect(clippy::inline_always, reason = "must be compiled for the path's instructions")]
#[inline(always)]
pub(super) fn load<S: Simd>(simd: S, values: &[f32]) -> S::Lanes {
    if let Some(values) = values.first_chunk() {
        return simd.load(values);
    }
    let mut lanes = [0.0; LANES];
    lanes[..values.len()].copy_from_slice(values);
    simd.load(&lanes)
}

/// `sums[r][g] += Σ x[k][r] · weight[g][k]`, inputs in order.
#[expect(clippy::inline_always, reason = "must be compiled for the path's instructions")]
#[inline(always)]
fn multiply_add<S: Simd, W: Stored, const R: usize, const G: usize>(
    simd: S,
    steps: [(&[[W; STEP]], &[W]); G],
    x: &[[f32; R]],
    mut sums: [[S::Lanes; G]; R],
) -> [[S::Lanes; G]; R] {
    let (pairs, last) = x.as_chunks::<2>();
    let steps_of = steps.map(|(steps, _)| &steps[..pairs.len()]);
    for (index, x) in pairs.iter().enumerate() {
        let mut weights = [[simd.splat(0.0); 2]; G];
        for (weight, steps) in weights.iter_mut().zip(&steps_of) {
            let step = &steps[index];
            simd.prefetch(step.as_ptr().cast::<u8>().wrapping_add(PREFETCH_BYTES));
            *weight = W::step(simd, step);
        }
        for (input, x) in x.iter().enumerate() {
            for (sums, x) in sums.iter_mut().zip(x) {
                let x = simd.splat(*x);
                for (sum, weight) in sums.iter_mut().zip(&weights) {
                    *sum = simd.multiply_add(x, weight[input], *sum);
                }
            }
        }
    }
    for x in last {
        for (group, (_, rest)) in steps.iter().enumerate() {
            let Some(rest) = rest.first_chunk::<LANES>() else { continue };
            let weight = W::lanes(simd, rest);
            for (sums, x) in sums.iter_mut().zip(x) {
                sums[group] = simd.multiply_add(simd.splat(*x), weight, sums[group]);
            }
        }
    }
    sums
}

/// A narrow group's inputs with zeros up to the whole width.
fn pad<'a, W: Stored>(
    stored: &[W],
    width: usize,
    padded: &'a mut [[W; STEP]; SLICE_INPUTS / 2],
) -> (&'a [[W; STEP]], &'a [W]) {
    let (run, runs) = W::runs(width);
    for (step, stored) in padded.iter_mut().zip(stored.chunks(2 * width)) {
        *step = [W::ZERO; STEP];
        for (to, from) in step.chunks_exact_mut(STEP / runs).zip(stored.chunks(run)) {
            to[..from.len()].copy_from_slice(from);
        }
    }
    let (steps, last) = padded.split_at(stored.len() / width / 2);
    (steps, last.first().map_or(&[], |last| last.as_slice()))
}
