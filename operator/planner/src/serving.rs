use sparkherd_checkpoint::Facts;
use sparkherd_footprint::{
    Footprint, FootprintError, KvDtype, Platform, Serving, context_candidates, plan, serving_default,
    serving_for_memory_cap, whole_blocks,
};

use crate::capacity::Bytes;
use crate::placement::matches;
use crate::snapshot::{DeploymentSpec, KvDtypeChoice, Node, Snapshot};
use crate::target::Blocked;
use crate::{DeploymentId, Reason};

/// Sequences decoded together where the user did not say (api.md).
const CONCURRENCY_DEFAULT: u32 = 16;

/// Room left beside the engine when a context is chosen: a second small engine or other people's work still fits.
const SPARE_BYTES_MIN: u64 = 1 << 30;
/// The same for large pools, as a share: 4 % of total.
const SPARE_DIVISOR: u64 = 25;

/// Settings of a revision that has no record yet: a function of model and hardware, not of today's load.
pub(crate) fn choose(
    snapshot: &Snapshot,
    id: &DeploymentId,
    spec: &DeploymentSpec,
    facts: &Facts,
) -> Result<Serving, Blocked> {
    let nodes: Vec<(&Node, &Platform)> = snapshot
        .nodes
        .iter()
        .filter(|(name, node)| matches(&spec.placement, name, node))
        .filter_map(|(_, node)| Some((node, node.platform.as_ref()?)))
        .collect();
    if nodes.is_empty() {
        return Err(Blocked { reason: Reason::NoMatchingNode, message: no_node(snapshot, id, spec) });
    }
    let chosen = match spec.context {
        Some(context) => with_context(spec, facts, context, &nodes),
        None => largest_that_fits(spec, facts, &nodes),
    };
    chosen.map_err(|error| Blocked { reason: Reason::Invalid, message: error.to_string() })
}

fn no_node(snapshot: &Snapshot, id: &DeploymentId, spec: &DeploymentSpec) -> String {
    let matching = snapshot.nodes.iter().filter(|(name, node)| matches(&spec.placement, name, node)).count();
    match (snapshot.nodes.len(), matching) {
        (0, _) => "no SparkNode exists: no agent has reported yet".to_owned(),
        (all, 0) => format!("none of {all} nodes matches the placement of {}", id.name()),
        (_, some) => format!("{some} matching nodes have not reported their hardware yet"),
    }
}

/// The largest candidate that leaves some room on as many nodes as there are replicas; the smallest if none does.
fn largest_that_fits(
    spec: &DeploymentSpec,
    facts: &Facts,
    nodes: &[(&Node, &Platform)],
) -> Result<Serving, FootprintError> {
    let enough = usize::try_from(spec.replicas).unwrap_or(usize::MAX).clamp(1, nodes.len());
    let mut last = Err(FootprintError::Context { context: 0, context_max: facts.max_context });
    for context in context_candidates(facts) {
        last = with_context(spec, facts, context, nodes);
        let Ok(serving) = &last else { continue };
        let fitting = nodes
            .iter()
            .filter(|(node, platform)| {
                plan(facts, serving, platform).is_ok_and(|footprint| fits_empty(node, &footprint))
            })
            .count();
        if fitting >= enough {
            break;
        }
    }
    last
}

/// Whether a node that runs nothing else has room and some to spare.
fn fits_empty(node: &Node, footprint: &Footprint) -> bool {
    !node.pools.is_empty()
        && node.pools.iter().all(|pool| {
            let spare = SPARE_BYTES_MIN.max(pool.total_bytes / SPARE_DIVISOR);
            let room = pool.total_bytes.saturating_sub(pool.reserve_bytes).saturating_sub(spare);
            Bytes::of(footprint).in_pool(pool.kind) <= room
        })
}

/// Settings for one context. Under a memory cap the platform decides what the pool gets, and the revision takes what is left
/// on the tightest, so that one engine's settings hold on every node.
fn with_context(
    spec: &DeploymentSpec,
    facts: &Facts,
    context: u32,
    nodes: &[(&Node, &Platform)],
) -> Result<Serving, FootprintError> {
    let mut serving = serving_default(facts, context, spec.concurrency.unwrap_or(CONCURRENCY_DEFAULT));
    match spec.kv_dtype {
        Some(KvDtypeChoice::Bf16) => serving.kv_dtype = KvDtype::Bf16,
        Some(KvDtypeChoice::Fp8) => serving.kv_dtype = KvDtype::Fp8,
        Some(KvDtypeChoice::Auto) | None => {}
    }
    serving.requantize = spec.requantize.unwrap_or_default();
    if let Some(tokens) = spec.kv_tokens {
        serving.kv_tokens = whole_blocks(tokens);
    }
    if let Some(memory_bytes) = spec.memory_bytes {
        let capped: Result<Vec<Serving>, FootprintError> = nodes
            .iter()
            .map(|(_, platform)| serving_for_memory_cap(facts, &serving, platform, memory_bytes))
            .collect();
        let least = capped?.into_iter().map(|serving| serving.kv_tokens).min();
        let asked = spec.kv_tokens.map(whole_blocks);
        serving.kv_tokens = least.into_iter().chain(asked).min().unwrap_or(serving.kv_tokens);
    }
    match nodes.first() {
        Some((_, platform)) => plan(facts, &serving, platform).map(|_| serving),
        None => Ok(serving),
    }
}
