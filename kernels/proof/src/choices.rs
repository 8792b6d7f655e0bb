//! Tokens that a device chooses, against the host's choice from the same logits.

use sparkherd_engine::sample::{Chosen, RequestSampler, Sampler, TokenRequest, TokenRequests};
use sparkherd_engine::{Ends, ForwardPass, LoadedModel, Sampling, load_model_on_device};
use sparkherd_footprint::{KvDtype, Serving};
use sparkherd_kernels::Device;

use crate::checkpoints::{self, Checkpoint, Prompt};
use crate::models::{CUDA, STEPS, batch, config_of, short_runs};
use crate::report::Check;

/// One each of a family and of a format in blocks.
const NAMES: [&str; 3] = ["tiny-llama3-bf16", "tiny-gguf-q8_0", "tiny-qwen3-bf16"];
/// Likeliest tokens that are told with each.
const TOP: u32 = 3;
const SEED: u64 = 7;

struct One<'a>(&'a RequestSampler);

impl TokenRequests for One<'_> {
    fn of(&mut self, sequence: usize) -> Option<TokenRequest<'_>> {
        (sequence == 0).then(|| self.0.next(None))
    }
}

/// Greedy, with penalties, and drawn from what several limits leave.
pub fn check<D: Device + 'static>(device: impl Fn() -> D) -> Check {
    let penalised = Sampling { repetition_penalty: 1.4, frequency_penalty: 0.5, ..Sampling::default() };
    let drawn = Sampling { temperature: 0.9, top_p: 0.9, top_k: 40, ..penalised.clone() };
    let mut check = Check { name: "tokens chosen as by the host", passed: 0, wrong: Vec::new() };
    for sampling in [Sampling::default(), penalised, drawn] {
        for name in NAMES {
            match choose(&checkpoints::named(name), &sampling, device(), || {}) {
                Ok(compared) => check.passed += compared,
                Err(wrong) => check.wrong.push(wrong),
            }
        }
    }
    check
}

/// Each step is computed twice: for its logits, by which the host chooses, and for the token. Calls `loaded` before the first.
pub fn choose(
    checkpoint: &Checkpoint,
    sampling: &Sampling,
    device: impl Device + 'static,
    loaded: impl FnOnce(),
) -> Result<usize, String> {
    let directory = tempfile::tempdir().unwrap();
    checkpoint.unpack(directory.path()).unwrap();
    let config = config_of(directory.path(), KvDtype::Bf16, CUDA, 1);
    let on_device = load_model_on_device(&config, device, short_runs, &mut |_| {});
    let mut model = on_device.map_err(|error| error.to_string())?;
    loaded();
    let mut compared = 0;
    for prompt in checkpoint.prompts() {
        compared += choose_one(&mut model, &config.serving, &prompt, sampling)
            .map_err(|wrong| format!("{}, {}, {sampling:?}: {wrong}", checkpoint.name, prompt.name))?;
    }
    Ok(compared)
}

fn choose_one(
    model: &mut LoadedModel,
    serving: &Serving,
    prompt: &Prompt,
    sampling: &Sampling,
) -> Result<usize, String> {
    let blocks = (serving.kv_tokens / 16) as u32;
    let (mut tokens, mut position) = (prompt.prompt_tokens.clone(), 0);
    let mut sampler = RequestSampler::new(sampling, SEED, &tokens, &Ends::default(), &[], Some(TOP));
    for step in 0..STEPS {
        if u64::from(position) + tokens.len() as u64 > u64::from(serving.context) {
            return Ok(step);
        }
        let batch = batch(blocks, &tokens, position);
        let logits = model.forward(&batch).map_err(|error| error.to_string())?.logits.values.to_vec();
        let output = model.step(&batch, &mut One(&sampler)).map_err(|error| error.to_string())?;
        if !output.logits.values.is_empty() {
            return Err(format!("step {step}: the row left the device"));
        }
        let got = output.chosen[0].as_ref().unwrap().as_ref().map_err(ToString::to_string)?;
        let wanted = sampler.next(None).choose(&mut Sampler::default(), &logits);
        let wanted = wanted.map_err(|error| error.to_string())?;
        if got.token != wanted.token || likeliest(got) != likeliest(&wanted) {
            return Err(format!("step {step}: {got:?} is not {wanted:?}"));
        }
        position += tokens.len() as u32;
        tokens = vec![got.token];
        sampler.observe(got.token);
    }
    Ok(STEPS)
}

fn likeliest(chosen: &Chosen) -> Vec<u32> {
    chosen.logprob.iter().flat_map(|logprob| logprob.top.iter().map(|(token, _)| *token)).collect()
}
