//! How fast kernels and steps are, beside what the same chip can do at most in the same minute.

mod attention;
mod limits;
mod linear;
mod noise;
mod recorded;
mod sampling;
mod small;
mod step;
mod watched;

use std::time::Duration;

use sparkherd_engine::{ForwardError, LoadError};
use sparkherd_kernels::{DeviceError, DriverError, Gpu};
use thiserror::Error;

use crate::goal::{Chip, Kind};
use crate::random_model::RandomModel;
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
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Forward(#[from] ForwardError),
    #[error("a step was not answered as it was asked to be, with logits or with tokens")]
    Answer,
    #[error("a size of what is measured is beyond this machine's: {0}")]
    Size(&'static str),
}

/// What is measured with, and beside what.
#[expect(missing_debug_implementations, reason = "it holds a function")]
pub struct Bench<'a> {
    /// Gives a GPU with memory of its own, freed when it is dropped.
    pub gpu: &'a dyn Fn() -> Result<Gpu, DriverError>,
    pub chip: Chip,
    pub extent: Extent,
    pub limits: Limits,
}

impl Bench<'_> {
    /// All speeds, each beside the limit that bounds it.
    pub fn all(&self, model: &RandomModel) -> Result<Vec<Speed>, BenchError> {
        let mut speeds = linear::all(self)?;
        speeds.extend(attention::all(self)?);
        speeds.extend(small::all(self)?);
        speeds.extend(sampling::all(self)?);
        speeds.extend(step::all(self, model)?);
        Ok(speeds)
    }

    fn speed(&self, name: &'static str, shape: String, time: Duration, rate: Rate, kind: Kind) -> Speed {
        let goal = self.chip.goal(kind);
        Speed::new(name, shape, time, Some(rate), rate.fraction(&self.limits), goal)
    }

    /// Of a whole that took longer.
    fn share(&self, name: &'static str, shape: String, time: Duration, whole: Duration, kind: Kind) -> Speed {
        let fraction = time.as_secs_f64() / whole.as_secs_f64();
        Speed::new(name, shape, time, None, fraction, self.chip.goal(kind))
    }
}
