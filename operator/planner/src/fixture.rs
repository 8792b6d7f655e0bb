//! Plain values for tests.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use sparkherd_checkpoint::{Architecture, Dtype, Facts, Requantize};
use sparkherd_footprint::{Backend, Footprint, KvDtype, Parts, Platform, Serving};

use crate::NodeName;
use crate::snapshot::{
    Access, CopyState, DeploymentSpec, Expose, Model, ModelCopy, Node, Placement, Policy, Pool, PoolKind,
    Replica, ReplicaModel, ReplicaStatus, Reported, ResolvedModel, Rollout, Run, Snapshot, Store, Strategy,
};

pub(crate) const GIB: u64 = 1 << 30;

pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

pub(crate) fn snapshot(nodes: &[(&str, Node)]) -> Snapshot {
    Snapshot {
        now: at(0),
        policy: policy(),
        deployments: BTreeMap::new(),
        models: BTreeMap::new(),
        replicas: BTreeMap::new(),
        nodes: nodes.iter().map(|(name, node)| (NodeName::new(*name), node.clone())).collect(),
    }
}

/// A node with one pool of each kind given, of 100 GiB of which 90 are allocatable.
pub(crate) fn node(kinds: &[PoolKind]) -> Node {
    let pool =
        |kind| Pool { kind, total_bytes: 100 * GIB, allocatable_bytes: 90 * GIB, reserve_bytes: 10 * GIB };
    Node {
        uid: "node-uid".into(),
        labels: BTreeMap::new(),
        cordoned: false,
        drain: false,
        ready: true,
        driver_supported: true,
        memory_pressure: false,
        heartbeat_at: Some(at(0)),
        lease_incarnation: Some("life-1".into()),
        status_incarnation: Some("life-1".into()),
        address: Some([198, 18, 0, 1].into()),
        pools: kinds.iter().map(|kind| pool(*kind)).collect(),
        platform: Some(Platform {
            backend: Backend::Cpu,
            threads: 4,
            runtime_host_bytes: 1 << 26,
            runtime_device_bytes: 0,
        }),
        store: Store { total_bytes: 900 * GIB, free_bytes: 800 * GIB, evictable_bytes: 0 },
        starved_since: None,
    }
}

/// A replica that serves on `spark-1`, of which its agent has said nothing yet.
pub(crate) fn replica(device_gib: u64, host_gib: u64) -> Replica {
    Replica {
        uid: "replica-uid".into(),
        resource_version: "1".into(),
        created_at: at(-60),
        deleting: false,
        has_finalizer: true,
        owner_uid: Some("uid".into()),
        node: NodeName::new("spark-1"),
        deployment: "coder".into(),
        revision: "revision".into(),
        model: ReplicaModel {
            name: "model".into(),
            source: "hf://a/b".into(),
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
        footprint: Footprint {
            device_bytes: device_gib * GIB,
            host_bytes: host_gib * GIB,
            parts: Parts { weights_bytes: 2_000_000_000, ..Parts::default() },
        },
        run: Run::Serve,
        attempt: 1,
        drain_seconds: 60,
        access: Access::default(),
        served_names: vec![],
        status: ReplicaStatus {
            attempt: 1,
            agent_incarnation: Some("life-1".into()),
            ..ReplicaStatus::default()
        },
        endpoint: None,
    }
}

pub(crate) fn reported(value: bool, since: Timestamp) -> Reported {
    Reported { value, reason: "Test".into(), message: String::new(), since }
}

pub(crate) fn policy() -> Policy {
    Policy {
        heartbeat_stale_after: SignedDuration::from_secs(40),
        node_lost_after: SignedDuration::from_secs(300),
        key_hashes: vec![],
        allow_anonymous: false,
    }
}

pub(crate) fn spec(model: &str) -> DeploymentSpec {
    DeploymentSpec {
        model: model.into(),
        served_names: vec!["coder".into()],
        replicas: 1,
        context: None,
        concurrency: None,
        kv_tokens: None,
        kv_dtype: None,
        requantize: None,
        memory_bytes: None,
        placement: Placement { spread: true, ..Placement::default() },
        rollout: Rollout { strategy: Strategy::Auto, min_available: None, progress_deadline: None },
        drain_seconds: 60,
        access: Access::default(),
        expose: Expose::ClusterIp,
    }
}

pub(crate) fn facts() -> Facts {
    Facts {
        architecture: Architecture::Llama,
        dtype: Dtype::Bf16,
        parameters: 4 << 30,
        weight_bytes: 8 << 30,
        layers: 32,
        hidden_size: 4096,
        intermediate_size: 14_336,
        attention_heads: 32,
        kv_heads: 8,
        head_dim: 128,
        vocab_size: 128_256,
        max_context: 131_072,
        int8_weight_bytes: None,
        tokenizer_bytes: 9 << 20,
    }
}

pub(crate) fn model(source: &str) -> Model {
    Model {
        uid: "model-uid".into(),
        resource_version: "1".into(),
        source: source.into(),
        made_by_operator: true,
        deleting: false,
        owners: BTreeSet::new(),
        pin: false,
        prefetch_on: BTreeSet::new(),
        resolver: None,
        cache_on: BTreeSet::new(),
        resolved: Some(ResolvedModel {
            revision: "main".into(),
            digest: "digest".into(),
            bytes: 8 << 30,
            facts: facts(),
        }),
        copies: BTreeMap::new(),
    }
}

pub(crate) fn copy(state: CopyState) -> ModelCopy {
    ModelCopy {
        state,
        digest: Some("digest".into()),
        bytes_done: 0,
        bytes_total: 8 << 30,
        message: String::new(),
        resolve: None,
    }
}
