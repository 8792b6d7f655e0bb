//! From a directory to a model that serves: plan the bytes, take exactly those, fill them, compare.
//!
//! ```text
//! directory ─► Checkpoint ─► footprint::plan ─ equal to what was admitted? ─► arenas ─► read, populate ─► ForwardPass
//! ```
//!
//! Nothing is allocated before the plan is known, and nothing of the model afterwards (I18).

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use sparkherd_checkpoint::{Architecture, Checkpoint, CheckpointError, ModelConfig};
use sparkherd_footprint::{
    BLOCK_TOKENS, Backend as PlatformBackend, Footprint, FootprintError, Platform, Serving, Workspace, plan,
    workspace,
};
use thiserror::Error;

use crate::{
    backend::{
        Backend, BackendError, HostMemory, KvShape,
        arena::{Arena, ArenaError},
        cpu::{Cpu, Path, PathSpeed, measure_paths},
        oracle::Oracle,
    },
    batch::{Batch, ForwardError, ForwardPass, StepOutput},
    clock::Clock,
    model::{Buffers, Decoder, StepLimits},
    weights::{ModelDirectory, Placement, PlacementError, ReadError, read},
};

/// Touched between two reports of progress.
const POPULATE_CHUNK_BYTES: usize = 64 << 20;

/// What computes. All give the same model.
#[derive(Clone, Copy, Debug)]
pub enum BackendChoice {
    /// Threads and the fastest instructions of this machine.
    Cpu,
    /// As `Cpu`, with given instructions: tests compare them.
    CpuPath(Path),
    /// Plain loops, for tests.
    Oracle,
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
    #[error("this engine computes on the CPU, not on {0:?}")]
    Platform(PlatformBackend),
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

/// A model whose arenas are full. What it holds does not change any more.
pub struct LoadedModel {
    forward: Box<dyn ForwardPass>,
    checkpoint: Checkpoint,
    footprint: Footprint,
    held_bytes: Arc<AtomicU64>,
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

    /// [`LoadedModel::held_bytes`] for those who outlive the move of the model into its worker.
    pub fn held_bytes_counter(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.held_bytes)
    }
}

impl ForwardPass for LoadedModel {
    fn forward(&mut self, batch: &Batch) -> Result<StepOutput<'_>, ForwardError> {
        self.forward.forward(batch)
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
    match config.backend {
        BackendChoice::Cpu => load_model_on(config, progress, |loaded| cpu(loaded, fastest_path(), config)),
        BackendChoice::CpuPath(path) => {
            tracing::info!(path = path.name(), "instructions as asked for");
            load_model_on(config, progress, |loaded| cpu(loaded, path, config))
        }
        BackendChoice::Oracle => {
            load_model_on(config, progress, |loaded| Oracle::new(loaded.memory, loaded.kv))
        }
    }
}

/// What a backend is made of.
#[derive(Debug)]
pub struct LoadedMemory {
    /// Weights are read, the rest is touched.
    pub memory: HostMemory,
    pub kv: KvShape,
    pub workspace: Workspace,
    pub limits: StepLimits,
}

/// As [`load_model`], on a backend that `make` makes.
pub fn load_model_on<B: Backend + 'static>(
    config: &LoadConfig,
    progress: &mut dyn FnMut(LoadProgress),
    make: impl FnOnce(LoadedMemory) -> Result<B, BackendError>,
) -> Result<LoadedModel, LoadError> {
    if config.platform.backend != PlatformBackend::Cpu {
        return Err(LoadError::Platform(config.platform.backend));
    }
    let checkpoint = Checkpoint::read(&ModelDirectory(config.model_dir.clone()))?;
    let facts = &checkpoint.inspection.facts;
    let footprint = plan(facts, &config.serving, &config.platform)?;
    // A record may be older than this binary: what it was promised bounds us, it need not be what we take now.
    if !footprint.fits_within(&config.footprint) {
        return Err(LoadError::NotAsAdmitted {
            planned: footprint.total_bytes(),
            admitted: config.footprint.total_bytes(),
            plan: Box::new(footprint),
            admission: Box::new(config.footprint),
        });
    }
    let workspace = workspace(facts, &config.serving, &config.platform)?;
    let placement = Placement::new(&checkpoint.index, &checkpoint.config, config.serving.requantize)?;
    let kv = kv_shape(&checkpoint.config, &config.serving)?;
    let packed_bytes = workspace.packed.bytes().ok_or(FootprintError::TooLarge { part: "workspace" })?;
    // What a device keeps beside the arenas that models know is its backend's to allocate.
    let partial_bytes = workspace.partial.bytes().ok_or(FootprintError::TooLarge { part: "workspace" })?;
    let beside_bytes = packed_bytes.saturating_add(partial_bytes);
    let planned_bytes = footprint.parts.workspace_bytes - beside_bytes;
    let mut memory = HostMemory {
        weights: map("weights", placement.arena_bytes, footprint.parts.weights_bytes)?,
        kv: map("kv", kv.bytes() as u64, footprint.parts.kv_bytes)?,
        workspace: map("workspace", workspace.bytes()? - beside_bytes, planned_bytes)?,
        packed: map("packed", packed_bytes, packed_bytes)?,
    };
    let held_bytes = Arc::new(AtomicU64::new(0));
    fill(config, &placement, &mut memory, &held_bytes, progress)?;
    let limits = step_limits(config, &workspace, &kv);
    let backend = make(LoadedMemory { memory, kv, workspace, limits })?;
    let model = Model { config: &checkpoint.config, workspace, placement, limits };
    Ok(LoadedModel { forward: model.on(backend)?, checkpoint, footprint, held_bytes })
}

/// Maps an arena whose size two sides reckoned independently.
fn map(arena: &'static str, bytes: u64, planned: u64) -> Result<Arena, LoadError> {
    if bytes != planned {
        return Err(LoadError::NotAsPlanned { arena, allocated: bytes, planned });
    }
    let bytes = usize::try_from(bytes).map_err(|_| LoadError::TooLarge { arena, bytes })?;
    Ok(Arena::map(bytes)?)
}

/// Reads the weights and touches the rest, counting what is held.
fn fill(
    config: &LoadConfig,
    placement: &Placement,
    memory: &mut HostMemory,
    held_bytes: &AtomicU64,
    progress: &mut dyn FnMut(LoadProgress),
) -> Result<(), LoadError> {
    let bytes_total = placement.tensor_bytes();
    let mut bytes_done = 0;
    let directory = ModelDirectory(config.model_dir.clone());
    read(directory.directory(), placement, &mut memory.weights, &mut |bytes| {
        bytes_done += bytes;
        held_bytes.store(bytes_done, Ordering::Relaxed);
        progress(LoadProgress { bytes_done, bytes_total, held_bytes: bytes_done });
    })?;
    // The padding between tensors shares their pages.
    held_bytes.store(placement.arena_bytes, Ordering::Relaxed);
    for arena in [&mut memory.kv, &mut memory.workspace, &mut memory.packed] {
        arena.populate(POPULATE_CHUNK_BYTES, &mut |bytes| {
            let held_bytes = held_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
            progress(LoadProgress { bytes_done, bytes_total, held_bytes });
        });
    }
    Ok(())
}

fn kv_shape(config: &ModelConfig, serving: &Serving) -> Result<KvShape, LoadError> {
    let blocks = serving.kv_tokens / u64::from(BLOCK_TOKENS);
    Ok(KvShape {
        layers: config.layers as usize,
        blocks: usize::try_from(blocks)
            .map_err(|_| LoadError::TooLarge { arena: "kv", bytes: serving.kv_tokens })?,
        kv_heads: config.kv_heads as usize,
        head_dim: config.head_dim as usize,
        dtype: serving.kv_dtype,
    })
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

fn cpu(loaded: LoadedMemory, path: Path, config: &LoadConfig) -> Result<Cpu, BackendError> {
    Cpu::new(loaded.memory, loaded.kv, path, config.platform.threads as usize)
}

fn step_limits(config: &LoadConfig, workspace: &Workspace, kv: &KvShape) -> StepLimits {
    StepLimits {
        tokens: workspace.tokens as usize,
        sequences: config.serving.concurrency as usize,
        logit_rows: workspace.logit_rows as usize,
        context: config.serving.context as usize,
        blocks: kv.blocks,
    }
}

struct Model<'a> {
    config: &'a ModelConfig,
    workspace: Workspace,
    placement: Placement,
    limits: StepLimits,
}

impl Model<'_> {
    fn on<B: Backend + 'static>(&self, mut backend: B) -> Result<Box<dyn ForwardPass>, LoadError> {
        let weights: Vec<_> = self.placement.tensors.iter().map(|tensor| tensor.weight).collect();
        backend.prepare(&weights)?;
        let buffers = Buffers::new(&self.workspace);
        match self.config.architecture {
            Architecture::Llama | Architecture::Mistral | Architecture::Qwen2 | Architecture::Qwen3 => Ok(
                Box::new(Decoder::new(backend, self.config, self.placement.weights(), buffers, self.limits)?),
            ),
        }
    }
}
