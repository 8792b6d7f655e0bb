use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use kube::ResourceExt;
use sparkherd_crds::agent_manager;
use tokio::sync::watch::Receiver;

use super::apply::Applier;
use super::{Identity, KubernetesError, node};
use crate::metrics::Metrics;
use crate::record::doubled;
use crate::source::{Desired, Observed};

const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_LONGEST: Duration = Duration::from_secs(30);

/// What has been written, and to which `SparkNode`.
#[derive(Debug, Default)]
struct Written {
    observed: Observed,
    node_uid: Option<String>,
}

/// Writes what has changed, until the agent has ended and its last words are written or have failed once.
pub async fn run(
    client: &Client,
    identity: &Identity,
    mut desired: Receiver<Arc<Desired>>,
    mut observed: Receiver<Arc<Observed>>,
    metrics: &Metrics,
) {
    let manager = agent_manager(&identity.node_name);
    let applier = Applier { client, manager: &manager, metrics };
    let mut written = Written::default();
    let mut failures = 0;
    loop {
        let (said, world) =
            (Arc::clone(&observed.borrow_and_update()), Arc::clone(&desired.borrow_and_update()));
        let whole = write(&applier, identity, &said, &world, &mut written).await;
        failures = if whole { 0 } else { failures + 1 };
        let retry = async {
            if whole {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(jittered(doubled(RETRY_FIRST, RETRY_LONGEST, failures))).await;
        };
        tokio::select! {
            changed = observed.changed(), if whole => if changed.is_err() { return },
            changed = desired.changed(), if whole => if changed.is_err() { return },
            () = retry => if observed.has_changed().is_err() { return },
        }
    }
}

/// Between half and all of the pause, so that agents that failed together do not come back together.
fn jittered(pause: Duration) -> Duration {
    let share = u32::try_from(RandomState::new().hash_one(pause) % 1000).unwrap_or(0);
    pause / 2 + pause / 2 * share / 1000
}

/// True if everything is as said. One failure does not keep the others from being written.
async fn write(
    applier: &Applier<'_>,
    identity: &Identity,
    said: &Observed,
    world: &Desired,
    written: &mut Written,
) -> bool {
    let mut whole = true;
    written.observed.replicas.retain(|key, _| said.replicas.contains_key(key));
    written.observed.models.retain(|key, _| said.models.contains_key(key));
    for (key, status) in &said.replicas {
        if written.observed.replicas.get(key) != Some(status) {
            let done = settled(applier.replica(key, status).await);
            whole &= done;
            if done {
                written.observed.replicas.insert(key.clone(), status.clone());
            }
        }
    }
    for (key, status) in &said.models {
        let Some(standing) = world.models.get(key) else { continue };
        if written.observed.models.get(key) != Some(status) {
            let done = settled(applier.model(key, standing, status).await);
            whole &= done;
            if done {
                written.observed.models.insert(key.clone(), status.clone());
            }
        }
    }
    whole & write_node(applier, identity, said, world, written).await
}

async fn write_node(
    applier: &Applier<'_>,
    identity: &Identity,
    said: &Observed,
    world: &Desired,
    written: &mut Written,
) -> bool {
    let Some(status) = said.node.as_ref().filter(|_| world.synced) else { return true };
    let Some(uid) = world.node.as_ref().and_then(|node| node.uid()) else {
        return settled(node::create(applier.client, identity, status, applier.metrics).await);
    };
    if written.observed.node.as_ref() == Some(status) && written.node_uid.as_ref() == Some(&uid) {
        return true;
    }
    let done = settled(applier.node(&identity.node_name, &uid, status).await);
    if done {
        written.observed.node = Some(status.clone());
        written.node_uid = Some(uid);
    }
    done
}

/// True if there is nothing left to do: written, or gone.
fn settled(result: Result<(), KubernetesError>) -> bool {
    match result {
        Ok(()) => true,
        Err(error) if error.code() == Some(404) => true,
        Err(error) => {
            tracing::warn!(%error, "write failed");
            false
        }
    }
}
