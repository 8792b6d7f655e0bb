use std::time::Duration;

use super::live::{Advance, Share};
use crate::{
    embedding_output::EmbeddingOutput,
    request::{Embedding, FinishReason, GenerationError, Start, Usage, ValidEmbedding},
    sample::{Pool, Pooling},
    schedule::Purpose,
};

/// A text on its way to its vector.
pub(super) struct LiveEmbedding {
    output: EmbeddingOutput,
    pool: Pool,
    waited: Duration,
}

impl LiveEmbedding {
    pub(super) fn new(request: ValidEmbedding, output: EmbeddingOutput) -> (Self, Vec<u32>, Purpose) {
        let ValidEmbedding { prompt, pooling, usage: _ } = request;
        let purpose = match pooling {
            Pooling::Mean => Purpose::EmbedMean,
            Pooling::Last => Purpose::EmbedLast,
        };
        (Self { output, pool: Pool::new(pooling), waited: Duration::ZERO }, prompt, purpose)
    }

    pub(super) fn start(&mut self, start: Start) {
        self.waited = start.waited;
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.output.is_cancelled()
    }

    pub(super) fn advance(&mut self, share: Share<'_>) -> Advance {
        self.pool.push(share.position, share.output.hidden);
        if share.complete { Advance::End(FinishReason::Stop) } else { Advance::Computed }
    }

    pub(super) fn finish(self, usage: Usage) {
        let values = self.pool.finish().map_err(|error| GenerationError::Engine(error.to_string()));
        self.output.end(values.map(|values| Embedding { values, usage, waited: self.waited }));
    }

    pub(super) fn fail(self, error: GenerationError) {
        self.output.end(Err(error));
    }
}
