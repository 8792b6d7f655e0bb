use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sparkherd_crds::StoreFacts;
use sparkherd_footprint::Platform;
use sparkherd_gpu::GpuSource;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use crate::backend::{BackendError, BackendWish};
use crate::clock::Clock;
use crate::engine::EngineId;
use crate::gpu_watch::GpuWatch;
use crate::guard::Guard;
use crate::health::Health;
use crate::incarnation::{IncarnationError, new_incarnation};
use crate::machine::{MachineFacts, cores};
use crate::memory::{MemoryProbe, Pools, ProbeError, ProcessMemory};
use crate::metrics::Metrics;
use crate::ports::PortRange;
use crate::record::Record;
use crate::report::ModelRole;
use crate::source::{AgentLink, Desired, Observed};
use crate::store::{Inspector, ModelCopy, Roots};
use crate::supervise::{EngineHandle, EngineNews, EngineProgram, Ledger, SpawnError, Spawner, Supervisor};
use crate::survey::Finding;
use crate::wanted::{ModelKey, ReplicaKey};

/// How often the loop goes round when nothing happens: deadlines and memory are looked at this often.
const TICK: Duration = Duration::from_millis(500);

/// News of engines that may wait; each speaks about once a second and the loop takes them in all at once.
const NEWS_MAX: usize = 1024;

/// What the agent is told at start.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    pub node_name: String,
    /// The `sparkherd` binary: `PROGRAM engine …` and `PROGRAM inspect …` are its children.
    pub program: PathBuf,
    pub store: PathBuf,
    /// Where `file://` sources may lie.
    pub roots: Vec<PathBuf>,
    /// Set: pretend the machine has this much, and only our engines use it.
    pub memory_total_bytes: Option<u64>,
    pub engine_address: IpAddr,
    pub engine_ports: PortRange,
    /// procfs of the host.
    pub proc_root: PathBuf,
    /// All that engines and inspectors see of the environment: see [`crate::child_environment`].
    pub child_environment: Vec<(OsString, OsString)>,
    /// What every engine is started with beside its configuration.
    pub engine_arguments: Vec<OsString>,
    /// What engines are to compute on.
    pub backend: BackendWish,
    /// Who is asked about GPUs.
    pub gpu: Arc<dyn GpuSource>,
    /// Test hook: `DIR/<namespace>.<deployment>[.context-<tokens>]` is the script of a fake engine.
    pub fake_engines: Option<PathBuf>,
}

#[derive(Debug, Error)]
pub enum AgentError {
    #[error(transparent)]
    Memory(#[from] ProbeError),
    #[error(transparent)]
    Incarnation(#[from] IncarnationError),
    #[error("cannot use the store {path}: {source}")]
    Store { path: PathBuf, source: std::io::Error },
    #[error("cannot start a thread: {0}")]
    Thread(#[source] std::io::Error),
    #[error(transparent)]
    Metrics(#[from] prometheus::Error),
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    #[error(transparent)]
    Backend(#[from] BackendError),
}

/// One agent: see the crate's documentation for its loop.
#[derive(Debug)]
pub struct Agent {
    pub(crate) config: AgentConfig,
    pub(crate) incarnation: String,
    pub(crate) platform: Platform,
    pub(crate) machine: MachineFacts,
    pub(crate) default_reserve_bytes: u64,
    pub(crate) host_total_bytes: u64,
    pub(crate) roots: Roots,
    pub(crate) clock: Clock,
    pub(crate) probe: MemoryProbe,
    pub(crate) guard: Guard,
    pub(crate) gpu: GpuWatch,
    pub(crate) supervisor: Supervisor,
    pub(crate) inspector: Inspector,
    pub(crate) metrics: Metrics,
    pub(crate) health: Arc<Health>,
    pub(crate) state: State,
    news: mpsc::Receiver<EngineNews>,
    pub(crate) findings: (mpsc::Sender<Finding>, mpsc::Receiver<Finding>),
}

/// All that the loop remembers.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub records: BTreeMap<ReplicaKey, Record>,
    pub handles: BTreeMap<EngineId, EngineHandle>,
    pub next_engine: u64,
    pub copies: BTreeMap<ModelKey, ModelCopy>,
    pub roles: BTreeMap<ModelKey, ModelRole>,
    /// A cheap look at the sources is under way.
    pub looking: bool,
    /// When the next look is due.
    pub look_at: Duration,
    /// Headers are being read; one model at a time.
    pub inspecting: bool,
    pub pools: Pools,
    pub store: Option<StoreFacts>,
    pub others: Vec<ProcessMemory>,
    pub ending: bool,
    pub observed: Observed,
}

impl Agent {
    /// Opens the store, kills engines of an earlier life, starts the threads. Must be called inside a tokio runtime.
    pub fn new(config: AgentConfig) -> Result<Self, AgentError> {
        let own_proc = PathBuf::from("/proc");
        let page_bytes = rustix::param::page_size() as u64;
        let probe = MemoryProbe::new(&config.proc_root, &own_proc, page_bytes, config.memory_total_bytes);
        let sample = probe.sample(&[])?;
        let store_error = |source| AgentError::Store { path: config.store.clone(), source };
        let ledger = Ledger::open(&config.store, &own_proc).map_err(store_error)?;
        ledger.kill_survivors().map_err(store_error)?;
        let spawner = Spawner::start(config.child_environment.clone()).map_err(AgentError::Thread)?;
        let (news_sender, news) = mpsc::channel(NEWS_MAX);
        let gpus = config.gpu.read();
        let platform = config.backend.platform(cores(), &gpus)?;
        let default_reserve_bytes = crate::memory::default_reserve_bytes(probe.machine(), sample.total_bytes);
        let incarnation = new_incarnation()?;
        tracing::info!(
            node = config.node_name,
            incarnation,
            total_bytes = sample.total_bytes,
            backend = ?platform.backend,
            gpu = gpus.as_ref().err().map(ToString::to_string),
            "agent begins"
        );
        let engine =
            EngineProgram { program: config.program.clone(), arguments: config.engine_arguments.clone() };
        Ok(Self {
            machine: MachineFacts::read(&config.proc_root, &probe, &platform, &gpus),
            gpu: GpuWatch::start(Arc::clone(&config.gpu), &gpus).map_err(AgentError::Thread)?,
            supervisor: Supervisor::new(spawner.clone(), engine, ledger, news_sender),
            inspector: Inspector::new(spawner, config.program.clone()),
            roots: Roots::new(config.roots.clone()),
            clock: Clock::start(),
            guard: Guard::start(probe.clone()).map_err(AgentError::Thread)?,
            metrics: Metrics::new()?,
            health: Arc::new(Health::new()),
            state: State::default(),
            findings: mpsc::channel(NEWS_MAX),
            news,
            platform,
            default_reserve_bytes,
            host_total_bytes: sample.total_bytes,
            incarnation,
            probe,
            config,
        })
    }

    /// This life of the agent.
    pub fn incarnation(&self) -> &str {
        &self.incarnation
    }

    pub fn metrics(&self) -> Metrics {
        self.metrics.clone()
    }

    pub fn health(&self) -> Arc<Health> {
        Arc::clone(&self.health)
    }

    /// What engines here are started with.
    pub const fn platform(&self) -> &Platform {
        &self.platform
    }

    /// Goes round until `ending` resolves or the source is gone and the engines have drained.
    pub async fn run(mut self, mut link: AgentLink, ending: impl Future<Output = ()> + Send) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ending = std::pin::pin!(ending);
        let mut source_gone = false;
        loop {
            tokio::select! {
                biased;
                () = &mut ending, if !self.state.ending => self.state.ending = true,
                changed = link.desired.changed(), if !source_gone => source_gone = changed.is_err(),
                Some(news) = self.news.recv() => self.hear(news),
                Some(finding) = self.findings.1.recv() => self.found(finding),
                _ = tick.tick() => {}
            }
            self.state.ending |= source_gone;
            while let Ok(news) = self.news.try_recv() {
                self.hear(news);
            }
            let desired: Arc<Desired> = Arc::clone(&link.desired.borrow_and_update());
            self.pass(&desired).await;
            self.publish(&link);
            if self.state.ending && self.state.records.values().all(|record| record.engine.is_none()) {
                break;
            }
        }
        tracing::info!("agent ends, no engine is left");
    }

    fn publish(&self, link: &AgentLink) {
        link.observed.send_if_modified(|published| {
            let changed = **published != self.state.observed;
            if changed {
                *published = Arc::new(self.state.observed.clone());
            }
            changed
        });
    }
}

impl Drop for Agent {
    /// No engine outlives its agent (I3).
    fn drop(&mut self) {
        for handle in self.state.handles.values() {
            handle.kill(crate::engine::KillReason::AgentEnding);
        }
    }
}
