//! Tokens chosen on the device, so that rows of logits stay there.
//!
//! ```text
//! launched: the forward pass ─► requests, as grammars' masks come ─► words ─► sample, logprobs ─► results ─► choices
//!                                  └ not covered: as logits to the host, which chooses by the same rules
//! ```
//!
//! Not covered are prompts whose every token's probability is wanted, and requests whose lists have no room left in the step's
//! words.

use std::iter::once;

use sparkherd_footprint::Workspace;
use sparkherd_kernels::{
    self as kernels, Device, DeviceMemory, SampleOutcome, SampleRequest, SampleResult, SampleWords,
};

use super::{
    Cuda,
    operands::{self, Memory, count},
    read::read_to,
};
use crate::{
    backend::{Activation, Answer, Backend as _, BackendError, TokenRow, arena::Arena},
    model::StepLimits,
    request::TokenLogprob,
    sample::{Adjustments, Chosen, Penalties, SampleError, TokenMask, TokenRequest},
};

/// How much of a step's sampling the device takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SamplingLimits {
    pub requests: usize,
    /// Of all of them, with their lists and masks; 32 bits each.
    pub words: usize,
}

/// Device memory of requests and of what comes of them.
#[derive(Debug)]
pub(super) struct Sampling {
    limits: SamplingLimits,
    words: DeviceMemory,
    results: DeviceMemory,
    /// The step's, in the order of their results.
    asked: Vec<Asked>,
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    at: TokenRow,
    top_logprobs: Option<u32>,
}

impl SamplingLimits {
    /// None where there is no room.
    pub(super) fn of_steps(steps: &StepLimits, workspace: &Workspace) -> Option<Self> {
        let requests = steps.sequences;
        let results = requests.checked_mul(SampleWords::RESULT_WORDS)?;
        let words = usize::try_from(workspace.sampling.elements).ok()?.checked_sub(results)?;
        (words > 0).then_some(Self { requests, words })
    }

    /// Words on their way to or from the device.
    pub(super) fn transfer_words(self) -> usize {
        self.words.max(self.requests * SampleWords::RESULT_WORDS)
    }
}

impl Sampling {
    pub(super) fn new(device: &mut dyn Device, limits: SamplingLimits) -> Result<Self, BackendError> {
        let SamplingLimits { requests, words } = limits;
        Ok(Self {
            limits,
            words: device.allocate(words * size_of::<u32>())?,
            results: device.allocate(requests * SampleWords::RESULT_WORDS * size_of::<u32>())?,
            asked: Vec::with_capacity(requests),
        })
    }

    /// Chooses what it can.
    pub(super) fn choose(
        &mut self,
        device: &mut dyn Device,
        transfer: &mut Arena,
        memory: &Memory,
        args: &mut Answer<'_>,
    ) -> Result<(), BackendError> {
        let bytes = self.ask(transfer, args)? * size_of::<u32>();
        if self.asked.is_empty() {
            return Ok(());
        }
        let launch = kernels::Sample {
            logits: memory.activation("sample", args.logits)?,
            words: self.words,
            results: self.results,
            requests: count("sample", self.asked.len())?,
            logits_rows: count("sample", args.logits.rows)?,
            vocabulary: count("sample", args.logits.columns)?,
        };
        device.write(self.words, &transfer.as_slice::<u8>()[..bytes])?;
        operands::sample(device, launch)?;
        if self.asked.iter().any(|asked| asked.top_logprobs.is_some()) {
            operands::logprobs(device, kernels::Logprobs { of: launch })?;
        }
        self.read_choices(device, transfer, args)
    }

    /// Gathers requests, and tells how many words they are. Waits for grammars' masks: the device works meanwhile.
    fn ask(&mut self, transfer: &mut Arena, args: &mut Answer<'_>) -> Result<usize, BackendError> {
        let Answer { logits, rows, requests, chosen, .. } = args;
        self.asked.clear();
        let (got, limit) = (rows.last().map_or(0, |last| last.row), logits.rows);
        let ascend = rows.is_sorted_by(|first, second| first.row < second.row);
        if !rows.is_empty() && (got >= limit || !ascend) {
            return Err(BackendError::OutOfRange { operation: "sample", what: "row", got, limit });
        }
        if !(1..=SampleWords::VOCABULARY_MAX as usize).contains(&logits.columns) {
            return Ok(0);
        }
        let places = transfer.as_mut_slice::<u32>().get_mut(..self.limits.words).unwrap_or_default();
        let mut words = SampleWords::new(places, self.limits.requests);
        for at in rows.iter().filter(|at| at.sequence < chosen.len()) {
            let Some(request) = requests.of(at.sequence) else { continue };
            if words.push(&on_device(count("sample", at.row)?, &request)) {
                self.asked.push(Asked { at: *at, top_logprobs: request.top_logprobs });
            }
        }
        Ok(words.words().len())
    }

    fn read_choices(
        &self,
        device: &mut dyn Device,
        transfer: &mut Arena,
        args: &mut Answer<'_>,
    ) -> Result<(), BackendError> {
        let words = self.asked.len() * SampleWords::RESULT_WORDS;
        let bytes = words * size_of::<u32>();
        device.read(self.results, &mut transfer.as_mut_slice::<u8>()[..bytes])?;
        let results = SampleResult::all(&transfer.as_slice::<u32>()[..words]);
        for (asked, result) in self.asked.iter().zip(results) {
            let choice = choice(result, asked.top_logprobs, args.logits.columns)?;
            if let Some(place) = args.chosen.get_mut(asked.at.sequence) {
                *place = Some(choice);
            }
        }
        Ok(())
    }

    /// The rows of these logits of which nothing was asked, run by run.
    pub(super) fn rest(&self, logits: Activation) -> impl Iterator<Item = Activation> {
        let starts = once(0).chain(self.asked.iter().map(|asked| asked.at.row + 1));
        let ends = self.asked.iter().map(|asked| asked.at.row).chain(once(logits.rows));
        starts.zip(ends).map(move |(start, end)| Activation {
            offset: logits.offset + start * logits.columns,
            rows: end - start,
            ..logits
        })
    }
}

impl<D: Device> Cuda<D> {
    /// Chooses what it can, and reads the logits of the other rows and the hidden states.
    pub(super) fn choose_and_read(&mut self, mut args: Answer<'_>) -> Result<[&[f32]; 2], BackendError> {
        let Some(sampling) = &mut self.sampling else { return self.read_pair([args.logits, args.hidden]) };
        let (device, transfer) = (&mut self.device, &mut self.transfer);
        sampling.choose(device, transfer, &self.memory, &mut args)?;
        let mut logits_end = 0;
        for rows in sampling.rest(args.logits) {
            logits_end = read_to(device, self.memory.activation("read", rows)?, transfer, logits_end)?;
        }
        let end = read_to(device, self.memory.activation("read", args.hidden)?, transfer, logits_end)?;
        let (logits, hidden) = transfer.as_slice::<f32>()[..end].split_at(logits_end);
        Ok([logits, hidden])
    }
}

/// The request as kernels take it.
fn on_device<'a>(row: u32, request: &TokenRequest<'a>) -> SampleRequest<'a> {
    let TokenRequest { adjustments, sampling, draw, top_logprobs } = *request;
    let Adjustments { penalties, banned, mask } = adjustments;
    SampleRequest {
        row,
        seed: draw.seed,
        position: draw.position,
        temperature: sampling.temperature,
        top_p: sampling.top_p,
        min_p: sampling.min_p,
        top_k: sampling.top_k,
        repetition: sampling.repetition_penalty,
        presence: sampling.presence_penalty,
        frequency: sampling.frequency_penalty,
        is_adjusted: adjustments.is_some(),
        biases: penalties.map_or(&[], Penalties::bias),
        seen: penalties.map_or(&[], Penalties::counts),
        banned,
        mask: mask.map(TokenMask::words),
        top_logprobs,
    }
}

/// What came of a request, with as many likeliest tokens as it asked for and there are.
fn choice(
    result: SampleResult<'_>,
    top_logprobs: Option<u32>,
    vocabulary: usize,
) -> Result<Result<Chosen, SampleError>, BackendError> {
    Ok(match result.outcome()? {
        SampleOutcome::Chosen(token) => {
            let logprob = top_logprobs.map(|top| TokenLogprob {
                token,
                logprob: result.logprob(),
                top: result.top().take((top as usize).min(vocabulary)).collect(),
            });
            Ok(Chosen { token, logprob })
        }
        SampleOutcome::NotANumber(token) => Err(SampleError::NotANumber { token }),
        SampleOutcome::NoFinite(count) => Err(SampleError::NoFinite { count: count as usize }),
        SampleOutcome::NothingAllowed => Err(SampleError::NothingAllowed),
    })
}

#[cfg(test)]
mod tests {
    use sparkherd_checkpoint::{Architecture, Dtype, Facts, Requantize};
    use sparkherd_footprint::{Backend, KvDtype, Platform, SAMPLE_CHANGES, Serving, workspace};

    use super::*;
    use crate::{request::Sampling, sample::Draw};

    const VOCABULARY: u32 = 5003;
    const SEQUENCES: u32 = 3;

    fn facts() -> Facts {
        Facts {
            architecture: Architecture::Llama,
            dtype: Dtype::Bf16,
            parameters: 0,
            weight_bytes: 0,
            layers: 1,
            hidden_size: 64,
            intermediate_size: 64,
            attention_heads: 1,
            kv_heads: 1,
            head_dim: 64,
            vocab_size: VOCABULARY,
            max_context: 64,
            int8_weight_bytes: None,
            tokenizer_bytes: 0,
        }
    }

    fn limits(backend: Backend) -> Option<SamplingLimits> {
        let serving = Serving {
            context: 64,
            concurrency: SEQUENCES,
            kv_tokens: 64,
            kv_dtype: KvDtype::Bf16,
            requantize: Requantize::None,
        };
        let platform = Platform { backend, ..Platform::cpu(1) };
        let sequences = SEQUENCES as usize;
        let steps = StepLimits { tokens: 64, sequences, logit_rows: 32, context: 64, blocks: 4 };
        SamplingLimits::of_steps(&steps, &workspace(&facts(), &serving, &platform).unwrap())
    }

    #[test]
    fn the_footprint_has_room_for_the_lists_and_masks_of_every_sequence() {
        assert_eq!(limits(Backend::Cpu), None);
        let limits = limits(Backend::Cuda).unwrap();
        let mut memory = vec![0; limits.words];
        let mut words = SampleWords::new(&mut memory, limits.requests);
        let seen: Vec<(u32, u32)> = (0..SAMPLE_CHANGES).map(|token| (token, 1)).collect();
        let mask = TokenMask::new(vec![0; VOCABULARY.div_ceil(u32::BITS) as usize]);
        let sampling = Sampling::default();
        let draw = Draw { seed: 0, position: 0 };
        let adjustments = Adjustments { mask: Some(&mask), ..Adjustments::default() };
        let request = TokenRequest { adjustments, sampling: &sampling, draw, top_logprobs: None };
        for row in 0..SEQUENCES {
            assert!(words.push(&SampleRequest { seen: &seen, ..on_device(row, &request) }));
        }
        assert_eq!(words.words().len(), limits.words, "and no more");
    }
}
