//! `sparkherd agent`: one per Spark.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use sparkherd_agent::kubernetes::{self, Clients, Identity};
use sparkherd_agent::{Agent, AgentConfig, PortRange, bind_admin, child_environment, link};
use sparkherd_crds::parse_quantity;
use sparkherd_gpu::GpuSource as _;

use crate::cluster;
use crate::gpu::{BackendArg, GpuArgs};

/// The last statuses of an agent that ends get this long; then the operator finds out by the Lease.
const LAST_WORDS_LIMIT: Duration = Duration::from_secs(5);

/// Runs the engines of one Spark and reports what it sees.
#[derive(Debug, clap::Args)]
pub(crate) struct AgentArgs {
    /// Name of this Spark: its Node's, where there is one
    #[arg(long)]
    node_name: String,
    /// Namespace of the operator; this agent's Lease lies there
    #[arg(long, default_value = "sparkherd-system")]
    namespace: String,
    /// How to reach the API server, where it is not the one of this Pod
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// Directory of the model store; the agent writes nowhere else
    #[arg(long)]
    store: PathBuf,
    /// Directory that file:// models may lie in; may be given several times
    #[arg(long = "allow-root", value_name = "DIR", required = true)]
    allow_roots: Vec<PathBuf>,
    /// Pretend the machine has this much memory and only our engines use it, for example 8Gi
    #[arg(long, value_parser = quantity)]
    memory_total: Option<u64>,
    /// Where /healthz and /metrics answer
    #[arg(long, default_value = "0.0.0.0:9470")]
    admin_address: SocketAddr,
    /// Address engines listen on
    #[arg(long, default_value = "0.0.0.0")]
    engine_address: IpAddr,
    /// Ports engines listen on
    #[arg(long, default_value = "8100-8163")]
    engine_ports: PortRange,
    /// procfs of the host
    #[arg(long, default_value = "/proc")]
    proc_root: PathBuf,
    /// For tests: where a file <namespace>.<deployment> lies here, the engine follows it as a script instead of loading
    #[arg(long, value_name = "DIR")]
    fake_engines: Option<PathBuf>,
    /// What engines compute on
    #[arg(long, value_enum, default_value_t = BackendArg::Auto)]
    backend: BackendArg,
    #[command(flatten)]
    gpu: GpuArgs,
}

pub(crate) fn run(args: AgentArgs) -> anyhow::Result<()> {
    // Destructured whole: no flag is forgotten.
    let AgentArgs {
        node_name,
        namespace,
        kubeconfig,
        store,
        allow_roots,
        memory_total,
        admin_address,
        engine_address,
        engine_ports,
        proc_root,
        fake_engines,
        backend,
        gpu,
    } = args;
    let nvml = gpu.nvml();
    let config = AgentConfig {
        child_environment: child_environment(std::env::vars_os()),
        node_name: node_name.clone(),
        program: std::env::current_exe().context("cannot find this program")?,
        store,
        roots: allow_roots,
        memory_total_bytes: memory_total,
        engine_address,
        engine_ports,
        proc_root,
        engine_arguments: gpu.arguments(),
        backend: gpu.wish(backend, &nvml.read()),
        gpu: Arc::new(nvml),
        fake_engines,
    };
    let runtime = tokio::runtime::Runtime::new().context("failed to start the runtime")?;
    runtime.block_on(async {
        let ending = cluster::terminated()?;
        let clients = Clients::connect(kubeconfig.as_deref()).await?;
        let agent = Agent::new(config).context("agent")?;
        let identity = Identity { node_name, namespace, incarnation: agent.incarnation().to_owned() };
        let (metrics, health) = (agent.metrics(), agent.health());
        let (_, admin) = bind_admin(admin_address, metrics.clone(), health.clone()).await?;
        tokio::spawn(admin);
        let (agent_link, source_link) = link();
        let reporting = tokio::spawn(async move {
            Box::pin(kubernetes::run(&identity, clients, source_link, &health, &metrics)).await;
        });
        Box::pin(agent.run(agent_link, ending)).await;
        if tokio::time::timeout(LAST_WORDS_LIMIT, reporting).await.is_err() {
            tracing::warn!("the API server did not take the last statuses in time");
        }
        Ok(())
    })
}

fn quantity(text: &str) -> Result<u64, String> {
    parse_quantity(text).map_err(|error| error.to_string())
}
