//! The rows of an operation as the kernels read them: in tiles of a few rows, packed once and shared by all outputs.
//!
//! ```text
//! floats     [tile][input][height] f32
//! integers   [tile][block]( [8][height] × 4 i8, [height] scales, [height] sums ): rounded to 8 bits per block of 32
//! ```
//!
//! Integers follow ggml's Q8_0 with the scale kept in f32: `scale = largest |x| / 127`, numbers to the nearest, ties to
//! even. Rows are rounded one by one, so a row is the same in every company (I20).

use super::{pool::Pool, shared_slice::SharedSlice, simd::Path};
use crate::backend::{BackendError, blocks::BLOCK_ELEMENTS};

/// 32-bit words of one row of one block: 32 numbers, a scale, a sum.
pub(super) const BLOCK_WORDS: usize = BLOCK_ELEMENTS / 4 + 2;
/// 1.5 · 2²³: adding it to a small number rounds that to an integer, which is then in the low bits.
const ROUND: f32 = 12_582_912.0;

/// Rows of a tile with its padding: what kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Height {
    One = 1,
    Two = 2,
    Four = 4,
    Eight = 8,
    Twelve = 12,
}

impl Height {
    /// The lowest that holds `rows`, and the tallest where none does.
    fn holding(rows: usize) -> Self {
        let heights = [Self::One, Self::Two, Self::Four, Self::Eight];
        heights.into_iter().find(|height| rows <= height.rows()).unwrap_or(Self::Twelve)
    }

    pub(super) const fn rows(self) -> usize {
        self as usize
    }
}

/// Rows that a kernel computes at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tile {
    pub(super) first_row: usize,
    pub(super) rows: usize,
    pub(super) height: Height,
}

/// Cuts `rows` into tiles of the tallest height and a last one, padded to the lowest that holds it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tiles {
    pub(super) rows: usize,
    pub(super) tallest: Height,
}

impl Tiles {
    pub(super) fn count(self) -> usize {
        self.rows.div_ceil(self.tallest.rows())
    }

    pub(super) fn get(self, index: usize) -> Tile {
        let tallest = self.tallest.rows();
        let first_row = index * tallest;
        let rows = tallest.min(self.rows - first_row);
        Tile { first_row, rows, height: Height::holding(rows).min(self.tallest) }
    }

    /// Rows with the padding of the last tile.
    pub(super) fn padded_rows(self) -> usize {
        let last = self.get(self.count() - 1);
        last.first_row + last.height.rows()
    }
}

/// Rows worth packing on another thread.
const PIECE_ELEMENTS: usize = 16 << 10;

/// Packs `x [rows, inputs]` as floats.
pub(super) fn pack_floats(
    pool: &mut Pool,
    tiles: Tiles,
    inputs: usize,
    x: &[f32],
    packed: &mut [f32],
) -> Result<(), BackendError> {
    let packed = SharedSlice::new(packed);
    each_tile(pool, tiles, inputs, &|tile| {
        let (first, height) = (tile.first_row * inputs, tile.height.rows());
        #[expect(unsafe_code, reason = "tiles are packed into disjoint parts of one buffer")]
        // SAFETY: a tile's part of the buffer belongs to its piece.
        let packed = unsafe { packed.range(first..first + height * inputs) };
        if tile.rows < height {
            packed.fill(0.0);
        }
        for (row, x) in x[first..first + tile.rows * inputs].chunks_exact(inputs).enumerate() {
            for (packed, x) in packed.chunks_exact_mut(height).zip(x) {
                packed[row] = *x;
            }
        }
    })
}

/// Packs `x [rows, inputs]` as integers.
pub(super) fn pack_integers(
    path: Path,
    pool: &mut Pool,
    tiles: Tiles,
    inputs: usize,
    x: &[f32],
    packed: &mut [u32],
) -> Result<(), BackendError> {
    let blocks = inputs / BLOCK_ELEMENTS;
    let packed = SharedSlice::new(packed);
    each_tile(pool, tiles, inputs, &|tile| {
        let (row_words, height) = (blocks * BLOCK_WORDS, tile.height.rows());
        let first = tile.first_row * row_words;
        #[expect(unsafe_code, reason = "tiles are packed into disjoint parts of one buffer")]
        // SAFETY: a tile's part of the buffer belongs to its piece.
        let packed = unsafe { packed.range(first..first + height * row_words) };
        if tile.rows < height {
            packed.fill(0);
        }
        path.run(Round { tile, inputs, x: &x[tile.first_row * inputs..][..tile.rows * inputs], packed });
    })
}

fn each_tile(
    pool: &mut Pool,
    tiles: Tiles,
    inputs: usize,
    run: &(dyn Fn(Tile) + Sync),
) -> Result<(), BackendError> {
    let (count, each) = (tiles.count(), (PIECE_ELEMENTS / (tiles.tallest.rows() * inputs).max(1)).max(1));
    pool.run(count.div_ceil(each), &|piece| {
        (piece * each..count.min((piece + 1) * each)).for_each(|index| run(tiles.get(index)));
    })
}

struct Round<'a> {
    tile: Tile,
    inputs: usize,
    x: &'a [f32],
    packed: &'a mut [u32],
}

#[expect(clippy::inline_always, reason = "must be compiled for the path's instructions")]
impl super::simd::Kernel for Round<'_> {
    type Output = ();

    #[inline(always)]
    fn call<S: super::simd::Simd>(self, _simd: S) {
        let height = self.tile.height.rows();
        for (row, x) in self.x.chunks_exact(self.inputs).enumerate() {
            let blocks = x.as_chunks::<BLOCK_ELEMENTS>().0.iter();
            for (x, packed) in blocks.zip(self.packed.chunks_exact_mut(height * BLOCK_WORDS)) {
                let (numbers, scale, sum) = round(x);
                for (at, number) in numbers.as_chunks::<4>().0.iter().enumerate() {
                    packed[at * height + row] = u32::from_ne_bytes(*number);
                }
                packed[(BLOCK_WORDS - 2) * height + row] = scale.to_bits();
                packed[(BLOCK_WORDS - 1) * height + row] = sum.cast_unsigned();
            }
        }
    }
}

/// Numbers, scale and sum of the numbers.
#[expect(clippy::inline_always, reason = "must be compiled for the caller's instructions")]
#[expect(clippy::cast_possible_truncation, reason = "numbers of −127 to 127 are in the lowest byte")]
#[inline(always)]
fn round(x: &[f32; BLOCK_ELEMENTS]) -> ([u8; BLOCK_ELEMENTS], f32, i32) {
    let mut largest = [0.0_f32; 16];
    for x in x.as_chunks::<16>().0 {
        for (largest, x) in largest.iter_mut().zip(x) {
            *largest = if x.abs() > *largest { x.abs() } else { *largest };
        }
    }
    let largest = largest.into_iter().fold(0.0_f32, |a, b| if b > a { b } else { a });
    let scale = largest / 127.0;
    let inverse = if scale > 0.0 { 127.0 / largest } else { 0.0 };
    let (mut numbers, mut sum) = ([0; BLOCK_ELEMENTS], 0_i32);
    for (number, x) in numbers.iter_mut().zip(x) {
        let rounded = (x * inverse + ROUND).to_bits() as u8;
        *number = rounded;
        sum += i32::from(rounded.cast_signed());
    }
    (numbers, scale, sum)
}
