use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use sparkherd_checkpoint::{Architecture, Dtype, Facts};
use sparkherd_footprint::{Backend, Platform};
use sparkherd_planner::{
    Access, DeploymentSpec, Expose, KvDtypeChoice, Node, NodeName, Placement, Pool, PoolKind, Rollout, Store,
    Strategy,
};

const GIB: u64 = 1 << 30;

/// A model of the shape of Llama 8B with as many bytes of weights as a test asks for.
pub(crate) fn facts(weights_gib: u64, max_context: u32) -> Facts {
    Facts {
        architecture: Architecture::Llama,
        dtype: Dtype::Bf16,
        parameters: weights_gib * GIB / 2,
        weight_bytes: weights_gib * GIB,
        layers: 32,
        hidden_size: 4096,
        intermediate_size: 14_336,
        attention_heads: 32,
        kv_heads: 8,
        head_dim: 128,
        vocab_size: 128_256,
        max_context,
        int8_weight_bytes: None,
        tokenizer_bytes: 9 << 20,
    }
}

/// A Spark with this much memory, 10 GiB of it reserved, and an agent that has just reported.
pub(crate) fn node(name: &str, index: u8, total_gib: u64, now: Timestamp) -> Node {
    let incarnation = Some(format!("{name}-1"));
    Node {
        uid: format!("{name}-uid"),
        labels: BTreeMap::new(),
        cordoned: false,
        drain: false,
        ready: true,
        driver_supported: true,
        memory_pressure: false,
        heartbeat_at: Some(now),
        lease_incarnation: incarnation.clone(),
        status_incarnation: incarnation,
        address: Some([198, 18, 0, index].into()),
        pools: vec![Pool {
            kind: PoolKind::Unified,
            total_bytes: total_gib * GIB,
            allocatable_bytes: total_gib.saturating_sub(10) * GIB,
            reserve_bytes: 10 * GIB,
        }],
        platform: Some(Platform {
            backend: Backend::Cuda,
            threads: 20,
            runtime_host_bytes: 200 << 20,
            runtime_device_bytes: 500 << 20,
        }),
        store: Store { total_bytes: 900 * GIB, free_bytes: 800 * GIB, evictable_bytes: 0 },
        starved_since: None,
    }
}

pub(crate) fn deployment_spec(name: &str, model: &str) -> DeploymentSpec {
    DeploymentSpec {
        model: model.to_owned(),
        served_names: vec![name.to_owned()],
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

/// Sets one field of a spec from text; `-` unsets it.
pub(crate) fn set_field(spec: &mut DeploymentSpec, field: &str, text: &str) {
    let number = || (text != "-").then(|| text.parse::<u64>().unwrap());
    let small = || number().map(|value| u32::try_from(value).unwrap());
    match field {
        "model" => text.clone_into(&mut spec.model),
        "replicas" => spec.replicas = small().unwrap(),
        "context" => spec.context = small(),
        "concurrency" => spec.concurrency = small(),
        "kv-tokens" => spec.kv_tokens = number(),
        "kv-dtype" => {
            spec.kv_dtype = match text {
                "auto" => Some(KvDtypeChoice::Auto),
                "bf16" => Some(KvDtypeChoice::Bf16),
                "fp8" => Some(KvDtypeChoice::Fp8),
                _ => None,
            }
        }
        "memory-gib" => spec.memory_bytes = number().map(|gib| gib * GIB),
        "nodes" => {
            let names: BTreeSet<NodeName> =
                text.split(',').filter(|name| *name != "-").map(NodeName::new).collect();
            spec.placement.nodes = names;
        }
        "strategy" => {
            spec.rollout.strategy = match text {
                "Surge" => Strategy::Surge,
                "Swap" => Strategy::Swap,
                _ => Strategy::Auto,
            }
        }
        "min-available" => spec.rollout.min_available = small(),
        "deadline" => {
            spec.rollout.progress_deadline =
                number().map(|seconds| SignedDuration::from_secs(i64::try_from(seconds).unwrap()));
        }
        "drain" => spec.drain_seconds = small().unwrap(),
        "key" => spec.access.key_hashes = vec![text.to_owned()],
        _ => panic!("no field {field}"),
    }
}
