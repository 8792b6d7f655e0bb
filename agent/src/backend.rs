//! What engines here compute on.

use sparkherd_footprint::Platform;
use sparkherd_gpu::{GpuError, GpuReport};
use thiserror::Error;

/// What the agent was told. A platform comes with it, because what a CUDA engine takes beside its arenas is known by who
/// builds that engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackendWish {
    /// The CPU, whatever there is.
    Cpu,
    /// CUDA with this platform where there is a GPU, else the CPU.
    Auto(Platform),
    /// CUDA with this platform; without a GPU the agent does not start.
    Cuda(Platform),
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
    pub fn platform(&self, cores: u32, gpus: &Result<GpuReport, GpuError>) -> Result<Platform, BackendError> {
        let found = gpus.as_ref().is_ok_and(|report| report.first().is_some());
        match (self, gpus) {
            (Self::Auto(platform) | Self::Cuda(platform), _) if found => Ok(platform.clone()),
            (Self::Cpu | Self::Auto(_), _) => Ok(Platform::cpu(cores)),
            (Self::Cuda(_), Err(error)) => Err(BackendError::NoGpu(error.clone())),
            (Self::Cuda(_), Ok(_)) => Err(BackendError::EmptyHanded),
        }
    }
}

#[cfg(test)]
mod tests {
    use sparkherd_footprint::{Backend, Platform};
    use sparkherd_gpu::{Gpu, GpuError, GpuReport};

    use super::{BackendError, BackendWish};

    fn chosen(wish: &BackendWish, gpus: &Result<GpuReport, GpuError>) -> Result<Backend, BackendError> {
        wish.platform(4, gpus).map(|platform| platform.backend)
    }

    #[test]
    fn cuda_needs_a_wish_and_a_gpu() {
        let cuda = Platform { backend: Backend::Cuda, ..Platform::cpu(1) };
        let spark = Ok(GpuReport { gpus: vec![Gpu::default()], ..GpuReport::default() });
        let (auto, must) = (BackendWish::Auto(cuda.clone()), BackendWish::Cuda(cuda));
        for (wish, backend) in
            [(&BackendWish::Cpu, Backend::Cpu), (&auto, Backend::Cuda), (&must, Backend::Cuda)]
        {
            assert_eq!(chosen(wish, &spark).unwrap(), backend);
        }
        for gpus in [Err(GpuError::NoDriver), Ok(GpuReport::default())] {
            assert_eq!(chosen(&BackendWish::Cpu, &gpus).unwrap(), Backend::Cpu);
            assert_eq!(chosen(&auto, &gpus).unwrap(), Backend::Cpu);
            assert!(matches!(chosen(&must, &gpus), Err(BackendError::NoGpu(_) | BackendError::EmptyHanded)));
        }
    }
}
