//! What a GPU behind a driver does that the shim by itself does not: it is late, it refuses, and it stays broken.

use std::ffi::{CString, c_int, c_uint, c_void};
use std::sync::Arc;
use std::thread;

use libloading::{Library, Symbol};
use sparkherd_kernels::{
    Device, DeviceError, Driver, DriverError, Gpu, GpuContext, GpuKernels, LaunchShape, Recording,
};
use sparkherd_kernels_host::cubins;

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
fn buffers_are_copied_from_while_others_are_filled() {
    const BUFFER_BYTES: usize = 10_000;
    let mut gpu = crate::gpu();
    let memory = gpu.allocate(8 * BUFFER_BYTES).unwrap();
    let mut free = gpu.host_buffers(3, BUFFER_BYTES).unwrap();
    let taken = taken();
    for part in 0..8 {
        let mut buffer = free.pop().unwrap();
        buffer.as_mut_slice().fill(part as u8 + 1);
        let to = memory.part(part * BUFFER_BYTES, BUFFER_BYTES - 7).unwrap();
        free.extend(gpu.write_buffer(to, buffer, 7..BUFFER_BYTES).unwrap());
    }
    // The last one is still the GPU's.
    assert_eq!((free.len(), self::taken()), (2, taken));
    gpu.free_buffers().unwrap();
    let mut got = vec![0; 8 * BUFFER_BYTES];
    gpu.read(memory, &mut got).unwrap();
    for (part, bytes) in got.chunks(BUFFER_BYTES).enumerate() {
        assert!(bytes[..BUFFER_BYTES - 7].iter().all(|byte| usize::from(*byte) == part + 1), "part {part}");
    }
    let beyond = gpu.write_buffer(memory, free.remove(0), 1..BUFFER_BYTES + 1);
    assert!(matches!(beyond, Err(DeviceError::OutOfRange { .. })), "{beyond:?}");
}

#[test]
fn more_than_there_is_is_refused_with_what_there_is() {
    let mut gpu = crate::gpu();
    let (_, total) = gpu.context().memory_info().unwrap();
    let error = gpu.allocate(usize::try_from(total).unwrap() + 1).unwrap_err();
    assert!(error.is_out_of_memory() && !error.is_fault());
    let DeviceError::Driver(DriverError::OutOfMemory { what, asked_bytes, free_bytes }) = error else {
        panic!("{error}");
    };
    assert_eq!((what, asked_bytes), ("GPU memory for arenas", Some(total + 1)));
    assert!(free_bytes.is_some_and(|free| free > 0 && free <= total), "{free_bytes:?}");
}

#[test]
fn whatever_cannot_be_made_for_want_of_memory_says_so() {
    let cases = [
        ("cuDevicePrimaryCtxRetain", "GPU memory for a context"),
        ("cuModuleLoadData", "GPU memory for kernels"),
        ("cuFuncLoad", "GPU memory for a kernel"),
        ("cuStreamCreate", "GPU memory for a stream"),
        ("cuMemHostAlloc", "pinned host memory"),
        ("cuEventCreate", "GPU memory for an event"),
        ("cuMemAlloc_v2", "GPU memory for arenas"),
        ("cuGraphInstantiateWithFlags", "GPU memory for a recorded step"),
    ];
    for (function, named) in cases {
        fail(function, OUT_OF_MEMORY, 1);
        let error = record_nothing().unwrap_err();
        assert!(error.is_out_of_memory(), "{function}: {error}");
        let told = error.to_string();
        assert!(told.contains(&format!("out of {named}: ")), "{function}: {told}");
        // Without a context nobody tells, nor of memory that is the host's.
        let is_known = !["cuDevicePrimaryCtxRetain", "cuMemHostAlloc"].contains(&function);
        assert_eq!(told.contains("are free"), is_known, "{function}: {told}");
    }
    record_nothing().unwrap();
}

/// All that a GPU is used for.
fn record_nothing() -> Result<(), DeviceError> {
    let driver = Arc::new(Driver::open(Some(&crate::driver_library()))?);
    let context = Arc::new(GpuContext::open(driver, 0)?);
    let mut gpu = Gpu::new(Arc::new(GpuKernels::load(context, &cubins())?))?;
    gpu.allocate(1)?;
    gpu.begin_recording()?;
    gpu.end_recording()?;
    Ok(())
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

#[test]
fn a_launch_beyond_what_a_chip_runs_is_refused() {
    let mut gpu = crate::gpu();
    let mut launched = |grid, threads| {
        let shape = LaunchShape { grid, threads };
        // SAFETY: it is refused, nothing runs.
        #[expect(unsafe_code, reason = "what is refused")]
        let launched = unsafe { gpu.launch("add", shape, &[0; 64]) };
        launched.map_err(|error| error.to_string())
    };
    let refused = |told: Result<(), String>, named: &str| {
        assert!(told.as_ref().is_err_and(|told| told.ends_with(named)), "{told:?}");
    };
    for (grid, threads) in [
        ([1 << 31, 1, 1], 32),
        ([1, 65_536, 1], 32),
        ([1, 1, 65_536], 32),
        ([0, 1, 1], 32),
        ([1, 1, 1], 0),
        ([1, 1, 1], 1025),
    ] {
        refused(launched(grid, threads), "error 1, CUDA_ERROR_INVALID_VALUE");
    }
    // Fewer threads than any kernel has, more than this one was compiled for.
    refused(launched([1, 1, 1], 1024), "error 701, CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES");
}

const INVALID_VALUE: c_int = 1;
const OUT_OF_MEMORY: c_int = 2;
const INVALID_CONTEXT: c_int = 201;
const INVALID_HANDLE: c_int = 400;
const MAX_DYNAMIC_SHARED_SIZE_BYTES: c_int = 8;

/// Makes the `call`th call of a function fail in this thread.
fn fail(function: &str, status: c_int, call: c_uint) {
    let name = CString::new(function).unwrap();
    let raw = Raw::open();
    // SAFETY: the type is that of driver_script.cpp, and the name ends.
    #[expect(unsafe_code, reason = "a function of the driver's script")]
    unsafe {
        let fail: Symbol<'_, unsafe extern "C" fn(*const std::ffi::c_char, c_int, c_uint)> =
            raw.0.get("host_driver_fail").unwrap();
        fail(name.as_ptr(), status, call);
    }
}

/// How often this thread has called what takes memory.
fn taken() -> c_uint {
    let raw = Raw::open();
    // SAFETY: the type is that of driver_script.cpp.
    #[expect(unsafe_code, reason = "a function of the driver's script")]
    unsafe {
        let taken: Symbol<'_, unsafe extern "C" fn() -> c_uint> = raw.0.get("host_driver_taken").unwrap();
        taken()
    }
}

/// The driver's functions by their names, for calls that `Gpu` never makes.
struct Raw(Library);

/// Calls one with arguments of the types that cuda.h has.
macro_rules! call {
    ($raw:expr, $name:literal, $($argument:expr => $type:ty),+) => {{
        // SAFETY: the types are those of cuda.h; what is wrong with the arguments is refused.
        #[expect(unsafe_code, reason = "a function of a driver")]
        let status: c_int = unsafe {
            let function: Symbol<'_, unsafe extern "C" fn($($type),+) -> c_int> = $raw.0.get($name).unwrap();
            function($($argument),+)
        };
        status
    }};
}

impl Raw {
    fn open() -> Self {
        // SAFETY: the library is ours, and has nothing that runs when it is loaded.
        #[expect(unsafe_code, reason = "a shared library")]
        let library = unsafe { Library::new(crate::driver_library()) };
        Self(library.unwrap())
    }
}

#[test]
fn only_pinned_memory_that_is_still_there_is_copied_from() {
    let gpu = crate::gpu();
    gpu.context().memory_info().unwrap();
    let raw = Raw::open();
    let mut stream: *mut c_void = std::ptr::null_mut();
    let (mut pinned, mut event) = (stream, stream);
    let mut device = 0_u64;
    assert_eq!(call!(raw, "cuStreamCreate", &raw mut stream => *mut *mut c_void, 1 => c_uint), 0);
    assert_eq!(call!(raw, "cuMemAlloc_v2", &raw mut device => *mut u64, 64 => usize), 0);
    assert_eq!(
        call!(raw, "cuMemHostAlloc", &raw mut pinned => *mut *mut c_void, 64 => usize, 0 => c_uint),
        0
    );
    let copy = |from: *mut c_void, bytes: usize| {
        call!(
            raw,
            "cuMemcpyHtoDAsync_v2",
            device => u64,
            from => *mut c_void,
            bytes => usize,
            stream => *mut c_void
        )
    };
    assert_eq!(copy(pinned, 64), 0);
    assert_eq!(copy(pinned, 65), INVALID_VALUE);
    let mut ordinary = [0_u8; 64];
    assert_eq!(copy(ordinary.as_mut_ptr().cast(), 64), INVALID_VALUE);
    assert_eq!(call!(raw, "cuStreamSynchronize", stream => *mut c_void), 0);
    assert_eq!(call!(raw, "cuMemFreeHost", pinned => *mut c_void), 0);
    assert_eq!(call!(raw, "cuMemFreeHost", pinned => *mut c_void), INVALID_VALUE);
    assert_eq!(copy(pinned, 64), INVALID_VALUE);
    assert_eq!(call!(raw, "cuMemFree_v2", device => u64), 0);
    assert_eq!(call!(raw, "cuMemFree_v2", device => u64), INVALID_VALUE);
    assert_eq!(call!(raw, "cuEventCreate", &raw mut event => *mut *mut c_void, 0 => c_uint), 0);
    assert_eq!(call!(raw, "cuEventDestroy_v2", event => *mut c_void), 0);
    assert_eq!(call!(raw, "cuEventSynchronize", event => *mut c_void), INVALID_HANDLE);
    assert_eq!(call!(raw, "cuStreamDestroy_v2", stream => *mut c_void), 0);
    assert_eq!(call!(raw, "cuStreamSynchronize", stream => *mut c_void), INVALID_HANDLE);
}

#[test]
fn a_thread_without_the_context_is_refused() {
    let gpu = crate::gpu();
    let alone = thread::spawn(|| {
        let (mut free, mut total) = (0, 0);
        let raw = Raw::open();
        call!(raw, "cuMemGetInfo_v2", &raw mut free => *mut usize, &raw mut total => *mut usize)
    });
    assert_eq!(alone.join().unwrap(), INVALID_CONTEXT);
    // One that enters is not.
    let context = gpu.context();
    thread::scope(|scope| scope.spawn(|| context.memory_info().unwrap()).join().unwrap());
}

#[test]
fn more_dynamic_shared_memory_must_be_asked_for() {
    let gpu = crate::gpu();
    gpu.context().memory_info().unwrap();
    let raw = Raw::open();
    let mut stream: *mut c_void = std::ptr::null_mut();
    let mut function = stream;
    assert_eq!(call!(raw, "cuStreamCreate", &raw mut stream => *mut *mut c_void, 1 => c_uint), 0);
    let found = call!(
        raw,
        "cuModuleGetFunction",
        &raw mut function => *mut *mut c_void,
        std::ptr::null_mut() => *mut c_void,
        c"fault_barrier".as_ptr() => *const std::ffi::c_char
    );
    assert_eq!(found, 0);
    // What it would do with it is never seen: the stream is gone before anybody waits for it.
    let mut arguments = [0_u64; 8];
    let launch = |bytes: c_uint| {
        let mut parameters = [arguments.as_mut_ptr().cast::<c_void>()];
        call!(
            raw,
            "cuLaunchKernel",
            function => *mut c_void,
            1 => c_uint, 1 => c_uint, 1 => c_uint,
            1 => c_uint, 1 => c_uint, 1 => c_uint,
            bytes => c_uint,
            stream => *mut c_void,
            parameters.as_mut_ptr() => *mut *mut c_void,
            std::ptr::null_mut() => *mut *mut c_void
        )
    };
    let mut launch = launch;
    let ask = |bytes: c_int| {
        call!(
            raw,
            "cuFuncSetAttribute",
            function => *mut c_void,
            MAX_DYNAMIC_SHARED_SIZE_BYTES => c_int,
            bytes => c_int
        )
    };
    assert_eq!((launch(48 << 10), launch((48 << 10) + 1)), (0, INVALID_VALUE));
    assert_eq!((ask(100 << 10), ask(99 << 10)), (INVALID_VALUE, 0));
    assert_eq!((launch(99 << 10), launch((99 << 10) + 1)), (0, INVALID_VALUE));
    assert_eq!(call!(raw, "cuStreamDestroy_v2", stream => *mut c_void), 0);
}
