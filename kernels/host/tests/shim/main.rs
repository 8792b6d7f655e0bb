//! The CUDA backend on the host shim: every operation against the oracle, and whole models against the CPU.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]
#![expect(clippy::cast_possible_truncation, reason = "the sizes of these cases are small")]

mod driver;
mod faults;
mod measure;
mod models;
mod nvfp4;
mod operations;
mod recordings;
mod sampling;
mod self_test;

use std::env;
use std::ffi::OsString;
use std::sync::Arc;

use sparkherd_kernels::{Driver, Gpu, GpuContext, GpuKernels};
use sparkherd_kernels_host::{ShimDevice, cubins, library};

/// `SPARKHERD_KERNELS_SHIM` names another library, with sanitizers or with a fault.
fn device() -> ShimDevice {
    ShimDevice::new(env::var_os("SPARKHERD_KERNELS_SHIM").as_deref()).unwrap()
}

/// The same kernels behind the functions of a CUDA driver, as late as a GPU may be.
fn gpu() -> Gpu {
    let driver = Arc::new(Driver::open(Some(&driver_library())).unwrap());
    let context = Arc::new(GpuContext::open(driver, 0).unwrap());
    Gpu::new(Arc::new(GpuKernels::load(context, &cubins()).unwrap())).unwrap()
}

fn driver_library() -> OsString {
    env::var_os("SPARKHERD_KERNELS_SHIM").unwrap_or_else(|| library().into())
}
