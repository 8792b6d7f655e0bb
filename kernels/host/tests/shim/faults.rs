#![expect(unsafe_code, reason = "launches of kernels that are wrong in ways that touch nothing else")]

use std::env;

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
        DeviceError::Launch { kernel: failed, reason } if failed == kernel => reason.to_string(),
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
    for kernel in ["fault_uninitialised", "fault_uninitialised_in_template"] {
        assert_eq!(run(kernel, 1, THREADS), Ok(vec![1.0; 64]), "{kernel}");
        let second = run(kernel, 2, THREADS).unwrap();
        assert!(second.iter().all(|value| value.is_nan()), "{kernel}: {second:?}");
    }
    let early = run("fault_copy_not_waited_for", 1, THREADS).unwrap();
    assert!(early.iter().all(|value| value.is_nan()), "{early:?}");
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

#[test]
fn a_race_is_told_by_the_detector_and_by_nothing_else() {
    let detects = env::var_os("SPARKHERD_KERNELS_RACES").is_some();
    for (kernel, told) in [
        ("fault_race", "no barrier between writing and reading byte "),
        ("fault_race_after_read", "no barrier between reading and writing byte "),
        ("fault_race_of_writes", "no barrier between two writes of byte "),
        ("fault_race_beside_shuffle", "no barrier between writing and reading byte "),
        ("fault_race_of_copies", "no barrier between writing and reading byte "),
    ] {
        match run(kernel, 1, THREADS) {
            Ok(values) => assert!(!detects && values == vec![1.0; 64], "{kernel} gave {values:?}"),
            Err(reason) => assert!(detects && reason.starts_with(told), "{kernel}: {reason}"),
        }
    }
    for kernel in ["fault_none", "fault_none_of_copies"] {
        assert_eq!(run(kernel, 2, THREADS), Ok(vec![1.0; 64]), "{kernel}");
    }
}

/// `cargo xtask shim` expects that this ends the process.
#[test]
#[ignore = "of a fault that only a library with sanitizers tells"]
fn a_named_fault() {
    let kernel = env::var("SPARKHERD_KERNELS_FAULT").unwrap();
    let known = ["fault_past_memory", "fault_past_shared", "fault_past_local", "fault_shift"];
    let kernel = known.into_iter().find(|known| *known == kernel).unwrap();
    run(kernel, 1, THREADS).unwrap();
}
