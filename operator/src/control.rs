//! The loop: any event makes the world dirty; a pass observes, plans and applies; then it waits.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use kube::Client;
use kube::runtime::events::{Recorder, Reporter};
use sparkherd_crds::OPERATOR_MANAGER;
use sparkherd_planner::{NodeName, Plan, Policy, Snapshot};
use thiserror::Error;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use crate::admin::{self, Admin};
use crate::apply::{self, Apply};
use crate::call::CallError;
use crate::events;
use crate::heartbeat::Heartbeats;
use crate::metrics::Metrics;
use crate::observe::{Context, observe};
use crate::pending::Pending;
use crate::retries::Retries;
use crate::status_write::StatusWriter;
use crate::watch::{Signals, Stores};
use crate::world::World;

/// Events come in bursts (a rollout writes several objects); one pass serves a burst.
const DEBOUNCE: Duration = Duration::from_millis(50);

/// Nothing may have happened and still time has passed: heartbeats age and the key file may have changed.
const IDLE_RECHECK: Duration = Duration::from_secs(5);

/// Back-off after a pass in which a call failed.
const BACKOFF_MIN: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// What the operator is started with.
#[derive(Clone, Debug)]
pub struct OperatorConfig {
    /// Where the agents' Leases and Pods are.
    pub namespace: String,
    pub admin_address: SocketAddr,
    /// Where a node's engines answer, in place of its agent's Pod.
    pub node_addresses: BTreeMap<NodeName, IpAddr>,
    /// One lower-case hex SHA-256 of a lab key a line; read again at each pass. Absent or empty: nobody gets in by it.
    pub key_sha256_file: Option<PathBuf>,
    pub allow_anonymous: bool,
    pub heartbeat_stale_after: SignedDuration,
    pub node_lost_after: SignedDuration,
}

#[derive(Debug, Error)]
pub enum OperatorError {
    #[error("admin port {address} cannot be bound: {source}")]
    Admin { address: SocketAddr, source: std::io::Error },
    #[error("metrics cannot be registered: {0}")]
    Metrics(#[from] prometheus::Error),
    #[error("a watch ended")]
    WatchEnded,
}

/// Runs until `shutdown` completes. Nothing has to be put in order at the end: the next operator plans from what is there.
pub async fn run(
    client: Client,
    config: OperatorConfig,
    clock: fn() -> Timestamp,
    shutdown: impl Future<Output = ()>,
) -> Result<(), OperatorError> {
    let metrics = Metrics::new()?;
    let admin = Admin::new(metrics.clone());
    let address = config.admin_address;
    let listener = admin::bind(address).await.map_err(|source| OperatorError::Admin { address, source })?;
    info!(admin = ?listener.local_addr().ok(), "operator starts");
    let dirty = Arc::new(Notify::new());
    let mut tasks = JoinSet::new();
    tasks.spawn(admin.clone().serve(listener));
    let signals = Signals { dirty: Arc::clone(&dirty), metrics: metrics.clone() };
    let stores = Stores::start(&client, &config.namespace, &signals, &mut tasks);
    let reporter = Reporter { controller: OPERATOR_MANAGER.to_owned(), instance: None };
    let recorder = Recorder::new(client.clone(), reporter);
    let mut control = Control {
        client,
        config,
        clock,
        stores,
        metrics,
        admin,
        recorder,
        heartbeats: Heartbeats::default(),
        pending: Pending::default(),
        retries: Retries::default(),
        key_complaint: None,
        undecodable: BTreeSet::new(),
    };
    tokio::pin!(shutdown);
    tokio::select! {
        () = &mut shutdown => Ok(()),
        _ = tasks.join_next() => Err(OperatorError::WatchEnded),
        never = control.work(&dirty) => never,
    }
}

struct Control {
    client: Client,
    config: OperatorConfig,
    clock: fn() -> Timestamp,
    stores: Stores,
    metrics: Metrics,
    admin: Admin,
    recorder: Recorder,
    heartbeats: Heartbeats,
    pending: Pending,
    retries: Retries,
    /// Whether the key file could be read, and why not; said when it changes.
    key_complaint: Option<String>,
    /// Objects already complained about, with the complaint.
    undecodable: BTreeSet<(String, String)>,
}

/// What a pass decided on.
struct Decision {
    world: World,
    snapshot: Snapshot,
    plan: Plan,
}

impl Control {
    async fn work(&mut self, dirty: &Notify) -> Result<(), OperatorError> {
        self.stores.ready().await;
        self.admin.set_ready();
        info!("stores are filled");
        let mut backoff = BACKOFF_MIN;
        loop {
            let started = Instant::now();
            let outcome = self.pass().await;
            self.metrics.saw_pass(started.elapsed(), outcome.is_err());
            let wait = match outcome {
                Ok(recheck_at) => {
                    backoff = BACKOFF_MIN;
                    self.until(recheck_at)
                }
                Err(error) => {
                    warn!(%error, retry_ms = u64::try_from(backoff.as_millis()).unwrap_or(u64::MAX), "pass failed");
                    let wait = backoff + self.jitter(backoff);
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                    // Events do not cut a back-off short: they may be what the failing writes cause.
                    tokio::time::sleep(wait).await;
                    continue;
                }
            };
            tokio::select! {
                () = dirty.notified() => tokio::time::sleep(DEBOUNCE).await,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// An error here means that nothing could be decided; what failed for one deployment is that deployment's affair.
    async fn pass(&mut self) -> Result<Option<Timestamp>, CallError> {
        let decision = self.decide().await?;
        self.metrics.saw_plan(&decision.snapshot, &decision.plan, decision.world.undecodable.len());
        self.admin.set_plan(&decision.plan);
        self.carry_out(&decision).await;
        if let Err(error) = self.report(&decision).await {
            warn!(%error, "a status was not written; the next pass writes it");
        }
        Ok(decision.plan.recheck_at)
    }

    /// Plans from the stores; and once more from a consistent list, if the plan takes something away (rule 2) or our own
    /// writes have stayed unseen for too long (rule 1).
    async fn decide(&mut self) -> Result<Decision, CallError> {
        let now = (self.clock)();
        let world = self.stores.world();
        self.pending.settle(&world);
        if !self.pending.is_overdue(now) {
            let held_back = self.pending.held_back();
            let (snapshot, plan) = self.plan(&world, &held_back, now);
            if !plan.actions.iter().any(sparkherd_planner::Action::is_destructive) {
                return Ok(Decision { world, snapshot, plan });
            }
        }
        let world = World::list(&self.client, &self.config.namespace, self.metrics.calls()).await?;
        self.pending.drop_superseded(&world);
        let (snapshot, plan) = self.plan(&world, &BTreeSet::new(), now);
        Ok(Decision { world, snapshot, plan })
    }

    fn plan(
        &mut self,
        world: &World,
        held_back: &BTreeSet<sparkherd_planner::DeploymentId>,
        now: Timestamp,
    ) -> (Snapshot, Plan) {
        self.heartbeats.observe(&world.leases, now);
        let policy = self.policy();
        let context = Context {
            now,
            policy: &policy,
            heartbeats: &self.heartbeats,
            node_addresses: &self.config.node_addresses,
            held_back,
        };
        let snapshot = observe(world, &context);
        let plan = sparkherd_planner::plan(&snapshot);
        (snapshot, plan)
    }

    /// Carries the actions out in order. A failed one ends its deployment's turn and makes it wait; others go on (I12).
    async fn carry_out(&mut self, decision: &Decision) {
        let now = decision.snapshot.now;
        let apply = Apply { client: &self.client, calls: self.metrics.calls(), world: &decision.world };
        let mut failed = BTreeSet::new();
        let mut done = BTreeSet::new();
        for action in &decision.plan.actions {
            let deployments = apply::deployments_of(action, &decision.world);
            if deployments.iter().any(|id| failed.contains(id) || self.retries.must_wait(id, now)) {
                continue;
            }
            match apply::apply(&apply, action).await {
                Ok(written) => {
                    info!(
                        kind = action.kind(),
                        deployments = names(&deployments),
                        changed = written.is_some(),
                        "action"
                    );
                    done.extend(deployments);
                    if let Some(written) = written {
                        self.metrics.saw_action(action.kind());
                        self.pending.record(written.deployments, written.expected, (self.clock)());
                    }
                }
                Err(error) => {
                    error!(kind = action.kind(), deployments = names(&deployments), %error, "action failed");
                    failed.extend(deployments);
                }
            }
        }
        for id in done.difference(&failed) {
            self.retries.succeeded(id);
        }
        for id in failed {
            self.retries.failed(id, now);
        }
    }

    async fn report(&mut self, decision: &Decision) -> Result<(), CallError> {
        for object in &decision.world.undecodable {
            if self.undecodable.insert((object.uid.clone(), object.error.clone())) {
                warn!(
                    kind = object.kind,
                    namespace = object.namespace,
                    name = object.name,
                    error = object.error,
                    "undecodable object"
                );
                events::publish_undecodable(&self.recorder, self.metrics.calls(), object).await;
            }
        }
        let writer = StatusWriter {
            client: &self.client,
            calls: self.metrics.calls(),
            recorder: &self.recorder,
            now: decision.snapshot.now,
        };
        writer.write(&decision.world, &decision.plan).await
    }

    fn policy(&mut self) -> Policy {
        Policy {
            heartbeat_stale_after: self.config.heartbeat_stale_after,
            node_lost_after: self.config.node_lost_after,
            key_hashes: self.key_hashes(),
            allow_anonymous: self.config.allow_anonymous,
        }
    }

    /// A file that is missing lets nobody in by a lab key, and that is said once.
    fn key_hashes(&mut self) -> Vec<String> {
        let Some(path) = &self.config.key_sha256_file else { return Vec::new() };
        let (hashes, complaint) = match read_key_hashes(path) {
            Ok(hashes) => (hashes, None),
            Err(error) => (Vec::new(), Some(error.to_string())),
        };
        if self.key_complaint != complaint {
            let error = complaint.as_deref().unwrap_or("none");
            warn!(path = %path.display(), error, hashes = hashes.len(), "lab key hashes read");
            self.key_complaint = complaint;
        }
        hashes
    }

    fn until(&self, recheck_at: Option<Timestamp>) -> Duration {
        let Some(at) = recheck_at else { return IDLE_RECHECK };
        // A time that has passed already must not make the loop spin.
        Duration::try_from(at.duration_since((self.clock)()))
            .unwrap_or(DEBOUNCE)
            .clamp(DEBOUNCE, IDLE_RECHECK)
    }

    /// Up to a quarter more, from the clock's fraction: two operators that failed together should not retry together.
    fn jitter(&self, delay: Duration) -> Duration {
        let fraction = f64::from((self.clock)().subsec_nanosecond().unsigned_abs()) / 1e9;
        delay.mul_f64(fraction / 4.0)
    }
}

/// For a log line.
fn names(deployments: &BTreeSet<sparkherd_planner::DeploymentId>) -> String {
    deployments.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// Hashes of the lab's keys: one a line. A line that is no hash lets nobody in.
fn read_key_hashes(path: &Path) -> std::io::Result<Vec<String>> {
    let text = std::fs::read_to_string(path)?;
    let is_hash =
        |line: &&str| line.len() == 64 && line.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    Ok(text.lines().map(str::trim).filter(is_hash).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hashes_are_taken_from_the_key_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key-sha256");
        assert!(read_key_hashes(&path).is_err());
        let hash = "ab".repeat(32);
        std::fs::write(&path, format!("{hash}\nsk-not-a-hash\n{}\n", hash.to_uppercase())).unwrap();
        assert_eq!(read_key_hashes(&path).unwrap(), [hash]);
    }
}
