use std::sync::{Arc, atomic::AtomicU64};

use sparkherd_checkpoint::{Architecture, Checkpoint};
use sparkherd_footprint::{BLOCK_TOKENS, Footprint, FootprintError, Workspace, plan, workspace};

use super::{LoadConfig, LoadError, LoadedModel};
use crate::{
    backend::{Backend, KvShape},
    batch::ForwardPass,
    model::{Buffers, Decoder, StepLimits},
    weights::{ModelDirectory, Placement},
};

/// A model of which everything is known and nothing is allocated.
#[derive(Debug)]
pub(super) struct Planned {
    pub(super) checkpoint: Checkpoint,
    pub(super) footprint: Footprint,
    pub(super) workspace: Workspace,
    pub(super) placement: Placement,
    pub(super) kv: KvShape,
    pub(super) limits: StepLimits,
}

impl Planned {
    pub(super) fn new(config: &LoadConfig) -> Result<Self, LoadError> {
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
        let kv = kv_shape(&checkpoint, config)?;
        let limits = StepLimits {
            tokens: workspace.tokens as usize,
            sequences: config.serving.concurrency as usize,
            logit_rows: workspace.logit_rows as usize,
            context: config.serving.context as usize,
            blocks: kv.blocks,
        };
        let planned = Self { checkpoint, footprint, workspace, placement, kv, limits };
        compare("weights", planned.placement.arena_bytes, footprint.parts.weights_bytes)?;
        compare("kv", planned.kv.bytes() as u64, footprint.parts.kv_bytes)?;
        compare("workspace", planned.workspace.bytes()?, footprint.parts.workspace_bytes)?;
        Ok(planned)
    }

    /// Gives the loaded backend its model.
    pub(super) fn on<B: Backend + 'static>(
        self,
        mut backend: B,
        held_bytes: Arc<AtomicU64>,
        device_bytes: u64,
    ) -> Result<LoadedModel, LoadError> {
        let Self { checkpoint, footprint, workspace, placement, kv: _, limits } = self;
        let weights: Vec<_> = placement.tensors.iter().map(|tensor| tensor.weight).collect();
        backend.prepare(&weights)?;
        let buffers = Buffers::new(&workspace);
        let forward: Box<dyn ForwardPass> = match checkpoint.config.architecture {
            Architecture::Llama | Architecture::Mistral | Architecture::Qwen2 | Architecture::Qwen3 => {
                let weights = placement.weights();
                let mut decoder = Decoder::new(backend, &checkpoint.config, weights, buffers, limits)?;
                decoder.record_decodes()?;
                Box::new(decoder)
            }
        };
        Ok(LoadedModel { forward, checkpoint, footprint, held_bytes, device_bytes })
    }
}

/// Two sides reckoned it independently.
fn compare(arena: &'static str, allocated: u64, planned: u64) -> Result<(), LoadError> {
    if allocated == planned { Ok(()) } else { Err(LoadError::NotAsPlanned { arena, allocated, planned }) }
}

fn kv_shape(checkpoint: &Checkpoint, config: &LoadConfig) -> Result<KvShape, LoadError> {
    let (model, serving) = (&checkpoint.config, &config.serving);
    let blocks = serving.kv_tokens / u64::from(BLOCK_TOKENS);
    let too_large = |_| LoadError::Footprint(FootprintError::TooLarge { part: "kv" });
    Ok(KvShape {
        layers: model.layers as usize,
        blocks: usize::try_from(blocks).map_err(too_large)?,
        kv_heads: model.kv_heads as usize,
        head_dim: model.head_dim as usize,
        dtype: serving.kv_dtype,
    })
}
