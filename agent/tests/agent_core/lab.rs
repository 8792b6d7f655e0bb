//! One agent over a stand-in for the binary, an in-memory source and a directory of models.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sparkherd_agent::{
    Agent, AgentConfig, BackendWish, Desired, Health, Metrics, ModelKey, Observed, ReplicaKey, SourceLink,
    link,
};
use sparkherd_checkpoint::{Architecture, CheckpointFile, Dtype, Facts, Inspection, InspectionOutcome};
use sparkherd_crds::{
    ConditionStatus, Model, ModelNodeStatus, ModelReplica, ModelReplicaStatus, ModelStatus, RunState,
    find_condition,
};
use sparkherd_gpu::{GpuSource, NoGpu};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Generous: nothing here takes long, and a slow machine fails no test.
const PATIENCE: Duration = Duration::from_mins(1);

pub struct Lab {
    pub root: TempDir,
    pub desired: Desired,
    pub link: SourceLink,
    pub health: Arc<Health>,
    pub metrics: Metrics,
    end: Option<oneshot::Sender<()>>,
    pub agent: Option<JoinHandle<()>>,
}

impl Lab {
    /// An agent on a machine of 4 GiB, of which 1 GiB is the reserve.
    pub fn new() -> Self {
        Self::with_gpu(BackendWish::Cpu, Arc::new(NoGpu))
    }

    /// The same, with a GPU.
    pub fn with_gpu(backend: BackendWish, gpu: Arc<dyn GpuSource>) -> Self {
        let root = tempfile::tempdir().unwrap();
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stand_in/sparkherd");
        let config = AgentConfig {
            child_environment: sparkherd_agent::child_environment(std::env::vars_os()),
            node_name: "spark-1".to_owned(),
            program,
            store: root.path().join("store"),
            roots: vec![root.path().join("models")],
            memory_total_bytes: Some(4 << 30),
            engine_address: "127.0.0.1".parse().unwrap(),
            engine_ports: "20100-29999".parse().unwrap(),
            proc_root: PathBuf::from("/proc"),
            engine_arguments: Vec::new(),
            backend,
            gpu,
            fake_engines: None,
        };
        std::fs::create_dir(root.path().join("models")).unwrap();
        let agent = Agent::new(config).unwrap();
        let (health, metrics) = (agent.health(), agent.metrics());
        let (agent_link, source_link) = link();
        let (end, ended) = oneshot::channel::<()>();
        let running = tokio::spawn(agent.run(agent_link, async move {
            let _ = ended.await;
        }));
        let desired = Desired { synced: true, connected: true, ..Desired::default() };
        Self { root, desired, link: source_link, health, metrics, end: Some(end), agent: Some(running) }
    }

    /// Gives the agent what is desired now.
    pub fn apply(&self) {
        self.link.desired.send_replace(Arc::new(self.desired.clone()));
    }

    pub fn end(&mut self) {
        let _ = self.end.take().unwrap().send(());
    }

    /// A directory of weights whose headers read as `digest` and whose engine follows `script`.
    pub fn weights(&self, name: &str, digest: &str, script: &str) -> String {
        let directory = self.root.path().join("models").join(name);
        std::fs::create_dir_all(&directory).unwrap();
        let answer = serde_json::to_string(&InspectionOutcome::Inspection(inspection(digest))).unwrap();
        std::fs::write(directory.join("answer.json"), answer).unwrap();
        std::fs::write(directory.join("engine.sh"), script).unwrap();
        format!("file://{}", directory.display())
    }

    pub fn model(&mut self, name: &str, source: &str) -> ModelKey {
        let key =
            ModelKey { namespace: "lab".to_owned(), name: name.to_owned(), uid: format!("model-{name}") };
        let object: Model = serde_json::from_value(json!({
            "apiVersion": "sparkherd.dev/v1alpha1",
            "kind": "Model",
            "metadata": {"namespace": "lab", "name": name, "uid": key.uid},
            "spec": {"source": source, "resolver": "spark-1", "cacheOn": ["spark-1"]},
        }))
        .unwrap();
        self.desired.models.insert(key.clone(), Arc::new(object));
        key
    }

    /// A replica of model `name`, digest `d1`, with this footprint.
    pub fn replica(&mut self, name: &str, footprint_bytes: u64) -> ReplicaKey {
        let key =
            ReplicaKey { namespace: "lab".to_owned(), name: name.to_owned(), uid: format!("replica-{name}") };
        let parts: Value = json!({"weightsBytes": footprint_bytes, "kvBytes": 0, "stateBytes": 0, "workspaceBytes": 0, "runtimeBytes": 0});
        let object: ModelReplica = serde_json::from_value(json!({
            "apiVersion": "sparkherd.dev/v1alpha1",
            "kind": "ModelReplica",
            "metadata": {"namespace": "lab", "name": name, "uid": key.uid, "generation": 1},
            "spec": {
                "nodeName": "spark-1", "deployment": name, "revision": "r",
                "model": {"name": name, "source": "file:///m", "revision": "d1", "digest": "d1"},
                "serving": {"context": 64, "concurrency": 1, "kvTokens": 64, "kvDtype": "f32"},
                "footprint": {"deviceBytes": 0, "hostBytes": footprint_bytes, "parts": parts},
                "group": {"name": name, "rank": 0, "size": 1},
                "run": "Serve", "attempt": 1, "drainSeconds": 5,
                "access": {"anonymous": true}, "servedNames": [name],
            },
        }))
        .unwrap();
        self.desired.replicas.insert(key.clone(), Arc::new(object));
        key
    }

    pub fn edit(&mut self, key: &ReplicaKey, change: impl FnOnce(&mut ModelReplica)) {
        change(Arc::make_mut(self.desired.replicas.get_mut(key).unwrap()));
        self.apply();
    }

    pub fn stop(&mut self, key: &ReplicaKey) {
        self.edit(key, |replica| replica.spec.run = RunState::Stop);
    }

    /// Waits until the agent has said something that `holds`; fails with its last words.
    pub async fn until<T>(&mut self, what: &str, holds: impl Fn(&Observed) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let observed = Arc::clone(&self.link.observed.borrow_and_update());
            if let Some(value) = holds(&observed) {
                return value;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let changed = tokio::time::timeout(left, self.link.observed.changed()).await;
            assert!(matches!(changed, Ok(Ok(()))), "waited in vain for: {what}; last seen: {observed:#?}");
        }
    }

    pub async fn until_replica(
        &mut self,
        key: &ReplicaKey,
        what: &str,
        holds: impl Fn(&ModelReplicaStatus) -> bool,
    ) -> ModelReplicaStatus {
        self.until(what, |observed| observed.replicas.get(key).filter(|status| holds(status)).cloned()).await
    }

    pub async fn until_ready(&mut self, key: &ReplicaKey) -> ModelReplicaStatus {
        self.until_replica(key, "Ready", |status| holds(status, "Ready")).await
    }

    pub async fn until_copy(
        &mut self,
        key: &ModelKey,
        what: &str,
        holds: impl Fn(&ModelNodeStatus) -> bool,
    ) -> ModelStatus {
        let holds = |status: &&ModelStatus| status.nodes.first().is_some_and(&holds);
        self.until(what, |observed| observed.models.get(key).filter(holds).cloned()).await
    }
}

/// Waits until something outside the agent is so.
pub async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain for: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub fn holds(status: &ModelReplicaStatus, type_: &str) -> bool {
    find_condition(&status.conditions, type_)
        .is_some_and(|condition| condition.status == ConditionStatus::True)
}

pub fn reason(status: &ModelReplicaStatus, type_: &str) -> String {
    find_condition(&status.conditions, type_).map(|condition| condition.reason.clone()).unwrap_or_default()
}

/// The number in a file, once it is there.
pub fn number_in(path: &Path) -> Option<u32> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Whether a process runs: a zombie does not.
pub fn is_running(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z')))
}

fn inspection(digest: &str) -> Inspection {
    Inspection {
        facts: Facts {
            architecture: Architecture::Llama,
            dtype: Dtype::Bf16,
            parameters: 1,
            weight_bytes: 2,
            layers: 1,
            hidden_size: 1,
            intermediate_size: 1,
            attention_heads: 1,
            kv_heads: 1,
            head_dim: 1,
            vocab_size: 1,
            max_context: 64,
            int8_weight_bytes: None,
            tokenizer_bytes: 1,
        },
        files: vec![CheckpointFile { name: "config.json".to_owned(), bytes: 2 }],
        digest: digest.to_owned(),
    }
}

/// Statuses by name, for several replicas at once.
pub fn by_name(observed: &Observed) -> BTreeMap<String, ModelReplicaStatus> {
    observed.replicas.iter().map(|(key, status)| (key.name.clone(), status.clone())).collect()
}
