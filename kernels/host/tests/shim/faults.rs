#![expect(unsafe_code, reason = "launches of kernels that are wrong in ways that touch nothing else")]

use sparkherd_kernels::{Device as _, DeviceError, LaunchShape};

const THREADS: u32 = 64;

/// What the kernel leaves in its 64 places, or why it failed.
fn run(kernel: &'static str, blocks: u32, threads: u32) -> Result<Vec<f32>, String> {
    let mut device = crate::device();
    let bytes = THREADS as usize * size_of::<f32>();
    let out = device.allocate(bytes).unwrap();
    device.write(out, &vec![0; bytes]).unwrap();
    let shape = LaunchShape { grid: [blocks, 1, 1], threads };
    // SAFETY: the structure is one address, of as many places as there are threads.
    let launched = unsafe { device.launch(kernel, shape, &out.address().to_ne_bytes()) };
    launched.map_err(|error| match error {
        DeviceError::Launch { kernel: failed, reason } if failed == kernel => reason,
        other => format!("not a failed launch: {other}"),
    })?;
    let mut read = vec![0; bytes];
    device.read(out, &mut read).unwrap();
    Ok(read.as_chunks().0.iter().map(|value| f32::from_ne_bytes(*value)).collect())
}

#[test]
fn what_a_gpu_leaves_undefined_is_an_error() {
    for (kernel, expected) in [
        ("fault_barrier", "a barrier is not reached by all threads of its block"),
        ("fault_lane", "lanes wait for others of their warp that do not come"),
        ("fault_purposes", "lanes of one warp wait for different things"),
    ] {
        assert_eq!(run(kernel, 1, THREADS), Err(expected.to_owned()), "{kernel}");
    }
    // Nothing is left over of a launch that failed.
    assert_eq!(run("fault_uninitialised", 1, THREADS), Ok(vec![1.0; 64]));
    let second = run("fault_uninitialised", 2, THREADS).unwrap();
    assert!(second.iter().all(|value| value.is_nan()), "{second:?}");
}

#[test]
fn a_launch_that_the_kernel_is_not_made_for_is_refused() {
    assert_eq!(run("fault_lane", 1, 65), Err("a block has at most 64 threads, not 65".to_owned()));
    let mut device = crate::device();
    let shape = LaunchShape { grid: [1, 1, 1], threads: 1 };
    // SAFETY: it is refused.
    let refused = unsafe { device.launch("fault_lane", shape, &[0; 16]) }.unwrap_err();
    assert_eq!(refused.to_string(), "fault_lane failed: its arguments have 8 bytes, not 16");
}
