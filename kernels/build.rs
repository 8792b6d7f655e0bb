//! Puts compiled kernels into the program: `SPARKHERD_KERNELS` names a file that `cargo xtask kernels --bundle` has written.
//! Without it the program has none, and asks a compiler when it needs them.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what a build script fails of is what the build tells"
)]

use std::env;
use std::fs;
use std::path::PathBuf;

fn main() {
    println!("cargo::rerun-if-env-changed=SPARKHERD_KERNELS");
    println!("cargo::rerun-if-changed=build.rs");
    let bundle = PathBuf::from(env::var_os("OUT_DIR").unwrap()).join("kernels.bundle");
    let bytes = env::var_os("SPARKHERD_KERNELS").filter(|path| !path.is_empty()).map(|path| {
        let path = PathBuf::from(path);
        println!("cargo::rerun-if-changed={}", path.display());
        fs::read(&path).unwrap_or_else(|error| panic!("SPARKHERD_KERNELS={}: {error}", path.display()))
    });
    fs::write(bundle, bytes.unwrap_or_default()).unwrap();
}
