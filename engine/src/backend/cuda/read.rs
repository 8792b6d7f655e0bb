use sparkherd_kernels::{Device, DeviceMemory};

use crate::backend::{BackendError, arena::Arena};

/// Reads values to the host, from this element on. Tells where they end.
pub(super) fn read_to(
    device: &mut dyn Device,
    from: DeviceMemory,
    transfer: &mut Arena,
    start: usize,
) -> Result<usize, BackendError> {
    let limit = transfer.bytes() / size_of::<f32>();
    let end = start + from.bytes() / size_of::<f32>();
    let bytes = start * size_of::<f32>()..end * size_of::<f32>();
    let beyond = BackendError::OutOfRange { operation: "read", what: "values", got: end, limit };
    let to = transfer.as_mut_slice::<u8>().get_mut(bytes).ok_or(beyond)?;
    // Of one kind there may be none.
    if !to.is_empty() {
        device.read(from, to)?;
    }
    Ok(end)
}
