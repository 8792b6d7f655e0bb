#![expect(unsafe_code, reason = "the CUDA driver, and host memory that it copies from")]

use std::ffi::c_void;

use crate::device::DeviceMemory;
use crate::driver::{Driver, DriverError, Handle};

/// Bytes of a slot: what the loader reads at once, and far above what a copy costs to begin.
const SLOT_BYTES: usize = 4 << 20;
/// One is filled while another is copied; the others take up what the disk gives unevenly.
const SLOTS: usize = 4;
/// Host bytes of a [`crate::Gpu`] that no swapping and no moving touches.
pub const STAGING_HOST_BYTES: u64 = (SLOTS * SLOT_BYTES) as u64;

/// `CU_EVENT_DISABLE_TIMING`
const EVENT_WITHOUT_TIMING: u32 = 2;

/// Pinned host memory that every copy goes through: the driver copies from it by itself, while the host goes on.
#[derive(Debug)]
pub(crate) struct Staging {
    slots: Vec<Slot>,
    next: usize,
}

#[derive(Debug)]
struct Slot {
    memory: *mut c_void,
    /// When its last copy is done.
    copied: Handle,
    is_copying: bool,
}

// SAFETY: slots are used by whoever has `&mut` only; the driver takes memory and events from any thread.
unsafe impl Send for Staging {}

impl Staging {
    /// In a thread whose current context is the GPU's, as all of these.
    pub(crate) fn new(driver: &Driver) -> Result<Self, DriverError> {
        let mut staging = Self { slots: Vec::with_capacity(SLOTS), next: 0 };
        for _ in 0..SLOTS {
            let (mut memory, mut copied) = (std::ptr::null_mut(), std::ptr::null_mut());
            // SAFETY: both places are ours; what was made is freed by `free`, also of a slot whose second half fails.
            unsafe {
                driver.allocate_host(&raw mut memory, SLOT_BYTES, 0)?;
                staging.slots.push(Slot { memory, copied, is_copying: false });
                driver.create_event(&raw mut copied, EVENT_WITHOUT_TIMING)?;
            }
            if let Some(slot) = staging.slots.last_mut() {
                slot.copied = copied;
            }
        }
        Ok(staging)
    }

    /// Copies, in the stream's turn. The bytes may change as soon as this returns.
    pub(crate) fn write(
        &mut self,
        driver: &Driver,
        stream: Handle,
        to: DeviceMemory,
        bytes: &[u8],
    ) -> Result<(), DriverError> {
        let mut address = to.address();
        for chunk in bytes.chunks(SLOT_BYTES) {
            let slots = self.slots.len().max(1);
            let Some(slot) = self.slots.get_mut(self.next) else { return Ok(()) };
            // SAFETY: the slot has `SLOT_BYTES` that nothing reads once its last copy is done, and `to` is as long as `bytes`,
            // of which its caller has made sure.
            unsafe {
                if slot.is_copying {
                    driver.await_event(slot.copied)?;
                }
                std::ptr::copy_nonoverlapping(chunk.as_ptr(), slot.memory.cast(), chunk.len());
                driver.copy_to_device(address, slot.memory, chunk.len(), stream)?;
                driver.record_event(slot.copied, stream)?;
            }
            slot.is_copying = true;
            address += chunk.len() as u64;
            self.next = (self.next + 1) % slots;
        }
        Ok(())
    }

    /// Copies after everything in the stream, and waits for it.
    pub(crate) fn read(
        &mut self,
        driver: &Driver,
        stream: Handle,
        from: DeviceMemory,
        bytes: &mut [u8],
    ) -> Result<(), DriverError> {
        let mut address = from.address();
        for part in bytes.chunks_mut(SLOT_BYTES * self.slots.len().max(1)) {
            // SAFETY: in the stream's turn slots are written after what is copied from them, each has room for a chunk, and
            // `from` is as long as `bytes`, of which its caller has made sure.
            unsafe {
                for (chunk, slot) in part.chunks(SLOT_BYTES).zip(&self.slots) {
                    driver.copy_to_host(slot.memory, address, chunk.len(), stream)?;
                    address += chunk.len() as u64;
                }
                driver.synchronize(stream)?;
                self.slots.iter_mut().for_each(|slot| slot.is_copying = false);
                for (chunk, slot) in part.chunks_mut(SLOT_BYTES).zip(&self.slots) {
                    std::ptr::copy_nonoverlapping(slot.memory.cast(), chunk.as_mut_ptr(), chunk.len());
                }
            }
        }
        Ok(())
    }

    /// Once nothing in the stream uses it. There is nobody to tell of a failure.
    pub(crate) fn free(&mut self, driver: &Driver) {
        for Slot { memory, copied, is_copying: _ } in self.slots.drain(..) {
            // SAFETY: each was made by `new`, once.
            unsafe {
                if !copied.is_null() {
                    let _ = driver.destroy_event(copied);
                }
                let _ = driver.free_host(memory);
            }
        }
    }
}
