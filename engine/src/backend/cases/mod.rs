//! One list of operation cases for every backend: what to run on which shapes, with seeded values.
//!
//! ```text
//! all() ──────► tests of the CPU, of the host shim, of a GPU ─┐
//! of_model() ─► a GPU that is about to load a model ──────────┴─► Case::run on the oracle and on the other ─► within the bound?
//! ```
#![expect(clippy::cast_possible_truncation, reason = "the sizes of these cases are small")]

mod attention;
mod llama_files;
mod products;
mod random;
mod rows;
mod weights;

use std::fmt;

use sparkherd_checkpoint::Dtype;
use sparkherd_footprint::KvDtype;
use sparkherd_kernels::GateFunction::{GeluTanh, Silu};
use thiserror::Error;

pub use attention::decode_beside_a_prompt;
pub use llama_files::LlamaSizes;
pub use random::Random;

use super::{
    Activation, Backend, BackendError, HostMemory, KvShape, Weight,
    arena::{Arena, ArenaError},
};
use products::{gated, linear, linear_of_integers};
use rows::{
    add_bias, add_rms_norm, embed, gate_multiply, gather_and_add, head_rms_norm, rms_norm, rms_norm_of_small,
    rope,
};

type Run = dyn Fn(&mut dyn Backend, &[Weight], &[Activation]) -> Result<Vec<Activation>, BackendError>;

pub struct Case {
    pub name: String,
    pub kv: KvShape,
    /// Largest difference from the oracle, relative to its largest output (or to 1), of a backend on the host.
    pub bound: f32,
    /// Of a product with a matrix; 0 of everything else.
    pub linear_rows: usize,
    /// Attention in a way that not every backend has.
    pub has_options: bool,
    /// Most rows of a sequence in attention; 0 of everything else.
    pub attention_rows: usize,
    /// Keys come of sums, whose order now and then leads to another rounding when they are stored.
    pub stores_sums: bool,
    /// Type, rows, columns.
    weights: Vec<(Dtype, usize, usize)>,
    /// Rows, columns.
    activations: Vec<(usize, usize)>,
    run: Box<Run>,
}

#[derive(Debug, Error)]
pub enum CaseError {
    #[error(transparent)]
    Backend(#[from] BackendError),
    #[error(transparent)]
    Memory(#[from] ArenaError),
}

impl fmt::Debug for Case {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Case").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Case {
    /// Runs on a backend made of memory with this case's seeded values, and returns all outputs.
    pub fn run<B: Backend, E: Into<BackendError>>(
        &self,
        make: impl FnOnce(HostMemory, KvShape) -> Result<B, E>,
    ) -> Result<Vec<f32>, CaseError> {
        let mut random = Random::new(7);
        let (arena, weights) = weights::seeded(&self.weights, &mut random)?;
        let mut activations = Vec::new();
        let mut offset = 0;
        for (rows, columns) in &self.activations {
            activations.push(Activation { offset, rows: *rows, columns: *columns });
            offset += (rows * columns).next_multiple_of(64);
        }
        let memory = HostMemory {
            weights: arena,
            kv: Arena::map(self.kv.bytes())?,
            workspace: Arena::map(offset * size_of::<f32>())?,
            // Any of them as an operation's rows, with the padding of the last tile.
            packed: Arena::map((offset + 16 * 1024) * size_of::<f32>())?,
        };
        let mut backend = make(memory, self.kv).map_err(Into::into)?;
        backend.prepare(&weights)?;
        for activation in &activations {
            backend.write(*activation, &random.values(activation.rows * activation.columns))?;
        }
        let mut values = Vec::new();
        for output in (self.run)(&mut backend, &weights, &activations)? {
            values.extend_from_slice(backend.read(output)?);
        }
        Ok(values)
    }
}

/// 900 products of values up to 1, added in another order in f32, differ by some 30 roundings of 6e-8.
const BOUND: f32 = 5e-6;
/// Rows rounded to 8 bits: 768 errors of up to 1/254, times weights of variance 1/3, have a standard deviation of 0.04;
/// five of them on outputs of up to 25.
const BOUND_ROUNDED_ROWS: f32 = 8e-3;
const NO_KV: KvShape = KvShape { layers: 0, blocks: 0, kv_heads: 0, head_dim: 0, dtype: KvDtype::F32 };
const BLOCK_DTYPES: [Dtype; 4] = [Dtype::Q8_0, Dtype::Q4_0, Dtype::Q4K, Dtype::Q6K];
const DTYPES: [Dtype; 3] = [Dtype::F32, Dtype::F16, Dtype::Bf16];

/// All cases.
pub fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    // Rows around every tile height, inputs and outputs around lanes, tile widths and pieces.
    for (rows, inputs, outputs) in [
        (1, 1, 1),
        (1, 64, 50),
        (2, 15, 3),
        (3, 100, 7),
        (4, 33, 13),
        (8, 48, 61),
        (9, 257, 50),
        (21, 16, 5),
        (9, 64, 300),
    ] {
        cases.extend(DTYPES.map(|dtype| linear(dtype, rows, inputs, outputs)));
    }
    cases.push(linear(Dtype::Bf16, 200, 900, 110));
    // Small tiles of a GPU with several slices of inputs, large ones, and several of both.
    for (rows, inputs, outputs) in [(33, 400, 70), (66, 96, 20)] {
        cases.extend(DTYPES.map(|dtype| linear(dtype, rows, inputs, outputs)));
    }
    cases.push(linear(Dtype::Bf16, 130, 168, 131));
    cases.extend(BLOCK_DTYPES.map(|dtype| linear_of_integers(dtype, 66, 256, 20)));
    for (rows, inputs, outputs) in
        [(1, 256, 1), (2, 512, 33), (5, 256, 9), (8, 256, 9), (9, 768, 50), (21, 256, 5)]
    {
        cases.extend(BLOCK_DTYPES.map(|dtype| linear_of_integers(dtype, rows, inputs, outputs)));
        for dtype in [Dtype::Q8_0, Dtype::Q4_0] {
            let bound = BOUND_ROUNDED_ROWS;
            cases.push(Case { bound, ..linear(dtype, rows, inputs, outputs) });
        }
    }
    for (rows, inputs, outputs) in [(1, 64, 50), (3, 100, 7), (8, 48, 61), (9, 64, 20)] {
        cases.extend(DTYPES.map(|dtype| gated(Silu, true, [dtype, dtype], rows, inputs, outputs)));
    }
    cases.extend(BLOCK_DTYPES.map(|dtype| gated(Silu, true, [dtype, dtype], 2, 512, 33)));
    cases.push(gated(Silu, true, [Dtype::F16, Dtype::Bf16], 2, 64, 9));
    cases.extend([3, 20].map(|rows| gated(GeluTanh, true, [Dtype::Bf16; 2], rows, 100, 33)));
    for (rows, width) in [(1, 1), (3, 100), (40, 640)] {
        cases.extend(DTYPES.map(|dtype| rms_norm(dtype, rows, width)));
        cases.extend(DTYPES.map(|dtype| add_rms_norm(dtype, rows, width)));
        cases.extend([Silu, GeluTanh].map(|function| gate_multiply(function, rows, width)));
    }
    cases.push(rms_norm_of_small());
    cases.extend(DTYPES.map(|dtype| embed(dtype, 21)));
    cases.extend(BLOCK_DTYPES.map(|dtype| embed(dtype, 512)));
    for (heads, head_dim) in [(1, 2), (3, 20), (16, 128)] {
        cases.extend(DTYPES.map(|dtype| head_rms_norm(dtype, heads, head_dim)));
    }
    cases.extend(DTYPES.map(add_bias));
    cases.push(gather_and_add());
    for (heads, head_dim) in [(1, 2), (3, 20), (2, 128)] {
        cases.push(rope(heads, head_dim));
    }
    cases.extend(attention::all());
    cases
}

/// What a model may need of a device, with its type of keys and values and its heads: of queries, of keys, and their size.
pub fn of_model(kv_dtype: KvDtype, heads: [usize; 3]) -> Vec<Case> {
    let mut cases = Vec::new();
    for dtype in DTYPES.into_iter().chain(BLOCK_DTYPES) {
        cases.extend([1, 3, 20, 66].map(|rows| linear(dtype, rows, 256, 65)));
        cases.push(gated(Silu, true, [dtype, dtype], 1, 256, 65));
        cases.push(gated(Silu, true, [dtype, dtype], 2, 256, 65));
        cases.push(embed(dtype, 256));
    }
    for dtype in DTYPES {
        cases.push(rms_norm(dtype, 3, 256));
        cases.push(add_rms_norm(dtype, 3, 256));
        cases.push(head_rms_norm(dtype, heads[1], heads[2]));
        cases.push(add_bias(dtype));
        cases.push(attention::inputs(true, kv_dtype, heads, Some(dtype), true));
    }
    cases.extend([Silu, GeluTanh].map(|function| gate_multiply(function, 3, 256)));
    cases.push(gather_and_add());
    cases.push(rope(heads[1], heads[2]));
    // Of few rows, and of many.
    cases.extend([[70, 5], [21, 37]].map(|tokens| attention::attention(kv_dtype, heads, tokens)));
    cases
}

/// The same in one operation and in the several that it is made of.
pub fn fused_and_one_by_one() -> Vec<[Case; 2]> {
    let gated = [
        (Silu, Dtype::F32, 1, 50),
        (Silu, Dtype::Bf16, 8, 100),
        (GeluTanh, Dtype::F16, 3, 64),
        (Silu, Dtype::Q4K, 2, 512),
    ]
    .map(|(function, dtype, rows, inputs)| {
        [true, false].map(|way| gated(function, way, [dtype, dtype], rows, inputs, 33))
    });
    let inputs = [(KvDtype::F32, Dtype::F16), (KvDtype::Bf16, Dtype::Bf16), (KvDtype::Fp8, Dtype::F32)].map(
        |(kv, dtype)| [true, false].map(|way| attention::inputs(way, kv, [6, 2, 20], Some(dtype), true)),
    );
    gated.into_iter().chain(inputs).collect()
}

fn case(
    name: String,
    weights: Vec<(Dtype, usize, usize)>,
    activations: Vec<(usize, usize)>,
    run: impl Fn(&mut dyn Backend, &[Weight], &[Activation]) -> Result<Vec<Activation>, BackendError> + 'static,
) -> Case {
    Case {
        name,
        kv: NO_KV,
        bound: BOUND,
        linear_rows: 0,
        has_options: false,
        attention_rows: 0,
        stores_sums: false,
        weights,
        activations,
        run: Box::new(run),
    }
}
