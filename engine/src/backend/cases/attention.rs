//! Cases of attention, and of what goes before it.

use sparkherd_checkpoint::Dtype;
use sparkherd_footprint::KvDtype;

use super::{Case, DTYPES, case};
use crate::backend::{
    Activation, Attention, AttentionInputs, AttentionOptions, Backend, BackendError, HeadNorms, KvShape,
    KvWrite, SequenceRows, Weight, unfused,
};

pub(super) fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    for heads in [[1, 1, 2], [6, 2, 20], [8, 2, 128]] {
        cases.push(inputs(true, KvDtype::F32, heads, None, false));
        cases.extend(DTYPES.map(|dtype| inputs(true, KvDtype::F32, heads, Some(dtype), true)));
    }
    // Without a sum, whose order would now and then lead to another rounding.
    cases.push(inputs(true, KvDtype::Bf16, [6, 2, 20], Some(Dtype::Bf16), false));
    // The sizes that models have; of few rows, and of many.
    for heads in [[8, 2, 128], [2, 1, 256], [1, 1, 96], [2, 2, 80]] {
        cases.extend([[21, 5], [21, 37]].map(|tokens| attention(KvDtype::Bf16, heads, tokens)));
    }
    cases.extend([KvDtype::F32, KvDtype::Fp8].map(|dtype| attention(dtype, [3, 1, 64], [21, 37])));
    cases.push(attention_of_many_sequences());
    for tokens in [[50, 45], [86, 9]] {
        let with = |options| attention_with(options, KvDtype::Bf16, [6, 2, 20], tokens);
        cases.extend(attention_options().map(with));
    }
    cases.push(kv_of_ties());
    cases.push(kv_of_every_fp8());
    cases.push(inputs(true, KvDtype::Fp8, [6, 2, 20], Some(Dtype::F16), false));
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

/// What is stored is seen by two sequences, of 12 and 7 tokens, that attend to themselves.
pub(super) fn inputs(
    is_fused: bool,
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
            let args = AttentionInputs {
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
            };
            if is_fused {
                backend.attention_inputs(&args)?;
            } else {
                unfused::attention_inputs(backend, &args)?;
            }
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
    case.stores_sums = has_norms;
    case
}

/// One token, whose queries, keys and values these are, and which gets its own value as it was stored.
fn attend_to_itself(backend: &mut dyn Backend, at: &[Activation]) -> Result<(), BackendError> {
    backend.kv_write(KvWrite { layer: 0, keys: at[1], values: at[2], slots: &[0] })?;
    backend.attention(Attention {
        layer: 0,
        queries: at[0],
        scale: 1.0,
        options: AttentionOptions::default(),
        sequences: &[SequenceRows { first_row: 0, rows: 1, position: 0, first_block: 0 }],
        block_tables: &[0],
        out: at[3],
    })
}

/// Values half-way between two of BF16, which go to the even one: what attention to one token returns.
fn kv_of_ties() -> Case {
    let run = |backend: &mut dyn Backend, _: &[Weight], at: &[Activation]| {
        let tie = |value: &f32| f32::from_bits(value.to_bits() & 0xffff_0000 | 0x8000);
        let ties: Vec<f32> = backend.read(at[2])?.iter().map(tie).collect();
        backend.write(at[2], &ties)?;
        attend_to_itself(backend, at)?;
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
        attend_to_itself(backend, at)?;
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
pub(super) fn attention(
    dtype: KvDtype,
    [query_heads, kv_heads, head_dim]: [usize; 3],
    [earlier, rows]: [usize; 2],
) -> Case {
    attention_with(Options::default(), dtype, [query_heads, kv_heads, head_dim], [earlier, rows])
}

/// Sequences of few and of many rows, in no order; each has blocks of its own.
fn attention_of_many_sequences() -> Case {
    const ROWS: [usize; 7] = [3, 17, 1, 40, 16, 2, 15];
    let (query_heads, kv_heads, head_dim) = (6, 2, 20);
    let (mut sequences, mut slots, mut first_row, mut first_block) = (Vec::new(), Vec::new(), 0, 0);
    for rows in ROWS {
        sequences.push(SequenceRows { first_row, rows, position: 0, first_block });
        slots.extend((16 * first_block..16 * first_block + rows).map(|slot| slot as u32));
        first_row += rows;
        first_block += rows.div_ceil(16);
    }
    let (width, kv_width) = (query_heads * head_dim, kv_heads * head_dim);
    let mut case = case(
        "kv_write, attention of many sequences".to_owned(),
        vec![],
        vec![(first_row, width), (first_row, kv_width), (first_row, kv_width), (first_row, width)],
        move |backend, _, at| {
            backend.kv_write(KvWrite { layer: 0, keys: at[1], values: at[2], slots: &slots })?;
            let block_tables: Vec<u32> = (0..first_block as u32).collect();
            backend.attention(Attention {
                layer: 0,
                queries: at[0],
                scale: 1.0 / (head_dim as f32).sqrt(),
                options: AttentionOptions::default(),
                sequences: &sequences,
                block_tables: &block_tables,
                out: at[3],
            })?;
            Ok(vec![at[3]])
        },
    );
    case.kv = KvShape { layers: 1, blocks: first_block, kv_heads, head_dim, dtype: KvDtype::Bf16 };
    case.attention_rows = ROWS.into_iter().max().unwrap_or(0);
    case
}

/// The attention of one row after 70 others: in a step of its own, then beside a prompt of 1 to 32.
pub fn decode_beside_a_prompt(prompt: usize) -> Case {
    const EARLIER: usize = 70;
    let (query_heads, kv_heads, head_dim) = (4, 2, 20);
    let (width, kv_width) = (query_heads * head_dim, kv_heads * head_dim);
    // Two blocks for the prompt, then those of the one row's sequence.
    let slots: Vec<u32> = (0..prompt).chain(32..=32 + EARLIER).map(|slot| slot as u32).collect();
    let tokens = slots.len();
    let mut case = case(
        format!("attention of one row, alone and beside a prompt of {prompt}"),
        vec![],
        vec![(tokens, kv_width), (tokens, kv_width), (1 + prompt, width), (1, width), (1 + prompt, width)],
        move |backend, _, at| {
            backend.kv_write(KvWrite { layer: 0, keys: at[0], values: at[1], slots: &slots })?;
            let sequences = [
                SequenceRows { first_row: 0, rows: 1, position: EARLIER, first_block: 0 },
                SequenceRows { first_row: 1, rows: prompt, position: 0, first_block: 5 },
            ];
            for (sequences, out) in [(&sequences[..1], at[3]), (&sequences[..], at[4])] {
                backend.attention(Attention {
                    layer: 0,
                    queries: at[2].first(out.rows),
                    scale: 1.0 / (head_dim as f32).sqrt(),
                    options: AttentionOptions::default(),
                    sequences,
                    block_tables: &[2, 3, 4, 5, 6, 0, 1],
                    out,
                })?;
            }
            Ok(vec![at[3], at[4].first(1)])
        },
    );
    case.kv = KvShape { layers: 1, blocks: 7, kv_heads, head_dim, dtype: KvDtype::Bf16 };
    case
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
    case.attention_rows = rows;
    case
}
