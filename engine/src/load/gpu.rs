//! A GPU of this machine, with our kernels on it.

use std::{path::PathBuf, sync::Arc};

use sparkherd_kernels::{
    ARCHITECTURES, ComputeCapability, Driver, DriverError, Gpu, GpuContext, GpuKernels, GpuProperties,
    KernelPlaces, ProvideError, Provided,
};
use thiserror::Error;

use super::{LoadConfig, LoadError, LoadProgress, LoadedModel, Planned, device::on_device};
use crate::backend::{
    cases::CaseError,
    cuda::{Heads, SelfTestError, self_test},
};

/// Which GPU, and where what it needs is found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "clap", derive(clap::Args))]
pub struct GpuChoice {
    /// GPU to compute on: its number among those that CUDA shows this process, by their places on the PCI bus
    #[cfg_attr(feature = "clap", arg(id = "gpu", long = "gpu", value_name = "NUMBER", default_value_t = 0))]
    pub ordinal: u32,
    /// Library of the CUDA driver, if the system does not find it
    #[cfg_attr(feature = "clap", arg(id = "cuda_driver", long = "cuda-driver", value_name = "FILE"))]
    pub driver: Option<PathBuf>,
    #[cfg_attr(feature = "clap", command(flatten))]
    pub kernels: KernelPlaces,
}

#[derive(Debug, Error)]
pub enum GpuError {
    #[error(transparent)]
    Driver(#[from] DriverError),
    #[error("the driver shows no GPU {ordinal}: there are {count}")]
    NoGpu { ordinal: u32, count: u32 },
    #[error("there are no kernels for {name} (compute capability {}.{})", capability.major, capability.minor)]
    Unsupported { name: String, capability: ComputeCapability },
    #[error(transparent)]
    Kernels(#[from] ProvideError),
    #[error(transparent)]
    SelfTest(#[from] SelfTestError),
}

impl GpuError {
    pub(super) const fn is_out_of_memory(&self) -> bool {
        match self {
            Self::Driver(error) => error.is_out_of_memory(),
            Self::SelfTest(
                SelfTestError::Backend(error) | SelfTestError::Case { source: CaseError::Backend(error), .. },
            ) => error.is_out_of_memory(),
            Self::SelfTest(SelfTestError::Case { source: CaseError::Memory(_), .. }) => true,
            _ => false,
        }
    }

    pub(super) fn is_fault(&self) -> bool {
        match self {
            Self::Driver(error) => error.is_fault(),
            Self::SelfTest(
                SelfTestError::Backend(error) | SelfTestError::Case { source: CaseError::Backend(error), .. },
            ) => error.is_fault(),
            _ => false,
        }
    }
}

/// A GPU that kernels can be launched on.
#[derive(Clone, Debug)]
pub struct OpenGpu {
    kernels: Arc<GpuKernels>,
    /// Bytes that were free once this process had its context there, which takes some by itself.
    free_bytes_before: u64,
}

impl GpuChoice {
    pub fn open(&self) -> Result<OpenGpu, GpuError> {
        let Self { ordinal, driver, kernels: places } = self;
        let ordinal = *ordinal;
        let driver = Arc::new(Driver::open(driver.as_ref().map(|path| path.as_os_str()))?);
        let count = GpuContext::count(&driver)?;
        if ordinal >= count {
            return Err(GpuError::NoGpu { ordinal, count });
        }
        let context = Arc::new(GpuContext::open(driver, ordinal)?);
        let (free_bytes_before, _) = context.memory_info()?;
        let properties = context.properties();
        let capability = properties.compute_capability;
        let unsupported = || GpuError::Unsupported { name: properties.name.clone(), capability };
        let architecture = capability.architecture(&ARCHITECTURES).ok_or_else(unsupported)?;
        let Provided { cubins, from } = places.provide(architecture)?;
        tracing::info!(
            gpu = properties.name,
            architecture = architecture.name,
            multiprocessors = properties.multiprocessors,
            driver_cuda = properties.driver_cuda,
            kernels = ?from,
            "GPU opened"
        );
        let kernels = Arc::new(GpuKernels::load(Arc::clone(&context), &cubins)?);
        Ok(OpenGpu { kernels, free_bytes_before })
    }
}

impl OpenGpu {
    /// A stream of its own, with memory of its own.
    pub fn device(&self) -> Result<Gpu, DriverError> {
        Gpu::new(Arc::clone(&self.kernels))
    }

    pub fn properties(&self) -> &GpuProperties {
        self.kernels.context().properties()
    }

    /// Bytes that were free once this process had its context there, before any kernel was loaded.
    pub const fn free_bytes_before(&self) -> u64 {
        self.free_bytes_before
    }

    /// Bytes that are free, and all of them.
    pub fn memory_info(&self) -> Result<(u64, u64), DriverError> {
        self.kernels.context().memory_info()
    }

    /// Tells what the GPU has less than before, beside what was planned. The driver counts all processes together, and on a Spark
    /// the page cache too: nobody can be blamed for it.
    fn tell_taken(&self, planned_bytes: u64) -> Result<(), GpuError> {
        let (free_bytes, total_bytes) = self.memory_info()?;
        let taken_bytes = self.free_bytes_before.saturating_sub(free_bytes);
        if taken_bytes > planned_bytes {
            tracing::warn!(
                taken_bytes,
                planned_bytes,
                "the GPU has lost more memory than this load was promised"
            );
        }
        tracing::info!(taken_bytes, planned_bytes, free_bytes, total_bytes, "GPU memory taken by this load");
        Ok(())
    }
}

pub(super) fn load(
    config: &LoadConfig,
    choice: &GpuChoice,
    progress: &mut dyn FnMut(LoadProgress),
) -> Result<LoadedModel, LoadError> {
    let planned = Planned::new(config)?;
    let gpu = choice.open()?;
    let model = &planned.checkpoint.config;
    let heads = Heads {
        query_heads: model.heads as usize,
        kv_heads: model.kv_heads as usize,
        head_dim: model.head_dim as usize,
    };
    // On memory of its own, which is given back before the model takes its own.
    let compared = self_test(gpu.device().map_err(GpuError::from)?, config.serving.kv_dtype, heads)
        .map_err(GpuError::from)?;
    tracing::info!(compared, "kernels give what the oracle gives");
    let device = gpu.device().map_err(GpuError::from)?;
    let model = on_device(planned, config, device, |limits| limits, progress)?;
    gpu.tell_taken(model.footprint().device_bytes).map_err(LoadError::Gpu)?;
    Ok(model)
}
