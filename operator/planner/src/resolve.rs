//! Models: one for each distinct source of a namespace, matched by source; which node resolves it; who owns it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use crate::cache::cache_on;
use crate::pass::Pass;
use crate::placement::matches;
use crate::reach::{age, later};
use crate::revision::model_name;
use crate::snapshot::{Deployment, Model, Owner, ResolveVerdict, Snapshot};
use crate::target::Blocked;
use crate::{Action, DeploymentId, ModelId, ModelWrite, NodeName, Reason};

/// Once every node has failed to resolve a source, the next one is asked after this: a hub that is down is not asked by the
/// whole lab at once.
const ROTATE_AFTER: SignedDuration = SignedDuration::from_secs(60);

/// Hex digits added to a Model's name where the first choice belongs to another source, in turn.
const WIDER_NAMES: [usize; 4] = [0, 10, 20, 40];

/// Models by source and by who uses them.
#[derive(Debug)]
pub(crate) struct Catalog<'a> {
    by_source: BTreeMap<(&'a str, &'a str), (&'a ModelId, &'a Model)>,
}

impl<'a> Catalog<'a> {
    /// A user's Model comes before our own for the same source, then the first by name.
    pub(crate) fn new(snapshot: &'a Snapshot) -> Self {
        let mut by_source: BTreeMap<(&str, &str), (&ModelId, &Model)> = BTreeMap::new();
        for (id, model) in snapshot.models.iter().filter(|(_, model)| !model.deleting) {
            by_source
                .entry((id.namespace(), &model.source))
                .and_modify(|known| {
                    if known.1.made_by_operator && !model.made_by_operator {
                        *known = (id, model);
                    }
                })
                .or_insert((id, model));
        }
        Self { by_source }
    }

    pub(crate) fn of(&self, namespace: &str, source: &str) -> Option<(&'a ModelId, &'a Model)> {
        self.by_source.get(&(namespace, source)).copied()
    }
}

/// Why a Model has no facts yet.
pub(crate) fn unresolved(model: &Model) -> Blocked {
    let verdicts = || {
        model.copies.iter().filter_map(|(node, copy)| copy.resolve.as_ref().map(|verdict| (node, verdict)))
    };
    let latest = |reason: Option<Reason>| {
        verdicts()
            .filter(|(_, verdict)| reason.is_none_or(|reason| verdict.reason == reason))
            .max_by_key(|(node, verdict)| (verdict.at, *node))
    };
    let asked = model.resolver.as_ref().map_or_else(
        || "waits for a Spark whose agent can read it".to_owned(),
        |node| format!("is being resolved by {node}"),
    );
    match latest(Some(Reason::UnsupportedModel)).or_else(|| latest(None)) {
        Some((node, verdict))
            if verdict.reason == Reason::UnsupportedModel || model.resolver.as_ref() == Some(node) =>
        {
            Blocked { reason: verdict.reason, message: format!("{}, says {node}", verdict.message) }
        }
        Some((node, verdict)) => Blocked {
            reason: verdict.reason,
            message: format!("{}, says {node}; {asked} is asked now", verdict.message),
        },
        None => Blocked { reason: Reason::Resolving, message: format!("{} {asked}", model.source) },
    }
}

/// What a Model is used for.
#[derive(Debug, Default)]
struct Use<'a> {
    deployments: BTreeMap<&'a DeploymentId, &'a Deployment>,
    nodes: BTreeSet<NodeName>,
}

/// Creates, updates and deletes Models.
pub(crate) fn run<'a>(pass: &mut Pass<'a>, catalog: &Catalog<'a>) {
    let (uses, missing) = uses(pass, catalog);
    for ((namespace, source), deployments) in missing {
        create(pass, namespace, source, &deployments);
    }
    let unused = Use::default();
    for (id, model) in &pass.snapshot.models {
        let of_this = uses.get(id).unwrap_or(&unused);
        let held = of_this.deployments.keys().any(|deployment| !pass.may_act_for(deployment));
        if model.deleting || held {
            continue;
        }
        let write = ModelWrite {
            owners: if model.made_by_operator { owners(&of_this.deployments) } else { BTreeSet::new() },
            resolver: resolver(pass, Some(model), &of_this.deployments),
            cache_on: cache_on(model, &of_this.nodes),
        };
        let is_wanted = !of_this.deployments.is_empty() || model.pin || !model.prefetch_on.is_empty();
        if model.made_by_operator && !is_wanted && of_this.nodes.is_empty() {
            let (uid, resource_version) = (model.uid.clone(), model.resource_version.clone());
            pass.decisions.other(Action::DeleteModel { id: id.clone(), uid, resource_version });
        } else if differs(model, &write) {
            pass.decisions.other(Action::UpdateModel { id: id.clone(), uid: model.uid.clone(), write });
        }
    }
}

type Missing<'a> = BTreeMap<(&'a str, &'a str), BTreeMap<&'a DeploymentId, &'a Deployment>>;

fn uses<'a>(pass: &Pass<'a>, catalog: &Catalog<'a>) -> (BTreeMap<ModelId, Use<'a>>, Missing<'a>) {
    let mut by_model: BTreeMap<ModelId, Use<'a>> = BTreeMap::new();
    let mut missing: Missing<'a> = BTreeMap::new();
    for (id, deployment) in &pass.snapshot.deployments {
        let Ok(spec) = &deployment.spec else { continue };
        if !deployment.deleting {
            match catalog.of(id.namespace(), &spec.model) {
                Some((model, _)) => {
                    by_model.entry(model.clone()).or_default().deployments.insert(id, deployment);
                }
                None => {
                    missing.entry((id.namespace(), &spec.model)).or_default().insert(id, deployment);
                }
            }
        }
    }
    for (id, replica) in &pass.snapshot.replicas {
        let used = by_model.entry(ModelId::new(id.namespace(), &replica.model.name)).or_default();
        used.nodes.insert(replica.node.clone());
        let owner =
            pass.snapshot.deployments.get_key_value(&DeploymentId::new(id.namespace(), &replica.deployment));
        if let Some((id, deployment)) =
            owner.filter(|(_, owner)| replica.owner_uid.as_ref() == Some(&owner.uid))
        {
            used.deployments.insert(id, deployment);
        }
    }
    for replica in pass.decisions.new_replicas() {
        let model = ModelId::new(replica.id.namespace(), &replica.model.name);
        by_model.entry(model).or_default().nodes.insert(replica.node.clone());
    }
    for (model, nodes) in &pass.fetch_to {
        by_model.entry(model.clone()).or_default().nodes.extend(nodes.iter().cloned());
    }
    (by_model, missing)
}

fn create(pass: &mut Pass<'_>, namespace: &str, source: &str, users: &BTreeMap<&DeploymentId, &Deployment>) {
    if users.keys().any(|deployment| !pass.may_act_for(deployment)) {
        return;
    }
    let names = WIDER_NAMES.map(|wider| ModelId::new(namespace, model_name(source, wider)));
    // A Model of ours that is on its way out keeps its name until it is gone.
    let leaving = |id: &ModelId| pass.snapshot.models.get(id).is_some_and(|model| model.source == source);
    let Some(id) = names.into_iter().find(|id| leaving(id) || !pass.snapshot.models.contains_key(id)) else {
        return;
    };
    if leaving(&id) {
        return;
    }
    let write = ModelWrite {
        owners: owners(users),
        resolver: resolver(pass, None, users),
        cache_on: BTreeSet::new(),
    };
    pass.decisions.other(Action::CreateModel { id, source: source.to_owned(), write });
}

fn owners(users: &BTreeMap<&DeploymentId, &Deployment>) -> BTreeSet<Owner> {
    users
        .iter()
        .map(|(id, deployment)| Owner { name: id.name().to_owned(), uid: deployment.uid.clone() })
        .collect()
}

/// Whether a Model is not as we want it; the owners of a user's Model are the user's business.
fn differs(model: &Model, write: &ModelWrite) -> bool {
    model.resolver != write.resolver
        || model.cache_on != write.cache_on
        || (model.made_by_operator && model.owners != write.owners)
}

/// The node that is to read the source. It stays until it says `Unresolvable`; then one that has not tried, then round
/// and round. A node that does not answer is replaced.
fn resolver(
    pass: &mut Pass<'_>,
    model: Option<&Model>,
    users: &BTreeMap<&DeploymentId, &Deployment>,
) -> Option<NodeName> {
    let current = model.and_then(|model| model.resolver.as_ref());
    if model.is_some_and(|model| model.resolved.is_some()) {
        return current.cloned();
    }
    let candidates = candidates(pass, model, users);
    let verdict = |node: &NodeName| {
        model
            .and_then(|model| model.copies.get(node))
            .and_then(|copy| copy.resolve.as_ref())
            .filter(|verdict| verdict.reason == Reason::Unresolvable)
    };
    let Some(current) = current.filter(|node| candidates.contains(node)) else {
        // With nobody to ask, the last choice stands: it costs a write to take it back.
        return candidates.first().cloned().or_else(|| current.cloned());
    };
    let Some(own) = verdict(current) else { return Some(current.clone()) };
    if let Some(untried) = candidates.iter().find(|node| verdict(node).is_none()) {
        return Some(untried.clone());
    }
    let (next, due) = rotation(&candidates, current, own, verdict);
    if candidates.len() > 1 {
        pass.recheck(due);
    }
    let is_due = age(pass.snapshot.now, own.at) >= ROTATE_AFTER && due <= pass.snapshot.now;
    Some(if is_due { next } else { current.clone() })
}

/// The node after the current one, and when it is its turn: never, while the current one has not spoken since the others.
fn rotation<'v>(
    candidates: &[NodeName],
    current: &NodeName,
    own: &ResolveVerdict,
    verdict: impl Fn(&NodeName) -> Option<&'v ResolveVerdict>,
) -> (NodeName, Timestamp) {
    let mut around = candidates.iter().skip_while(|node| *node != current).skip(1).chain(candidates);
    let next = around.next().unwrap_or(current).clone();
    let others_latest =
        candidates.iter().filter(|node| *node != current).filter_map(|node| Some(verdict(node)?.at)).max();
    let has_spoken_last = others_latest.is_none_or(|at| own.at >= at);
    (next, if has_spoken_last { later(own.at, ROTATE_AFTER) } else { Timestamp::MAX })
}

/// Nodes that can be asked, by name: those on which some user of the Model may run, or else any.
fn candidates(
    pass: &Pass<'_>,
    model: Option<&Model>,
    users: &BTreeMap<&DeploymentId, &Deployment>,
) -> Vec<NodeName> {
    let usable =
        || pass.snapshot.nodes.iter().filter(|(name, node)| node.ready && pass.reach.is_reachable(name));
    let is_prefetched = |name: &NodeName| model.is_some_and(|model| model.prefetch_on.contains(name));
    let preferred: Vec<NodeName> = usable()
        .filter(|(name, node)| {
            let wanted = |deployment: &&Deployment| {
                deployment.spec.as_ref().is_ok_and(|spec| matches(&spec.placement, name, node))
            };
            is_prefetched(name) || users.values().any(wanted)
        })
        .map(|(name, _)| name.clone())
        .collect();
    if preferred.is_empty() { usable().map(|(name, _)| name.clone()).collect() } else { preferred }
}
