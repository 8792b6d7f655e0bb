use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use futures::{StreamExt, pin_mut};
use kube::core::DeserializeGuard;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use sparkherd_crds::{Model, ModelReplica, SparkNode};
use tokio::sync::watch::Sender;

use crate::source::Desired;
use crate::wanted::{ModelKey, ReplicaKey};

/// The server ends a watch after this, so that a partition shows within a minute (K3).
const WATCH_SECONDS: u32 = 45;

/// After this many failures in a row the watcher is dropped and lists anew: it might ask for a version that is gone (K4).
const FAILURES_MAX: u32 = 5;

/// Before a new watcher takes the place of a failed one; its own back-off follows.
const NEW_WATCHER_PAUSE: Duration = Duration::from_secs(1);

/// Bits of what has been listed once; nothing is done before all are (K5).
const REPLICAS: u8 = 1;
const MODELS: u8 = 2;
const NODE: u8 = 4;
const ALL: u8 = REPLICAS | MODELS | NODE;

type Objects<K> = BTreeMap<(String, String), Arc<K>>;

/// Keeps `desired` as the API has it. Does not return.
pub async fn run(client: &Client, node: &str, desired: &Sender<Arc<Desired>>) {
    let listed = AtomicU8::new(0);
    let publish = |bit: u8, change: &dyn Fn(&mut Desired)| {
        let all = listed.fetch_or(bit, Ordering::Relaxed) | bit == ALL;
        desired.send_modify(|desired| {
            let desired = Arc::make_mut(desired);
            desired.synced = all;
            change(desired);
        });
    };
    let replicas = follow::<ModelReplica>(
        Api::all(client.clone()),
        watcher::Config::default().fields(&format!("spec.nodeName={node}")),
        |objects| publish(REPLICAS, &|desired| desired.replicas = replicas_by_key(objects)),
    );
    let models = follow::<Model>(Api::all(client.clone()), watcher::Config::default(), |objects| {
        publish(MODELS, &|desired| desired.models = models_by_key(objects));
    });
    let own_node = follow::<SparkNode>(
        Api::all(client.clone()),
        watcher::Config::default().fields(&format!("metadata.name={node}")),
        |objects| publish(NODE, &|desired| desired.node = objects.values().next().cloned()),
    );
    tokio::join!(replicas, models, own_node);
}

fn replicas_by_key(objects: &Objects<ModelReplica>) -> BTreeMap<ReplicaKey, Arc<ModelReplica>> {
    let key = |(namespace, name): &(String, String), uid| ReplicaKey {
        namespace: namespace.clone(),
        name: name.clone(),
        uid,
    };
    objects.iter().filter_map(|(id, object)| Some((key(id, object.uid()?), Arc::clone(object)))).collect()
}

fn models_by_key(objects: &Objects<Model>) -> BTreeMap<ModelKey, Arc<Model>> {
    let key = |(namespace, name): &(String, String), uid| ModelKey {
        namespace: namespace.clone(),
        name: name.clone(),
        uid,
    };
    objects.iter().filter_map(|(id, object)| Some((key(id, object.uid()?), Arc::clone(object)))).collect()
}

/// Lists and watches one kind for ever; `publish` gets all objects after each change. An object that does not parse is
/// logged and left out, and the others stay as they are (I12).
async fn follow<K>(api: Api<DeserializeGuard<K>>, config: watcher::Config, publish: impl Fn(&Objects<K>))
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    let config = config.timeout(WATCH_SECONDS);
    let mut objects = Objects::new();
    loop {
        let events = watcher(api.clone(), config.clone()).default_backoff();
        pin_mut!(events);
        let mut listing = Objects::new();
        let mut failures = 0;
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    failures = 0;
                    if take_in(event, &mut objects, &mut listing) {
                        publish(&objects);
                    }
                }
                Err(error) => {
                    failures += 1;
                    tracing::warn!(kind = %K::kind(&()), failures, %error, "watch failed");
                    if failures >= FAILURES_MAX {
                        break;
                    }
                }
            }
        }
        tokio::time::sleep(NEW_WATCHER_PAUSE).await;
    }
}

/// True when `objects` is a new whole. A list replaces everything at once; until it is complete the old one stands.
fn take_in<K>(event: Event<DeserializeGuard<K>>, objects: &mut Objects<K>, listing: &mut Objects<K>) -> bool
where
    K: Resource<DynamicType = ()> + Clone,
{
    match event {
        Event::Init => {
            listing.clear();
            false
        }
        Event::InitApply(object) => {
            insert(object, listing);
            false
        }
        Event::InitDone => {
            *objects = std::mem::take(listing);
            true
        }
        Event::Apply(object) => {
            insert(object, objects);
            true
        }
        Event::Delete(object) => {
            objects.remove(&id(object.meta()));
            true
        }
    }
}

fn insert<K: Resource<DynamicType = ()>>(object: DeserializeGuard<K>, objects: &mut Objects<K>) {
    let id = id(object.meta());
    match object.0 {
        Ok(object) => {
            objects.insert(id, Arc::new(object));
        }
        Err(error) => {
            tracing::error!(kind = %K::kind(&()), namespace = id.0, name = id.1, %error, "object does not parse, left out");
            objects.remove(&id);
        }
    }
}

fn id(meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> (String, String) {
    (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}
