use sparkherd_kernels::{
    Attention, AttentionRows, AttentionSplit, DeviceMemory, Gpu, KvDtype, KvLayer, RowsOfSequence, Scoring,
    attention_tiles, median_time,
};

use super::noise::{Noise, numbers};
use super::{Bench, BenchError};
use crate::goal::Kind;
use crate::report::{Rate, Speed};

/// Of an 8B model.
const QUERY_HEADS: u32 = 32;
const KV_HEADS: u32 = 8;
const HEAD_DIM: u32 = 128;
const BLOCK_TOKENS: u32 = 16;
/// Positions of each sequence, and of the prompt.
const CONTEXT: u32 = 8192;
const PROMPT: u32 = 2048;
const SEQUENCES: [u32; 2] = [1, 8];
/// As the engine has them.
const RUN_MIN: u32 = 256;
const SPLITS: u32 = 32;
const DTYPES: [(KvDtype, &str, &str); 2] = [
    (KvDtype::Bf16, "attention, decode, BF16", "attention, prompt, BF16"),
    (KvDtype::Fp8, "attention, decode, FP8", "attention, prompt, FP8"),
];

struct Operands {
    pool: KvLayer,
    queries: DeviceMemory,
    out: DeviceMemory,
    block_tables: DeviceMemory,
    blocks: u32,
}

pub(super) fn all(bench: &Bench<'_>) -> Result<Vec<Speed>, BenchError> {
    let mut speeds = Vec::new();
    for (dtype, decode_name, prompt_name) in DTYPES {
        for sequences in SEQUENCES {
            speeds.push(decode(bench, (dtype, decode_name), sequences)?);
        }
        speeds.push(prompt(bench, (dtype, prompt_name))?);
    }
    Ok(speeds)
}

fn decode(
    bench: &Bench<'_>,
    (dtype, name): (KvDtype, &'static str),
    sequences: u32,
) -> Result<Speed, BenchError> {
    let mut gpu = (bench.gpu)()?;
    let context = bench.extent.size(CONTEXT);
    let at = operands(&mut gpu, dtype, [sequences, context], sequences)?;
    let of_each = |of: &dyn Fn(u32) -> u32| (0..sequences).map(of).collect::<Vec<_>>();
    let positions = numbers(&mut gpu, &of_each(&|_| context - 1))?;
    let first_blocks = numbers(&mut gpu, &of_each(&|sequence| sequence * (context / BLOCK_TOKENS)))?;
    let partial = Noise::new().floats(&mut gpu, [sequences * QUERY_HEADS * SPLITS, HEAD_DIM + 2])?;
    let launch = Attention {
        pool: at.pool,
        queries: at.queries,
        out: at.out,
        positions,
        first_blocks,
        block_tables: at.block_tables,
        rows: sequences,
        table_entries: at.blocks,
        query_heads: QUERY_HEADS,
        scoring: scoring(),
        split: Some(AttentionSplit { partial, run_min: RUN_MIN, splits: SPLITS }),
    };
    let took = median_time(&mut gpu, bench.extent.launches, |gpu| {
        // SAFETY: the table's entries are of the pool's blocks, and a sequence has as many as its positions need.
        #[expect(unsafe_code, reason = "a launch whose table was made above")]
        let launched = unsafe { launch.launch(gpu) };
        Ok::<_, BenchError>(launched?)
    })?;
    let rate = Rate::of_bytes(at.pool.elements.bytes() as f64, took);
    Ok(bench.speed(name, format!("{sequences} at {context}"), took, rate, Kind::Decode { context }))
}

fn prompt(bench: &Bench<'_>, (dtype, name): (KvDtype, &'static str)) -> Result<Speed, BenchError> {
    let mut gpu = (bench.gpu)()?;
    let rows = bench.extent.size(PROMPT);
    let at = operands(&mut gpu, dtype, [1, rows], rows)?;
    let sequence = RowsOfSequence { first_tile: 0, first_row: 0, rows, position: 0, first_block: 0 };
    let launch = AttentionRows {
        pool: at.pool,
        queries: at.queries,
        out: at.out,
        sequences: numbers(&mut gpu, &sequence.numbers())?,
        block_tables: at.block_tables,
        rows,
        sequence_count: 1,
        tiles: attention_tiles(rows, QUERY_HEADS, KV_HEADS).ok_or(BenchError::Size("tiles of attention"))?,
        table_entries: at.blocks,
        query_heads: QUERY_HEADS,
        scoring: scoring(),
    };
    let took = median_time(&mut gpu, bench.extent.launches, |gpu| {
        // SAFETY: as above, and the one sequence has all rows.
        #[expect(unsafe_code, reason = "a launch whose numbers were made above")]
        let launched = unsafe { launch.launch(gpu) };
        Ok::<_, BenchError>(launched?)
    })?;
    // Of each head, products with keys and with values; a row sees half of all on average.
    let products = f64::from(rows) * f64::from(rows) / 2.0 * f64::from(QUERY_HEADS * HEAD_DIM) * 2.0;
    let rate = Rate::of_operations(2.0 * products, took);
    Ok(bench.speed(name, format!("{rows} rows"), took, rate, Kind::Beside))
}

fn scoring() -> Scoring {
    Scoring { scale: 1.0 / (HEAD_DIM as f32).sqrt(), window: None, sinks: None, softcap: None }
}

/// For so many rows of all sequences together.
fn operands(
    gpu: &mut Gpu,
    dtype: KvDtype,
    [sequences, context]: [u32; 2],
    rows: u32,
) -> Result<Operands, BenchError> {
    let mut noise = Noise::new();
    let blocks = sequences * (context / BLOCK_TOKENS);
    let pool_bytes = KvLayer::bytes(dtype, blocks, KV_HEADS, HEAD_DIM).ok_or(BenchError::Size("a pool"))?;
    let elements = noise.pool(gpu, dtype, pool_bytes)?;
    Ok(Operands {
        pool: KvLayer { elements, dtype, blocks, kv_heads: KV_HEADS, head_dim: HEAD_DIM },
        queries: noise.floats(gpu, [rows, QUERY_HEADS * HEAD_DIM])?,
        out: noise.floats(gpu, [rows, QUERY_HEADS * HEAD_DIM])?,
        // Backwards: nothing lies where it would by itself.
        block_tables: numbers(gpu, &(0..blocks).rev().collect::<Vec<_>>())?,
        blocks,
    })
}
