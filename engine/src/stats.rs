//! Numbers the worker publishes and anyone reads, neither waiting for the other.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

/// Counters and gauges of the engine, read without waiting for its worker.
///
/// The process's memory is not among them: that is the process's to measure.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct EngineStats {
    /// Requests that hold KV blocks.
    pub running: u32,
    /// Accepted requests that do not yet, or not any more, hold KV blocks.
    pub waiting: u32,
    /// Tokens of accepted prompts that have not been computed.
    pub waiting_prompt_tokens: u64,
    /// Tokens of all prompts taken in.
    pub prompt_tokens: u64,
    /// Tokens sampled.
    pub generated_tokens: u64,
    /// Times a running request gave its blocks up to an older one.
    pub preemptions: u64,
    /// Prompt tokens looked for in the prefix cache, each prompt once.
    pub cache_queries: u64,
    /// Of those, the ones found.
    pub cache_hits: u64,
    /// Finished forward passes.
    pub steps: u64,
    /// Used share of the KV pool, 0 to 1.
    pub kv_used: f64,
    /// Milliseconds since the last finished step while sequences ran; 0 when idle.
    pub last_step_age_ms: u64,
    /// Whether a step takes, or the last one took, longer than `Timeouts::step`.
    pub stalled: bool,
    /// Whether the engine failed and serves nothing any more; `EngineHandle::failed` has the reason.
    pub failed: bool,
}

/// Written by the worker only. Each number is true of some recent moment; together they are not one moment's picture.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    pub(crate) running: AtomicU32,
    pub(crate) prompt_tokens: AtomicU64,
    pub(crate) generated_tokens: AtomicU64,
    pub(crate) preemptions: AtomicU64,
    pub(crate) cache_queries: AtomicU64,
    pub(crate) cache_hits: AtomicU64,
    pub(crate) steps: AtomicU64,
    pub(crate) kv_blocks_used: AtomicU32,
    /// When the last step ended or the first one after a rest began, in milliseconds of the engine's life.
    pub(crate) last_step_ms: AtomicU64,
    /// When the step under way began, in milliseconds of the engine's life, and one more; 0 between steps.
    step_began: AtomicU64,
    last_step_was_slow: AtomicBool,
}

impl Gauges {
    /// Nothing runs and no block is used.
    pub(crate) fn rest(&self) {
        self.running.store(0, Relaxed);
        self.kv_blocks_used.store(0, Relaxed);
        self.step_began.store(0, Relaxed);
    }

    /// A step begins.
    pub(crate) fn begin_step(&self, now_ms: u64) {
        self.step_began.store(now_ms + 1, Relaxed);
    }

    /// The step that began last is done. Returns how long it took if that was longer than it may.
    pub(crate) fn end_step(&self, now_ms: u64, limit_ms: u64) -> Option<u64> {
        let took_ms = (now_ms + 1).saturating_sub(self.step_began.swap(0, Relaxed));
        let is_slow = took_ms > limit_ms;
        self.last_step_was_slow.store(is_slow, Relaxed);
        self.last_step_ms.store(now_ms, Relaxed);
        self.steps.fetch_add(1, Relaxed);
        is_slow.then_some(took_ms)
    }

    /// Whether the step under way, or the last one, is too long.
    pub(crate) fn stalled(&self, now_ms: u64, limit_ms: u64) -> bool {
        let began = self.step_began.load(Relaxed);
        self.last_step_was_slow.load(Relaxed) || (began > 0 && now_ms.saturating_sub(began - 1) > limit_ms)
    }

    /// What the gauges say `now_ms` into the engine's life.
    pub(crate) fn read(&self, now_ms: u64, accepted: u32, kv_blocks: u32, failed: bool) -> EngineStats {
        let running = self.running.load(Relaxed);
        let age_ms = now_ms.saturating_sub(self.last_step_ms.load(Relaxed));
        EngineStats {
            running,
            waiting: accepted.saturating_sub(running),
            prompt_tokens: self.prompt_tokens.load(Relaxed),
            generated_tokens: self.generated_tokens.load(Relaxed),
            preemptions: self.preemptions.load(Relaxed),
            cache_queries: self.cache_queries.load(Relaxed),
            cache_hits: self.cache_hits.load(Relaxed),
            steps: self.steps.load(Relaxed),
            kv_used: f64::from(self.kv_blocks_used.load(Relaxed)) / f64::from(kv_blocks.max(1)),
            last_step_age_ms: if running == 0 { 0 } else { age_ms },
            failed,
            ..EngineStats::default()
        }
    }
}
