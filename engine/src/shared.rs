//! What handles and the worker both see.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use crate::{
    admission::Admission,
    batch::ForwardPass,
    clock::Clock,
    failure::EngineFailure,
    handle::ModelInfo,
    limits::{EngineLimits, Timeouts},
    request::{ClientKey, GenerationError, SubmitError},
    stats::{EngineStats, Gauges},
    text::Text,
};

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) info: ModelInfo,
    pub(crate) text: Text,
    pub(crate) gauges: Gauges,
    pub(crate) kv_blocks: u32,
    pub(crate) prefix_cache: bool,
    pub(crate) timeouts: Timeouts,
    admission: Mutex<Admission>,
    draining: AtomicBool,
    /// The worker has ended, for whatever reason.
    ended: AtomicBool,
    failure: OnceLock<EngineFailure>,
    clock: Clock,
}

/// One accepted request's place in the engine; dropping it gives the place back.
#[derive(Debug)]
pub(crate) struct Place {
    shared: Arc<Shared>,
    account: ClientKey,
    /// Counted as waiting to be computed.
    prompt_tokens: u64,
}

impl Place {
    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Counts the prompt, now that its length is known.
    pub(crate) fn add_prompt(&mut self, tokens: u64) -> Result<(), SubmitError> {
        self.shared.admission().add_prompt(self.account, tokens, self.shared.now())?;
        self.prompt_tokens += tokens;
        Ok(())
    }

    /// The prompt does not wait any more.
    pub(crate) fn remove_prompt(&mut self) {
        let tokens = std::mem::take(&mut self.prompt_tokens);
        if tokens > 0 {
            self.shared.admission().remove_prompt(self.account, tokens);
        }
    }

    /// Why a request that was not ended by the worker ends now.
    pub(crate) fn abandoned(&self) -> GenerationError {
        match self.shared.failure() {
            Some(failure) => GenerationError::Engine(failure.message.clone()),
            None => GenerationError::Draining,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.remove_prompt();
        self.shared.admission().end(self.account, self.shared.now());
    }
}

impl Shared {
    pub(crate) fn new(text: Text, limits: EngineLimits, forward: &dyn ForwardPass, clock: Clock) -> Self {
        let sequences_max = u32::try_from(forward.sequences_max()).unwrap_or(u32::MAX);
        let queue = limits.queue;
        let pool_tokens = limits.kv_blocks.saturating_mul(sparkherd_footprint::BLOCK_TOKENS);
        Self {
            info: ModelInfo {
                // Whatever is accepted must be able to run alone in the pool, or it would wait for ever.
                context: limits.context.min(pool_tokens),
                vocab_size: limits.vocab_size,
                has_chat_template: text.has_chat_template(),
                generates: forward.has_logits(),
                hidden: forward.hidden(),
                request_prompt_tokens_max: queue.client_prompt_tokens.min(queue.prompt_tokens),
            },
            text,
            gauges: Gauges::default(),
            kv_blocks: limits.kv_blocks,
            prefix_cache: limits.prefix_cache,
            timeouts: limits.timeouts,
            admission: Mutex::new(Admission::new(queue, sequences_max)),
            draining: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            failure: OnceLock::new(),
            clock,
        }
    }

    /// Counts one more accepted request, if there is room for it.
    pub(crate) fn take_place(shared: &Arc<Self>, account: ClientKey) -> Result<Place, SubmitError> {
        if shared.ended.load(SeqCst) {
            return Err(SubmitError::Stopped);
        }
        if shared.draining.load(SeqCst) {
            return Err(SubmitError::Draining);
        }
        shared.admission().reserve(account, shared.now())?;
        let place = Place { shared: Arc::clone(shared), account, prompt_tokens: 0 };
        // Looked at once more after counting: whoever drains sees either our place taken or us turned away.
        if shared.draining.load(SeqCst) {
            return Err(SubmitError::Draining);
        }
        Ok(place)
    }

    /// Counts are whole between any two calls, so a poisoned lock says nothing about them.
    fn admission(&self) -> MutexGuard<'_, Admission> {
        self.admission.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn drain(&self) {
        self.draining.store(true, SeqCst);
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.admission().accepted() == 0
    }

    /// Marks the engine failed; the first reason stays.
    pub(crate) fn fail(&self, failure: EngineFailure) {
        // A second failure is a consequence of the first.
        let _ = self.failure.set(failure);
    }

    pub(crate) fn failure(&self) -> Option<&EngineFailure> {
        self.failure.get()
    }

    /// Says that the worker has ended and holds nothing any more.
    pub(crate) fn end(&self) {
        self.gauges.rest();
        self.ended.store(true, SeqCst);
    }

    /// Time of the engine's clock.
    pub(crate) fn now(&self) -> Duration {
        self.clock.now()
    }

    pub(crate) fn now_ms(&self) -> u64 {
        milliseconds(self.now())
    }

    pub(crate) fn stats(&self) -> EngineStats {
        let (accepted, waiting_prompt_tokens) = {
            let admission = self.admission();
            (admission.accepted(), admission.prompt_tokens())
        };
        let now_ms = self.now_ms();
        let stats = self.gauges.read(now_ms, accepted, self.kv_blocks, self.failure().is_some());
        let stalled = self.gauges.stalled(now_ms, milliseconds(self.timeouts.step));
        EngineStats { waiting_prompt_tokens, stalled, ..stats }
    }
}

pub(crate) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
