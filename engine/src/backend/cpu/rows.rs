#![expect(unsafe_code, reason = "pieces write disjoint rows of one matrix")]
//! Operations on each row, or each element, by itself.

use sparkherd_kernels::GateFunction;

use super::{
    pool::Pool,
    shared_slice::SharedSlice,
    simd::{Kernel, LANES, Path, Simd, exp},
};
use crate::backend::{BackendError, check::WeightValues};

/// Elements worth handing to another thread: some 10 µs of work.
const PIECE_ELEMENTS: usize = 16 << 10;

/// A normalisation of each row: `residual += x` if there is one, then `out = normalised · weight`.
pub(super) struct Normalise<'a> {
    pub(super) weight: WeightValues<'a>,
    pub(super) epsilon: f32,
    pub(super) width: usize,
}

impl Normalise<'_> {
    /// `out = norm(x)`.
    pub(super) fn copy(
        &self,
        path: Path,
        pool: &mut Pool,
        x: &[f32],
        out: &mut [f32],
    ) -> Result<(), BackendError> {
        let out = SharedSlice::new(out);
        self.for_rows(pool, x.len(), &|first, end| {
            // SAFETY: a piece's rows are its own.
            let out = unsafe { out.range(first..end) };
            for (x, out) in x[first..end].chunks_exact(self.width).zip(out.chunks_exact_mut(self.width)) {
                path.run(Row { normalise: self, x, out });
            }
        })
    }

    /// `residual += x; x = norm(residual)`.
    pub(super) fn add(
        &self,
        path: Path,
        pool: &mut Pool,
        residual: &mut [f32],
        x: &mut [f32],
    ) -> Result<(), BackendError> {
        let (elements, residual, x) = (x.len(), SharedSlice::new(residual), SharedSlice::new(x));
        self.for_rows(pool, elements, &|first, end| {
            // SAFETY: a piece's rows are its own.
            let (residual, x) = unsafe { (residual.range(first..end), x.range(first..end)) };
            for (residual, x) in residual.chunks_exact_mut(self.width).zip(x.chunks_exact_mut(self.width)) {
                for (residual, x) in residual.iter_mut().zip(x.iter()) {
                    *residual += x;
                }
                path.run(Row { normalise: self, x: residual, out: x });
            }
        })
    }

    /// `x = norm(x)`.
    pub(super) fn in_place(&self, path: Path, pool: &mut Pool, x: &mut [f32]) -> Result<(), BackendError> {
        let (elements, x) = (x.len(), SharedSlice::new(x));
        self.for_rows(pool, elements, &|first, end| {
            // SAFETY: a piece's rows are its own.
            let x = unsafe { x.range(first..end) };
            for x in x.chunks_exact_mut(self.width) {
                path.run(RowInPlace { normalise: self, x });
            }
        })
    }

    fn for_rows(
        &self,
        pool: &mut Pool,
        elements: usize,
        run: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<(), BackendError> {
        let step = PIECE_ELEMENTS.next_multiple_of(self.width);
        pool.run(elements.div_ceil(step), &|piece| run(piece * step, elements.min((piece + 1) * step)))
    }
}

struct Row<'a> {
    normalise: &'a Normalise<'a>,
    x: &'a [f32],
    out: &'a mut [f32],
}

#[expect(clippy::inline_always, reason = "must be compiled for the path's instructions")]
impl Kernel for Row<'_> {
    type Output = ();

    #[inline(always)]
    fn call<S: Simd>(self, simd: S) {
        let scale = scale(simd, self.x, self.normalise.epsilon);
        let pairs = self.out.iter_mut().zip(self.x);
        match self.normalise.weight {
            WeightValues::F32(weight) => pairs.zip(weight).for_each(|((out, x), w)| *out = x * scale * w),
            WeightValues::F16(weight) => {
                pairs.zip(weight).for_each(|((out, x), w)| *out = x * scale * w.to_f32());
            }
            WeightValues::Bf16(weight) => {
                pairs.zip(weight).for_each(|((out, x), w)| *out = x * scale * w.to_f32());
            }
            WeightValues::Blocks(..) => pairs
                .enumerate()
                .for_each(|(column, (out, x))| *out = x * scale * self.normalise.weight.at(column)),
        }
    }
}

struct RowInPlace<'a> {
    normalise: &'a Normalise<'a>,
    x: &'a mut [f32],
}

#[expect(clippy::inline_always, reason = "must be compiled for the path's instructions")]
impl Kernel for RowInPlace<'_> {
    type Output = ();

    #[inline(always)]
    fn call<S: Simd>(self, simd: S) {
        let scale = scale(simd, self.x, self.normalise.epsilon);
        for (column, x) in self.x.iter_mut().enumerate() {
            *x *= scale * self.normalise.weight.at(column);
        }
    }
}

/// `1 / sqrt(mean(x²) + epsilon)`.
#[expect(clippy::inline_always, reason = "must be compiled for the path's instructions")]
#[inline(always)]
fn scale<S: Simd>(simd: S, x: &[f32], epsilon: f32) -> f32 {
    let mut squares = simd.splat(0.0);
    let (whole, rest) = x.as_chunks::<LANES>();
    for x in whole {
        let x = simd.load(x);
        squares = simd.multiply_add(x, x, squares);
    }
    let mut lanes = [0.0; LANES];
    lanes[..rest.len()].copy_from_slice(rest);
    let rest = simd.load(&lanes);
    let total = simd.sum(simd.multiply_add(rest, rest, squares));
    1.0 / (total / x.len() as f32 + epsilon).sqrt()
}

/// `gate = function(gate) · up`.
pub(super) fn gate_multiply(
    path: Path,
    pool: &mut Pool,
    function: GateFunction,
    gate: &mut [f32],
    up: &[f32],
) -> Result<(), BackendError> {
    let (elements, gate) = (gate.len(), SharedSlice::new(gate));
    pool.run(elements.div_ceil(PIECE_ELEMENTS), &|piece| {
        let range = piece * PIECE_ELEMENTS..elements.min((piece + 1) * PIECE_ELEMENTS);
        // SAFETY: a piece's elements are its own.
        let gate = unsafe { gate.range(range.clone()) };
        path.run(Gated { function, gate, up: &up[range] });
    })
}

struct Gated<'a> {
    function: GateFunction,
    gate: &'a mut [f32],
    up: &'a [f32],
}

#[expect(clippy::inline_always, reason = "must be compiled for the path's instructions")]
impl Kernel for Gated<'_> {
    type Output = ();

    #[inline(always)]
    fn call<S: Simd>(self, _simd: S) {
        let Self { function, gate, up } = self;
        match function {
            GateFunction::Silu => {
                for (gate, up) in gate.iter_mut().zip(up) {
                    *gate = *gate / (1.0 + exp(-*gate)) * up;
                }
            }
            GateFunction::GeluTanh => {
                // (1 + tanh z) / 2 is the sigmoid of 2 z: 2 · √(2/π), and 0.044715 of it.
                for (gate, up) in gate.iter_mut().zip(up) {
                    let of = *gate * (1.595_769_2 + 0.071_354_814 * *gate * *gate);
                    *gate = *gate / (1.0 + exp(-of)) * up;
                }
            }
        }
    }
}
