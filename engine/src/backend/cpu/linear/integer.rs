#![expect(unsafe_code, reason = "pieces write disjoint columns of one matrix")]
//! Products of rows rounded to 8 bits with weights in blocks of 32.
//!
//! Of each block the sum of integer products is exact; then `output += scale(weight) · scale(row) · sum`, block after block
//! in f32. Nothing depends on the instructions or on how many rows there are.

use std::ops::Range;

use super::{
    super::{
        layout::{GROUP, SCALE_BYTES},
        operand::{BLOCK_WORDS, Tile, Tiles},
        shared_slice::SharedSlice,
        simd::{Kernel, Simd},
    },
    float::load,
};
use crate::backend::blocks::{BLOCK_ELEMENTS, Q4_0_BYTES, Q8_0_BYTES};

/// Rows of the tallest tile: with two groups of outputs 16 exact sums, and 16 totals of which some wait in the cache.
pub(super) const TALLEST: usize = 8;
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
pub(in super::super) trait Blocks {
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

/// All rows of some groups of outputs.
pub(super) struct Columns<'a> {
    pub(super) x: &'a [u32],
    pub(super) tiles: Tiles,
    pub(super) weight: &'a [u8],
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    pub(super) range: Range<usize>,
    pub(super) out: &'a SharedSlice<'a>,
}

/// [`Columns`] of one format.
pub(super) struct ColumnsOf<'a, F> {
    pub(super) columns: Columns<'a>,
    pub(super) format: std::marker::PhantomData<F>,
}

#[expect(clippy::inline_always, reason = "must be compiled for the path's instructions")]
impl<F: Blocks> Kernel for ColumnsOf<'_, F> {
    type Output = ();

    #[inline(always)]
    fn call<S: Simd>(self, simd: S) {
        let columns = &self.columns;
        let mut output = columns.range.start;
        while S::WIDE && output + 2 * GROUP <= columns.range.end {
            columns.groups::<S, F, 2>(simd, [output, output + GROUP]);
            output += 2 * GROUP;
        }
        while output + GROUP <= columns.range.end {
            columns.groups::<S, F, 1>(simd, [output]);
            output += GROUP;
        }
        if output < columns.range.end {
            columns.narrow_group::<S, F>(simd, output);
        }
    }
}

#[expect(clippy::inline_always, reason = "must be compiled for the path's instructions")]
impl Columns<'_> {
    #[inline(always)]
    fn groups<S: Simd, F: Blocks, const G: usize>(&self, simd: S, outputs: [usize; G]) {
        let blocks = self.inputs / BLOCK_ELEMENTS;
        // One tile needs nothing kept in a cache.
        let slice = if self.tiles.count() == 1 { blocks } else { SLICE_BLOCKS };
        for first in (0..blocks).step_by(slice) {
            let range = first..blocks.min(first + slice);
            let stored = outputs.map(|output| {
                &self.weight[(output * blocks + first * GROUP) * F::BYTES..][..range.len() * GROUP * F::BYTES]
            });
            self.slice::<S, F, G>(simd, stored, range, outputs, GROUP);
        }
    }

    /// The last group, which is not whole: its weights are padded on the way.
    #[inline(always)]
    fn narrow_group<S: Simd, F: Blocks>(&self, simd: S, output: usize) {
        let (blocks, width) = (self.inputs / BLOCK_ELEMENTS, self.range.end - output);
        let mut padded = [0; GROUP * Q8_0_BYTES];
        for block in 0..blocks {
            let stored = &self.weight[(output * blocks + block * width) * F::BYTES..][..width * F::BYTES];
            let padded = &mut padded[..GROUP * F::BYTES];
            padded[..width * SCALE_BYTES].copy_from_slice(&stored[..width * SCALE_BYTES]);
            let places = padded[SCALES..].chunks_exact_mut(PLACE);
            for (to, from) in places.zip(stored[width * SCALE_BYTES..].chunks_exact(4 * width)) {
                to[..4 * width].copy_from_slice(from);
            }
            self.slice::<S, F, 1>(simd, [padded], block..block + 1, [output], width);
        }
    }

    #[inline(always)]
    fn slice<S: Simd, F: Blocks, const G: usize>(
        &self,
        simd: S,
        stored: [&[u8]; G],
        blocks: Range<usize>,
        outputs: [usize; G],
        width: usize,
    ) {
        let words = self.inputs / BLOCK_ELEMENTS * BLOCK_WORDS;
        for index in 0..self.tiles.count() {
            let tile = self.tiles.get(index);
            let x = &self.x[tile.first_row * words..][..tile.height * words];
            let x = &x[blocks.start * BLOCK_WORDS * tile.height..blocks.end * BLOCK_WORDS * tile.height];
            let at = Place { tile, goes_on: blocks.start > 0, outputs, width };
            match tile.height {
                1 => self.tile::<S, F, 1, G>(simd, stored, x, &at),
                2 => self.tile::<S, F, 2, G>(simd, stored, x, &at),
                4 => self.tile::<S, F, 4, G>(simd, stored, x, &at),
                TALLEST if S::WIDE => self.tile::<S, F, TALLEST, G>(simd, stored, x, &at),
                _ => {}
            }
        }
    }

    #[inline(always)]
    fn tile<S: Simd, F: Blocks, const R: usize, const G: usize>(
        &self,
        simd: S,
        stored: [&[u8]; G],
        x: &[u32],
        at: &Place<G>,
    ) {
        let mut totals = [[simd.splat(0.0); G]; R];
        if at.goes_on {
            for (row, totals) in totals.iter_mut().enumerate().take(at.tile.rows) {
                for (total, output) in totals.iter_mut().zip(at.outputs) {
                    *total = load(simd, self.out(at, row, output));
                }
            }
        }
        for (block, x) in x.chunks_exact(R * BLOCK_WORDS).enumerate() {
            let bytes = GROUP * F::BYTES;
            let blocks = stored.map(|stored| &stored[block * bytes..][..bytes]);
            one_block::<S, F, R, G>(simd, blocks, x.as_chunks::<R>().0, &mut totals);
        }
        for (row, totals) in totals.iter().enumerate().take(at.tile.rows) {
            for (total, output) in totals.iter().zip(at.outputs) {
                let lanes = simd.to_array(*total);
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

/// Where a tile's results go, and whether they are sums already.
struct Place<const G: usize> {
    tile: Tile,
    goes_on: bool,
    outputs: [usize; G],
    width: usize,
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
