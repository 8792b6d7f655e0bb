//! Whole forward passes of the tiny checkpoints: the same greedy tokens as on the CPU, or a near-tie.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::Deserialize;
use sparkherd_checkpoint::{Checkpoint, Requantize};
use sparkherd_engine::backend::cuda::{AttentionLimits, CudaLimits};
use sparkherd_engine::sample::{Chosen, RequestSampler, Sampler, TokenRequest, TokenRequests};
use sparkherd_engine::weights::ModelDirectory;
use sparkherd_engine::{
    BackendChoice, Batch, BatchSequence, Ends, ForwardPass, LoadConfig, LoadedModel, Sampling, Wants,
    load_model, load_model_on_device,
};
use sparkherd_footprint::{KvDtype, Platform, Serving, plan, whole_blocks};
use sparkherd_kernels::Device;

/// What the issue calls a near-tie, in nats.
const NEAR_TIE: f32 = 0.5;
/// Of an answer: a prompt's step, and some of one token.
const STEPS: usize = 6;
const CPU: Platform = Platform::cpu(2);
const CUDA: Platform = Platform::cuda(2);

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

pub(crate) fn checkpoint(name: &str) -> PathBuf {
    golden(name).checkpoint
}

fn golden(name: &str) -> Golden {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let text = fs::read(root.join(format!("engine/tests/goldens/{name}.json"))).unwrap();
    let golden: Golden = serde_json::from_slice(&text).unwrap();
    Golden { checkpoint: root.join(golden.checkpoint), ..golden }
}

pub(crate) fn config(
    directory: &Path,
    kv_dtype: KvDtype,
    platform: Platform,
    concurrency: u32,
) -> LoadConfig {
    let facts = Checkpoint::read(&ModelDirectory(directory.to_owned())).unwrap().inspection.facts;
    let context = facts.max_context;
    let requantize = Requantize::None;
    let kv_tokens = whole_blocks(u64::from(context)) * u64::from(concurrency);
    let serving = Serving { context, concurrency, kv_tokens, kv_dtype, requantize };
    let footprint = plan(&facts, &serving, &platform).unwrap();
    let model_dir = directory.to_owned();
    // Whatever device is asked for by hand, the platform says what is allocated. What to compare with: the CPU has no keys and
    // values in 8 bits.
    let backend = if kv_dtype == KvDtype::Fp8 { BackendChoice::Oracle } else { BackendChoice::Cpu };
    LoadConfig { model_dir, serving, platform, footprint, backend }
}

/// Steps of one token share their positions by sixteens, as no context here is long enough for a block of a GPU.
pub(crate) fn short_runs(limits: CudaLimits) -> CudaLimits {
    let attention = AttentionLimits { rows: 8, run_min: 16, splits: 4, partial_elements: 1 << 18 };
    CudaLimits { attention: Some(attention), ..limits }
}

fn load_on(config: &LoadConfig, device: impl Device + 'static) -> LoadedModel {
    load_model_on_device(config, device, short_runs, &mut |_| {}).unwrap()
}

/// The model, and how often its device has allocated.
fn on_shim(config: &LoadConfig) -> (LoadedModel, Arc<AtomicUsize>) {
    let device = crate::device();
    let allocations = device.allocations();
    (load_on(config, device), allocations)
}

/// The `blocks` of the pool are taken from its end, so that nothing lies where it would by itself.
fn batch(blocks: u32, tokens: &[u32], position: u32) -> Batch {
    let end = position as usize + tokens.len();
    let sequences = vec![BatchSequence {
        token_count: tokens.len() as u32,
        position,
        block_table: (0..end.div_ceil(16) as u32).map(|block| blocks - 1 - block).collect(),
        wants: Wants::LastLogits,
    }];
    Batch { tokens: tokens.to_vec(), sequences }
}

fn logits(model: &mut LoadedModel, blocks: u32, tokens: &[u32], position: u32) -> Vec<f32> {
    let output = model.forward(&batch(blocks, tokens, position)).unwrap();
    output.logits.iter().next().unwrap().to_vec()
}

fn greedy(logits: &[f32]) -> u32 {
    let best = logits.iter().enumerate().max_by(|(_, a), (_, b)| a.total_cmp(b)).unwrap();
    best.0 as u32
}

/// Follows the CPU's greedy answer to each prompt on both.
fn compare(name: &str, kv_dtype: KvDtype) {
    let Golden { checkpoint, cases } = golden(name);
    let config = |platform| config(&checkpoint, kv_dtype, platform, 1);
    let mut cpu = load_model(&config(CPU), &mut |_| {}).unwrap();
    let (mut shim, allocations) = on_shim(&config(CUDA));
    let allocated = allocations.load(Ordering::Relaxed);
    follow(name, &cases, &config(CPU).serving, &mut cpu, &mut shim);
    let now = allocations.load(Ordering::Relaxed);
    assert!(
        allocated > 0 && now == allocated,
        "{name}: {allocated} allocations before the first step, {now} after the last"
    );
}

fn follow(name: &str, cases: &[Case], serving: &Serving, cpu: &mut LoadedModel, shim: &mut LoadedModel) {
    let blocks = (serving.kv_tokens / 16) as u32;
    for case in cases {
        let (mut tokens, mut position) = (case.prompt_tokens.clone(), 0);
        for step in 0..STEPS {
            if u64::from(position) + tokens.len() as u64 > u64::from(serving.context) {
                break;
            }
            let wanted = logits(cpu, blocks, &tokens, position);
            let got = logits(shim, blocks, &tokens, position);
            let (best, chosen) = (greedy(&wanted), greedy(&got));
            let lost = wanted[best as usize] - wanted[chosen as usize];
            let named = format!("{name} {:?} {}, step {step}", serving.kv_dtype, case.name);
            assert!(lost <= NEAR_TIE, "{named}: {chosen} is not {best}, by {lost} nat");
            position += tokens.len() as u32;
            tokens = vec![best];
        }
    }
}

#[test]
fn llama_qwen_and_mistral_answer_as_on_the_cpu() {
    for name in ["tiny-llama3-bf16", "tiny-qwen2-bf16", "tiny-qwen3-bf16", "tiny-mistral-f16"] {
        compare(name, KvDtype::Bf16);
    }
    compare("tiny-untied-f32", KvDtype::F32);
}

/// Weights go through the driver's pinned ring, decodes are recorded and launched whole.
#[test]
fn a_model_answers_behind_a_driver_too() {
    let Golden { checkpoint, cases } = golden("tiny-qwen3-bf16");
    let config = |platform| config(&checkpoint, KvDtype::Bf16, platform, 1);
    let mut cpu = load_model(&config(CPU), &mut |_| {}).unwrap();
    let mut gpu = load_on(&config(CUDA), crate::gpu());
    follow("tiny-qwen3-bf16", &cases, &config(CPU).serving, &mut cpu, &mut gpu);
}

#[test]
fn with_keys_and_values_in_8_bits_it_answers_as_the_oracle() {
    compare("tiny-qwen3-bf16", KvDtype::Fp8);
}

#[test]
fn weights_in_blocks_answer_as_on_the_cpu() {
    for name in ["tiny-gguf-q8_0", "tiny-gguf-q4_0", "tiny-gguf-k"] {
        compare(name, KvDtype::Bf16);
    }
}

struct One<'a>(&'a RequestSampler);

impl TokenRequests for One<'_> {
    fn of(&mut self, sequence: usize) -> Option<TokenRequest<'_>> {
        (sequence == 0).then(|| self.0.next(None))
    }
}

/// Each step is computed twice: for its logits, by which the host chooses, and for the token.
fn choose(name: &str, sampling: &Sampling) {
    let Golden { checkpoint, cases } = golden(name);
    let config = config(&checkpoint, KvDtype::Bf16, CUDA, 1);
    let (mut shim, allocations) = on_shim(&config);
    let allocated = allocations.load(Ordering::Relaxed);
    choose_on(&mut shim, &config.serving, name, &cases, sampling);
    assert_eq!(allocations.load(Ordering::Relaxed), allocated, "{name} allocates while it chooses");
}

fn choose_on(shim: &mut LoadedModel, serving: &Serving, name: &str, cases: &[Case], sampling: &Sampling) {
    let blocks = (serving.kv_tokens / 16) as u32;
    for case in cases {
        let (mut tokens, mut position) = (case.prompt_tokens.clone(), 0);
        let mut sampler = RequestSampler::new(sampling, 7, &tokens, &Ends::default(), &[], Some(3));
        for step in 0..STEPS {
            if u64::from(position) + tokens.len() as u64 > u64::from(serving.context) {
                break;
            }
            let batch = batch(blocks, &tokens, position);
            let logits = shim.forward(&batch).unwrap().logits.values.to_vec();
            let output = shim.step(&batch, &mut One(&sampler)).unwrap();
            assert!(output.logits.values.is_empty(), "the row stays on the device");
            let got = output.chosen[0].as_ref().unwrap().as_ref().unwrap();
            let wanted = sampler.next(None).choose(&mut Sampler::default(), &logits).unwrap();
            let named = format!("{name} {}, step {step}, {sampling:?}", case.name);
            assert_eq!(got.token, wanted.token, "{named}");
            let likeliest = |chosen: &Chosen| -> Vec<u32> {
                chosen
                    .logprob
                    .iter()
                    .flat_map(|logprob| logprob.top.iter().map(|(token, _)| *token))
                    .collect()
            };
            assert_eq!(likeliest(got), likeliest(&wanted), "{named}");
            position += tokens.len() as u32;
            tokens = vec![got.token];
            sampler.observe(got.token);
        }
    }
}

#[test]
fn tokens_chosen_on_the_device_are_those_the_host_chooses() {
    let penalised = Sampling { repetition_penalty: 1.4, frequency_penalty: 0.5, ..Sampling::default() };
    let drawn = Sampling { temperature: 0.9, top_p: 0.9, top_k: 40, ..penalised.clone() };
    for sampling in [Sampling::default(), penalised, drawn] {
        choose("tiny-llama3-bf16", &sampling);
        choose("tiny-gguf-q8_0", &sampling);
        let Golden { checkpoint, cases } = golden("tiny-qwen3-bf16");
        let config = config(&checkpoint, KvDtype::Bf16, CUDA, 1);
        let mut gpu = load_on(&config, crate::gpu());
        choose_on(&mut gpu, &config.serving, "tiny-qwen3-bf16 behind a driver", &cases, &sampling);
    }
}
