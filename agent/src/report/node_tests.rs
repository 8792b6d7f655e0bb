use sparkherd_crds::{
    ConditionStatus, CpuFacts, EngineFacts, GpuFacts, MemoryDomain, OsFacts, PoolKind, SparkNodeStatus,
    StoreFacts, find_condition,
};
use sparkherd_footprint::Backend;
use sparkherd_gpu::{Fault, Gpu};

use super::{NodeView, node_status};
use crate::fixture::{GIB, moment};
use crate::gpu_watch::GpuSeen;
use crate::memory::{Pool, PoolBytes, Pools, ProcessMemory};

struct Node {
    pool: Pool,
    device: Option<Pool>,
    promised_bytes: u64,
    promised_device_bytes: u64,
    backend: Backend,
    gpu: Option<GpuFacts>,
    seen: Option<GpuSeen>,
    faults: Vec<Fault>,
    others: Vec<ProcessMemory>,
    store: StoreFacts,
    status: Option<SparkNodeStatus>,
}

impl Node {
    fn new() -> Self {
        let pool = Pool {
            total_bytes: 100 * GIB,
            available_bytes: 80 * GIB,
            held_bytes: 0,
            reserve_bytes: 10 * GIB,
        };
        let store = StoreFacts { total_bytes: 100 * GIB, free_bytes: 50 * GIB, evictable_bytes: 0 };
        Self {
            pool,
            device: None,
            promised_bytes: 0,
            promised_device_bytes: 0,
            backend: Backend::Cpu,
            gpu: None,
            seen: None,
            faults: Vec::new(),
            others: Vec::new(),
            store,
            status: None,
        }
    }

    fn told(&mut self, seconds: u64) -> SparkNodeStatus {
        let engine = EngineFacts {
            backend: self.backend,
            architecture: "x86_64 avx2".to_owned(),
            threads: 2,
            runtime_host_bytes: 1,
            runtime_device_bytes: 0,
        };
        let view = NodeView {
            now: moment(seconds),
            generation: Some(1),
            pools: Pools { host: self.pool, device: self.device },
            promised: PoolBytes { host: self.promised_bytes, device: self.promised_device_bytes },
            others: &self.others,
            engine: &engine,
            store: Some(&self.store),
            gpu: self.gpu.as_ref(),
            gpu_seen: self.seen.as_ref(),
            faults: &self.faults,
            cpu: &CpuFacts { model: "cpu".to_owned(), cores: 2 },
            os: &OsFacts { kernel: "6".to_owned(), release: "os".to_owned() },
            cached: Vec::new(),
            incarnation: "agent-1",
            ending: false,
        };
        let status = node_status(&view, &[], self.status.as_ref());
        self.status = Some(status.clone());
        status
    }
}

fn allocatable_gib(status: &SparkNodeStatus) -> u64 {
    status.memory.as_ref().unwrap().pools[0].allocatable_bytes / GIB
}

fn holds(status: &SparkNodeStatus, type_: &str) -> bool {
    find_condition(&status.conditions, type_).unwrap().status == ConditionStatus::True
}

#[test]
fn memory_is_rewritten_only_when_it_is_news() {
    let mut node = Node::new();
    let first = node.told(0);
    assert_eq!(allocatable_gib(&first), 70);
    assert_eq!(first.memory.as_ref().unwrap().summary, "70.0Gi free of 100.0Gi");
    node.pool.available_bytes -= GIB;
    node.others = vec![ProcessMemory { name: "jupyter".to_owned(), bytes: GIB }];
    assert_eq!(node.told(1), first, "exactly 1 % is noise");
    node.pool.available_bytes -= 1;
    let second = node.told(2);
    assert_eq!((allocatable_gib(&second), second.others.len()), (68, 1));
    node.promised_bytes = 20 * GIB;
    assert_eq!(node.told(3).memory.unwrap().summary, "48.9Gi free of 100.0Gi");
    node.pool.available_bytes += 1;
    node.store.free_bytes = 4 * GIB;
    let fourth = node.told(4);
    assert!(holds(&fourth, "DiskPressure"));
    assert_eq!(allocatable_gib(&fourth), 69, "a condition changed");
}

#[test]
fn pressure_begins_below_the_reserve_and_ends_above_it() {
    let mut node = Node::new();
    node.others = vec![ProcessMemory { name: "jupyter".to_owned(), bytes: 60 * GIB }];
    let mut pressure = |available_gib: u64, at: u64| {
        node.pool.available_bytes = available_gib * GIB;
        let status = node.told(at);
        (
            holds(&status, "MemoryPressure"),
            find_condition(&status.conditions, "MemoryPressure").unwrap().clone(),
        )
    };
    assert!(!pressure(10, 0).0);
    let (is_under_pressure, condition) = pressure(9, 1);
    assert!(is_under_pressure && condition.message.contains("jupyter 60.0 GiB"), "{}", condition.message);
    assert!(pressure(10, 2).0, "the bar to leave is one grain higher");
    assert!(!pressure(11, 3).0);
}

#[test]
fn a_gpu_with_memory_of_its_own_is_a_pool_of_its_own() {
    let mut node = Node::new();
    let device =
        Pool { total_bytes: 140 * GIB, available_bytes: 130 * GIB, held_bytes: 5 * GIB, reserve_bytes: GIB };
    node.device = Some(device);
    node.promised_device_bytes = 34 * GIB;
    let first = node.told(0);
    let memory = first.memory.clone().unwrap();
    assert_eq!((memory.domain, memory.summary.as_str()), (MemoryDomain::Device, "100.0Gi free of 140.0Gi"));
    let kinds: Vec<_> = memory.pools.iter().map(|pool| (pool.pool, pool.allocatable_bytes / GIB)).collect();
    assert_eq!(kinds, [(PoolKind::Device, 134), (PoolKind::Host, 70)]);
    // Noise of either is no news, more of either is.
    node.device = Some(Pool { available_bytes: device.available_bytes - GIB, ..device });
    assert_eq!(node.told(1), first);
    node.pool.available_bytes -= GIB + 1;
    assert_eq!(node.told(2).memory.unwrap().pools[0].allocatable_bytes, 133 * GIB);
}

#[test]
fn a_driver_is_judged_where_engines_use_it() {
    let mut node = Node::new();
    let fault = Fault { what: "driver 590.44.01 blocks for ever".to_owned(), advice: "move to driver 580" };
    node.faults = vec![fault];
    let mut told = |backend, at| {
        node.backend = backend;
        find_condition(&node.told(at).conditions, "DriverSupported").unwrap().clone()
    };
    assert_eq!(told(Backend::Cpu, 0).status, ConditionStatus::True);
    let refused = told(Backend::Cuda, 1);
    assert_eq!((refused.status, refused.reason.as_str()), (ConditionStatus::False, "DriverUnsupported"));
    assert_eq!(refused.message, "driver 590.44.01 blocks for ever: move to driver 580");
    node.faults.clear();
    node.gpu = Some(GpuFacts {
        name: "NVIDIA GB10".to_owned(),
        compute_capability: None,
        driver: Some("580.95.05".to_owned()),
        cuda: None,
    });
    let status = node.told(2);
    let condition = find_condition(&status.conditions, "DriverSupported").unwrap();
    assert_eq!(condition.message, "driver 580.95.05 on kernel 6: no fault of them is known");
}

#[test]
fn a_stuck_clock_is_told_where_there_is_a_gpu() {
    let mut node = Node::new();
    assert!(find_condition(&node.told(0).conditions, "ClockDegraded").is_none());
    let mut told = |clock_degraded, at| {
        node.seen = Some(GpuSeen { gpu: Gpu::default(), clock_degraded, age: std::time::Duration::ZERO });
        find_condition(&node.told(at).conditions, "ClockDegraded").unwrap().clone()
    };
    assert_eq!(told(false, 1).status, ConditionStatus::False);
    let stuck = told(true, 2);
    assert_eq!((stuck.status, stuck.reason.as_str()), (ConditionStatus::True, "ClockDegraded"));
    assert!(stuck.message.contains("unplug the power"), "{}", stuck.message);
}
