//! Plain values for tests.

use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;
use sparkherd_checkpoint::{Architecture, Dtype, Facts};

use crate::snapshot::{
    Access, CopyState, DeploymentSpec, Expose, Model, ModelCopy, Placement, Policy, ResolvedModel, Rollout,
    Strategy,
};

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
