use std::collections::BTreeSet;

use crate::NodeName;
use crate::phase::has_copy;
use crate::snapshot::{CopyState, Model};

/// Nodes that are to hold a Model's weights: those that need them, but one alone until its copy is there, so that the lab
/// downloads once and the others take it from the first.
pub(crate) fn cache_on(model: &Model, needed: &BTreeSet<NodeName>) -> BTreeSet<NodeName> {
    let Some(resolved) = &model.resolved else { return BTreeSet::new() };
    let wanted: BTreeSet<NodeName> = needed.iter().chain(&model.prefetch_on).cloned().collect();
    if model.copies.keys().any(|node| has_copy(model, node, &resolved.digest)) {
        return wanted;
    }
    first(model, &wanted).into_iter().collect()
}

/// The one that goes first: who has begun, then who resolved it (and so has read its headers), then by name; one whose
/// download failed lets another try.
fn first(model: &Model, wanted: &BTreeSet<NodeName>) -> Option<NodeName> {
    let rank = |node: &NodeName| {
        let has_failed = model.copies.get(node).is_some_and(|copy| copy.state == CopyState::Failed);
        (has_failed, !model.cache_on.contains(node), model.resolver.as_ref() != Some(node))
    };
    wanted.iter().min_by_key(|node| (rank(node), *node)).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{copy, model};

    fn nodes(names: &[&str]) -> BTreeSet<NodeName> {
        names.iter().map(|name| NodeName::new(*name)).collect()
    }

    #[test]
    fn one_node_downloads_until_its_copy_is_ready() {
        let mut model = model("hf://a/b");
        model.resolver = Some(NodeName::new("spark-2"));
        let needed = nodes(&["spark-1", "spark-2", "spark-3"]);
        assert_eq!(cache_on(&model, &needed), nodes(&["spark-2"]));

        model.cache_on = nodes(&["spark-3"]);
        assert_eq!(cache_on(&model, &needed), nodes(&["spark-3"]), "who has begun goes on");

        model.copies.insert(NodeName::new("spark-3"), copy(CopyState::Failed));
        assert_eq!(cache_on(&model, &needed), nodes(&["spark-2"]), "a failed one lets another try");

        model.copies.insert(NodeName::new("spark-2"), copy(CopyState::Ready));
        assert_eq!(cache_on(&model, &needed), needed);
    }

    #[test]
    fn a_copy_of_other_weights_does_not_count() {
        let mut model = model("hf://a/b");
        let mut other = copy(CopyState::Ready);
        other.digest = Some("other".into());
        model.copies.insert(NodeName::new("spark-1"), other);
        assert_eq!(cache_on(&model, &nodes(&["spark-1", "spark-2"])).len(), 1);
    }

    #[test]
    fn nothing_is_fetched_before_it_is_resolved() {
        let mut model = model("hf://a/b");
        model.resolved = None;
        assert_eq!(cache_on(&model, &nodes(&["spark-1"])), nodes(&[]));
    }
}
