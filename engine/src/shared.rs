//! What handles and the worker both see.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    },
    time::Instant,
};

use crate::{
    handle::{EngineLimits, ModelInfo, SubmitError},
    request::GenerationError,
    stats::{EngineStats, Gauges},
    text::Text,
};

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) info: ModelInfo,
    pub(crate) text: Text,
    pub(crate) gauges: Gauges,
    pub(crate) kv_blocks: u32,
    /// Accepted requests that have not ended.
    accepted: AtomicU32,
    accepted_max: u32,
    sequences_max: u32,
    draining: AtomicBool,
    /// The worker has ended, for whatever reason.
    ended: AtomicBool,
    failure: OnceLock<String>,
    started: Instant,
}

/// One accepted request's place in the engine; dropping it gives the place back.
#[derive(Debug)]
pub(crate) struct Place(Arc<Shared>);

impl Place {
    /// Why a request that was not ended by the worker ends now.
    pub(crate) fn abandoned(&self) -> GenerationError {
        match self.0.failure() {
            Some(reason) => GenerationError::Engine(reason.to_owned()),
            None => GenerationError::Draining,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.accepted.fetch_sub(1, SeqCst);
    }
}

impl Shared {
    pub(crate) fn new(text: Text, limits: EngineLimits, sequences_max: u32) -> Self {
        let pool_tokens = limits.kv_blocks.saturating_mul(sparkherd_footprint::BLOCK_TOKENS);
        Self {
            info: ModelInfo {
                // Whatever is accepted must be able to run alone in the pool, or it would wait for ever.
                context: limits.context.min(pool_tokens),
                vocab_size: limits.vocab_size,
                has_chat_template: text.has_chat_template(),
            },
            text,
            gauges: Gauges::default(),
            kv_blocks: limits.kv_blocks,
            accepted: AtomicU32::new(0),
            accepted_max: sequences_max.saturating_add(limits.queue_requests),
            sequences_max,
            draining: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            failure: OnceLock::new(),
            started: Instant::now(),
        }
    }

    /// Counts one more accepted request, if there is room for it.
    pub(crate) fn take_place(shared: &Arc<Self>) -> Result<Place, SubmitError> {
        let counted = shared.accepted.fetch_update(SeqCst, SeqCst, |accepted| {
            (accepted < shared.accepted_max).then_some(accepted + 1)
        });
        let full =
            |accepted: u32| SubmitError::QueueFull { waiting: accepted.saturating_sub(shared.sequences_max) };
        counted.map_err(full)?;
        let place = Place(Arc::clone(shared));
        // Looked at after counting: whoever drains sees either our place taken or us turned away.
        if shared.ended.load(SeqCst) {
            return Err(SubmitError::Stopped);
        }
        if shared.draining.load(SeqCst) {
            return Err(SubmitError::Draining);
        }
        Ok(place)
    }

    pub(crate) fn drain(&self) {
        self.draining.store(true, SeqCst);
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.accepted.load(SeqCst) == 0
    }

    /// Marks the engine failed; the first reason stays.
    pub(crate) fn fail(&self, reason: String) {
        // A second failure is a consequence of the first.
        let _ = self.failure.set(reason);
    }

    pub(crate) fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }

    /// Says that the worker has ended and holds nothing any more.
    pub(crate) fn end(&self) {
        self.gauges.rest();
        self.ended.store(true, SeqCst);
    }

    /// Milliseconds of the engine's life.
    pub(crate) fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(crate) fn stats(&self) -> EngineStats {
        self.gauges.read(self.now_ms(), self.accepted.load(SeqCst), self.kv_blocks, self.failure().is_some())
    }
}
