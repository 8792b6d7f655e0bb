//! Nodes without a kubelet, and the tokens that a Pod on such a node would be given.

use anyhow::{Context, Result};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Node, ServiceAccount};
use kube::api::{Api, ObjectMeta, PostParams};

/// A test never outlives this, and a demo that does is started again.
const TOKEN_SECONDS: i64 = 86_400;

/// Creates the Node object. Nothing reports its health, so Kubernetes itself calls it unknown.
pub async fn create(client: &kube::Client, name: &str) -> Result<Node> {
    let node = Node {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some([("kubernetes.io/hostname".to_owned(), name.to_owned())].into()),
            ..ObjectMeta::default()
        },
        ..Node::default()
    };
    let created = Api::all(client.clone()).create(&PostParams::default(), &node).await;
    created.with_context(|| format!("failed to create Node {name}"))
}

/// A token of this service account, as a Pod on `node` would have it: the API server puts the node's name into what
/// admission sees of the user, and the token dies with the Node.
pub async fn token(
    client: &kube::Client,
    namespace: &str,
    account: &str,
    node: Option<&Node>,
) -> Result<String> {
    let bound_object_ref = node.map(|node| BoundObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Node".to_owned()),
        name: node.metadata.name.clone(),
        uid: node.metadata.uid.clone(),
    });
    let request = TokenRequest {
        spec: TokenRequestSpec {
            audiences: Vec::new(),
            bound_object_ref,
            expiration_seconds: Some(TOKEN_SECONDS),
        },
        ..TokenRequest::default()
    };
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let answer = accounts.create_token_request(account, &PostParams::default(), &request).await;
    let answer = answer.with_context(|| format!("failed to get a token for {namespace}/{account}"))?;
    Ok(answer.status.context("the token request was left unanswered")?.token)
}
