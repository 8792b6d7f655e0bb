use std::fmt::Debug;
use std::ops::Range;

use thiserror::Error;

use crate::driver::DriverError;
use crate::host_buffer::HostBuffer;

/// Bytes of a device, from an allocation that lives as long as the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceMemory {
    address: u64,
    bytes: usize,
}

/// How many threads run a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaunchShape {
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub threads: u32,
}

/// Why a device did not do something.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Cause {
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// In our own words.
    #[error("{0}")]
    Refused(String),
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DeviceError {
    #[error("{bytes} bytes of device memory cannot be allocated: {reason}")]
    Allocation { bytes: usize, reason: Cause },
    #[error("bytes {start} to {end} are not in device memory of {bytes}")]
    OutOfRange { start: usize, end: usize, bytes: usize },
    #[error("{kernel}: {operand} has {got} bytes, needs {wanted}")]
    Operand { kernel: &'static str, operand: &'static str, got: usize, wanted: usize },
    #[error("{kernel}: {what} is {got}, must be {wanted}")]
    Shape { kernel: &'static str, what: &'static str, got: usize, wanted: &'static str },
    #[error("{kernel}: no kernel for {format}")]
    Format { kernel: &'static str, format: &'static str },
    #[error("{kernel}: sizes are beyond 32 bits")]
    TooLarge { kernel: &'static str },
    #[error("{kernel} failed: {reason}")]
    Launch { kernel: &'static str, reason: Cause },
    #[error("copy of {bytes} bytes failed: {reason}")]
    Copy { bytes: usize, reason: Cause },
    #[error(transparent)]
    Driver(#[from] DriverError),
    #[error("launches cannot be recorded or repeated: {reason}")]
    Recording { reason: Cause },
}

impl From<String> for Cause {
    fn from(reason: String) -> Self {
        Self::Refused(reason)
    }
}

impl DeviceError {
    /// Whether there was less memory than was asked for.
    pub const fn is_out_of_memory(&self) -> bool {
        match (self, self.driver_error()) {
            (Self::Allocation { reason: Cause::Refused(_), .. }, _) => true,
            (_, Some(error)) => error.is_out_of_memory(),
            (_, None) => false,
        }
    }

    /// Whether the device is lost to this process, see [`DriverError::is_fault`].
    pub fn is_fault(&self) -> bool {
        self.driver_error().is_some_and(DriverError::is_fault)
    }

    const fn driver_error(&self) -> Option<&DriverError> {
        match self {
            Self::Driver(error)
            | Self::Allocation { reason: Cause::Driver(error), .. }
            | Self::Launch { reason: Cause::Driver(error), .. }
            | Self::Copy { reason: Cause::Driver(error), .. }
            | Self::Recording { reason: Cause::Driver(error) } => Some(error),
            _ => None,
        }
    }
}

/// Launches that a device has recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recording(pub(crate) usize);

impl Recording {
    /// For devices: the number is theirs.
    pub const fn new(number: usize) -> Self {
        Self(number)
    }

    pub const fn number(self) -> usize {
        self.0
    }
}

impl DeviceMemory {
    /// What a device has allocated.
    ///
    /// # Safety
    ///
    /// The bytes are the device's until the device is dropped, and nothing else's.
    #[expect(unsafe_code, reason = "launches trust the address")]
    pub const unsafe fn new(address: u64, bytes: usize) -> Self {
        Self { address, bytes }
    }

    pub const fn address(self) -> u64 {
        self.address
    }

    pub const fn bytes(self) -> usize {
        self.bytes
    }

    /// `bytes` of it, from byte `start`.
    pub fn part(self, start: usize, bytes: usize) -> Result<Self, DeviceError> {
        let end = start.saturating_add(bytes);
        if end > self.bytes {
            return Err(DeviceError::OutOfRange { start, end, bytes: self.bytes });
        }
        Ok(Self { address: self.address + start as u64, bytes })
    }

    /// The address, if so many elements of so many bytes lie there.
    pub(crate) fn holding(
        self,
        kernel: &'static str,
        operand: &'static str,
        elements: u64,
        element_bytes: u64,
    ) -> Result<u64, DeviceError> {
        let wanted = elements.checked_mul(element_bytes).and_then(|bytes| usize::try_from(bytes).ok());
        let wanted = wanted.ok_or(DeviceError::TooLarge { kernel })?;
        if self.bytes < wanted {
            return Err(DeviceError::Operand { kernel, operand, got: self.bytes, wanted });
        }
        Ok(self.address)
    }

    pub(crate) fn of_f32(
        self,
        kernel: &'static str,
        operand: &'static str,
        elements: u64,
    ) -> Result<u64, DeviceError> {
        self.holding(kernel, operand, elements, 4)
    }

    pub(crate) fn of_u32(
        self,
        kernel: &'static str,
        operand: &'static str,
        elements: u64,
    ) -> Result<u64, DeviceError> {
        self.holding(kernel, operand, elements, 4)
    }
}

/// What launches run on. They run in the order they are launched, and copies take their turn among them.
pub trait Device: Debug + Send {
    /// Bytes that are freed with the device. Their content is anything.
    fn allocate(&mut self, bytes: usize) -> Result<DeviceMemory, DeviceError>;

    /// Copies to the start of `to`.
    fn write(&mut self, to: DeviceMemory, bytes: &[u8]) -> Result<(), DeviceError>;

    /// Host memory for [`Device::write_buffer`]: `count` buffers of so many bytes, made now and freed when they are dropped.
    fn host_buffers(&mut self, count: usize, bytes: usize) -> Result<Vec<HostBuffer>, DeviceError> {
        Ok((0..count).map(|_| HostBuffer::ordinary(bytes)).collect())
    }

    /// Copies these bytes of a buffer to the start of `to`. The buffer is the device's until they are copied; returns one that is
    /// free again, this or another.
    fn write_buffer(
        &mut self,
        to: DeviceMemory,
        buffer: HostBuffer,
        bytes: Range<usize>,
    ) -> Result<Option<HostBuffer>, DeviceError> {
        let (start, end) = (bytes.start, bytes.end);
        let beyond = DeviceError::OutOfRange { start, end, bytes: buffer.as_slice().len() };
        self.write(to, buffer.as_slice().get(bytes).ok_or(beyond)?)?;
        Ok(Some(buffer))
    }

    /// Waits for the buffers that are still the device's, and frees them.
    fn free_buffers(&mut self) -> Result<(), DeviceError> {
        Ok(())
    }

    /// Copies from the start of `from`, after everything launched so far.
    fn read(&mut self, from: DeviceMemory, bytes: &mut [u8]) -> Result<(), DeviceError>;

    /// Runs a kernel.
    ///
    /// # Safety
    ///
    /// `arguments` are the bytes of the kernel's own structure, and every address in them is of memory of this device that is as
    /// long as the kernel takes it to be, and that no thread of the kernel writes while another uses it.
    #[expect(unsafe_code, reason = "a kernel follows the addresses it is given")]
    unsafe fn launch(
        &mut self,
        kernel: &'static str,
        shape: LaunchShape,
        arguments: &[u8],
    ) -> Result<(), DeviceError>;

    /// From now on launches are recorded instead of run, and nothing may be copied.
    fn begin_recording(&mut self) -> Result<(), DeviceError>;

    /// What was launched since, with the arguments it was launched with.
    fn end_recording(&mut self) -> Result<Recording, DeviceError>;

    /// Runs what was recorded, in the same order.
    ///
    /// # Safety
    ///
    /// As for [`Device::launch`], of every launch.
    #[expect(unsafe_code, reason = "kernels follow the addresses they were given")]
    unsafe fn replay(&mut self, recording: Recording) -> Result<(), DeviceError>;
}

/// What is allocated lives as long as the device itself.
#[expect(unsafe_code, reason = "launches are passed on")]
impl<D: Device + ?Sized> Device for &mut D {
    fn allocate(&mut self, bytes: usize) -> Result<DeviceMemory, DeviceError> {
        (**self).allocate(bytes)
    }

    fn write(&mut self, to: DeviceMemory, bytes: &[u8]) -> Result<(), DeviceError> {
        (**self).write(to, bytes)
    }

    fn host_buffers(&mut self, count: usize, bytes: usize) -> Result<Vec<HostBuffer>, DeviceError> {
        (**self).host_buffers(count, bytes)
    }

    fn write_buffer(
        &mut self,
        to: DeviceMemory,
        buffer: HostBuffer,
        bytes: Range<usize>,
    ) -> Result<Option<HostBuffer>, DeviceError> {
        (**self).write_buffer(to, buffer, bytes)
    }

    fn free_buffers(&mut self) -> Result<(), DeviceError> {
        (**self).free_buffers()
    }

    fn read(&mut self, from: DeviceMemory, bytes: &mut [u8]) -> Result<(), DeviceError> {
        (**self).read(from, bytes)
    }

    unsafe fn launch(
        &mut self,
        kernel: &'static str,
        shape: LaunchShape,
        arguments: &[u8],
    ) -> Result<(), DeviceError> {
        // SAFETY: the caller's.
        unsafe { (**self).launch(kernel, shape, arguments) }
    }

    fn begin_recording(&mut self) -> Result<(), DeviceError> {
        (**self).begin_recording()
    }

    fn end_recording(&mut self) -> Result<Recording, DeviceError> {
        (**self).end_recording()
    }

    unsafe fn replay(&mut self, recording: Recording) -> Result<(), DeviceError> {
        // SAFETY: the caller's.
        unsafe { (**self).replay(recording) }
    }
}

/// The bytes of a kernel's arguments.
///
/// # Safety
///
/// `T` is `repr(C)` without padding.
#[expect(unsafe_code, reason = "the bytes of a structure")]
pub(crate) unsafe fn bytes_of<T>(arguments: &T) -> &[u8] {
    // SAFETY: the reference is to so many bytes, all of which are written, as there is no padding.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(arguments).cast(), size_of::<T>()) }
}

/// Blocks of so many threads for so many elements.
pub(crate) fn blocks(kernel: &'static str, elements: u64, threads: u32) -> Result<u32, DeviceError> {
    u32::try_from(elements.div_ceil(u64::from(threads))).map_err(|_| DeviceError::TooLarge { kernel })
}
