use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt};
use sparkherd_crds::{SparkNode, SparkNodeSpec, SparkNodeStatus, agent_manager};

use super::{Identity, KubernetesError, limited};
use crate::metrics::Metrics;

/// Label with the GPU's name, set at creation; the admin's from then on.
const GPU_LABEL: &str = "sparkherd.dev/gpu";

/// Creates this agent's `SparkNode`, owned by the Node of its name where there is one. That it exists already is success.
pub async fn create(
    client: &Client,
    identity: &Identity,
    status: &SparkNodeStatus,
    metrics: &Metrics,
) -> Result<(), KubernetesError> {
    let name = &identity.node_name;
    let nodes: Api<Node> = Api::all(client.clone());
    let owner = limited(metrics, "get node", name, nodes.get_opt(name)).await?.and_then(|node| owner(&node));
    let mut spark_node = SparkNode::new(name, SparkNodeSpec::default());
    spark_node.metadata.labels = Some(labels(name, status));
    spark_node.metadata.owner_references = owner.map(|owner| vec![owner]);
    let spark_nodes: Api<SparkNode> = Api::all(client.clone());
    let parameters = PostParams { dry_run: false, field_manager: Some(agent_manager(name)) };
    match limited(metrics, "create sparknode", name, spark_nodes.create(&parameters, &spark_node)).await {
        Err(error) if error.code() != Some(409) => Err(error),
        _ => Ok(()),
    }
}

fn owner(node: &Node) -> Option<OwnerReference> {
    Some(OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: node.name_any(),
        uid: node.uid()?,
        // Blocking the owner's deletion would need a right on Nodes' finalizers.
        block_owner_deletion: None,
        controller: None,
    })
}

fn labels(node: &str, status: &SparkNodeStatus) -> BTreeMap<String, String> {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let gpu = status.gpu.as_ref().map(|gpu| (GPU_LABEL.to_owned(), label_value(&gpu.name)));
    [
        ("kubernetes.io/hostname".to_owned(), label_value(node)),
        ("kubernetes.io/arch".to_owned(), architecture.to_owned()),
    ]
    .into_iter()
    .chain(gpu)
    .collect()
}

/// As Kubernetes allows label values: 63 characters of letters, digits, `-_.`, ends alphanumeric.
fn label_value(text: &str) -> String {
    let allowed = |one: char| if one.is_ascii_alphanumeric() || "-_.".contains(one) { one } else { '-' };
    let value: String = text.chars().map(allowed).take(63).collect();
    value.trim_matches(|one: char| !one.is_ascii_alphanumeric()).to_owned()
}

#[cfg(test)]
mod tests {
    use super::label_value;

    #[test]
    fn label_values_are_what_kubernetes_takes() {
        let cases = [("NVIDIA GB10", "NVIDIA-GB10"), ("spark-1", "spark-1"), (" (x) ", "x"), ("", "")];
        for (text, value) in cases {
            assert_eq!(label_value(text), value);
        }
        assert_eq!(label_value(&"a".repeat(80)).len(), 63);
    }
}
