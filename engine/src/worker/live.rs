use std::time::Duration;

use super::{embedding::LiveEmbedding, generation::LiveGeneration};
use crate::{
    batch::StepOutput,
    grammar::MaskThreads,
    limits::Timeouts,
    request::{FinishReason, GenerationError, Start, TimeoutPhase, Usage},
    reservation::Work,
    sample::{Sampler, TokenRequest},
    schedule::Purpose,
    text::Text,
};

/// A request from its acceptance to its end: what the scheduler need not know of it.
pub(super) struct LiveRequest {
    pub(super) usage: Usage,
    /// When it was taken in.
    accepted: Duration,
    /// Whether it was in a step.
    started: bool,
    kind: Kind,
}

enum Kind {
    Generation(Box<LiveGeneration>),
    Embedding(LiveEmbedding),
}

/// What a step did for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Advance {
    /// Some of its prompt is computed.
    Computed,
    /// Its next token.
    Token(u32),
    End(FinishReason),
}

/// A request's share of a step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share<'a> {
    /// Position of its first token in the step.
    pub(super) position: u32,
    /// Whether it includes the last token known.
    pub(super) complete: bool,
    pub(super) output: StepOutput<'a>,
}

impl LiveRequest {
    /// The request, its prompt, and what is computed of it.
    pub(super) fn new(work: Work, accepted: Duration, text: &Text) -> (Self, Vec<u32>, Purpose) {
        let (usage, kind, prompt, purpose) = match work {
            Work::Generate(request, output) => {
                let usage = request.usage;
                let (live, prompt, purpose) = LiveGeneration::new(request, output, text);
                (usage, Kind::Generation(Box::new(live)), prompt, purpose)
            }
            Work::Embed(request, output) => {
                let usage = request.usage;
                let (live, prompt, purpose) = LiveEmbedding::new(request, output);
                (usage, Kind::Embedding(live), prompt, purpose)
            }
        };
        (Self { usage, accepted, started: false, kind }, prompt, purpose)
    }

    /// Its first step begins `now`, and so many tokens of its prompt were computed before.
    pub(super) fn start(&mut self, now: Duration, cached_tokens: usize) {
        self.started = true;
        self.usage.cached_tokens = u32::try_from(cached_tokens).unwrap_or(u32::MAX);
        let waited = now.saturating_sub(self.accepted);
        let start = Start { waited, cached_tokens: self.usage.cached_tokens };
        match &mut self.kind {
            Kind::Generation(generation) => generation.output.start(start),
            Kind::Embedding(embedding) => embedding.start(start),
        }
    }

    /// Why it ends before its time: nobody reads any more, or it took too long.
    pub(super) fn given_up(
        &self,
        now: Duration,
        timeouts: &Timeouts,
    ) -> Option<Result<FinishReason, GenerationError>> {
        let is_cancelled = match &self.kind {
            Kind::Generation(generation) => generation.is_cancelled(),
            Kind::Embedding(embedding) => embedding.is_cancelled(),
        };
        if is_cancelled {
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

    /// A token will be sampled of the step that begins.
    pub(super) fn begin(&mut self, masks: &MaskThreads) {
        if let Kind::Generation(generation) = &mut self.kind {
            generation.begin(masks);
        }
    }

    /// What its next token is chosen by.
    pub(super) fn request(&mut self) -> Option<TokenRequest<'_>> {
        match &mut self.kind {
            Kind::Generation(generation) => generation.request(),
            Kind::Embedding(_) => None,
        }
    }

    /// Takes in its share of a step.
    pub(super) fn advance(
        &mut self,
        sampler: &mut Sampler,
        share: Share<'_>,
        text: &Text,
    ) -> Result<Advance, GenerationError> {
        match &mut self.kind {
            Kind::Generation(generation) => generation.advance(sampler, share, text, &mut self.usage),
            Kind::Embedding(embedding) => Ok(embedding.advance(share)),
        }
    }

    pub(super) fn finish(self, text: &Text, reason: FinishReason) {
        match self.kind {
            Kind::Generation(generation) => generation.output.finish(text, reason, self.usage),
            Kind::Embedding(embedding) => embedding.finish(self.usage),
        }
    }

    pub(super) fn fail(self, error: GenerationError) {
        match self.kind {
            Kind::Generation(generation) => generation.output.fail(error),
            Kind::Embedding(embedding) => embedding.fail(error),
        }
    }
}
