#![expect(unsafe_code, reason = "the CUDA driver")]

use std::ffi::{CStr, c_int};
use std::sync::Arc;

use crate::compile::Architecture;
use crate::driver::{DeviceNumber, Driver, DriverError, Handle};

/// `CUdevice_attribute`s of cuda.h.
const MULTIPROCESSOR_COUNT: c_int = 16;
const INTEGRATED: c_int = 18;
const L2_CACHE_SIZE: c_int = 38;
const COMPUTE_CAPABILITY_MAJOR: c_int = 75;
const COMPUTE_CAPABILITY_MINOR: c_int = 76;

/// Before there is a context the driver does not tell what is free.
const NO_CONTEXT: DriverError =
    DriverError::OutOfMemory { what: "GPU memory for a context", asked_bytes: None, free_bytes: None };

/// `0000:01:00.0` and its zero byte, with room for wider domains.
const BUS_ID_BYTES: usize = 24;
/// Longer than any name of a GPU.
const NAME_BYTES: usize = 256;

/// What a GPU is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuProperties {
    pub name: String,
    pub compute_capability: ComputeCapability,
    pub multiprocessors: u32,
    /// Whether its memory is the host's.
    pub is_integrated: bool,
    pub memory_bytes: u64,
    pub l2_bytes: u64,
    /// The CUDA that the driver is made for: 1000 · major + 10 · minor.
    pub driver_cuda: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ComputeCapability {
    pub major: u32,
    pub minor: u32,
}

impl ComputeCapability {
    /// The one of ours that runs there. Machine code for a chip runs on later ones of the same major number, but with `a` on that
    /// chip alone (CUDA C++ Programming Guide, "Binary Compatibility").
    pub fn architecture(self, known: &[Architecture]) -> Option<Architecture> {
        let Self { major, minor } = self;
        let exact = format!("sm_{major}{minor}a");
        let older = |architecture: &&Architecture| {
            let number = architecture.name.strip_prefix("sm_").and_then(|number| number.parse::<u32>().ok());
            number.is_some_and(|number| number / 10 == major && number % 10 <= minor)
        };
        let exact = known.iter().find(|architecture| architecture.name == exact);
        exact.or_else(|| known.iter().rev().find(older)).copied()
    }
}

/// A GPU that this process uses.
#[derive(Debug)]
pub struct GpuContext {
    driver: Arc<Driver>,
    device: DeviceNumber,
    context: Handle,
    properties: GpuProperties,
}

// SAFETY: contexts may be used by any number of threads at once (CUDA driver API, "Context Management").
unsafe impl Send for GpuContext {}
// SAFETY: as above.
unsafe impl Sync for GpuContext {}

impl GpuContext {
    /// The GPUs that the driver shows this process.
    pub fn count(driver: &Driver) -> Result<u32, DriverError> {
        let mut count = 0;
        // SAFETY: the place is ours.
        unsafe { driver.device_count(&raw mut count) }?;
        Ok(u32::try_from(count).unwrap_or(0))
    }

    /// `ordinal`: among the GPUs that the driver shows, by their places on the PCI bus, whatever order the driver has them in.
    pub fn open(driver: Arc<Driver>, ordinal: u32) -> Result<Self, DriverError> {
        let device = by_bus(&driver, ordinal)?;
        let properties = properties(&driver, device)?;
        let mut context = std::ptr::null_mut();
        // SAFETY: the place is ours, the device was just given; released when dropped.
        let retained = unsafe { driver.retain_context(&raw mut context, device) };
        retained.map_err(|error| if error.is_out_of_memory() { NO_CONTEXT } else { error })?;
        Ok(Self { driver, device, context, properties })
    }

    pub const fn properties(&self) -> &GpuProperties {
        &self.properties
    }

    /// The driver, in a thread in which this GPU is the current one.
    pub(crate) fn enter(&self) -> Result<&Driver, DriverError> {
        // SAFETY: the context is retained as long as this is there.
        unsafe { self.driver.set_context(self.context) }?;
        Ok(&self.driver)
    }

    /// The error, with what is known where it is one of memory.
    pub(crate) fn shortage(
        &self,
        error: DriverError,
        what: &'static str,
        asked_bytes: Option<u64>,
    ) -> DriverError {
        if !error.is_out_of_memory() {
            return error;
        }
        let free_bytes = self.memory_info().ok().map(|(free, _)| free);
        DriverError::OutOfMemory { what, asked_bytes, free_bytes }
    }

    /// Bytes that are free, and all of them. Where host and device share their memory, page cache counts as used.
    pub fn memory_info(&self) -> Result<(u64, u64), DriverError> {
        let (mut free, mut total) = (0, 0);
        // SAFETY: both places are ours.
        unsafe { self.enter()?.memory_info(&raw mut free, &raw mut total) }?;
        Ok((free as u64, total as u64))
    }
}

impl Drop for GpuContext {
    fn drop(&mut self) {
        // SAFETY: retained once, and nobody uses it any more. There is nobody to tell of a failure.
        let _ = unsafe { self.driver.release_context(self.device) };
    }
}

/// The device at this place among those the driver shows, lowest bus first: as NVML has them, by whose numbers people know them.
/// Domain, bus and device are hexadecimal digits of one width, so that text sorts as they do.
fn by_bus(driver: &Driver, ordinal: u32) -> Result<DeviceNumber, DriverError> {
    let devices = (0..GpuContext::count(driver)?).map(|index| {
        let mut device = 0;
        // SAFETY: the place is ours.
        unsafe { driver.device(&raw mut device, c_int::try_from(index).unwrap_or(c_int::MAX)) }?;
        Ok((bus_id(driver, device)?, device))
    });
    let mut devices = devices.collect::<Result<Vec<_>, DriverError>>()?;
    devices.sort_by(|(one, _), (other, _)| one.cmp(other));
    if let Some((_, device)) = devices.get(ordinal as usize) {
        return Ok(*device);
    }
    let mut device = 0;
    // SAFETY: the place is ours. There is none, which the driver says best.
    unsafe { driver.device(&raw mut device, c_int::try_from(ordinal).unwrap_or(c_int::MAX)) }?;
    Ok(device)
}

fn bus_id(driver: &Driver, device: DeviceNumber) -> Result<String, DriverError> {
    let mut text = [0; BUS_ID_BYTES];
    // SAFETY: the place is as long as it says, and what is cut has its zero byte too.
    unsafe {
        driver.device_bus_id(text.as_mut_ptr(), c_int::try_from(BUS_ID_BYTES).unwrap_or(0), device)?;
        Ok(CStr::from_ptr(text.as_ptr()).to_string_lossy().to_ascii_lowercase())
    }
}

fn properties(driver: &Driver, device: DeviceNumber) -> Result<GpuProperties, DriverError> {
    let attribute = |attribute| {
        let mut value = 0;
        // SAFETY: the place is ours, the device is one.
        unsafe { driver.device_attribute(&raw mut value, attribute, device) }?;
        Ok::<_, DriverError>(u32::try_from(value).unwrap_or(0))
    };
    let mut name = [0; NAME_BYTES];
    let (mut memory_bytes, mut version) = (0, 0);
    // SAFETY: the places are ours, and the name's is as long as it says. A name that is cut has its zero byte too.
    let name = unsafe {
        driver.device_name(name.as_mut_ptr(), c_int::try_from(NAME_BYTES).unwrap_or(0), device)?;
        driver.device_memory(&raw mut memory_bytes, device)?;
        driver.version(&raw mut version)?;
        CStr::from_ptr(name.as_ptr()).to_string_lossy().into_owned()
    };
    Ok(GpuProperties {
        name,
        compute_capability: ComputeCapability {
            major: attribute(COMPUTE_CAPABILITY_MAJOR)?,
            minor: attribute(COMPUTE_CAPABILITY_MINOR)?,
        },
        multiprocessors: attribute(MULTIPROCESSOR_COUNT)?,
        is_integrated: attribute(INTEGRATED)? != 0,
        memory_bytes: memory_bytes as u64,
        l2_bytes: attribute(L2_CACHE_SIZE)?.into(),
        driver_cuda: u32::try_from(version).unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::ComputeCapability;
    use crate::compile::ARCHITECTURES;

    #[test]
    fn a_chip_runs_code_of_its_own_or_of_an_older_one_of_its_kind() {
        let of = |major, minor| {
            let capability = ComputeCapability { major, minor };
            capability.architecture(&ARCHITECTURES).map(|architecture| architecture.name)
        };
        assert_eq!([of(12, 1), of(12, 0), of(9, 0)], [Some("sm_121a"), Some("sm_120a"), Some("sm_90a")]);
        assert_eq!([of(8, 0), of(8, 6), of(8, 9)], [Some("sm_80"), Some("sm_86"), Some("sm_89")]);
        // Orin runs what is made for 8.6; nothing of ours runs on a B300, a Turing or what is still to come.
        assert_eq!([of(8, 7), of(10, 3), of(7, 5), of(12, 2)], [Some("sm_86"), None, None, None]);
    }
}
