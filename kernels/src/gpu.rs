#![expect(unsafe_code, reason = "the CUDA driver")]

use std::collections::BTreeMap;
use std::ffi::{CString, c_void};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::cubins::Cubins;
use crate::device::{Cause, Device, DeviceError, DeviceMemory, LaunchShape, Recording};
use crate::driver::{Driver, DriverError, Handle};
use crate::gpu_context::GpuContext;
use crate::host_buffer::HostBuffer;
use crate::pinned::pinned_buffer;
use crate::staging::Staging;
use crate::upload::Uploads;

/// `CU_STREAM_NON_BLOCKING`: nothing waits for the default stream, which cannot be recorded.
const STREAM_NON_BLOCKING: u32 = 1;
/// `CU_STREAM_CAPTURE_MODE_THREAD_LOCAL`: what other threads do meanwhile is their own.
const CAPTURE_THREAD_LOCAL: u32 = 1;
/// What launches say of a block's dynamic shared memory: kernels here have none.
const NO_DYNAMIC_SHARED: u32 = 0;

/// Our kernels, loaded on a GPU.
#[derive(Debug)]
pub struct GpuKernels {
    context: Arc<GpuContext>,
    modules: Vec<Handle>,
    functions: BTreeMap<String, Handle>,
}

/// A GPU as kernels are launched on it: one stream, and the memory it has allocated.
#[derive(Debug)]
pub struct Gpu {
    kernels: Arc<GpuKernels>,
    stream: Handle,
    staging: Staging,
    uploads: Uploads,
    allocated: Vec<DeviceMemory>,
    /// `CUgraphExec`s, in the order they were recorded.
    recordings: Vec<Handle>,
    is_recording: bool,
    /// Of the arguments of a launch, aligned as structures are.
    arguments: Vec<u64>,
}

// SAFETY: modules and functions may be used from any thread.
unsafe impl Send for GpuKernels {}
// SAFETY: as above; nothing here changes once they are loaded.
unsafe impl Sync for GpuKernels {}
// SAFETY: streams, events and graphs may be used from any thread, one at a time, which is the one that has this.
unsafe impl Send for Gpu {}

impl GpuKernels {
    pub fn load(context: Arc<GpuContext>, cubins: &Cubins) -> Result<Self, DriverError> {
        let mut kernels = Self { context, modules: Vec::new(), functions: BTreeMap::new() };
        for module in &cubins.modules {
            kernels.load_module(&module.bytes, &module.kernels)?;
        }
        Ok(kernels)
    }

    fn load_module(&mut self, image: &[u8], names: &[String]) -> Result<(), DriverError> {
        let driver = self.context.enter()?;
        let mut module = std::ptr::null_mut();
        // SAFETY: the place is ours; a CUBIN says its own length, and the driver refuses what is none.
        let loaded = unsafe { driver.load_module(&raw mut module, image.as_ptr().cast()) };
        loaded.map_err(|error| {
            self.context.shortage(error, "GPU memory for kernels", Some(image.len() as u64))
        })?;
        self.modules.push(module);
        for name in names {
            let mut function = std::ptr::null_mut();
            let c_name = CString::new(name.as_str()).unwrap_or_default();
            // SAFETY: the place is ours, the module was just loaded, and the name ends.
            let loaded = unsafe {
                driver.function(&raw mut function, module, c_name.as_ptr())?;
                driver.load_function(function)
            };
            loaded.map_err(|error| self.context.shortage(error, "GPU memory for a kernel", None))?;
            self.functions.insert(name.clone(), function);
        }
        Ok(())
    }

    pub fn context(&self) -> &GpuContext {
        &self.context
    }
}

impl Drop for GpuKernels {
    fn drop(&mut self) {
        let Ok(driver) = self.context.enter() else { return };
        for module in &self.modules {
            // SAFETY: loaded once, and nobody launches any more. There is nobody to tell of a failure.
            let _ = unsafe { driver.unload_module(*module) };
        }
    }
}

impl Gpu {
    pub fn new(kernels: Arc<GpuKernels>) -> Result<Self, DriverError> {
        let driver = kernels.context.enter()?;
        let mut stream = std::ptr::null_mut();
        // SAFETY: the place is ours.
        let created = unsafe { driver.create_stream(&raw mut stream, STREAM_NON_BLOCKING) };
        created.map_err(|error| kernels.context.shortage(error, "GPU memory for a stream", None))?;
        let staging = match Staging::new(&kernels.context) {
            Ok(staging) => staging,
            Err(error) => {
                // SAFETY: made above, and nothing uses it. The first error is the one to tell.
                let _ = unsafe { driver.destroy_stream(stream) };
                return Err(error);
            }
        };
        Ok(Self {
            kernels,
            stream,
            staging,
            uploads: Uploads::new(),
            allocated: Vec::new(),
            recordings: Vec::new(),
            is_recording: false,
            arguments: Vec::new(),
        })
    }

    pub fn context(&self) -> &GpuContext {
        &self.kernels.context
    }

    /// How long the GPU takes for what `work` launches.
    pub fn measure<E: From<DriverError>>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<(), E>,
    ) -> Result<Duration, E> {
        let kernels = Arc::clone(&self.kernels);
        let start = Event::record(&kernels.context, self.stream)?;
        work(self)?;
        let end = Event::record(&kernels.context, self.stream)?;
        Ok(start.until(&end)?)
    }

    /// A copy would be recorded as one of whatever lies in the ring when it is repeated.
    fn refuse_copy(&self, bytes: usize) -> Result<(), DeviceError> {
        if !self.is_recording {
            return Ok(());
        }
        Err(DeviceError::Copy { bytes, reason: "launches are being recorded".to_owned().into() })
    }

    fn driver(&self) -> Result<&Driver, DriverError> {
        self.kernels.context.enter()
    }

    fn launch_function(
        &mut self,
        kernel: &'static str,
        shape: LaunchShape,
        arguments: &[u8],
    ) -> Result<(), Cause> {
        let Some(function) = self.kernels.functions.get(kernel).copied() else {
            return Err("it is not among the kernels that were loaded".to_owned().into());
        };
        self.arguments.resize(arguments.len().div_ceil(size_of::<u64>()), 0);
        let driver = self.kernels.context.enter()?;
        let LaunchShape { grid: [x, y, z], threads } = shape;
        // SAFETY: both have as many bytes and are apart. The driver copies as many of them as the kernel's one structure has,
        // which is this one; the addresses in it are the caller's word.
        unsafe {
            let place = self.arguments.as_mut_ptr().cast::<u8>();
            std::ptr::copy_nonoverlapping(arguments.as_ptr(), place, arguments.len());
            let mut parameters = [place.cast::<c_void>()];
            let shared = NO_DYNAMIC_SHARED;
            driver.launch(
                function,
                x,
                y,
                z,
                threads,
                1,
                1,
                shared,
                self.stream,
                parameters.as_mut_ptr(),
                std::ptr::null_mut(),
            )?;
        }
        Ok(())
    }

    /// What was launched since `begin_recording`, to be launched as one.
    fn finish_recording(&mut self) -> Result<Handle, DriverError> {
        let driver = self.kernels.context.enter()?;
        let (mut graph, mut executable) = (std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: the places are ours, the stream is being captured, and the graph is not used after it is destroyed.
        unsafe {
            driver.end_capture(self.stream, &raw mut graph)?;
            let instantiated = driver.instantiate(&raw mut executable, graph, 0);
            // What is left of it is in the executable.
            let destroyed = driver.destroy_graph(graph);
            instantiated?;
            // Otherwise its first launch would.
            let uploaded = destroyed.and_then(|()| driver.upload_graph(executable, self.stream));
            if let Err(error) = uploaded {
                // A second failure would say no more than the first.
                let _ = driver.destroy_executable(executable);
                return Err(error);
            }
        }
        Ok(executable)
    }
}

impl Device for Gpu {
    fn allocate(&mut self, bytes: usize) -> Result<DeviceMemory, DeviceError> {
        let mut address = 0;
        // SAFETY: the place is ours. The driver refuses 0 bytes, of which nobody asks for an address.
        let allocated = unsafe { self.driver()?.allocate(&raw mut address, bytes.max(1)) };
        allocated.map_err(|error| {
            match self.context().shortage(error, "GPU memory for arenas", Some(bytes as u64)) {
                shortage @ DriverError::OutOfMemory { .. } => DeviceError::Driver(shortage),
                error => DeviceError::Allocation { bytes, reason: error.into() },
            }
        })?;
        // SAFETY: these bytes are freed when this is dropped.
        let memory = unsafe { DeviceMemory::new(address, bytes) };
        self.allocated.push(memory);
        Ok(memory)
    }

    fn write(&mut self, to: DeviceMemory, bytes: &[u8]) -> Result<(), DeviceError> {
        self.refuse_copy(bytes.len())?;
        let to = to.part(0, bytes.len())?;
        let driver = self.kernels.context.enter();
        let written = driver.and_then(|driver| self.staging.write(driver, self.stream, to, bytes));
        written.map_err(|error| DeviceError::Copy { bytes: bytes.len(), reason: error.into() })
    }

    fn host_buffers(&mut self, count: usize, bytes: usize) -> Result<Vec<HostBuffer>, DeviceError> {
        let context = &self.kernels.context;
        self.uploads.prepare(context)?;
        Ok((0..count).map(|_| pinned_buffer(context, bytes)).collect::<Result<_, DriverError>>()?)
    }

    fn write_buffer(
        &mut self,
        to: DeviceMemory,
        buffer: HostBuffer,
        bytes: Range<usize>,
    ) -> Result<Option<HostBuffer>, DeviceError> {
        let Range { start, end } = bytes;
        let length = buffer.as_slice().len();
        if start > end || end > length {
            return Err(DeviceError::OutOfRange { start, end, bytes: length });
        }
        self.refuse_copy(bytes.len())?;
        let to = to.part(0, bytes.len())?;
        let copied = self.uploads.copy(&self.kernels.context, self.stream, to, buffer, bytes);
        copied.map_err(|error| DeviceError::Copy { bytes: end - start, reason: error.into() })
    }

    fn free_buffers(&mut self) -> Result<(), DeviceError> {
        Ok(self.uploads.finish()?)
    }

    fn read(&mut self, from: DeviceMemory, bytes: &mut [u8]) -> Result<(), DeviceError> {
        self.refuse_copy(bytes.len())?;
        let from = from.part(0, bytes.len())?;
        let driver = self.kernels.context.enter();
        let read = driver.and_then(|driver| self.staging.read(driver, self.stream, from, bytes));
        read.map_err(|error| DeviceError::Copy { bytes: bytes.len(), reason: error.into() })
    }

    unsafe fn launch(
        &mut self,
        kernel: &'static str,
        shape: LaunchShape,
        arguments: &[u8],
    ) -> Result<(), DeviceError> {
        self.launch_function(kernel, shape, arguments)
            .map_err(|reason| DeviceError::Launch { kernel, reason })
    }

    fn begin_recording(&mut self) -> Result<(), DeviceError> {
        let stream = self.stream;
        // SAFETY: the stream is ours.
        let begun =
            self.driver().and_then(|driver| unsafe { driver.begin_capture(stream, CAPTURE_THREAD_LOCAL) });
        begun.map_err(|error| DeviceError::Recording { reason: error.into() })?;
        self.is_recording = true;
        Ok(())
    }

    fn end_recording(&mut self) -> Result<Recording, DeviceError> {
        self.is_recording = false;
        let executable = self.finish_recording();
        let executable = executable
            .map_err(|error| self.context().shortage(error, "GPU memory for a recorded step", None));
        self.recordings.push(executable.map_err(|error| DeviceError::Recording { reason: error.into() })?);
        Ok(Recording(self.recordings.len() - 1))
    }

    unsafe fn replay(&mut self, recording: Recording) -> Result<(), DeviceError> {
        let failed = |reason: Cause| DeviceError::Recording { reason };
        let Some(executable) = self.recordings.get(recording.0).copied() else {
            return Err(failed(format!("there is no recording {}", recording.0).into()));
        };
        let stream = self.stream;
        // SAFETY: both are ours; what the recorded launches need is the caller's word.
        let launched = self.driver().and_then(|driver| unsafe { driver.launch_graph(executable, stream) });
        launched.map_err(|error| failed(error.into()))
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        let Ok(driver) = self.kernels.context.enter() else { return };
        // SAFETY: all of these were made by this, once, and once the stream is done nothing uses them. There is nobody to tell
        // of a failure.
        unsafe {
            let _ = driver.synchronize(self.stream);
            for executable in &self.recordings {
                let _ = driver.destroy_executable(*executable);
            }
            for memory in &self.allocated {
                let _ = driver.free(memory.address());
            }
            self.uploads.free();
            let _ = driver.destroy_stream(self.stream);
        }
    }
}

/// A moment in a stream.
struct Event<'a> {
    context: &'a GpuContext,
    event: Handle,
}

impl<'a> Event<'a> {
    fn record(context: &'a GpuContext, stream: Handle) -> Result<Self, DriverError> {
        let driver = context.enter()?;
        let mut event = std::ptr::null_mut();
        // SAFETY: the place is ours.
        unsafe { driver.create_event(&raw mut event, 0) }?;
        let event = Self { context, event };
        // SAFETY: both are alive.
        unsafe { driver.record_event(event.event, stream) }?;
        Ok(event)
    }

    /// Waits for the later one.
    fn until(&self, end: &Self) -> Result<Duration, DriverError> {
        let driver = self.context.enter()?;
        let mut milliseconds = 0.0;
        // SAFETY: both are recorded, and the place is ours.
        unsafe {
            driver.await_event(end.event)?;
            driver.elapsed(&raw mut milliseconds, self.event, end.event)?;
        }
        Ok(Duration::from_secs_f64(f64::from(milliseconds.max(0.0)) / 1e3))
    }
}

impl Drop for Event<'_> {
    fn drop(&mut self) {
        if let Ok(driver) = self.context.enter() {
            // SAFETY: made once. There is nobody to tell of a failure.
            let _ = unsafe { driver.destroy_event(self.event) };
        }
    }
}
