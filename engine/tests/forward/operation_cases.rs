//! One list of operation cases, for every backend: what to run on which shapes, with seeded values.

#[path = "operation_cases/attention.rs"]
mod attention;

use half::{bf16, f16};
use sparkherd_checkpoint::Dtype;
use sparkherd_engine::backend::{
    Activation, Add, AddBias, AddRmsNorm, Backend, BackendError, Embed, Gated, GatherRows, HeadRmsNorm,
    HostMemory, KvShape, Linear, RmsNorm, Rope, SiluMultiply, Weight, arena::Arena,
};
use sparkherd_footprint::KvDtype;

use crate::random::Random;

type Run = dyn Fn(&mut dyn Backend, &[Weight], &[Activation]) -> Result<Vec<Activation>, BackendError>;

pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) kv: KvShape,
    /// Largest difference from the oracle, relative to its largest output (or to 1).
    pub(crate) bound: f32,
    /// Of a product with a matrix; 0 of everything else.
    pub(crate) linear_rows: usize,
    /// Attention in a way that not every backend has.
    pub(crate) has_options: bool,
    /// Most rows of a sequence in attention; 0 of everything else.
    pub(crate) attention_rows: usize,
    /// Type, rows, columns.
    weights: Vec<(Dtype, usize, usize)>,
    /// Rows, columns.
    activations: Vec<(usize, usize)>,
    run: Box<Run>,
}

impl Case {
    /// Runs on a backend made of memory with this case's seeded values, and returns all outputs.
    pub(crate) fn run<B: Backend>(&self, make: impl FnOnce(HostMemory, KvShape) -> B) -> Vec<f32> {
        let mut random = Random(7);
        let mut weights = Vec::new();
        let mut offset_bytes = 0;
        for (dtype, rows, columns) in &self.weights {
            weights.push(Weight { offset_bytes, dtype: *dtype, rows: *rows, columns: *columns });
            let row_bytes = dtype.row_bytes(*columns as u64).unwrap() as usize;
            offset_bytes += (rows * row_bytes).next_multiple_of(256);
        }
        let mut arena = Arena::map(offset_bytes).unwrap();
        for weight in &weights {
            store(&mut arena, *weight, &random.values(weight.rows * weight.columns));
        }
        let mut activations = Vec::new();
        let mut offset = 0;
        for (rows, columns) in &self.activations {
            activations.push(Activation { offset, rows: *rows, columns: *columns });
            offset += (rows * columns).next_multiple_of(64);
        }
        let memory = HostMemory {
            weights: arena,
            kv: Arena::map(self.kv.bytes()).unwrap(),
            workspace: Arena::map(offset * size_of::<f32>()).unwrap(),
            // Any of them as an operation's rows, with the padding of the last tile.
            packed: Arena::map((offset + 16 * 1024) * size_of::<f32>()).unwrap(),
        };
        let mut backend = make(memory, self.kv);
        backend.prepare(&weights).unwrap();
        for activation in &activations {
            backend.write(*activation, &random.values(activation.rows * activation.columns)).unwrap();
        }
        let outputs = (self.run)(&mut backend, &weights, &activations).unwrap();
        outputs.into_iter().flat_map(|output| backend.read(output).unwrap().to_vec()).collect()
    }
}

fn store(arena: &mut Arena, weight: Weight, values: &[f32]) {
    let range = |bytes: usize| weight.offset_bytes / bytes..weight.offset_bytes / bytes + values.len();
    match weight.dtype {
        Dtype::F32 => arena.as_mut_slice::<f32>()[range(4)].copy_from_slice(values),
        Dtype::F16 => {
            for (to, value) in arena.as_mut_slice::<f16>()[range(2)].iter_mut().zip(values) {
                *to = f16::from_f32(*value);
            }
        }
        Dtype::Bf16 => {
            for (to, value) in arena.as_mut_slice::<bf16>()[range(2)].iter_mut().zip(values) {
                *to = bf16::from_f32(*value);
            }
        }
        Dtype::Q8_0 | Dtype::Q4_0 | Dtype::Q4K | Dtype::Q6K => store_blocks(arena, weight, values),
    }
}

/// Any bytes are valid numbers of a block format; only its f16 scales are given sensible values.
fn store_blocks(arena: &mut Arena, weight: Weight, values: &[f32]) {
    let (elements, bytes) = (weight.dtype.block_elements() as usize, weight.dtype.block_bytes() as usize);
    let blocks = arena.as_mut_slice::<u8>()[weight.offset_bytes..].chunks_exact_mut(bytes);
    for (block, values) in blocks.zip(values.chunks_exact(elements)) {
        for (byte, value) in block.iter_mut().zip(values) {
            *byte = (value.to_bits() >> 8) as u8;
        }
        // Products of some size 1, whatever the range of the format's own numbers.
        let (scale_places, range): (&[usize], f32) = match weight.dtype {
            Dtype::Q8_0 => (&[0], 128.0),
            Dtype::Q4_0 => (&[0], 8.0),
            Dtype::Q4K => (&[0, 2], 64.0 * 16.0),
            _ => (&[208], 32.0 * 128.0),
        };
        for (place, value) in scale_places.iter().zip(values) {
            block[*place..*place + 2].copy_from_slice(&f16::from_f32(value / range).to_le_bytes());
        }
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
pub(crate) fn all() -> Vec<Case> {
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
        cases.extend(DTYPES.map(|dtype| gated(true, [dtype, dtype], rows, inputs, outputs)));
    }
    cases.extend(BLOCK_DTYPES.map(|dtype| gated(true, [dtype, dtype], 2, 512, 33)));
    cases.push(gated(true, [Dtype::F16, Dtype::Bf16], 2, 64, 9));
    for (rows, width) in [(1, 1), (3, 100), (40, 640)] {
        cases.extend(DTYPES.map(|dtype| rms_norm(dtype, rows, width)));
        cases.push(add_rms_norm(rows, width));
        cases.push(silu_multiply(rows, width));
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

pub(crate) use attention::decode_beside_a_prompt;

/// The same in one operation and in the several that it is made of.
pub(crate) fn fused_and_one_by_one() -> Vec<[Case; 2]> {
    let gated = [(Dtype::F32, 1, 50), (Dtype::Bf16, 8, 100), (Dtype::F16, 3, 64), (Dtype::Q4K, 2, 512)]
        .map(|(dtype, rows, inputs)| [true, false].map(|way| gated(way, [dtype, dtype], rows, inputs, 33)));
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
        weights,
        activations,
        run: Box::new(run),
    }
}

fn linear(dtype: Dtype, rows: usize, inputs: usize, outputs: usize) -> Case {
    let case = case(
        format!("linear {dtype:?} {rows} × {inputs} → {outputs}"),
        vec![(dtype, outputs, inputs)],
        vec![(rows, inputs), (rows, outputs)],
        |backend, weights, at| {
            backend.linear(Linear { x: at[0], weight: weights[0], out: at[1] })?;
            Ok(vec![at[1]])
        },
    );
    Case { linear_rows: rows, ..case }
}

/// Rows that rounding to 8 bits keeps: integers, of which each block has one of the largest size.
fn write_integers(backend: &mut dyn Backend, x: Activation) -> Result<(), BackendError> {
    let mut values: Vec<f32> = backend.read(x)?.iter().map(|value| (value * 127.0).round()).collect();
    values.iter_mut().step_by(32).for_each(|value| *value = -127.0);
    backend.write(x, &values)
}

fn linear_of_integers(dtype: Dtype, rows: usize, inputs: usize, outputs: usize) -> Case {
    let case = case(
        format!("linear of integers {dtype:?} {rows} × {inputs} → {outputs}"),
        vec![(dtype, outputs, inputs)],
        vec![(rows, inputs), (rows, outputs)],
        |backend, weights, at| {
            write_integers(backend, at[0])?;
            backend.linear(Linear { x: at[0], weight: weights[0], out: at[1] })?;
            Ok(vec![at[1]])
        },
    );
    Case { linear_rows: rows, ..case }
}

fn rms_norm(dtype: Dtype, rows: usize, width: usize) -> Case {
    case(
        format!("rms_norm {dtype:?} {rows} × {width}"),
        vec![(dtype, 1, width)],
        vec![(rows, width), (rows, width)],
        |backend, weights, at| {
            backend.rms_norm(RmsNorm { x: at[0], weight: weights[0], epsilon: 1e-5, out: at[1] })?;
            Ok(vec![at[1]])
        },
    )
}

/// So small that the mean is mostly epsilon.
fn rms_norm_of_small() -> Case {
    case(
        "rms_norm of small values".to_owned(),
        vec![(Dtype::F32, 1, 100)],
        vec![(3, 100), (3, 100)],
        |backend, weights, at| {
            let small: Vec<f32> = backend.read(at[0])?.iter().map(|value| value * 1e-3).collect();
            backend.write(at[0], &small)?;
            backend.rms_norm(RmsNorm { x: at[0], weight: weights[0], epsilon: 1e-5, out: at[1] })?;
            Ok(vec![at[1]])
        },
    )
}

fn add_rms_norm(rows: usize, width: usize) -> Case {
    case(
        format!("add_rms_norm {rows} × {width}"),
        vec![(Dtype::Bf16, 1, width)],
        vec![(rows, width), (rows, width)],
        |backend, weights, at| {
            let [residual, x] = [at[0], at[1]];
            backend.add_rms_norm(AddRmsNorm { residual, x, weight: weights[0], epsilon: 1e-6 })?;
            Ok(vec![residual, x])
        },
    )
}

fn head_rms_norm(dtype: Dtype, heads: usize, head_dim: usize) -> Case {
    case(
        format!("head_rms_norm {dtype:?} {heads} × {head_dim}"),
        vec![(dtype, 1, head_dim)],
        vec![(9, heads * head_dim)],
        |backend, weights, at| {
            backend.head_rms_norm(HeadRmsNorm { x: at[0], weight: weights[0], epsilon: 1e-6 })?;
            Ok(vec![at[0]])
        },
    )
}

fn add_bias(dtype: Dtype) -> Case {
    case(format!("add_bias {dtype:?}"), vec![(dtype, 1, 21)], vec![(3, 21)], |backend, weights, at| {
        backend.add_bias(AddBias { x: at[0], bias: weights[0] })?;
        Ok(vec![at[0]])
    })
}

fn silu_multiply(rows: usize, width: usize) -> Case {
    case(
        format!("silu_multiply {rows} × {width}"),
        vec![],
        vec![(rows, width), (rows, width)],
        |backend, _, at| {
            // Far into both tails: the values are in −1 to 1.
            let wide: Vec<f32> = backend.read(at[0])?.iter().map(|value| value * 30.0).collect();
            backend.write(at[0], &wide)?;
            backend.silu_multiply(SiluMultiply { gate: at[0], up: at[1] })?;
            Ok(vec![at[0]])
        },
    )
}

/// Rows of whole numbers, which rounding to 8 bits keeps, for weights in blocks.
fn gated(is_fused: bool, [gate, up]: [Dtype; 2], rows: usize, inputs: usize, outputs: usize) -> Case {
    let is_whole = gate.block_elements() > 1;
    let case = case(
        format!("gated {gate:?} {up:?} {rows} × {inputs} → {outputs}"),
        vec![(gate, outputs, inputs), (up, outputs, inputs)],
        vec![(rows, inputs), (rows, outputs), (rows, outputs)],
        move |backend, weights, at| {
            if is_whole {
                write_integers(backend, at[0])?;
            }
            let (gate_weight, up_weight) = (weights[0], weights[1]);
            let [x, gate, up] = [at[0], at[1], at[2]];
            if is_fused {
                backend.gated(Gated { x, gate_weight, up_weight, gate, up })?;
            } else {
                backend.linears(x, &[(gate_weight, gate), (up_weight, up)])?;
                backend.silu_multiply(SiluMultiply { gate, up })?;
            }
            Ok(vec![at[1]])
        },
    );
    Case { linear_rows: rows, ..case }
}

fn embed(dtype: Dtype, width: usize) -> Case {
    case(format!("embed {dtype:?}"), vec![(dtype, 9, width)], vec![(3, width)], |backend, weights, at| {
        backend.embed(Embed { tokens: &[8, 0, 8], table: weights[0], out: at[0] })?;
        Ok(vec![at[0]])
    })
}

fn gather_and_add() -> Case {
    case("gather_rows, add".to_owned(), vec![], vec![(5, 11), (2, 11), (2, 11)], |backend, _, at| {
        backend.gather_rows(GatherRows { x: at[0], rows: &[4, 1], out: at[1] })?;
        backend.add(Add { x: at[1], delta: at[2] })?;
        Ok(vec![at[1]])
    })
}

fn rope(heads: usize, head_dim: usize) -> Case {
    case(
        format!("rope {heads} × {head_dim}"),
        vec![],
        vec![(4, heads * head_dim), (4, head_dim)],
        |backend, _, at| {
            backend.rope(Rope { x: at[0], rotations: at[1] })?;
            Ok(vec![at[0]])
        },
    )
}
