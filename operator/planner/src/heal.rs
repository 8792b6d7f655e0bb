//! Repairs what the planner would never make: replicas nobody owns, doubles, replicas on lost nodes, promises beyond what a
//! node has (rule 4).

use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;

use crate::capacity::Bytes;
use crate::pass::{Departure, Pass, is_published};
use crate::phase::{is_current, is_released, is_true};
use crate::reach::{age, later};
use crate::revision::replica_name;
use crate::snapshot::{Node, Replica, Run};
use crate::{Action, DeploymentId, NodeName, Reason, ReplicaId};

/// How long available memory must stay below half the reserve: shorter is noise, which is what the reserve is for.
const STARVED_AFTER: SignedDuration = SignedDuration::from_secs(60);

pub(crate) fn run(pass: &mut Pass<'_>) {
    release(pass);
    remove_orphans(pass);
    leave_lost_nodes(pass);
    remove_doubles(pass);
    relieve_nodes(pass);
}

/// Lets go of deleted replicas whose memory is back, or whose node is gone and with it the engine (I13).
fn release(pass: &mut Pass<'_>) {
    for (id, replica) in &pass.snapshot.replicas {
        let over = is_released(replica) || pass.reach.is_gone(pass.snapshot, replica);
        let deployment = DeploymentId::new(id.namespace(), &replica.deployment);
        if replica.deleting
            && replica.has_finalizer
            && over
            && !is_published(replica)
            && pass.may_act_for(&deployment)
        {
            let action = Action::ReleaseReplica {
                id: id.clone(),
                uid: replica.uid.clone(),
                resource_version: replica.resource_version.clone(),
            };
            pass.decisions.replica(id.clone(), action);
        }
    }
}

fn remove_orphans(pass: &mut Pass<'_>) {
    for (id, replica) in pass.census.orphans.clone() {
        if !replica.deleting {
            pass.take_down(id, replica, Departure::Delete(Reason::Draining));
        }
    }
}

fn leave_lost_nodes(pass: &mut Pass<'_>) {
    let owned: Vec<_> = pass.census.owned().collect();
    for (id, replica) in owned {
        if !replica.deleting && pass.reach.is_lost(pass.snapshot, replica) {
            pass.take_down(id, replica, Departure::Delete(Reason::NodeUnreachable));
        }
    }
}

/// Two objects for one revision on one node: the one with the proper name stays.
fn remove_doubles(pass: &mut Pass<'_>) {
    let mut seen: BTreeSet<(&DeploymentId, &str, &NodeName)> = BTreeSet::new();
    let mut owned: Vec<_> = pass
        .census
        .owned()
        .filter(|(_, replica)| !replica.deleting)
        .filter_map(|(id, replica)| {
            let deployment = DeploymentId::new(id.namespace(), &replica.deployment);
            let (key, owner) = pass.snapshot.deployments.get_key_value(&deployment)?;
            let proper = replica_name(&replica.deployment, &owner.uid, &replica.revision, &replica.node);
            Some((id.name() != proper, key, id, replica))
        })
        .collect();
    owned.sort_by_key(|(improper, _, id, _)| (*improper, *id));
    for (_, deployment, id, replica) in owned {
        if !seen.insert((deployment, &replica.revision, &replica.node)) {
            pass.take_down(id, replica, Departure::Delete(Reason::Draining));
        }
    }
}

/// Takes one replica off each node that is promised more than `total − reserve`, or that has been short of memory for too long.
/// Safety comes before `minAvailable` here: the alternative is a wedged host.
fn relieve_nodes(pass: &mut Pass<'_>) {
    let mut by_node: BTreeMap<&NodeName, Vec<(&ReplicaId, &Replica)>> = BTreeMap::new();
    for (id, replica) in &pass.snapshot.replicas {
        if !is_released(replica) {
            by_node.entry(&replica.node).or_default().push((id, replica));
        }
    }
    for (name, replicas) in by_node {
        let Some(node) = pass.snapshot.nodes.get(name) else { continue };
        if let Some(since) = node.starved_since {
            pass.recheck(later(since, STARVED_AFTER));
        }
        let starved = node.starved_since.is_some_and(|since| age(pass.snapshot.now, since) >= STARVED_AFTER);
        let leaving = replicas.iter().any(|(_, replica)| replica.deleting || replica.run == Run::Stop);
        if leaving || !(starved || is_over_promised(node, &replicas)) {
            continue;
        }
        let works = |replica: &Replica| is_current(replica) && is_true(replica.status.ready.as_ref());
        let victim = replicas
            .into_iter()
            .min_by_key(|(id, replica)| (works(replica), std::cmp::Reverse(replica.created_at), *id));
        if let Some((id, replica)) = victim {
            pass.take_down(id, replica, Departure::Delete(Reason::InsufficientMemory));
        }
    }
}

/// Whether the footprints on a node exceed `total − reserve` of a pool (I1).
pub(crate) fn is_over_promised(node: &Node, replicas: &[(&ReplicaId, &Replica)]) -> bool {
    let promised =
        replicas.iter().fold(Bytes::default(), |sum, (_, replica)| sum.plus(Bytes::of(&replica.footprint)));
    node.pools
        .iter()
        .any(|pool| promised.in_pool(pool.kind) > pool.total_bytes.saturating_sub(pool.reserve_bytes))
}
