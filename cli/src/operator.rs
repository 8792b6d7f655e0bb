use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use anyhow::Context as _;
use jiff::SignedDuration;
use sparkherd_operator::OperatorConfig;
use sparkherd_planner::NodeName;

use crate::cluster;

/// Reconciles ModelDeployments onto Spark nodes.
#[derive(Debug, clap::Args)]
pub(crate) struct OperatorArgs {
    /// Namespace of the agents' Leases and Pods
    #[arg(long, default_value = "sparkherd-system")]
    namespace: String,
    /// How to reach the API server, where it is not the one of this Pod
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// Where /healthz, /readyz, /metrics and /plan answer
    #[arg(long, default_value = "127.0.0.1:9471")]
    admin_address: SocketAddr,
    /// Where a node's engines answer, in place of its agent's Pod; may be given for each node
    #[arg(long, value_name = "NODE=IP", value_parser = node_address)]
    node_address: Vec<(NodeName, IpAddr)>,
    /// File with the SHA-256 of the lab's key, hexadecimal, one a line
    #[arg(long)]
    key_sha256_file: Option<PathBuf>,
    /// Nobody needs a key
    #[arg(long)]
    allow_anonymous: bool,
    /// Seconds after which an agent that was not heard counts as unreachable
    #[arg(long, default_value_t = 40)]
    heartbeat_stale_seconds: u32,
    /// Seconds after which what ran on an unreachable node is placed elsewhere
    #[arg(long, default_value_t = 300)]
    node_lost_seconds: u32,
}

pub(crate) fn run(args: OperatorArgs) -> anyhow::Result<()> {
    // Destructured whole: no flag is forgotten.
    let OperatorArgs {
        namespace,
        kubeconfig,
        admin_address,
        node_address,
        key_sha256_file,
        allow_anonymous,
        heartbeat_stale_seconds,
        node_lost_seconds,
    } = args;
    let config = OperatorConfig {
        namespace,
        admin_address,
        node_addresses: node_address.into_iter().collect::<BTreeMap<_, _>>(),
        key_sha256_file,
        allow_anonymous,
        heartbeat_stale_after: SignedDuration::from_secs(i64::from(heartbeat_stale_seconds)),
        node_lost_after: SignedDuration::from_secs(i64::from(node_lost_seconds)),
    };
    let runtime = tokio::runtime::Runtime::new().context("failed to start the runtime")?;
    runtime.block_on(async {
        let client = cluster::client(kubeconfig.as_deref()).await?;
        sparkherd_operator::run(client, config, jiff::Timestamp::now, cluster::terminated()?)
            .await
            .context("operator")
    })
}

fn node_address(text: &str) -> Result<(NodeName, IpAddr), String> {
    let (node, address) = text.split_once('=').ok_or("expected NODE=IP")?;
    let address = address.parse().map_err(|_| format!("{address:?} is not an IP address"))?;
    Ok((NodeName::new(node), address))
}
