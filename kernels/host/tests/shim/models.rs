//! Whole forward passes of the tiny checkpoints: the same greedy tokens as on the CPU, or a near-tie.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::Deserialize;
use sparkherd_checkpoint::{Checkpoint, Requantize};
use sparkherd_engine::backend::cuda::{AttentionLimits, Cuda, CudaLimits};
use sparkherd_engine::weights::ModelDirectory;
use sparkherd_engine::{
    BackendChoice, Batch, BatchSequence, ForwardPass, LoadConfig, LoadedMemory, LoadedModel, Wants,
    load_model, load_model_on,
};
use sparkherd_footprint::{Backend, KvDtype, Platform, Serving, plan, whole_blocks};

/// What the issue calls a near-tie, in nats.
const NEAR_TIE: f32 = 0.5;
/// Of an answer: a prompt's step, and some of one token.
const STEPS: usize = 6;
const PLATFORM: Platform =
    Platform { backend: Backend::Cpu, threads: 2, runtime_host_bytes: 64 << 20, runtime_device_bytes: 0 };

/// What the engine's goldens say of a checkpoint, as far as it is needed here.
#[derive(Deserialize)]
struct Golden {
    /// From the root of the repository.
    checkpoint: PathBuf,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    prompt_tokens: Vec<u32>,
}

fn golden(name: &str) -> Golden {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let text = fs::read(root.join(format!("engine/tests/goldens/{name}.json"))).unwrap();
    let golden: Golden = serde_json::from_slice(&text).unwrap();
    Golden { checkpoint: root.join(golden.checkpoint), ..golden }
}

fn config(directory: &Path, kv_dtype: KvDtype) -> LoadConfig {
    let facts = Checkpoint::read(&ModelDirectory(directory.to_owned())).unwrap().inspection.facts;
    let context = facts.max_context;
    let requantize = Requantize::None;
    let kv_tokens = whole_blocks(u64::from(context));
    let serving = Serving { context, concurrency: 1, kv_tokens, kv_dtype, requantize };
    let footprint = plan(&facts, &serving, &PLATFORM).unwrap();
    let model_dir = directory.to_owned();
    LoadConfig { model_dir, serving, platform: PLATFORM, footprint, backend: BackendChoice::Cpu }
}

/// The model, and how often its device has allocated.
fn on_shim(config: &LoadConfig) -> (LoadedModel, Arc<AtomicUsize>) {
    let device = crate::device();
    let allocations = device.allocations();
    let model = load_model_on(config, &mut |_| {}, |loaded| {
        let LoadedMemory { memory, kv, workspace, limits } = loaded;
        // The planner of this platform has no room for it; steps of one token share their positions here by sixteens.
        let attention = AttentionLimits { rows: 1, run_min: 16, splits: 4, partial_elements: 1 << 18 };
        let limits = CudaLimits { attention: Some(attention), ..CudaLimits::of_steps(&limits, &workspace) };
        Cuda::new(device, memory, kv, limits)
    });
    (model.unwrap(), allocations)
}

/// The `blocks` of the pool are taken from its end, so that nothing lies where it would by itself.
fn logits(model: &mut LoadedModel, blocks: u32, tokens: &[u32], position: u32) -> Vec<f32> {
    let end = position as usize + tokens.len();
    let sequences = vec![BatchSequence {
        token_count: tokens.len() as u32,
        position,
        block_table: (0..end.div_ceil(16) as u32).map(|block| blocks - 1 - block).collect(),
        wants: Wants::LastLogits,
    }];
    let output = model.forward(&Batch { tokens: tokens.to_vec(), sequences }).unwrap();
    output.logits.iter().next().unwrap().to_vec()
}

fn greedy(logits: &[f32]) -> u32 {
    let best = logits.iter().enumerate().max_by(|(_, a), (_, b)| a.total_cmp(b)).unwrap();
    best.0 as u32
}

/// Follows the CPU's greedy answer to each prompt on both.
fn compare(name: &str, kv_dtype: KvDtype) {
    let Golden { checkpoint, cases } = golden(name);
    let config = config(&checkpoint, kv_dtype);
    let blocks = (config.serving.kv_tokens / 16) as u32;
    let mut cpu = load_model(&config, &mut |_| {}).unwrap();
    let (mut shim, allocations) = on_shim(&config);
    let allocated = allocations.load(Ordering::Relaxed);
    for case in &cases {
        let (mut tokens, mut position) = (case.prompt_tokens.clone(), 0);
        for step in 0..STEPS {
            if u64::from(position) + tokens.len() as u64 > u64::from(config.serving.context) {
                break;
            }
            let wanted = logits(&mut cpu, blocks, &tokens, position);
            let got = logits(&mut shim, blocks, &tokens, position);
            let (best, chosen) = (greedy(&wanted), greedy(&got));
            let lost = wanted[best as usize] - wanted[chosen as usize];
            let named = format!("{name} {kv_dtype:?} {}, step {step}", case.name);
            assert!(lost <= NEAR_TIE, "{named}: {chosen} is not {best}, by {lost} nat");
            position += tokens.len() as u32;
            tokens = vec![best];
        }
    }
    let now = allocations.load(Ordering::Relaxed);
    assert!(
        allocated > 0 && now == allocated,
        "{name}: {allocated} allocations before the first step, {now} after the last"
    );
}

#[test]
fn llama_qwen_and_mistral_answer_as_on_the_cpu() {
    for name in ["tiny-llama3-bf16", "tiny-qwen2-bf16", "tiny-qwen3-bf16", "tiny-mistral-f16"] {
        compare(name, KvDtype::Bf16);
    }
    compare("tiny-untied-f32", KvDtype::F32);
}

#[test]
fn weights_in_blocks_answer_as_on_the_cpu() {
    for name in ["tiny-gguf-q8_0", "tiny-gguf-q4_0", "tiny-gguf-k"] {
        compare(name, KvDtype::Bf16);
    }
}
