use sparkherd_kernels::{Device as _, DriverError, Gpu, Multiply, ReadWords};

use super::{BenchError, Extent, time};
use crate::report::{Limits, Rate};

/// More than any cache holds: 50 MiB on Hopper, 24 on GB10.
const READ_BYTES: usize = 2 << 30;
/// Blocks of each multiprocessor: all the threads it has, or nearly.
const BLOCKS_PER_MULTIPROCESSOR: u32 = 8;
/// Long enough that beginning and ending count for nothing.
const ROUNDS: u32 = 4096;

pub fn limits(gpu: &dyn Fn() -> Result<Gpu, DriverError>, extent: Extent) -> Result<Limits, BenchError> {
    let mut gpu = gpu()?;
    let blocks =
        gpu.context().properties().multiprocessors.div_ceil(extent.divisor) * BLOCKS_PER_MULTIPROCESSOR;
    let divisor = extent.divisor as usize;
    let from = gpu.allocate(READ_BYTES / divisor / divisor)?;
    let out = gpu.allocate(blocks as usize * 256 * size_of::<u32>())?;
    let read = ReadWords { from, out, blocks };
    let multiply = Multiply { out, blocks, rounds: ROUNDS.div_ceil(extent.divisor * extent.divisor) };
    let read_time = time(&mut gpu, extent, |gpu| Ok(read.launch(gpu)?))?;
    let multiply_time = time(&mut gpu, extent, |gpu| Ok(multiply.launch(gpu)?))?;
    Ok(Limits {
        read_gb_per_second: Rate::of_bytes(read.bytes() as f64, read_time).value(),
        multiply_tflop_per_second: Rate::of_operations(multiply.operations() as f64, multiply_time).value(),
    })
}
