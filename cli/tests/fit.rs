//! `sparkherd fit` as a process: statuses, the table's shape, and JSON that adds up.

#![expect(clippy::unwrap_used, reason = "a helper that fails is a failed test")]

mod model;

use std::path::Path;

use serde_json::Value;

fn fit(directory: &Path, more: &[&str]) -> (Option<i32>, String, String) {
    let mut arguments = vec!["fit", directory.to_str().unwrap()];
    arguments.extend(more);
    let output = model::sparkherd(&arguments);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_large_machine_has_room() {
    let directory = tempfile::tempdir().unwrap();
    model::write(directory.path());
    let (status, table, _) = fit(directory.path(), &["--total", "119Gi"]);
    assert_eq!(status, Some(0), "{table}");
    assert!(
        table.starts_with("Model     Llama, 696 parameters, BF16\nSettings  context 64 of at most 64"),
        "{table}"
    );
    assert!(table.contains("Machine\n  total         119.00 GiB\n  available     119.00 GiB\n"), "{table}");
    assert!(table.ends_with("The largest context that fits is 64.\n"), "{table}");
}

#[test]
fn a_tiny_machine_has_not() {
    let directory = tempfile::tempdir().unwrap();
    model::write(directory.path());
    let (status, table, _) = fit(directory.path(), &["--total", "1025Mi", "--reserve", "1Gi"]);
    assert_eq!(status, Some(3), "{table}");
    assert!(table.contains("more than the 1.00 MiB above the reserve"), "{table}");
    let (status, sentence, _) = fit(directory.path(), &["--total", "119Gi", "--memory", "1Mi"]);
    assert_eq!(status, Some(3));
    assert!(sentence.starts_with("Does not fit: memory cap of 1048576 bytes is too small"), "{sentence}");
}

#[test]
fn a_gguf_is_judged_by_its_path_and_weights_as_they_would_be_kept() {
    let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/tests/goldens");
    let report = |path: &Path, more: &[&str]| {
        let (status, json, error) = fit(path, &[&["--json", "--total", "119Gi"], more].concat());
        assert_eq!(status, Some(0), "{error}");
        serde_json::from_str::<Value>(&json).unwrap()
    };
    let gguf = goldens.join("tiny-gguf-q8_0");
    assert_eq!(report(&gguf.join("model.gguf"), &[]), report(&gguf, &[]));
    let weights = |more: &[&str]| {
        let report = report(&goldens.join("tiny-int8"), more);
        report["footprint"]["parts"]["weightsBytes"].as_u64().unwrap()
    };
    assert_eq!(weights(&["--requantize", "none"]), weights(&[]));
    assert!(weights(&["--requantize", "int8"]) < weights(&[]));
    assert_eq!(fit(&gguf, &["--requantize", "int3"]).0, Some(2));
}

#[test]
fn json_adds_up() {
    let directory = tempfile::tempdir().unwrap();
    model::write(directory.path());
    let (status, json, _) = fit(directory.path(), &["--json", "--context", "32", "--concurrency", "2"]);
    assert!(matches!(status, Some(0 | 3)), "{json}");
    let report: Value = serde_json::from_str(&json).unwrap();
    let footprint = &report["footprint"];
    let parts = footprint["parts"].as_object().unwrap();
    let sum: u64 = parts.values().map(|part| part.as_u64().unwrap()).sum();
    assert_eq!(footprint["hostBytes"].as_u64().unwrap() + footprint["deviceBytes"].as_u64().unwrap(), sum);
    assert_eq!(report["serving"]["kvTokens"], 64);
    assert!(report["memory"]["totalBytes"].as_u64().unwrap() > 0);
}

#[test]
fn what_cannot_be_judged_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let (status, _, error) = fit(directory.path(), &[]);
    assert_eq!(status, Some(1));
    assert!(error.contains("config.json is missing"), "{error}");
    model::write(directory.path());
    let (status, _, error) = fit(directory.path(), &["--context", "65"]);
    assert_eq!(status, Some(1));
    assert!(error.contains("context is 65 tokens, the model allows 1 to 64"), "{error}");
    let (status, _, error) = fit(directory.path(), &["--total", "many"]);
    assert_eq!(status, Some(2));
    assert!(error.contains("is not a quantity"), "{error}");
}
