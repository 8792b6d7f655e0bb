//! The program as it will be started on a GPU, on a driver that is the host shim.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};
use sparkherd_kernels::Cubins;
use sparkherd_kernels_host::{cubins, library};

#[test]
fn everything_is_measured_and_told() {
    let directory = tempfile::tempdir().unwrap();
    let (kernels, json) = (directory.path().join("kernels"), directory.path().join("proof.json"));
    fs::write(&kernels, Cubins::encode(&[cubins()])).unwrap();
    let mut program = Command::new(env!("CARGO_BIN_EXE_sparkherd-proof"));
    program.arg("--cuda-driver").arg(library()).arg("--kernels").arg(&kernels);
    program.args(["--part", "speeds", "--divisor", "64", "--launches", "2", "--json"]).arg(&json);
    let output = program.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.starts_with("host shim, compute capability 12.1, driver for CUDA 13000\n"), "{text}");
    let report: Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    let speeds = report["speeds"].as_array().unwrap();
    // Five formats, four matrices of which the head has few rows only, two gated in two ways by two numbers of rows; attention in two
    // types; norms and attention's inputs; sampling; steps of one and of several.
    let wanted = 5 * (3 * 4 + 2) + 2 * 2 * 2 + 2 * 3 + 3 * 2 + 2 * 2 + 2 * 3 + 2 * 6;
    assert_eq!(speeds.len(), wanted, "{text}");
    for speed in speeds {
        let rate = speed["rate"].as_object().map(|rate| rate.values().next().unwrap().as_f64().unwrap());
        assert!(rate.is_none_or(|rate| rate.is_finite() && rate > 0.0), "{speed}");
        assert!(speed["fraction"].as_f64().unwrap().is_finite(), "{speed}");
    }
    // The driver says that it is a GB10's; sizes that are divided reach no goal of large matrices, gaps and steps have theirs.
    let goals = |name: &str| {
        speeds
            .iter()
            .filter(|speed| speed["name"] == name)
            .map(|speed| speed["goal"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(goals("step, recorded, tokens"), [json!({"at_least": 0.89}), Value::Null]);
    assert_eq!(goals("between its launches, at most"), [json!({"at_most": 0.05}), json!({"at_most": 0.05})]);
    assert_eq!(goals("sample, greedy"), [Value::Null, Value::Null]);
}

#[test]
fn memory_of_both_models_is_told_beside_its_plan() {
    let directory = tempfile::tempdir().unwrap();
    let kernels = directory.path().join("kernels");
    fs::write(&kernels, Cubins::encode(&[cubins()])).unwrap();
    // The host's memory is what others make of it: here, nothing.
    fs::write(directory.path().join("meminfo"), "MemAvailable:  8000000 kB\n").unwrap();
    let mut program = Command::new(env!("CARGO_BIN_EXE_sparkherd-proof"));
    program.arg("--cuda-driver").arg(library()).arg("--kernels").arg(&kernels);
    program.args(["--part", "memory", "--divisor", "64", "--proc-root"]).arg(directory.path());
    let output = program.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    for model in ["tiny-llama3-bf16", "random"] {
        let lines: Vec<_> =
            text.lines().filter(|line| line.starts_with(&format!("memory, {model} "))).collect();
        let parts = [
            "GPU: context and kernels",
            "GPU: arenas, recorded steps",
            "GPU: first steps",
            "GPU: in all",
            "GPU and host: in all",
        ];
        assert_eq!(lines.len(), parts.len(), "{text}");
        assert!(lines.iter().zip(parts).all(|(line, part)| line.contains(part)), "{text}");
    }
}

#[test]
fn a_machine_without_a_gpu_is_told_so() {
    let mut program = Command::new(env!("CARGO_BIN_EXE_sparkherd-proof"));
    let output = program.args(["--cuda-driver", "/nowhere/libcuda.so.1"]).output().unwrap();
    assert!(!output.status.success());
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.starts_with("there is no CUDA driver: "), "{error}");
}
