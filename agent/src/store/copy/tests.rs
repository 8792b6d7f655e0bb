use std::time::Duration;

use sparkherd_checkpoint::{InspectionOutcome, Refusal, RefusalReason};
use sparkherd_planner::Reason;

use super::{CopyFacts, ModelCopy, Weights};
use crate::fixture::{inspection, located, moment};
use crate::store::LocateError;

fn refused() -> InspectionOutcome {
    InspectionOutcome::Error(Refusal::new(RefusalReason::UnsupportedModel, "rope type x"))
}

#[test]
fn whole_files_are_weights_until_they_change() {
    let root = tempfile::tempdir().unwrap();
    let mut copy = ModelCopy::default();
    assert_eq!((copy.facts(), copy.due(Duration::ZERO)), (CopyFacts::Checking, None));
    let first = located(&root, "{}");
    copy.looked(Ok(first.clone()), moment(0));
    assert_eq!(copy.due(Duration::ZERO), Some(&first));
    copy.inspected(first.clone(), InspectionOutcome::Inspection(inspection("d1")), moment(1));
    assert_eq!(
        (copy.due(Duration::from_secs(9999)), copy.weights("d1")),
        (None, Weights::Ready { located: first.clone() })
    );
    let Weights::NotReady { reason, message } = copy.weights("another") else { panic!("ready") };
    assert_eq!(reason, Reason::ChecksumMismatch);
    assert!(message.contains("digest d1") && message.contains("was another"), "{message}");

    copy.forget_look();
    assert_eq!((copy.facts(), copy.due(Duration::from_secs(2))), (CopyFacts::Checking, None));
    copy.looked(Ok(first), moment(2));
    assert_eq!(copy.due(Duration::from_secs(2)), None, "unchanged files are not read again");
    let second = located(&root, "{ }");
    copy.looked(Ok(second.clone()), moment(2));
    assert_eq!((copy.facts(), copy.due(Duration::from_secs(2))), (CopyFacts::Checking, Some(&second)));
    assert!(matches!(copy.weights("d1"), Weights::NotReady { .. }));
    copy.inspected(second, InspectionOutcome::Inspection(inspection("d2")), moment(3));
    assert!(matches!(copy.weights("d2"), Weights::Ready { .. }));
}

#[test]
fn a_refusal_is_tried_again_with_pauses_and_at_once_when_files_change() {
    let root = tempfile::tempdir().unwrap();
    let mut copy = ModelCopy::default();
    let first = located(&root, "{}");
    copy.looked(Ok(first.clone()), moment(0));
    copy.inspected(first.clone(), refused(), moment(0));
    assert!(matches!(copy.facts(), CopyFacts::Failed { refusal, .. } if refusal.message == "rope type x"));
    let is_due = |copy: &ModelCopy, at| copy.due(Duration::from_secs(at)).is_some();
    assert!(!is_due(&copy, 9) && is_due(&copy, 10));
    copy.inspected(first, refused(), moment(10));
    assert!(!is_due(&copy, 29) && is_due(&copy, 30));
    copy.retry_now();
    assert!(is_due(&copy, 11));
    copy.looked(Ok(located(&root, "{  }")), moment(12));
    assert!(is_due(&copy, 12));
}

#[test]
fn a_path_that_leads_nowhere_is_told_again_after_pauses_only() {
    let mut copy = ModelCopy::default();
    let error = LocateError::NotADirectory { path: "/m".to_owned() };
    let mut told = Vec::new();
    for seconds in (0..60).step_by(3) {
        copy.looked(Err(error.clone()), moment(seconds));
        let CopyFacts::Failed { at, .. } = copy.facts() else { panic!("not failed") };
        told.push(at.as_second());
    }
    told.dedup();
    assert_eq!(told, [0, 12, 33]);
    let root = tempfile::tempdir().unwrap();
    copy.looked(Ok(located(&root, "{}")), moment(61));
    assert_eq!(copy.facts(), CopyFacts::Checking);
    assert!(copy.due(Duration::from_secs(61)).is_some());
}
