//! The operator's own metrics, under `sparkherd_operator_`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus::{
    Encoder, Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry,
    TextEncoder,
};
use sparkherd_planner::{ConditionStatus, ConditionType, Plan, Reason, Snapshot};

use crate::call::Calls;

#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    passes: IntCounter,
    failed_passes: IntCounter,
    pass_seconds: Histogram,
    actions: IntCounterVec,
    waiting: IntGaugeVec,
    holds: IntCounter,
    violations: IntGaugeVec,
    node_bytes: IntGaugeVec,
    event_age: prometheus::GaugeVec,
    undecodable: Gauge,
    calls: Calls,
    last_event: Arc<Mutex<BTreeMap<&'static str, Instant>>>,
}

impl Metrics {
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new_custom(Some("sparkherd_operator".to_owned()), None)?;
        let counter = |name: &str, help: &str| IntCounter::new(name, help);
        let calls = IntCounterVec::new(
            Opts::new("api_calls_total", "Calls to the API server by verb and HTTP code"),
            &["verb", "code"],
        )?;
        let metrics = Self {
            passes: counter("passes_total", "Planning passes that finished")?,
            failed_passes: counter(
                "passes_failed_total",
                "Planning passes that ended early by a failed call",
            )?,
            pass_seconds: Histogram::with_opts(
                // Planning is budgeted at 20 ms; the upper buckets show a slow API server.
                HistogramOpts::new("pass_seconds", "Seconds a pass took, writes included")
                    .buckets(vec![0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0]),
            )?,
            actions: IntCounterVec::new(
                Opts::new("actions_total", "Actions carried out by kind"),
                &["kind"],
            )?,
            waiting: IntGaugeVec::new(
                Opts::new("waiting", "Deployments that are not ready, by reason"),
                &["reason"],
            )?,
            holds: counter("holds_total", "Deployments held back until our own writes were visible")?,
            violations: IntGaugeVec::new(
                Opts::new("violations", "Invariants the last snapshot violates"),
                &["invariant"],
            )?,
            node_bytes: IntGaugeVec::new(
                Opts::new(
                    "node_bytes",
                    "Bytes of a node's pool: allocatable as reported, promised to replicas",
                ),
                &["node", "pool", "what"],
            )?,
            event_age: prometheus::GaugeVec::new(
                Opts::new("last_event_age_seconds", "Seconds since the last watch event"),
                &["kind"],
            )?,
            undecodable: Gauge::new("undecodable_objects", "Objects of our kinds this version cannot read")?,
            calls: Calls::new(calls.clone()),
            last_event: Arc::default(),
            registry,
        };
        metrics.registry.register(Box::new(calls))?;
        metrics.register()?;
        Ok(metrics)
    }

    fn register(&self) -> Result<(), prometheus::Error> {
        let Self {
            registry,
            passes,
            failed_passes,
            pass_seconds,
            actions,
            waiting,
            holds,
            violations,
            node_bytes,
            event_age,
            undecodable,
            calls: _,
            last_event: _,
        } = self;
        registry.register(Box::new(passes.clone()))?;
        registry.register(Box::new(failed_passes.clone()))?;
        registry.register(Box::new(pass_seconds.clone()))?;
        registry.register(Box::new(actions.clone()))?;
        registry.register(Box::new(waiting.clone()))?;
        registry.register(Box::new(holds.clone()))?;
        registry.register(Box::new(violations.clone()))?;
        registry.register(Box::new(node_bytes.clone()))?;
        registry.register(Box::new(event_age.clone()))?;
        registry.register(Box::new(undecodable.clone()))
    }

    pub(crate) const fn calls(&self) -> &Calls {
        &self.calls
    }

    pub(crate) fn saw_event(&self, kind: &'static str) {
        self.last_event.lock().unwrap_or_else(PoisonError::into_inner).insert(kind, Instant::now());
    }

    pub(crate) fn saw_action(&self, kind: &'static str) {
        self.actions.with_label_values(&[kind]).inc();
    }

    pub(crate) fn saw_pass(&self, took: Duration, failed: bool) {
        self.pass_seconds.observe(took.as_secs_f64());
        if failed { self.failed_passes.inc() } else { self.passes.inc() }
    }

    pub(crate) fn saw_plan(&self, snapshot: &Snapshot, plan: &Plan, undecodable: usize) {
        self.holds
            .inc_by(snapshot.deployments.values().filter(|deployment| deployment.held_back).count() as u64);
        self.undecodable.set(undecodable as f64);
        for reason in Reason::ALL {
            let waiting =
                plan.report.values().filter_map(|report| report.conditions.get(&ConditionType::Ready));
            let count = waiting
                .filter(|ready| ready.status != ConditionStatus::True && ready.reason == reason)
                .count();
            self.waiting.with_label_values(&[reason.as_str()]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        self.violations.reset();
        for violation in sparkherd_planner::violations(snapshot) {
            self.violations.with_label_values(&[violation.invariant()]).inc();
        }
        self.set_node_bytes(snapshot);
    }

    fn set_node_bytes(&self, snapshot: &Snapshot) {
        self.node_bytes.reset();
        let bytes = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        for (name, node) in &snapshot.nodes {
            for pool in &node.pools {
                let promised = sparkherd_planner::promised_bytes(snapshot, name, pool.kind);
                let kind = format!("{:?}", pool.kind);
                let labels = |what: &'static str| [name.as_str().to_owned(), kind.clone(), what.to_owned()];
                self.node_bytes.with_label_values(&labels("allocatable")).set(bytes(pool.allocatable_bytes));
                self.node_bytes.with_label_values(&labels("promised")).set(bytes(promised));
            }
        }
    }

    /// Prometheus' text format.
    pub(crate) fn render(&self) -> Result<Vec<u8>, prometheus::Error> {
        for (kind, at) in self.last_event.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            self.event_age.with_label_values(&[kind]).set(at.elapsed().as_secs_f64());
        }
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}
