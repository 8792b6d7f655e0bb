//! Kernels against the oracle, on the device that is about to serve: machine code that compiled to nothing, or for another chip,
//! is found before a model is loaded.

use half::{bf16, f16};
use sparkherd_checkpoint::Dtype;
use sparkherd_footprint::KvDtype;
use sparkherd_kernels::Device;
use thiserror::Error;

use super::{AttentionLimits, Cuda, CudaLimits};
use crate::backend::{
    Activation, AddBias, AddRmsNorm, Attention, AttentionInputs, AttentionOptions, Backend, BackendError,
    Embed, Gated, HeadNorms, HostMemory, KvShape, Linear, RmsNorm, SequenceRows, Weight,
    arena::{Arena, ArenaError},
    oracle::Oracle,
};

/// Of everything: a block of every format, several words of every lane.
const WIDTH: usize = 256;
const ROWS: usize = 20;
const HEAD_DIM: usize = 64;
const KV_HEADS: usize = 2;
const EPSILON: f32 = 1e-5;
const MATRICES: [Dtype; 7] =
    [Dtype::F32, Dtype::F16, Dtype::Bf16, Dtype::Q8_0, Dtype::Q4_0, Dtype::Q4K, Dtype::Q6K];
const VECTORS: [Dtype; 3] = [Dtype::F32, Dtype::F16, Dtype::Bf16];

/// Sums in another order, relative to the largest result: as in the tests on the shim.
const BOUND: f32 = 3e-5;
/// Rows and weights are rounded to BF16.
const BOUND_MANY_ROWS: f32 = 6e-3;
/// Queries, keys, values and weights are rounded to BF16.
const BOUND_ATTENTION: f32 = 1e-2;

/// A row that is alone in its step is shared among three blocks.
const SHARED_ATTENTION: AttentionLimits = AttentionLimits {
    rows: 1,
    run_min: 8,
    splits: 4,
    partial_elements: WIDTH / HEAD_DIM * 4 * (HEAD_DIM + 2),
};

/// Where activations lie.
const X: Activation = Activation { offset: 0, rows: ROWS, columns: WIDTH };
const Y: Activation = Activation { offset: ROWS * WIDTH, rows: ROWS, columns: WIDTH };
const OUT: Activation = Activation { offset: 2 * ROWS * WIDTH, rows: ROWS, columns: WIDTH };
const KEYS: Activation = Activation { offset: 3 * ROWS * WIDTH, rows: ROWS, columns: KV_HEADS * HEAD_DIM };
const VALUES: Activation = Activation {
    offset: 3 * ROWS * WIDTH + ROWS * KV_HEADS * HEAD_DIM,
    rows: ROWS,
    columns: KV_HEADS * HEAD_DIM,
};
const ROTATIONS: Activation = Activation { offset: 4 * ROWS * WIDTH, rows: ROWS, columns: HEAD_DIM };
const ELEMENTS: usize = 4 * ROWS * WIDTH + ROWS * HEAD_DIM;

#[derive(Clone, Debug, PartialEq, Error)]
pub enum SelfTestError {
    #[error("the kernels' own test cannot be run: {0}")]
    Backend(#[from] BackendError),
    #[error("no memory for the kernels' own test: {0}")]
    Memory(String),
    #[error("{operation} gives {got} where it should give {wanted}: the kernels do not work on this GPU")]
    Differs { operation: String, got: f32, wanted: f32 },
}

impl From<ArenaError> for SelfTestError {
    fn from(error: ArenaError) -> Self {
        Self::Memory(error.to_string())
    }
}

type Run = dyn Fn(&mut dyn Backend) -> Result<Activation, BackendError>;

struct Case {
    operation: String,
    bound: f32,
    run: Box<Run>,
}

/// Compares what kernels of every format give, with keys and values of this type. How many were compared.
pub fn self_test<D: Device>(device: D, kv_dtype: KvDtype) -> Result<usize, SelfTestError> {
    let kv = KvShape { layers: 1, blocks: 2, kv_heads: KV_HEADS, head_dim: HEAD_DIM, dtype: kv_dtype };
    let (weights, cases) = (weights()?, cases());
    let limits = CudaLimits {
        weights_bytes: weights.bytes(),
        workspace_bytes: ELEMENTS * size_of::<f32>(),
        numbers_bytes: 64 * ROWS,
        transfer_elements: 2 * ELEMENTS,
        recorded_rows: 0,
        attention: Some(SHARED_ATTENTION),
        sampling: None,
    };
    let mut cuda = Cuda::new(device, kv, limits)?;
    cuda.write_weights(0, weights.as_slice())?;
    let memory = HostMemory {
        weights,
        kv: Arena::map(kv.bytes())?,
        workspace: Arena::map(ELEMENTS * size_of::<f32>())?,
        packed: Arena::map(0)?,
    };
    let mut oracle = Oracle::new(memory, kv)?;
    for case in &cases {
        compare(case, &mut oracle, &mut cuda)?;
    }
    Ok(cases.len())
}

fn compare(case: &Case, oracle: &mut dyn Backend, cuda: &mut dyn Backend) -> Result<(), SelfTestError> {
    let Case { operation, bound, run } = case;
    let outcome = |backend: &mut dyn Backend| {
        for (seed, activation) in (1..).zip([X, Y, OUT, KEYS, VALUES, ROTATIONS]) {
            backend.write(activation, &values(seed, activation.rows * activation.columns))?;
        }
        let out = run(backend)?;
        Ok::<_, BackendError>(backend.read(out)?.to_vec())
    };
    let (wanted, got) = (outcome(oracle)?, outcome(cuda)?);
    let largest = wanted.iter().fold(1.0_f32, |largest, value| largest.max(value.abs()));
    for (got, wanted) in got.into_iter().zip(wanted) {
        let error = (got - wanted).abs() / largest;
        if error.is_nan() || error > *bound {
            return Err(SelfTestError::Differs { operation: operation.clone(), got, wanted });
        }
    }
    Ok(())
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut case = |operation: String, bound: f32, run: Box<Run>| cases.push(Case { operation, bound, run });
    for dtype in MATRICES {
        let weight = matrix(dtype);
        let embed = move |backend: &mut dyn Backend| {
            let out = OUT.first(3);
            backend.embed(Embed { tokens: &[0, 77, 255], table: weight, out })?;
            Ok(out)
        };
        case(format!("embedding, {}", dtype.name()), BOUND, Box::new(embed));
        for (rows, bound) in [(1, BOUND), (3, BOUND), (ROWS, BOUND_MANY_ROWS)] {
            let linear = move |backend: &mut dyn Backend| {
                let out = OUT.first(rows);
                backend.linear(Linear { x: X.first(rows), weight, out })?;
                Ok(out)
            };
            case(format!("product of {rows} rows, {}", dtype.name()), bound, Box::new(linear));
        }
        let gated = move |backend: &mut dyn Backend| {
            let [x, gate, up] = [X, OUT, Y].map(|activation| activation.first(2));
            backend.gated(Gated { x, gate_weight: weight, up_weight: weight, gate, up })?;
            Ok(gate)
        };
        case(format!("gated product, {}", dtype.name()), BOUND, Box::new(gated));
    }
    for dtype in VECTORS {
        let weight = Weight { rows: 1, ..matrix(dtype) };
        let norm = move |backend: &mut dyn Backend| {
            backend.rms_norm(RmsNorm { x: X, weight, epsilon: EPSILON, out: OUT })?;
            backend.add_rms_norm(AddRmsNorm { residual: Y, x: OUT, weight, epsilon: EPSILON })?;
            backend.add_bias(AddBias { x: OUT, bias: weight })?;
            Ok(OUT)
        };
        case(format!("normalisation, {}", dtype.name()), BOUND, Box::new(norm));
    }
    for rows in [1, ROWS] {
        let bound = if rows == 1 { BOUND } else { BOUND_ATTENTION };
        case(format!("attention of {rows} rows"), bound, Box::new(move |backend| attention(backend, rows)));
    }
    cases
}

/// All rows' keys and values are stored, the last `rows` rows ask.
fn attention(backend: &mut dyn Backend, rows: usize) -> Result<Activation, BackendError> {
    let slots = [0_u32; ROWS];
    let mut slot = 0;
    // Block 1 comes first.
    let slots = slots.map(|_| {
        slot += 1;
        (slot - 1 + 16) % 32
    });
    let weight = Weight { rows: 1, columns: HEAD_DIM, ..matrix(Dtype::Bf16) };
    backend.attention_inputs(&AttentionInputs {
        layer: 0,
        queries: X,
        keys: KEYS,
        values: VALUES,
        biases: [None; 3],
        head_norms: Some(HeadNorms { query: weight, key: weight, epsilon: EPSILON }),
        rotations: ROTATIONS,
        slots: &slots,
    })?;
    let position = ROWS - rows;
    let (queries, out) = (X.first(rows), OUT.first(rows));
    backend.attention(Attention {
        layer: 0,
        queries,
        scale: 0.125,
        options: AttentionOptions::default(),
        sequences: &[SequenceRows { first_row: 0, rows, position, first_block: 0 }],
        block_tables: &[1, 0],
        out,
    })?;
    Ok(out)
}

/// The square matrix of a format, after those of the formats before it.
fn matrix(dtype: Dtype) -> Weight {
    let before = MATRICES.iter().take_while(|other| **other != dtype);
    let offset_bytes = before.map(|dtype| matrix_bytes(*dtype)).sum();
    Weight { offset_bytes, dtype, rows: WIDTH, columns: WIDTH }
}

fn matrix_bytes(dtype: Dtype) -> usize {
    let (elements, bytes) = block(dtype);
    (WIDTH * WIDTH / elements * bytes).next_multiple_of(256)
}

/// Values and bytes of a block; a format without blocks has one of each value.
#[expect(clippy::cast_possible_truncation, reason = "256 values and 210 bytes at most")]
const fn block(dtype: Dtype) -> (usize, usize) {
    (dtype.block_elements() as usize, dtype.block_bytes() as usize)
}

/// Any bytes are numbers of a block; its scales are such that products are of some size 1.
fn weights() -> Result<Arena, ArenaError> {
    let mut arena = Arena::map(MATRICES.into_iter().map(matrix_bytes).sum())?;
    let bytes = arena.as_mut_slice::<u8>();
    for (seed, dtype) in (10..).zip(MATRICES) {
        let start = matrix(dtype).offset_bytes;
        let bytes = &mut bytes[start..start + matrix_bytes(dtype)];
        let numbers = values(seed, WIDTH * WIDTH);
        match dtype {
            Dtype::F32 => put(bytes, &numbers, f32::to_le_bytes),
            Dtype::F16 => put(bytes, &numbers, |value| f16::from_f32(value).to_le_bytes()),
            Dtype::Bf16 => put(bytes, &numbers, |value| bf16::from_f32(value).to_le_bytes()),
            Dtype::Q8_0 => put_blocks(bytes, &numbers, dtype, &[0], 128.0),
            Dtype::Q4_0 => put_blocks(bytes, &numbers, dtype, &[0], 8.0),
            Dtype::Q4K => put_blocks(bytes, &numbers, dtype, &[0, 2], 1024.0),
            Dtype::Q6K => put_blocks(bytes, &numbers, dtype, &[208], 4096.0),
        }
    }
    Ok(arena)
}

fn put<const N: usize>(bytes: &mut [u8], values: &[f32], encode: impl Fn(f32) -> [u8; N]) {
    for (bytes, value) in bytes.as_chunks_mut::<N>().0.iter_mut().zip(values) {
        *bytes = encode(*value);
    }
}

/// `scales`: where a block has numbers of 16 bits that others are multiplied by, which reach `range`.
fn put_blocks(bytes: &mut [u8], values: &[f32], dtype: Dtype, scales: &[usize], range: f32) {
    let (elements, block_bytes) = block(dtype);
    let blocks = bytes.chunks_exact_mut(block_bytes);
    for (block, values) in blocks.zip(values.chunks_exact(elements)) {
        for (byte, value) in block.iter_mut().zip(values.iter().cycle()) {
            *byte = value.to_le_bytes()[1];
        }
        for (place, value) in scales.iter().zip(values) {
            block[*place..place + 2].copy_from_slice(&f16::from_f32(value / range).to_le_bytes());
        }
    }
}

/// Seeded, between −1 and 1.
fn values(seed: u32, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as f32 / u32::MAX as f32 * 2.0 - 1.0
    };
    std::iter::repeat_with(next).take(count).collect()
}
