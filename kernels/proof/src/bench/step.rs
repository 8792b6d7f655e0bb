//! Whole decode steps of a model with random weights: launch by launch and recorded, answered with logits and with tokens.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sparkherd_checkpoint::Dtype;
use sparkherd_engine::backend::cuda::CudaLimits;
use sparkherd_engine::sample::{NoTokens, RequestSampler, TokenRequest, TokenRequests};
use sparkherd_engine::{
    Batch, BatchSequence, Ends, ForwardError, ForwardPass, LoadedModel, Sampling, Wants, load_model_on_device,
};
use sparkherd_footprint::{BLOCK_TOKENS, KvDtype, kv_bytes_per_token};
use sparkherd_kernels::Add;

use super::noise::Noise;
use super::watched::{Seen, Watched};
use super::{Bench, BenchError};
use crate::goal::Kind;
use crate::models::{CUDA, config_of};
use crate::random_model::RandomModel;
use crate::report::{Rate, Speed};

/// Tokens that each sequence has before.
const DEPTH: u32 = 512;
/// Enough to be a context, where sizes are divided.
const DEPTH_MIN: u32 = 8;
const SEQUENCES: [u32; 2] = [1, 8];
const KV_DTYPE: KvDtype = KvDtype::Bf16;

/// How a step's answer leaves the device.
#[derive(Clone, Copy, Debug)]
enum Answer {
    Logits,
    Tokens,
}

/// The step that is measured.
struct Step {
    batch: Batch,
    samplers: Vec<RequestSampler>,
    read_bytes: f64,
}

/// A request of each sequence.
struct Each<'a>(&'a [RequestSampler]);

impl TokenRequests for Each<'_> {
    fn of(&mut self, sequence: usize) -> Option<TokenRequest<'_>> {
        self.0.get(sequence).map(|sampler| sampler.next(None))
    }
}

pub(super) fn all(bench: &Bench<'_>, random: &RandomModel) -> Result<Vec<Speed>, BenchError> {
    let launch = launch_time(bench)?;
    let mut speeds = Vec::new();
    for sequences in SEQUENCES {
        speeds.extend(of_sequences(bench, random, sequences, launch)?);
    }
    Ok(speeds)
}

/// What a launch that does next to nothing takes in a recording: what is lost between two launches, and its own shortest run.
fn launch_time(bench: &Bench<'_>) -> Result<Duration, BenchError> {
    let mut gpu = (bench.gpu)()?;
    let mut noise = Noise::new();
    let x = noise.matrix(&mut gpu, Dtype::F32, [1, 1])?;
    let delta = noise.matrix(&mut gpu, Dtype::F32, [1, 1])?;
    bench.recorded_time(&mut gpu, |gpu| Ok(Add { x, delta, count: 1 }.launch(gpu)?))
}

fn of_sequences(
    bench: &Bench<'_>,
    random: &RandomModel,
    sequences: u32,
    launch: Duration,
) -> Result<Vec<Speed>, BenchError> {
    let depth = (DEPTH / bench.extent.divisor).max(DEPTH_MIN);
    let shape = || format!("{sequences} at {depth}");
    let (mut single, _) = load(bench, random, sequences, false)?;
    let step = Step::new(&mut single, random, sequences, depth)?;
    let line =
        |name, took, kind| bench.speed(name, shape(), took, Rate::of_bytes(step.read_bytes, took), kind);
    let one_by_one = step.median(bench, &mut single, Answer::Logits)?;
    drop(single);
    let (mut recorded, seen) = load(bench, random, sequences, true)?;
    step.fill(&mut recorded, depth)?;
    let with_logits = step.median(bench, &mut recorded, Answer::Logits)?;
    let with_tokens = step.median(bench, &mut recorded, Answer::Tokens)?;
    seen.lock().unwrap().is_wanted = true;
    step.median(bench, &mut recorded, Answer::Tokens)?;
    let mut seen = seen.lock().unwrap();
    seen.times.sort_unstable();
    let on_gpu = seen.times.get(seen.times.len() / 2).copied().unwrap_or_default();
    let engine = if sequences == 1 { Kind::EngineStep } else { Kind::Beside };
    let gaps = launch * seen.launches;
    Ok(vec![
        line("step, launches, logits", one_by_one, Kind::Beside),
        line("step, recorded, logits", with_logits, Kind::Beside),
        line("step, recorded, tokens", with_tokens, engine),
        line("step, recorded, on the GPU", on_gpu, Kind::Beside),
        bench.share(
            "around a recorded step",
            shape(),
            with_tokens.saturating_sub(on_gpu),
            with_tokens,
            Kind::Beside,
        ),
        bench.share(
            "between its launches, at most",
            format!("{} launches", seen.launches),
            gaps,
            on_gpu,
            Kind::Gaps,
        ),
    ])
}

fn load(
    bench: &Bench<'_>,
    random: &RandomModel,
    sequences: u32,
    is_recorded: bool,
) -> Result<(LoadedModel, Arc<Mutex<Seen>>), BenchError> {
    let config = config_of(random.directory(), KV_DTYPE, CUDA, sequences);
    let limits = |limits: CudaLimits| {
        let recorded_rows = if is_recorded { limits.recorded_rows } else { 0 };
        CudaLimits { recorded_rows, ..limits }
    };
    let (watched, seen) = Watched::new((bench.gpu)()?);
    Ok((load_model_on_device(&config, watched, limits, &mut |_| {})?, seen))
}

impl Step {
    /// One token of each sequence after so many, which are computed here.
    fn new(
        model: &mut LoadedModel,
        random: &RandomModel,
        sequences: u32,
        depth: u32,
    ) -> Result<Self, BenchError> {
        let sizes = random.sizes();
        let embedding_bytes = (sizes.vocabulary * sizes.hidden * 2) as u64;
        let weights_bytes = model.footprint().parts.weights_bytes - embedding_bytes;
        let facts = &model.checkpoint().inspection.facts;
        let token_bytes =
            kv_bytes_per_token(facts, KV_DTYPE).map_err(|_| BenchError::Size("keys and values"))?;
        let blocks = sizes.context as u32 / BLOCK_TOKENS;
        let of_one = |sequence: u32| BatchSequence {
            token_count: 1,
            position: depth,
            block_table: (sequence * blocks..(sequence + 1) * blocks).collect(),
            wants: Wants::LastLogits,
        };
        let tokens = (0..sequences).map(|sequence| sequence * 7 % sizes.vocabulary as u32).collect();
        let sampler = RequestSampler::new(&Sampling::default(), 1, &[], &Ends::default(), &[], None);
        let step = Self {
            batch: Batch { tokens, sequences: (0..sequences).map(of_one).collect() },
            samplers: vec![sampler; sequences as usize],
            read_bytes: weights_bytes as f64 + f64::from(sequences) * f64::from(depth) * token_bytes as f64,
        };
        step.fill(model, depth)?;
        Ok(step)
    }

    /// Computes the positions before, sequence by sequence.
    fn fill(&self, model: &mut LoadedModel, depth: u32) -> Result<(), ForwardError> {
        for sequence in &self.batch.sequences {
            let before = BatchSequence {
                token_count: depth,
                position: 0,
                wants: Wants::Nothing,
                block_table: sequence.block_table.clone(),
            };
            let tokens = (0..depth).map(|position| position * 31 % 251).collect();
            model.forward(&Batch { tokens, sequences: vec![before] })?;
        }
        Ok(())
    }

    /// As the host sees it: from the numbers it sends to the answer it has. The first is not counted.
    fn median(
        &self,
        bench: &Bench<'_>,
        model: &mut LoadedModel,
        answer: Answer,
    ) -> Result<Duration, BenchError> {
        let mut times = Vec::with_capacity(bench.extent.launches);
        self.take(model, answer)?;
        for _ in 0..bench.extent.launches.max(1) {
            let begin = Instant::now();
            self.take(model, answer)?;
            times.push(begin.elapsed());
        }
        times.sort_unstable();
        Ok(times[times.len() / 2])
    }

    fn take(&self, model: &mut LoadedModel, answer: Answer) -> Result<(), BenchError> {
        let output = match answer {
            Answer::Logits => model.step(&self.batch, &mut NoTokens)?,
            Answer::Tokens => model.step(&self.batch, &mut Each(&self.samplers))?,
        };
        match (answer, output.logits.values.is_empty()) {
            (Answer::Logits, false) | (Answer::Tokens, true) => Ok(()),
            (Answer::Logits, true) | (Answer::Tokens, false) => Err(BenchError::Answer),
        }
    }
}
