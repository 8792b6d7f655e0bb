//! Products of f32 rows with weights that widen to f32.
//!
//! An output is one running sum over the inputs in their order, every product fused into it. Lanes are outputs, so tiles of
//! more rows or outputs only share loads and never change the order.

use std::{marker::PhantomData, ops::Range};

use half::{bf16, f16};

use super::{
    super::{
        layout::GROUP,
        operand::Height,
        simd::{Element, Kernel, LANES, Simd},
    },
    columns::{Columns, Format},
};

/// Rows of the tallest tile: with two groups of outputs 24 sums, beside four registers of weights.
pub(super) const TALLEST: Height = Height::Twelve;
/// Two inputs of a group's outputs.
const STEP: usize = 2 * GROUP;
/// Inputs that all rows go through before the next: two groups' weights and a tile's values of so many inputs stay in the
/// first-level cache (at most 32 KiB and 12 KiB of its 48 KiB; as BF16 16 KiB).
const SLICE_INPUTS: usize = 256;
/// How far ahead of its use a weight is asked for: some 100 ns at 16 GB/s.
const PREFETCH_BYTES: usize = 2048;

/// A stored number, in the order of [`super::super::layout`].
#[expect(clippy::inline_always, reason = "must be compiled for the path's instructions")]
pub(super) trait Stored: Element {
    const ZERO: Self;

    /// Both inputs of a step, widened.
    #[inline(always)]
    fn step<S: Simd>(simd: S, step: &[Self; STEP]) -> [S::Lanes; 2] {
        let [first, second] = step.as_chunks::<LANES>().0 else { return [simd.splat(0.0); 2] };
        [Self::lanes(simd, first), Self::lanes(simd, second)]
    }

    /// Of a step of a group of `width` outputs: how many numbers lie together, and how often.
    fn runs(width: usize) -> (usize, usize) {
        (width, 2)
    }
}

impl Stored for f32 {
    const ZERO: Self = 0.0;
}

impl Stored for f16 {
    const ZERO: Self = f16::ZERO;
}

#[expect(clippy::inline_always, reason = "must be compiled for the path's instructions")]
impl Stored for bf16 {
    const ZERO: Self = bf16::ZERO;

    #[inline(always)]
    fn step<S: Simd>(simd: S, step: &[Self; STEP]) -> [S::Lanes; 2] {
        simd.load_bf16_pairs(step)
    }

    fn runs(width: usize) -> (usize, usize) {
        (2 * width, 1)
    }
}

/// Weights stored as `W`.
pub(super) struct Floats<W>(PhantomData<W>);

#[expect(clippy::inline_always, reason = "must be compiled for the path's instructions")]
impl<W: Stored> Format for Floats<W> {
    type X = f32;
    type W = W;
    type Padded = [W; SLICE_INPUTS * GROUP];
    const UNPADDED: Self::Padded = [W::ZERO; SLICE_INPUTS * GROUP];
    const SLICE_INPUTS: usize = SLICE_INPUTS;
    const NARROW_INPUTS: usize = SLICE_INPUTS;

    #[inline(always)]
    fn packed(inputs: usize) -> usize {
        inputs
    }

    #[inline(always)]
    fn stored(inputs: usize) -> usize {
        inputs
    }

    #[inline(always)]
    fn pad(stored: &[W], width: usize, padded: &mut [W]) {
        let (run, runs) = W::runs(width);
        // A last odd input is half a step, in which either order is the same.
        for (step, stored) in padded.chunks_mut(STEP).zip(stored.chunks(2 * width)) {
            step.fill(W::ZERO);
            for (to, from) in step.chunks_mut(STEP / runs).zip(stored.chunks(run)) {
                to[..from.len()].copy_from_slice(from);
            }
        }
    }

    #[inline(always)]
    fn multiply_add<S: Simd, const R: usize, const G: usize>(
        simd: S,
        weights: [&[W]; G],
        x: &[f32],
        mut sums: [[S::Lanes; G]; R],
    ) -> [[S::Lanes; G]; R] {
        let (pairs, last) = x.as_chunks::<R>().0.as_chunks::<2>();
        let weights = weights.map(|weights| weights.as_chunks::<STEP>());
        let steps_of = weights.map(|(steps, _)| &steps[..pairs.len()]);
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
            for (group, (_, rest)) in weights.iter().enumerate() {
                let Some(rest) = rest.first_chunk::<LANES>() else { continue };
                let weight = W::lanes(simd, rest);
                for (sums, x) in sums.iter_mut().zip(x) {
                    sums[group] = simd.multiply_add(simd.splat(*x), weight, sums[group]);
                }
            }
        }
        sums
    }
}

/// A slice of the inputs of one group, whole or not, whose weights were widened and padded: `[input][16]`.
pub(super) struct Panel<'a> {
    pub(super) columns: Columns<'a, Floats<f32>>,
    pub(super) slice: Range<usize>,
}

#[expect(clippy::inline_always, reason = "must be compiled for the path's instructions")]
impl Kernel for Panel<'_> {
    type Output = ();

    #[inline(always)]
    fn call<S: Simd>(self, simd: S) {
        let Self { columns, slice } = self;
        columns.slice::<S, 1>(simd, [columns.weight], &slice, [columns.range.start], columns.range.len());
    }
}
