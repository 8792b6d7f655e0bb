//! A device that runs the CUDA kernels on a CPU, thread by thread: see `shim/shim.hpp`. Only tests use it.
#![expect(unsafe_code, reason = "functions of a shared library, and memory that they read")]

use std::ffi::{CStr, OsStr, c_char, c_void};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use libloading::{Library, Symbol};
use sparkherd_kernels::{CubinModule, Cubins, Device, DeviceError, DeviceMemory, LaunchShape, Recording};

type Kernel = unsafe extern "C" fn(*const c_void);
type LaunchFunction =
    unsafe extern "C" fn(Kernel, *const u32, *const u32, usize, *const c_void) -> *const c_char;
type Allocate = unsafe extern "C" fn(usize) -> *mut c_void;
type Free = unsafe extern "C" fn(*mut c_void);

/// The kernels as this crate was built with them. It is a CUDA driver too, see `shim/driver.cpp`.
pub fn library() -> PathBuf {
    PathBuf::from(env!("SPARKHERD_KERNELS_HOST"))
}

/// What that driver takes for machine code: names.
pub fn cubins() -> Cubins {
    let architecture = "sm_121a";
    let resources = include_str!("../../resources.txt").lines();
    let of_chip = resources.filter_map(|line| line.strip_prefix(architecture)?.strip_prefix(' '));
    let kernels = of_chip.filter_map(|line| line.split(' ').next()).map(str::to_owned).collect();
    let module = CubinModule { source: "all.cu".to_owned(), kernels, bytes: b"names".to_vec() };
    Cubins { architecture: architecture.to_owned(), modules: vec![module] }
}

#[derive(Debug)]
pub struct ShimDevice {
    library: Library,
    allocated: Vec<DeviceMemory>,
    allocations: Arc<AtomicUsize>,
    /// What is being recorded.
    recording: Option<Vec<Launch>>,
    recordings: Vec<Vec<Launch>>,
}

/// A launch that was recorded.
#[derive(Clone, Debug)]
struct Launch {
    kernel: &'static str,
    shape: LaunchShape,
    arguments: Vec<u8>,
}

impl ShimDevice {
    /// [`library`], or another one: with sanitizers, or with a fault.
    pub fn new(path: Option<&OsStr>) -> Result<Self, libloading::Error> {
        let path = path.map_or_else(library, PathBuf::from);
        // SAFETY: the library is ours, and has nothing that runs when it is loaded.
        let library = unsafe { Library::new(path) }?;
        let (recording, recordings) = (None, Vec::new());
        Ok(Self { library, allocated: Vec::new(), allocations: Arc::default(), recording, recordings })
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

    /// A copy is no launch: a GPU would record where it copies from, and not what.
    fn refuse_copy(&self, bytes: usize) -> Result<(), DeviceError> {
        if self.recording.is_none() {
            return Ok(());
        }
        Err(DeviceError::Copy { bytes, reason: "launches are being recorded".to_owned().into() })
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
            let launch: Symbol<'_, LaunchFunction> = self.symbol("shim_launch")?;
            let error = launch(*entry, grid.as_ptr(), block.as_ptr(), 0, aligned.as_ptr().cast());
            if error.is_null() { Ok(()) } else { Err(CStr::from_ptr(error).to_string_lossy().into_owned()) }
        }
    }
}

impl Device for ShimDevice {
    fn allocate(&mut self, bytes: usize) -> Result<DeviceMemory, DeviceError> {
        let failed = |reason: String| DeviceError::Allocation { bytes, reason: reason.into() };
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
        self.refuse_copy(bytes.len())?;
        let to = to.part(0, bytes.len())?;
        // SAFETY: `to` is so many bytes of this device, which is the host's memory, and apart from `bytes`.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to.address() as *mut u8, bytes.len()) };
        Ok(())
    }

    fn read(&mut self, from: DeviceMemory, bytes: &mut [u8]) -> Result<(), DeviceError> {
        self.refuse_copy(bytes.len())?;
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
        if let Some(recording) = &mut self.recording {
            recording.push(Launch { kernel, shape, arguments: arguments.to_vec() });
            return Ok(());
        }
        self.run(kernel, shape, arguments)
            .map_err(|reason| DeviceError::Launch { kernel, reason: reason.into() })
    }

    fn begin_recording(&mut self) -> Result<(), DeviceError> {
        self.recording = Some(Vec::new());
        Ok(())
    }

    fn end_recording(&mut self) -> Result<Recording, DeviceError> {
        let reason = "nothing is recorded".to_owned().into();
        self.recordings.push(self.recording.take().ok_or(DeviceError::Recording { reason })?);
        Ok(Recording::new(self.recordings.len() - 1))
    }

    unsafe fn replay(&mut self, recording: Recording) -> Result<(), DeviceError> {
        let launches = self.recordings.get(recording.number()).cloned().unwrap_or_default();
        launches.iter().try_for_each(|Launch { kernel, shape, arguments }| {
            self.run(kernel, *shape, arguments)
                .map_err(|reason| DeviceError::Launch { kernel, reason: reason.into() })
        })
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
