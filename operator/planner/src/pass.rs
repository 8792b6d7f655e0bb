use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::access::merged;
use crate::action::{Action, NewReplica, ReplicaWrite};
use crate::capacity::Ledger;
use crate::reach::Reach;
use crate::snapshot::{DeploymentSpec, Replica, Run, Snapshot};
use crate::{DeploymentId, ModelId, NodeName, Reason, ReplicaId};

/// What one pass knows and has decided so far.
#[derive(Debug)]
pub(crate) struct Pass<'a> {
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) reach: Reach<'a>,
    pub(crate) ledger: Ledger<'a>,
    pub(crate) census: Census<'a>,
    pub(crate) decisions: Decisions,
    /// Nodes that need weights before a replica of them can be made there.
    pub(crate) fetch_to: BTreeMap<ModelId, BTreeSet<NodeName>>,
    pub(crate) recheck_at: Option<Timestamp>,
}

impl<'a> Pass<'a> {
    pub(crate) fn new(snapshot: &'a Snapshot) -> Self {
        Self {
            snapshot,
            reach: Reach::new(snapshot),
            ledger: Ledger::new(snapshot),
            census: Census::new(snapshot),
            decisions: Decisions::default(),
            fetch_to: BTreeMap::new(),
            recheck_at: Reach::next_change(snapshot),
        }
    }

    /// Asks for another pass at `at`, if that is still to come.
    pub(crate) fn recheck(&mut self, at: Timestamp) {
        if at > self.snapshot.now {
            self.recheck_at = Some(self.recheck_at.map_or(at, |earlier| earlier.min(at)));
        }
    }

    /// Whether our own writes to the deployment are all visible (rule 1).
    pub(crate) fn may_act_for(&self, deployment: &DeploymentId) -> bool {
        self.snapshot.deployments.get(deployment).is_none_or(|deployment| !deployment.held_back)
    }

    /// Takes a replica out: its endpoint first, and in a later pass, when that is seen done, the replica itself. At most one
    /// per deployment and pass. Whether anything was decided.
    pub(crate) fn take_down(&mut self, id: &ReplicaId, replica: &Replica, departure: Departure) -> bool {
        let deployment = DeploymentId::new(id.namespace(), &replica.deployment);
        if !self.may_act_for(&deployment) || self.decisions.is_decided(id) {
            return false;
        }
        if !self.decisions.spent.insert(deployment.clone()) {
            self.decisions.going.insert(id.clone());
            return false;
        }
        if is_published(replica) {
            self.decisions.withdrawn.insert(id.clone());
            return true;
        }
        let action = match departure {
            Departure::Stop => Action::UpdateReplica {
                id: id.clone(),
                uid: replica.uid.clone(),
                deployment,
                write: ReplicaWrite { run: Run::Stop, ..written(replica) },
            },
            Departure::Delete(reason) => Action::DeleteReplica {
                id: id.clone(),
                uid: replica.uid.clone(),
                resource_version: replica.resource_version.clone(),
                deployment,
                reason,
            },
        };
        self.decisions.replica(id.clone(), action);
        true
    }
}

/// Whether traffic can reach it through its `EndpointSlice`; one without an address routes nothing.
pub(crate) fn is_published(replica: &Replica) -> bool {
    replica.endpoint.as_ref().is_some_and(|endpoint| endpoint.ready && endpoint.address.is_some())
}

/// How a replica goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Departure {
    /// Stops and stays as the record of its revision.
    Stop,
    Delete(Reason),
}

/// The mutable part of a replica's spec as it stands.
pub(crate) fn written(replica: &Replica) -> ReplicaWrite {
    ReplicaWrite {
        run: replica.run,
        attempt: replica.attempt,
        drain_seconds: replica.drain_seconds,
        access: replica.access.clone(),
        served_names: replica.served_names.clone(),
    }
}

/// The mutable part as a deployment wants it.
pub(crate) fn wanted_write(
    snapshot: &Snapshot,
    spec: &DeploymentSpec,
    run: Run,
    attempt: u32,
) -> ReplicaWrite {
    ReplicaWrite {
        run,
        attempt,
        drain_seconds: spec.drain_seconds,
        access: merged(&snapshot.policy, &spec.access),
        served_names: spec.served_names.clone(),
    }
}

/// Replicas by the deployment that owns them.
#[derive(Debug)]
pub(crate) struct Census<'a> {
    owned: BTreeMap<&'a DeploymentId, Vec<(&'a ReplicaId, &'a Replica)>>,
    /// Replicas whose owner is gone, is another object of the same name, or was never named.
    pub(crate) orphans: Vec<(&'a ReplicaId, &'a Replica)>,
}

impl<'a> Census<'a> {
    fn new(snapshot: &'a Snapshot) -> Self {
        let mut owned: BTreeMap<&DeploymentId, Vec<_>> = BTreeMap::new();
        let mut orphans = Vec::new();
        for (id, replica) in &snapshot.replicas {
            let deployment = DeploymentId::new(id.namespace(), &replica.deployment);
            match snapshot.deployments.get_key_value(&deployment) {
                Some((key, deployment)) if replica.owner_uid.as_ref() == Some(&deployment.uid) => {
                    owned.entry(key).or_default().push((id, replica));
                }
                _ => orphans.push((id, replica)),
            }
        }
        Self { owned, orphans }
    }

    pub(crate) fn of(
        &self,
        deployment: &DeploymentId,
    ) -> impl Iterator<Item = (&'a ReplicaId, &'a Replica)> + use<'a, '_> {
        self.owned.get(deployment).into_iter().flatten().copied()
    }

    pub(crate) fn owned(&self) -> impl Iterator<Item = (&'a ReplicaId, &'a Replica)> + use<'a, '_> {
        self.owned.values().flatten().copied()
    }
}

/// What has been decided: one action for a replica at most.
#[derive(Debug, Default)]
pub(crate) struct Decisions {
    replicas: BTreeMap<ReplicaId, Action>,
    others: Vec<Action>,
    /// Replicas whose endpoints are to be unpublished because they are about to go.
    pub(crate) withdrawn: BTreeSet<ReplicaId>,
    /// Replicas that are to go too, in a later pass: not to be published again meanwhile.
    pub(crate) going: BTreeSet<ReplicaId>,
    /// Replicas that start in this pass, or would if their deployment were not held back.
    booked: BTreeSet<ReplicaId>,
    /// Deployments that have lost something in this pass.
    spent: BTreeSet<DeploymentId>,
}

impl Decisions {
    /// Keeps the first action on a replica.
    pub(crate) fn replica(&mut self, id: ReplicaId, action: Action) {
        self.replicas.entry(id).or_insert(action);
    }

    pub(crate) fn other(&mut self, action: Action) {
        self.others.push(action);
    }

    pub(crate) fn is_decided(&self, id: &ReplicaId) -> bool {
        self.replicas.contains_key(id) || self.withdrawn.contains(id)
    }

    pub(crate) fn book(&mut self, id: ReplicaId) {
        self.booked.insert(id);
    }

    pub(crate) fn is_booked(&self, id: &ReplicaId) -> bool {
        self.booked.contains(id)
    }

    pub(crate) fn new_replicas(&self) -> impl Iterator<Item = &NewReplica> {
        self.replicas.values().filter_map(|action| match action {
            Action::CreateReplica(replica) => Some(replica.as_ref()),
            _ => None,
        })
    }

    /// All actions in the order in which they are to be done: what withdraws before what removes, what makes room before
    /// what takes it, and what is published last.
    pub(crate) fn into_actions(self) -> Vec<Action> {
        let mut actions: Vec<Action> = self.others.into_iter().chain(self.replicas.into_values()).collect();
        actions.sort_by_key(rank);
        actions
    }
}

fn rank(action: &Action) -> u8 {
    match action {
        Action::SetEndpoint { ready: false, .. } => 0,
        Action::ReleaseReplica { .. } => 1,
        Action::DeleteReplica { .. } => 2,
        Action::UpdateReplica { write, .. } if write.run == Run::Stop => 3,
        Action::CreateModel { .. } => 4,
        Action::UpdateModel { .. } => 5,
        Action::EnsureService { .. } => 6,
        Action::UpdateReplica { .. } => 7,
        Action::CreateReplica(_) => 8,
        Action::SetEndpoint { .. } => 9,
        Action::DeleteModel { .. } => 10,
    }
}
