use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop, prop_assert, prop_oneof, proptest};
use sparkherd_protocol::Event;

use super::{Starts, Step, World, plan};
use crate::engine::{Engine, Exit, KillReason, Stage};
use crate::fixture::{GIB, engine, key, located, moment, wanted};
use crate::memory::{Pool, PoolBytes, Pools};
use crate::record::{Record, Refused};
use crate::store::Weights;
use crate::wanted::{ReplicaKey, Wanted};

mod pools;

/// A world to change and plan.
struct Bench {
    pool: Pool,
    /// The GPU's own.
    device: Option<Pool>,
    starts: Starts,
    wanted: BTreeMap<ReplicaKey, Wanted>,
    records: BTreeMap<ReplicaKey, Record>,
    weights: BTreeMap<ReplicaKey, Weights>,
    ready: Weights,
}

impl Bench {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let ready = Weights::Ready { located: located(&root, "{}") };
        let pool = Pool {
            total_bytes: 100 * GIB,
            available_bytes: 90 * GIB,
            held_bytes: 0,
            reserve_bytes: 10 * GIB,
        };
        Self {
            pool,
            device: None,
            starts: Starts::All,
            wanted: BTreeMap::new(),
            records: BTreeMap::new(),
            weights: BTreeMap::new(),
            ready,
        }
    }

    fn bind(&mut self, name: &str, footprint_gib: u64) -> ReplicaKey {
        let key = key(name);
        self.wanted.insert(key.clone(), wanted(name, footprint_gib));
        self.records.insert(key.clone(), Record::new(1, None, moment(0)));
        self.weights.insert(key.clone(), self.ready.clone());
        key
    }

    fn start(&mut self, key: &ReplicaKey, id: u64, at: u64) {
        let engine = engine(id, &self.wanted[key], moment(at));
        self.records.get_mut(key).unwrap().started(engine);
    }

    fn hear(&mut self, key: &ReplicaKey, event: Event, at: u64) {
        let record = self.records.get_mut(key).unwrap();
        if record.engine.as_mut().unwrap().heard(event, Duration::from_secs(at)) {
            record.ready();
        }
    }

    fn plan(&self, at: u64) -> Vec<Step> {
        plan(&World {
            now: Duration::from_secs(at),
            pools: Pools { host: self.pool, device: self.device },
            starts: self.starts,
            wanted: &self.wanted,
            records: &self.records,
            weights: &self.weights,
        })
    }

    fn engine(&mut self, key: &ReplicaKey) -> &mut Engine {
        self.records.get_mut(key).unwrap().engine.as_mut().unwrap()
    }
}

fn ready() -> Event {
    Event::Ready {
        address: "127.0.0.1:8100".parse().unwrap(),
        incarnation: "i".to_owned(),
        held_bytes: GIB,
        tokens_per_second: 20.0,
    }
}

fn stats(running: u32, last_step_age_ms: u64) -> Event {
    Event::Stats { running, waiting: 0, generated_tokens: 0, kv_used: 0.0, last_step_age_ms, held_bytes: GIB }
}

#[test]
fn one_engine_starts_at_a_time_oldest_first() {
    let mut bench = Bench::new();
    let (a, b) = (bench.bind("a", 10), bench.bind("b", 10));
    bench.wanted.get_mut(&a).unwrap().created_at = Some(moment(9).wall);
    bench.wanted.get_mut(&b).unwrap().created_at = Some(moment(8).wall);
    assert_eq!(bench.plan(0), [Step::Start { replica: b.clone() }]);
    bench.start(&b, 1, 0);
    assert_eq!(bench.plan(1), []);
    bench.hear(&b, ready(), 2);
    assert_eq!(bench.plan(2), [Step::Start { replica: a }]);
}

#[test]
fn what_does_not_fit_is_refused_and_delays_nobody() {
    let mut bench = Bench::new();
    let (a, b) = (bench.bind("a", 81), bench.bind("b", 80));
    let steps = bench.plan(0);
    let [Step::Refuse { replica, message, allocatable_bytes }, Step::Start { replica: started }] = &steps[..]
    else {
        panic!("{steps:?}")
    };
    assert_eq!((replica, started, *allocatable_bytes), (&a, &b, 80 * GIB));
    assert!(message.contains("needs 81.0 GiB, 80.0 GiB are free here"), "{message}");
    let refused =
        Refused { message: message.clone(), at: moment(0).wall, allocatable_bytes: *allocatable_bytes };
    bench.records.get_mut(&a).unwrap().refused = Some(refused);
    bench.wanted.remove(&b);
    assert_eq!(bench.plan(1), [], "told once");
    bench.pool.available_bytes -= GIB;
    assert_eq!(bench.plan(1), [], "the pool's noise is no news");
    bench.pool.available_bytes -= GIB;
    assert!(matches!(bench.plan(1)[..], [Step::Refuse { .. }]));
    bench.pool.available_bytes = 91 * GIB;
    assert_eq!(bench.plan(1), [Step::Start { replica: a }], "starts as soon as it fits");
}

#[test]
fn waits_for_memory_that_is_on_its_way_back() {
    let mut bench = Bench::new();
    let (a, b) = (bench.bind("a", 50), bench.bind("b", 50));
    bench.start(&a, 1, 0);
    bench.engine(&a).measured(PoolBytes::host(50 * GIB), PoolBytes::host(40 * GIB));
    bench.engine(&a).exited(Duration::from_secs(1), PoolBytes::host(0));
    bench.wanted.get_mut(&a).unwrap().serve = false;
    bench.pool.available_bytes = 40 * GIB;
    assert_eq!(bench.plan(2), [], "neither started nor refused");
    bench.records.get_mut(&a).unwrap().engine = None;
    bench.pool.available_bytes = 90 * GIB;
    assert_eq!(bench.plan(3), [Step::Start { replica: b }]);
}

#[test]
fn starts_only_what_may() {
    let mut bench = Bench::new();
    let a = bench.bind("a", 10);
    bench.starts = Starts::OnlyWhatServed;
    assert_eq!(bench.plan(0), []);
    bench.records.get_mut(&a).unwrap().was_ready = true;
    assert_eq!(bench.plan(0), [Step::Start { replica: a.clone() }]);
    bench.starts = Starts::Nothing;
    assert_eq!(bench.plan(0), []);
    bench.starts = Starts::All;
    bench.records.get_mut(&a).unwrap().retry_at = Some(Duration::from_secs(10));
    assert_eq!((bench.plan(9), bench.plan(10).len()), (vec![], 1));
    let not_ready =
        Weights::NotReady { reason: sparkherd_planner::Reason::Downloading, message: String::new() };
    bench.weights.insert(a, not_ready);
    assert_eq!(bench.plan(10), []);
}

#[test]
fn stops_by_draining_what_serves_and_killing_what_loads() {
    let mut bench = Bench::new();
    let (a, b) = (bench.bind("a", 10), bench.bind("b", 10));
    bench.start(&a, 1, 0);
    bench.hear(&a, ready(), 0);
    bench.start(&b, 2, 0);
    for wanted in bench.wanted.values_mut() {
        wanted.serve = false;
    }
    let id = bench.engine(&a).id;
    let kill_at = Duration::from_secs(75);
    let steps = [
        Step::Drain { replica: a.clone(), engine: id, seconds: 60, kill_at },
        Step::Kill { replica: b.clone(), engine: bench.engine(&b).id, reason: KillReason::Stopped },
    ];
    assert_eq!(bench.plan(0), steps);
    bench.engine(&a).drain(Duration::ZERO, kill_at);
    bench.engine(&b).killed();
    assert_eq!((bench.plan(74), bench.plan(75).len()), (vec![], 1));
    let overdue = KillReason::DrainOverdue { seconds: 75 };
    assert_eq!(bench.plan(75), [Step::Kill { replica: a, engine: id, reason: overdue }]);
}

#[test]
fn orphans_are_killed_first() {
    let mut bench = Bench::new();
    let (a, z) = (bench.bind("a", 10), bench.bind("z", 10));
    for (replica, id) in [(&a, 1), (&z, 2)] {
        bench.start(replica, id, 0);
        bench.hear(replica, ready(), 0);
    }
    bench.wanted.get_mut(&a).unwrap().serve = false;
    bench.wanted.remove(&z);
    let steps = bench.plan(0);
    assert!(
        matches!(&steps[..], [Step::Kill { reason: KillReason::Orphan, replica, .. }, Step::Drain { .. }] if *replica == z)
    );
}

#[test]
fn kills_what_hangs() {
    let mut bench = Bench::new();
    let a = bench.bind("a", 10);
    bench.start(&a, 1, 0);
    bench.hear(&a, Event::Loading { bytes_done: 5, bytes_total: 9, held_bytes: 1 }, 30);
    // The same again is no progress.
    bench.hear(&a, Event::Loading { bytes_done: 5, bytes_total: 9, held_bytes: 1 }, 80);
    let reason = |steps: Vec<Step>| match &steps[..] {
        [] => None,
        [Step::Kill { reason, .. }] => Some(reason.clone()),
        _ => panic!("{steps:?}"),
    };
    assert_eq!(reason(bench.plan(89)), None);
    assert_eq!(reason(bench.plan(90)), Some(KillReason::NoProgress { seconds: 60 }));
    bench.hear(&a, ready(), 90);
    bench.hear(&a, stats(1, 59_999), 100);
    assert_eq!(reason(bench.plan(100)), None);
    bench.hear(&a, stats(1, 60_000), 101);
    assert_eq!(reason(bench.plan(101)), Some(KillReason::Stalled { seconds: 60 }));
    bench.hear(&a, stats(0, 60_000), 102);
    assert_eq!(reason(bench.plan(131)), None, "idle is not stalled");
    assert_eq!(reason(bench.plan(132)), Some(KillReason::Silent { seconds: 30 }));
}

#[test]
fn tells_a_serving_engine_who_may_ask() {
    let mut bench = Bench::new();
    let a = bench.bind("a", 10);
    bench.start(&a, 1, 0);
    bench.wanted.get_mut(&a).unwrap().served_names.push("alias".to_owned());
    assert_eq!(bench.plan(0), [], "a loading engine is told when it serves");
    bench.hear(&a, ready(), 1);
    let steps = bench.plan(1);
    let [Step::Access { served_names, .. }] = &steps[..] else { panic!("{steps:?}") };
    assert_eq!(served_names, &["a", "alias"]);
}

/// What may happen to one of three replicas.
#[derive(Clone, Copy, Debug)]
enum Happening {
    Want(bool),
    Unbind,
    Grow,
    BecomeReady,
    Crash,
    Drained,
    Returned,
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        1 => any::<bool>().prop_map(Happening::Want),
        1 => Just(Happening::Unbind),
        4 => Just(Happening::Grow),
        3 => Just(Happening::BecomeReady),
        1 => Just(Happening::Crash),
        1 => Just(Happening::Drained),
        2 => Just(Happening::Returned),
    ]
}

/// A machine on which engines take memory up to their footprint and give it back when the kernel gets to it.
struct Machine {
    bench: Bench,
    held: BTreeMap<ReplicaKey, u64>,
    next_engine: u64,
    now: u64,
}

impl Machine {
    fn settle(&mut self) {
        let used: u64 = self.held.values().sum();
        let living: u64 = self
            .bench
            .records
            .iter()
            .filter(|(_, record)| record.engine.as_ref().is_some_and(Engine::is_alive))
            .map(|(key, _)| self.held.get(key).copied().unwrap_or(0))
            .sum();
        self.bench.pool.available_bytes = self.bench.pool.total_bytes - used;
        self.bench.pool.held_bytes = living;
        let unclaimed = self.bench.pool.available_bytes + living;
        for (key, record) in &mut self.bench.records {
            if let Some(engine) = &mut record.engine {
                let held = self.held.get(key).copied().unwrap_or(0);
                engine.measured(PoolBytes::host(held), PoolBytes::host(unclaimed.saturating_sub(held)));
            }
            record.settle_release(PoolBytes::host(unclaimed), Duration::from_secs(self.now));
        }
        let wanted = &self.bench.wanted;
        self.bench.records.retain(|key, record| wanted.contains_key(key) || record.engine.is_some());
    }

    fn exit(&mut self, key: &ReplicaKey, killed: Option<KillReason>) {
        let exit = Exit { status: "code 1".to_owned(), killed };
        self.bench.records.get_mut(key).unwrap().exited(exit, moment(self.now), PoolBytes::host(0));
    }

    fn happen(&mut self, key: &ReplicaKey, happening: Happening) {
        let Some(record) = self.bench.records.get(key) else { return };
        let stage = record.engine.as_ref().map(|engine| engine.stage.clone());
        match (happening, stage) {
            (Happening::Want(serve), _) => {
                if let Some(wanted) = self.bench.wanted.get_mut(key) {
                    wanted.serve = serve;
                }
            }
            (Happening::Unbind, _) => drop(self.bench.wanted.remove(key)),
            (Happening::Grow, Some(Stage::Loading { .. })) => {
                let footprint = self.bench.records[key].engine.as_ref().unwrap().footprint.host;
                let held = self.held.entry(key.clone()).or_default();
                *held = (*held + footprint / 3 + 1).min(footprint);
            }
            (Happening::BecomeReady, Some(Stage::Loading { .. })) => self.bench.hear(key, ready(), self.now),
            (Happening::Crash, Some(stage)) if !matches!(stage, Stage::Returning { .. }) => {
                self.exit(key, None);
            }
            (Happening::Drained, Some(Stage::Draining { .. } | Stage::Killed { .. })) => self.exit(key, None),
            (Happening::Returned, Some(Stage::Returning { .. }) | None) => drop(self.held.remove(key)),
            _ => {}
        }
    }

    fn execute(&mut self, step: Step) {
        match step {
            Step::Start { replica } => {
                self.next_engine += 1;
                self.bench.start(&replica, self.next_engine, self.now);
            }
            Step::Kill { replica, .. } => self.bench.engine(&replica).killed(),
            Step::Drain { replica, kill_at, .. } => {
                let now = Duration::from_secs(self.now);
                self.bench.engine(&replica).drain(now, kill_at);
            }
            Step::Refuse { .. } | Step::Access { .. } => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// I1: whatever happens, never two engines start and the reserve stays free.
    #[test]
    fn never_two_starting_and_never_below_the_reserve(
        footprints in prop::collection::vec(1_u64..60, 3),
        happenings in prop::collection::vec((0_usize..3, happening(), 0_u64..40), 1..120),
    ) {
        let mut machine = Machine { bench: Bench::new(), held: BTreeMap::new(), next_engine: 0, now: 0 };
        machine.bench.pool.available_bytes = machine.bench.pool.total_bytes;
        let names = ["a", "b", "c"];
        for (name, footprint) in names.iter().zip(&footprints) {
            machine.bench.bind(name, *footprint);
        }
        for (replica, happening, seconds) in happenings {
            machine.now += seconds;
            machine.happen(&key(names[replica]), happening);
            machine.settle();
            for step in machine.bench.plan(machine.now) {
                machine.execute(step);
            }
            let engines = || machine.bench.records.values().filter_map(|record| record.engine.as_ref());
            prop_assert!(engines().filter(|engine| engine.is_starting()).count() <= 1);
            let used: u64 = machine.held.values().sum();
            prop_assert!(machine.bench.pool.total_bytes - used >= machine.bench.pool.reserve_bytes);
            let promised: u64 = engines().filter(|engine| engine.is_alive()).map(|engine| engine.footprint.host).sum();
            prop_assert!(promised <= machine.bench.pool.total_bytes - machine.bench.pool.reserve_bytes);
        }
    }
}
