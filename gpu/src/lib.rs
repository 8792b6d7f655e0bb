//! What NVIDIA's driver says of a machine's GPUs, and what follows from it.
//!
//! ```text
//! libnvidia-ml.so.1, if there is one ──► Nvml ──┐ the GPU that engines use first
//! scripted answers of a test ───────────────────┴─ GpuSource ──► GpuReport ──► memory domain, CUDA, known faults, slow clock
//! ```
//!
//! Pure: all but `nvml`. The agent and `sparkherd doctor` judge by the same functions. A machine without a GPU is the
//! usual one where this is written, and is told as [`GpuError::is_absence`]. Every field of a report is optional: a GB10
//! answers "not supported" to several of them.

mod clock;
mod cuda;
mod domain;
mod fault;
mod nvml;
mod place;
mod report;
mod source;

pub use clock::{ClockJudge, SLOW_CLOCK_MHZ};
pub use cuda::{CudaSupport, cuda_support};
pub use domain::{GpuMemoryDomain, memory_domain};
pub use fault::{Fault, SoftwareStack, known_faults};
pub use nvml::Nvml;
pub use place::{GpuPlace, VISIBLE_DEVICES};
pub use report::{CudaVersion, Gpu, GpuMemory, GpuProcess, GpuReport, ThrottleReason};
pub use source::{GpuError, GpuSource, NoGpu};
