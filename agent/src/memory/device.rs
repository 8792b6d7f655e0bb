//! What the GPU holds, and for whom.

use std::collections::BTreeMap;

use sparkherd_gpu::{Gpu, GpuMemory, GpuMemoryDomain, memory_domain};

/// The driver's own, and what a display or a stranger's context takes while we load. A GPU that is full fails an
/// allocation; it does not take the host with it, so this is far less than the host's reserve.
pub const DEVICE_RESERVE_BYTES: u64 = 512 << 20;

/// What the driver said of memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceSample {
    /// The GPU's own memory; `None` where it shares the host's.
    pub own: Option<GpuMemory>,
    /// Bytes by process ids of the host.
    pub held_bytes: BTreeMap<u32, u64>,
}

impl DeviceSample {
    /// `host_total_bytes`: `MemTotal`.
    pub fn new(gpu: &Gpu, host_total_bytes: u64) -> Self {
        let own = gpu.memory.filter(|_| memory_domain(gpu, host_total_bytes) == GpuMemoryDomain::Device);
        let processes = gpu.processes.iter().flatten();
        // A process is listed once for each of its contexts with the same number.
        let held_bytes = processes.filter_map(|process| Some((process.pid, process.bytes?))).collect();
        Self { own, held_bytes }
    }
}

/// Device bytes of one of our engines: what the driver says, else what the engine says it has touched, never more of that
/// than the device part it was promised.
pub fn engine_device_bytes(by_driver: Option<u64>, by_engine: u64, promised_bytes: u64) -> u64 {
    by_driver.unwrap_or_else(|| by_engine.min(promised_bytes))
}

#[cfg(test)]
mod tests {
    use sparkherd_gpu::{Gpu, GpuMemory, GpuProcess};

    use super::{DeviceSample, engine_device_bytes};

    const GIB: u64 = 1 << 30;

    #[test]
    fn only_memory_of_its_own_is_a_pool() {
        let memory = GpuMemory { total_bytes: 140 * GIB, used_bytes: 10 * GIB, free_bytes: 130 * GIB };
        let processes =
            Some(vec![GpuProcess { pid: 7, bytes: Some(GIB) }, GpuProcess { pid: 8, bytes: None }]);
        let h200 =
            Gpu { name: Some("NVIDIA H200".to_owned()), memory: Some(memory), processes, ..Gpu::default() };
        let sample = DeviceSample::new(&h200, 120 * GIB);
        assert_eq!(sample.own, Some(memory));
        assert_eq!(sample.held_bytes.into_iter().collect::<Vec<_>>(), [(7, GIB)]);
        let gb10 = Gpu { name: Some("NVIDIA GB10".to_owned()), ..h200 };
        assert_eq!(DeviceSample::new(&gb10, 120 * GIB).own, None);
    }

    #[test]
    fn the_driver_knows_better_than_the_engine() {
        assert_eq!(engine_device_bytes(Some(9), 5, 7), 9);
        assert_eq!(engine_device_bytes(None, 5, 7), 5);
        assert_eq!(engine_device_bytes(None, 8, 7), 7, "the rest of what it touched is the host's");
    }
}
