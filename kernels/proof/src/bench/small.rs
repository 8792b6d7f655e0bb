//! Launches between the products, which are short: as a recorded step has them, and beside those they replace.

use sparkherd_checkpoint::Dtype;
use sparkherd_kernels::{
    AddRmsNorm, AttentionInputs, HeadRmsNorm, KvDtype, KvLayer, KvWrite, RmsNorm, Rope, Vector,
};

use super::noise::{Noise, numbers};
use super::{Bench, BenchError};
use crate::goal::Kind;
use crate::report::{Rate, Speed};

/// Of an 8B model whose heads are normalised.
const WIDTH: u32 = 4096;
const QUERY_HEADS: u32 = 32;
const KV_HEADS: u32 = 8;
const HEAD_DIM: u32 = 128;
const EPSILON: f32 = 1e-5;
/// Of a decode, and of a prompt.
const FEW_ROWS: [u32; 2] = [1, 8];
const MANY_ROWS: u32 = 512;
const BLOCK_TOKENS: u32 = 16;

pub(super) fn all(bench: &Bench<'_>) -> Result<Vec<Speed>, BenchError> {
    let mut speeds = Vec::new();
    let many = MANY_ROWS.div_ceil(bench.extent.divisor);
    for rows in FEW_ROWS.into_iter().chain([many]) {
        speeds.extend(norms(bench, rows)?);
    }
    for rows in FEW_ROWS {
        speeds.extend(attention_inputs(bench, rows)?);
    }
    Ok(speeds)
}

fn norms(bench: &Bench<'_>, rows: u32) -> Result<[Speed; 2], BenchError> {
    let mut gpu = (bench.gpu)()?;
    let (width, dtype, epsilon) = (bench.extent.size(WIDTH), Dtype::Bf16, EPSILON);
    let mut noise = Noise::new();
    let [x, out, residual] = [(); 3].map(|()| noise.floats(&mut gpu, [rows, width]));
    let (x, out, residual) = (x?, out?, residual?);
    let weight = noise.matrix(&mut gpu, dtype, [1, width])?;
    let alone = bench.recorded_time(&mut gpu, |gpu| {
        Ok(RmsNorm { x, weight, dtype, out, rows, width, epsilon }.launch(gpu)?)
    })?;
    let added = bench.recorded_time(&mut gpu, |gpu| {
        Ok(AddRmsNorm { residual, x, weight, dtype, rows, width, epsilon }.launch(gpu)?)
    })?;
    let row_bytes = f64::from(rows) * f64::from(width) * 4.0;
    let line = |name, took, times: f64| {
        let rate = Rate::of_bytes(times * row_bytes, took);
        bench.speed(name, format!("{rows} x {width}"), took, rate, Kind::Beside)
    };
    // Read and written; the sum too.
    Ok([line("rms_norm", alone, 2.0), line("add_rms_norm", added, 4.0)])
}

fn attention_inputs(bench: &Bench<'_>, rows: u32) -> Result<[Speed; 2], BenchError> {
    let mut gpu = (bench.gpu)()?;
    let mut noise = Noise::new();
    let [query_width, kv_width] = [QUERY_HEADS, KV_HEADS].map(|heads| heads * HEAD_DIM);
    let queries = noise.floats(&mut gpu, [rows, query_width])?;
    let [keys, values] = [(); 2].map(|()| noise.floats(&mut gpu, [rows, kv_width]));
    let (keys, values) = (keys?, values?);
    // Not on a circle, but of its size.
    let rotations = noise.floats(&mut gpu, [rows, HEAD_DIM])?;
    let (dtype, epsilon) = (Dtype::Bf16, EPSILON);
    let weight = noise.matrix(&mut gpu, dtype, [1, HEAD_DIM])?;
    let pool_dtype = KvDtype::Bf16;
    let pool_bytes =
        KvLayer::bytes(pool_dtype, rows, KV_HEADS, HEAD_DIM).ok_or(BenchError::Size("a pool"))?;
    let elements = noise.pool(&mut gpu, pool_dtype, pool_bytes)?;
    let pool = KvLayer { elements, dtype: pool_dtype, blocks: rows, kv_heads: KV_HEADS, head_dim: HEAD_DIM };
    // A block each.
    let slots = numbers(&mut gpu, &(0..rows).map(|row| row * BLOCK_TOKENS).collect::<Vec<_>>())?;
    let norm = Some(Vector { values: weight, dtype });
    let inputs = AttentionInputs {
        pool,
        queries,
        keys,
        values,
        rotations,
        slots,
        query_bias: None,
        key_bias: None,
        value_bias: None,
        query_norm: norm,
        key_norm: norm,
        epsilon,
        rows,
        query_heads: QUERY_HEADS,
    };
    let in_one = bench.recorded_time(&mut gpu, |gpu| {
        // SAFETY: each row has a block of its own, and all operands are apart.
        #[expect(unsafe_code, reason = "a launch whose slots were made above")]
        let launched = unsafe { inputs.launch(gpu) };
        Ok(launched?)
    })?;
    let in_five = bench.recorded_time(&mut gpu, |gpu| {
        for (x, heads) in [(queries, QUERY_HEADS), (keys, KV_HEADS)] {
            HeadRmsNorm { x, weight, dtype, heads: rows * heads, head_dim: HEAD_DIM, epsilon }.launch(gpu)?;
            Rope { x, rotations, rows, heads, head_dim: HEAD_DIM }.launch(gpu)?;
        }
        // SAFETY: as above.
        #[expect(unsafe_code, reason = "a launch whose slots were made above")]
        let launched = unsafe { KvWrite { pool, keys, values, slots, rows }.launch(gpu) };
        Ok(launched?)
    })?;
    let line = |name, took| {
        // Queries are read and written, keys and values read, and stored in half their bytes.
        let bytes = f64::from(rows) * f64::from(2 * 4 * query_width + (2 * 4 + 2 * 2) * kv_width);
        bench.speed(name, format!("{rows} rows"), took, Rate::of_bytes(bytes, took), Kind::Beside)
    };
    Ok([line("attention_inputs", in_one), line("the same in five", in_five)])
}
