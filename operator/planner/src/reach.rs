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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{at, node, replica, snapshot};
    use crate::snapshot::PoolKind;

    fn lab(silent_for: &[Option<i64>]) -> Snapshot {
        let nodes: Vec<(String, Node)> = silent_for
            .iter()
            .zip(1..)
            .map(|(seconds, index)| {
                let heartbeat_at = seconds.map(|seconds| at(-seconds));
                (format!("spark-{index}"), Node { heartbeat_at, ..node(&[PoolKind::Unified]) })
            })
            .collect();
        let borrowed: Vec<(&str, Node)> =
            nodes.iter().map(|(name, node)| (name.as_str(), node.clone())).collect();
        snapshot(&borrowed)
    }

    #[test]
    fn silence_makes_a_node_stale_and_then_lost() {
        // Seconds of silence; reachable; lost for a replica of a minute of age.
        for (silent_for, reachable, lost) in [
            (Some(-5), true, false),
            (Some(39), true, false),
            (Some(40), false, false),
            (Some(339), false, false),
            (Some(340), false, true),
            (None, false, false),
        ] {
            let snapshot = lab(&[silent_for]);
            let reach = Reach::new(&snapshot);
            assert_eq!(reach.is_reachable(&NodeName::new("spark-1")), reachable, "{silent_for:?}");
            assert_eq!(reach.is_lost(&snapshot, &replica(1, 0)), lost, "{silent_for:?}");
        }
    }

    #[test]
    fn most_nodes_silent_at_once_are_not_lost() {
        for (silent_for, expected) in [
            (vec![900, 900], false),
            (vec![900, 900, 1], true),
            (vec![900, 1, 1], false),
            (vec![900, 900, 1, 1], false),
        ] {
            let snapshot = lab(&silent_for.iter().copied().map(Some).collect::<Vec<_>>());
            let reach = Reach::new(&snapshot);
            assert_eq!(reach.most_stale(), expected, "{silent_for:?}");
            assert_eq!(reach.is_lost(&snapshot, &replica(1, 0)), !expected, "{silent_for:?}");
            assert!(reach.is_gone(&snapshot, &replica(1, 0)), "deletion finishes all the same (I13)");
        }
    }

    #[test]
    fn a_node_that_left_the_cluster_is_lost() {
        let snapshot = lab(&[]);
        assert!(Reach::new(&snapshot).is_lost(&snapshot, &replica(1, 0)));
    }
}
