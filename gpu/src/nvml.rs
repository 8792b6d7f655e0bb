//! NVIDIA's management library, opened at run time: a program without it starts all the same.

use nvml_wrapper::Device;
use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::enum_wrappers::device::{Clock, TemperatureSensor};
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::error::NvmlError;

use crate::{
    CudaVersion, Gpu, GpuError, GpuMemory, GpuPlace, GpuProcess, GpuReport, GpuSource, ThrottleReason,
};

/// The library, or why there is none.
#[derive(Debug)]
pub struct Nvml {
    place: GpuPlace,
    library: Result<nvml_wrapper::Nvml, GpuError>,
}

impl Nvml {
    /// Opens the library. That there is none, or no driver under it, is remembered and told by [`GpuSource::read`].
    /// Reports have the GPU of `place` first.
    pub fn open(place: GpuPlace) -> Self {
        Self { place, library: nvml_wrapper::Nvml::init().map_err(|error| opening(&error)) }
    }
}

impl GpuSource for Nvml {
    fn read(&self) -> Result<GpuReport, GpuError> {
        let library = self.library.as_ref().map_err(Clone::clone)?;
        let failed = |error: NvmlError| GpuError::Driver(error.to_string());
        let count = library.device_count().map_err(failed)?;
        // One that does not answer is left out, not the others with it.
        let gpus =
            (0..count).filter_map(|index| library.device_by_index(index).ok()).map(|device| gpu(&device));
        Ok(self.place.put_first(GpuReport {
            driver: library.sys_driver_version().ok(),
            cuda: library.sys_cuda_driver_version().ok().and_then(CudaVersion::from_number),
            gpus: gpus.collect(),
        }))
    }
}

fn opening(error: &NvmlError) -> GpuError {
    match error {
        NvmlError::LibloadingError(error) => GpuError::NoLibrary(error.to_string()),
        NvmlError::LibraryNotFound => GpuError::NoLibrary(error.to_string()),
        NvmlError::DriverNotLoaded => GpuError::NoDriver,
        other => GpuError::Driver(other.to_string()),
    }
}

fn gpu(device: &Device<'_>) -> Gpu {
    Gpu {
        name: device.name().ok(),
        bus_id: device.pci_info().ok().map(|pci| pci.bus_id.to_ascii_lowercase()),
        uuid: device.uuid().ok(),
        compute_capability: device.cuda_compute_capability().ok().and_then(|capability| {
            Some((u32::try_from(capability.major).ok()?, u32::try_from(capability.minor).ok()?))
        }),
        sm_clock_mhz: device.clock_info(Clock::SM).ok(),
        sm_clock_max_mhz: device.max_clock_info(Clock::SM).ok(),
        utilization_percent: device.utilization_rates().ok().map(|rates| rates.gpu),
        power_milliwatts: device.power_usage().ok(),
        temperature_celsius: device.temperature(TemperatureSensor::Gpu).ok(),
        energy_millijoules: device.total_energy_consumption().ok(),
        throttle_reasons: device.current_throttle_reasons().ok().map(throttle_reasons),
        memory: device.memory_info().ok().map(|memory| GpuMemory {
            total_bytes: memory.total,
            used_bytes: memory.used,
            free_bytes: memory.free,
        }),
        processes: device.running_compute_processes().ok().map(|processes| {
            let bytes = |used| match used {
                UsedGpuMemory::Used(bytes) => Some(bytes),
                UsedGpuMemory::Unavailable => None,
            };
            processes
                .into_iter()
                .map(|process| GpuProcess { pid: process.pid, bytes: bytes(process.used_gpu_memory) })
                .collect()
        }),
    }
}

fn throttle_reasons(bits: ThrottleReasons) -> Vec<ThrottleReason> {
    let named = [
        (ThrottleReasons::SW_POWER_CAP, ThrottleReason::PowerCap),
        (ThrottleReasons::HW_SLOWDOWN, ThrottleReason::Slowdown),
        (ThrottleReasons::SW_THERMAL_SLOWDOWN, ThrottleReason::SoftwareThermal),
        (ThrottleReasons::HW_THERMAL_SLOWDOWN, ThrottleReason::HardwareThermal),
        (ThrottleReasons::HW_POWER_BRAKE_SLOWDOWN, ThrottleReason::PowerBrake),
    ];
    named.into_iter().filter(|(bit, _)| bits.contains(*bit)).map(|(_, reason)| reason).collect()
}

#[cfg(test)]
mod tests {
    use nvml_wrapper::bitmasks::device::ThrottleReasons;
    use nvml_wrapper::error::NvmlError;

    use super::{opening, throttle_reasons};
    use crate::{GpuError, ThrottleReason};

    #[test]
    fn what_is_missing_is_told_from_what_is_broken() {
        assert_eq!(opening(&NvmlError::DriverNotLoaded), GpuError::NoDriver);
        assert!(opening(&NvmlError::LibraryNotFound).is_absence());
        assert!(!opening(&NvmlError::NoPermission).is_absence());
    }

    #[test]
    fn idleness_is_no_throttling() {
        assert_eq!(throttle_reasons(ThrottleReasons::GPU_IDLE), []);
        let bits = ThrottleReasons::SW_POWER_CAP | ThrottleReasons::HW_THERMAL_SLOWDOWN;
        assert_eq!(throttle_reasons(bits), [ThrottleReason::PowerCap, ThrottleReason::HardwareThermal]);
    }
}
