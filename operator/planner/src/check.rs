use std::collections::BTreeMap;
use std::fmt;

use crate::capacity::Bytes;
use crate::message::bytes;
use crate::pass::is_published;
use crate::phase::is_released;
use crate::revision::replica_name;
use crate::snapshot::{PoolKind, Replica, Run, Snapshot};
use crate::{DeploymentId, NodeName, ReplicaId};

/// A state that the planner never makes by itself. Tests assert that there is none, a metric counts them, `heal` repairs them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// I1: more is promised of a node's pool than it has beside the reserve.
    OverPromised { node: NodeName, pool: PoolKind, promised_bytes: u64, capacity_bytes: u64 },
    /// I2: a replica's name does not follow from its deployment, revision and node.
    Misnamed { replica: ReplicaId },
    /// I2: two replicas of one revision want to serve on one node.
    Doubled { first: ReplicaId, second: ReplicaId },
    /// I6: traffic can reach a replica that was told to stop.
    PublishedWhileStopped { replica: ReplicaId },
    /// I13: the object could vanish before its memory is back.
    Unguarded { replica: ReplicaId },
}

impl Violation {
    /// Number of the invariant, as a metric label.
    pub const fn invariant(&self) -> &'static str {
        match self {
            Self::OverPromised { .. } => "I1",
            Self::Misnamed { .. } | Self::Doubled { .. } => "I2",
            Self::PublishedWhileStopped { .. } => "I6",
            Self::Unguarded { .. } => "I13",
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OverPromised { node, pool, promised_bytes, capacity_bytes } => {
                let (promised, capacity) = (bytes(*promised_bytes), bytes(*capacity_bytes));
                write!(formatter, "{node} is promised {promised} of {capacity} ({pool:?})")
            }
            Self::Misnamed { replica } => write!(formatter, "{replica} has another replica's name"),
            Self::Doubled { first, second } => write!(formatter, "{first} and {second} are the same replica"),
            Self::PublishedWhileStopped { replica } => {
                write!(formatter, "{replica} is published and told to stop")
            }
            Self::Unguarded { replica } => write!(formatter, "{replica} has no finalizer"),
        }
    }
}

/// The planner's invariants, as code.
pub fn violations(snapshot: &Snapshot) -> Vec<Violation> {
    let mut found = over_promised(snapshot);
    let mut serving: BTreeMap<(Option<&String>, &str, &NodeName), &ReplicaId> = BTreeMap::new();
    for (id, replica) in &snapshot.replicas {
        found.extend(of_replica(snapshot, id, replica));
        if replica.deleting || replica.run == Run::Stop {
            continue;
        }
        let same = (replica.owner_uid.as_ref(), replica.revision.as_str(), &replica.node);
        if let Some(first) = serving.insert(same, id) {
            found.push(Violation::Doubled { first: first.clone(), second: id.clone() });
        }
    }
    found
}

fn of_replica(snapshot: &Snapshot, id: &ReplicaId, replica: &Replica) -> Vec<Violation> {
    let mut found = Vec::new();
    let owner = snapshot.deployments.get(&DeploymentId::new(id.namespace(), &replica.deployment));
    if let Some(owner) = owner.filter(|owner| replica.owner_uid.as_ref() == Some(&owner.uid)) {
        let proper = replica_name(&replica.deployment, &owner.uid, &replica.revision, &replica.node);
        if proper != id.name() {
            found.push(Violation::Misnamed { replica: id.clone() });
        }
    }
    if replica.run == Run::Stop && is_published(replica) {
        found.push(Violation::PublishedWhileStopped { replica: id.clone() });
    }
    if !replica.has_finalizer && !replica.deleting {
        found.push(Violation::Unguarded { replica: id.clone() });
    }
    found
}

fn over_promised(snapshot: &Snapshot) -> Vec<Violation> {
    let mut promised: BTreeMap<&NodeName, Bytes> = BTreeMap::new();
    for replica in snapshot.replicas.values().filter(|replica| !is_released(replica)) {
        let sum = promised.entry(&replica.node).or_default();
        *sum = sum.plus(Bytes::of(&replica.footprint));
    }
    let mut found = Vec::new();
    for (name, node) in &snapshot.nodes {
        let sum = promised.get(name).copied().unwrap_or_default();
        for pool in &node.pools {
            let (promised_bytes, capacity_bytes) =
                (sum.in_pool(pool.kind), pool.total_bytes.saturating_sub(pool.reserve_bytes));
            if promised_bytes > capacity_bytes {
                let (node, pool) = (name.clone(), pool.kind);
                found.push(Violation::OverPromised { node, pool, promised_bytes, capacity_bytes });
            }
        }
    }
    found
}
