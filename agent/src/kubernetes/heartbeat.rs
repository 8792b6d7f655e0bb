use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use sparkherd_crds::agent_manager;
use tokio::sync::watch::Sender;

use super::{Identity, limited};
use crate::health::Health;
use crate::metrics::Metrics;
use crate::source::Desired;

const RENEW_EVERY: Duration = Duration::from_secs(10);

/// After a failed renewal: three more tries fit before the operator calls the node unreachable.
const RETRY_AFTER: Duration = Duration::from_secs(3);

/// The operator calls a node unreachable after this; from then on this agent starts nothing new.
const STALE_AFTER: Duration = Duration::from_secs(40);

/// Renews the Lease while the agent's loop goes round. Does not return.
pub async fn run(
    client: &Client,
    identity: &Identity,
    health: &Health,
    metrics: &Metrics,
    desired: &Sender<Arc<Desired>>,
) {
    let leases: Api<Lease> = Api::namespaced(client.clone(), &identity.namespace);
    let acquired = Timestamp::now();
    let mut renewed_at: Option<Instant> = None;
    loop {
        let renewed = if health.is_alive() {
            renew(&leases, identity, metrics, acquired).await
        } else {
            tracing::error!("the loop hangs: no heartbeat");
            false
        };
        if renewed {
            renewed_at = Some(Instant::now());
        }
        let connected = renewed_at.is_some_and(|at| at.elapsed() < STALE_AFTER);
        desired.send_if_modified(|desired| {
            let changed = desired.connected != connected;
            if changed {
                tracing::info!(connected, "API server");
                Arc::make_mut(desired).connected = connected;
            }
            changed
        });
        tokio::time::sleep(if renewed { RENEW_EVERY } else { RETRY_AFTER }).await;
    }
}

async fn renew(leases: &Api<Lease>, identity: &Identity, metrics: &Metrics, acquired: Timestamp) -> bool {
    let micro = |at: Timestamp| format!("{at:.6}");
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": identity.node_name, "namespace": identity.namespace},
        "spec": {
            "holderIdentity": identity.incarnation,
            "leaseDurationSeconds": STALE_AFTER.as_secs(),
            "acquireTime": micro(acquired),
            "renewTime": micro(Timestamp::now()),
        },
    });
    let parameters = PatchParams::apply(&agent_manager(&identity.node_name)).force();
    let name = &identity.node_name;
    match limited(metrics, "renew lease", name, leases.patch(name, &parameters, &Patch::Apply(&lease))).await
    {
        Ok(_) => true,
        Err(error) => {
            tracing::warn!(%error, "heartbeat failed");
            false
        }
    }
}
