//! CUDA kernels, and what launches them.
//!
//! ```text
//! Embed { tokens, table, … }.launch(device) ─ shapes checked ─► Device ─► a GPU
//!                                                                  └────► the host shim (crate kernels/host), for tests
//! cu/embed.cu, cu/common/*.cuh ─ NVRTC ─► CUBIN for each architecture
//!                              └ C++ ──► the same kernels as functions of the shim
//! ```
//!
//! One operation has one `cu/NAME.cu`, whose header says formula, shapes and launch, and one `src/NAME.rs` with the same name: a
//! structure of operands in device memory, each with its length, which are checked before anything is launched. A kernel takes
//! one structure by value, laid out the same on both sides.

mod attention;
mod compile;
mod device;
mod elementwise;
mod embed;
mod format;
mod linear;
mod linear_nvfp4;
mod linear_rows;
mod resources;
mod rms_norm;
mod sources;

pub use attention::{Attention, AttentionSplit, HEAD_DIM_MAX, KvDtype, KvLayer, KvWrite};
pub use compile::{ARCHITECTURES, Architecture, CompileError, Compiler, Cubin};
pub use device::{Device, DeviceError, DeviceMemory, LaunchShape};
pub use elementwise::{Add, AddBias, GatherRows, Rope, SiluMultiply};
pub use embed::Embed;
pub use linear::{LINEAR_ROWS_MAX, Linear};
pub use linear_nvfp4::{LinearNvfp4, Nvfp4Path};
pub use linear_rows::LinearRows;
pub use resources::Resources;
pub use rms_norm::{AddRmsNorm, HeadRmsNorm, RmsNorm};
pub use sources::{HEADERS, SOURCES, Source};
