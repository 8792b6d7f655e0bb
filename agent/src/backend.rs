//! What engines here compute on.

use sparkherd_footprint::Platform;
use sparkherd_gpu::{GpuError, GpuReport};
use thiserror::Error;

/// What the agent was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendWish {
    /// The CPU, whatever there is.
    Cpu,
    /// CUDA where there is a GPU, else the CPU.
    Auto,
    /// CUDA; without a GPU the agent does not start.
    Cuda,
}

#[derive(Debug, Error)]
pub enum BackendError {
    #[error("engines are to run on CUDA, and {0}")]
    NoGpu(#[source] GpuError),
    #[error("engines are to run on CUDA, and the driver shows no GPU")]
    EmptyHanded,
}

impl BackendWish {
    /// What engines are started with. `gpus`: what the driver said.
    pub fn platform(self, cores: u32, gpus: &Result<GpuReport, GpuError>) -> Result<Platform, BackendError> {
        let found = gpus.as_ref().is_ok_and(|report| report.first().is_some());
        match (self, gpus) {
            (Self::Auto | Self::Cuda, _) if found => Ok(Platform::cuda(cores)),
            (Self::Cpu | Self::Auto, _) => Ok(Platform::cpu(cores)),
            (Self::Cuda, Err(error)) => Err(BackendError::NoGpu(error.clone())),
            (Self::Cuda, Ok(_)) => Err(BackendError::EmptyHanded),
        }
    }
}

#[cfg(test)]
mod tests {
    use sparkherd_footprint::Backend;
    use sparkherd_gpu::{Gpu, GpuError, GpuReport};

    use super::{BackendError, BackendWish};

    fn chosen(wish: BackendWish, gpus: &Result<GpuReport, GpuError>) -> Result<Backend, BackendError> {
        wish.platform(4, gpus).map(|platform| platform.backend)
    }

    #[test]
    fn cuda_needs_a_wish_and_a_gpu() {
        let spark = Ok(GpuReport { gpus: vec![Gpu::default()], ..GpuReport::default() });
        let with_gpu = [
            (BackendWish::Cpu, Backend::Cpu),
            (BackendWish::Auto, Backend::Cuda),
            (BackendWish::Cuda, Backend::Cuda),
        ];
        for (wish, backend) in with_gpu {
            assert_eq!(chosen(wish, &spark).unwrap(), backend);
        }
        for gpus in [Err(GpuError::NoDriver), Ok(GpuReport::default())] {
            assert_eq!(chosen(BackendWish::Cpu, &gpus).unwrap(), Backend::Cpu);
            assert_eq!(chosen(BackendWish::Auto, &gpus).unwrap(), Backend::Cpu);
            assert!(matches!(
                chosen(BackendWish::Cuda, &gpus),
                Err(BackendError::NoGpu(_) | BackendError::EmptyHanded)
            ));
        }
    }
}
