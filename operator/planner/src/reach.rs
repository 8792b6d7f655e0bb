use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use crate::NodeName;
use crate::snapshot::{Node, Replica, Snapshot};

/// With fewer nodes than this, "most of them are stale" says nothing about ourselves.
const NODES_TO_SUSPECT_OURSELVES: usize = 3;

/// What we know of a node's agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contact {
    Reachable,
    /// No heartbeat in time, but within the grace.
    Stale,
    /// Silent for so long that its replicas are placed elsewhere.
    Lost,
}

/// Which nodes answer.
#[derive(Debug)]
pub(crate) struct Reach<'a> {
    contacts: BTreeMap<&'a NodeName, Contact>,
    /// Most nodes fell silent: more likely our own connection than all of theirs.
    most_stale: bool,
}

impl<'a> Reach<'a> {
    pub(crate) fn new(snapshot: &'a Snapshot) -> Self {
        let contacts: BTreeMap<_, _> =
            snapshot.nodes.iter().map(|(name, node)| (name, contact(snapshot, node))).collect();
        let stale = contacts.values().filter(|contact| **contact != Contact::Reachable).count();
        let most_stale = contacts.len() >= NODES_TO_SUSPECT_OURSELVES && stale * 2 > contacts.len();
        Self { contacts, most_stale }
    }

    pub(crate) fn is_reachable(&self, node: &NodeName) -> bool {
        self.contacts.get(node) == Some(&Contact::Reachable)
    }

    /// Whether nothing that ran there can be waited for any more. A node without a `SparkNode` has left the cluster; one
    /// that never sent a heartbeat is judged by the age of what was placed on it.
    pub(crate) fn is_gone(&self, snapshot: &Snapshot, replica: &Replica) -> bool {
        match self.contacts.get(&replica.node) {
            None | Some(Contact::Lost) => true,
            Some(Contact::Reachable) => false,
            Some(Contact::Stale) => {
                let never_seen =
                    snapshot.nodes.get(&replica.node).is_some_and(|node| node.heartbeat_at.is_none());
                never_seen && age(snapshot.now, replica.created_at) >= silence_until_lost(snapshot)
            }
        }
    }

    /// Whether a replica there is to be placed elsewhere: not while the silence may be ours.
    pub(crate) fn is_lost(&self, snapshot: &Snapshot, replica: &Replica) -> bool {
        !self.most_stale && self.is_gone(snapshot, replica)
    }

    pub(crate) const fn most_stale(&self) -> bool {
        self.most_stale
    }

    pub(crate) fn stale_count(&self) -> usize {
        self.contacts.values().filter(|contact| **contact != Contact::Reachable).count()
    }

    pub(crate) fn reachable(&self) -> BTreeMap<NodeName, bool> {
        self.contacts
            .iter()
            .map(|(name, contact)| ((*name).clone(), *contact == Contact::Reachable))
            .collect()
    }

    /// When a verdict above changes though nothing else happens.
    pub(crate) fn next_change(snapshot: &Snapshot) -> Option<Timestamp> {
        let stale_after = snapshot.policy.heartbeat_stale_after;
        let beats = snapshot.nodes.values().filter_map(|node| node.heartbeat_at);
        let unseen = snapshot
            .replicas
            .values()
            .filter(|replica| {
                snapshot.nodes.get(&replica.node).is_some_and(|node| node.heartbeat_at.is_none())
            })
            .map(|replica| replica.created_at);
        beats
            .clone()
            .map(|at| later(at, stale_after))
            .chain(beats.chain(unseen).map(|at| later(at, silence_until_lost(snapshot))))
            .filter(|at| *at > snapshot.now)
            .min()
    }
}

fn contact(snapshot: &Snapshot, node: &Node) -> Contact {
    let Some(heartbeat_at) = node.heartbeat_at else { return Contact::Stale };
    let silence = age(snapshot.now, heartbeat_at);
    if silence < snapshot.policy.heartbeat_stale_after {
        Contact::Reachable
    } else if silence < silence_until_lost(snapshot) {
        Contact::Stale
    } else {
        Contact::Lost
    }
}

fn silence_until_lost(snapshot: &Snapshot) -> SignedDuration {
    snapshot.policy.heartbeat_stale_after.saturating_add(snapshot.policy.node_lost_after)
}

/// Time since `then`; a moment of the future, which only skewed clocks make, is now.
pub(crate) fn age(now: Timestamp, then: Timestamp) -> SignedDuration {
    now.duration_since(then).max(SignedDuration::ZERO)
}

/// `at + wait`, or the end of time.
pub(crate) fn later(at: Timestamp, wait: SignedDuration) -> Timestamp {
    at.checked_add(wait).unwrap_or(Timestamp::MAX)
}
