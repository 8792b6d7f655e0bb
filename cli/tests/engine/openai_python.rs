//! OpenAI's own Python client against the engine child, with retries off.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest as _, Sha256};
use sparkherd_protocol::Access;

use crate::harness::{Engine, MODEL, admitted, config};

/// The release the script was written against.
const CLIENT: &str = "openai==3.52.0";
const KEY: &str = "sk-spark-python-test";

#[test]
fn the_official_client_works() {
    if Command::new("python3").arg("--version").output().is_err() {
        println!("skipped: there is no python3");
        return;
    }
    let mut fake = config();
    fake.access = access();
    run(&Engine::start(&fake, Some("answer \"Hello! I am a fake engine, and glad to help.\"")), None);
    let model_dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/models/ask-sparkherd");
    let mut real = admitted(&model_dir.canonicalize().unwrap(), 256, 4);
    real.access = access();
    run(&Engine::start(&real, None), Some("grammars"));
}

fn access() -> Access {
    let hash = Sha256::digest(KEY).iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
    Access { anonymous: false, key_hashes: vec![hash] }
}

/// Runs the script, with what only an engine that follows `grammars` can do or without.
fn run(engine: &Engine, grammars: Option<&str>) {
    let python = client_environment();
    let url = engine.ready();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../server/tests/python/openai_client.py");
    let arguments = [&format!("{url}/v1"), KEY, MODEL];
    let status = Command::new(python).arg(script).args(arguments).args(grammars).status().unwrap();
    assert!(status.success(), "{status}");
}

/// A virtual environment with the client, made once and kept beside the build's other results.
fn client_environment() -> PathBuf {
    let environment = Path::new(env!("CARGO_TARGET_TMPDIR")).join("openai-python");
    let python = environment.join("bin/python");
    let installed = environment.join("installed");
    if fs::read_to_string(&installed).is_ok_and(|client| client == CLIENT) {
        return python;
    }
    let run = |program: &Path, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{} {arguments:?}: {error}", program.display());
    };
    run(Path::new("python3"), &["-m", "venv", "--clear", environment.to_str().unwrap()]);
    run(&python, &["-m", "pip", "install", "--quiet", "--disable-pip-version-check", CLIENT]);
    fs::write(installed, CLIENT).unwrap();
    python
}
