use sparkherd_kernels::{ChipLimits, DriverError, Gpu, LimitsExtent};

use super::{BenchError, Extent};
use crate::report::Limits;

pub fn limits(gpu: &dyn Fn() -> Result<Gpu, DriverError>, extent: Extent) -> Result<Limits, BenchError> {
    let Extent { launches, divisor } = extent;
    let part = LimitsExtent { launches, ..LimitsExtent::WHOLE.divided(divisor) };
    let ChipLimits { read_bytes_per_second, bf16_operations_per_second } =
        ChipLimits::measure(&mut gpu()?, part)?;
    Ok(Limits {
        read_gb_per_second: read_bytes_per_second / 1e9,
        multiply_tflop_per_second: bf16_operations_per_second / 1e12,
    })
}
