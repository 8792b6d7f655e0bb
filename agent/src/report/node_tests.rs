use sparkherd_crds::{
    ConditionStatus, CpuFacts, EngineFacts, OsFacts, SparkNodeStatus, StoreFacts, find_condition,
};
use sparkherd_footprint::Backend;

use super::{NodeView, node_status};
use crate::fixture::{GIB, moment};
use crate::memory::{Pool, ProcessMemory};

struct Node {
    pool: Pool,
    promised_bytes: u64,
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
        Self { pool, promised_bytes: 0, others: Vec::new(), store, status: None }
    }

    fn told(&mut self, seconds: u64) -> SparkNodeStatus {
        let engine = EngineFacts {
            backend: Backend::Cpu,
            architecture: "x86_64 avx2".to_owned(),
            threads: 2,
            runtime_host_bytes: 1,
            runtime_device_bytes: 0,
        };
        let view = NodeView {
            now: moment(seconds),
            generation: Some(1),
            pool: self.pool,
            promised_bytes: self.promised_bytes,
            others: &self.others,
            engine: &engine,
            store: Some(&self.store),
            gpu: None,
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
    node.others = vec![ProcessMemory { name: "jupyter".to_owned(), resident_bytes: GIB }];
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
    node.others = vec![ProcessMemory { name: "jupyter".to_owned(), resident_bytes: 60 * GIB }];
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
