//! Kubernetes events, derived from how a deployment's conditions change; nothing else makes one.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Resource;
use kube::runtime::events::{Event, EventType, Recorder};
use sparkherd_crds::{Condition, ConditionStatus, GROUP, ModelDeployment, VERSION, find_condition};
use sparkherd_planner::Reason;
use tracing::warn;

use crate::call::Calls;
use crate::world::Undecodable;

/// `note` of an event may have 1 KiB, and a character up to four bytes.
const NOTE_CHARACTERS_MAX: usize = 256;

/// Publishes an event for each condition whose status or reason is new. An event that cannot be written is logged: status
/// carries the same words.
pub(crate) async fn publish(
    recorder: &Recorder,
    calls: &Calls,
    object: &ModelDeployment,
    conditions: &[Condition],
) {
    let before = object.status.as_ref().map_or(&[][..], |status| &status.conditions);
    for condition in news(before, conditions) {
        let reference = object.object_ref(&());
        let event = Event {
            type_: severity(condition),
            reason: condition.reason.clone(),
            note: Some(condition.message.chars().take(NOTE_CHARACTERS_MAX).collect()),
            action: condition.type_.clone(),
            secondary: None,
        };
        if let Err(error) = calls.call("event", recorder.publish(&event, &reference)).await {
            warn!(reason = condition.reason, %error, "event not written");
        }
    }
}

/// Says on an object that this version cannot read it; its status cannot be written, for the same reason.
pub(crate) async fn publish_undecodable(recorder: &Recorder, calls: &Calls, object: &Undecodable) {
    let reference = ObjectReference {
        api_version: Some(format!("{GROUP}/{VERSION}")),
        kind: Some(object.kind.clone()),
        namespace: Some(object.namespace.clone()).filter(|namespace| !namespace.is_empty()),
        name: Some(object.name.clone()),
        uid: Some(object.uid.clone()),
        ..ObjectReference::default()
    };
    let event = Event {
        type_: EventType::Warning,
        reason: Reason::Invalid.as_str().to_owned(),
        note: Some(object.error.chars().take(NOTE_CHARACTERS_MAX).collect()),
        action: "Decode".to_owned(),
        secondary: None,
    };
    if let Err(error) = calls.call("event", recorder.publish(&event, &reference)).await {
        warn!(kind = object.kind, %error, "event not written");
    }
}

/// Conditions that say something they did not say before.
fn news<'a>(before: &'a [Condition], after: &'a [Condition]) -> impl Iterator<Item = &'a Condition> {
    after.iter().filter(move |condition| {
        find_condition(before, &condition.type_)
            .is_none_or(|old| old.status != condition.status || old.reason != condition.reason)
    })
}

/// `Degraded=True` and a `Ready` that failed are warnings; waiting is not.
fn severity(condition: &Condition) -> EventType {
    let bad_when = if condition.type_ == "Degraded" { ConditionStatus::True } else { ConditionStatus::False };
    let waits = Reason::parse(&condition.reason).is_some_and(Reason::is_progress);
    if condition.status == bad_when && !waits { EventType::Warning } else { EventType::Normal }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn condition(type_: &str, status: ConditionStatus, reason: &str) -> Condition {
        Condition {
            type_: type_.to_owned(),
            status,
            reason: reason.to_owned(),
            message: "numbers change".to_owned(),
            last_transition_time: Time(Timestamp::UNIX_EPOCH),
            observed_generation: None,
        }
    }

    #[test]
    fn only_a_new_status_or_reason_is_news() {
        let before = [condition("Ready", ConditionStatus::False, "Loading")];
        assert_eq!(news(&before, &before).count(), 0);
        let after = [condition("Ready", ConditionStatus::True, "Serving")];
        assert_eq!(news(&before, &after).count(), 1);
        assert_eq!(news(&[], &after).count(), 1);
    }

    #[test]
    fn waiting_is_no_warning() {
        assert_eq!(severity(&condition("Ready", ConditionStatus::False, "Loading")), EventType::Normal);
        assert_eq!(
            severity(&condition("Ready", ConditionStatus::False, "InsufficientMemory")),
            EventType::Warning
        );
        assert_eq!(severity(&condition("Degraded", ConditionStatus::True, "RolledBack")), EventType::Warning);
    }
}
