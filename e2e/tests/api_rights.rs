//! What an agent's token can do, with the chart's own rights and policies: what is about its node, and nothing else.

use std::fmt::Debug;

use anyhow::{Context, Result, bail, ensure};
use e2e::chart::{NAMESPACE, RELEASE};
use e2e::herd::{self, DEADLINE, Herd};
use e2e::{kubeconfig, node, wait};
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Secret, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Client;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sparkherd_crds::{Model, ModelDeployment, ModelReplica, SparkNode};

const NAME: &str = "coder";

/// The objects that the attempts are about.
struct Scene {
    herd: Herd,
    /// The one Model.
    model: Model,
    /// The replica on each Spark, in the order of the Sparks.
    replicas: Vec<ModelReplica>,
}

/// The API with one agent's token.
struct Agent {
    sparks: Api<SparkNode>,
    deployments: Api<ModelDeployment>,
    replicas: Api<ModelReplica>,
    models: Api<Model>,
    leases: Api<Lease>,
    client: Client,
}

impl Agent {
    fn new(client: Client) -> Self {
        Self {
            sparks: Api::all(client.clone()),
            deployments: Api::namespaced(client.clone(), herd::NAMESPACE),
            replicas: Api::namespaced(client.clone(), herd::NAMESPACE),
            models: Api::namespaced(client.clone(), herd::NAMESPACE),
            leases: Api::namespaced(client.clone(), NAMESPACE),
            client,
        }
    }
}

#[tokio::test]
async fn an_agent_writes_about_its_own_node_only() -> Result<()> {
    let say = |line: &str| println!("{line}");
    let herd = Herd::start(2, &say).await?;
    herd.apply(NAME, &json!({"model": herd.example(), "context": 256, "replicas": 2}))?;
    herd.until_serving(NAME, 2).await?;
    let mut replicas = herd.replicas(NAME).await?;
    replicas.sort_by_key(|replica| replica.spec.node_name.clone());
    let models: Api<Model> = Api::namespaced(herd.client.clone(), herd::NAMESPACE);
    let model = models.get(&replicas[0].spec.model.name).await?;
    let scene = Scene { herd, model, replicas };
    let agent = Agent::new(kubeconfig::client(&scene.herd.sparks[0].kubeconfig).await?);

    policies_are_in_force(&agent).await?;
    its_own(&scene, &agent).await.context("its own")?;
    what_is_another_nodes(&scene, &agent).await.context("another node's")?;
    what_only_the_resolver_says(&scene).await.context("the resolver's")?;
    specs(&scene, &agent).await.context("specs")?;
    secrets_and_tokens(&agent).await.context("secrets")?;
    what_is_the_operators(&scene, &agent).await.context("the operator's")?;
    a_token_without_a_node(&scene).await.context("a token without a node")
}

/// The API server reads new policies within seconds; before that the first refusal would be a matter of luck.
async fn policies_are_in_force(agent: &Agent) -> Result<()> {
    wait::until_true("the policies", DEADLINE, async || {
        let tried = status(&agent.sparks, "spark-2", &forged(), true).await;
        Ok((tried.is_err(), "a forged write would be taken".to_owned()))
    })
    .await
}

/// Dry runs pass all of admission and change nothing.
async fn its_own(scene: &Scene, agent: &Agent) -> Result<()> {
    status(&agent.sparks, "spark-1", &json!({"status": {"agentVersion": "0.0.0"}}), true).await?;
    let restarts = json!({"status": {"restarts": 1}});
    status(&agent.replicas, name(&scene.replicas[0])?, &restarts, true).await?;
    let entries = with_entry_of(&scene.model, "spark-1")?;
    status(&agent.models, name(&scene.model)?, &entries, true).await?;
    let lease = json!({"spec": {"holderIdentity": "spark-1"}});
    Ok(patch(&agent.leases, "spark-1", &lease, true).await?)
}

async fn what_is_another_nodes(scene: &Scene, agent: &Agent) -> Result<()> {
    let another = "the agent on spark-1 may not write what is about spark-2";
    refused(status(&agent.sparks, "spark-2", &forged(), false).await, another)?;
    let restarts = json!({"status": {"restarts": 7}});
    refused(status(&agent.replicas, name(&scene.replicas[1])?, &restarts, false).await, another)?;
    let lease = json!({"spec": {"holderIdentity": "spark-1"}});
    refused(patch(&agent.leases, "spark-2", &lease, false).await, another)?;

    let (model, copies) = (name(&scene.model)?, "may not change what other nodes say of their copies");
    let changed = with_entry_of(&scene.model, "spark-2")?;
    refused(status(&agent.models, model, &changed, false).await, copies)?;
    let none = json!({"status": {"nodes": []}});
    refused(status(&agent.models, model, &none, false).await, copies)
}

/// Both agents say how their copies are, and only one says what the model is.
async fn what_only_the_resolver_says(scene: &Scene) -> Result<()> {
    let resolver = scene.model.spec.resolver.clone().context("the Model has no resolver")?;
    for spark in &scene.herd.sparks {
        let agent = Agent::new(kubeconfig::client(&spark.kubeconfig).await?);
        let forged = json!({"status": {"resolved": {"revision": "forged"}}});
        let is_resolver = spark.name == resolver;
        let tried = status(&agent.models, name(&scene.model)?, &forged, is_resolver).await;
        if is_resolver {
            tried.context("the resolver itself")?;
        } else {
            refused(tried, "is not the resolver of this Model")?;
        }
    }
    Ok(())
}

/// Also of its own objects: specs are the operator's and people's.
async fn specs(scene: &Scene, agent: &Agent) -> Result<()> {
    let (own, model) = (name(&scene.replicas[0])?, name(&scene.model)?);
    let nodes: Api<Node> = Api::all(agent.client.clone());
    for tried in [
        patch(&agent.sparks, "spark-1", &json!({"spec": {"reserve": "0"}}), false).await,
        patch(&agent.replicas, own, &json!({"spec": {"run": "Stop"}}), false).await,
        patch(&agent.models, model, &json!({"spec": {"pin": true}}), false).await,
        patch(&agent.deployments, NAME, &json!({"spec": {"replicas": 0}}), false).await,
        patch(&nodes, "spark-1", &json!({"spec": {"unschedulable": true}}), false).await,
    ] {
        refused(tried, "cannot patch resource")?;
    }
    Ok(())
}

async fn secrets_and_tokens(agent: &Agent) -> Result<()> {
    let secrets: Api<Secret> = Api::namespaced(agent.client.clone(), NAMESPACE);
    refused(secrets.get(&format!("{RELEASE}-key")).await.map(drop), "cannot get resource")?;
    refused(secrets.list(&ListParams::default()).await.map(drop), "cannot list resource")?;
    let accounts: Api<ServiceAccount> = Api::namespaced(agent.client.clone(), NAMESPACE);
    let (operator, request) = (format!("{RELEASE}-operator"), TokenRequest::default());
    let tried = accounts.create_token_request(&operator, &PostParams::default(), &request).await;
    refused(tried.map(drop), "cannot create resource")
}

async fn what_is_the_operators(scene: &Scene, agent: &Agent) -> Result<()> {
    let own = name(&scene.replicas[0])?;
    let deleted = agent.replicas.delete(own, &DeleteParams::default()).await;
    refused(deleted.map(drop), "cannot delete resource")?;
    let another = ModelReplica::new("another", scene.replicas[0].spec.clone());
    let created = agent.replicas.create(&PostParams::default(), &another).await;
    refused(created.map(drop), "cannot create resource")?;
    let replicas = json!({"status": {"replicas": 9}});
    refused(status(&agent.deployments, NAME, &replicas, false).await, "cannot patch resource")?;

    let services: Api<Service> = Api::namespaced(agent.client.clone(), herd::NAMESPACE);
    let label = json!({"metadata": {"labels": {"a": "b"}}});
    refused(patch(&services, NAME, &label, false).await, "cannot patch resource")?;
    let slices: Api<EndpointSlice> = Api::namespaced(agent.client.clone(), herd::NAMESPACE);
    refused(slices.list(&ListParams::default()).await.map(drop), "cannot list resource")?;
    refused(patch(&slices, own, &label, false).await, "cannot patch resource")?;

    let mut lease = Lease::default();
    lease.metadata.name = Some(format!("{RELEASE}-operator"));
    let created = agent.leases.create(&PostParams::default(), &lease).await;
    refused(created.map(drop), "may not write what is about sparkherd-operator")
}

/// A token that was taken from the account itself and not by a Pod says no node, and so may write nothing.
async fn a_token_without_a_node(scene: &Scene) -> Result<()> {
    let cluster = &scene.herd.lab.cluster;
    let token = node::token(&scene.herd.client, NAMESPACE, &format!("{RELEASE}-agent"), None).await?;
    let file = cluster.work.join("unbound.kubeconfig");
    kubeconfig::write_for(&file, &cluster.kubeconfig, &token)?;
    let unbound = Agent::new(kubeconfig::client(&file).await?);
    let tried = status(&unbound.sparks, "spark-1", &forged(), false).await;
    refused(tried, "must be bound to its node")
}

fn forged() -> Value {
    json!({"status": {"agentVersion": "forged"}})
}

/// All entries as they stand, but one with another message.
fn with_entry_of(model: &Model, node: &str) -> Result<Value> {
    let mut nodes = model.status.clone().context("the Model has no status")?.nodes;
    let entry = nodes.iter_mut().find(|entry| entry.node == node).context("no entry of this node")?;
    "another".clone_into(&mut entry.message);
    Ok(json!({"status": {"nodes": nodes}}))
}

fn name(object: &impl kube::Resource) -> Result<&str> {
    object.meta().name.as_deref().context("an object without a name")
}

async fn patch<K>(api: &Api<K>, name: &str, change: &Value, dry_run: bool) -> kube::Result<()>
where
    K: Clone + Debug + DeserializeOwned,
{
    let parameters = PatchParams { dry_run, ..PatchParams::default() };
    api.patch(name, &parameters, &Patch::Merge(change)).await.map(drop)
}

async fn status<K>(api: &Api<K>, name: &str, change: &Value, dry_run: bool) -> kube::Result<()>
where
    K: Clone + Debug + DeserializeOwned,
{
    let parameters = PatchParams { dry_run, ..PatchParams::default() };
    api.patch_status(name, &parameters, &Patch::Merge(change)).await.map(drop)
}

/// Refused by the API server with a sentence that holds `reason`: RBAC answers 403, a policy 422.
fn refused(tried: kube::Result<()>, reason: &str) -> Result<()> {
    let answer = match tried {
        Ok(()) => bail!("taken, where {reason:?} was expected"),
        Err(kube::Error::Api(answer)) => answer,
        Err(error) => return Err(error.into()),
    };
    ensure!(matches!(answer.code, 403 | 422), "refused with {}: {}", answer.code, answer.message);
    ensure!(answer.message.contains(reason), "refused, but not because {reason:?}: {}", answer.message);
    Ok(())
}
