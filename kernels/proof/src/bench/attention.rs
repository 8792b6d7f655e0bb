use sparkherd_kernels::{
    Attention, AttentionRows, AttentionSplit, Device as _, DeviceMemory, DriverError, Gpu, KvDtype, KvLayer,
    RowsOfSequence, Scoring, attention_tiles, median_time,
};

use super::{BenchError, Extent, speed};
use crate::report::{Limits, Rate, Speed};

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
    table_entries: u32,
}

pub(super) fn all(
    gpu: &dyn Fn() -> Result<Gpu, DriverError>,
    extent: Extent,
    limits: &Limits,
) -> Result<Vec<Speed>, BenchError> {
    let mut speeds = Vec::new();
    for (dtype, decode_name, prompt_name) in DTYPES {
        for sequences in SEQUENCES {
            speeds.push(decode(&mut gpu()?, extent, limits, (dtype, decode_name), sequences)?);
        }
        speeds.push(prompt(&mut gpu()?, extent, limits, (dtype, prompt_name))?);
    }
    Ok(speeds)
}

fn decode(
    gpu: &mut Gpu,
    extent: Extent,
    limits: &Limits,
    (dtype, name): (KvDtype, &'static str),
    sequences: u32,
) -> Result<Speed, BenchError> {
    let context = extent.size(CONTEXT);
    let at = operands(gpu, dtype, sequences, context, sequences)?;
    let numbers = |of: &dyn Fn(u32) -> u32| (0..sequences).map(of).collect::<Vec<_>>();
    let positions = list(gpu, &numbers(&|_| context - 1))?;
    let first_blocks = list(gpu, &numbers(&|sequence| sequence * (context / BLOCK_TOKENS)))?;
    let partial_elements = sequences * QUERY_HEADS * SPLITS * (HEAD_DIM + 2);
    let partial = gpu.allocate(partial_elements as usize * size_of::<f32>())?;
    let launch = Attention {
        pool: at.pool,
        queries: at.queries,
        out: at.out,
        positions,
        first_blocks,
        block_tables: at.block_tables,
        rows: sequences,
        table_entries: at.table_entries,
        query_heads: QUERY_HEADS,
        scoring: scoring(),
        split: Some(AttentionSplit { partial, run_min: RUN_MIN, splits: SPLITS }),
    };
    // SAFETY: the table's entries are of the pool's blocks, and a sequence has as many as its positions need.
    #[expect(unsafe_code, reason = "a launch whose table was made above")]
    let took = median_time(gpu, extent.launches, |gpu| Ok::<_, BenchError>(unsafe { launch.launch(gpu) }?))?;
    let rate = Rate::of_bytes(at.pool.elements.bytes() as f64, took);
    Ok(speed(name, format!("{sequences} at {context}"), took, rate, limits))
}

fn prompt(
    gpu: &mut Gpu,
    extent: Extent,
    limits: &Limits,
    (dtype, name): (KvDtype, &'static str),
) -> Result<Speed, BenchError> {
    let rows = extent.size(PROMPT);
    let at = operands(gpu, dtype, 1, rows, rows)?;
    let sequence = RowsOfSequence { first_tile: 0, first_row: 0, rows, position: 0, first_block: 0 };
    let launch = AttentionRows {
        pool: at.pool,
        queries: at.queries,
        out: at.out,
        sequences: list(gpu, &sequence.numbers())?,
        block_tables: at.block_tables,
        rows,
        sequence_count: 1,
        tiles: attention_tiles(rows, QUERY_HEADS, KV_HEADS).unwrap(),
        table_entries: at.table_entries,
        query_heads: QUERY_HEADS,
        scoring: scoring(),
    };
    // SAFETY: as above, and the one sequence has all rows.
    #[expect(unsafe_code, reason = "a launch whose numbers were made above")]
    let took = median_time(gpu, extent.launches, |gpu| Ok::<_, BenchError>(unsafe { launch.launch(gpu) }?))?;
    // Of each head, products with keys and with values; a row sees half of all on average.
    let products = f64::from(rows) * f64::from(rows) / 2.0 * f64::from(QUERY_HEADS * HEAD_DIM) * 2.0;
    let rate = Rate::of_operations(2.0 * products, took);
    Ok(speed(name, format!("{rows} rows"), took, rate, limits))
}

fn scoring() -> Scoring {
    Scoring { scale: 1.0 / (HEAD_DIM as f32).sqrt(), window: None, sinks: None, softcap: None }
}

fn operands(
    gpu: &mut Gpu,
    dtype: KvDtype,
    sequences: u32,
    context: u32,
    rows: u32,
) -> Result<Operands, BenchError> {
    let blocks = sequences * (context / BLOCK_TOKENS);
    let pool_bytes = KvLayer::bytes(dtype, blocks, KV_HEADS, HEAD_DIM).unwrap() as usize;
    let query_bytes = rows as usize * (QUERY_HEADS * HEAD_DIM) as usize * size_of::<f32>();
    let elements = gpu.allocate(pool_bytes)?;
    Ok(Operands {
        pool: KvLayer { elements, dtype, blocks, kv_heads: KV_HEADS, head_dim: HEAD_DIM },
        queries: gpu.allocate(query_bytes)?,
        out: gpu.allocate(query_bytes)?,
        // Backwards: nothing lies where it would by itself.
        block_tables: list(gpu, &(0..blocks).rev().collect::<Vec<_>>())?,
        table_entries: blocks,
    })
}

fn list(gpu: &mut Gpu, numbers: &[u32]) -> Result<DeviceMemory, BenchError> {
    let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    let memory = gpu.allocate(bytes.len())?;
    gpu.write(memory, &bytes)?;
    Ok(memory)
}
