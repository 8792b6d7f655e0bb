use std::time::Duration;

use crate::{
    limits::Timeouts,
    output::Output,
    request::{
        Ends, FinishReason, GenerationError, SampledToken, Sampling, TimeoutPhase, Usage, ValidRequest,
    },
    sample::{Draw, Sampler},
    text::Text,
};

/// A request from its acceptance to its end: what the scheduler need not know of it.
pub(super) struct LiveRequest {
    pub(super) output: Output,
    pub(super) usage: Usage,
    sampling: Sampling,
    seed: u64,
    ends: Ends,
    max_tokens: u32,
    /// When it was taken in.
    accepted: Duration,
    /// Whether it was in a step.
    started: bool,
}

impl LiveRequest {
    /// The request and its prompt.
    pub(super) fn new(request: ValidRequest, output: Output, accepted: Duration) -> (Self, Vec<u32>) {
        let ValidRequest { prompt, sampling, seed, ends, max_tokens, usage, .. } = request;
        (Self { output, usage, sampling, seed, ends, max_tokens, accepted, started: false }, prompt)
    }

    /// It is in its first step, and so many tokens of its prompt were computed before.
    pub(super) fn start(&mut self, cached_tokens: usize) {
        self.started = true;
        self.usage.cached_tokens = u32::try_from(cached_tokens).unwrap_or(u32::MAX);
    }

    /// Why it ends before its time: nobody reads any more, or it took too long.
    pub(super) fn given_up(
        &self,
        now: Duration,
        timeouts: &Timeouts,
    ) -> Option<Result<FinishReason, GenerationError>> {
        if self.output.is_cancelled() {
            // Nobody hears of it.
            return Some(Ok(FinishReason::Length));
        }
        let Timeouts { queue, first_token, total, step: _ } = *timeouts;
        let phases = [
            (true, TimeoutPhase::Total, total),
            (!self.started, TimeoutPhase::Queue, queue),
            (self.usage.completion_tokens == 0, TimeoutPhase::FirstToken, first_token),
        ];
        let age = now.saturating_sub(self.accepted);
        let over = phases.into_iter().find(|(applies, _, limit)| *applies && age > *limit);
        over.map(|(_, phase, limit)| Err(GenerationError::TimedOut { phase, limit }))
    }

    /// Chooses the next token and sends its text. Tells the token, and the end if this was the last one.
    pub(super) fn advance(
        &mut self,
        sampler: &mut Sampler,
        logits: &[f32],
        text: &Text,
    ) -> Result<(u32, Option<FinishReason>), GenerationError> {
        self.output.prompt_computed();
        let position = u64::from(self.usage.prompt_tokens) + u64::from(self.usage.completion_tokens);
        let token = sampler
            .choose(logits, &self.sampling, Draw { seed: self.seed, position })
            .map_err(|error| GenerationError::Engine(error.to_string()))?;
        self.usage.completion_tokens += 1;
        let may_end = self.usage.completion_tokens > self.ends.min_tokens;
        if let Some(reason) = self.ended_by(token, text).filter(|_| may_end) {
            return Ok((token, Some(reason)));
        }
        if self.output.push(text, SampledToken { token, logprob: None }, may_end)? {
            return Ok((token, Some(FinishReason::StopString)));
        }
        let used_up = self.usage.completion_tokens >= self.max_tokens;
        Ok((token, used_up.then_some(FinishReason::Length)))
    }

    fn ended_by(&self, token: u32, text: &Text) -> Option<FinishReason> {
        if self.ends.stop_token_ids.contains(&token) {
            return Some(FinishReason::StopToken(token));
        }
        let ends = !self.ends.ignore_eos && text.eos_token_ids().binary_search(&token).is_ok();
        ends.then_some(FinishReason::Stop)
    }
}
