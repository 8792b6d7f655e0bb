//! Our own writes that the stores do not show yet (rule 1): planning a deployment on a cache that lags behind them would
//! decide twice.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use kube::{Resource, ResourceExt};
use sparkherd_planner::DeploymentId;

use crate::world::World;

/// Past this a fresh list settles the doubt.
const HOLD_MAX: SignedDuration = SignedDuration::from_secs(5);

/// What a store must show before the write counts as seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// The object with this uid at this resourceVersion or a later one, or gone again after that.
    Version { uid: String, resource_version: String },
    /// No object with this uid.
    Gone { uid: String },
}

#[derive(Clone, Debug)]
struct Write {
    deployments: BTreeSet<DeploymentId>,
    expected: Expected,
    at: Timestamp,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Pending {
    writes: Vec<Write>,
}

impl Pending {
    /// Remembers a write on behalf of these deployments.
    pub(crate) fn record(&mut self, deployments: BTreeSet<DeploymentId>, expected: Expected, now: Timestamp) {
        self.writes.push(Write { deployments, expected, at: now });
    }

    /// Forgets what the world shows.
    pub(crate) fn settle(&mut self, world: &World) {
        let versions = versions(world);
        self.writes.retain(|write| !is_seen(&write.expected, &versions));
    }

    /// Deployments with writes not seen yet.
    pub(crate) fn held_back(&self) -> BTreeSet<DeploymentId> {
        self.writes.iter().flat_map(|write| write.deployments.iter().cloned()).collect()
    }

    /// Whether some write has not been seen for so long that only a list can tell.
    pub(crate) fn is_overdue(&self, now: Timestamp) -> bool {
        self.writes.iter().any(|write| now.duration_since(write.at) >= HOLD_MAX)
    }

    /// Forgets writes that a consistent list does not show: their objects have gone or been replaced since, and no store
    /// will ever show them. Those it does show are kept until the stores have caught up.
    pub(crate) fn drop_superseded(&mut self, fresh: &World) {
        let versions = versions(fresh);
        self.writes.retain(|write| is_seen(&write.expected, &versions));
    }
}

fn versions(world: &World) -> BTreeMap<String, String> {
    fn add<K: Resource>(versions: &mut BTreeMap<String, String>, objects: &[std::sync::Arc<K>]) {
        for object in objects {
            if let (Some(uid), Some(version)) = (object.uid(), object.resource_version()) {
                versions.insert(uid, version);
            }
        }
    }
    let mut versions = BTreeMap::new();
    add(&mut versions, &world.models);
    add(&mut versions, &world.replicas);
    add(&mut versions, &world.services);
    add(&mut versions, &world.slices);
    versions
}

fn is_seen(expected: &Expected, versions: &BTreeMap<String, String>) -> bool {
    match expected {
        Expected::Gone { uid } => !versions.contains_key(uid),
        Expected::Version { uid, resource_version } => {
            versions.get(uid).is_some_and(|seen| is_at_least(seen, resource_version))
        }
    }
}

/// resourceVersions of one kind grow as numbers (Kubernetes promises so since 1.35, etcd always did); what is no number
/// is compared for equality, and the time-out covers the rest.
pub(crate) fn is_at_least(seen: &str, written: &str) -> bool {
    match (seen.parse::<u64>(), written.parse::<u64>()) {
        (Ok(seen), Ok(written)) => seen >= written,
        _ => seen == written,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::api::core::v1::Service;

    use super::*;

    fn world(uid: &str, version: &str) -> World {
        let value = serde_json::json!({"metadata": {"name": "x", "uid": uid, "resourceVersion": version}});
        let service: Service = serde_json::from_value(value).unwrap();
        World { services: vec![Arc::new(service)], ..World::default() }
    }

    #[test]
    fn a_write_holds_its_deployment_until_it_is_seen() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let coder = DeploymentId::new("lab", "coder");
        let mut pending = Pending::default();
        let expected = Expected::Version { uid: "u1".into(), resource_version: "10".into() };
        pending.record([coder.clone()].into(), expected, now);
        pending.settle(&world("u1", "9"));
        assert!(pending.held_back().contains(&coder));
        assert!(!pending.is_overdue(now));
        assert!(pending.is_overdue(now + SignedDuration::from_secs(5)));
        pending.settle(&world("u1", "100"));
        assert!(pending.held_back().is_empty());
    }

    #[test]
    fn a_list_tells_lagging_stores_from_writes_nobody_will_see() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let mut pending = Pending::default();
        let expected = |uid: &str| Expected::Version { uid: uid.into(), resource_version: "10".into() };
        pending.record([DeploymentId::new("lab", "deleted")].into(), expected("u1"), now);
        pending.record([DeploymentId::new("lab", "lagging")].into(), expected("u2"), now);
        pending.drop_superseded(&world("u2", "11"));
        assert_eq!(pending.held_back(), [DeploymentId::new("lab", "lagging")].into());
    }

    #[test]
    fn a_deletion_is_seen_when_the_uid_is_gone() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let mut pending = Pending::default();
        pending.record([DeploymentId::new("lab", "coder")].into(), Expected::Gone { uid: "u1".into() }, now);
        pending.settle(&world("u1", "12"));
        assert_eq!(pending.held_back().len(), 1);
        pending.settle(&world("u2", "12"));
        assert!(pending.held_back().is_empty());
    }
}
