//! Compiles the kernels and the shim under them as C++ into one shared library.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what a build script fails of is what the build tells"
)]

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    let folder = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap());
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap());
    let kernels = folder.join("../cu");
    let faults = folder.join("faults.cu");
    let shim = ["shim.hpp", "shim.cpp", "mma.cpp"].map(|name| folder.join(name));
    for watched in [&kernels, &faults].into_iter().chain(&shim) {
        println!("cargo::rerun-if-changed={}", watched.display());
    }
    let compiler = cc::Build::new().cpp(true).opt_level(1).get_compiler();
    let mut sources: Vec<PathBuf> = std::fs::read_dir(&kernels)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "cu"))
        .collect();
    sources.sort();
    sources.push(faults);
    let shim = ["shim.cpp", "mma.cpp"].map(|name| compile(&compiler, &folder, &folder.join(name), &out));
    let mut objects = shim.to_vec();
    objects.extend(sources.iter().map(|source| compile(&compiler, &folder, source, &out)));
    let library = out.join("libsparkherd_kernels_host.so");
    let mut link = compiler.to_command();
    link.arg("-shared").args(&objects).arg("-o").arg(&library);
    run(&mut link);
    println!("cargo::rustc-env=SPARKHERD_KERNELS_HOST={}", library.display());
}

fn compile(compiler: &cc::Tool, folder: &Path, source: &Path, out: &Path) -> PathBuf {
    let object = out.join(source.file_name().unwrap()).with_extension("o");
    let mut command = compiler.to_command();
    command
        .args(["-std=c++17", "-O1", "-g1", "-fPIC", "-DSPARKHERD_HOST_SHIM", "-DHAS_FP4_MMA=1"])
        // As NVRTC is told: `a * b + c` is two roundings where it is not written as `fmaf`.
        .args(["-ffp-contract=off", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"])
        .arg("-I")
        .arg(folder)
        .arg("-I")
        .arg(folder.join("../cu/common"))
        .args(["-c", "-x", "c++"])
        .arg(source)
        .arg("-o")
        .arg(&object);
    run(&mut command);
    object
}

fn run(command: &mut Command) {
    let status = command.status().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(status.success(), "{command:?}: {status}");
}
