use sparkherd_kernels::{Device, DeviceMemory};

use crate::backend::{BackendError, arena::Arena};

/// Numbers of a step in device memory. All layers ask for the same, so they are written when they change.
#[derive(Debug)]
pub(super) struct Indices {
    memory: DeviceMemory,
    /// What is there.
    written: Vec<u32>,
}

impl Indices {
    pub(super) fn new(device: &mut dyn Device, limit: usize) -> Result<Self, BackendError> {
        let memory = device.allocate(limit * size_of::<u32>())?;
        Ok(Self { memory, written: Vec::with_capacity(limit) })
    }

    pub(super) fn upload(
        &mut self,
        device: &mut dyn Device,
        transfer: &mut Arena,
        values: &[u32],
    ) -> Result<DeviceMemory, BackendError> {
        let (got, limit) = (values.len(), self.memory.bytes() / size_of::<u32>());
        let places = transfer.as_mut_slice::<u32>().get_mut(..got).filter(|_| got <= limit);
        let beyond = BackendError::OutOfRange { operation: "upload", what: "indices", got, limit };
        let places = places.ok_or(beyond)?;
        if self.written != values {
            places.copy_from_slice(values);
            // Of a write that fails nothing is known.
            self.written.clear();
            device.write(self.memory, &transfer.as_slice::<u8>()[..size_of_val(values)])?;
            self.written.extend_from_slice(values);
        }
        Ok(self.memory)
    }
}
