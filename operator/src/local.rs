//! The operator without Kubernetes: the same observation and the same planner over objects in memory.
//!
//! ```text
//! YAML files ─► LocalCluster.set_deployments ─┐                        ┌─► replicas, models ─► the agent's core
//!                                             ├─► pass: plan and apply ┤
//! the agent's statuses ─► LocalCluster.report ┘                        └─► endpoints ─► the front's routes
//! ```
//!
//! What the API server and the garbage collector do for the cluster is done here in as many lines as `serve` needs: uids,
//! versions, generations, finalizers, owners.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::{Resource, ResourceExt};
use sparkherd_crds::{
    FINALIZER, ModelDeployment, ModelReplicaStatus, ModelStatus, SparkNode, SparkNodeSpec, SparkNodeStatus,
};
use sparkherd_planner::{Action, NodeName, Plan, Policy};

use crate::apply::{model, replica, service};
use crate::heartbeat::Heartbeats;
use crate::observe::{Context, observe};
use crate::status::deployment_status;
use crate::world::World;

/// A pass whose actions keep changing something is a fault of the planner's; it goes on at the next call.
const PASSES_MAX: usize = 16;

/// Objects of one machine, and what the planner needs beside them.
#[derive(Debug)]
pub struct LocalCluster {
    world: World,
    heartbeats: Heartbeats,
    policy: Policy,
    node: NodeName,
    node_addresses: BTreeMap<NodeName, IpAddr>,
    /// Grows with every write: resourceVersions and uids come from it.
    version: u64,
}

/// Where a served deployment answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Names clients may send as `model`.
    pub served_names: Vec<String>,
    pub address: IpAddr,
    pub port: u16,
}

impl LocalCluster {
    pub fn new(node: &str, engine_address: IpAddr, policy: Policy) -> Self {
        let node = NodeName::new(node);
        Self {
            world: World::default(),
            heartbeats: Heartbeats::default(),
            policy,
            node_addresses: [(node.clone(), engine_address)].into(),
            node,
            version: 0,
        }
    }

    pub const fn world(&self) -> &World {
        &self.world
    }

    /// The deployments there are from now on. One that is missing is deleted, and what it owns with it.
    pub fn set_deployments(&mut self, wanted: Vec<ModelDeployment>, now: Timestamp) {
        let mut deployments = Vec::new();
        for mut object in wanted {
            let same = |old: &&Arc<ModelDeployment>| {
                old.namespace() == object.namespace() && old.name_any() == object.name_any()
            };
            match self.world.deployments.iter().find(same).cloned() {
                Some(old) if old.spec == object.spec => deployments.push(old),
                Some(old) => {
                    object.metadata.uid.clone_from(&old.metadata.uid);
                    object.metadata.generation = Some(old.metadata.generation.unwrap_or_default() + 1);
                    object.status.clone_from(&old.status);
                    self.stamp(&mut object.metadata, now);
                    deployments.push(Arc::new(object));
                }
                None => {
                    object.metadata.generation = Some(1);
                    self.stamp(&mut object.metadata, now);
                    deployments.push(Arc::new(object));
                }
            }
        }
        self.world.deployments = deployments;
        self.collect_garbage(now);
    }

    /// What the agent says: its node, its replicas and its models, by (namespace, name, uid).
    pub fn report(
        &mut self,
        incarnation: &str,
        node: Option<SparkNodeStatus>,
        replicas: &BTreeMap<(String, String, String), ModelReplicaStatus>,
        models: &BTreeMap<(String, String, String), ModelStatus>,
        now: Timestamp,
    ) {
        for object in &mut self.world.replicas {
            if let Some(status) = replicas.get(&identity(object.as_ref())) {
                Arc::make_mut(object).status = Some(status.clone());
            }
        }
        for object in &mut self.world.models {
            if let Some(status) = models.get(&identity(object.as_ref())) {
                Arc::make_mut(object).status = Some(status.clone());
            }
        }
        if let Some(status) = node {
            let mut object = SparkNode::new(self.node.as_str(), SparkNodeSpec::default());
            object.status = Some(status);
            self.stamp(&mut object.metadata, now);
            self.world.nodes = vec![Arc::new(object)];
        }
        // The agent lives in this process: each word of it is a heartbeat.
        let mut lease = Lease::default();
        lease.metadata.name = Some(self.node.as_str().to_owned());
        lease.spec.get_or_insert_default().holder_identity = Some(incarnation.to_owned());
        self.stamp(&mut lease.metadata, now);
        self.world.leases = vec![Arc::new(lease)];
    }

    /// Plans and applies until nothing changes. Returns the last plan.
    pub fn pass(&mut self, now: Timestamp) -> Plan {
        for _ in 1..PASSES_MAX {
            let plan = self.plan(now);
            if plan.actions.is_empty() {
                return self.finish(plan, now);
            }
            for action in &plan.actions {
                self.apply(action, now);
            }
        }
        let plan = self.plan(now);
        self.finish(plan, now)
    }

    /// Where each deployment's ready replicas answer.
    pub fn routes(&self) -> Vec<Route> {
        let routes = self.world.replicas.iter().filter_map(|replica| {
            let uid = replica.uid()?;
            let slice = self.world.slices.iter().find(|slice| service::is_owned(slice.as_ref(), &uid))?;
            let endpoint = slice.endpoints.first()?;
            let ready = endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(false);
            let port = slice.ports.iter().flatten().find_map(|port| port.port)?;
            ready.then_some(())?;
            Some(Route {
                served_names: replica.spec.served_names.clone(),
                address: endpoint.addresses.first()?.parse().ok()?,
                port: u16::try_from(port).ok()?,
            })
        });
        routes.collect()
    }

    fn plan(&mut self, now: Timestamp) -> Plan {
        self.heartbeats.observe(&self.world.leases, now);
        let context = Context {
            now,
            policy: &self.policy,
            heartbeats: &self.heartbeats,
            node_addresses: &self.node_addresses,
            held_back: &BTreeSet::new(),
        };
        sparkherd_planner::plan(&observe(&self.world, &context))
    }

    fn finish(&mut self, plan: Plan, now: Timestamp) -> Plan {
        for object in &mut self.world.deployments {
            let id = sparkherd_planner::DeploymentId::new(
                object.namespace().unwrap_or_default(),
                object.name_any(),
            );
            if let Some(report) = plan.report.get(&id) {
                let status = deployment_status(object, report, now);
                Arc::make_mut(object).status = Some(status);
            }
        }
        plan
    }

    fn apply(&mut self, action: &Action, now: Timestamp) {
        match action {
            Action::CreateModel { id, source, write } => {
                let mut object = model::new_model(id, source, write);
                self.stamp(&mut object.metadata, now);
                self.world.models.push(Arc::new(object));
            }
            Action::UpdateModel { id, uid, write } => {
                let wanted = model::new_model(id, "", write);
                if let Some(object) = by_uid(&mut self.world.models, uid) {
                    object.spec.cache_on = wanted.spec.cache_on;
                    object.spec.resolver = wanted.spec.resolver;
                    object.metadata.owner_references = wanted.metadata.owner_references;
                }
            }
            Action::DeleteModel { uid, .. } => {
                self.world.models.retain(|object| object.uid().as_ref() != Some(uid));
            }
            Action::CreateReplica(new) => {
                let mut object = replica::new_replica(new);
                self.stamp(&mut object.metadata, now);
                self.world.replicas.push(Arc::new(object));
            }
            Action::UpdateReplica { uid, write, .. } => {
                if let Some(object) = by_uid(&mut self.world.replicas, uid) {
                    replica::set_mutable(&mut object.spec, write);
                }
            }
            Action::DeleteReplica { uid, .. } => self.delete_replica(uid, now),
            Action::ReleaseReplica { uid, .. } => {
                if let Some(object) = by_uid(&mut self.world.replicas, uid) {
                    object.finalizers_mut().retain(|finalizer| finalizer != FINALIZER);
                }
                self.sweep();
            }
            Action::EnsureService { deployment, uid, expose } => {
                if let Some(mut object) = service::new_service(deployment, uid, *expose) {
                    object.metadata.namespace = Some(deployment.namespace().to_owned());
                    self.stamp(&mut object.metadata, now);
                    self.world.services.retain(|old| !is_same(old.as_ref(), &object));
                    self.world.services.push(Arc::<Service>::new(object));
                }
            }
            Action::SetEndpoint { replica, uid, node, address, port, ready, .. } => {
                let wanted = service::WantedEndpoint { node, address: *address, port: *port, ready: *ready };
                let Some(owner) =
                    self.world.replicas.iter().find(|object| object.uid().as_ref() == Some(uid))
                else {
                    return;
                };
                if let Some(mut object) = service::new_slice(replica, uid, owner, &wanted, None) {
                    object.metadata.namespace = Some(replica.namespace().to_owned());
                    self.stamp(&mut object.metadata, now);
                    self.world.slices.retain(|old| !is_same(old.as_ref(), &object));
                    self.world.slices.push(Arc::<EndpointSlice>::new(object));
                }
            }
        }
    }

    fn delete_replica(&mut self, uid: &str, now: Timestamp) {
        if let Some(object) = by_uid(&mut self.world.replicas, uid) {
            object.metadata.deletion_timestamp.get_or_insert(Time(now));
        }
        self.sweep();
    }

    /// Objects whose last owner has gone are deleted.
    fn collect_garbage(&mut self, now: Timestamp) {
        let living: BTreeSet<String> =
            self.world.deployments.iter().filter_map(|object| object.uid()).collect();
        let orphans: Vec<String> = self
            .world
            .replicas
            .iter()
            .filter(|object| is_orphan(object.as_ref(), &living))
            .filter_map(|object| object.uid())
            .collect();
        for uid in orphans {
            self.delete_replica(&uid, now);
        }
        self.world.models.retain(|object| !is_orphan(object.as_ref(), &living));
        self.world.services.retain(|object| !is_orphan(object.as_ref(), &living));
    }

    /// Deleted replicas without finalizers go, and their slices with them.
    fn sweep(&mut self) {
        self.world
            .replicas
            .retain(|object| object.metadata.deletion_timestamp.is_none() || !object.finalizers().is_empty());
        let living: BTreeSet<String> = self.world.replicas.iter().filter_map(|object| object.uid()).collect();
        self.world.slices.retain(|object| !is_orphan(object.as_ref(), &living));
    }

    /// A new version; and for a new object its uid and time.
    fn stamp(&mut self, metadata: &mut ObjectMeta, now: Timestamp) {
        self.version += 1;
        metadata.resource_version = Some(self.version.to_string());
        metadata.uid.get_or_insert_with(|| format!("local-{}", self.version));
        metadata.creation_timestamp.get_or_insert(Time(now));
    }
}

fn by_uid<'a, K: Resource + Clone>(objects: &'a mut [Arc<K>], uid: &str) -> Option<&'a mut K> {
    objects.iter_mut().find(|object| object.uid().as_deref() == Some(uid)).map(Arc::make_mut)
}

fn identity<K: Resource>(object: &K) -> (String, String, String) {
    (object.namespace().unwrap_or_default(), object.name_any(), object.uid().unwrap_or_default())
}

fn is_same<K: Resource>(a: &K, b: &K) -> bool {
    a.namespace() == b.namespace() && a.name_any() == b.name_any()
}

fn is_orphan<K: Resource>(object: &K, living: &BTreeSet<String>) -> bool {
    let owners = object.owner_references();
    !owners.is_empty() && owners.iter().all(|owner| !living.contains(&owner.uid))
}
