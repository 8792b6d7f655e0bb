use anyhow::Context as _;
use sparkherd_engine::{GpuChoice, GpuError, OpenGpu};
use sparkherd_kernels::{ChipLimits, LimitsExtent};

use super::bench::GpuBench;
use super::readings::{CudaMemory, GpuSpeed};

/// A GB10 that is well reads for three seconds and multiplies for one and a half: its clock settles within the first.
const LONG: LimitsExtent = LimitsExtent { launches: 300, ..LimitsExtent::WHOLE };

/// Our kernels on a GPU.
pub(crate) struct KernelBench(Result<OpenGpu, GpuError>);

impl KernelBench {
    /// `None` where nothing can be said of the GPU, since this program has no kernels for it.
    pub(crate) fn open(choice: &GpuChoice) -> Option<Self> {
        match choice.open() {
            Err(GpuError::Kernels(_) | GpuError::Unsupported { .. }) => None,
            opened => Some(Self(opened)),
        }
    }

    fn gpu(&self) -> anyhow::Result<&OpenGpu> {
        self.0.as_ref().map_err(|error| anyhow::anyhow!("{error}"))
    }
}

impl GpuBench for KernelBench {
    fn memory(&mut self) -> anyhow::Result<CudaMemory> {
        let (free_bytes, total_bytes) = self.gpu()?.memory_info()?;
        Ok(CudaMemory { free_bytes, total_bytes })
    }

    fn speed(&mut self) -> anyhow::Result<GpuSpeed> {
        let gpu = self.gpu()?;
        // An eighth of what is free, as of the host's: on a Spark it is the same.
        let (free_bytes, _) = gpu.memory_info()?;
        let read_bytes = LONG.read_bytes.min(usize::try_from(free_bytes / 8)?);
        let mut stream = gpu.device().context("no stream")?;
        let ChipLimits { read_bytes_per_second, bf16_operations_per_second } =
            ChipLimits::measure(&mut stream, LimitsExtent { read_bytes, ..LONG })?;
        Ok(GpuSpeed { read_bytes_per_second, bf16_flop_per_second: bf16_operations_per_second })
    }
}
