#![expect(unsafe_code, reason = "the CUDA driver, and host memory that it copies from")]

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use crate::device::DeviceMemory;
use crate::driver::{DriverError, Handle};
use crate::gpu_context::GpuContext;
use crate::host_buffer::HostBuffer;
use crate::moment::Moment;

/// One is copied while the next is brought: a copy takes a fraction of the time that a disk takes to fill a buffer.
const UNDER_WAY: usize = 2;

/// Buffers that the driver copies from, in the order they were given.
#[derive(Debug)]
pub(crate) struct Uploads {
    under_way: VecDeque<(HostBuffer, Moment)>,
    /// Copied from, and nobody will tell when that ends.
    unmarked: Vec<HostBuffer>,
    idle: Vec<Moment>,
}

impl Uploads {
    pub(crate) const fn new() -> Self {
        Self { under_way: VecDeque::new(), unmarked: Vec::new(), idle: Vec::new() }
    }

    /// Makes all that copies need, before the first.
    pub(crate) fn prepare(&mut self, context: &Arc<GpuContext>) -> Result<(), DriverError> {
        while self.idle.len() + self.under_way.len() < UNDER_WAY {
            self.idle.push(Moment::new(context)?);
        }
        Ok(())
    }

    /// Copies in the stream's turn, and keeps the buffer. Gives back the oldest once there are too many, when it is copied.
    /// `bytes` lie in the buffer, and `to` is as long: its caller has made sure.
    pub(crate) fn copy(
        &mut self,
        context: &Arc<GpuContext>,
        stream: Handle,
        to: DeviceMemory,
        buffer: HostBuffer,
        bytes: Range<usize>,
    ) -> Result<Option<HostBuffer>, DriverError> {
        self.prepare(context)?;
        let mut moment = match self.idle.pop() {
            Some(moment) => moment,
            None => Moment::new(context)?,
        };
        let from = &buffer.as_slice()[bytes];
        // SAFETY: `to` is as long, and the buffer is kept until the copy is done.
        unsafe { context.enter()?.copy_to_device(to.address(), from.as_ptr().cast(), from.len(), stream) }?;
        // Kept whatever comes: it is copied from now.
        if let Err(error) = moment.record(stream) {
            self.unmarked.push(buffer);
            return Err(error);
        }
        self.under_way.push_back((buffer, moment));
        if self.under_way.len() < UNDER_WAY { Ok(None) } else { self.oldest() }
    }

    fn oldest(&mut self) -> Result<Option<HostBuffer>, DriverError> {
        let Some((buffer, moment)) = self.under_way.pop_front() else { return Ok(None) };
        if let Err(error) = moment.wait() {
            // It may still be copied from: the stream's end frees it.
            self.under_way.push_front((buffer, moment));
            return Err(error);
        }
        self.idle.push(moment);
        Ok(Some(buffer))
    }

    /// Waits for all, and frees them.
    pub(crate) fn finish(&mut self) -> Result<(), DriverError> {
        while self.oldest()?.is_some() {}
        self.idle.clear();
        Ok(())
    }

    /// Once nothing in the stream uses them.
    pub(crate) fn free(&mut self) {
        self.under_way.clear();
        self.unmarked.clear();
        self.idle.clear();
    }
}
