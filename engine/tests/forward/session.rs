//! A loaded model and its pool, driven as the scheduler would.

use std::path::Path;

use sparkherd_checkpoint::{Checkpoint, Facts, Requantize};
use sparkherd_engine::{
    BackendChoice, Batch, BatchSequence, ForwardPass, LoadConfig, LoadError, LoadedModel, Wants, load_model,
    weights::ModelDirectory,
};
use sparkherd_footprint::{BLOCK_TOKENS, Backend, KvDtype, Platform, Serving, plan, whole_blocks};

pub(crate) const PLATFORM: Platform =
    Platform { backend: Backend::Cpu, threads: 3, runtime_host_bytes: 64 << 20, runtime_device_bytes: 0 };

pub(crate) fn facts(directory: &Path) -> Facts {
    Checkpoint::read(&ModelDirectory(directory.to_owned())).unwrap().inspection.facts
}

/// Everything the checkpoint's context allows, for `concurrency` sequences.
pub(crate) fn config(
    directory: &Path,
    backend: BackendChoice,
    kv_dtype: KvDtype,
    concurrency: u32,
) -> LoadConfig {
    let facts = facts(directory);
    let context = facts.max_context;
    let kv_tokens = whole_blocks(u64::from(context)) * u64::from(concurrency);
    let requantize = Requantize::None;
    let serving = Serving { context, concurrency, kv_tokens, kv_dtype, requantize };
    let footprint = plan(&facts, &serving, &PLATFORM).unwrap();
    LoadConfig { model_dir: directory.to_owned(), serving, platform: PLATFORM, footprint, backend }
}

pub(crate) fn load(config: &LoadConfig) -> Result<LoadedModel, LoadError> {
    load_model(config, &mut |_| {})
}

/// A sequence in the pool: its tokens so far, and blocks of its own.
#[derive(Clone, Debug)]
pub(crate) struct Sequence {
    pub(crate) tokens: Vec<u32>,
    computed: usize,
    blocks: Vec<u32>,
}

impl Sequence {
    /// The `index`-th sequence has the blocks `index`, `index + stride`, …: scattered, and nobody else's.
    pub(crate) fn new(index: u32, stride: u32, context: usize, tokens: Vec<u32>) -> Self {
        let blocks =
            (0..context.div_ceil(BLOCK_TOKENS as usize) as u32).map(|n| index + n * stride).collect();
        Self { tokens, computed: 0, blocks }
    }
}

/// Computes the next `count` tokens of each sequence in one step. Returns the rows of logits after the last ones.
pub(crate) fn step(model: &mut dyn ForwardPass, sequences: &mut [(&mut Sequence, usize)]) -> Vec<Vec<f32>> {
    let mut batch = Batch::default();
    for (sequence, count) in &mut *sequences {
        let next = sequence.computed + *count;
        batch.tokens.extend_from_slice(&sequence.tokens[sequence.computed..next]);
        batch.sequences.push(BatchSequence {
            token_count: *count as u32,
            position: sequence.computed as u32,
            block_table: sequence.blocks[..next.div_ceil(BLOCK_TOKENS as usize)].to_vec(),
            wants: Wants::LastLogits,
        });
        sequence.computed = next;
    }
    model.forward(&batch).unwrap().logits.iter().map(<[f32]>::to_vec).collect()
}

/// The logits after all tokens, computed in chunks of at most `chunk`.
pub(crate) fn logits(model: &mut dyn ForwardPass, sequence: &mut Sequence, chunk: usize) -> Vec<f32> {
    let mut last = Vec::new();
    while sequence.computed < sequence.tokens.len() {
        let count = chunk.min(sequence.tokens.len() - sequence.computed);
        last = step(model, &mut [(&mut *sequence, count)]).remove(0);
    }
    last
}

pub(crate) fn bits(logits: &[f32]) -> Vec<u32> {
    logits.iter().copied().map(f32::to_bits).collect()
}

pub(crate) fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// The most likely token.
pub(crate) fn greedy(logits: &[f32]) -> u32 {
    let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap();
    best.0 as u32
}
