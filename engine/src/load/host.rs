//! Arenas in host memory: weights are read into theirs, the rest is touched.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use sparkherd_footprint::FootprintError;

use super::{LoadConfig, LoadError, LoadProgress, LoadedModel, Planned};
use crate::{
    backend::{Backend, BackendError, HostMemory, KvShape, arena::Arena},
    weights::{ModelDirectory, Target, read},
};

/// Touched between two reports of progress.
const POPULATE_CHUNK_BYTES: usize = 64 << 20;

/// As [`super::load_model`], on a backend that `make` makes.
pub(super) fn load<B: Backend + 'static>(
    config: &LoadConfig,
    progress: &mut dyn FnMut(LoadProgress),
    make: impl FnOnce(HostMemory, KvShape) -> Result<B, BackendError>,
) -> Result<LoadedModel, LoadError> {
    let planned = Planned::new(config)?;
    let packed_bytes =
        planned.workspace.packed.bytes().ok_or(FootprintError::TooLarge { part: "workspace" })?;
    let mut memory = HostMemory {
        weights: map("weights", planned.placement.arena_bytes)?,
        kv: map("kv", planned.kv.bytes() as u64)?,
        workspace: map("workspace", planned.workspace.bytes()? - packed_bytes)?,
        packed: map("packed", packed_bytes)?,
    };
    let held_bytes = Arc::new(AtomicU64::new(0));
    fill(config, &planned, &mut memory, &held_bytes, progress)?;
    let backend = make(memory, planned.kv)?;
    planned.on(backend, held_bytes, 0)
}

fn map(arena: &'static str, bytes: u64) -> Result<Arena, LoadError> {
    let bytes = usize::try_from(bytes).map_err(|_| LoadError::TooLarge { arena, bytes })?;
    Ok(Arena::map(bytes)?)
}

/// Reads the weights and touches the rest, counting what is held.
fn fill(
    config: &LoadConfig,
    planned: &Planned,
    memory: &mut HostMemory,
    held_bytes: &AtomicU64,
    progress: &mut dyn FnMut(LoadProgress),
) -> Result<(), LoadError> {
    let bytes_total = planned.placement.tensor_bytes();
    let mut bytes_done = 0;
    let directory = ModelDirectory(config.model_dir.clone());
    let target = Target::Arena(&mut memory.weights);
    read(directory.directory(), &planned.placement, target, &mut |bytes| {
        bytes_done += bytes;
        held_bytes.store(bytes_done, Ordering::Relaxed);
        progress(LoadProgress { bytes_done, bytes_total, held_bytes: bytes_done });
    })?;
    // The padding between tensors shares their pages.
    held_bytes.store(planned.placement.arena_bytes, Ordering::Relaxed);
    for arena in [&mut memory.kv, &mut memory.workspace, &mut memory.packed] {
        arena.populate(POPULATE_CHUNK_BYTES, &mut |bytes| {
            let held_bytes = held_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
            progress(LoadProgress { bytes_done, bytes_total, held_bytes });
        });
    }
    Ok(())
}
