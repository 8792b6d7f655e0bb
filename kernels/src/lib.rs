//! CUDA kernels, and what launches them.
//!
//! ```text
//! Embed { tokens, table, … }.launch(device) ─ shapes checked ─► Device ─► a GPU
//!                                                                  └────► the host shim (crate kernels/host), for tests
//! cu/embed.cu, cu/common/*.cuh ─ NVRTC ─► CUBIN for each architecture ─ in the program, or a cache ─► GpuKernels ─► Gpu
//!                              └ C++ ──► the same kernels as functions of the shim
//! ```
//!
//! One operation has one `cu/NAME.cu`, whose header says formula, shapes and launch, and one `src/NAME.rs` with the same name: a
//! structure of operands in device memory, each with its length, which are checked before anything is launched. A kernel takes
//! one structure by value, laid out the same on both sides.

mod attention;
mod attention_inputs;
mod attention_rows;
mod compile;
mod cubins;
mod device;
mod driver;
mod elementwise;
mod embed;
mod format;
mod gate;
mod gpu;
mod gpu_context;
mod host_buffer;
mod kv;
mod linear;
mod linear_nvfp4;
mod linear_rows;
mod logprobs;
mod measure;
mod moment;
mod pinned;
mod provide;
mod resources;
mod rms_norm;
mod sample;
mod sampling;
mod scoring;
mod sources;
mod staging;
mod upload;

pub use attention::{Attention, AttentionSplit, KvWrite};
pub use attention_inputs::AttentionInputs;
pub use attention_rows::{ATTENTION_ROWS_MIN, AttentionRows, RowsOfSequence, attention_tiles};
pub use compile::{ARCHITECTURES, Architecture, CompileError, Compiler, Cubin};
pub use cubins::{CubinModule, Cubins, CubinsError, sources_digest};
pub use device::{Cause, Device, DeviceError, DeviceMemory, LaunchShape, Recording};
pub use driver::{Driver, DriverError};
pub use elementwise::{Add, AddBias, GateMultiply, GatherRows, Rope};
pub use embed::Embed;
pub use format::Vector;
pub use gate::GateFunction;
pub use gpu::{Gpu, GpuKernels};
pub use gpu_context::{ComputeCapability, GpuContext, GpuProperties};
pub use host_buffer::HostBuffer;
pub use kv::{HEAD_DIM_MAX, KvDtype, KvLayer};
pub use linear::{LINEAR_ROWS_MAX, Linear, LinearGated};
pub use linear_nvfp4::{LinearNvfp4, Nvfp4Path};
pub use linear_rows::LinearRows;
pub use logprobs::Logprobs;
pub use measure::{ChipLimits, LimitsExtent, Multiply, ReadWords, median_time};
pub use provide::{KernelPlaces, Provenance, ProvideError, Provided};
pub use resources::Resources;
pub use rms_norm::{AddRmsNorm, HeadRmsNorm, RmsNorm};
pub use sample::Sample;
pub use sampling::{SampleOutcome, SampleRequest, SampleResult, SampleWords};
pub use scoring::Scoring;
pub use sources::{HEADERS, SOURCES, Source};
pub use staging::STAGING_HOST_BYTES;
