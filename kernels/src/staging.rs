#![expect(unsafe_code, reason = "the CUDA driver, and host memory that it copies from")]

use std::sync::Arc;

use crate::device::DeviceMemory;
use crate::driver::{Driver, DriverError, Handle};
use crate::gpu_context::GpuContext;
use crate::host_buffer::HostBuffer;
use crate::moment::Moment;
use crate::pinned::pinned_buffer;

/// Bytes of a slot: the logits of three rows of the largest vocabularies, and far above what a copy costs to begin.
const SLOT_BYTES: usize = 2 << 20;
/// One is filled while another is copied.
const SLOTS: usize = 2;
/// Host bytes of a [`crate::Gpu`] that no swapping and no moving touches.
pub const STAGING_HOST_BYTES: u64 = (SLOTS * SLOT_BYTES) as u64;

/// Pinned host memory for what steps are told and what they answer, whose own memory the driver cannot copy from by itself.
#[derive(Debug)]
pub(crate) struct Staging {
    slots: Vec<Slot>,
    next: usize,
}

#[derive(Debug)]
struct Slot {
    buffer: HostBuffer,
    /// When its last copy is done.
    copied: Moment,
    is_copying: bool,
}

impl Staging {
    pub(crate) fn new(context: &Arc<GpuContext>) -> Result<Self, DriverError> {
        let slot = |_| {
            let buffer = pinned_buffer(context, SLOT_BYTES)?;
            Ok(Slot { buffer, copied: Moment::new(context)?, is_copying: false })
        };
        Ok(Self { slots: (0..SLOTS).map(slot).collect::<Result<_, DriverError>>()?, next: 0 })
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
            if slot.is_copying {
                slot.copied.wait()?;
            }
            let place = &mut slot.buffer.as_mut_slice()[..chunk.len()];
            place.copy_from_slice(chunk);
            // SAFETY: the slot's bytes are not written before this copy is done, and `to` is as long as `bytes`, of which its
            // caller has made sure.
            unsafe { driver.copy_to_device(address, place.as_ptr().cast(), chunk.len(), stream) }?;
            slot.copied.record(stream)?;
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
            for (chunk, slot) in part.chunks(SLOT_BYTES).zip(&mut self.slots) {
                let place = slot.buffer.as_mut_slice().as_mut_ptr().cast();
                // SAFETY: in the stream's turn a slot is written after what is copied from it, it has room for a chunk, and `from`
                // is as long as `bytes`, of which its caller has made sure.
                unsafe { driver.copy_to_host(place, address, chunk.len(), stream) }?;
                address += chunk.len() as u64;
            }
            // SAFETY: the stream is alive. A step ends here.
            unsafe { driver.synchronize(stream) }?;
            // What was written before is copied too by now.
            self.slots.iter_mut().for_each(|slot| slot.is_copying = false);
            for (chunk, slot) in part.chunks_mut(SLOT_BYTES).zip(&self.slots) {
                chunk.copy_from_slice(&slot.buffer.as_slice()[..chunk.len()]);
            }
        }
        Ok(())
    }
}
