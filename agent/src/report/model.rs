use sparkherd_checkpoint::Inspection;
use sparkherd_crds::{
    CopyState, Model, ModelFile, ModelNodeStatus, ModelResolved, ModelStatus, ResolveFailure,
};

use super::condition::{bounded, time};
use crate::bytes::readable;
use crate::store::{CopyFacts, ModelCopy, mismatch, reason};

/// What a Model asks of this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ModelRole {
    /// Finds out what the source is, and nobody has yet.
    pub resolves: bool,
    /// Keeps a copy: listed in `cacheOn` or `prefetchOn`, or a replica here serves it.
    pub caches: bool,
}

impl ModelRole {
    pub fn of(model: &Model, node: &str, served_here: bool) -> Self {
        let listed = |names: &[String]| names.iter().any(|name| name == node);
        let resolved = model.status.as_ref().is_some_and(|status| status.resolved.is_some());
        Self {
            resolves: model.spec.resolver.as_deref() == Some(node) && !resolved,
            caches: listed(&model.spec.cache_on) || listed(&model.spec.prefetch_on) || served_here,
        }
    }

    /// Whether the files are looked at at all.
    pub const fn looks(self) -> bool {
        self.resolves || self.caches
    }
}

/// What this node says of a Model: `resolved` where it is the resolver, and its own entry. `None`: nothing, and nothing to
/// take back.
///
/// `resolved` is written once: what stands in the object is repeated as it is by its resolver, because server-side apply
/// takes away what a manager stops sending.
pub fn model_status(
    model: &Model,
    node: &str,
    role: ModelRole,
    copy: Option<&ModelCopy>,
) -> Option<ModelStatus> {
    let standing = model.status.as_ref();
    let standing_entry = standing.and_then(|status| status.nodes.iter().find(|entry| entry.node == node));
    let standing_resolved = standing.and_then(|status| status.resolved.as_ref());
    let is_resolver = model.spec.resolver.as_deref() == Some(node);
    let facts = copy.map(ModelCopy::facts).filter(|_| role.looks());
    let found = match facts {
        Some(CopyFacts::Whole(inspection)) if is_resolver => Some(resolved(inspection)),
        _ => None,
    };
    let resolved = if is_resolver { standing_resolved.cloned().or(found) } else { None };
    let entry = match &facts {
        Some(facts) => {
            let digest = standing_resolved.or(resolved.as_ref()).map(|resolved| resolved.digest.as_str());
            let mut entry = entry(node, role, facts, digest);
            if standing_resolved.is_none() && !role.resolves {
                entry.resolve = standing_entry.and_then(|standing| standing.resolve.clone());
            }
            Some(entry)
        }
        // Whoever rotates the resolver must see that it failed here, until somebody has resolved it.
        None if standing_resolved.is_none() => standing_entry.cloned(),
        None => None,
    };
    if resolved.is_none() && entry.is_none() && standing_entry.is_none() {
        return None;
    }
    Some(ModelStatus { resolved, nodes: entry.into_iter().collect() })
}

fn resolved(inspection: &Inspection) -> ModelResolved {
    ModelResolved {
        // Files in place have no other revision than what they are.
        revision: inspection.digest.clone(),
        digest: inspection.digest.clone(),
        bytes: total_bytes(inspection),
        files: inspection
            .files
            .iter()
            .map(|file| ModelFile { name: file.name.clone(), bytes: file.bytes })
            .collect(),
        facts: inspection.facts.clone(),
    }
}

fn total_bytes(inspection: &Inspection) -> u64 {
    inspection.files.iter().fold(0, |sum, file| sum.saturating_add(file.bytes))
}

fn entry(node: &str, role: ModelRole, facts: &CopyFacts<'_>, digest: Option<&str>) -> ModelNodeStatus {
    let mut entry = ModelNodeStatus {
        node: node.to_owned(),
        state: CopyState::Verifying,
        digest: None,
        bytes_done: 0,
        bytes_total: 0,
        bytes_per_second: None,
        eta_seconds: None,
        message: "the headers are being read".to_owned(),
        resolve: None,
    };
    match facts {
        CopyFacts::Checking => {}
        CopyFacts::Whole(inspection) => {
            let bytes = total_bytes(inspection);
            entry.digest = Some(inspection.digest.clone());
            entry.bytes_done = bytes;
            entry.bytes_total = bytes;
            match digest {
                Some(digest) if digest != inspection.digest => {
                    entry.state = CopyState::Failed;
                    entry.message = format!("ChecksumMismatch: {}", mismatch(&inspection.digest, digest));
                }
                _ => {
                    entry.state = CopyState::Ready;
                    entry.message = format!(
                        "{} in {} files, served where they lie",
                        readable(bytes),
                        inspection.files.len()
                    );
                }
            }
        }
        CopyFacts::Failed { refusal, at } => {
            entry.state = CopyState::Failed;
            entry.message = bounded(&refusal.message);
            entry.resolve = role.resolves.then(|| ResolveFailure {
                reason: reason(refusal.reason).as_str().to_owned(),
                message: bounded(&refusal.message),
                at: time(*at),
            });
        }
    }
    entry
}

#[cfg(test)]
#[path = "model_tests.rs"]
mod tests;
