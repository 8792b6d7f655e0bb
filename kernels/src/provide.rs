//! Where a chip's kernels come from: a file, this program itself, a cache, or the compiler.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::compile::{Architecture, CompileError, Compiler};
use crate::cubins::{Cubins, CubinsError, sources_digest};

/// Names that NVRTC has where it is installed, the newest first.
const NVRTC_NAMES: [&str; 3] = ["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"];

#[derive(Debug, Error)]
pub enum ProvideError {
    #[error("cannot read kernels from {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{place}: {source}")]
    Cubins { place: String, source: CubinsError },
    #[error("{} has no kernels for {architecture}", path.display())]
    NotInFile { path: PathBuf, architecture: Architecture },
    #[error("this program was built without kernels for {architecture}, and there is no compiler: {source}")]
    NoCompiler { architecture: Architecture, source: CompileError },
    #[error(transparent)]
    Compile(#[from] CompileError),
}

/// Where to look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "clap", derive(clap::Args))]
pub struct KernelPlaces {
    /// Compiled kernels to use instead of those in this program (`cargo xtask kernels --bundle FILE` writes such a file)
    #[cfg_attr(feature = "clap", arg(id = "kernels", long = "kernels", value_name = "FILE"))]
    pub file: Option<PathBuf>,
    /// NVRTC's library, which compiles kernels where this program was built without them, if the system does not find it
    #[cfg_attr(feature = "clap", arg(id = "nvrtc", long = "nvrtc", value_name = "FILE"))]
    pub compiler: Option<PathBuf>,
    /// Where kernels that were compiled are kept
    #[cfg_attr(feature = "clap", arg(id = "kernel_cache", long = "kernel-cache", value_name = "DIR"))]
    pub cache: Option<PathBuf>,
}

/// Kernels, and where they were found.
#[derive(Clone, Debug)]
pub struct Provided {
    pub cubins: Cubins,
    pub from: Provenance,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Provenance {
    File,
    Program,
    Cache,
    /// Just compiled; why it could not be kept, if there is a cache and it could not.
    Compiler {
        not_kept: Option<String>,
    },
}

impl KernelPlaces {
    /// Whether there is a place that kernels for this chip could come from; nothing is compiled.
    pub fn check(&self, architecture: Architecture) -> Result<(), ProvideError> {
        if self.file.is_some() || embedded(architecture)?.is_some() {
            return Ok(());
        }
        let opened = open(self.compiler.as_deref());
        opened.map(|_| ()).map_err(|source| ProvideError::NoCompiler { architecture, source })
    }

    pub fn provide(&self, architecture: Architecture) -> Result<Provided, ProvideError> {
        let Self { file, compiler, cache } = self;
        if let Some(path) = file {
            let cubins = from_file(path, architecture)?;
            let absent = || ProvideError::NotInFile { path: path.clone(), architecture };
            return Ok(Provided { cubins: cubins.ok_or_else(absent)?, from: Provenance::File });
        }
        if let Some(cubins) = embedded(architecture)? {
            return Ok(Provided { cubins, from: Provenance::Program });
        }
        let compiler =
            open(compiler.as_deref()).map_err(|source| ProvideError::NoCompiler { architecture, source })?;
        let (major, minor) = compiler.version()?;
        let name = format!("{}-{architecture}-nvrtc{major}.{minor}", sources_digest());
        let kept = cache.as_ref().map(|cache| cache.join(name));
        if let Some(path) = &kept
            && let Ok(Some(cubins)) = from_file(path, architecture)
        {
            return Ok(Provided { cubins, from: Provenance::Cache });
        }
        let (cubins, _) = Cubins::compile(&compiler, architecture)?;
        let not_kept = kept.and_then(|path| keep(&path, &cubins).err()).map(|error| error.to_string());
        Ok(Provided { cubins, from: Provenance::Compiler { not_kept } })
    }
}

fn embedded(architecture: Architecture) -> Result<Option<Cubins>, ProvideError> {
    Cubins::embedded(architecture.name)
        .map_err(|source| ProvideError::Cubins { place: "this program".to_owned(), source })
}

fn open(path: Option<&Path>) -> Result<Compiler, CompileError> {
    if let Some(path) = path {
        return Compiler::open(path.as_os_str());
    }
    let mut opened = Compiler::open(OsStr::new(NVRTC_NAMES[0]));
    for name in &NVRTC_NAMES[1..] {
        if opened.is_err() {
            opened = Compiler::open(OsStr::new(name));
        }
    }
    opened
}

fn from_file(path: &Path, architecture: Architecture) -> Result<Option<Cubins>, ProvideError> {
    let bytes = fs::read(path).map_err(|source| ProvideError::Read { path: path.to_owned(), source })?;
    let place = || path.display().to_string();
    Cubins::decode(&bytes, architecture.name)
        .map_err(|source| ProvideError::Cubins { place: place(), source })
}

/// Another process may do the same: a name of its own, then the right one.
fn keep(path: &Path, cubins: &Cubins) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let partial = path.with_extension(format!("partial-{}", std::process::id()));
    fs::write(&partial, Cubins::encode(std::slice::from_ref(cubins)))?;
    fs::rename(&partial, path)
}
