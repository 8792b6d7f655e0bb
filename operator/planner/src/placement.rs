use std::collections::BTreeMap;

use sparkherd_footprint::Footprint;

use crate::capacity::{Bytes, Shortage};
use crate::course::is_worth_another_try;
use crate::pass::Pass;
use crate::phase::{has_failed, is_released};
use crate::revision::replica_name;
use crate::snapshot::{CopyState, Model, Node, Placement, Run};
use crate::target::Target;
use crate::{DeploymentId, NodeName, ReplicaId};

/// Whether the user lets a deployment run on a node.
pub(crate) fn matches(placement: &Placement, name: &NodeName, node: &Node) -> bool {
    (placement.nodes.is_empty() || placement.nodes.contains(name))
        && placement.node_selector.iter().all(|(label, value)| node.labels.get(label) == Some(value))
}

/// What speaks for or against one node.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Verdict {
    /// Room for the footprint, and what is left of the tightest pool after it.
    Fits {
        footprint: Footprint,
        left_bytes: u64,
    },
    Unreachable,
    NotReady,
    Cordoned,
    NotMatching,
    DriverUnsupported,
    MemoryPressure,
    NoFacts,
    Impossible {
        message: String,
    },
    Memory {
        footprint: Footprint,
        shortage: Shortage,
    },
    Disk {
        needed_bytes: u64,
        free_bytes: u64,
    },
    /// Runs this revision already.
    Occupied,
    /// Has a record of this revision that did not work there.
    FailedThere,
    /// Could not get the weights.
    CannotFetch {
        message: String,
    },
    /// The memory or the name is on its way back to us.
    Draining,
    /// Another engine starts there.
    Starting {
        by: ReplicaId,
    },
}

impl Verdict {
    /// Whether waiting a little changes it without anybody doing anything.
    pub(crate) const fn is_passing(&self) -> bool {
        matches!(self, Self::Draining | Self::Starting { .. })
    }
}

/// What is asked of a survey.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Query<'q, 'a> {
    pub(crate) id: &'q DeploymentId,
    pub(crate) uid: &'q str,
    pub(crate) placement: &'q Placement,
    pub(crate) target: &'q Target<'a>,
    /// Neither a record that failed there nor weights that could not be fetched speak against a node.
    pub(crate) try_failed: bool,
    /// Bytes of a replica on a node that would go first: a swap.
    pub(crate) instead_of: Option<(&'q NodeName, Bytes)>,
}

/// Every node's verdict.
pub(crate) fn survey(pass: &Pass<'_>, query: &Query<'_, '_>) -> BTreeMap<NodeName, Verdict> {
    pass.snapshot.nodes.iter().map(|(name, node)| (name.clone(), verdict(pass, query, name, node))).collect()
}

/// The node to take, with the footprint there: one whose fallback is being replaced, then one that has the weights, then one
/// without a replica of this deployment, then the tightest fit (which keeps the largest hole whole elsewhere), then by name.
pub(crate) fn best(
    pass: &Pass<'_>,
    query: &Query<'_, '_>,
    verdicts: &BTreeMap<NodeName, Verdict>,
) -> Option<(NodeName, Footprint)> {
    let ranked = verdicts.iter().filter_map(|(name, verdict)| {
        let Verdict::Fits { footprint, left_bytes } = verdict else { return None };
        let swapped_here =
            query.instead_of.is_some_and(|(node, _)| node == name) || has_fallback(pass, query, name);
        let crowded = query.placement.spread && has_sibling(pass, query, name);
        let rank = (!swapped_here, !likely_has_weights(query, name), crowded, *left_bytes, name);
        Some((rank, *footprint))
    });
    ranked.min_by(|left, right| left.0.cmp(&right.0)).map(|(rank, footprint)| (rank.4.clone(), footprint))
}

fn verdict(pass: &Pass<'_>, query: &Query<'_, '_>, name: &NodeName, node: &Node) -> Verdict {
    if let Some(unfit) = unfit(pass, query, name, node) {
        return unfit;
    }
    let Some(platform) = node.platform.as_ref().filter(|_| !node.pools.is_empty()) else {
        return Verdict::NoFacts;
    };
    // A record's footprint was set with it, whatever the platform has become since.
    let record = pass.snapshot.replicas.get(&replica_id(query, name)).map(|record| record.footprint);
    let footprint = match record.map_or_else(|| query.target.footprint_on(platform), Ok) {
        Ok(footprint) => footprint,
        Err(error) => return Verdict::Impossible { message: error.to_string() },
    };
    if let Some(existing) = existing(pass, query, name) {
        return existing;
    }
    let need = Bytes::of(&footprint);
    let credit =
        query.instead_of.filter(|(node, _)| *node == name).map_or_else(Bytes::default, |(_, bytes)| bytes);
    let left_bytes = match pass.ledger.fit(name, query.id, need, credit) {
        Ok(left_bytes) => left_bytes,
        Err(shortage) => {
            let leaving = credit.plus(leaving(pass, query, name));
            return match pass.ledger.fit(name, query.id, need, leaving) {
                Ok(_) if leaving != credit => Verdict::Draining,
                _ => Verdict::Memory { footprint, shortage },
            };
        }
    };
    if let Some(weights) = lacks_weights(query, name, node) {
        return weights;
    }
    // A swap waits for its turn after the old engine has gone, so only a start that would happen now is held up.
    match pass.ledger.starting(name).filter(|_| query.instead_of.is_none()) {
        Some(by) => Verdict::Starting { by: by.clone() },
        None => Verdict::Fits { footprint, left_bytes },
    }
}

/// What speaks against a node whatever its memory.
fn unfit(pass: &Pass<'_>, query: &Query<'_, '_>, name: &NodeName, node: &Node) -> Option<Verdict> {
    if !matches(query.placement, name, node) {
        Some(Verdict::NotMatching)
    } else if !pass.reach.is_reachable(name) {
        Some(Verdict::Unreachable)
    } else if node.cordoned || node.drain {
        Some(Verdict::Cordoned)
    } else if !node.driver_supported {
        Some(Verdict::DriverUnsupported)
    } else if !node.ready {
        Some(Verdict::NotReady)
    } else if node.memory_pressure {
        Some(Verdict::MemoryPressure)
    } else {
        None
    }
}

/// What the object says that already has the name of this revision on this node.
fn existing(pass: &Pass<'_>, query: &Query<'_, '_>, node: &NodeName) -> Option<Verdict> {
    let id = replica_id(query, node);
    if pass.decisions.is_booked(&id) {
        return Some(Verdict::Occupied);
    }
    let replica = pass.snapshot.replicas.get(&id)?;
    if replica.deleting || replica.owner_uid.as_deref() != Some(query.uid) || pass.decisions.is_decided(&id) {
        Some(Verdict::Draining)
    } else if replica.run == Run::Serve {
        Some(Verdict::Occupied)
    } else if !is_released(replica) {
        Some(Verdict::Draining)
    } else if has_failed(replica) && !query.try_failed && !is_worth_another_try(pass.snapshot, replica) {
        Some(Verdict::FailedThere)
    } else {
        None
    }
}

/// Identity of the only replica of the target on a node.
pub(crate) fn replica_id(query: &Query<'_, '_>, node: &NodeName) -> ReplicaId {
    let name = replica_name(query.id.name(), query.uid, &query.target.revision, node);
    ReplicaId::new(query.id.namespace(), name)
}

/// Bytes that the same deployment's leaving replicas on a node will give back.
fn leaving(pass: &Pass<'_>, query: &Query<'_, '_>, node: &NodeName) -> Bytes {
    pass.census
        .of(query.id)
        .filter(|(_, replica)| replica.node == *node && (replica.deleting || replica.run == Run::Stop))
        .filter(|(_, replica)| !is_released(replica))
        .fold(Bytes::default(), |sum, (_, replica)| sum.plus(Bytes::of(&replica.footprint)))
}

fn has_fallback(pass: &Pass<'_>, query: &Query<'_, '_>, node: &NodeName) -> bool {
    pass.census.of(query.id).any(|(_, replica)| {
        replica.node == *node
            && !replica.deleting
            && replica.run == Run::Stop
            && replica.revision != query.target.revision
    })
}

fn has_sibling(pass: &Pass<'_>, query: &Query<'_, '_>, node: &NodeName) -> bool {
    pass.census
        .of(query.id)
        .any(|(_, replica)| replica.node == *node && !replica.deleting && replica.run == Run::Serve)
}

/// Weights that are not on the node must be there for the fetching, and find room on its disk. `file://` sources are read
/// where they lie.
fn lacks_weights(query: &Query<'_, '_>, name: &NodeName, node: &Node) -> Option<Verdict> {
    let model = query.target.weights?;
    let resolved = model.resolved.as_ref()?;
    if query.target.has_weights_on(name) {
        return None;
    }
    if let Some(message) = cannot_fetch(model, name).filter(|_| !query.try_failed) {
        return Some(Verdict::CannotFetch { message: message.to_owned() });
    }
    if is_local(model) {
        return None;
    }
    let copy = model.copies.get(name).filter(|copy| copy.state != CopyState::Failed);
    let needed_bytes = resolved.bytes.saturating_sub(copy.map_or(0, |copy| copy.bytes_done));
    let free_bytes = node.store.free_bytes.saturating_add(node.store.evictable_bytes);
    (needed_bytes > free_bytes).then_some(Verdict::Disk { needed_bytes, free_bytes })
}

/// Why a node's last try to get the weights, or to find files that only it could have, came to nothing.
pub(crate) fn cannot_fetch<'m>(model: &'m Model, node: &NodeName) -> Option<&'m str> {
    let copy = model.copies.get(node)?;
    match &copy.resolve {
        _ if copy.state == CopyState::Failed => Some(&copy.message),
        Some(verdict) if is_local(model) && copy.state == CopyState::Absent => Some(&verdict.message),
        _ => None,
    }
}

/// Whether the source names files of each node rather than a place all can download from.
fn is_local(model: &Model) -> bool {
    model.source.starts_with("file://")
}

/// A verified copy, or files that the resolver has read where they lie.
fn likely_has_weights(query: &Query<'_, '_>, node: &NodeName) -> bool {
    let resolver =
        query.target.weights.filter(|model| is_local(model)).and_then(|model| model.resolver.as_ref());
    query.target.has_weights_on(node) || resolver == Some(node)
}
