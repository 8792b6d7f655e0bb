use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What runs the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Backend {
    /// Our CUDA kernels: arenas are device memory.
    Cuda,
    /// This machine's cores: arenas are host memory and the device part is 0.
    Cpu,
}

/// What of a node changes a footprint.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Platform {
    pub backend: Backend,
    /// Threads the engine computes with.
    pub threads: u32,
    /// Host bytes of a running engine beside its arenas and its tokenizer: code, stacks, HTTP, allocator slack. Measured.
    pub runtime_host_bytes: u64,
    /// Device bytes of a running engine beside its arenas: context, modules, graphs. 0 on the CPU.
    pub runtime_device_bytes: u64,
}

/// [`Platform::runtime_host_bytes`] of an engine on the CPU backend: code that has run, thread stacks, HTTP buffers and what
/// the allocator keeps.
///
/// Measured on `x86_64` (debug build, glibc): 15 to 16 MiB beside the arenas at `ready`, 17 to 19 MiB after 16 concurrent
/// requests. The rest is for what requests may hold at once: two of the largest bodies, or the texts read from them (6 MiB up
/// to a context of 96 thousand tokens), and one prompt being tokenised (about 350 bytes a token).
pub const CPU_RUNTIME_HOST_BYTES: u64 = 40 << 20;

/// Pinned host memory of an engine on a GPU: what weights are read into while it loads, and what steps are told and answer
/// through. The engine holds its own constants to it when it is compiled.
pub const PINNED_HOST_BYTES: u64 = 16 << 20;

/// [`Platform::runtime_host_bytes`] of an engine on a GPU: that of the CPU's, pinned memory, and what the driver keeps on the host.
/// The driver's part is a bound that no GPU has been asked about yet (docs/unverified.md).
pub const CUDA_RUNTIME_HOST_BYTES: u64 = CPU_RUNTIME_HOST_BYTES + PINNED_HOST_BYTES + (200 << 20);

/// [`Platform::runtime_device_bytes`]: the context, the machine code, recorded steps, and allocations rounded up to 2 MiB. A bound
/// that no GPU has been asked about yet; an engine whose GPU has lost more says so in its log.
pub const CUDA_RUNTIME_DEVICE_BYTES: u64 = 1 << 30;

impl Platform {
    /// Our CUDA kernels; threads are those that read weights and serve.
    pub const fn cuda(threads: u32) -> Self {
        Self {
            backend: Backend::Cuda,
            threads,
            runtime_host_bytes: CUDA_RUNTIME_HOST_BYTES,
            runtime_device_bytes: CUDA_RUNTIME_DEVICE_BYTES,
        }
    }

    /// The CPU backend with this many threads.
    pub const fn cpu(threads: u32) -> Self {
        Self {
            backend: Backend::Cpu,
            threads,
            runtime_host_bytes: CPU_RUNTIME_HOST_BYTES,
            runtime_device_bytes: 0,
        }
    }
}
