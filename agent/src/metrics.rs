//! The agent's own metrics. Labels are of closed sets: no object names, no uids (K17).

use prometheus::{Encoder, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder};

use crate::memory::Pool;

/// Prefix of every family.
const PREFIX: &str = "sparkherd_agent";

#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    memory_total_bytes: IntGauge,
    memory_available_bytes: IntGauge,
    memory_held_bytes: IntGauge,
    memory_reserve_bytes: IntGauge,
    memory_allocatable_bytes: IntGauge,
    memory_promised_bytes: IntGauge,
    engines: IntGauge,
    engines_ready: IntGauge,
    pub(crate) engine_starts: IntCounter,
    pub(crate) engine_failures: IntCounter,
    pub(crate) refusals: IntCounter,
    guard_kills: IntCounter,
    pub(crate) inspections: IntCounterVec,
    pub(crate) scrape_failures: IntCounter,
    pub(crate) api_calls: IntCounterVec,
}

impl Metrics {
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new_custom(Some(PREFIX.to_owned()), None)?;
        let gauge = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let counter = |name: &str, help: &str| -> Result<IntCounter, prometheus::Error> {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let counters =
            |name: &str, help: &str, labels: &[&str]| -> Result<IntCounterVec, prometheus::Error> {
                let counters = IntCounterVec::new(Opts::new(name, help), labels)?;
                registry.register(Box::new(counters.clone()))?;
                Ok(counters)
            };
        Ok(Self {
            memory_total_bytes: gauge("memory_total_bytes", "Bytes of the pool.")?,
            memory_available_bytes: gauge("memory_available_bytes", "Bytes that could be taken now.")?,
            memory_held_bytes: gauge("memory_held_bytes", "Bytes our engines have touched.")?,
            memory_reserve_bytes: gauge("memory_reserve_bytes", "Bytes kept for the host.")?,
            memory_allocatable_bytes: gauge("memory_allocatable_bytes", "Bytes all our engines may take.")?,
            memory_promised_bytes: gauge("memory_promised_bytes", "Bytes promised to replicas bound here.")?,
            engines: gauge("engines", "Engines whose memory is not yet back.")?,
            engines_ready: gauge("engines_ready", "Engines that answer.")?,
            engine_starts: counter("engine_starts_total", "Engines started.")?,
            engine_failures: counter("engine_failures_total", "Engines that ended unasked, or hung.")?,
            refusals: counter("refusals_total", "Starts refused for want of memory.")?,
            guard_kills: counter("memory_guard_kills_total", "Engines killed to save the host.")?,
            inspections: counters("inspections_total", "Checkpoints read, by outcome.", &["outcome"])?,
            scrape_failures: counter(
                "engine_scrape_failures_total",
                "Engines that gave no metrics in time.",
            )?,
            api_calls: counters("api_calls_total", "Calls to the API server.", &["call", "outcome"])?,
            registry,
        })
    }

    pub(crate) fn observe(
        &self,
        pool: Pool,
        promised_bytes: u64,
        engines: usize,
        ready: usize,
        guard_kills: u64,
    ) {
        let bytes = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let count = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
        self.memory_total_bytes.set(bytes(pool.total_bytes));
        self.memory_available_bytes.set(bytes(pool.available_bytes));
        self.memory_held_bytes.set(bytes(pool.held_bytes));
        self.memory_reserve_bytes.set(bytes(pool.reserve_bytes));
        self.memory_allocatable_bytes.set(bytes(pool.allocatable_bytes()));
        self.memory_promised_bytes.set(bytes(promised_bytes));
        self.engines.set(count(engines));
        self.engines_ready.set(count(ready));
        // The guard counts by itself: it must not wait for anybody.
        self.guard_kills.inc_by(guard_kills.saturating_sub(self.guard_kills.get()));
    }

    /// In Prometheus' text format.
    pub fn text(&self) -> Result<String, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}
