//! Compiles the kernels and the shim under them as C++ into one shared library.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what a build script fails of is what the build tells"
)]

mod compile;

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    let crate_folder = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap());
    let folder = crate_folder.join("shim");
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap());
    let kernels = crate_folder.join("../cu");
    let shim: Vec<PathBuf> = compile::sources(&folder, "cpp")
        .unwrap()
        .into_iter()
        // The detector's hooks are called by code that is compiled for it.
        .filter(|source| !source.ends_with("races.cpp"))
        .collect();
    // Whole folders: a file that is new in one is a source too.
    for watched in [&kernels, &folder] {
        println!("cargo::rerun-if-changed={}", watched.display());
    }
    let compiler = cc::Build::new().cpp(true).opt_level(1).get_compiler();
    let mut sources = shim;
    sources.extend(compile::sources(&kernels, "cu").unwrap());
    sources.push(folder.join("faults.cu"));
    let library = out.join("libsparkherd_kernels_host.so");
    let mut link = compiler.to_command();
    let objects: Vec<PathBuf> =
        sources.iter().map(|source| object(&compiler, &folder, &kernels, source, &out)).collect();
    compile::library(&mut link, &folder, &objects, &library);
    run(&mut link);
    println!("cargo::rustc-env=SPARKHERD_KERNELS_HOST={}", library.display());
}

fn object(compiler: &cc::Tool, folder: &Path, kernels: &Path, source: &Path, out: &Path) -> PathBuf {
    let mut command = compiler.to_command();
    command.arg("-g1");
    let object = compile::object(&mut command, folder, kernels, source, out);
    run(&mut command);
    object
}

fn run(command: &mut Command) {
    let status = command.status().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(status.success(), "{command:?}: {status}");
}
