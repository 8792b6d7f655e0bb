use sparkherd_checkpoint::Dtype;
use sparkherd_kernels::{Device as _, DeviceMemory, DriverError, Gpu, Linear, LinearRows, median_time};

use super::{BenchError, Extent, speed};
use crate::report::{Limits, Rate, Speed};

/// Formats that models have, and their names in the table.
const FORMATS: [(Dtype, &str); 5] = [
    (Dtype::Bf16, "product, BF16"),
    (Dtype::Q8_0, "product, Q8_0"),
    (Dtype::Q4_0, "product, Q4_0"),
    (Dtype::Q4K, "product, Q4_K"),
    (Dtype::Q6K, "product, Q6_K"),
];
/// Outputs and inputs of an 8B model: of attention, of the feed-forward both ways, of the head.
const MATRICES: [(u32, u32); 4] = [(4096, 4096), (14_336, 4096), (4096, 14_336), (128_256, 4096)];
/// Rows of a decode, and of a prompt.
const FEW_ROWS: [u32; 2] = [1, 8];
const MANY_ROWS: [u32; 2] = [512, 2048];
/// What is still many rows where sizes are divided.
const MORE_THAN_FEW: u32 = 2 * sparkherd_kernels::LINEAR_ROWS_MAX;
/// What is read once in a while must not be found in the cache: so many copies of a matrix are used in turns.
const UNCACHED_BYTES: usize = 512 << 20;

struct Operands {
    x: DeviceMemory,
    copies: Vec<DeviceMemory>,
    out: DeviceMemory,
    matrix_bytes: usize,
}

pub(super) fn all(
    gpu: &dyn Fn() -> Result<Gpu, DriverError>,
    extent: Extent,
    limits: &Limits,
) -> Result<Vec<Speed>, BenchError> {
    let mut speeds = Vec::new();
    for (dtype, name) in FORMATS {
        for (outputs, inputs) in MATRICES.map(|(outputs, inputs)| (extent.size(outputs), extent.size(inputs)))
        {
            for rows in FEW_ROWS
                .into_iter()
                .chain(MANY_ROWS.map(|rows| rows.div_ceil(extent.divisor).max(MORE_THAN_FEW)))
            {
                let many = rows > sparkherd_kernels::LINEAR_ROWS_MAX;
                // A prompt's head is of one row.
                if many && outputs > extent.size(100_000) {
                    continue;
                }
                let mut gpu = gpu()?;
                let at = operands(&mut gpu, extent, dtype, [rows, inputs, outputs])?;
                let mut turn = 0;
                let took = median_time(&mut gpu, extent.launches, |gpu| {
                    turn = (turn + 1) % at.copies.len();
                    let (x, weight, out) = (at.x, at.copies[turn], at.out);
                    if many {
                        return Ok::<_, BenchError>(
                            LinearRows { x, weight, dtype, out, rows, inputs, outputs }.launch(gpu)?,
                        );
                    }
                    Ok(Linear { x, weight, dtype, out, rows, inputs, outputs }.launch(gpu)?)
                })?;
                let rate = if many {
                    let products = f64::from(rows) * f64::from(inputs) * f64::from(outputs);
                    Rate::of_operations(2.0 * products, took)
                } else {
                    Rate::of_bytes(at.matrix_bytes as f64, took)
                };
                speeds.push(speed(name, format!("{rows} x {inputs} -> {outputs}"), took, rate, limits));
            }
        }
    }
    Ok(speeds)
}

fn operands(
    gpu: &mut Gpu,
    extent: Extent,
    dtype: Dtype,
    [rows, inputs, outputs]: [u32; 3],
) -> Result<Operands, BenchError> {
    let float_bytes = |columns: u32| rows as usize * columns as usize * size_of::<f32>();
    let matrix_bytes = dtype.row_bytes(inputs.into()).unwrap() as usize * outputs as usize;
    let uncached_bytes = UNCACHED_BYTES / (extent.divisor * extent.divisor) as usize;
    let copies = uncached_bytes.div_ceil(matrix_bytes);
    Ok(Operands {
        x: gpu.allocate(float_bytes(inputs))?,
        copies: (0..copies).map(|_| gpu.allocate(matrix_bytes)).collect::<Result<_, _>>()?,
        out: gpu.allocate(float_bytes(outputs))?,
        matrix_bytes,
    })
}
