//! Reads memory at the beginning of a round: the pools, and what each engine holds of them.

use std::collections::BTreeMap;
use std::time::Duration;

use sparkherd_crds::parse_quantity;
use sparkherd_footprint::Backend;

use crate::agent::Agent;
use crate::clock::Moment;
use crate::engine::Engine;
use crate::memory::{
    DEVICE_RESERVE_BYTES, DeviceSample, Pool, PoolBytes, Pools, ProbeError, engine_device_bytes,
};
use crate::source::Desired;

/// The driver is asked each second; whoever is silent for this long hangs.
const DRIVER_SILENT_AFTER: Duration = Duration::from_secs(10);

impl Agent {
    /// Measures the pools and each engine, and settles what has come back. What the GPU's driver says may be a second old: an
    /// engine then counts as holding less than it does, and more of its footprint as still to come.
    pub(crate) fn measure(&mut self, desired: &Desired, now: Moment) -> Result<(), ProbeError> {
        let sample = self.device_sample();
        check_driver(&sample, self.gpu.seen().map_or(Duration::ZERO, |seen| seen.age))?;
        let device_held = self.device_held(&sample);
        let is_unified = sample.own.is_none();
        let beside = |bytes: u64| if is_unified { bytes } else { 0 };
        let processes: Vec<(u32, u64)> =
            device_held.iter().map(|(pid, bytes)| (*pid, beside(*bytes))).collect();
        let host = self.probe.sample(&processes)?;
        let reserve_bytes = self.reserve_bytes(desired);
        self.state.pools = Pools {
            host: Pool {
                total_bytes: host.total_bytes,
                available_bytes: host.available_bytes,
                held_bytes: host.held_bytes.values().sum(),
                reserve_bytes,
            },
            device: sample.own.map(|memory| Pool {
                total_bytes: memory.total_bytes,
                available_bytes: memory.free_bytes,
                held_bytes: device_held.values().sum(),
                reserve_bytes: DEVICE_RESERVE_BYTES,
            }),
        };
        self.guard.set_reserve(reserve_bytes);
        let unclaimed = self.state.pools.unclaimed();
        for record in self.state.records.values_mut() {
            if let Some(engine) = &mut record.engine {
                let by = |bytes: &BTreeMap<u32, u64>| bytes.get(&engine.pid).copied().unwrap_or(0);
                let of_device = by(&device_held);
                let held =
                    PoolBytes { host: by(&host.held_bytes), device: if is_unified { 0 } else { of_device } };
                self.guard.set_beside(engine.id, beside(of_device));
                engine.measured(held, unclaimed.minus(held));
            }
            record.settle_release(unclaimed, now.since_start);
        }
        Ok(())
    }

    /// What the GPU's driver says of memory, where engines use it. Process ids are the host's.
    pub(crate) fn device_sample(&self) -> DeviceSample {
        let seen = self.gpu.seen().filter(|_| self.platform.backend == Backend::Cuda);
        seen.map(|seen| DeviceSample::new(&seen.gpu, self.host_total_bytes)).unwrap_or_default()
    }

    /// What processes hold of a GPU's memory that is the host's, by process ids of the host; whatever engines compute on.
    pub(crate) fn device_bytes_of_host(&self) -> BTreeMap<u32, u64> {
        let sample = self.gpu.seen().map(|seen| DeviceSample::new(&seen.gpu, self.host_total_bytes));
        sample.filter(|sample| sample.own.is_none()).unwrap_or_default().held_bytes
    }

    /// Bytes of the GPU's memory by living engine, by the process ids we know them by.
    fn device_held(&self, sample: &DeviceSample) -> BTreeMap<u32, u64> {
        let by_driver: BTreeMap<u32, u64> = sample
            .held_bytes
            .iter()
            .filter_map(|(host_pid, bytes)| Some((self.probe.child(*host_pid)?, *bytes)))
            .collect();
        let engines = self.state.records.values().filter_map(|record| record.engine.as_ref());
        engines
            .filter(|engine| engine.is_alive())
            .map(|engine| (engine.pid, self.device_bytes(engine, by_driver.get(&engine.pid).copied())))
            .collect()
    }

    fn device_bytes(&self, engine: &Engine, by_driver: Option<u64>) -> u64 {
        match self.platform.backend {
            Backend::Cpu => 0,
            Backend::Cuda => {
                engine_device_bytes(by_driver, engine.said_held_bytes(), engine.device_footprint_bytes)
            }
        }
    }

    fn reserve_bytes(&self, desired: &Desired) -> u64 {
        let Some(quantity) = desired.node.as_ref().and_then(|node| node.spec.reserve.as_ref()) else {
            return self.default_reserve_bytes;
        };
        parse_quantity(&quantity.0).unwrap_or(self.default_reserve_bytes)
    }
}

/// Of memory that only a driver can tell of nothing is known when it has been silent. `age`: since it answered.
const fn check_driver(sample: &DeviceSample, age: Duration) -> Result<(), ProbeError> {
    if sample.own.is_some() && age.as_secs() > DRIVER_SILENT_AFTER.as_secs() {
        return Err(ProbeError::SilentDriver { seconds: age.as_secs() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sparkherd_gpu::GpuMemory;

    use super::check_driver;
    use crate::memory::{DeviceSample, ProbeError};

    #[test]
    fn a_silent_driver_blinds_only_where_memory_is_its_own() {
        let own = GpuMemory { total_bytes: 1, used_bytes: 0, free_bytes: 1 };
        let (h200, gb10) =
            (DeviceSample { own: Some(own), ..DeviceSample::default() }, DeviceSample::default());
        assert!(check_driver(&h200, Duration::from_secs(10)).is_ok());
        let blind = check_driver(&h200, Duration::from_secs(11));
        assert!(matches!(blind, Err(ProbeError::SilentDriver { seconds: 11 })), "{blind:?}");
        assert!(check_driver(&gb10, Duration::from_mins(9)).is_ok());
    }
}
