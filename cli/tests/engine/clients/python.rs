use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::harness::{Engine, admitted, config};

use super::{behind_key, install, run, runs_against_fake_and_real, scripts};

/// The release the script was written against.
const OPENAI: &[&str] = &["openai==3.52.0"];
/// The same. It brings a client of OpenAI's that it chose, and asks for `mcp` where there are tools, without requiring it.
const LITELLM: &[&str] = &["litellm==1.106.2", "openai==2.54.0", "mcp==2.3.0"];

/// The reference reading of JSON Schema in Python.
const SCHEMAS: &[&str] = &["openai==3.52.0", "jsonschema==4.26.0"];

const SCHEMATHESIS: &[&str] = &["schemathesis==4.32.5"];

/// Chat templates, and how models that have them write their calls.
const DIALECTS: [(&str, &str); 5] = [
    ("qwen25", "hermes"),
    ("qwen3", "hermes"),
    ("llama3", "llama3_json"),
    ("mistral_list", "mistral"),
    ("mistral_named", "mistral"),
];

#[test]
#[ignore = "needs python3 and a package registry; the height \"python\" of cargo xtask test"]
fn openais_client() {
    let python = install::python("openai-python", OPENAI);
    runs_against_fake_and_real(&python, &scripts().join("python/openai_client.py"));
}

#[test]
#[ignore = "needs python3 and a package registry; the height \"python\" of cargo xtask test"]
fn litellm() {
    let python = install::python("litellm", LITELLM);
    runs_against_fake_and_real(&python, &scripts().join("python/litellm_client.py"));
}

#[test]
#[ignore = "needs python3 and a package registry; the height \"python\" of cargo xtask test"]
fn answers_and_calls_are_valid_under_their_schemas() {
    let python = install::python("schemas", SCHEMAS);
    for (template, dialect) in DIALECTS {
        let directory = tempfile::tempdir().unwrap();
        write_random_model(directory.path(), template);
        let engine = Engine::start(&behind_key(admitted(directory.path(), 4096, 8)), None);
        run(&python, &scripts().join("python/schemas.py"), &engine, Some(dialect));
    }
}

/// Against the fake engine: what is looked for is in the HTTP surface, and thousands of requests take seconds there.
#[test]
#[ignore = "needs python3 and a package registry; the height \"python\" of cargo xtask test"]
fn the_openapi_document_is_true() {
    let python = install::python("schemathesis", SCHEMATHESIS);
    let engine = Engine::start(&behind_key(config()), Some("answer \"one two three\""));
    run(&python, &scripts().join("python/openapi_fuzz.py"), &engine, None);
}

/// A tiny checkpoint of random weights with a chat template, and with room for one that shows tools byte by byte.
fn write_random_model(directory: &Path, template: &str) {
    let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/tests/goldens");
    for entry in fs::read_dir(goldens.join("tiny-qwen3-bf16")).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, directory.join(path.file_name().unwrap())).unwrap();
    }
    let config = directory.join("config.json");
    let mut changed: Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
    changed["max_position_embeddings"] = json!(4096);
    fs::write(config, changed.to_string()).unwrap();
    let template = goldens.join("chat").join(template).with_extension("jinja");
    fs::copy(template, directory.join("chat_template.jinja")).unwrap();
}
