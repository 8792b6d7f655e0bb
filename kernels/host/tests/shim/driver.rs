//! What a GPU behind a driver does that the shim by itself does not: it is late, and it stays broken.

use sparkherd_kernels::{Device, DeviceError, LaunchShape, Recording};

/// Larger than the ring that copies go through, and no multiple of its slots.
const BYTES: usize = (37 << 20) + 12_345;

#[test]
fn what_was_written_is_read_whatever_became_of_the_source() {
    let mut gpu = crate::gpu();
    let memory = gpu.allocate(BYTES).unwrap();
    let mut bytes: Vec<u8> = (0..BYTES).map(|index| (index * 31 + index / 251) as u8).collect();
    let wanted = bytes.clone();
    gpu.write(memory, &bytes).unwrap();
    bytes.fill(0);
    gpu.read(memory, &mut bytes).unwrap();
    assert!(bytes == wanted);
    // A part, after others in their turn.
    gpu.write(memory.part(BYTES - 5, 5).unwrap(), &[1, 2, 3, 4, 5]).unwrap();
    gpu.write(memory.part(BYTES - 4, 2).unwrap(), &[9, 9]).unwrap();
    let mut end = [0; 6];
    gpu.read(memory.part(BYTES - 6, 6).unwrap(), &mut end).unwrap();
    assert_eq!(end, [wanted[BYTES - 6], 1, 9, 9, 4, 5]);
}

#[test]
fn more_than_there_is_is_refused_by_the_drivers_word() {
    let mut gpu = crate::gpu();
    let (free, total) = gpu.context().memory_info().unwrap();
    assert!(free <= total);
    let error = gpu.allocate(usize::try_from(total).unwrap() + 1).unwrap_err();
    assert!(error.to_string().ends_with("error 2, CUDA_ERROR_OUT_OF_MEMORY"), "{error}");
}

#[test]
fn nothing_is_copied_or_allocated_into_a_recording() {
    let mut gpu = crate::gpu();
    let memory = gpu.allocate(16).unwrap();
    gpu.begin_recording().unwrap();
    assert!(matches!(gpu.write(memory, &[1]), Err(DeviceError::Copy { .. })));
    assert!(matches!(gpu.read(memory, &mut [0]), Err(DeviceError::Copy { .. })));
    assert!(matches!(gpu.allocate(1), Err(DeviceError::Allocation { .. })));
    gpu.end_recording().unwrap();
    // The stream goes on.
    gpu.write(memory, &[1]).unwrap();
    // SAFETY: there is no such recording, nothing runs.
    #[expect(unsafe_code, reason = "what is refused")]
    let replayed = unsafe { gpu.replay(Recording::new(7)) };
    assert!(matches!(replayed, Err(DeviceError::Recording { .. })));
}

#[test]
fn a_kernel_that_was_not_loaded_is_named() {
    let shape = LaunchShape { grid: [1, 1, 1], threads: 32 };
    // SAFETY: there is no such kernel, nothing runs.
    #[expect(unsafe_code, reason = "what is refused")]
    let error = unsafe { crate::gpu().launch("no_such_kernel", shape, &[0; 8]) }.unwrap_err();
    assert_eq!(error.to_string(), "no_such_kernel failed: it is not among the kernels that were loaded");
}
