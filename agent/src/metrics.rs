//! The agent's own metrics. Labels are of closed sets: no object names, no uids (K17).

use prometheus::{Encoder, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

use crate::memory::{Pool, PoolBytes, Pools};

/// Prefix of every family.
const PREFIX: &str = "sparkherd_agent";

#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    memory_total_bytes: IntGaugeVec,
    memory_available_bytes: IntGaugeVec,
    memory_held_bytes: IntGaugeVec,
    memory_reserve_bytes: IntGaugeVec,
    memory_allocatable_bytes: IntGaugeVec,
    memory_promised_bytes: IntGaugeVec,
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
        let pool_gauge = |name: &str, help: &str| -> Result<IntGaugeVec, prometheus::Error> {
            let gauge = IntGaugeVec::new(Opts::new(name, help), &["pool"])?;
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
            memory_total_bytes: pool_gauge("memory_total_bytes", "Bytes of the pool.")?,
            memory_available_bytes: pool_gauge("memory_available_bytes", "Bytes that could be taken now.")?,
            memory_held_bytes: pool_gauge("memory_held_bytes", "Bytes our engines have touched.")?,
            memory_reserve_bytes: pool_gauge("memory_reserve_bytes", "Bytes kept for the host.")?,
            memory_allocatable_bytes: pool_gauge(
                "memory_allocatable_bytes",
                "Bytes all our engines may take.",
            )?,
            memory_promised_bytes: pool_gauge(
                "memory_promised_bytes",
                "Bytes promised to replicas bound here.",
            )?,
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
        pools: &Pools,
        promised: PoolBytes,
        engines: usize,
        ready: usize,
        guard_kills: u64,
    ) {
        let count = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
        for (name, pool, promised_bytes) in named(pools, promised) {
            self.observe_pool(name, pool, promised_bytes);
        }
        self.engines.set(count(engines));
        self.engines_ready.set(count(ready));
        // The guard counts by itself: it must not wait for anybody.
        self.guard_kills.inc_by(guard_kills.saturating_sub(self.guard_kills.get()));
    }

    fn observe_pool(&self, name: &str, pool: Pool, promised_bytes: u64) {
        let values = [
            (&self.memory_total_bytes, pool.total_bytes),
            (&self.memory_available_bytes, pool.available_bytes),
            (&self.memory_held_bytes, pool.held_bytes),
            (&self.memory_reserve_bytes, pool.reserve_bytes),
            (&self.memory_allocatable_bytes, pool.allocatable_bytes()),
            (&self.memory_promised_bytes, promised_bytes),
        ];
        for (gauge, bytes) in values {
            gauge.with_label_values(&[name]).set(i64::try_from(bytes).unwrap_or(i64::MAX));
        }
    }

    /// In Prometheus' text format.
    pub fn text(&self) -> Result<String, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

/// Each pool, by the word that a `SparkNode`'s status has for it in lower case, and what is promised of it.
fn named(pools: &Pools, promised: PoolBytes) -> Vec<(&'static str, Pool, u64)> {
    match pools.device {
        None => vec![("unified", pools.host, promised.host)],
        Some(device) => vec![("device", device, promised.device), ("host", pools.host, promised.host)],
    }
}

#[cfg(test)]
mod tests {
    use super::Metrics;
    use crate::memory::{Pool, PoolBytes, Pools};

    #[test]
    fn a_gpu_with_memory_of_its_own_is_a_pool_beside_the_hosts() {
        let pool = |total_bytes| Pool { total_bytes, ..Pool::default() };
        let unified = Pools { host: pool(7), device: None };
        let split = Pools { device: Some(pool(9)), ..unified };
        let told = |pools: &Pools| {
            let metrics = Metrics::new().unwrap();
            metrics.observe(pools, PoolBytes { host: 2, device: 3 }, 0, 0, 0);
            let text = metrics.text().unwrap();
            let lines = text.lines().filter_map(|line| line.strip_prefix("sparkherd_agent_memory_"));
            let kept = lines.filter(|line| line.starts_with("total") || line.starts_with("promised"));
            kept.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(
            told(&unified),
            [r#"promised_bytes{pool="unified"} 2"#, r#"total_bytes{pool="unified"} 7"#]
        );
        let both = [
            r#"promised_bytes{pool="device"} 3"#,
            r#"promised_bytes{pool="host"} 2"#,
            r#"total_bytes{pool="device"} 9"#,
            r#"total_bytes{pool="host"} 7"#,
        ];
        assert_eq!(told(&split), both);
    }
}
