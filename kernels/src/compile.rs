#![expect(unsafe_code, reason = "functions of a shared library")]
//! NVRTC, straight to machine code: `.cu` ─► CUBIN for one architecture, and what ptxas says each kernel takes.
//!
//! PTX would leave the last step to the driver, and a driver older than this compiler refuses its PTX. The library is opened by
//! path and nothing is linked: where there is none, that is an error like any other.

use std::ffi::{CStr, CString, OsStr, c_char, c_int, c_void};
use std::fmt;
use std::ptr::null_mut;

use libloading::{Library, Symbol};
use thiserror::Error;

use crate::resources::{Resources, parse_resources};
use crate::sources::{HEADERS, Source};

/// Chips that kernels are made for: A100, RTX 30, RTX 40 and L4, Hopper, data-center Blackwell, RTX 50, GB10.
pub const ARCHITECTURES: [Architecture; 7] = [
    Architecture { name: "sm_80", fp4_mma: false },
    Architecture { name: "sm_86", fp4_mma: false },
    Architecture { name: "sm_89", fp4_mma: false },
    Architecture { name: "sm_90a", fp4_mma: false },
    Architecture { name: "sm_100a", fp4_mma: false },
    Architecture { name: "sm_120a", fp4_mma: true },
    Architecture { name: "sm_121a", fp4_mma: true },
];

/// For every chip.
pub(crate) const COMPILE_OPTIONS: [&str; 3] = [
    "--std=c++17",
    // As on the host: `a * b + c` is two roundings where it is not written as `fmaf`.
    "--fmad=false",
    "--ptxas-options=-v",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Architecture {
    /// As ptxas names it; `a` allows what only this one chip has.
    pub name: &'static str,
    /// Whether its warps multiply block-scaled numbers of 4 bits: `HAS_FP4_MMA` of fp4.cuh.
    pub fp4_mma: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CompileError {
    #[error("cannot open NVRTC: {0}")]
    Library(String),
    #[error("{source_name} does not compile for {architecture}: {log}")]
    Source { source_name: &'static str, architecture: Architecture, log: String },
    #[error("NVRTC names no kernels of {source_name} for {architecture}")]
    NoKernels { source_name: &'static str, architecture: Architecture },
    #[error("NVRTC's {function} failed: {reason}")]
    Function { function: &'static str, reason: String },
}

/// Kernels as the driver loads them.
#[derive(Clone, Debug)]
pub struct Cubin {
    pub bytes: Vec<u8>,
    pub resources: Vec<Resources>,
}

#[derive(Debug)]
pub struct Compiler {
    library: Library,
}

/// `nvrtcResult`; 0 is success.
type Outcome = c_int;
type Program = *mut c_void;
type Create = unsafe extern "C" fn(
    *mut Program,
    *const c_char,
    *const c_char,
    c_int,
    *const *const c_char,
    *const *const c_char,
) -> Outcome;
type Compile = unsafe extern "C" fn(Program, c_int, *const *const c_char) -> Outcome;
type GetSize = unsafe extern "C" fn(Program, *mut usize) -> Outcome;
type GetBytes = unsafe extern "C" fn(Program, *mut c_char) -> Outcome;
type Destroy = unsafe extern "C" fn(*mut Program) -> Outcome;
type Explain = unsafe extern "C" fn(Outcome) -> *const c_char;
type Version = unsafe extern "C" fn(*mut c_int, *mut c_int) -> Outcome;

impl Compiler {
    /// Opens the library at a path, or of a name that the loader finds.
    pub fn open(library: &OsStr) -> Result<Self, CompileError> {
        // SAFETY: NVRTC has no constructors that touch what is ours.
        let library = unsafe { Library::new(library) };
        library.map(|library| Self { library }).map_err(|error| CompileError::Library(error.to_string()))
    }

    /// Major and minor.
    pub fn version(&self) -> Result<(i32, i32), CompileError> {
        let (mut major, mut minor) = (0, 0);
        // SAFETY: the type is nvrtc.h's, and both places are ours.
        self.call("nvrtcVersion", |version: &Version| unsafe { version(&raw mut major, &raw mut minor) })?;
        Ok((major, minor))
    }

    pub fn compile(&self, source: &Source, architecture: Architecture) -> Result<Cubin, CompileError> {
        let program = OpenProgram::new(self, source)?;
        let of_chip = [
            format!("--gpu-architecture={}", architecture.name),
            format!("--define-macro=HAS_FP4_MMA={}", u8::from(architecture.fp4_mma)),
        ];
        let options = of_chip.iter().map(String::as_str).chain(COMPILE_OPTIONS);
        let options: Vec<_> = options.map(c_string).collect();
        let pointers: Vec<_> = options.iter().map(|option| option.as_ptr()).collect();
        let count = c_int::try_from(pointers.len()).unwrap_or(c_int::MAX);
        // SAFETY: the type is nvrtc.h's; the options outlive the call.
        let compiled = self.call("nvrtcCompileProgram", |compile: &Compile| unsafe {
            compile(program.program, count, pointers.as_ptr())
        });
        let log = program.bytes("nvrtcGetProgramLogSize", "nvrtcGetProgramLog")?;
        let log = String::from_utf8_lossy(&log).trim_end_matches('\0').to_owned();
        if compiled.is_err() {
            return Err(CompileError::Source { source_name: source.name, architecture, log });
        }
        let bytes = program.bytes("nvrtcGetCUBINSize", "nvrtcGetCUBIN")?;
        Ok(Cubin { bytes, resources: parse_resources(&log) })
    }

    /// Calls a function whose type is `T`.
    fn call<T>(&self, function: &'static str, with: impl FnOnce(&T) -> Outcome) -> Result<(), CompileError> {
        let failed = |reason: String| CompileError::Function { function, reason };
        // SAFETY: callers give the function's own type.
        let symbol: Symbol<'_, T> =
            unsafe { self.library.get(function) }.map_err(|error| failed(error.to_string()))?;
        let outcome = with(&symbol);
        if outcome == 0 {
            return Ok(());
        }
        // SAFETY: the type is nvrtc.h's, and the text is a constant of the library.
        let reason = unsafe {
            self.library
                .get::<Explain>("nvrtcGetErrorString")
                .map(|explain| CStr::from_ptr(explain(outcome)).to_string_lossy().into_owned())
        };
        Err(failed(reason.unwrap_or_else(|_| format!("error {outcome}"))))
    }
}

/// A program of NVRTC's, until dropped.
struct OpenProgram<'a> {
    compiler: &'a Compiler,
    program: Program,
}

impl<'a> OpenProgram<'a> {
    fn new(compiler: &'a Compiler, source: &Source) -> Result<Self, CompileError> {
        let text = |source: &Source| (c_string(source.text), c_string(source.name));
        let (source, headers) = (text(source), HEADERS.iter().map(text).collect::<Vec<_>>());
        let texts: Vec<_> = headers.iter().map(|(text, _)| text.as_ptr()).collect();
        let names: Vec<_> = headers.iter().map(|(_, name)| name.as_ptr()).collect();
        let count = c_int::try_from(headers.len()).unwrap_or(c_int::MAX);
        let mut program = null_mut();
        // SAFETY: the type is nvrtc.h's; NVRTC copies the texts.
        compiler.call("nvrtcCreateProgram", |create: &Create| unsafe {
            create(
                &raw mut program,
                source.0.as_ptr(),
                source.1.as_ptr(),
                count,
                texts.as_ptr(),
                names.as_ptr(),
            )
        })?;
        Ok(Self { compiler, program })
    }

    /// Bytes whose number one function tells and another writes.
    fn bytes(&self, size: &'static str, get: &'static str) -> Result<Vec<u8>, CompileError> {
        let mut count = 0;
        // SAFETY: the type is nvrtc.h's, and the place is ours.
        self.compiler.call(size, |size: &GetSize| unsafe { size(self.program, &raw mut count) })?;
        let mut bytes = vec![0_u8; count];
        // SAFETY: the type is nvrtc.h's, which writes as many bytes as it told.
        self.compiler.call(get, |get: &GetBytes| unsafe { get(self.program, bytes.as_mut_ptr().cast()) })?;
        Ok(bytes)
    }
}

impl Drop for OpenProgram<'_> {
    fn drop(&mut self) {
        // SAFETY: the type is nvrtc.h's; the program is not used after this. There is nobody to tell of a failure.
        let _ = self
            .compiler
            .call("nvrtcDestroyProgram", |destroy: &Destroy| unsafe { destroy(&raw mut self.program) });
    }
}

/// Our sources and names have no zero bytes; what stood behind one would not be compiled.
fn c_string(text: &str) -> CString {
    CString::new(text.split('\0').next().unwrap_or_default()).unwrap_or_default()
}

impl fmt::Display for Architecture {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name)
    }
}
