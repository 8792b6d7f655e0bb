//! Puts the tiny checkpoints into the program, which runs on machines that have nothing else of this repository.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what a build script fails of is what the build tells"
)]

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// One of each family and format that kernels read, and a trained one.
const NAMES: [&str; 8] = [
    "tiny-llama3-bf16",
    "tiny-qwen2-bf16",
    "tiny-qwen3-bf16",
    "tiny-mistral-f16",
    "tiny-untied-f32",
    "tiny-gguf-q8_0",
    "tiny-gguf-q4_0",
    "tiny-gguf-k",
];

/// Files of a checkpoint that a model is made of.
const EXTENSIONS: [&str; 3] = ["json", "safetensors", "gguf"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let root =
        PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("../..").canonicalize().unwrap();
    let mut text = "&[\n".to_owned();
    for name in NAMES {
        let golden = root.join(format!("engine/tests/goldens/{name}.json"));
        println!("cargo::rerun-if-changed={}", golden.display());
        let told: serde_json::Value = serde_json::from_slice(&fs::read(&golden).unwrap()).unwrap();
        let folder = root.join(told["checkpoint"].as_str().unwrap());
        let golden = golden.display();
        writeln!(text, "Checkpoint {{ name: {name:?}, golden: include_str!(r#\"{golden}\"#), files: &[")
            .unwrap();
        for path in files(&folder) {
            println!("cargo::rerun-if-changed={}", path.display());
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            writeln!(text, "    ({name:?}, include_bytes!(r#\"{}\"#)),", path.display()).unwrap();
        }
        text.push_str("] },\n");
    }
    text.push_str("]\n");
    fs::write(PathBuf::from(env::var_os("OUT_DIR").unwrap()).join("checkpoints.rs"), text).unwrap();
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let is_of_model = |path: &PathBuf| {
        path.extension().is_some_and(|found| EXTENSIONS.iter().any(|extension| found == *extension))
    };
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).filter(is_of_model).collect();
    files.sort();
    files
}
