//! Engines on CUDA: which memory they are admitted to, and who says what they hold.

use std::sync::{Arc, Mutex};

use sparkherd_agent::BackendWish;
use sparkherd_crds::{MemoryDomain, PoolKind, SparkNodeStatus};
use sparkherd_footprint::Backend;
use sparkherd_gpu::{Gpu, GpuError, GpuMemory, GpuProcess, GpuReport, GpuSource};

use crate::lab::{Lab, eventually, number_in};
use crate::{GOOD, MIB};

const GIB: u64 = 1 << 30;

/// A driver that says what a test has told it.
#[derive(Debug)]
struct Script(Mutex<Gpu>);

impl GpuSource for Script {
    fn read(&self) -> Result<GpuReport, GpuError> {
        let gpu = self.0.lock().map_err(|error| GpuError::Driver(error.to_string()))?.clone();
        Ok(GpuReport { driver: Some("580.95.05".to_owned()), cuda: None, gpus: vec![gpu] })
    }
}

/// A lab whose engines compute on this GPU.
fn lab(gpu: Gpu) -> (Lab, Arc<Script>) {
    let script = Arc::new(Script(Mutex::new(gpu)));
    let source: Arc<dyn GpuSource> = Arc::<Script>::clone(&script);
    (Lab::with_gpu(BackendWish::Auto, source), script)
}

async fn node(lab: &mut Lab) -> SparkNodeStatus {
    lab.until("node", |observed| observed.node.clone()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_of_its_own_is_a_pool_that_engines_are_admitted_to() {
    let memory = GpuMemory { total_bytes: 8 * GIB, used_bytes: 2 * GIB, free_bytes: 6 * GIB };
    let (mut lab, _) = lab(Gpu {
        name: Some("NVIDIA H200".to_owned()),
        compute_capability: Some((9, 0)),
        memory: Some(memory),
        ..Gpu::default()
    });
    for name in ["first", "second"] {
        let source = lab.weights(name, "d1", GOOD);
        lab.model(name, &source);
    }
    let first = lab.replica("first", 100 * MIB);
    lab.edit(&first, |replica| replica.spec.footprint.device_bytes = 4 * GIB);
    lab.until_ready(&first).await;
    let status = node(&mut lab).await;
    let facts = status.engine.unwrap();
    assert_eq!((facts.backend, facts.architecture.as_str()), (Backend::Cuda, "sm_90"));
    assert_eq!(status.gpu.unwrap().driver.as_deref(), Some("580.95.05"));
    let memory = status.memory.unwrap();
    assert_eq!(memory.domain, MemoryDomain::Device);
    let pools: Vec<_> = memory
        .pools
        .iter()
        .map(|pool| (pool.pool, pool.total_bytes / GIB, pool.promised_bytes / MIB))
        .collect();
    assert_eq!(pools, [(PoolKind::Device, 8, 4096), (PoolKind::Host, 4, 100)]);
    let second = lab.replica("second", 100 * MIB);
    lab.edit(&second, |replica| replica.spec.footprint.device_bytes = 2 * GIB);
    let status = lab.until_replica(&second, "refusal", |status| status.refusal.is_some()).await;
    let message = status.refusal.unwrap().message;
    assert!(
        message.starts_with("GPU memory: needs 2.0 GiB, 1.5 GiB are free here: 6.0 GiB of 8.0 GiB"),
        "{message}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_the_driver_shows_is_held_of_the_one_pool() {
    let (mut lab, script) = lab(Gpu { name: Some("NVIDIA GB10".to_owned()), ..Gpu::default() });
    let pid_file = lab.root.path().join("pid");
    let source = lab.weights("coder", "d1", &format!("echo $$ > {}\n{GOOD}", pid_file.display()));
    lab.model("coder", &source);
    let key = lab.replica("coder", 100 * MIB);
    lab.edit(&key, |replica| replica.spec.footprint.device_bytes = 2 * GIB);
    lab.until_ready(&key).await;
    assert_eq!(node(&mut lab).await.memory.unwrap().domain, MemoryDomain::Unified);
    let pid = number_in(&pid_file).unwrap();
    script.0.lock().unwrap().processes = Some(vec![GpuProcess { pid, bytes: Some(2 * GIB) }]);
    let metrics = lab.metrics.clone();
    eventually("the driver's bytes count as held", || {
        let text = metrics.text().unwrap();
        let held = text
            .lines()
            .find_map(|line| line.strip_prefix(r#"sparkherd_agent_memory_held_bytes{pool="unified"} "#));
        held.and_then(|value| value.parse::<u64>().ok()).is_some_and(|bytes| bytes >= 2 * GIB)
    })
    .await;
}
