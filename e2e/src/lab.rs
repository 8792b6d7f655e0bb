//! A whole lab on one machine: the chart installed by Helm, and as processes what its Pods would run, each with the
//! token its Pod would have.

use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Secret;
use kube::api::Api;
use serde_json::json;

use crate::Progress;
use crate::chart::{Helm, NAMESPACE, RELEASE};
use crate::cluster::Cluster;
use crate::network::{SLOTS, SparkNetwork, free_port};
use crate::process::{self, Process, Program};
use crate::wait::{self, Seen};
use crate::{kubeconfig, node};

/// The chart's objects take effect within seconds; a machine that compiles at the same time needs more.
const INSTALL_DEADLINE: Duration = Duration::from_mins(2);
/// A node selector that no node matches: the Pods stay objects, and we run what they would run.
const NO_NODE: &str = "sparkherd.dev/runs-as-a-process";

/// A cluster with the chart installed and an operator running.
#[derive(Debug)]
pub struct Lab {
    pub cluster: Cluster,
    /// The lab's API key, as the chart made it.
    pub key: String,
    operator: Program,
    running_operator: Mutex<Process>,
    next_slot: AtomicU8,
}

/// What differs between fake Sparks.
#[derive(Debug, Clone)]
pub struct SparkOptions {
    /// What the agent takes for the whole memory of its machine.
    pub memory_total: String,
    /// Folders below which `file://` models may lie.
    pub model_roots: Vec<PathBuf>,
    /// Folder of scripts: an engine for which there is one is played from it.
    pub fake_engines: Option<PathBuf>,
}

/// A fake Spark: a Node object, a network namespace and an agent.
#[derive(Debug)]
pub struct Spark {
    pub name: String,
    pub network: SparkNetwork,
    /// With the agent's own, node-bound identity.
    pub kubeconfig: PathBuf,
    pub store: PathBuf,
    agent: Program,
    running_agent: Process,
}

impl Lab {
    /// Installs the chart and starts the operator. The Sparks come later, in any number up to 63.
    pub async fn start(cluster: Cluster, progress: Progress<'_>) -> Result<Self> {
        progress("installing the chart");
        let nowhere = json!({NO_NODE: "true"});
        let values = json!({"operator": {"nodeSelector": nowhere}, "agent": {"nodeSelector": nowhere}});
        Helm::new(&cluster).install(&values)?;
        let client = cluster.client().await?;
        let key = lab_key(&client, &cluster).await?;
        let operator = operator_program(&client, &cluster).await?;
        let running_operator = Mutex::new(cluster.spawn(&operator)?);
        Ok(Self { cluster, key, operator, running_operator, next_slot: AtomicU8::new(1) })
    }

    /// Adds a Spark with the next free name (`spark-1`, `spark-2`, …) and starts its agent.
    pub async fn add_spark(&self, options: &SparkOptions) -> Result<Spark> {
        let slot = self.next_slot.fetch_add(1, Ordering::Relaxed);
        let (name, client) = (spark_name(slot), self.cluster.client().await?);
        let network = self.cluster.network.add_spark(&self.cluster.teardown, slot)?;
        let node = node::create(&client, &name).await?;
        let token = node::token(&client, NAMESPACE, &format!("{RELEASE}-agent"), Some(&node)).await?;
        let kubeconfig = self.cluster.work.join(format!("{name}.kubeconfig"));
        kubeconfig::write_for(&kubeconfig, &self.cluster.kubeconfig, &token)?;
        let store = self.cluster.work.join(format!("{name}.store"));
        fs::create_dir_all(&store)?;
        let mut agent = Program::new(format!("agent-{name}"), &self.cluster.toolchain.sparkherd)
            .arg("agent")
            .arg(format!("--node-name={name}"))
            .arg(format!("--namespace={NAMESPACE}"))
            .arg(format!("--kubeconfig={}", kubeconfig.display()))
            .arg(format!("--store={}", store.display()))
            .arg(format!("--memory-total={}", options.memory_total))
            .arg(format!("--admin-address=0.0.0.0:{}", network.admin_port))
            .arg("--engine-address=0.0.0.0")
            .arg(format!("--engine-ports={}-{}", network.engine_ports.start(), network.engine_ports.end()))
            .in_namespace(network.namespace.as_deref());
        for root in &options.model_roots {
            agent = agent.arg(format!("--allow-root={}", root.display()));
        }
        if let Some(folder) = &options.fake_engines {
            agent = agent.arg(format!("--fake-engines={}", folder.display()));
        }
        let running_agent = self.cluster.spawn(&agent)?;
        Ok(Spark { name, network, kubeconfig, store, agent, running_agent })
    }

    /// Kills the operator, as the kernel would.
    pub fn kill_operator(&self) -> Result<()> {
        self.operator().kill()
    }

    /// Starts another one, as a Deployment would.
    pub fn start_operator(&self) -> Result<()> {
        *self.operator() = self.cluster.spawn(&self.operator)?;
        Ok(())
    }

    /// An error with the end of its log if the operator has ended.
    pub fn expect_operator(&self) -> Result<()> {
        self.operator().expect_running()
    }

    fn operator(&self) -> std::sync::MutexGuard<'_, Process> {
        self.running_operator.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Spark {
    /// Kills the agent, as the kernel would.
    pub fn kill_agent(&mut self) -> Result<()> {
        self.running_agent.kill()
    }

    /// Starts another one, as the chart's set of daemons would.
    pub fn start_agent(&mut self, lab: &Lab) -> Result<()> {
        self.running_agent = lab.cluster.spawn(&self.agent)?;
        Ok(())
    }

    /// An error with the end of its log if the agent has ended.
    pub fn expect_agent(&mut self) -> Result<()> {
        self.running_agent.expect_running()
    }

    pub fn agent_pid(&self) -> u32 {
        self.running_agent.pid()
    }

    /// Process ids of the agent's engines.
    pub fn engine_pids(&self) -> Result<Vec<u32>> {
        let mut pids = process::children(self.agent_pid())?;
        // One that ends in this moment has no arguments any more.
        pids.retain(|pid| {
            let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            arguments.split(|byte| *byte == 0).nth(1) == Some(b"engine")
        });
        Ok(pids)
    }
}

fn spark_name(slot: u8) -> String {
    format!("spark-{slot}")
}

async fn lab_key(client: &kube::Client, cluster: &Cluster) -> Result<String> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), NAMESPACE);
    let secret = secrets.get(&format!("{RELEASE}-key")).await?;
    let mut data = secret.data.unwrap_or_default();
    let mut item = |name: &str| data.remove(name).with_context(|| format!("the lab's Secret has no {name}"));
    fs::write(key_hash_file(cluster), item("key-sha256")?.0)?;
    Ok(String::from_utf8(item("key")?.0)?)
}

/// Where the operator's Pod would mount the one item of the Secret that it may see.
fn key_hash_file(cluster: &Cluster) -> PathBuf {
    cluster.work.join("key-sha256")
}

async fn operator_program(client: &kube::Client, cluster: &Cluster) -> Result<Program> {
    let account = format!("{RELEASE}-operator");
    let token = wait::until("the operator's ServiceAccount", INSTALL_DEADLINE, async || {
        Ok(Seen::Done(node::token(client, NAMESPACE, &account, None).await?))
    });
    let kubeconfig = cluster.work.join("operator.kubeconfig");
    kubeconfig::write_for(&kubeconfig, &cluster.kubeconfig, &token.await?)?;
    let admin_address = std::net::IpAddr::from(std::net::Ipv4Addr::LOCALHOST);
    let admin_port = free_port(admin_address)?;
    let addresses = (1..SLOTS).map(|slot| {
        let address = cluster.network.spark_address(slot);
        format!("--node-address={}={address}", spark_name(slot))
    });
    Ok(Program::new("operator", &cluster.toolchain.sparkherd)
        .arg("operator")
        .arg(format!("--namespace={NAMESPACE}"))
        .arg(format!("--kubeconfig={}", kubeconfig.display()))
        .arg(format!("--admin-address={admin_address}:{admin_port}"))
        .arg(format!("--key-sha256-file={}", key_hash_file(cluster).display()))
        .args(addresses))
}
