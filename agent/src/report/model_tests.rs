use serde_json::json;
use sparkherd_checkpoint::{InspectionOutcome, Refusal, RefusalReason};
use sparkherd_crds::{CopyState, Model};

use super::{ModelRole, model_status};
use crate::fixture::{inspection, located, moment};
use crate::store::ModelCopy;

fn model(resolver: &str, cache_on: &[&str]) -> Model {
    serde_json::from_value(json!({
        "apiVersion": "sparkherd.dev/v1alpha1",
        "kind": "Model",
        "metadata": {"name": "m", "namespace": "lab", "uid": "u"},
        "spec": {"source": "file:///m", "resolver": resolver, "cacheOn": cache_on},
    }))
    .unwrap()
}

fn copy(outcome: InspectionOutcome) -> ModelCopy {
    let root = tempfile::tempdir().unwrap();
    let located = located(&root, "{}");
    let mut copy = ModelCopy::default();
    copy.looked(Ok(located.clone()), moment(0));
    copy.inspected(located, outcome, moment(1));
    copy
}

#[test]
fn the_resolver_says_what_it_is_and_never_says_otherwise() {
    let mut object = model("here", &[]);
    let whole = copy(InspectionOutcome::Inspection(inspection("d1")));
    let role = ModelRole::of(&object, "here", false);
    assert_eq!(role, ModelRole { resolves: true, caches: false });
    let status = model_status(&object, "here", role, Some(&whole)).unwrap();
    assert_eq!(status.resolved.as_ref().unwrap().digest, "d1");
    assert_eq!((status.nodes.len(), status.nodes[0].state), (1, CopyState::Ready));

    object.status = Some(status.clone());
    object.spec.cache_on = vec!["here".to_owned()];
    let changed = copy(InspectionOutcome::Inspection(inspection("d2")));
    let role = ModelRole::of(&object, "here", false);
    let status_after = model_status(&object, "here", role, Some(&changed)).unwrap();
    assert_eq!(status_after.resolved, status.resolved, "written once");
    assert_eq!(status_after.nodes[0].state, CopyState::Failed);
    assert!(
        status_after.nodes[0]
            .message
            .starts_with("ChecksumMismatch: the files have digest d2, resolved was d1")
    );
}

#[test]
fn a_failed_resolver_says_why_and_goes_on_saying_it_when_another_is_asked() {
    let mut object = model("here", &[]);
    let refusal = Refusal::new(RefusalReason::Unresolvable, "config.json is missing");
    let failed = copy(InspectionOutcome::Error(refusal));
    let status = model_status(&object, "here", ModelRole::of(&object, "here", false), Some(&failed)).unwrap();
    assert_eq!(status.resolved, None);
    let verdict = status.nodes[0].resolve.clone().unwrap();
    assert_eq!(
        (verdict.reason.as_str(), verdict.message.as_str()),
        ("Unresolvable", "config.json is missing")
    );

    object.status = Some(status.clone());
    object.spec.resolver = Some("there".to_owned());
    let role = ModelRole::of(&object, "here", false);
    assert!(!role.looks());
    assert_eq!(model_status(&object, "here", role, None), Some(status));
    // Somebody has resolved it: the old failure is taken back.
    let whole = copy(InspectionOutcome::Inspection(inspection("d1")));
    let role = ModelRole { resolves: true, caches: false };
    let resolved = model_status(&model("x", &[]), "x", role, Some(&whole));
    object.status.as_mut().unwrap().resolved = resolved.unwrap().resolved;
    let taken_back = model_status(&object, "here", ModelRole::of(&object, "here", false), None).unwrap();
    assert_eq!((taken_back.resolved, taken_back.nodes), (None, vec![]));
}

#[test]
fn says_nothing_of_models_that_are_not_its_business() {
    let object = model("there", &["there"]);
    assert_eq!(model_status(&object, "here", ModelRole::of(&object, "here", false), None), None);
    assert!(ModelRole::of(&object, "here", true).caches, "a replica here serves it");
    assert!(ModelRole::of(&model("there", &["here"]), "here", false).caches);
}
