//! Programs that others wrote, against the engine child, with their retries off.
//!
//! They come from package registries and run on what not every machine has, so nobody's `cargo test` needs them:
//! `cargo xtask test` runs them as heights of their own, and says so where it cannot.
//!
//! ```text
//! cargo test --workspace --test engine -- --ignored clients::
//! ```

mod install;
mod node;
mod python;

use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest as _, Sha256};
use sparkherd_protocol::{Access, EngineConfig};

use crate::harness::{Engine, MODEL, admitted, config};

const KEY: &str = "sk-spark-clients-test";

/// Where scripts are kept: a client cares for the HTTP surface, whatever serves it.
fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../server/tests")
}

fn behind_key(config: EngineConfig) -> EngineConfig {
    let hash = Sha256::digest(KEY).iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
    EngineConfig { access: Access { anonymous: false, key_hashes: vec![hash] }, ..config }
}

/// Runs a script against an engine that says what it is told, and against one that follows `grammars`.
fn runs_against_fake_and_real(program: &Path, script: &Path) {
    let fake = "answer \"Hello! I am a fake engine, and glad to help.\"";
    run(program, script, &Engine::start(&behind_key(config()), Some(fake)), None);
    let model_dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/models/ask-sparkherd");
    let real = behind_key(admitted(&model_dir.canonicalize().unwrap(), 512, 4));
    run(program, script, &Engine::start(&real, None), Some("grammars"));
}

fn run(program: &Path, script: &Path, engine: &Engine, what: Option<&str>) {
    let arguments = [&format!("{}/v1", engine.ready()), KEY, MODEL];
    let status = Command::new(program).arg(script).args(arguments).args(what).status().unwrap();
    assert!(status.success(), "{}: {status}", script.display());
}
