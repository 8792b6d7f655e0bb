//! Products with matrices, and the gated one beside the launches it replaces.

use sparkherd_checkpoint::Dtype;
use sparkherd_kernels::{
    DeviceMemory, GateFunction, GateMultiply, Gpu, LINEAR_ROWS_MAX, Linear, LinearGated, LinearRows,
    median_time,
};

use super::noise::Noise;
use super::{Bench, BenchError};
use crate::goal::Kind;
use crate::report::{Rate, Speed};

/// Formats that models have, and their names in the table.
const FORMATS: [(Dtype, &str); 5] = [
    (Dtype::Bf16, "product, BF16"),
    (Dtype::Q8_0, "product, Q8_0"),
    (Dtype::Q4_0, "product, Q4_0"),
    (Dtype::Q4K, "product, Q4_K"),
    (Dtype::Q6K, "product, Q6_K"),
];
/// Of the gated product and of the launches it replaces.
const GATED_FORMATS: [(Dtype, [&str; 2]); 2] = [
    (Dtype::Bf16, ["gated product, BF16", "the same in three, BF16"]),
    (Dtype::Q4K, ["gated product, Q4_K", "the same in three, Q4_K"]),
];
/// Outputs and inputs of an 8B model: of attention, of the feed-forward both ways, of the head.
const MATRICES: [(u32, u32); 4] = [(4096, 4096), GATED_MATRIX, (4096, 14_336), HEAD];
const GATED_MATRIX: (u32, u32) = (14_336, 4096);
const HEAD: (u32, u32) = (128_256, 4096);
/// Rows of a decode, and of a prompt.
const FEW_ROWS: [u32; 2] = [1, 8];
/// Short prompts are computed in another shape of tiles, and are bound by what is read.
const MANY_ROWS: [u32; 5] = [16, 64, 128, 512, 2048];
/// What is still many rows where sizes are divided.
const MORE_THAN_FEW: u32 = 2 * LINEAR_ROWS_MAX;
/// What is read once in a while must not be found in the cache: so many copies of a matrix are used in turns.
const UNCACHED_BYTES: usize = 512 << 20;

struct Operands {
    x: DeviceMemory,
    copies: Vec<DeviceMemory>,
    out: DeviceMemory,
    matrix_bytes: usize,
}

pub(super) fn all(bench: &Bench<'_>) -> Result<Vec<Speed>, BenchError> {
    let mut speeds = Vec::new();
    for (dtype, name) in FORMATS {
        for matrix in MATRICES {
            // A prompt's head is of one row.
            let many = MANY_ROWS.iter().filter(|_| matrix != HEAD);
            let many = many.map(|rows| rows.div_ceil(bench.extent.divisor).max(MORE_THAN_FEW));
            let mut rows: Vec<u32> = FEW_ROWS.into_iter().chain(many).collect();
            // Divided, several are the same.
            rows.dedup();
            speeds.extend(products(bench, (dtype, name), matrix, &rows)?);
        }
    }
    for (dtype, names) in GATED_FORMATS {
        speeds.extend(gated(bench, dtype, names)?);
    }
    Ok(speeds)
}

/// One matrix by each number of rows.
fn products(
    bench: &Bench<'_>,
    (dtype, name): (Dtype, &'static str),
    (outputs, inputs): (u32, u32),
    all_rows: &[u32],
) -> Result<Vec<Speed>, BenchError> {
    let [outputs, inputs] = [outputs, inputs].map(|size| bench.extent.size(size));
    let mut gpu = (bench.gpu)()?;
    let rows_max = all_rows.iter().copied().max().unwrap_or(1);
    let at = operands(bench, &mut gpu, dtype, [rows_max, inputs, outputs])?;
    let measured = all_rows.iter().map(|&rows| {
        let is_few = rows <= LINEAR_ROWS_MAX;
        let mut turn = 0;
        let took = median_time(&mut gpu, bench.extent.launches, |gpu| {
            turn = (turn + 1) % at.copies.len();
            let (x, weight, out) = (at.x, at.copies[turn], at.out);
            if is_few {
                Linear { x, weight, dtype, out, rows, inputs, outputs }.launch(gpu)?;
            } else {
                LinearRows { x, weight, dtype, out, rows, inputs, outputs }.launch(gpu)?;
            }
            Ok::<_, BenchError>(())
        })?;
        let shape = format!("{rows} x {inputs} -> {outputs}");
        if is_few {
            let rate = Rate::of_bytes(at.matrix_bytes as f64, took);
            let kind = Kind::FewRows { rows, matrix_bytes: at.matrix_bytes as u64 };
            return Ok(bench.speed(name, shape, took, rate, kind));
        }
        let products = f64::from(rows) * f64::from(inputs) * f64::from(outputs);
        let rate = Rate::of_operations(2.0 * products, took);
        Ok(bench.speed(name, shape, took, rate, Kind::ManyRows { rows, dtype }))
    });
    measured.collect()
}

fn gated(bench: &Bench<'_>, dtype: Dtype, [one, three]: [&'static str; 2]) -> Result<Vec<Speed>, BenchError> {
    let (outputs, inputs) = GATED_MATRIX;
    let [outputs, inputs] = [outputs, inputs].map(|size| bench.extent.size(size));
    let mut gpu = (bench.gpu)()?;
    let mut speeds = Vec::new();
    for rows in FEW_ROWS {
        let at = operands(bench, &mut gpu, dtype, [rows, inputs, outputs])?;
        let beside = Noise::new().floats(&mut gpu, [rows, outputs])?;
        let (x, out, function) = (at.x, at.out, GateFunction::default());
        let mut turn = 0;
        let mut turned = || {
            turn = (turn + 2) % at.copies.len();
            [at.copies[turn], at.copies[(turn + 1) % at.copies.len()]]
        };
        let in_one = median_time(&mut gpu, bench.extent.launches, |gpu| {
            let [gate, up] = turned();
            LinearGated { x, gate, up, dtype, out, rows, inputs, outputs, function }.launch(gpu)?;
            Ok::<_, BenchError>(())
        })?;
        let in_three = median_time(&mut gpu, bench.extent.launches, |gpu| {
            let [gate, up] = turned();
            Linear { x, weight: gate, dtype, out, rows, inputs, outputs }.launch(gpu)?;
            Linear { x, weight: up, dtype, out: beside, rows, inputs, outputs }.launch(gpu)?;
            let count = u64::from(rows) * u64::from(outputs);
            GateMultiply { gate: out, up: beside, count, function }.launch(gpu)?;
            Ok::<_, BenchError>(())
        })?;
        let bytes = 2 * at.matrix_bytes as u64;
        let shape = || format!("{rows} x {inputs} -> {outputs}");
        let rate = |took| Rate::of_bytes(bytes as f64, took);
        let kind = Kind::FewRows { rows, matrix_bytes: bytes };
        speeds.push(bench.speed(one, shape(), in_one, rate(in_one), kind));
        speeds.push(bench.speed(three, shape(), in_three, rate(in_three), Kind::Beside));
    }
    Ok(speeds)
}

fn operands(
    bench: &Bench<'_>,
    gpu: &mut Gpu,
    dtype: Dtype,
    [rows, inputs, outputs]: [u32; 3],
) -> Result<Operands, BenchError> {
    let mut noise = Noise::new();
    let first = noise.matrix(gpu, dtype, [outputs, inputs])?;
    let uncached_bytes = UNCACHED_BYTES / (bench.extent.divisor * bench.extent.divisor) as usize;
    // A gated product reads two.
    let count = uncached_bytes.div_ceil(first.bytes()).max(2);
    let mut copies = vec![first];
    for _ in 1..count {
        copies.push(noise.matrix(gpu, dtype, [outputs, inputs])?);
    }
    Ok(Operands {
        x: noise.floats(gpu, [rows, inputs])?,
        copies,
        out: noise.floats(gpu, [rows, outputs])?,
        matrix_bytes: first.bytes(),
    })
}
