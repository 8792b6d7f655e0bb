//! How the kernels and the shim under them are compiled as C++: for the build script, and for the libraries of `cargo xtask
//! shim`.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Files of this folder that end so, in order.
pub fn sources(folder: &Path, extension: &str) -> io::Result<Vec<PathBuf>> {
    let mut sources = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|found| found == extension) {
            sources.push(path);
        }
    }
    sources.sort();
    Ok(sources)
}

/// In the shim's folder.
pub const LINKER_SCRIPT: &str = "shared.ld";

/// Makes `compiler` compile one source into an object in `folder`. `host` is the shim's folder, `kernels` the one with `common`.
pub fn object(compiler: &mut Command, host: &Path, kernels: &Path, source: &Path, folder: &Path) -> PathBuf {
    // The linker script knows kernels by the end of their name.
    let mut name = source.file_name().unwrap_or_default().to_owned();
    name.push(".o");
    let object = folder.join(name);
    compiler
        .args(["-std=c++17", "-O1", "-fPIC", "-DSPARKHERD_HOST_SHIM", "-DHAS_FP4_MMA=1"])
        // As NVRTC is told: `a * b + c` is two roundings where it is not written as `fmaf`.
        .args(["-ffp-contract=off", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"])
        .arg("-I")
        .arg(host)
        .arg("-I")
        .arg(kernels.join("common"))
        .args(["-c", "-x", "c++"])
        .arg(source)
        .arg("-o")
        .arg(&object);
    object
}

/// Makes `compiler` link objects of the kernels and of the shim.
pub fn library(compiler: &mut Command, host: &Path, objects: &[PathBuf], library: &Path) {
    let script = host.join(LINKER_SCRIPT);
    compiler.arg("-shared").args(objects).arg("-T").arg(script).arg("-o").arg(library);
}
