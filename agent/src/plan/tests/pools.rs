use std::time::Duration;

use super::{Bench, ready};
use crate::engine::{Engine, EngineId};
use crate::fixture::GIB;
use crate::memory::{Pool, PoolBytes};
use crate::plan::Step;
use crate::wanted::ReplicaKey;

#[test]
fn each_pool_has_to_have_room() {
    let mut bench = Bench::new();
    let (a, b) = (bench.bind("a", 1), bench.bind("b", 1));
    let device = Pool { total_bytes: 50 * GIB, available_bytes: 48 * GIB, held_bytes: 0, reserve_bytes: GIB };
    bench.device = Some(device);
    let mut wants = |key: &ReplicaKey, device_gib: u64, host_gib: u64| {
        let footprint = &mut bench.wanted.get_mut(key).unwrap().footprint;
        (footprint.device_bytes, footprint.host_bytes) = (device_gib * GIB, host_gib * GIB);
        bench.plan(0)
    };
    // Together they would fit, by the one or the other pool they do not.
    wants(&b, 48, 0);
    let steps = wants(&a, 0, 81);
    let [Step::Refuse { message: host, .. }, Step::Refuse { message: device, allocatable_bytes, .. }] =
        &steps[..]
    else {
        panic!("{steps:?}")
    };
    assert!(host.starts_with("host memory: needs 81.0 GiB, 80.0 GiB are free"), "{host}");
    assert!(device.starts_with("GPU memory: needs 48.0 GiB, 47.0 GiB are free"), "{device}");
    assert_eq!(*allocatable_bytes, 47 * GIB);
    assert_eq!(wants(&a, 47, 80), [Step::Start { replica: a.clone() }]);
    // What one was promised of a pool is taken off that pool.
    let engine = Engine::spawned(
        EngineId(1),
        7,
        8100,
        &bench.wanted[&a],
        PoolBytes { host: 80 * GIB, device: 40 * GIB },
        Duration::ZERO,
    );
    bench.records.get_mut(&a).unwrap().started(engine);
    bench.hear(&a, ready(), 1);
    bench.wanted.get_mut(&b).unwrap().footprint.device_bytes = 8 * GIB;
    let steps = bench.plan(2);
    let refused = steps.iter().find_map(|step| match step {
        Step::Refuse { message, .. } => Some(message.as_str()),
        _ => None,
    });
    assert!(refused.is_some_and(|message| message.contains("GPU memory: needs 8.0 GiB, 7.0 GiB are free")));
}
