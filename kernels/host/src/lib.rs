//! A device that runs the CUDA kernels on a CPU, thread by thread: see `shim.hpp`. Only tests use it.
#![expect(unsafe_code, reason = "functions of a shared library, and memory that they read")]

use std::ffi::{CStr, OsStr, c_char, c_void};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use libloading::{Library, Symbol};
use sparkherd_kernels::{Device, DeviceError, DeviceMemory, LaunchShape};

type Kernel = unsafe extern "C" fn(*const c_void);
type Launch = unsafe extern "C" fn(Kernel, *const u32, *const u32, usize, *const c_void) -> *const c_char;
type Allocate = unsafe extern "C" fn(usize) -> *mut c_void;
type Free = unsafe extern "C" fn(*mut c_void);

#[derive(Debug)]
pub struct ShimDevice {
    library: Library,
    allocated: Vec<DeviceMemory>,
    allocations: Arc<AtomicUsize>,
}

impl ShimDevice {
    /// The kernels as this crate was built with them, or those of another library: one with sanitizers, or with a fault.
    pub fn new(library: Option<&OsStr>) -> Result<Self, libloading::Error> {
        let built = PathBuf::from(env!("SPARKHERD_KERNELS_HOST"));
        let path = library.map_or(built, PathBuf::from);
        // SAFETY: the library is ours, and has nothing that runs when it is loaded.
        let library = unsafe { Library::new(path) }?;
        Ok(Self { library, allocated: Vec::new(), allocations: Arc::default() })
    }

    /// How often memory was allocated, for whoever watches from outside.
    pub fn allocations(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.allocations)
    }

    /// # Safety
    ///
    /// The name's type is `T`.
    unsafe fn symbol<T>(&self, name: &str) -> Result<Symbol<'_, T>, String> {
        // SAFETY: the caller's.
        unsafe { self.library.get(name) }.map_err(|error| error.to_string())
    }

    /// Compares what both sides know of a kernel.
    fn check(&self, kernel: &str, threads: u32, argument_bytes: usize) -> Result<(), String> {
        // SAFETY: `KERNEL` of shim.hpp defines these.
        let (known_bytes, threads_max): (u32, u32) = unsafe {
            let bytes: Symbol<'_, *const u32> = self.symbol(&format!("{kernel}_argument_bytes"))?;
            let threads: Symbol<'_, *const u32> = self.symbol(&format!("{kernel}_threads_max"))?;
            (**bytes, **threads)
        };
        if argument_bytes != known_bytes as usize {
            return Err(format!("its arguments have {known_bytes} bytes, not {argument_bytes}"));
        }
        if threads > threads_max {
            return Err(format!("a block has at most {threads_max} threads, not {threads}"));
        }
        Ok(())
    }

    fn run(&self, kernel: &str, shape: LaunchShape, arguments: &[u8]) -> Result<(), String> {
        let LaunchShape { grid, threads } = shape;
        self.check(kernel, threads, arguments.len())?;
        // The structure's own alignment is 8; bytes promise none.
        let mut aligned = vec![0_u64; arguments.len().div_ceil(8)];
        // SAFETY: `aligned` has as many bytes, and both are apart.
        unsafe {
            std::ptr::copy_nonoverlapping(
                arguments.as_ptr(),
                aligned.as_mut_ptr().cast::<u8>(),
                arguments.len(),
            );
        }
        let block = [threads, 1, 1];
        // SAFETY: the types are those of shim.cpp; the arguments are as long as the kernel takes them to be, and `launch`'s
        // caller vouches for the addresses in them. The text is there until this thread launches again.
        unsafe {
            let entry: Symbol<'_, Kernel> = self.symbol(kernel)?;
            let launch: Symbol<'_, Launch> = self.symbol("shim_launch")?;
            let error = launch(*entry, grid.as_ptr(), block.as_ptr(), 0, aligned.as_ptr().cast());
            if error.is_null() { Ok(()) } else { Err(CStr::from_ptr(error).to_string_lossy().into_owned()) }
        }
    }
}

impl Device for ShimDevice {
    fn allocate(&mut self, bytes: usize) -> Result<DeviceMemory, DeviceError> {
        let failed = |reason: String| DeviceError::Allocation { bytes, reason };
        // SAFETY: the type is that of shim.cpp.
        let address = unsafe {
            let allocate: Symbol<'_, Allocate> = self.symbol("shim_allocate").map_err(failed)?;
            allocate(bytes.max(1))
        };
        if address.is_null() {
            return Err(failed("the host has none".to_owned()));
        }
        // SAFETY: these bytes are freed when this is dropped.
        let memory = unsafe { DeviceMemory::new(address as u64, bytes) };
        self.allocated.push(memory);
        self.allocations.fetch_add(1, Ordering::Relaxed);
        Ok(memory)
    }

    fn write(&mut self, to: DeviceMemory, bytes: &[u8]) -> Result<(), DeviceError> {
        let to = to.part(0, bytes.len())?;
        // SAFETY: `to` is so many bytes of this device, which is the host's memory, and apart from `bytes`.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to.address() as *mut u8, bytes.len()) };
        Ok(())
    }

    fn read(&mut self, from: DeviceMemory, bytes: &mut [u8]) -> Result<(), DeviceError> {
        let from = from.part(0, bytes.len())?;
        // SAFETY: as in `write`.
        unsafe {
            std::ptr::copy_nonoverlapping(from.address() as *const u8, bytes.as_mut_ptr(), bytes.len());
        }
        Ok(())
    }

    unsafe fn launch(
        &mut self,
        kernel: &'static str,
        shape: LaunchShape,
        arguments: &[u8],
    ) -> Result<(), DeviceError> {
        self.run(kernel, shape, arguments).map_err(|reason| DeviceError::Launch { kernel, reason })
    }
}

impl Drop for ShimDevice {
    fn drop(&mut self) {
        // SAFETY: the type is that of shim.cpp; each was allocated there, once.
        unsafe {
            if let Ok(free) = self.symbol::<Free>("shim_free") {
                self.allocated.iter().for_each(|memory| free(memory.address() as *mut c_void));
            }
        }
    }
}
