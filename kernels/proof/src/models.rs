//! Whole forward passes of the tiny checkpoints: the same greedy tokens as on the CPU, or a near-tie.

use std::path::Path;

use sparkherd_checkpoint::{Checkpoint as Read, Requantize};
use sparkherd_engine::backend::cuda::{AttentionLimits, CudaLimits};
use sparkherd_engine::weights::ModelDirectory;
use sparkherd_engine::{
    BackendChoice, Batch, BatchSequence, ForwardPass, LoadConfig, LoadedModel, Wants, load_model,
    load_model_on_device,
};
use sparkherd_footprint::{KvDtype, Platform, Serving, plan, whole_blocks};
use sparkherd_kernels::Device;

use crate::checkpoints::{self, Checkpoint, Prompt};
use crate::report::Check;

/// How far below the CPU's token another may be that a device gives, in nats.
const NEAR_TIE: f32 = 0.5;
/// Of an answer: a prompt's step, and some of one token.
pub(crate) const STEPS: usize = 6;
pub const CPU: Platform = Platform::cpu(2);
pub const CUDA: Platform = Platform::cuda(2);

/// Everything the checkpoint's context allows, for so many sequences.
pub fn config_of(directory: &Path, kv_dtype: KvDtype, platform: Platform, concurrency: u32) -> LoadConfig {
    let facts = Read::read(&ModelDirectory(directory.to_owned())).unwrap().inspection.facts;
    let context = facts.max_context;
    let requantize = Requantize::None;
    let kv_tokens = whole_blocks(u64::from(context)) * u64::from(concurrency);
    let serving = Serving { context, concurrency, kv_tokens, kv_dtype, requantize };
    let footprint = plan(&facts, &serving, &platform).unwrap();
    let model_dir = directory.to_owned();
    // Of what to compare with: a device is given by whoever loads on one, and the CPU has no keys and values in 8 bits.
    let backend = if kv_dtype == KvDtype::Fp8 { BackendChoice::Oracle } else { BackendChoice::Cpu };
    LoadConfig { model_dir, serving, platform, footprint, backend }
}

/// Steps of one token share their positions by sixteens, as no context here is long enough for a block of a GPU.
pub fn short_runs(limits: CudaLimits) -> CudaLimits {
    let attention = AttentionLimits { rows: 8, run_min: 16, splits: 4, partial_elements: 1 << 18 };
    CudaLimits { attention: Some(attention), ..limits }
}

/// What keys and values of a checkpoint are tried as.
pub fn kv_dtypes(checkpoint: &Checkpoint) -> &'static [KvDtype] {
    match checkpoint.name {
        "tiny-untied-f32" => &[KvDtype::F32],
        "tiny-qwen3-bf16" => &[KvDtype::Bf16, KvDtype::Fp8],
        _ => &[KvDtype::Bf16],
    }
}

/// Follows the CPU's greedy answer to each prompt on both, and calls `loaded` before the first step. How many tokens were compared,
/// or what is wrong.
pub fn follow(
    checkpoint: &Checkpoint,
    kv_dtype: KvDtype,
    device: impl Device + 'static,
    loaded: impl FnOnce(),
) -> Result<usize, String> {
    let directory = tempfile::tempdir().unwrap();
    checkpoint.unpack(directory.path()).unwrap();
    let config = |platform| config_of(directory.path(), kv_dtype, platform, 1);
    let mut cpu = load_model(&config(CPU), &mut |_| {}).map_err(|error| error.to_string())?;
    let on_device = load_model_on_device(&config(CUDA), device, short_runs, &mut |_| {});
    let mut device = on_device.map_err(|error| error.to_string())?;
    loaded();
    let serving = config(CPU).serving;
    let mut compared = 0;
    for prompt in checkpoint.prompts() {
        compared += follow_one(&prompt, &serving, &mut cpu, &mut device)
            .map_err(|wrong| format!("{} {kv_dtype:?}, {}: {wrong}", checkpoint.name, prompt.name))?;
    }
    Ok(compared)
}

/// All checkpoints, each on a device of its own.
pub fn check<D: Device + 'static>(device: impl Fn() -> D) -> Check {
    let mut check = Check { name: "tokens as the CPU's, or nearly", passed: 0, wrong: Vec::new() };
    for checkpoint in checkpoints::ALL {
        for kv_dtype in kv_dtypes(checkpoint) {
            match follow(checkpoint, *kv_dtype, device(), || {}) {
                Ok(compared) => check.passed += compared,
                Err(wrong) => check.wrong.push(wrong),
            }
        }
    }
    check
}

fn follow_one(
    prompt: &Prompt,
    serving: &Serving,
    cpu: &mut LoadedModel,
    device: &mut LoadedModel,
) -> Result<usize, String> {
    let blocks = (serving.kv_tokens / 16) as u32;
    let (mut tokens, mut position) = (prompt.prompt_tokens.clone(), 0);
    for step in 0..STEPS {
        if u64::from(position) + tokens.len() as u64 > u64::from(serving.context) {
            return Ok(step);
        }
        let wanted = logits(cpu, blocks, &tokens, position)?;
        let got = logits(device, blocks, &tokens, position)?;
        let (best, chosen) = (greedy(&wanted), greedy(&got));
        let lost = wanted[best as usize] - wanted[chosen as usize];
        if lost.is_nan() || lost > NEAR_TIE {
            return Err(format!("step {step}: {chosen} is not {best}, by {lost} nat"));
        }
        position += tokens.len() as u32;
        tokens = vec![best];
    }
    Ok(STEPS)
}

/// The `blocks` of the pool are taken from its end, so that nothing lies where it would by itself.
pub(crate) fn batch(blocks: u32, tokens: &[u32], position: u32) -> Batch {
    let end = position as usize + tokens.len();
    let sequences = vec![BatchSequence {
        token_count: tokens.len() as u32,
        position,
        block_table: (0..end.div_ceil(16) as u32).map(|block| blocks - 1 - block).collect(),
        wants: Wants::LastLogits,
    }];
    Batch { tokens: tokens.to_vec(), sequences }
}

fn logits(model: &mut LoadedModel, blocks: u32, tokens: &[u32], position: u32) -> Result<Vec<f32>, String> {
    let output = model.forward(&batch(blocks, tokens, position)).map_err(|error| error.to_string())?;
    Ok(output.logits.iter().next().unwrap().to_vec())
}

fn greedy(logits: &[f32]) -> u32 {
    let best = logits.iter().enumerate().max_by(|(_, a), (_, b)| a.total_cmp(b)).unwrap();
    best.0 as u32
}
