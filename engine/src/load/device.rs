//! Memory of a device: taken whole at once, then filled with what the readers bring.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use sparkherd_footprint::PINNED_HOST_BYTES;
use sparkherd_kernels::{Device, STAGING_HOST_BYTES};

use super::{LoadConfig, LoadError, LoadProgress, LoadedModel, Planned};
use crate::{
    backend::cuda::{Cuda, CudaLimits},
    weights::{ModelDirectory, Target, WEIGHT_BUFFERS_BYTES, read},
};

/// Both are there while weights are read.
const _: () = assert!(STAGING_HOST_BYTES + WEIGHT_BUFFERS_BYTES <= PINNED_HOST_BYTES);

/// As [`super::load_model`], on a device. `adjust` sees what will be allocated and what steps are held to.
pub fn load_model_on_device<D: Device + 'static>(
    config: &LoadConfig,
    device: D,
    adjust: impl FnOnce(CudaLimits) -> CudaLimits,
    progress: &mut dyn FnMut(LoadProgress),
) -> Result<LoadedModel, LoadError> {
    on_device(Planned::new(config)?, config, device, adjust, progress)
}

pub(super) fn on_device<D: Device + 'static>(
    planned: Planned,
    config: &LoadConfig,
    device: D,
    adjust: impl FnOnce(CudaLimits) -> CudaLimits,
    progress: &mut dyn FnMut(LoadProgress),
) -> Result<LoadedModel, LoadError> {
    let limits = CudaLimits::of_steps(&planned.limits, &planned.workspace, planned.placement.arena_bytes)?;
    let mut backend = Cuda::new(device, planned.kv, adjust(limits))?;
    let parts = planned.footprint.parts;
    // Held as soon as it is allocated: a device's memory is not given page by page.
    let device_bytes = parts.weights_bytes + parts.kv_bytes + parts.workspace_bytes;
    let held_bytes = Arc::new(AtomicU64::new(device_bytes));
    let bytes_total = planned.placement.tensor_bytes();
    let mut bytes_done = 0;
    let directory = ModelDirectory(config.model_dir.clone());
    read(directory.directory(), &planned.placement, Target::Sent(&mut backend), &mut |bytes| {
        bytes_done += bytes;
        let held_bytes = held_bytes.load(Ordering::Relaxed);
        progress(LoadProgress { bytes_done, bytes_total, held_bytes });
    })?;
    backend.wait()?;
    planned.on(backend, held_bytes, device_bytes)
}
