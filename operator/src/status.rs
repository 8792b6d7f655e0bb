//! Reports become statuses. Pure; `control` writes what differs.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use sparkherd_crds::{
    Condition, ConditionStatus, DEPLOYMENT_LABEL, DeploymentResolved, ExposeType, ModelDeployment,
    ModelDeploymentStatus, ModelReplica, SparkNode, Url, find_condition, quantity_text, set_condition,
};
use sparkherd_planner::{ConditionStatus as Verdict, Report, Resolved};

/// Conditions' messages are bounded in the schema; a longer one is cut at a character.
const MESSAGE_BYTES_MAX: usize = 2048;

/// The status this report makes of a deployment; transition times are kept where a condition's status stays.
pub fn deployment_status(object: &ModelDeployment, report: &Report, now: Timestamp) -> ModelDeploymentStatus {
    // Destructured whole: a new finding must be shown.
    let Report {
        observed_generation,
        conditions,
        replicas,
        ready_replicas,
        updated_replicas,
        nodes,
        resolved,
    } = report;
    let mut written = object.status.clone().unwrap_or_default().conditions;
    written.retain(|condition| conditions.keys().any(|type_| type_.as_str() == condition.type_));
    for (type_, condition) in conditions {
        set_condition(
            &mut written,
            Condition {
                type_: type_.as_str().to_owned(),
                status: status(condition.status),
                reason: condition.reason.as_str().to_owned(),
                message: bounded(&condition.message),
                last_transition_time: Time(now),
                observed_generation: Some(*observed_generation),
            },
        );
    }
    written.sort_by(|a, b| a.type_.cmp(&b.type_));
    ModelDeploymentStatus {
        observed_generation: Some(*observed_generation),
        conditions: written,
        replicas: *replicas,
        ready_replicas: *ready_replicas,
        updated_replicas: *updated_replicas,
        selector: Some(format!("{DEPLOYMENT_LABEL}={}", object.name_any())),
        url: Some(url(object)),
        resolved: resolved.as_ref().map(resolved_of),
        nodes: nodes.iter().map(|node| node.as_str().to_owned()).collect(),
    }
}

fn url(object: &ModelDeployment) -> Url {
    let (name, namespace) = (object.name_any(), object.namespace().unwrap_or_default());
    let type_ = object.spec.expose.as_ref().map(|expose| expose.type_).unwrap_or_default();
    let external = match type_ {
        ExposeType::ClusterIp => None,
        // Which port or address the cluster gave is the Service's to tell.
        ExposeType::NodePort | ExposeType::LoadBalancer => {
            object.status.as_ref().and_then(|status| status.url.clone()?.external)
        }
    };
    Url { cluster: format!("http://{name}.{namespace}.svc/v1"), external }
}

fn resolved_of(resolved: &Resolved) -> DeploymentResolved {
    let Resolved { weights_revision, digest, facts, serving, footprint } = resolved;
    DeploymentResolved {
        revision: weights_revision.clone(),
        digest: digest.clone(),
        facts: facts.clone(),
        serving: serving.clone(),
        footprint: *footprint,
        memory: quantity_text(footprint.total_bytes()),
    }
}

/// The operator's one condition on a replica, if it has to change.
pub fn replica_reachable(object: &ModelReplica, reachable: bool, now: Timestamp) -> Option<Condition> {
    let conditions = object.status.as_ref().map_or(&[][..], |status| &status.conditions);
    reachable_condition(conditions, &object.spec.node_name, object.metadata.generation, reachable, now)
}

/// The operator's one condition on a node, if it has to change.
pub fn node_reachable(object: &SparkNode, reachable: bool, now: Timestamp) -> Option<Condition> {
    let conditions = object.status.as_ref().map_or(&[][..], |status| &status.conditions);
    reachable_condition(conditions, &object.name_any(), object.metadata.generation, reachable, now)
}

fn reachable_condition(
    conditions: &[Condition],
    node: &str,
    generation: Option<i64>,
    reachable: bool,
    now: Timestamp,
) -> Option<Condition> {
    let wanted = if reachable { ConditionStatus::True } else { ConditionStatus::False };
    if find_condition(conditions, "Reachable").is_some_and(|condition| condition.status == wanted) {
        return None;
    }
    let (reason, message) = if reachable {
        ("Heartbeat", format!("the agent on {node} renews its Lease"))
    } else {
        ("NodeUnreachable", format!("the agent on {node} has not renewed its Lease in time"))
    };
    Some(Condition {
        type_: "Reachable".to_owned(),
        status: wanted,
        reason: reason.to_owned(),
        message,
        last_transition_time: Time(now),
        observed_generation: generation,
    })
}

const fn status(verdict: Verdict) -> ConditionStatus {
    match verdict {
        Verdict::True => ConditionStatus::True,
        Verdict::False => ConditionStatus::False,
        Verdict::Unknown => ConditionStatus::Unknown,
    }
}

fn bounded(message: &str) -> String {
    let mut end = message.len().min(MESSAGE_BYTES_MAX);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    message[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use sparkherd_planner::{Condition as Finding, ConditionType, Reason};

    use super::*;

    fn deployment() -> ModelDeployment {
        let object = serde_json::json!({
            "apiVersion": "sparkherd.dev/v1alpha1", "kind": "ModelDeployment",
            "metadata": {"name": "coder", "namespace": "lab"}, "spec": {"model": "file:///m"},
        });
        serde_json::from_value(object).unwrap()
    }

    fn report(status: Verdict, reason: Reason, message: &str) -> Report {
        Report {
            observed_generation: 3,
            conditions: BTreeMap::from([(
                ConditionType::Ready,
                Finding { status, reason, message: message.to_owned() },
            )]),
            replicas: 1,
            ready_replicas: 0,
            updated_replicas: 1,
            nodes: Vec::new(),
            resolved: None,
        }
    }

    #[test]
    fn a_condition_keeps_its_time_while_its_status_stays() {
        let first: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let later: Timestamp = "2026-01-01T00:10:00Z".parse().unwrap();
        let mut object = deployment();
        object.status =
            Some(deployment_status(&object, &report(Verdict::False, Reason::Placing, "waits"), first));
        let waits = deployment_status(&object, &report(Verdict::False, Reason::Loading, "loads"), later);
        assert_eq!(
            (waits.conditions[0].last_transition_time.0, waits.conditions[0].reason.as_str()),
            (first, "Loading")
        );
        let serves = deployment_status(&object, &report(Verdict::True, Reason::Serving, "serves"), later);
        assert_eq!(serves.conditions[0].last_transition_time.0, later);
        assert_eq!(serves.url.unwrap().cluster, "http://coder.lab.svc/v1");
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let now = Timestamp::UNIX_EPOCH;
        let long = "ü".repeat(2000);
        let status = deployment_status(&deployment(), &report(Verdict::False, Reason::Placing, &long), now);
        assert_eq!(status.conditions[0].message.len(), 2048);
    }

    #[test]
    fn reachable_is_written_once() {
        let now = Timestamp::UNIX_EPOCH;
        let mut node = SparkNode::new("spark-1", sparkherd_crds::SparkNodeSpec::default());
        let condition = node_reachable(&node, true, now).unwrap();
        node.status =
            Some(sparkherd_crds::SparkNodeStatus { conditions: vec![condition], ..Default::default() });
        assert_eq!(node_reachable(&node, true, now), None);
        assert_eq!(node_reachable(&node, false, now).unwrap().reason, "NodeUnreachable");
    }
}
