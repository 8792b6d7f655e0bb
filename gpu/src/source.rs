use std::fmt::Debug;

use thiserror::Error;

use crate::GpuReport;

/// Why nothing is known of GPUs. Kept as text, because a source tells the same at every question.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum GpuError {
    #[error("NVIDIA's management library cannot be opened: {0}")]
    NoLibrary(String),
    #[error("NVIDIA's management library is there, its driver is not loaded")]
    NoDriver,
    #[error("nobody looked for a GPU")]
    NotAsked,
    #[error("NVIDIA's driver does not answer: {0}")]
    Driver(String),
}

impl GpuError {
    /// Whether it says that this machine has no GPU to speak of, which is no fault.
    pub const fn is_absence(&self) -> bool {
        !matches!(self, Self::Driver(_))
    }
}

/// Who is asked about GPUs: the driver, or a test's script. An answer may take as long as a driver that hangs.
pub trait GpuSource: Debug + Send + Sync {
    /// What is so at this moment.
    fn read(&self) -> Result<GpuReport, GpuError>;
}

/// A machine whose GPUs, if any, are not looked at.
#[derive(Clone, Copy, Debug)]
pub struct NoGpu;

impl GpuSource for NoGpu {
    fn read(&self) -> Result<GpuReport, GpuError> {
        Err(GpuError::NotAsked)
    }
}
