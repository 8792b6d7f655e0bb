//! Products of rows rounded to 8 bits with weights in blocks of 32.
//!
//! Of each block the sum of integer products is exact; then `output += scale(weight) · scale(row) · sum`, block after block
//! in f32. Nothing depends on the instructions or on how many rows there are.

use std::marker::PhantomData;

use super::{
    super::{
        layout::{GROUP, SCALE_BYTES},
        operand::{BLOCK_WORDS, Height},
        simd::Simd,
    },
    columns::Format,
};
use crate::backend::blocks::{BLOCK_ELEMENTS, Q4_0_BYTES, Q8_0_BYTES};

/// Rows of the tallest tile: with two groups of outputs 16 exact sums, and 16 totals of which some wait in the cache.
pub(super) const TALLEST: Height = Height::Eight;
/// Blocks of 32 inputs that all rows go through before the next: a group's weights and a tile's numbers of so many stay
/// in the first-level cache.
const SLICE_BLOCKS: usize = 16;
/// How far ahead of its use a weight is asked for: some 100 ns at 16 GB/s.
const PREFETCH_BYTES: usize = 2048;
/// Places of four numbers in a block.
const PLACES: usize = BLOCK_ELEMENTS / 4;
const SCALES: usize = GROUP * SCALE_BYTES;
/// Bytes of a group's numbers at one place.
const PLACE: usize = 4 * GROUP;

/// A block format, in the order of [`super::super::layout`].
pub(super) trait Blocks {
    /// Bytes of one block of one output.
    const BYTES: usize;
    /// What the stored numbers are larger by than those of the formula, given the instructions' own bias.
    fn zero(signed_bias: i32) -> i32;
    /// Adds the products of a group's numbers at `place`, which are in `numbers`, with `x`.
    fn dot<S: Simd>(simd: S, sums: S::Ints, numbers: S::Bytes, x: [i8; 4]) -> S::Ints;
    /// A group's numbers at `place` of a block.
    fn numbers<S: Simd>(simd: S, block: &[u8], place: usize) -> S::Bytes;
}

#[expect(clippy::inline_always, reason = "must be compiled for the path's instructions")]
#[inline(always)]
fn place<S: Simd>(simd: S, block: &[u8], place: usize) -> S::Bytes {
    match block[SCALES + place * PLACE..].first_chunk() {
        Some(bytes) => simd.load_bytes(bytes),
        None => simd.load_bytes(&[0; PLACE]),
    }
}

pub(super) struct Q8;

#[expect(clippy::inline_always, reason = "must be compiled for the path's instructions")]
impl Blocks for Q8 {
    const BYTES: usize = Q8_0_BYTES;

    fn zero(signed_bias: i32) -> i32 {
        signed_bias
    }

    #[inline(always)]
    fn dot<S: Simd>(simd: S, sums: S::Ints, numbers: S::Bytes, x: [i8; 4]) -> S::Ints {
        simd.dot_signed(sums, numbers, x)
    }

    #[inline(always)]
    fn numbers<S: Simd>(simd: S, block: &[u8], at: usize) -> S::Bytes {
        place(simd, block, at)
    }
}

pub(super) struct Q4;

#[expect(clippy::inline_always, reason = "must be compiled for the path's instructions")]
impl Blocks for Q4 {
    const BYTES: usize = Q4_0_BYTES;

    fn zero(_signed_bias: i32) -> i32 {
        8
    }

    #[inline(always)]
    fn dot<S: Simd>(simd: S, sums: S::Ints, numbers: S::Bytes, x: [i8; 4]) -> S::Ints {
        simd.dot_unsigned(sums, numbers, x)
    }

    #[inline(always)]
    fn numbers<S: Simd>(simd: S, block: &[u8], at: usize) -> S::Bytes {
        let both = place(simd, block, at % (PLACES / 2));
        if at < PLACES / 2 { simd.low_halves(both) } else { simd.high_halves(both) }
    }
}

/// Weights stored in blocks of `F`.
pub(super) struct Integers<F>(PhantomData<F>);

#[expect(clippy::inline_always, reason = "must be compiled for the path's instructions")]
impl<F: Blocks> Format for Integers<F> {
    type X = u32;
    type W = u8;
    type Padded = [u8; GROUP * Q8_0_BYTES];
    const UNPADDED: Self::Padded = [0; GROUP * Q8_0_BYTES];
    const SLICE_INPUTS: usize = SLICE_BLOCKS * BLOCK_ELEMENTS;
    const NARROW_INPUTS: usize = BLOCK_ELEMENTS;

    #[inline(always)]
    fn packed(inputs: usize) -> usize {
        inputs / BLOCK_ELEMENTS * BLOCK_WORDS
    }

    #[inline(always)]
    fn stored(inputs: usize) -> usize {
        inputs / BLOCK_ELEMENTS * F::BYTES
    }

    #[inline(always)]
    fn pad(stored: &[u8], width: usize, padded: &mut [u8]) {
        let (scales, numbers) = stored.split_at(width * SCALE_BYTES);
        padded[..scales.len()].copy_from_slice(scales);
        let places = padded[SCALES..].chunks_exact_mut(PLACE);
        for (to, from) in places.zip(numbers.chunks_exact(4 * width)) {
            to[..4 * width].copy_from_slice(from);
        }
    }

    #[inline(always)]
    fn multiply_add<S: Simd, const R: usize, const G: usize>(
        simd: S,
        weights: [&[u8]; G],
        x: &[u32],
        mut sums: [[S::Lanes; G]; R],
    ) -> [[S::Lanes; G]; R] {
        let bytes = GROUP * F::BYTES;
        for (block, x) in x.chunks_exact(R * BLOCK_WORDS).enumerate() {
            let blocks = weights.map(|weights| &weights[block * bytes..][..bytes]);
            one_block::<S, F, R, G>(simd, blocks, x.as_chunks::<R>().0, &mut sums);
        }
        sums
    }
}

/// Adds one block's products to the totals.
#[expect(clippy::inline_always, reason = "must be compiled for the path's instructions")]
#[inline(always)]
fn one_block<S: Simd, F: Blocks, const R: usize, const G: usize>(
    simd: S,
    blocks: [&[u8]; G],
    x: &[[u32; R]],
    totals: &mut [[S::Lanes; G]; R],
) {
    let zero = F::zero(S::SIGNED_BIAS);
    let mut sums = [[simd.splat_ints(0); G]; R];
    for (sums, x_sum) in sums.iter_mut().zip(x[BLOCK_WORDS - 1]) {
        *sums = [simd.splat_ints(-zero * x_sum.cast_signed()); G];
    }
    for line in (0..GROUP * F::BYTES).step_by(64) {
        for block in blocks {
            simd.prefetch(block.as_ptr().wrapping_add(PREFETCH_BYTES + line));
        }
    }
    for (place, x) in x[..PLACES].iter().enumerate() {
        let mut numbers = [simd.load_bytes(&[0; PLACE]); G];
        for (numbers, block) in numbers.iter_mut().zip(blocks) {
            *numbers = F::numbers(simd, block, place);
        }
        for (sums, x) in sums.iter_mut().zip(x) {
            let x = x.to_ne_bytes().map(u8::cast_signed);
            for (sum, numbers) in sums.iter_mut().zip(numbers) {
                *sum = F::dot(simd, *sum, numbers, x);
            }
        }
    }
    let mut scales = [simd.splat(0.0); G];
    for (scales, block) in scales.iter_mut().zip(blocks) {
        if let Some(stored) = block.first_chunk() {
            *scales = simd.load_f16_bytes(stored);
        }
    }
    for ((totals, sums), x_scale) in totals.iter_mut().zip(&sums).zip(x[BLOCK_WORDS - 2]) {
        let x_scale = simd.splat(f32::from_bits(x_scale));
        for ((total, sum), scale) in totals.iter_mut().zip(sums).zip(scales) {
            *total = simd.multiply_add(simd.widen_ints(*sum), simd.multiply(scale, x_scale), *total);
        }
    }
}
