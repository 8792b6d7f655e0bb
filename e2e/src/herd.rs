//! A lab with Sparks in it, and what the tests of the API do to it: they write objects as a user would, and read
//! conditions and endpoints as a client would.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use sparkherd_crds::{
    Condition, ConditionStatus, ModelDeployment, ModelDeploymentStatus, ModelReplica, find_condition,
};

use crate::Progress;
use crate::client::{ChatClient, Endpoint, endpoints};
use crate::cluster::Cluster;
use crate::lab::{Lab, Spark, SparkOptions};
use crate::toolchain::{Toolchain, repository};
use crate::wait::{self, Seen};

/// Namespace of the tests' deployments.
pub const NAMESPACE: &str = "default";
/// How long anything may take. The slowest is an engine that waits out several back-offs on a busy machine.
pub const DEADLINE: Duration = Duration::from_mins(3);
/// What each Spark takes for its memory. A CPU machine keeps 1 GiB of it for the host.
const MEMORY_TOTAL: &str = "4Gi";
/// The demo's model, below `examples/models`.
const EXAMPLE: &str = "ask-sparkherd";

/// A lab, its Sparks and the folders they read.
pub struct Herd {
    pub sparks: Vec<Spark>,
    pub lab: Lab,
    pub client: kube::Client,
    /// An allowed root that a test may write to.
    pub models: PathBuf,
    fake_engines: PathBuf,
}

// A client has nothing to show of itself.
impl fmt::Debug for Herd {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Herd")
            .field("lab", &self.lab)
            .field("sparks", &self.sparks)
            .finish_non_exhaustive()
    }
}

impl Herd {
    /// Everything up to Sparks that are there and heard.
    pub async fn start(sparks: usize, progress: Progress<'_>) -> Result<Self> {
        let cluster = Cluster::start(Toolchain::prepare(progress)?, progress).await?;
        let lab = Lab::start(cluster, progress).await?;
        let client = lab.cluster.client().await?;
        let folder = |name: &str| -> Result<PathBuf> {
            let path = lab.cluster.work.join(name);
            fs::create_dir_all(&path)?;
            Ok(path)
        };
        let (models, fake_engines) = (folder("models")?, folder("fake-engines")?);
        let options = SparkOptions {
            memory_total: MEMORY_TOTAL.to_owned(),
            model_roots: vec![repository().join("examples/models"), models.clone()],
            fake_engines: Some(fake_engines.clone()),
        };
        let mut herd = Self { sparks: Vec::new(), lab, client, models, fake_engines };
        for _ in 0..sparks {
            herd.sparks.push(herd.lab.add_spark(&options).await?);
        }
        herd.until_heard().await?;
        Ok(herd)
    }

    async fn until_heard(&self) -> Result<()> {
        let nodes: Api<sparkherd_crds::SparkNode> = Api::all(self.client.clone());
        wait::until_true("the Sparks", DEADLINE, async || {
            let listed = nodes.list(&ListParams::default()).await?;
            let is_there = |node: &&sparkherd_crds::SparkNode| {
                let conditions = node.status.as_ref().map_or(&[][..], |status| status.conditions.as_slice());
                ["Ready", "Reachable"].iter().all(|type_| {
                    find_condition(conditions, type_)
                        .is_some_and(|condition| condition.status == ConditionStatus::True)
                })
            };
            let there = listed.iter().filter(is_there).count();
            Ok((there == self.sparks.len(), format!("{there} of {} are there", self.sparks.len())))
        })
        .await
    }

    /// Source of the demo's model.
    pub fn example(&self) -> String {
        format!("file://{}", repository().join("examples/models").join(EXAMPLE).display())
    }

    /// Copies the demo's model to a folder that may be spoiled; gives the folder.
    pub fn copy_model(&self, name: &str) -> Result<PathBuf> {
        let (from, to) = (repository().join("examples/models").join(EXAMPLE), self.models.join(name));
        fs::create_dir_all(&to)?;
        for file in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
            fs::copy(from.join(file), to.join(file)).with_context(|| format!("failed to copy {file}"))?;
        }
        Ok(to)
    }

    /// From its next start, an engine of `name` (a deployment, or `deployment.context-N`) is played from this script.
    pub fn fake(&self, name: &str, script: &str) -> Result<()> {
        Ok(fs::write(self.fake_engines.join(format!("{NAMESPACE}.{name}")), script)?)
    }

    /// `kubectl apply` of a deployment with this spec.
    pub fn apply(&self, name: &str, spec: &Value) -> Result<()> {
        let applied = self.lab.cluster.kubectl().apply(&deployment(name, spec))?;
        ensure!(
            applied.status.success(),
            "kubectl apply of {name}: {}",
            String::from_utf8_lossy(&applied.stderr)
        );
        Ok(())
    }

    /// The complaint of a `kubectl apply` that has to fail.
    pub fn refused(&self, name: &str, spec: &Value) -> Result<String> {
        let applied = self.lab.cluster.kubectl().apply(&deployment(name, spec))?;
        ensure!(!applied.status.success(), "{name} was expected to be refused: {spec}");
        Ok(String::from_utf8_lossy(&applied.stderr).into_owned())
    }

    /// Changes fields of a deployment's spec; `null` removes one.
    pub async fn edit(&self, name: &str, spec: &Value) -> Result<()> {
        let change = Patch::Merge(json!({"spec": spec}));
        self.deployments().patch(name, &PatchParams::default(), &change).await?;
        Ok(())
    }

    /// Waits until the operator has seen the present spec and says of it what `is_so` wants.
    pub async fn until(
        &self,
        what: &str,
        name: &str,
        mut is_so: impl FnMut(&ModelDeploymentStatus) -> bool,
    ) -> Result<ModelDeploymentStatus> {
        wait::until(&format!("{name}: {what}"), DEADLINE, async || {
            let object = self.deployments().get(name).await?;
            let status = object.status.unwrap_or_default();
            let is_current = status.observed_generation == object.metadata.generation;
            if is_current && is_so(&status) {
                return Ok(Seen::Done(status));
            }
            Ok(Seen::NotYet(serde_json::to_string(&status.conditions)?))
        })
        .await
    }

    /// Waits for a condition of this status and reason; gives its message.
    pub async fn until_condition(&self, name: &str, wanted: (&str, &str, &str)) -> Result<String> {
        let (type_, status, reason) = wanted;
        let what = format!("{type_}={status} {reason}");
        let mut message = String::new();
        self.until(&what, name, |seen| {
            find_condition(&seen.conditions, type_)
                .filter(|condition| format!("{:?}", condition.status) == status && condition.reason == reason)
                .map(|condition: &Condition| message.clone_from(&condition.message))
                .is_some()
        })
        .await?;
        Ok(message)
    }

    /// Waits until all is as the spec wants it and that many endpoints are ready; gives these.
    pub async fn until_serving(&self, name: &str, replicas: usize) -> Result<Vec<Endpoint>> {
        self.until_condition(name, ("Ready", "True", "Serving")).await?;
        self.until_endpoints(name, replicas).await
    }

    /// Waits until exactly that many endpoints are ready; gives these. One that is published and not ready gets no traffic.
    pub async fn until_endpoints(&self, name: &str, count: usize) -> Result<Vec<Endpoint>> {
        wait::until(&format!("{count} ready endpoints of {name}"), DEADLINE, async || {
            let mut found = endpoints(&self.client, NAMESPACE, name).await?;
            found.retain(|endpoint| endpoint.ready);
            let is_so = found.len() == count;
            Ok(if is_so { Seen::Done(found) } else { Seen::NotYet(format!("{found:?}")) })
        })
        .await
    }

    /// The answer of a published endpoint. Polls, because an endpoint may be about to leave.
    pub async fn until_answer(&self, name: &str, question: &str) -> Result<String> {
        wait::until(&format!("an answer of {name}"), DEADLINE, async || {
            let found = endpoints(&self.client, NAMESPACE, name).await?;
            let endpoint = found.iter().find(|endpoint| endpoint.ready).context("no ready endpoint")?;
            let client = ChatClient::new(endpoint.address, Some(&self.lab.key))?;
            Ok(Seen::Done(client.stream(name, question, |_| ()).await?.text))
        })
        .await
    }

    pub fn deployments(&self) -> Api<ModelDeployment> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    /// The replicas of a deployment, whatever they do.
    pub async fn replicas(&self, deployment: &str) -> Result<Vec<ModelReplica>> {
        let replicas: Api<ModelReplica> = Api::namespaced(self.client.clone(), NAMESPACE);
        let of_it = ListParams::default().fields(&format!("spec.deployment={deployment}"));
        Ok(replicas.list(&of_it).await?.items)
    }

    /// Process ids of the engines on all Sparks.
    pub fn engine_pids(&self) -> Result<Vec<u32>> {
        let mut pids = Vec::new();
        for spark in &self.sparks {
            pids.extend(spark.engine_pids()?);
        }
        Ok(pids)
    }
}

fn deployment(name: &str, spec: &Value) -> String {
    json!({
        "apiVersion": "sparkherd.dev/v1alpha1", "kind": "ModelDeployment",
        "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec,
    })
    .to_string()
}
