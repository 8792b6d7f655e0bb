//! Products that measure a path, on one thread: of matrices that stay in the first-level cache, so that instructions are
//! measured and not memory.

use std::hint::black_box;

use half::bf16;

use super::{
    super::{operand::Tiles, shared_slice::SharedSlice, simd::Path},
    Packing,
    columns::{Columns, Format},
    float::Floats,
    integer::{Integers, Q8},
};

/// Whole tiles of every path.
const ROWS: usize = 12;
const INPUTS: usize = 256;
const OUTPUTS: usize = 32;
/// Products of one format in a run.
const ROUNDS: usize = 32;

/// Work of which half are products of BF16 weights and half are of Q8_0 weights.
pub(in super::super) struct Benchmark {
    bf16: Product<Floats<bf16>>,
    q8_0: Product<Integers<Q8>>,
}

impl Benchmark {
    /// Multiply-adds of a run.
    pub(in super::super) const PRODUCTS: usize = 2 * ROUNDS * ROWS * INPUTS * OUTPUTS;

    /// The rows of Q8_0 are zeros, and all its bytes 0x3c: no sum overflows and no scale is a subnormal number.
    pub(in super::super) fn new() -> Self {
        Self {
            bf16: Product::new(Packing::Floats, 0.25, bf16::from_f32(0.5)),
            q8_0: Product::new(Packing::Integers, 0, 0x3c),
        }
    }

    /// One format after the other: together they would not stay in the smallest caches.
    pub(in super::super) fn run(&mut self, path: Path) {
        (0..ROUNDS).for_each(|_| self.bf16.run(path));
        (0..ROUNDS).for_each(|_| self.q8_0.run(path));
    }
}

struct Product<F: Format> {
    packing: Packing,
    x: Vec<F::X>,
    weight: Vec<F::W>,
    out: Vec<f32>,
}

impl<F: Format<X: Clone, W: Clone>> Product<F> {
    fn new(packing: Packing, x: F::X, weight: F::W) -> Self {
        Self {
            packing,
            x: vec![x; ROWS * F::packed(INPUTS)],
            weight: vec![weight; OUTPUTS * F::stored(INPUTS)],
            out: vec![0.0; ROWS * OUTPUTS],
        }
    }

    fn run(&mut self, path: Path) {
        path.run(Columns::<F> {
            x: &self.x,
            tiles: Tiles { rows: ROWS, tallest: self.packing.tallest(path) },
            weight: &self.weight,
            inputs: INPUTS,
            outputs: OUTPUTS,
            range: 0..OUTPUTS,
            out: &SharedSlice::new(black_box(&mut self.out)),
        });
    }
}
