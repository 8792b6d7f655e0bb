//! Snapshots that need not be reachable: everything the API server would let in, and clocks that are wrong.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use sparkherd_checkpoint::Requantize;
use sparkherd_footprint::{Footprint, KvDtype, Parts, Serving};
use sparkherd_planner::{
    Access, CopyState, Deployment, DeploymentId, Endpoint, Expose, Model, ModelCopy, ModelId, Node, NodeName,
    Refusal, Replica, ReplicaId, ReplicaModel, ReplicaStatus, Reported, ResolvedModel, Run, ServiceState,
    Snapshot, Strategy as RolloutStrategy, replica_name,
};

use crate::simulator::{Cluster, NAMESPACE, deployment_spec, facts, node};

const NODES: [&str; 3] = ["spark-1", "spark-2", "spark-3"];
const DEPLOYMENTS: [&str; 3] = ["alpha", "beta", "gamma"];
const REVISIONS: [&str; 3] = ["0", "1", "2"];
const SOURCES: [&str; 2] = ["hf://a/one", "file:///models/two"];
const GIB: u64 = 1 << 30;

fn moment() -> impl Strategy<Value = Timestamp> {
    (-700_i64..10).prop_map(|seconds| Timestamp::from_second(1_800_000_000 + seconds).unwrap())
}

fn reported() -> impl Strategy<Value = Option<Reported>> {
    option::of((any::<bool>(), moment()).prop_map(|(value, since)| Reported {
        value,
        reason: "Test".into(),
        message: String::new(),
        since,
    }))
}

fn nodes() -> impl Strategy<Value = BTreeMap<NodeName, Node>> {
    let one = (
        (any::<bool>(), any::<bool>(), prop::bool::weighted(0.9), prop::bool::weighted(0.9)),
        (option::of(moment()), option::of(moment()), 0_u64..130, 0_u64..200),
        (any::<bool>(), prop::bool::weighted(0.9), prop::bool::weighted(0.9)),
    );
    vec(option::of(one), NODES.len()).prop_map(|drawn| {
        let drawn = NODES.iter().zip(1_u8..).zip(drawn).filter_map(|(name, one)| Some((name, one?)));
        drawn
            .map(|((name, index), (flags, (heartbeat_at, starved_since, total, allocatable), more))| {
                let mut node = node(name, index, total, Timestamp::from_second(1_800_000_000).unwrap());
                (node.cordoned, node.memory_pressure) = (flags.0 && flags.1, flags.0 && !flags.1);
                (node.ready, node.driver_supported) = (flags.2, flags.3);
                (node.heartbeat_at, node.starved_since) = (heartbeat_at, starved_since.filter(|_| more.0));
                node.pools[0].allocatable_bytes = allocatable * GIB;
                node.address = node.address.filter(|_| more.1);
                node.platform = node.platform.filter(|_| more.2);
                (NodeName::new(*name), node)
            })
            .collect()
    })
}

fn deployments() -> impl Strategy<Value = BTreeMap<DeploymentId, Deployment>> {
    let one = (
        (0_u32..4, select(&SOURCES[..]), option::of(select(vec![0_u32, 512, 4096, 1 << 20, u32::MAX]))),
        (option::of(0_u32..4), any::<bool>(), prop::bool::weighted(0.1), prop::bool::weighted(0.1)),
        (prop::bool::weighted(0.1), 0_u8..3, option::of(0_u64..90), 0_u8..3),
    );
    vec(option::of(one), DEPLOYMENTS.len()).prop_map(|drawn| {
        let drawn = DEPLOYMENTS.iter().zip(drawn).filter_map(|(name, one)| Some((name, one?)));
        drawn
            .map(
                |(
                    name,
                    ((replicas, source, context), (min_available, spread, deleting, held_back), rest),
                )| {
                    let (is_invalid, service, memory_gib, strategy) = rest;
                    let mut spec = deployment_spec(name, source);
                    (spec.replicas, spec.context, spec.placement.spread) = (replicas, context, spread);
                    spec.memory_bytes = memory_gib.map(|gib| gib * GIB);
                    spec.rollout.min_available = min_available;
                    spec.rollout.strategy =
                        [RolloutStrategy::Auto, RolloutStrategy::Surge, RolloutStrategy::Swap]
                            [usize::from(strategy)];
                    let services = [
                        ServiceState::Absent,
                        ServiceState::Foreign,
                        ServiceState::Ours { expose: Expose::NodePort },
                    ];
                    let deployment = Deployment {
                        uid: format!("{name}-uid"),
                        generation: 1,
                        deleting,
                        held_back,
                        spec: if is_invalid { Err("no".into()) } else { Ok(spec) },
                        service: services[usize::from(service)].clone(),
                    };
                    (DeploymentId::new(NAMESPACE, *name), deployment)
                },
            )
            .collect()
    })
}

fn models() -> impl Strategy<Value = BTreeMap<ModelId, Model>> {
    let one = (
        (select(&SOURCES[..]), any::<bool>(), prop::bool::weighted(0.1), option::of(1_u64..90)),
        (option::of(select(&NODES[..])), vec(select(&NODES[..]), 0..3), vec(select(&NODES[..]), 0..3)),
    );
    vec(one, 0..4).prop_map(|drawn| {
        drawn
            .into_iter()
            .enumerate()
            .map(|(index, ((source, made_by_operator, deleting, weights), (resolver, cached, copied)))| {
                let copy = ModelCopy {
                    state: CopyState::Ready,
                    digest: Some("digest".into()),
                    bytes_done: 0,
                    bytes_total: 0,
                    message: String::new(),
                    resolve: None,
                };
                let model = Model {
                    uid: format!("model-{index}-uid"),
                    resource_version: "1".into(),
                    source: source.to_owned(),
                    made_by_operator,
                    deleting,
                    owners: BTreeSet::new(),
                    pin: false,
                    prefetch_on: BTreeSet::new(),
                    resolver: resolver.map(NodeName::new),
                    cache_on: cached.into_iter().map(NodeName::new).collect(),
                    resolved: weights.map(|gib| ResolvedModel {
                        revision: "main".into(),
                        digest: "digest".into(),
                        bytes: gib * GIB,
                        facts: facts(gib, 131_072),
                    }),
                    copies: copied.into_iter().map(|node| (NodeName::new(node), copy.clone())).collect(),
                };
                (ModelId::new(NAMESPACE, format!("model-{index}")), model)
            })
            .collect()
    })
}

fn status() -> impl Strategy<Value = ReplicaStatus> {
    (
        (0_u32..3, reported(), reported(), reported(), 0_u32..7),
        (option::of((moment(), 0_u64..130)), prop::bool::weighted(0.8), any::<bool>()),
    )
        .prop_map(|((attempt, weights_ready, ready, released, failures), (refusal, has_port, lives))| {
            ReplicaStatus {
                attempt,
                weights_ready,
                ready,
                released,
                failures,
                refusal: refusal.map(|(at, gib)| Refusal {
                    message: "no".into(),
                    at,
                    allocatable_bytes: gib * GIB,
                }),
                endpoint_port: has_port.then_some(8100),
                agent_incarnation: Some(if lives { "lives".into() } else { "died".into() }),
                ..ReplicaStatus::default()
            }
        })
}

fn replica() -> impl Strategy<Value = (ReplicaId, Replica)> {
    (
        (select(&NODES[..]), select(&DEPLOYMENTS[..]), select(&REVISIONS[..]), prop::bool::weighted(0.9)),
        (
            prop::bool::weighted(0.2),
            prop::bool::weighted(0.9),
            any::<bool>(),
            0_u32..3,
            prop::bool::weighted(0.9),
        ),
        (status(), moment(), option::of(any::<bool>()), 0_u64..90),
    )
        .prop_map(
            |((node, deployment, revision, is_proper), (deleting, guarded, serves, attempt, owned), rest)| {
                let (mut status, created_at, endpoint, gib) = rest;
                if status.agent_incarnation.as_deref() == Some("lives") {
                    status.agent_incarnation = Some(format!("{node}-1"));
                }
                let node = NodeName::new(node);
                let uid = format!("{deployment}-uid");
                let proper = replica_name(deployment, &uid, revision, &node);
                let name = if is_proper { proper } else { format!("{deployment}-odd-{attempt}") };
                let endpoint = endpoint.map(|ready| Endpoint {
                    address: Some([198, 18, 0, 1].into()),
                    port: 8100,
                    ready,
                });
                let replica = Replica {
                    uid: format!("{name}-uid"),
                    resource_version: "1".into(),
                    created_at,
                    deleting,
                    has_finalizer: guarded,
                    owner_uid: owned.then_some(uid),
                    node,
                    deployment: deployment.to_owned(),
                    revision: revision.to_owned(),
                    model: ReplicaModel {
                        name: "model-0".into(),
                        source: SOURCES[0].into(),
                        revision: "main".into(),
                        digest: "digest".into(),
                    },
                    serving: Serving {
                        context: 4096,
                        concurrency: 1,
                        kv_tokens: 4096,
                        kv_dtype: KvDtype::Bf16,
                        requantize: Requantize::None,
                    },
                    footprint: Footprint { device_bytes: gib * GIB, host_bytes: 0, parts: Parts::default() },
                    run: if serves { Run::Serve } else { Run::Stop },
                    attempt,
                    drain_seconds: 60,
                    access: Access::default(),
                    served_names: vec![],
                    status,
                    endpoint,
                };
                (ReplicaId::new(NAMESPACE, name), replica)
            },
        )
}

/// The revisions that replicas carry are those of their deployments' specs in about half the snapshots, so that records of
/// the wanted revision occur.
pub(crate) fn snapshot() -> impl Strategy<Value = Snapshot> {
    (nodes(), deployments(), models(), vec(replica(), 0..8), any::<bool>()).prop_map(
        |(nodes, deployments, models, replicas, wanted)| {
            let mut cluster = Cluster::new();
            cluster.snapshot.policy.node_lost_after = SignedDuration::from_secs(300);
            cluster.snapshot.nodes = nodes;
            cluster.snapshot.deployments = deployments;
            cluster.snapshot.models = models;
            cluster.snapshot.replicas = replicas.into_iter().collect();
            if wanted {
                adopt_wanted_revisions(&mut cluster.snapshot);
            }
            cluster.snapshot
        },
    )
}

/// Renames revision `0` of each deployment to the one its spec asks for, which a report does not tell but a creation in an
/// otherwise empty cluster does.
fn adopt_wanted_revisions(snapshot: &mut Snapshot) {
    let mut roomy = snapshot.clone();
    roomy.replicas.clear();
    roomy.nodes = NODES
        .iter()
        .zip(1_u8..)
        .map(|(name, index)| (NodeName::new(*name), node(name, index, 1 << 20, snapshot.now)))
        .collect();
    for deployment in roomy.deployments.values_mut() {
        (deployment.held_back, deployment.deleting) = (false, false);
        if let Ok(spec) = &mut deployment.spec {
            spec.replicas = 1;
        }
    }
    let wanted: BTreeMap<String, String> = sparkherd_planner::plan(&roomy)
        .actions
        .into_iter()
        .filter_map(|action| match action {
            sparkherd_planner::Action::CreateReplica(new) => {
                Some((new.deployment.name().to_owned(), new.revision.clone()))
            }
            _ => None,
        })
        .collect();
    let renamed = std::mem::take(&mut snapshot.replicas).into_iter().map(|(id, mut replica)| {
        if let Some(revision) = wanted.get(&replica.deployment).filter(|_| replica.revision == "0") {
            replica.revision.clone_from(revision);
            let uid = format!("{}-uid", replica.deployment);
            let name = replica_name(&replica.deployment, &uid, revision, &replica.node);
            return (ReplicaId::new(NAMESPACE, name), replica);
        }
        (id, replica)
    });
    snapshot.replicas = renamed.collect();
}
