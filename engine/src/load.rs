//! From a directory to a model that serves: plan the bytes, take exactly those, fill them, compare.
//!
//! ```text
//! directory ─► Checkpoint ─► footprint::plan ─ within what was admitted? ─► Planned ─┬► host: arenas ◄─ read ─────────────┐
//!                                                                                    └► device: ring ◄─ read ─► memory ───┴► ForwardPass
//! ```
//!
//! Nothing is allocated before the plan is known, and nothing of the model afterwards (I18).

mod device;
mod gpu;
mod host;
mod planned;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use sparkherd_checkpoint::{Checkpoint, CheckpointError};
use sparkherd_footprint::{Backend as PlatformBackend, Footprint, FootprintError, Platform, Serving};
use thiserror::Error;

use crate::{
    backend::{
        BackendError, HostMemory, KvShape,
        arena::ArenaError,
        cpu::{Cpu, Path, PathSpeed, measure_paths},
        oracle::Oracle,
    },
    batch::{Batch, ForwardError, ForwardPass, StepOutput},
    clock::Clock,
    sample::TokenRequests,
    weights::{PlacementError, ReadError},
};

pub use device::load_model_on_device;
pub use gpu::{GpuChoice, GpuError, OpenGpu};
use planned::Planned;

/// What computes. All give the same model.
#[derive(Clone, Debug)]
pub enum BackendChoice {
    /// Threads and the fastest instructions of this machine.
    Cpu,
    /// As `Cpu`, with given instructions: tests compare them.
    CpuPath(Path),
    /// Plain loops, for tests.
    Oracle,
    /// Our kernels on a GPU.
    Cuda(GpuChoice),
}

/// What to load and the bytes it was admitted with.
#[derive(Clone, Debug)]
pub struct LoadConfig {
    /// Directory of the checkpoint, or its one GGUF file.
    pub model_dir: PathBuf,
    pub serving: Serving,
    pub platform: Platform,
    /// What the planner and the agent reckoned with.
    pub footprint: Footprint,
    pub backend: BackendChoice,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadProgress {
    /// Bytes of tensors read.
    pub bytes_done: u64,
    pub bytes_total: u64,
    /// Bytes of arenas touched.
    pub held_bytes: u64,
}

#[derive(Debug, Error)]
pub enum LoadError {
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Footprint(#[from] FootprintError),
    #[error(
        "this checkpoint takes {planned} bytes, it was admitted with {admitted}: plan {plan:?}, admission {admission:?}"
    )]
    NotAsAdmitted { planned: u64, admitted: u64, plan: Box<Footprint>, admission: Box<Footprint> },
    #[error("{arena} arena has {allocated} bytes, the plan says {planned}")]
    NotAsPlanned { arena: &'static str, allocated: u64, planned: u64 },
    #[error("the plan is for {platform:?}, and the engine was told to compute with {choice}")]
    Platform { platform: PlatformBackend, choice: &'static str },
    #[error(transparent)]
    Gpu(#[from] GpuError),
    #[error(transparent)]
    Forward(#[from] ForwardError),
    #[error("{arena} arena of {bytes} bytes does not fit this machine's address space")]
    TooLarge { arena: &'static str, bytes: u64 },
    #[error(transparent)]
    Memory(#[from] ArenaError),
    #[error(transparent)]
    Placement(#[from] PlacementError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Backend(#[from] BackendError),
}

impl LoadError {
    /// Whether there was less memory than was asked for, of the host's or of a GPU's.
    pub const fn is_out_of_memory(&self) -> bool {
        match self {
            Self::TooLarge { .. } | Self::Memory(_) | Self::Read(ReadError::Buffer(_)) => true,
            Self::Backend(error) | Self::Read(ReadError::Sent(error)) => error.is_out_of_memory(),
            Self::Gpu(error) => error.is_out_of_memory(),
            Self::Forward(error) => matches!(error, ForwardError::OutOfMemory(_)),
            _ => false,
        }
    }

    /// Whether the GPU is lost to this process.
    pub fn is_fault(&self) -> bool {
        match self {
            Self::Backend(error) | Self::Read(ReadError::Sent(error)) => error.is_fault(),
            Self::Gpu(error) => error.is_fault(),
            Self::Forward(error) => matches!(error, ForwardError::Fault(_)),
            _ => false,
        }
    }
}

/// A model whose arenas are full. What it holds does not change any more.
pub struct LoadedModel {
    forward: Box<dyn ForwardPass>,
    checkpoint: Checkpoint,
    footprint: Footprint,
    held_bytes: Arc<AtomicU64>,
    device_bytes: u64,
}

impl std::fmt::Debug for LoadedModel {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("LoadedModel")
            .field("footprint", &self.footprint)
            .field("held_bytes", &self.held_bytes)
            .finish_non_exhaustive()
    }
}

impl LoadedModel {
    /// Configuration, generation defaults, facts and digest.
    pub const fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    pub const fn footprint(&self) -> Footprint {
        self.footprint
    }

    /// Bytes of arenas touched: weights, keys and values, workspace.
    pub fn held_bytes(&self) -> u64 {
        self.held_bytes.load(Ordering::Relaxed)
    }

    /// Of these, bytes of a GPU, which are not among the process's own.
    pub const fn device_bytes(&self) -> u64 {
        self.device_bytes
    }

    /// [`LoadedModel::held_bytes`] for those who outlive the move of the model into its worker.
    pub fn held_bytes_counter(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.held_bytes)
    }
}

impl ForwardPass for LoadedModel {
    fn step(
        &mut self,
        batch: &Batch,
        requests: &mut dyn TokenRequests,
    ) -> Result<StepOutput<'_>, ForwardError> {
        self.forward.step(batch, requests)
    }

    fn tokens_max(&self) -> usize {
        self.forward.tokens_max()
    }

    fn sequences_max(&self) -> usize {
        self.forward.sequences_max()
    }

    fn logit_rows_max(&self) -> usize {
        self.forward.logit_rows_max()
    }

    fn has_logits(&self) -> bool {
        self.forward.has_logits()
    }

    fn hidden(&self) -> usize {
        self.forward.hidden()
    }
}

/// Loads a model. `progress` is called from this thread, at most once per 4 MiB read and per 64 MiB touched.
pub fn load_model(
    config: &LoadConfig,
    progress: &mut dyn FnMut(LoadProgress),
) -> Result<LoadedModel, LoadError> {
    let platform = config.platform.backend;
    match (&config.backend, platform) {
        (BackendChoice::Cpu, PlatformBackend::Cpu) => {
            host::load(config, progress, |memory, kv| cpu(memory, kv, fastest_path(), config))
        }
        (BackendChoice::CpuPath(path), PlatformBackend::Cpu) => {
            tracing::info!(path = path.name(), "instructions as asked for");
            host::load(config, progress, |memory, kv| cpu(memory, kv, *path, config))
        }
        (BackendChoice::Oracle, PlatformBackend::Cpu) => host::load(config, progress, Oracle::new),
        (BackendChoice::Cuda(choice), PlatformBackend::Cuda) => gpu::load(config, choice, progress),
        (BackendChoice::Cuda(_), PlatformBackend::Cpu) => {
            Err(LoadError::Platform { platform, choice: "a GPU" })
        }
        (BackendChoice::Cpu | BackendChoice::CpuPath(_) | BackendChoice::Oracle, PlatformBackend::Cuda) => {
            Err(LoadError::Platform { platform, choice: "the CPU" })
        }
    }
}

/// Measures this processor's instructions and says what it found.
fn fastest_path() -> Path {
    let speeds = measure_paths(&Clock::monotonic());
    let path = speeds.first().map_or_else(Path::best, |fastest| fastest.path);
    let measured = speeds
        .iter()
        .map(|PathSpeed { path, gflop_per_second }| format!("{} {gflop_per_second:.0}", path.name()));
    let gflop_per_second = measured.collect::<Vec<_>>().join(", ");
    tracing::info!(path = path.name(), gflop_per_second, "instructions chosen by measuring one core");
    path
}

fn cpu(memory: HostMemory, kv: KvShape, path: Path, config: &LoadConfig) -> Result<Cpu, BackendError> {
    Cpu::new(memory, kv, path, config.platform.threads as usize)
}
