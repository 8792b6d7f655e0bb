use std::time::Instant;

use sparkherd_engine::sample::RequestSampler;
use sparkherd_engine::{
    Batch, BatchSequence, Ends, ForwardError, ForwardPass, LoadedModel, Sampling, TokenRequest,
    TokenRequests, Wants,
};
use sparkherd_footprint::BLOCK_TOKENS;

/// What is measured: some tokens in one go, or one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Case {
    Prefill {
        tokens: u32,
    },
    /// `steps` tokens of each of `sequences` sequences, after `depth` tokens each.
    Decode {
        depth: u32,
        sequences: u32,
        steps: u32,
    },
}

/// A case and the median of its runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    pub(super) case: Case,
    pub(super) seconds: f64,
}

impl Timing {
    pub(super) fn new(case: Case, seconds: Vec<f64>) -> Self {
        Self { case, seconds: median(seconds) }
    }
}

pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The prompt, every depth alone, and every larger number of sequences at the first depth.
pub(super) fn list(prompt: u32, generate: u32, depths: &[u32], sequences: &[u32]) -> Vec<Case> {
    let mut cases = vec![Case::Prefill { tokens: prompt }];
    cases.extend(depths.iter().map(|depth| Case::Decode { depth: *depth, sequences: 1, steps: generate }));
    let several = sequences.iter().filter(|count| **count > 1);
    let depth = depths.first().copied().unwrap_or(0);
    cases.extend(several.map(|count| Case::Decode { depth, sequences: *count, steps: generate }));
    cases
}

impl Case {
    /// Tokens one sequence holds at its end.
    pub(super) const fn context(self) -> u32 {
        match self {
            Self::Prefill { tokens } => tokens,
            Self::Decode { depth, steps, .. } => depth + steps,
        }
    }

    pub(super) const fn sequences(self) -> u32 {
        match self {
            Self::Prefill { .. } => 1,
            Self::Decode { sequences, .. } => sequences,
        }
    }

    /// Tokens that are counted.
    pub(super) const fn tokens(self) -> u32 {
        match self {
            Self::Prefill { tokens } => tokens,
            Self::Decode { sequences, steps, .. } => sequences * steps,
        }
    }

    /// Runs once and returns the seconds of what is counted.
    pub(super) fn run(self, model: &mut LoadedModel) -> Result<f64, ForwardError> {
        let begin = match self {
            Self::Prefill { tokens } => {
                let begin = Instant::now();
                prefill(model, 0, self.context(), tokens)?;
                begin
            }
            Self::Decode { depth, sequences, steps } => {
                for sequence in 0..sequences {
                    prefill(model, sequence, self.context(), depth)?;
                }
                let begin = Instant::now();
                for position in depth..depth + steps {
                    let rows = (0..sequences).map(|sequence| (sequence, position, 1));
                    step(model, rows, self.context())?;
                }
                begin
            }
        };
        Ok(begin.elapsed().as_secs_f64())
    }
}

/// Computes the first `tokens` of a sequence in chunks of the largest step.
fn prefill(model: &mut LoadedModel, sequence: u32, context: u32, tokens: u32) -> Result<(), ForwardError> {
    let chunk = u32::try_from(model.tokens_max()).unwrap_or(u32::MAX);
    for position in (0..tokens).step_by(chunk as usize) {
        step(model, std::iter::once((sequence, position, chunk.min(tokens - position))), context)?;
    }
    Ok(())
}

/// One step of `(sequence, position, tokens)`; each sequence has its own blocks for `context` tokens.
fn step(
    model: &mut LoadedModel,
    rows: impl Iterator<Item = (u32, u32, u32)>,
    context: u32,
) -> Result<(), ForwardError> {
    let vocab_size = model.checkpoint().config.vocab_size;
    let blocks = context.div_ceil(BLOCK_TOKENS);
    let mut batch = Batch::default();
    for (sequence, position, token_count) in rows {
        // Any tokens will do; these are spread over the vocabulary.
        let token = |position: u32| position.wrapping_add(31 * sequence).wrapping_mul(7919) % vocab_size;
        batch.tokens.extend((position..position + token_count).map(token));
        let block_table = (sequence * blocks..(sequence + 1) * blocks).collect();
        batch.sequences.push(BatchSequence { token_count, position, block_table, wants: Wants::LastLogits });
    }
    let sampler = RequestSampler::new(&Sampling::default(), 1, &[], &Ends::default(), &[], None);
    model.step(&batch, &mut Same(sampler))?;
    Ok(())
}

/// One and the same request of every sequence: a device that chooses tokens itself does, as in serving.
struct Same(RequestSampler);

impl TokenRequests for Same {
    fn of(&mut self, _sequence: usize) -> Option<TokenRequest<'_>> {
        Some(self.0.next(None))
    }
}
