#![expect(unsafe_code, reason = "the CUDA driver")]
//! Waiting for the GPU.
//!
//! Whoever fills the GPU with weights, or waits for room to tell it more, sleeps: an event with `CU_EVENT_BLOCKING_SYNC`. The answer
//! of a step is waited for with `cuStreamSynchronize`, which by the driver's default watches the GPU without sleeping: its core is
//! busy while a step runs, and the next step begins some tens of microseconds sooner than a thread that slept would wake, which is
//! 3 % of a step of a millisecond. An engine without requests waits for them on its own channel, with no part of the driver.

use std::sync::Arc;

use crate::driver::{DriverError, Handle};
use crate::gpu_context::GpuContext;

/// `CU_EVENT_BLOCKING_SYNC` | `CU_EVENT_DISABLE_TIMING`
const SLEEP_WITHOUT_TIMING: u32 = 1 | 2;

/// A moment in a stream that a thread can sleep until.
#[derive(Debug)]
pub(crate) struct Moment {
    context: Arc<GpuContext>,
    event: Handle,
}

// SAFETY: events may be used from any thread, one at a time, which is the one that has this.
unsafe impl Send for Moment {}

impl Moment {
    pub(crate) fn new(context: &Arc<GpuContext>) -> Result<Self, DriverError> {
        let driver = context.enter()?;
        let mut event = std::ptr::null_mut();
        // SAFETY: the place is ours.
        let created = unsafe { driver.create_event(&raw mut event, SLEEP_WITHOUT_TIMING) };
        created.map_err(|error| context.shortage(error, "GPU memory for an event", None))?;
        Ok(Self { context: Arc::clone(context), event })
    }

    /// From now on it is when all that the stream has so far is done.
    pub(crate) fn record(&mut self, stream: Handle) -> Result<(), DriverError> {
        // SAFETY: both are alive.
        unsafe { self.context.enter()?.record_event(self.event, stream) }
    }

    pub(crate) fn wait(&self) -> Result<(), DriverError> {
        // SAFETY: it is alive.
        unsafe { self.context.enter()?.await_event(self.event) }
    }
}

impl Drop for Moment {
    fn drop(&mut self) {
        if let Ok(driver) = self.context.enter() {
            // SAFETY: made once. There is nobody to tell of a failure.
            let _ = unsafe { driver.destroy_event(self.event) };
        }
    }
}
