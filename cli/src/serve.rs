//! `sparkherd serve`: the same YAML on one machine, without Kubernetes.

mod files;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;
use sparkherd_agent::{
    Agent, AgentConfig, Desired, ModelKey, Observed, PortRange, ReplicaKey, SourceLink, link,
};
use sparkherd_crds::{ModelDeployment, find_condition, parse_quantity};
use sparkherd_engine::backend::cpu::Path as CpuPath;
use sparkherd_gpu::GpuSource as _;
use sparkherd_operator::LocalCluster;
use sparkherd_planner::Policy;
use sparkherd_server::front::{self, Routes};
use tokio::net::TcpListener;
use tracing::info;

use crate::cluster;
use crate::gpu::{BackendArg, GpuArgs};
use files::Files;

/// Name of the one node there is.
const NODE: &str = "local";

/// How often files are looked at and time-outs are thought of; the agent's news come at once.
const TICK: Duration = Duration::from_secs(1);

/// Serves the ModelDeployments of YAML files on this machine, on one port, without Kubernetes.
#[derive(Debug, clap::Args)]
pub(crate) struct ServeArgs {
    /// Files with ModelDeployments, or directories of such files; watched for changes
    #[arg(required = true, value_name = "FILE_OR_DIR")]
    paths: Vec<PathBuf>,
    /// Where to answer; anything but loopback needs --key-hash or --allow-anonymous
    #[arg(long, default_value = "127.0.0.1:8000")]
    listen: SocketAddr,
    /// SHA-256 of an API key, hexadecimal (`sparkherd key` prints one); may be given several times
    #[arg(long, value_parser = key_hash)]
    key_hash: Vec<String>,
    /// Nobody needs a key
    #[arg(long)]
    allow_anonymous: bool,
    /// Directory of the model store
    #[arg(long, default_value = "/var/lib/sparkherd")]
    store: PathBuf,
    /// Directory that file:// models may lie in; may be given several times
    #[arg(long = "allow-root", value_name = "DIR", default_value = "/")]
    allow_roots: Vec<PathBuf>,
    /// Pretend the machine has this much memory and only our engines use it, for example 8Gi
    #[arg(long, value_parser = quantity)]
    memory_total: Option<u64>,
    /// Loopback ports engines listen on
    #[arg(long, default_value = "8100-8163")]
    engine_ports: PortRange,
    /// Compute with these instructions instead of those measured as the fastest, for example avx2
    #[arg(long, value_name = "NAME")]
    cpu_path: Option<CpuPath>,
    /// What engines compute on
    #[arg(long, value_enum, default_value_t = BackendArg::Auto)]
    backend: BackendArg,
    #[command(flatten)]
    gpu: GpuArgs,
}

pub(crate) fn run(args: ServeArgs) -> anyhow::Result<()> {
    // Destructured whole: no flag is forgotten.
    let ServeArgs {
        paths,
        listen,
        key_hash,
        allow_anonymous,
        store,
        allow_roots,
        memory_total,
        engine_ports,
        cpu_path,
        backend,
        gpu,
    } = args;
    ensure!(
        listen.ip().is_loopback() || !key_hash.is_empty() || allow_anonymous,
        "{listen} can be reached by others: give --key-hash, or --allow-anonymous if nobody needs a key"
    );
    let policy = Policy {
        heartbeat_stale_after: SignedDuration::from_secs(40),
        node_lost_after: SignedDuration::from_mins(5),
        // Who is on this machine may ask, as long as no key says otherwise.
        allow_anonymous: allow_anonymous || key_hash.is_empty(),
        key_hashes: key_hash,
    };
    let engine_address = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let nvml = gpu.nvml();
    let config = AgentConfig {
        child_environment: sparkherd_agent::child_environment(std::env::vars_os()),
        node_name: NODE.to_owned(),
        program: std::env::current_exe().context("cannot find this program")?,
        store,
        roots: allow_roots,
        memory_total_bytes: memory_total,
        engine_address,
        engine_ports,
        proc_root: PathBuf::from("/proc"),
        engine_arguments: cpu_path
            .map(|path| ["--cpu-path".into(), path.name().into()])
            .into_iter()
            .flatten()
            .chain(gpu.arguments())
            .collect(),
        backend: gpu.wish(backend, &nvml.read()),
        gpu: Arc::new(nvml),
        fake_engines: None,
    };
    let mut files = Files::new(paths);
    // A file that is wrong at the start is a mistake to see at once; later it is logged and the rest goes on.
    files.read().context("nothing is served")?;
    let cluster = LocalCluster::new(NODE, engine_address, policy);
    tokio::runtime::Runtime::new()
        .context("failed to start the runtime")?
        .block_on(serve(config, files, cluster, listen))
}

async fn serve(
    config: AgentConfig,
    files: Files,
    cluster: LocalCluster,
    listen: SocketAddr,
) -> anyhow::Result<()> {
    let listener = TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    let agent = Agent::new(config).context("agent")?;
    let routes = Routes::default();
    let (agent_link, source) = link();
    let local = Local {
        incarnation: agent.incarnation().to_owned(),
        files,
        cluster,
        source,
        routes: routes.clone(),
        complaint: None,
        said: BTreeMap::new(),
    };
    info!(url = format!("http://{}/v1", listener.local_addr()?), "serving");
    let (end, ended) = tokio::sync::watch::channel(false);
    let until_ended = |mut ended: tokio::sync::watch::Receiver<bool>| async move {
        // A sender that is gone has ended too.
        let _ = ended.wait_for(|ended| *ended).await;
    };
    let terminated = cluster::terminated()?;
    let signals = async move {
        terminated.await;
        let _ = end.send(true);
    };
    let ((), (), (), answered) = tokio::join!(
        signals,
        local.work(until_ended(ended.clone())),
        agent.run(agent_link, until_ended(ended.clone())),
        front::serve(listener, routes, until_ended(ended)),
    );
    answered.context("cannot reach engines")
}

struct Local {
    incarnation: String,
    files: Files,
    cluster: LocalCluster,
    source: SourceLink,
    routes: Routes,
    /// Why the files could not be read last time; said once.
    complaint: Option<String>,
    /// The last Ready condition logged of each deployment.
    said: BTreeMap<String, (String, String)>,
}

impl Local {
    async fn work(mut self, ended: impl Future<Output = ()>) {
        tokio::pin!(ended);
        let mut tick = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                () = &mut ended => return,
                _ = tick.tick() => {}
                changed = self.source.observed.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
            }
            self.pass(Timestamp::now());
        }
    }

    fn pass(&mut self, now: Timestamp) {
        match self.files.read() {
            Ok(deployments) => {
                self.complaint = None;
                self.cluster.set_deployments(deployments, now);
            }
            Err(error) => {
                let complaint = format!("{error:#}");
                if self.complaint.as_ref() != Some(&complaint) {
                    tracing::error!(error = complaint, "files not read again: what was served stays");
                    self.complaint = Some(complaint);
                }
            }
        }
        let Observed { replicas, models, node } = self.source.observed.borrow_and_update().as_ref().clone();
        let replicas = replicas
            .into_iter()
            .map(|(ReplicaKey { namespace, name, uid }, status)| ((namespace, name, uid), status))
            .collect();
        let models = models
            .into_iter()
            .map(|(ModelKey { namespace, name, uid }, status)| ((namespace, name, uid), status))
            .collect();
        self.cluster.report(&self.incarnation, node, &replicas, &models, now);
        let _ = self.cluster.pass(now);
        self.source.desired.send_replace(Arc::new(self.desired()));
        let routes = self.cluster.routes();
        let by_name = routes.iter().flat_map(|route| {
            route.served_names.iter().map(|name| (name.clone(), SocketAddr::new(route.address, route.port)))
        });
        self.routes.set(by_name.collect());
        self.say();
    }

    fn desired(&self) -> Desired {
        let world = self.cluster.world();
        Desired {
            synced: true,
            connected: true,
            replicas: world
                .replicas
                .iter()
                .map(|object| {
                    let key = ReplicaKey {
                        namespace: object.namespace().unwrap_or_default(),
                        name: object.name_any(),
                        uid: object.uid().unwrap_or_default(),
                    };
                    (key, Arc::clone(object))
                })
                .collect(),
            models: world
                .models
                .iter()
                .map(|object| {
                    let key = ModelKey {
                        namespace: object.namespace().unwrap_or_default(),
                        name: object.name_any(),
                        uid: object.uid().unwrap_or_default(),
                    };
                    (key, Arc::clone(object))
                })
                .collect(),
            node: world.nodes.first().cloned(),
        }
    }

    /// One line for each deployment whose state is new: what `kubectl get` shows elsewhere.
    fn say(&mut self) {
        for object in &self.cluster.world().deployments {
            let Some(ready) =
                object.status.as_ref().and_then(|status| find_condition(&status.conditions, "Ready"))
            else {
                continue;
            };
            let news = (format!("{:?}", ready.status), ready.reason.clone());
            if self.said.get(&key(object)) != Some(&news) {
                info!(
                    deployment = key(object),
                    ready = news.0,
                    reason = news.1,
                    message = ready.message,
                    "status"
                );
                self.said.insert(key(object), news);
            }
        }
    }
}

fn key(object: &ModelDeployment) -> String {
    format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any())
}

fn quantity(text: &str) -> Result<u64, String> {
    parse_quantity(text).map_err(|error| error.to_string())
}

fn key_hash(text: &str) -> Result<String, String> {
    let is_hash = text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if is_hash { Ok(text.to_owned()) } else { Err("expected 64 lower-case hexadecimal digits".to_owned()) }
}
