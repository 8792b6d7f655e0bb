//! What Prometheus reads: our own names, and vLLM's for the same facts, so that existing boards, autoscaling recipes and
//! the Gateway API's endpoint picker work unchanged.
//!
//! Counters of tokens and steps are the engine's, copied at each scrape; those of requests and times are kept here.
//! The label `model_name` is the name the engine started with, so that a new alias does not cut a series in two.

use std::sync::{Mutex, PoisonError};

use prometheus::core::Collector;
use prometheus::{
    Encoder, Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
    TextEncoder,
};
use sparkherd_engine::{EngineStats, Usage};
use tokio::time::Instant;

use crate::openai::ApiError;

/// Seconds to the first token: from a cached prompt on a GPU to a long one on a CPU. vLLM's boundaries.
const FIRST_TOKEN_BUCKETS: &[f64] = &[
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0,
    80.0, 160.0, 640.0, 2560.0,
];
/// Seconds between two tokens of one answer. vLLM's boundaries.
const INTER_TOKEN_BUCKETS: &[f64] = &[
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
];
/// Seconds of a whole request. vLLM's boundaries.
const REQUEST_BUCKETS: &[f64] = &[
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0,
    960.0, 1920.0, 7680.0,
];

/// Tokens of a prompt or an answer, in vLLM's steps of 1, 2 and 5, up to the largest contexts.
const TOKEN_BUCKETS: &[f64] =
    &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 2e5, 5e5, 1e6];

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

/// The same number under our name and under vLLM's.
#[derive(Debug)]
struct Aliased<M> {
    own: M,
    vllm: M,
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
    step_age: Gauge,
    first_token: Aliased<Histogram>,
    inter_token: Aliased<Histogram>,
    request: Aliased<Histogram>,
    request_prompt_tokens: Aliased<Histogram>,
    request_generation_tokens: Aliased<Histogram>,
    finished: Aliased<IntCounterVec>,
    rejected: IntCounterVec,
}

impl Metrics {
    pub fn new(model_name: &str, incarnation: &str) -> Result<Self, prometheus::Error> {
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
            step_age: families.register(Gauge::with_opts(
                families.own("step_age_seconds", "Time since the last finished step while requests run."),
            )?)?,
            first_token: families.histogram(
                "time_to_first_token_seconds",
                FIRST_TOKEN_BUCKETS,
                "Time to first text.",
            )?,
            inter_token: families.histogram(
                "inter_token_latency_seconds",
                INTER_TOKEN_BUCKETS,
                "Time between two pieces of text of one answer.",
            )?,
            request: families.histogram(
                "e2e_request_latency_seconds",
                REQUEST_BUCKETS,
                "Time of a whole request.",
            )?,
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
        Ok(metrics)
    }

    /// The text a scrape gets.
    pub(crate) fn render(&self, stats: &EngineStats, held_bytes: u64) -> Result<Vec<u8>, prometheus::Error> {
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

    pub(crate) fn first_token(&self, since: Instant) {
        self.first_token.observe(since.elapsed().as_secs_f64());
    }

    pub(crate) fn inter_token(&self, since: Instant) {
        self.inter_token.observe(since.elapsed().as_secs_f64());
    }

    /// `usage`: as far as it came.
    pub(crate) fn finish(&self, outcome: Outcome, since: Instant, usage: Usage) {
        self.request.observe(since.elapsed().as_secs_f64());
        self.request_prompt_tokens.observe(f64::from(usage.prompt_tokens));
        self.request_generation_tokens.observe(f64::from(usage.completion_tokens));
        self.finished.own.with_label_values(&[outcome.label()]).inc();
        self.finished.vllm.with_label_values(&[outcome.label()]).inc();
    }
}

impl Aliased<IntGauge> {
    fn set(&self, value: i64) {
        self.own.set(value);
        self.vllm.set(value);
    }
}

impl Aliased<IntCounter> {
    fn raise_to(&self, value: u64) {
        raise(&self.own, value);
        raise(&self.vllm, value);
    }
}

impl Aliased<Histogram> {
    fn observe(&self, value: f64) {
        self.own.observe(value);
        self.vllm.observe(value);
    }
}

/// Brings a counter to an engine's total; totals never fall within one process.
fn raise(counter: &IntCounter, total: u64) {
    counter.inc_by(total.saturating_sub(counter.get()));
}

/// Makes and registers families; `own` and `vllm` names differ only in the prefix where vLLM's name fits ours.
struct Families<'a> {
    registry: Registry,
    model_name: &'a str,
}

impl Families<'_> {
    fn opts(&self, name: String, help: &str) -> Opts {
        Opts::new(name, help).const_label("model_name", self.model_name)
    }

    fn own(&self, name: &str, help: &str) -> Opts {
        self.opts(format!("sparkherd_engine_{name}"), help)
    }

    fn vllm(&self, name: &str, help: &str) -> Opts {
        self.opts(format!("vllm:{name}"), help)
    }

    fn register<M: Collector + Clone + 'static>(&self, metric: M) -> Result<M, prometheus::Error> {
        self.registry.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn own_counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        self.register(IntCounter::with_opts(self.own(name, help))?)
    }

    fn own_gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        self.register(IntGauge::with_opts(self.own(name, help))?)
    }

    fn counter(&self, own: &str, vllm: &str, help: &str) -> Result<Aliased<IntCounter>, prometheus::Error> {
        let vllm = self.register(IntCounter::with_opts(self.vllm(vllm, help))?)?;
        Ok(Aliased { own: self.own_counter(own, help)?, vllm })
    }

    fn gauge(&self, own: &str, vllm: &str, help: &str) -> Result<Aliased<IntGauge>, prometheus::Error> {
        let vllm = self.register(IntGauge::with_opts(self.vllm(vllm, help))?)?;
        Ok(Aliased { own: self.own_gauge(own, help)?, vllm })
    }

    fn ratio(&self, own: &str, vllm: &str, help: &str) -> Result<Aliased<Gauge>, prometheus::Error> {
        Ok(Aliased {
            own: self.register(Gauge::with_opts(self.own(own, help))?)?,
            vllm: self.register(Gauge::with_opts(self.vllm(vllm, help))?)?,
        })
    }

    fn histogram(
        &self,
        name: &str,
        buckets: &[f64],
        help: &str,
    ) -> Result<Aliased<Histogram>, prometheus::Error> {
        let histogram = |opts: Opts| {
            let opts = HistogramOpts { common_opts: opts, buckets: buckets.to_vec() };
            self.register(Histogram::with_opts(opts)?)
        };
        Ok(Aliased { own: histogram(self.own(name, help))?, vllm: histogram(self.vllm(name, help))? })
    }

    fn tokens(&self, name: &str, help: &str) -> Result<Aliased<Histogram>, prometheus::Error> {
        self.histogram(name, TOKEN_BUCKETS, help)
    }

    /// A counter that vLLM calls as we do.
    fn same(&self, name: &str, help: &str) -> Result<Aliased<IntCounter>, prometheus::Error> {
        self.counter(name, name, help)
    }

    fn preemptions(&self) -> Result<Aliased<IntCounter>, prometheus::Error> {
        self.counter("preemptions_total", "num_preemptions_total", "Requests put back to wait.")
    }

    fn finished(&self) -> Result<Aliased<IntCounterVec>, prometheus::Error> {
        let help = "Requests that were accepted and have ended, by how.";
        let counters = |opts: Opts| self.register(IntCounterVec::new(opts, &["finished_reason"])?);
        Ok(Aliased {
            own: counters(self.own("requests_finished_total", help))?,
            vllm: counters(self.vllm("request_success_total", help))?,
        })
    }

    fn info(&self, incarnation: &str) -> Result<(), prometheus::Error> {
        let opts = self
            .own("info", "Always 1; its labels say what runs.")
            .const_label("incarnation", incarnation)
            .const_label("version", env!("CARGO_PKG_VERSION"));
        self.register(IntGauge::with_opts(opts)?)?.set(1);
        Ok(())
    }
}
