//! When each agent was last heard, by the operator's own clock: an agent's clock may be wrong (I17).

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::ResourceExt;

use crate::pending::is_at_least;

/// The last change seen of each node's Lease.
#[derive(Clone, Debug, Default)]
pub struct Heartbeats {
    seen: BTreeMap<String, Seen>,
}

#[derive(Clone, Debug)]
struct Seen {
    resource_version: Option<String>,
    holder: Option<String>,
    at: Timestamp,
}

impl Heartbeats {
    /// Takes in the Leases as they stand. One seen for the first time counts as fresh, so a new operator gives every node
    /// the whole time-out before it judges.
    pub fn observe(&mut self, leases: &[Arc<Lease>], now: Timestamp) {
        for lease in leases {
            let resource_version = lease.resource_version();
            let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.clone());
            let name = lease.name_any();
            // Stores and fresh lists take turns here: an older version than the one seen is no heartbeat.
            let changed = self.seen.get(&name).is_none_or(|seen| {
                seen.resource_version != resource_version
                    && is_at_least(
                        resource_version.as_deref().unwrap_or_default(),
                        seen.resource_version.as_deref().unwrap_or_default(),
                    )
            });
            if changed {
                self.seen.insert(name, Seen { resource_version, holder, at: now });
            }
        }
        self.seen.retain(|name, _| leases.iter().any(|lease| lease.name_any() == *name));
    }

    pub(crate) fn at(&self, node: &str) -> Option<Timestamp> {
        self.seen.get(node).map(|seen| seen.at)
    }

    pub(crate) fn holder(&self, node: &str) -> Option<String> {
        self.seen.get(node).and_then(|seen| seen.holder.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(node: &str, version: &str, holder: &str) -> Arc<Lease> {
        let value = serde_json::json!({
            "metadata": {"name": node, "resourceVersion": version}, "spec": {"holderIdentity": holder},
        });
        Arc::new(serde_json::from_value(value).unwrap())
    }

    #[test]
    fn only_a_change_is_a_heartbeat() {
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let later: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
        let mut heartbeats = Heartbeats::default();
        heartbeats.observe(&[lease("spark-1", "5", "a")], start);
        heartbeats.observe(&[lease("spark-1", "5", "a")], later);
        assert_eq!(heartbeats.at("spark-1"), Some(start));
        heartbeats.observe(&[lease("spark-1", "6", "b")], later);
        assert_eq!(
            (heartbeats.at("spark-1"), heartbeats.holder("spark-1").as_deref()),
            (Some(later), Some("b"))
        );
        heartbeats.observe(&[lease("spark-1", "5", "a")], later);
        assert_eq!(heartbeats.holder("spark-1").as_deref(), Some("b"), "an older version says nothing");
        heartbeats.observe(&[], later);
        assert_eq!(heartbeats.at("spark-1"), None);
    }
}
