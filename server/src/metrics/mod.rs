//! What Prometheus reads: our own names, and vLLM's for the same facts, so that existing boards, autoscaling recipes and
//! the Gateway API's endpoint picker work unchanged.
//!
//! Counters of tokens and steps are the engine's, copied at each scrape; those of requests and times are kept here.
//! `process_cpu_seconds_total` is the name that Prometheus' own client libraries give it; it has no label.
//! The label `model_name` is the name the engine started with, so that a new alias does not cut a series in two.

mod families;
mod times;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus::{
    Counter, Encoder, Gauge, Histogram, IntCounter, IntCounterVec, IntGauge, Registry, TextEncoder,
};
use sparkherd_engine::{CacheSize, EngineStats, Priority, Usage};
use tokio::time::Instant;

use families::{Aliased, Families, raise};
use times::RequestTimes;

use crate::openai::ApiError;

/// How a request ended, as the value of vLLM's label `finished_reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Stop,
    Length,
    Abort,
    Error,
}

impl Outcome {
    const fn label(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::Abort => "abort",
            Self::Error => "error",
        }
    }
}

/// What the process takes of the machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProcessUse {
    pub(crate) held_bytes: u64,
    pub(crate) cpu_time: Duration,
}

#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Held while the engine's numbers are copied: two scrapes at once would add a difference twice.
    scrape: Mutex<()>,
    running: Aliased<IntGauge>,
    waiting: Aliased<IntGauge>,
    kv_used: Aliased<Gauge>,
    prompt_tokens: Aliased<IntCounter>,
    generated_tokens: Aliased<IntCounter>,
    preemptions: Aliased<IntCounter>,
    cache_queries: Aliased<IntCounter>,
    cache_hits: Aliased<IntCounter>,
    waiting_prompt_tokens: IntGauge,
    steps: IntCounter,
    held_bytes: IntGauge,
    cpu_seconds: Counter,
    step_age: Gauge,
    times: RequestTimes,
    request_prompt_tokens: Aliased<Histogram>,
    request_generation_tokens: Aliased<Histogram>,
    finished: Aliased<IntCounterVec>,
    rejected: IntCounterVec,
}

impl Metrics {
    pub fn new(model_name: &str, incarnation: &str, cache: CacheSize) -> Result<Self, prometheus::Error> {
        let families = Families { registry: Registry::new(), model_name };
        let metrics = Self {
            running: families.gauge("requests_running", "num_requests_running", "Requests in the batch.")?,
            waiting: families.gauge(
                "requests_waiting",
                "num_requests_waiting",
                "Accepted requests not yet started.",
            )?,
            kv_used: families.ratio(
                "kv_used_ratio",
                "kv_cache_usage_perc",
                "Used share of the KV pool, 0 to 1.",
            )?,
            prompt_tokens: families.counter(
                "prompt_tokens_total",
                "prompt_tokens_total",
                "Prompt tokens computed.",
            )?,
            generated_tokens: families.counter(
                "generated_tokens_total",
                "generation_tokens_total",
                "Tokens generated.",
            )?,
            preemptions: families.preemptions()?,
            cache_queries: families
                .same("prefix_cache_queries_total", "Prompt tokens looked for in the cache.")?,
            cache_hits: families.same("prefix_cache_hits_total", "Prompt tokens found in the cache.")?,
            waiting_prompt_tokens: families
                .own_gauge("waiting_prompt_tokens", "Tokens of accepted prompts not yet computed.")?,
            steps: families.own_counter("steps_total", "Forward passes.")?,
            held_bytes: families.own_gauge("held_bytes", "Resident bytes of the process.")?,
            cpu_seconds: families.register(Counter::new(
                "process_cpu_seconds_total",
                "Time that all threads of the process have computed.",
            )?)?,
            step_age: families.register(Gauge::with_opts(
                families.own("step_age_seconds", "Time since the last finished step while requests run."),
            )?)?,
            times: RequestTimes::new(&families)?,
            request_prompt_tokens: families
                .tokens("request_prompt_tokens", "Tokens of a request's prompt.")?,
            request_generation_tokens: families
                .tokens("request_generation_tokens", "Tokens of a request's answer.")?,
            finished: families.finished()?,
            rejected: families.register(IntCounterVec::new(
                families.own(
                    "requests_rejected_total",
                    "Requests answered with an error before any work, by code.",
                ),
                &["code"],
            )?)?,
            scrape: Mutex::new(()),
            registry: families.registry.clone(),
        };
        families.info(incarnation)?;
        families.cache_size(cache)?;
        Ok(metrics)
    }

    /// The text a scrape gets.
    pub(crate) fn render(
        &self,
        stats: &EngineStats,
        process: ProcessUse,
    ) -> Result<Vec<u8>, prometheus::Error> {
        let ProcessUse { held_bytes, cpu_time } = process;
        let scrape = self.scrape.lock().unwrap_or_else(PoisonError::into_inner);
        self.running.set(i64::from(stats.running));
        self.waiting.set(i64::from(stats.waiting));
        self.kv_used.own.set(stats.kv_used);
        self.kv_used.vllm.set(stats.kv_used);
        self.prompt_tokens.raise_to(stats.prompt_tokens);
        self.generated_tokens.raise_to(stats.generated_tokens);
        self.preemptions.raise_to(stats.preemptions);
        self.cache_queries.raise_to(stats.cache_queries);
        self.cache_hits.raise_to(stats.cache_hits);
        let waiting_tokens = i64::try_from(stats.waiting_prompt_tokens).unwrap_or(i64::MAX);
        self.waiting_prompt_tokens.set(waiting_tokens);
        raise(&self.steps, stats.steps);
        self.held_bytes.set(i64::try_from(held_bytes).unwrap_or(i64::MAX));
        self.cpu_seconds.inc_by((cpu_time.as_secs_f64() - self.cpu_seconds.get()).max(0.0));
        self.step_age.set(stats.last_step_age_ms as f64 / 1000.0);
        let families = self.registry.gather();
        drop(scrape);
        let mut text = Vec::new();
        TextEncoder::new().encode(&families, &mut text)?;
        Ok(text)
    }

    pub(crate) fn reject(&self, error: &ApiError) {
        self.rejected.with_label_values(&[error.code()]).inc();
    }

    /// A request has left the queue.
    pub(crate) fn started(&self, priority: Priority, waited: Duration) {
        self.times.queue.observe(priority, waited.as_secs_f64());
    }

    /// A request's first text is there, `since` its first step.
    pub(crate) fn prefilled(&self, since: Instant) {
        self.times.prefill.observe(since.elapsed().as_secs_f64());
    }

    /// A request came to its own end, `since` its first step; none of its text need ever have come.
    pub(crate) fn inferred(&self, since: Instant, first_piece: Option<Instant>) {
        self.times.inference.observe(since.elapsed().as_secs_f64());
        if let Some(first_piece) = first_piece {
            self.times.decode.observe(first_piece.elapsed().as_secs_f64());
        }
    }

    pub(crate) fn first_token(&self, since: Instant) {
        self.times.first_token.observe(since.elapsed().as_secs_f64());
    }

    pub(crate) fn inter_token(&self, since: Instant) {
        self.times.inter_token.observe(since.elapsed().as_secs_f64());
    }

    /// A request has ended somehow, having `usage` by then.
    pub(crate) fn finish(&self, outcome: Outcome, since: Instant, usage: Usage) {
        self.times.request.observe(since.elapsed().as_secs_f64());
        self.request_prompt_tokens.observe(f64::from(usage.prompt_tokens));
        self.request_generation_tokens.observe(f64::from(usage.completion_tokens));
        self.finished.own.with_label_values(&[outcome.label()]).inc();
        self.finished.vllm.with_label_values(&[outcome.label()]).inc();
    }
}
