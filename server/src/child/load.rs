//! Making an engine, with progress.

use std::sync::Arc;
use std::time::Duration;

use sparkherd_engine::{
    BackendChoice, Clock, Engine, EngineLimits, LoadConfig, LoadError, LoadProgress, Text, load_model,
};
use sparkherd_footprint::{BLOCK_TOKENS, Backend};
use sparkherd_protocol::{EngineConfig, Event, FailureReason};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::events::Events;
use super::process::resident_bytes;
use super::{ChildError, EngineKind};
use crate::engine::ChatEngine;
use crate::fake::{FakeEngine, Script};
use crate::real::RealEngine;

/// Rhythm of `loading`: smooth for a person, and far below the agent's limit of 60 s without progress.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);
/// Parts a fake load is cut into.
const FAKE_PARTS: usize = 20;

/// An engine that can be asked.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) engine: Arc<dyn ChatEngine>,
    /// Bytes of a GPU, which are not among this process's own.
    pub(super) device_bytes: u64,
}

/// Bytes of weights read so far, of all.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    bytes_done: u64,
    bytes_total: u64,
    device_bytes: u64,
}

/// Loads on another thread and reports meanwhile.
pub(super) async fn load(
    config: EngineConfig,
    kind: EngineKind,
    events: &Events,
) -> Result<Loaded, ChildError> {
    let (progress, reached) = watch::channel(Progress::default());
    let runtime = Handle::current();
    let mut loading = tokio::task::spawn_blocking(move || match kind {
        EngineKind::Fake(script) => load_fake(&config, script, runtime, &progress),
        EngineKind::Checkpoint { cpu_path, gpu } => {
            let backend = match config.platform.backend {
                Backend::Cuda => BackendChoice::Cuda(gpu),
                Backend::Cpu => cpu_path.map_or(BackendChoice::Cpu, BackendChoice::CpuPath),
            };
            load_checkpoint(&config, backend, &progress)
        }
    });
    let mut tick = interval(PROGRESS_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            loaded = &mut loading => {
                let panicked = |_| ChildError::Load { reason: FailureReason::LoadFailed, message: "loader panicked".to_owned() };
                return loaded.map_err(panicked)?;
            }
            _ = tick.tick() => {
                let Progress { bytes_done, bytes_total, device_bytes } = *reached.borrow();
                let held_bytes = resident_bytes().saturating_add(device_bytes);
                events.report(Event::Loading { bytes_done, bytes_total, held_bytes });
            }
        }
    }
}

fn load_fake(
    config: &EngineConfig,
    script: Script,
    runtime: Handle,
    progress: &watch::Sender<Progress>,
) -> Result<Loaded, ChildError> {
    let engine = FakeEngine::new(
        script,
        config.serving.context,
        config.serving.concurrency,
        runtime,
        super::kill_self,
    );
    let script = engine.script();
    let bytes_total = config.footprint.parts.weights_bytes;
    let parts = u32::try_from(FAKE_PARTS).unwrap_or(u32::MAX);
    for part in 0..FAKE_PARTS {
        std::thread::sleep(script.load / parts);
        // The last part takes what the division left.
        let held = |parts: usize| script.hold_bytes * parts / FAKE_PARTS;
        engine.hold(held(part + 1) - held(part));
        let bytes_done = bytes_total / u64::from(parts) * (part as u64 + 1);
        progress.send_replace(Progress { bytes_done, bytes_total, device_bytes: 0 });
    }
    match &script.fail_load {
        Some(message) => {
            Err(ChildError::Load { reason: FailureReason::LoadFailed, message: message.clone() })
        }
        None => Ok(Loaded { engine: Arc::new(engine), device_bytes: 0 }),
    }
}

fn load_checkpoint(
    config: &EngineConfig,
    backend: BackendChoice,
    progress: &watch::Sender<Progress>,
) -> Result<Loaded, ChildError> {
    let EngineConfig { model_dir, serving, platform, footprint, .. } = config.clone();
    // Small and quick to fail, so it comes before the weights.
    let text = Text::load(&model_dir).map_err(|error| failure(FailureReason::UnsupportedModel, &error))?;
    let kv_blocks = u32::try_from(serving.kv_tokens / u64::from(BLOCK_TOKENS)).unwrap_or(u32::MAX);
    let context = serving.context;
    let on_device = platform.backend == Backend::Cuda;
    let load_config = LoadConfig { model_dir, serving, platform, footprint, backend };
    let mut report = |LoadProgress { bytes_done, bytes_total, held_bytes }| {
        let device_bytes = if on_device { held_bytes } else { 0 };
        progress.send_replace(Progress { bytes_done, bytes_total, device_bytes });
    };
    let model = load_model(&load_config, &mut report).map_err(|error| failure(reason(&error), &error))?;
    let device_bytes = model.device_bytes();
    let vocab_size = model.checkpoint().inspection.facts.vocab_size;
    let limits = EngineLimits::new(context, kv_blocks, vocab_size);
    let started = Engine::start(Box::new(model), text, limits, Clock::monotonic());
    let (handle, worker) = started.map_err(|error| failure(FailureReason::LoadFailed, &error))?;
    Ok(Loaded { engine: Arc::new(RealEngine::new(handle, worker)), device_bytes })
}

fn failure(reason: FailureReason, error: &dyn std::error::Error) -> ChildError {
    ChildError::Load { reason, message: error.to_string() }
}

fn reason(error: &LoadError) -> FailureReason {
    if error.is_fault() {
        return FailureReason::GpuFault;
    }
    if error.is_out_of_memory() {
        return FailureReason::OutOfMemory;
    }
    match error {
        LoadError::Checkpoint(_) | LoadError::Placement(_) => FailureReason::UnsupportedModel,
        LoadError::NotAsAdmitted { .. } | LoadError::NotAsPlanned { .. } => FailureReason::FootprintMismatch,
        LoadError::Gpu(_) => FailureReason::DriverUnsupported,
        LoadError::TooLarge { .. }
        | LoadError::Memory(_)
        | LoadError::Footprint(_)
        | LoadError::Platform { .. }
        | LoadError::Read(_)
        | LoadError::Backend(_)
        | LoadError::Forward(_) => FailureReason::LoadFailed,
    }
}
