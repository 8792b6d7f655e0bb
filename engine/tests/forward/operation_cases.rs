//! One list of operation cases, for every backend: what to run on which shapes, with seeded values.

use half::{bf16, f16};
use sparkherd_checkpoint::Dtype;
use sparkherd_engine::backend::{
    Activation, Add, AddBias, AddRmsNorm, Attention, AttentionInputs, AttentionOptions, Backend,
    BackendError, Embed, Gated, GatherRows, HeadNorms, HeadRmsNorm, HostMemory, KvShape, KvWrite, Linear,
    RmsNorm, Rope, SequenceRows, SiluMultiply, Weight, arena::Arena,
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
        cases.extend(DTYPES.map(|dtype| gated([dtype, dtype], rows, inputs, outputs)));
    }
    cases.extend(BLOCK_DTYPES.map(|dtype| gated([dtype, dtype], 2, 512, 33)));
    cases.push(gated([Dtype::F16, Dtype::Bf16], 2, 64, 9));
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
    for heads in [[1, 1, 2], [6, 2, 20], [8, 2, 128]] {
        cases.push(attention_inputs(KvDtype::F32, heads, None, false));
        cases.extend(DTYPES.map(|dtype| attention_inputs(KvDtype::F32, heads, Some(dtype), true)));
    }
    // Without a sum, whose order would now and then lead to another rounding.
    cases.push(attention_inputs(KvDtype::Bf16, [6, 2, 20], Some(Dtype::Bf16), false));
    // The sizes that models have.
    for heads in [[8, 2, 128], [2, 1, 256], [1, 1, 96]] {
        cases.push(attention(KvDtype::Bf16, heads, [21, 5]));
    }
    for tokens in [[50, 45], [86, 9]] {
        let with = |options| attention_with(options, KvDtype::Bf16, [6, 2, 20], tokens);
        cases.extend(attention_options().map(with));
    }
    cases.push(kv_of_ties());
    cases.push(kv_of_every_fp8());
    cases.push(attention_inputs(KvDtype::Fp8, [6, 2, 20], Some(Dtype::F16), false));
    cases.push(attention(KvDtype::Fp8, [8, 2, 128], [21, 5]));
    for dtype in [KvDtype::F32, KvDtype::Bf16, KvDtype::Fp8] {
        for (query_heads, kv_heads, head_dim) in [(1, 1, 64), (4, 2, 6), (9, 3, 20), (40, 1, 16)] {
            // Within one fold of the running softmax, and across two ends of one; of many rows, and of few.
            for tokens in [[21, 19], [50, 95], [21, 9], [136, 9]] {
                cases.push(attention(dtype, [query_heads, kv_heads, head_dim], tokens));
            }
        }
    }
    cases
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
fn gated([gate, up]: [Dtype; 2], rows: usize, inputs: usize, outputs: usize) -> Case {
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
            backend.gated(Gated { x: at[0], gate_weight, up_weight, gate: at[1], up: at[2] })?;
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

/// What is stored is seen by two sequences, of 12 and 7 tokens, that attend to themselves.
fn attention_inputs(
    dtype: KvDtype,
    [query_heads, kv_heads, head_dim]: [usize; 3],
    bias: Option<Dtype>,
    has_norms: bool,
) -> Case {
    const ROWS: usize = 19;
    let (width, kv_width) = (query_heads * head_dim, kv_heads * head_dim);
    let vector = bias.unwrap_or(Dtype::F32);
    let mut case = case(
        format!(
            "attention_inputs {dtype:?} {query_heads}/{kv_heads} × {head_dim}, biases {bias:?}, norms {has_norms}"
        ),
        [width, kv_width, kv_width, head_dim, head_dim].map(|columns| (vector, 1, columns)).to_vec(),
        vec![(ROWS, width), (ROWS, kv_width), (ROWS, kv_width), (ROWS, head_dim), (ROWS, width)],
        move |backend, weights, at| {
            let slots: Vec<u32> = (16..28).chain(0..7).collect();
            backend.attention_inputs(AttentionInputs {
                layer: 0,
                queries: at[0],
                keys: at[1],
                values: at[2],
                biases: [0, 1, 2].map(|index| bias.is_some().then_some(weights[index])),
                head_norms: has_norms.then_some(HeadNorms {
                    query: weights[3],
                    key: weights[4],
                    epsilon: 1e-6,
                }),
                rotations: at[3],
                slots: &slots,
            })?;
            backend.attention(Attention {
                layer: 0,
                queries: at[0],
                scale: 1.0 / (head_dim as f32).sqrt(),
                options: AttentionOptions::default(),
                sequences: &[
                    SequenceRows { first_row: 0, rows: 12, position: 0, first_block: 0 },
                    SequenceRows { first_row: 12, rows: 7, position: 0, first_block: 1 },
                ],
                block_tables: &[1, 0],
                out: at[4],
            })?;
            Ok(vec![at[0], at[4]])
        },
    );
    case.kv = KvShape { layers: 1, blocks: 2, kv_heads, head_dim, dtype };
    case
}

/// Values half-way between two of BF16, which go to the even one: what attention to one token returns.
fn kv_of_ties() -> Case {
    let run = |backend: &mut dyn Backend, _: &[Weight], at: &[Activation]| {
        let tie = |value: &f32| f32::from_bits(value.to_bits() & 0xffff_0000 | 0x8000);
        let ties: Vec<f32> = backend.read(at[2])?.iter().map(tie).collect();
        backend.write(at[2], &ties)?;
        backend.kv_write(KvWrite { layer: 0, keys: at[1], values: at[2], slots: &[0] })?;
        backend.attention(Attention {
            layer: 0,
            queries: at[0],
            scale: 1.0,
            options: AttentionOptions::default(),
            sequences: &[SequenceRows { first_row: 0, rows: 1, position: 0, first_block: 0 }],
            block_tables: &[0],
            out: at[3],
        })?;
        Ok(vec![at[3]])
    };
    let kv = KvShape { layers: 1, blocks: 1, kv_heads: 1, head_dim: 64, dtype: KvDtype::Bf16 };
    Case { kv, ..case("kv_write of ties".to_owned(), vec![], vec![(1, 64); 4], run) }
}

/// Half-way between each two numbers of e4m3, which go to the even one, and what is beyond the largest; as parts of themselves,
/// which are all of one size.
fn kv_of_every_fp8() -> Case {
    let number = |code: u8| match (code >> 3, f32::from(code & 7) / 8.0) {
        (0, part) => part * 2.0_f32.powi(-6),
        (exponent, part) => (1.0 + part) * 2.0_f32.powi(i32::from(exponent) - 7),
    };
    let half_way = (0..0x7e_u8).map(move |code| f32::midpoint(number(code), number(code + 1)));
    let sizes = half_way.chain([500.0, 1e30]);
    let values: Vec<f32> =
        sizes.zip([1.0, -1.0].into_iter().cycle()).map(|(size, sign)| size * sign).collect();
    let head_dim = values.len();
    let run = move |backend: &mut dyn Backend, _: &[Weight], at: &[Activation]| {
        backend.write(at[2], &values)?;
        backend.kv_write(KvWrite { layer: 0, keys: at[1], values: at[2], slots: &[0] })?;
        backend.attention(Attention {
            layer: 0,
            queries: at[0],
            scale: 1.0,
            options: AttentionOptions::default(),
            sequences: &[SequenceRows { first_row: 0, rows: 1, position: 0, first_block: 0 }],
            block_tables: &[0],
            out: at[3],
        })?;
        let parts: Vec<f32> =
            backend.read(at[3])?.iter().zip(&values).map(|(got, value)| got / value).collect();
        backend.write(at[3], &parts)?;
        Ok(vec![at[3]])
    };
    let kv = KvShape { layers: 1, blocks: 1, kv_heads: 1, head_dim, dtype: KvDtype::Fp8 };
    Case { kv, ..case("kv_write of every FP8".to_owned(), vec![], vec![(1, head_dim); 4], run) }
}

/// Two sequences, one that goes on after `earlier` stored tokens with `rows` more, one that begins with 3; in scattered
/// blocks, in the second of two layers.
fn attention(
    dtype: KvDtype,
    [query_heads, kv_heads, head_dim]: [usize; 3],
    [earlier, rows]: [usize; 2],
) -> Case {
    attention_with(Options::default(), dtype, [query_heads, kv_heads, head_dim], [earlier, rows])
}

/// Each by itself, and all together: windows of a row alone, of less than a block, and of more than some rows have.
fn attention_options() -> [Options; 7] {
    let none = Options::default();
    [
        Options { window: Some(1), ..none },
        Options { window: Some(7), ..none },
        Options { window: Some(61), ..none },
        Options { sinks: Some(Dtype::F32), ..none },
        Options { sinks: Some(Dtype::Bf16), ..none },
        Options { softcap: Some(0.75), ..none },
        Options { window: Some(20), sinks: Some(Dtype::F16), softcap: Some(1.5) },
    ]
}

/// [`AttentionOptions`] before there are any weights.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Options {
    window: Option<usize>,
    sinks: Option<Dtype>,
    softcap: Option<f32>,
}

fn attention_with(
    options: Options,
    dtype: KvDtype,
    [query_heads, kv_heads, head_dim]: [usize; 3],
    [earlier, rows]: [usize; 2],
) -> Case {
    let (width, kv_width) = (query_heads * head_dim, kv_heads * head_dim);
    let (tokens, all_rows) = (earlier + rows, rows + 3);
    // One more for the second sequence, and three that nobody has: 7 and 14, which have no divisor in common with 5.
    let blocks = tokens.div_ceil(16) + 4;
    let block = move |index: usize| (5 * index + 6) % blocks;
    let has_options = options != Options::default();
    let told = if has_options { format!(", {options:?}") } else { String::new() };
    let mut case = case(
        format!(
            "kv_write, attention {dtype:?} {query_heads}/{kv_heads} × {head_dim}, {earlier} + {rows} tokens{told}"
        ),
        options.sinks.map(|dtype| (dtype, 1, query_heads)).into_iter().collect(),
        vec![
            (all_rows, width),
            (all_rows, kv_width),
            (all_rows, kv_width),
            (earlier, kv_width),
            (earlier, kv_width),
            (all_rows, width),
        ],
        move |backend, weights, at| {
            let table: Vec<u32> = (0..=tokens.div_ceil(16)).map(|index| block(index) as u32).collect();
            let slot = |position: usize| table[position / 16] * 16 + (position % 16) as u32;
            let second = table.len() - 1;
            let before: Vec<u32> = (0..earlier).map(slot).collect();
            let now: Vec<u32> = (earlier..tokens).chain(16 * second..16 * second + 3).map(slot).collect();
            backend.kv_write(KvWrite { layer: 1, keys: at[3], values: at[4], slots: &before })?;
            backend.kv_write(KvWrite { layer: 1, keys: at[1], values: at[2], slots: &now })?;
            backend.attention(Attention {
                layer: 1,
                queries: at[0],
                scale: 3.0 / (head_dim as f32).sqrt(),
                options: AttentionOptions {
                    window: options.window,
                    sinks: options.sinks.map(|_| weights[0]),
                    softcap: options.softcap,
                },
                sequences: &[
                    SequenceRows { first_row: 0, rows, position: earlier, first_block: 0 },
                    SequenceRows { first_row: rows, rows: 3, position: 0, first_block: second },
                ],
                block_tables: &table,
                out: at[5],
            })?;
            Ok(vec![at[5]])
        },
    );
    case.kv = KvShape { layers: 2, blocks, kv_heads, head_dim, dtype };
    case.has_options = has_options;
    case
}
