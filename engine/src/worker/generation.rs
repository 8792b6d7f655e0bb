use super::live::{Advance, Share};
use crate::{
    batch::StepOutput,
    grammar::{Constraint, ConstraintError, MaskThreads, NextTokens},
    output::Output,
    request::{Ends, FinishReason, GenerationError, SampledToken, Usage, ValidRequest},
    sample::{Chosen, PromptLogprobs, RequestSampler, SampleError, Sampler, TokenMask, TokenRequest},
    schedule::Purpose,
    text::Text,
};

/// An answer in the making.
pub(super) struct LiveGeneration {
    pub(super) output: Output,
    sampler: RequestSampler,
    constraint: Option<Constraint>,
    /// What may follow in this step, once it was waited for; `None` within is anything.
    following: Option<Result<Option<NextTokens>, ConstraintError>>,
    /// Until they are sent.
    prompt_logprobs: Option<PromptLogprobs>,
    ends: Ends,
    max_tokens: u32,
}

impl LiveGeneration {
    pub(super) fn new(request: ValidRequest, output: Output, text: &Text) -> (Self, Vec<u32>, Purpose) {
        let ValidRequest {
            prompt,
            max_tokens,
            sampling,
            seed,
            ends,
            logprobs,
            grammar,
            special_tokens: _,
            usage: _,
        } = request;
        let eos_token_ids = text.eos_token_ids();
        let sampler = RequestSampler::new(&sampling, seed, &prompt, &ends, eos_token_ids, logprobs.sampled);
        let constraint = grammar.as_ref().map(Constraint::new);
        let prompt_logprobs = logprobs.prompt.map(|top| PromptLogprobs::new(&prompt, top));
        let purpose = if prompt_logprobs.is_some() { Purpose::ScoreAndGenerate } else { Purpose::Generate };
        let following = None;
        (Self { output, sampler, constraint, following, prompt_logprobs, ends, max_tokens }, prompt, purpose)
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.output.is_cancelled()
    }

    /// Has the mask of the next token computed beside the step.
    pub(super) fn begin(&mut self, masks: &MaskThreads) {
        if let Some(constraint) = &mut self.constraint {
            constraint.begin(masks);
        }
    }

    /// What the next token is chosen by, where one is. Waits for the mask.
    pub(super) fn request(&mut self) -> Option<TokenRequest<'_>> {
        let constraint = &mut self.constraint;
        let following = self.following.get_or_insert_with(|| wait_for_mask(constraint));
        match following {
            Ok(None) => Some(self.sampler.next(None)),
            Ok(Some(NextTokens::Of(mask))) => Some(self.sampler.next(Some(mask))),
            // Told when its share is taken in.
            Ok(Some(NextTokens::Nothing)) | Err(_) => None,
        }
    }

    /// Takes in its share of a step: tells the prompt's probabilities, chooses the next token and sends its text.
    pub(super) fn advance(
        &mut self,
        sampler: &mut Sampler,
        share: Share<'_>,
        text: &Text,
        usage: &mut Usage,
    ) -> Result<Advance, GenerationError> {
        if let Some(logprobs) = &mut self.prompt_logprobs {
            logprobs.push(share.position, share.output.logits).map_err(faulty)?;
        }
        let StepOutput { logits, chosen, .. } = share.output;
        if !share.complete || (logits.iter().len() == 0 && !matches!(chosen, [Some(_)])) {
            return Ok(Advance::Computed);
        }
        self.output.prompt_computed();
        if let Some(logprobs) = self.prompt_logprobs.take() {
            self.output.prompt(logprobs.into_entries());
        }
        let following = self.following.take().unwrap_or_else(|| wait_for_mask(&mut self.constraint));
        let mask = match following.map_err(lost)? {
            None => None,
            Some(NextTokens::Of(mask)) => Some(mask),
            Some(NextTokens::Nothing) => return Ok(Advance::End(FinishReason::Stop)),
        };
        let chosen = self.choose(sampler, share.output, mask.as_ref()).map_err(faulty)?;
        usage.completion_tokens += 1;
        self.go_on(chosen, text, *usage)
    }

    /// The token that the device has chosen, or else one by the logits.
    fn choose(
        &mut self,
        sampler: &mut Sampler,
        output: StepOutput<'_>,
        mask: Option<&TokenMask>,
    ) -> Result<Chosen, SampleError> {
        if let [Some(chosen)] = output.chosen {
            let chosen = chosen.clone()?;
            self.sampler.observe(chosen.token);
            return Ok(chosen);
        }
        let logits = output.logits.iter().last().unwrap_or_default();
        self.sampler.choose(sampler, logits, mask)
    }

    /// Goes on by a token, or ends with it.
    fn go_on(&mut self, chosen: Chosen, text: &Text, usage: Usage) -> Result<Advance, GenerationError> {
        let Chosen { token, logprob } = chosen;
        let may_end = usage.completion_tokens > self.ends.min_tokens;
        if let Some(reason) = self.ended_by(token, text, may_end) {
            return Ok(Advance::End(reason));
        }
        if self.output.push(text, SampledToken { token, logprob }, may_end)? {
            return Ok(Advance::End(FinishReason::StopString));
        }
        if let Some(constraint) = &mut self.constraint
            && constraint.accept(token).map_err(lost)?
        {
            return Ok(Advance::End(FinishReason::Stop));
        }
        if usage.completion_tokens >= self.max_tokens {
            return Ok(Advance::End(FinishReason::Length));
        }
        Ok(Advance::Token(token))
    }

    /// A grammar's end is one, whatever else is asked for: nothing may follow it.
    fn ended_by(&self, token: u32, text: &Text, may_end: bool) -> Option<FinishReason> {
        let is_eos = text.eos_token_ids().binary_search(&token).is_ok();
        if is_eos && self.constraint.is_some() {
            return Some(FinishReason::Stop);
        }
        if may_end && self.ends.stop_token_ids.contains(&token) {
            return Some(FinishReason::StopToken(token));
        }
        (may_end && is_eos && !self.ends.ignore_eos).then_some(FinishReason::Stop)
    }
}

fn wait_for_mask(constraint: &mut Option<Constraint>) -> Result<Option<NextTokens>, ConstraintError> {
    constraint.as_mut().map(Constraint::next).transpose()
}

fn faulty(error: SampleError) -> GenerationError {
    GenerationError::Engine(error.to_string())
}

fn lost(error: ConstraintError) -> GenerationError {
    match error {
        ConstraintError::NoRoom => GenerationError::GrammarsFull,
        other => GenerationError::Grammar(other.to_string()),
    }
}
