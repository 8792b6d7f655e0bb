#![expect(unsafe_code, reason = "functions of a shared library")]
//! The CUDA driver, opened by path when it is needed: nothing is linked, and a machine without one is told by an error.
//!
//! Types and meanings are those of cuda.h. Only functions that every driver since CUDA 11.4 has are used, so that a driver is
//! too old only where it cannot load our machine code either.

use std::ffi::{CStr, OsStr, c_char, c_int, c_uint, c_void};

use libloading::Library;
use thiserror::Error;

/// Where drivers are on Linux; the loader looks it up in its own directories.
const DRIVER_LIBRARY: &str = "libcuda.so.1";

/// `CUresult`; 0 is success. A number, as later drivers have more of them.
pub(crate) type Status = c_int;
/// `CUcontext`, `CUmodule`, `CUfunction`, `CUstream`, `CUevent`, `CUgraph`, `CUgraphExec`.
pub(crate) type Handle = *mut c_void;
/// `CUdevice`
pub(crate) type DeviceNumber = c_int;
/// `CUdeviceptr`
pub(crate) type DeviceAddress = u64;

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DriverError {
    #[error("there is no CUDA driver: {0}")]
    Library(String),
    #[error("the CUDA driver has no {0}: it is older than CUDA 11.4")]
    Function(&'static str),
    #[error("{function} failed with error {status}, {name}")]
    Call { function: &'static str, status: Status, name: String },
    /// Which memory, and for what; what is known of the wish and of the memory.
    #[error("out of {what}: {}", shortage(*asked_bytes, *free_bytes))]
    OutOfMemory { what: &'static str, asked_bytes: Option<u64>, free_bytes: Option<u64> },
}

/// `CUDA_ERROR_OUT_OF_MEMORY`
const OUT_OF_MEMORY: Status = 2;

/// Errors after which every call of the process fails, until another process begins (cuda.h: "this leaves the process in an
/// inconsistent state", and errors of hardware that no call can mend).
const FAULTS: [Status; 14] = [
    /* ECC_UNCORRECTABLE */ 214, /* NVLINK_UNCORRECTABLE */ 220, /* CONTAINED */ 226,
    /* ILLEGAL_ADDRESS */ 700, /* LAUNCH_TIMEOUT */ 702, /* CONTEXT_IS_DESTROYED */ 709,
    /* ASSERT */ 710, /* HARDWARE_STACK_ERROR */ 714, /* ILLEGAL_INSTRUCTION */ 715,
    /* MISALIGNED_ADDRESS */ 716, /* INVALID_ADDRESS_SPACE */ 717, /* INVALID_PC */ 718,
    /* LAUNCH_FAILED */ 719, /* UNKNOWN, which a GPU that fell off its bus answers with */ 999,
];

impl DriverError {
    /// Whether there was less memory than was asked for.
    pub const fn is_out_of_memory(&self) -> bool {
        matches!(self, Self::OutOfMemory { .. } | Self::Call { status: OUT_OF_MEMORY, .. })
    }

    /// Whether the GPU is lost to this process ("sticky" errors): only another process can use it again.
    pub fn is_fault(&self) -> bool {
        matches!(self, Self::Call { status, .. } if FAULTS.contains(status))
    }
}

fn shortage(asked_bytes: Option<u64>, free_bytes: Option<u64>) -> String {
    let asked = asked_bytes.map(|bytes| format!("{bytes} bytes are asked for"));
    let free = free_bytes.map(|bytes| format!("{bytes} are free"));
    let known: Vec<String> = [asked, free].into_iter().flatten().collect();
    if known.is_empty() { "how much is free the driver does not tell".to_owned() } else { known.join(", ") }
}

/// An opened driver.
#[derive(Debug)]
pub struct Driver {
    functions: Functions,
    /// `cuFuncLoad`, which drivers since CUDA 12.4 have.
    load_function: Option<unsafe extern "C" fn(Handle) -> Status>,
    /// Holds the functions; closed last.
    _library: Library,
}

macro_rules! functions {
    ($($name:ident: $symbol:literal ($($argument:ident: $type:ty),+);)+) => {
        #[derive(Debug)]
        struct Functions {
            $($name: unsafe extern "C" fn($($type),+) -> Status,)+
        }

        impl Functions {
            fn look_up(library: &Library) -> Result<Self, DriverError> {
                Ok(Self {
                    $($name: {
                        // SAFETY: the type is that of cuda.h.
                        let symbol = unsafe { library.get::<unsafe extern "C" fn($($type),+) -> Status>($symbol) };
                        *symbol.map_err(|_| DriverError::Function($symbol))?
                    },)+
                })
            }
        }

        /// The driver's own functions. They are to be called as cuda.h has it: handles are alive, and places are as large as the
        /// function writes them.
        #[expect(clippy::too_many_arguments, reason = "as cuda.h has them")]
        impl Driver {
            $(pub(crate) unsafe fn $name(&self, $($argument: $type),+) -> Result<(), DriverError> {
                // SAFETY: the caller's.
                let status = unsafe { (self.functions.$name)($($argument),+) };
                self.outcome($symbol, status)
            })+
        }
    };
}

functions! {
    init: "cuInit" (flags: c_uint);
    version: "cuDriverGetVersion" (version: *mut c_int);
    device_count: "cuDeviceGetCount" (count: *mut c_int);
    device: "cuDeviceGet" (device: *mut DeviceNumber, ordinal: c_int);
    device_name: "cuDeviceGetName" (name: *mut c_char, bytes: c_int, device: DeviceNumber);
    device_bus_id: "cuDeviceGetPCIBusId" (bus_id: *mut c_char, bytes: c_int, device: DeviceNumber);
    device_memory: "cuDeviceTotalMem_v2" (bytes: *mut usize, device: DeviceNumber);
    device_attribute: "cuDeviceGetAttribute" (value: *mut c_int, attribute: c_int, device: DeviceNumber);
    retain_context: "cuDevicePrimaryCtxRetain" (context: *mut Handle, device: DeviceNumber);
    release_context: "cuDevicePrimaryCtxRelease_v2" (device: DeviceNumber);
    set_context: "cuCtxSetCurrent" (context: Handle);
    memory_info: "cuMemGetInfo_v2" (free: *mut usize, total: *mut usize);
    allocate: "cuMemAlloc_v2" (address: *mut DeviceAddress, bytes: usize);
    free: "cuMemFree_v2" (address: DeviceAddress);
    allocate_host: "cuMemHostAlloc" (address: *mut *mut c_void, bytes: usize, flags: c_uint);
    free_host: "cuMemFreeHost" (address: *mut c_void);
    copy_to_device: "cuMemcpyHtoDAsync_v2" (to: DeviceAddress, from: *const c_void, bytes: usize, stream: Handle);
    copy_to_host: "cuMemcpyDtoHAsync_v2" (to: *mut c_void, from: DeviceAddress, bytes: usize, stream: Handle);
    create_stream: "cuStreamCreate" (stream: *mut Handle, flags: c_uint);
    destroy_stream: "cuStreamDestroy_v2" (stream: Handle);
    synchronize: "cuStreamSynchronize" (stream: Handle);
    create_event: "cuEventCreate" (event: *mut Handle, flags: c_uint);
    destroy_event: "cuEventDestroy_v2" (event: Handle);
    record_event: "cuEventRecord" (event: Handle, stream: Handle);
    await_event: "cuEventSynchronize" (event: Handle);
    elapsed: "cuEventElapsedTime" (milliseconds: *mut f32, start: Handle, end: Handle);
    load_module: "cuModuleLoadData" (module: *mut Handle, image: *const c_void);
    unload_module: "cuModuleUnload" (module: Handle);
    function: "cuModuleGetFunction" (function: *mut Handle, module: Handle, name: *const c_char);
    launch: "cuLaunchKernel" (
        function: Handle,
        grid_x: c_uint,
        grid_y: c_uint,
        grid_z: c_uint,
        block_x: c_uint,
        block_y: c_uint,
        block_z: c_uint,
        shared_bytes: c_uint,
        stream: Handle,
        arguments: *mut *mut c_void,
        extra: *mut *mut c_void
    );
    begin_capture: "cuStreamBeginCapture_v2" (stream: Handle, mode: c_uint);
    end_capture: "cuStreamEndCapture" (stream: Handle, graph: *mut Handle);
    instantiate: "cuGraphInstantiateWithFlags" (executable: *mut Handle, graph: Handle, flags: u64);
    destroy_graph: "cuGraphDestroy" (graph: Handle);
    upload_graph: "cuGraphUpload" (executable: Handle, stream: Handle);
    launch_graph: "cuGraphLaunch" (executable: Handle, stream: Handle);
    destroy_executable: "cuGraphExecDestroy" (executable: Handle);
    name_of_error: "cuGetErrorName" (status: Status, name: *mut *const c_char);
}

impl Driver {
    /// The driver of this machine, or that of a file.
    pub fn open(path: Option<&OsStr>) -> Result<Self, DriverError> {
        // SAFETY: a driver's initialisers touch nothing of ours.
        let library = unsafe { Library::new(path.unwrap_or(OsStr::new(DRIVER_LIBRARY))) }
            .map_err(|error| DriverError::Library(error.to_string()))?;
        // SAFETY: the type is that of cuda.h.
        let load_function = unsafe { library.get::<unsafe extern "C" fn(Handle) -> Status>("cuFuncLoad") };
        let load_function = load_function.ok().map(|symbol| *symbol);
        let functions = Functions::look_up(&library)?;
        let driver = Self { functions, load_function, _library: library };
        // SAFETY: to be called first, with no flags there are.
        unsafe { driver.init(0) }?;
        Ok(driver)
    }

    /// Loads a kernel now, whatever the driver would do by itself, where the driver can be told to.
    ///
    /// # Safety
    ///
    /// The function is alive, and its context is the current one.
    pub(crate) unsafe fn load_function(&self, function: Handle) -> Result<(), DriverError> {
        match self.load_function {
            // SAFETY: the caller's.
            Some(load) => self.outcome("cuFuncLoad", unsafe { load(function) }),
            None => Ok(()),
        }
    }

    fn outcome(&self, function: &'static str, status: Status) -> Result<(), DriverError> {
        if status == 0 {
            return Ok(());
        }
        // Asking for a name may fail too, whose name is not asked for.
        let is_name = function == "cuGetErrorName";
        let name = if is_name { String::new() } else { self.error_name(status) };
        Err(DriverError::Call { function, status, name })
    }

    fn error_name(&self, status: Status) -> String {
        let mut name = std::ptr::null();
        // SAFETY: the place is ours; the text it is set to is a constant of the driver. Of a number it does not know there is none.
        let named = unsafe { self.name_of_error(status, &raw mut name) };
        if named.is_err() || name.is_null() {
            return "which has no name".to_owned();
        }
        // SAFETY: as above.
        unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::{Driver, DriverError};

    fn call(status: i32) -> DriverError {
        DriverError::Call { function: "cuLaunchKernel", status, name: String::new() }
    }

    #[test]
    fn a_fault_is_told_from_a_shortage_and_from_a_refusal() {
        let kinds = [2, 700, 214, 999, 1, 900]
            .map(|status| (call(status).is_out_of_memory(), call(status).is_fault()));
        let [shortage, fault, refusal] = [(true, false), (false, true), (false, false)];
        assert_eq!(kinds, [shortage, fault, fault, fault, refusal, refusal]);
    }

    #[test]
    fn a_shortage_says_what_is_known_of_it() {
        let of = |asked_bytes, free_bytes| {
            DriverError::OutOfMemory { what: "GPU memory for arenas", asked_bytes, free_bytes }.to_string()
        };
        assert_eq!(of(Some(9), Some(4)), "out of GPU memory for arenas: 9 bytes are asked for, 4 are free");
        assert_eq!(of(None, None), "out of GPU memory for arenas: how much is free the driver does not tell");
    }

    #[test]
    fn a_library_that_is_not_there_or_is_no_driver_is_an_error() {
        let error = Driver::open(Some(OsStr::new("/nowhere/libcuda.so.1"))).unwrap_err();
        assert!(matches!(error, DriverError::Library(_)), "{error}");
        let error = Driver::open(Some(OsStr::new("libc.so.6"))).unwrap_err();
        assert_eq!(error, DriverError::Function("cuInit"));
    }
}
