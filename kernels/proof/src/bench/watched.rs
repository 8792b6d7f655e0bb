use std::sync::{Arc, Mutex};
use std::time::Duration;

use sparkherd_kernels::{Device, DeviceError, DeviceMemory, Gpu, LaunchShape, Recording};

/// A GPU that tells how long it takes for what was recorded, if that is wanted, and of how many launches that is.
#[derive(Debug)]
pub(super) struct Watched {
    gpu: Gpu,
    seen: Arc<Mutex<Seen>>,
    /// Launches of each recording; the last is still being recorded where `is_recording`.
    launches: Vec<u32>,
    is_recording: bool,
}

/// What was seen of recordings that were launched.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Waiting for the end of each disturbs whoever measures the host.
    pub(super) is_wanted: bool,
    pub(super) times: Vec<Duration>,
    /// Of the latest.
    pub(super) launches: u32,
}

impl Watched {
    pub(super) fn new(gpu: Gpu) -> (Self, Arc<Mutex<Seen>>) {
        let seen = Arc::default();
        (Self { gpu, seen: Arc::clone(&seen), launches: Vec::new(), is_recording: false }, seen)
    }
}

impl Device for Watched {
    fn allocate(&mut self, bytes: usize) -> Result<DeviceMemory, DeviceError> {
        self.gpu.allocate(bytes)
    }

    fn write(&mut self, to: DeviceMemory, bytes: &[u8]) -> Result<(), DeviceError> {
        self.gpu.write(to, bytes)
    }

    fn read(&mut self, from: DeviceMemory, bytes: &mut [u8]) -> Result<(), DeviceError> {
        self.gpu.read(from, bytes)
    }

    #[expect(unsafe_code, reason = "the GPU's own")]
    unsafe fn launch(
        &mut self,
        kernel: &'static str,
        shape: LaunchShape,
        arguments: &[u8],
    ) -> Result<(), DeviceError> {
        if let Some(launches) = self.launches.last_mut().filter(|_| self.is_recording) {
            *launches += 1;
        }
        // SAFETY: the caller's.
        unsafe { self.gpu.launch(kernel, shape, arguments) }
    }

    fn begin_recording(&mut self) -> Result<(), DeviceError> {
        self.launches.push(0);
        self.is_recording = true;
        self.gpu.begin_recording()
    }

    fn end_recording(&mut self) -> Result<Recording, DeviceError> {
        self.is_recording = false;
        self.gpu.end_recording()
    }

    #[expect(unsafe_code, reason = "the GPU's own")]
    unsafe fn replay(&mut self, recording: Recording) -> Result<(), DeviceError> {
        if !self.seen.lock().unwrap().is_wanted {
            // SAFETY: the caller's.
            return unsafe { self.gpu.replay(recording) };
        }
        // SAFETY: the caller's.
        let took = self.gpu.measure(|gpu| unsafe { gpu.replay(recording) })?;
        let mut seen = self.seen.lock().unwrap();
        seen.times.push(took);
        seen.launches = self.launches.get(recording.number()).copied().unwrap_or(0);
        Ok(())
    }
}
