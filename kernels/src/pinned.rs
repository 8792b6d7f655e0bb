#![expect(unsafe_code, reason = "the CUDA driver")]

use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::Arc;

use crate::driver::DriverError;
use crate::gpu_context::GpuContext;
use crate::host_buffer::HostBuffer;

/// Host memory that is never swapped or moved: the driver copies from it by itself, while the host goes on.
#[derive(Debug)]
struct Pinned {
    context: Arc<GpuContext>,
    memory: *mut c_void,
}

// SAFETY: the driver frees memory from any thread, and nothing else is done with it here.
unsafe impl Send for Pinned {}

/// A buffer of such memory, which the driver aligns to pages.
pub(crate) fn pinned_buffer(context: &Arc<GpuContext>, bytes: usize) -> Result<HostBuffer, DriverError> {
    let driver = context.enter()?;
    let mut memory = std::ptr::null_mut();
    // What is free of the host's memory is not the driver's to tell.
    let shortage = DriverError::OutOfMemory {
        what: "pinned host memory",
        asked_bytes: Some(bytes as u64),
        free_bytes: None,
    };
    // SAFETY: the place is ours.
    let allocated = unsafe { driver.allocate_host(&raw mut memory, bytes, 0) };
    allocated.map_err(|error| if error.is_out_of_memory() { shortage.clone() } else { error })?;
    let pinned = Pinned { context: Arc::clone(context), memory };
    let start = NonNull::new(memory.cast::<u8>()).ok_or(shortage)?;
    // SAFETY: so many bytes are there, which are written here, and are freed when `pinned` is dropped.
    unsafe {
        start.write_bytes(0, bytes);
        Ok(HostBuffer::new(start, bytes, Box::new(pinned)))
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if let Ok(driver) = self.context.enter() {
            // SAFETY: allocated once. There is nobody to tell of a failure.
            let _ = unsafe { driver.free_host(self.memory) };
        }
    }
}
