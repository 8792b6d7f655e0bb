//! One round of the loop: observe, plan, execute, report.

use std::collections::BTreeMap;

use sparkherd_planner::Reason;

use crate::agent::{Agent, State};
use crate::clock::Moment;
use crate::engine::{Engine, Stage};
use crate::health::EngineTarget;
use crate::memory::{PoolBytes, Pools};
use crate::plan::{Starts, World, plan};
use crate::record::Record;
use crate::report::{ModelRole, NodeView, ReplicaView, model_status, node_status, replica_status};
use crate::source::{Desired, Observed};
use crate::store::{CopyFacts, Weights};
use crate::supervise::{EngineNews, News};
use crate::wanted::{ModelKey, ReplicaKey, Wanted};

/// When the agent ends, what runs gets this long; with the grace of a drain it stays well below the 90 s that the chart
/// gives the Pod.
const ENDING_DRAIN_SECONDS: u32 = 30;

impl Agent {
    pub(crate) async fn pass(&mut self, desired: &Desired) {
        let now = self.clock.now();
        let wanted = self.take_in(desired, now);
        if let Err(error) = self.measure(desired, now) {
            // Blind: nothing is decided on memory that was not measured.
            tracing::error!(%error, "cannot measure memory");
            return;
        }
        let weights = self.survey(desired, &wanted, now);
        if desired.synced {
            let asked = if self.state.ending { ending(&wanted) } else { wanted.clone() };
            let steps = plan(&World {
                now: now.since_start,
                pools: self.state.pools,
                starts: self.allowed_starts(desired),
                wanted: &asked,
                records: &self.state.records,
                weights: &weights,
            });
            for step in steps {
                self.execute(step, desired, &wanted, &weights, now).await;
            }
        }
        self.report(desired, &wanted, &weights, now);
    }

    /// Takes in what a child said or how it ended.
    pub(crate) fn hear(&mut self, news: EngineNews) {
        let now = self.clock.now();
        let EngineNews { replica, engine: id, news } = news;
        if matches!(news, News::Exited(_)) {
            self.state.handles.remove(&id);
            self.guard.remove(id);
        }
        let Some(record) = self.state.records.get_mut(&replica) else { return };
        let Some(engine) = record.engine.as_mut().filter(|engine| engine.id == id) else { return };
        match news {
            News::Heard(event) => {
                if engine.heard(event, now.since_start) {
                    let seconds = now.since_start.saturating_sub(engine.spawned_at).as_secs_f64();
                    tracing::info!(%replica, seconds, "engine is ready");
                    record.ready();
                }
            }
            News::Exited(exit) => {
                tracing::info!(%replica, status = exit.status, killed = ?exit.killed, "engine ended");
                let failures = record.failures(now.since_start);
                record.exited(exit, now, self.state.pools.grain());
                if record.failures(now.since_start) > failures {
                    self.metrics.engine_failures.inc();
                }
            }
        }
    }

    /// Parses what is wanted and makes the records fit it.
    fn take_in(&mut self, desired: &Desired, now: Moment) -> BTreeMap<ReplicaKey, Wanted> {
        let records = &mut self.state.records;
        for (key, replica) in &desired.replicas {
            let attempt = replica.spec.attempt;
            records
                .entry(key.clone())
                .or_insert_with(|| Record::new(attempt, replica.status.as_ref(), now))
                .adopt_attempt(attempt);
        }
        records.retain(|key, record| record.engine.is_some() || desired.replicas.contains_key(key));
        desired.replicas.iter().map(|(key, replica)| (key.clone(), Wanted::new(replica))).collect()
    }

    fn allowed_starts(&self, desired: &Desired) -> Starts {
        match (self.state.ending, desired.connected) {
            (true, _) => Starts::Nothing,
            (false, false) => Starts::OnlyWhatServed,
            (false, true) => Starts::All,
        }
    }

    /// Keeps the copies of the models that concern this node, and says which replicas' weights are good.
    fn survey(
        &mut self,
        desired: &Desired,
        wanted: &BTreeMap<ReplicaKey, Wanted>,
        now: Moment,
    ) -> BTreeMap<ReplicaKey, Weights> {
        for (key, model) in &desired.models {
            let served_here = wanted
                .iter()
                .any(|(replica, wanted)| replica.namespace == key.namespace && wanted.model == key.name);
            let role = ModelRole::of(model, &self.config.node_name, served_here);
            let before = self.state.roles.insert(key.clone(), role).unwrap_or_default();
            if !role.looks() {
                if let Some(copy) = self.state.copies.get_mut(key) {
                    copy.forget_look();
                }
                continue;
            }
            let copy = self.state.copies.entry(key.clone()).or_default();
            if role.resolves && !before.resolves {
                copy.retry_now();
            }
            if !before.looks() {
                self.state.look_at = now.since_start;
            }
        }
        self.state.roles.retain(|key, _| desired.models.contains_key(key));
        self.state.copies.retain(|key, _| desired.models.contains_key(key));
        self.look(desired, now);
        self.inspect(now);
        wanted.iter().map(|(key, wanted)| (key.clone(), self.weights(key, wanted))).collect()
    }

    fn weights(&self, replica: &ReplicaKey, wanted: &Wanted) -> Weights {
        let found = self
            .state
            .copies
            .iter()
            .find(|(key, _)| key.namespace == replica.namespace && key.name == wanted.model);
        match found {
            Some((_, copy)) => copy.weights(&wanted.digest),
            None => Weights::NotReady {
                reason: Reason::Resolving,
                message: format!("there is no Model {}", wanted.model),
            },
        }
    }

    fn report(
        &mut self,
        desired: &Desired,
        wanted: &BTreeMap<ReplicaKey, Wanted>,
        weights: &BTreeMap<ReplicaKey, Weights>,
        now: Moment,
    ) {
        let records = &self.state.records;
        let starting = records
            .iter()
            .find(|(_, record)| record.engine.as_ref().is_some_and(Engine::is_starting))
            .map(|(key, _)| key);
        let mut replicas = BTreeMap::new();
        for ((key, wanted), weights) in wanted.iter().zip(weights.values()) {
            let Some(record) = records.get(key) else { continue };
            let standing = desired.replicas.get(key).and_then(|replica| replica.status.as_ref());
            let view = ReplicaView {
                now,
                agent_incarnation: &self.incarnation,
                wanted,
                record,
                weights,
                starting: starting.filter(|starting| *starting != key),
                ending: self.state.ending,
            };
            let status = replica_status(&view, self.state.observed.replicas.get(key).or(standing));
            replicas.insert(key.clone(), status);
        }
        let node = self.report_node(desired, wanted, now);
        self.state.observed = Observed { replicas, models: self.report_models(desired), node: Some(node) };
        self.health.passed(targets(records, wanted));
    }

    fn report_models(&self, desired: &Desired) -> BTreeMap<ModelKey, sparkherd_crds::ModelStatus> {
        let node = &self.config.node_name;
        desired
            .models
            .iter()
            .filter_map(|(key, model)| {
                let role = self.state.roles.get(key).copied().unwrap_or_default();
                let status = model_status(model, node, role, self.state.copies.get(key))?;
                Some((key.clone(), status))
            })
            .collect()
    }

    fn report_node(
        &self,
        desired: &Desired,
        wanted: &BTreeMap<ReplicaKey, Wanted>,
        now: Moment,
    ) -> sparkherd_crds::SparkNodeStatus {
        let State { records, pools, store, others, observed, ending, .. } = &self.state;
        let promised = promised(pools, records, wanted);
        let engines = || records.values().filter_map(|record| record.engine.as_ref());
        let ready = engines().filter(|engine| engine.answering().is_some()).count();
        self.metrics.observe(pools, promised, engines().count(), ready, self.guard.kills());
        let standing = desired.node.as_ref().and_then(|node| node.status.as_ref());
        let seen = self.gpu.seen();
        let view = NodeView {
            now,
            generation: desired.node.as_ref().and_then(|node| node.metadata.generation),
            pools: *pools,
            promised,
            others,
            engine: &self.machine.engine,
            store: store.as_ref(),
            gpu: self.machine.gpu.as_ref(),
            gpu_seen: seen.as_ref(),
            faults: &self.machine.faults,
            cpu: &self.machine.cpu,
            os: &self.machine.os,
            cached: self.cached(),
            incarnation: &self.incarnation,
            ending: *ending,
        };
        let standing = standing.map_or(&[][..], |status| &status.conditions);
        node_status(&view, standing, observed.node.as_ref())
    }

    fn cached(&self) -> Vec<sparkherd_crds::CachedModel> {
        // Bounded as the API bounds it; the same weights in two namespaces are one copy.
        let whole: BTreeMap<String, u64> = self
            .state
            .copies
            .values()
            .filter_map(|copy| match copy.facts() {
                CopyFacts::Whole(inspection) => {
                    Some((inspection.digest.clone(), inspection.files.iter().map(|file| file.bytes).sum()))
                }
                _ => None,
            })
            .collect();
        whole
            .into_iter()
            .take(64)
            .map(|(digest, bytes)| sparkherd_crds::CachedModel { digest, bytes })
            .collect()
    }
}

/// The same replicas, all to stop soon.
fn ending(wanted: &BTreeMap<ReplicaKey, Wanted>) -> BTreeMap<ReplicaKey, Wanted> {
    let stop = |wanted: &Wanted| Wanted {
        serve: false,
        drain_seconds: wanted.drain_seconds.min(ENDING_DRAIN_SECONDS),
        ..wanted.clone()
    };
    wanted.iter().map(|(key, wanted)| (key.clone(), stop(wanted))).collect()
}

/// Footprints of all that is to serve here or is not yet released.
fn promised(
    pools: &Pools,
    records: &BTreeMap<ReplicaKey, Record>,
    wanted: &BTreeMap<ReplicaKey, Wanted>,
) -> PoolBytes {
    records
        .iter()
        .filter_map(|(key, record)| {
            let engine = record.engine.as_ref().map(|engine| engine.footprint);
            let serving = wanted.get(key).filter(|wanted| wanted.serve);
            engine.or_else(|| serving.map(|wanted| pools.shares(&wanted.footprint)))
        })
        .fold(PoolBytes::default(), PoolBytes::plus)
}

/// Engines that answer, at addresses the agent itself can reach.
fn targets(
    records: &BTreeMap<ReplicaKey, Record>,
    wanted: &BTreeMap<ReplicaKey, Wanted>,
) -> Vec<EngineTarget> {
    records
        .iter()
        .filter_map(|(key, record)| {
            let Stage::Serving(answering) = &record.engine.as_ref()?.stage else { return None };
            let mut address = answering.address;
            if address.ip().is_unspecified() {
                let loopback = if address.is_ipv4() {
                    std::net::Ipv4Addr::LOCALHOST.into()
                } else {
                    std::net::Ipv6Addr::LOCALHOST.into()
                };
                address.set_ip(loopback);
            }
            Some(EngineTarget {
                namespace: key.namespace.clone(),
                deployment: wanted.get(key)?.deployment.clone(),
                replica: key.name.clone(),
                address,
            })
        })
        .collect()
}
