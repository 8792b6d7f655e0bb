//! How fast kernels and steps are, beside what the same chip can do at most in the same minute.

mod attention;
mod limits;
mod linear;
mod step;

use std::time::Duration;

use sparkherd_kernels::{DeviceError, DriverError, Gpu};
use thiserror::Error;

use crate::report::{Limits, Rate, Speed};
pub use limits::limits;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// Of each kernel; the median counts.
    pub launches: usize,
    /// Sizes of matrices, contexts and the memory that is read are divided by this: 1 on a GPU; the shim takes its time.
    pub divisor: u32,
}

impl Extent {
    /// A size of a model, still of whole tiles and blocks.
    const fn size(self, whole: u32) -> u32 {
        (whole / self.divisor).next_multiple_of(256)
    }
}

#[derive(Debug, Error)]
pub enum BenchError {
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error(transparent)]
    Driver(#[from] DriverError),
    #[error("{0}")]
    Step(String),
}

/// All speeds, each beside the limit that bounds it. `gpu` gives one with memory of its own, freed when it is dropped.
pub fn all(
    gpu: &dyn Fn() -> Result<Gpu, DriverError>,
    extent: Extent,
    limits: &Limits,
) -> Result<Vec<Speed>, BenchError> {
    let mut speeds = linear::all(gpu, extent, limits)?;
    speeds.extend(attention::all(gpu, extent, limits)?);
    speeds.extend(step::all(gpu, extent, limits)?);
    Ok(speeds)
}

fn speed(name: &'static str, shape: String, time: Duration, rate: Rate, limits: &Limits) -> Speed {
    let limit = match rate {
        Rate::GbPerSecond(_) => limits.read_gb_per_second,
        Rate::TflopPerSecond(_) => limits.multiply_tflop_per_second,
    };
    Speed { name, shape, microseconds: time.as_secs_f64() * 1e6, rate, fraction: rate.value() / limit }
}
