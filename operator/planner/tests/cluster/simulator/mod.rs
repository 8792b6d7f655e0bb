//! A cluster that does what the planner says, with agents that do what they are told: deterministic, one clock.

mod agents;
mod build;

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use sparkherd_planner::{
    Action, Deployment, DeploymentId, Endpoint, Model, NewReplica, NodeName, Plan, Policy, Replica,
    ReplicaId, ReplicaStatus, ServiceState, Snapshot, plan,
};

pub(crate) use agents::Source;
pub(crate) use build::{deployment_spec, facts, node, set_field};

/// Everything of a test lives in this namespace.
pub(crate) const NAMESPACE: &str = "lab";

pub(crate) struct Cluster {
    pub(crate) snapshot: Snapshot,
    /// What a resolver finds, by source.
    pub(crate) sources: BTreeMap<String, Source>,
    /// Nodes whose agent does not run.
    pub(crate) silent: BTreeSet<NodeName>,
    /// Deployments whose engines crash from now on when they start.
    pub(crate) failing: BTreeSet<String>,
    names: u64,
}

impl Cluster {
    pub(crate) fn new() -> Self {
        let snapshot = Snapshot {
            now: Timestamp::from_second(1_800_000_000).unwrap(),
            policy: Policy {
                heartbeat_stale_after: SignedDuration::from_secs(40),
                node_lost_after: SignedDuration::from_secs(300),
                key_hashes: vec!["lab".into()],
                allow_anonymous: false,
            },
            deployments: BTreeMap::new(),
            models: BTreeMap::new(),
            replicas: BTreeMap::new(),
            nodes: BTreeMap::new(),
        };
        let (sources, silent, failing) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        Self { snapshot, sources, silent, failing, names: 0 }
    }

    /// A name that no other object has.
    pub(crate) fn unique(&mut self, kind: &str) -> String {
        self.names += 1;
        format!("{kind}-{}", self.names)
    }

    /// Time passes; agents that run send their heartbeats.
    pub(crate) fn tick(&mut self, seconds: i64) {
        self.snapshot.now += SignedDuration::from_secs(seconds);
        for (name, node) in &mut self.snapshot.nodes {
            if !self.silent.contains(name) {
                node.heartbeat_at = Some(self.snapshot.now);
            }
        }
    }

    pub(crate) fn deploy(&mut self, name: &str, spec: sparkherd_planner::DeploymentSpec) {
        let uid = self.unique("uid");
        let deployment = Deployment {
            uid,
            generation: 1,
            deleting: false,
            held_back: false,
            spec: Ok(spec),
            service: ServiceState::Absent,
        };
        self.snapshot.deployments.insert(DeploymentId::new(NAMESPACE, name), deployment);
    }

    pub(crate) fn deployment(&mut self, name: &str) -> Option<&mut Deployment> {
        self.snapshot.deployments.get_mut(&DeploymentId::new(NAMESPACE, name))
    }

    /// Deletes a deployment as the API server does by default: the owner goes, the garbage collector deletes the rest.
    pub(crate) fn delete(&mut self, name: &str) {
        let Some(gone) = self.snapshot.deployments.remove(&DeploymentId::new(NAMESPACE, name)) else {
            return;
        };
        for replica in self.snapshot.replicas.values_mut() {
            if replica.owner_uid.as_ref() == Some(&gone.uid) {
                replica.deleting = true;
            }
        }
        self.snapshot.models.retain(|_, model| {
            let owners = model.owners.len();
            model.owners.retain(|owner| owner.uid != gone.uid);
            owners == 0 || !model.owners.is_empty()
        });
    }

    /// Plans, does it, and gives what was planned.
    pub(crate) fn plan(&mut self) -> Plan {
        let plan = plan(&self.snapshot);
        for action in &plan.actions {
            self.apply(action);
        }
        plan
    }

    fn apply(&mut self, action: &Action) {
        match action {
            Action::CreateModel { id, source, write } => {
                let model = Model {
                    uid: self.unique("uid"),
                    resource_version: "1".into(),
                    source: source.clone(),
                    made_by_operator: true,
                    deleting: false,
                    owners: write.owners.clone(),
                    pin: false,
                    prefetch_on: BTreeSet::new(),
                    resolver: write.resolver.clone(),
                    cache_on: write.cache_on.clone(),
                    resolved: None,
                    copies: BTreeMap::new(),
                };
                assert!(self.snapshot.models.insert(id.clone(), model).is_none(), "{id} exists");
            }
            Action::UpdateModel { id, uid, write } => {
                let model = self.snapshot.models.get_mut(id).unwrap();
                assert_eq!(model.uid, *uid);
                model.resolver.clone_from(&write.resolver);
                model.cache_on.clone_from(&write.cache_on);
                if model.made_by_operator {
                    model.owners.clone_from(&write.owners);
                }
            }
            Action::DeleteModel { id, .. } => {
                self.snapshot.models.remove(id).unwrap();
            }
            Action::CreateReplica(new) => self.create(new),
            Action::EnsureService { deployment, expose, .. } => {
                let deployment = self.snapshot.deployments.get_mut(deployment).unwrap();
                deployment.service = ServiceState::Ours { expose: *expose };
            }
            Action::UpdateReplica { id, uid, write, .. } => {
                let replica = self.replica(id, uid);
                replica.run = write.run;
                replica.attempt = write.attempt;
                replica.drain_seconds = write.drain_seconds;
                replica.access = write.access.clone();
                replica.served_names.clone_from(&write.served_names);
            }
            Action::DeleteReplica { id, uid, .. } => self.replica(id, uid).deleting = true,
            Action::ReleaseReplica { id, uid, .. } => {
                assert!(self.replica(id, uid).deleting, "{id} released alive");
                self.snapshot.replicas.remove(id);
            }
            Action::SetEndpoint { replica, uid, address, port, ready, .. } => {
                let endpoint = Endpoint { address: Some(*address), port: *port, ready: *ready };
                self.replica(replica, uid).endpoint = Some(endpoint);
            }
        }
    }

    fn replica(&mut self, id: &ReplicaId, uid: &str) -> &mut Replica {
        let replica = self.snapshot.replicas.get_mut(id).unwrap();
        assert_eq!(replica.uid, uid);
        replica
    }

    fn create(&mut self, new: &NewReplica) {
        let replica = Replica {
            uid: self.unique("uid"),
            resource_version: "1".into(),
            created_at: self.snapshot.now,
            deleting: false,
            has_finalizer: true,
            owner_uid: Some(new.deployment_uid.clone()),
            node: new.node.clone(),
            deployment: new.deployment.name().to_owned(),
            revision: new.revision.clone(),
            model: new.model.clone(),
            serving: new.serving.clone(),
            footprint: new.footprint,
            run: new.write.run,
            attempt: new.write.attempt,
            drain_seconds: new.write.drain_seconds,
            access: new.write.access.clone(),
            served_names: new.write.served_names.clone(),
            status: ReplicaStatus::default(),
            endpoint: None,
        };
        assert!(self.snapshot.replicas.insert(new.id.clone(), replica).is_none(), "{} exists", new.id);
    }
}
