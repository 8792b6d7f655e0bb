//! Libraries of the kernels with their shim, each compiled in another way than `kernels/host/build.rs` does.

#[path = "../../../kernels/host/compile.rs"]
mod compile;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::checkout;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Recipe {
    Plain,
    Sanitizers,
    Races,
}

const SANITIZERS: [&str; 3] =
    ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"];

impl Recipe {
    /// Of the kernels' sources, or of the shim's.
    fn flags(self, is_kernels: bool) -> &'static [&'static str] {
        match self {
            Self::Sanitizers => &SANITIZERS,
            Self::Races if is_kernels => &["-fsanitize=thread"],
            Self::Plain | Self::Races => &[],
        }
    }

    /// libtsan is not wanted: the hooks are our own.
    fn link_flags(self) -> &'static [&'static str] {
        if self == Self::Sanitizers { &SANITIZERS } else { &[] }
    }
}

/// A library, and the objects it was made of.
#[derive(Debug)]
pub struct Build {
    pub library: PathBuf,
    recipe: Recipe,
    objects: Vec<PathBuf>,
}

impl Build {
    pub fn new(recipe: Recipe, folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let mut sources = compile::sources(&kernels(), "cu")?;
        sources.extend(compile::sources(&host(), "cu")?);
        let shim = compile::sources(&host(), "cpp")?;
        sources
            .extend(shim.into_iter().filter(|path| recipe == Recipe::Races || !path.ends_with("races.cpp")));
        let compile = |source: &PathBuf| object(recipe, &kernels(), source, folder, &["-g1"]);
        let objects = sources.iter().map(compile).collect::<Result<Vec<_>>>()?;
        Ok(Self { library: link(recipe, &objects, folder)?, recipe, objects })
    }

    /// The same, with these kernels of another folder, whose headers are in its `common`.
    pub fn with(&self, kernels: &Path, changed: &[PathBuf]) -> Result<PathBuf> {
        let mut objects = self.objects.clone();
        for source in changed {
            // What a fault leaves unused is no matter.
            let new = object(self.recipe, kernels, source, kernels, &["-w"])?;
            let old = objects.iter_mut().find(|old| old.file_name() == new.file_name());
            *old.with_context(|| format!("{} is no source of kernels", source.display()))? = new;
        }
        link(self.recipe, &objects, kernels)
    }
}

pub fn kernels() -> PathBuf {
    checkout::root().join("kernels/cu")
}

fn host() -> PathBuf {
    checkout::root().join("kernels/host/shim")
}

/// All sources of kernels in this folder.
pub fn sources(kernels: &Path) -> Result<Vec<PathBuf>> {
    Ok(compile::sources(kernels, "cu")?)
}

/// Where the compiler has a library of its own.
pub fn of_compiler(library: &str) -> Result<String> {
    let output = compiler().arg(format!("-print-file-name={library}")).output().context("no C++ compiler")?;
    let path = String::from_utf8(output.stdout)?.trim().to_owned();
    // One that it does not have it only repeats.
    ensure!(Path::new(&path).is_absolute(), "the C++ compiler has no {library}");
    Ok(path)
}

/// As the build script finds it.
fn compiler() -> Command {
    Command::new(std::env::var_os("CXX").as_deref().unwrap_or(OsStr::new("c++")))
}

fn object(recipe: Recipe, kernels: &Path, source: &Path, folder: &Path, more: &[&str]) -> Result<PathBuf> {
    let is_kernels = source.extension() == Some(OsStr::new("cu"));
    // Most of the time goes there, and it touches nothing but its own.
    let recipe = if source.ends_with("mma.cpp") { Recipe::Plain } else { recipe };
    let mut command = compiler();
    let object = compile::object(&mut command, &host(), kernels, source, folder);
    run(command.args(recipe.flags(is_kernels)).args(more))?;
    Ok(object)
}

fn link(recipe: Recipe, objects: &[PathBuf], folder: &Path) -> Result<PathBuf> {
    let library = folder.join("libkernels.so");
    let mut command = compiler();
    compile::library(&mut command, &host(), objects, &library);
    run(command.args(recipe.link_flags()))?;
    Ok(library)
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().context("no C++ compiler")?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
