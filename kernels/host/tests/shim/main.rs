//! The CUDA backend on the host shim: every operation against the oracle, and whole models against the CPU.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]
#![expect(clippy::cast_possible_truncation, reason = "the sizes of these cases are small")]

#[expect(dead_code, reason = "bounds of the CPU's own rounding")]
#[path = "../../../../engine/tests/forward/operation_cases.rs"]
mod operation_cases;
#[expect(dead_code, reason = "what other tests draw")]
#[path = "../../../../engine/tests/forward/random.rs"]
mod random;

mod faults;
mod models;
mod nvfp4;
mod operations;

use std::env;

use sparkherd_kernels_host::ShimDevice;

/// `SPARKHERD_KERNELS_SHIM` names another library, with sanitizers or with a fault.
fn device() -> ShimDevice {
    ShimDevice::new(env::var_os("SPARKHERD_KERNELS_SHIM").as_deref()).unwrap()
}
