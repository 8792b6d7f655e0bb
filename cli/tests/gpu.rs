//! An engine on a GPU, as an agent starts it. The driver is the host shim: no other is at hand.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a helper that fails fails its test")]

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use sparkherd_checkpoint::Checkpoint;
use sparkherd_engine::weights::ModelDirectory;
use sparkherd_footprint::{KvDtype, Platform, plan, serving_default};
use sparkherd_kernels::Cubins;
use sparkherd_kernels_host::{cubins, library};
use sparkherd_proof::checkpoints;
use sparkherd_protocol::{Access, EngineConfig, Event, FailureReason};

/// Killed when the test ends, however it ends.
struct Engine {
    child: Child,
    events: BufReader<std::process::ChildStdout>,
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Engine {
    fn start(directory: &Path, platform: Platform, kernels: &[u8]) -> Self {
        Self::start_with(directory, platform, kernels, None)
    }

    /// With a word for the driver, see `driver_script.cpp`.
    fn start_with(
        directory: &Path,
        platform: Platform,
        kernels: &[u8],
        script: Option<(&str, &OsStr)>,
    ) -> Self {
        let model_dir = directory.join("model");
        fs::create_dir(&model_dir).unwrap();
        checkpoints::named("tiny-llama3-bf16").unpack(&model_dir).unwrap();
        let facts = Checkpoint::read(&ModelDirectory(model_dir.clone())).unwrap().inspection.facts;
        let mut serving = serving_default(&facts, facts.max_context, 2);
        serving.kv_dtype = KvDtype::Bf16;
        let footprint = plan(&facts, &serving, &platform).unwrap();
        let config = EngineConfig {
            model_dir,
            served_names: vec!["tiny".to_owned()],
            serving,
            platform,
            footprint,
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            access: Access { anonymous: true, key_hashes: Vec::new() },
            incarnation: "one".to_owned(),
            seed: 1,
        };
        let (file, bundle) = (directory.join("config.json"), directory.join("kernels"));
        fs::write(&file, serde_json::to_vec(&config).unwrap()).unwrap();
        fs::write(&bundle, kernels).unwrap();
        let mut program = Command::new(env!("CARGO_BIN_EXE_sparkherd"));
        program.arg("engine").arg("--config").arg(&file).arg("--cuda-driver").arg(library());
        program.arg("--kernels").arg(&bundle).stdout(Stdio::piped()).stdin(Stdio::null());
        program.envs(script);
        let mut child = program.spawn().unwrap();
        let events = BufReader::new(child.stdout.take().unwrap());
        Self { child, events }
    }

    /// The next event that is no progress.
    fn news(&mut self) -> Event {
        loop {
            let mut line = String::new();
            assert!(self.events.read_line(&mut line).unwrap() > 0, "the engine ended");
            match serde_json::from_str(&line).unwrap() {
                Event::Loading { .. } | Event::Stats { .. } => {}
                news => return news,
            }
        }
    }
}

fn ask(address: SocketAddr, body: &Value) -> Value {
    let answer = send(address, body).unwrap();
    serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer}"))
}

/// The answer's body, if it comes whole.
fn send(address: SocketAddr, body: &Value) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    let body = body.to_string();
    let head = "POST /v1/completions HTTP/1.1\r\nhost: engine\r\nconnection: close\r\ncontent-type: application/json";
    write!(stream, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}

#[test]
fn it_loads_records_and_answers() {
    let directory = tempfile::tempdir().unwrap();
    let kernels = Cubins::encode(&[cubins()]);
    let mut engine = Engine::start(directory.path(), Platform::cuda(2), &kernels);
    let Event::Ready { address, held_bytes, .. } = engine.news() else { panic!("it is not ready") };
    let footprint: EngineConfig =
        serde_json::from_slice(&fs::read(directory.path().join("config.json")).unwrap()).unwrap();
    let parts = footprint.footprint.parts;
    assert!(held_bytes >= parts.weights_bytes + parts.kv_bytes + parts.workspace_bytes, "{held_bytes} bytes");
    let body =
        json!({"model": "tiny", "prompt": "hello", "max_tokens": 5, "temperature": 0, "ignore_eos": true});
    let answer = ask(address, &body);
    assert_eq!(answer["usage"]["completion_tokens"], 5, "{answer}");
    assert_eq!(ask(address, &body)["choices"], answer["choices"]);
}

#[test]
fn nothing_is_taken_after_ready() {
    let directory = tempfile::tempdir().unwrap();
    let notes = directory.path().join("takings");
    let kernels = Cubins::encode(&[cubins()]);
    let script = Some(("SPARKHERD_HOST_DRIVER_TAKINGS", notes.as_os_str()));
    let mut engine = Engine::start_with(directory.path(), Platform::cuda(2), &kernels, script);
    let Event::Ready { address, .. } = engine.news() else { panic!("it is not ready") };
    let before = fs::read_to_string(&notes).unwrap();
    for taking in ["cuMemAlloc_v2", "cuMemHostAlloc", "cuModuleLoadData", "cuGraphInstantiateWithFlags"] {
        assert!(before.lines().any(|line| line == taking), "{taking} is not noted");
    }
    for sampling in
        [json!({"temperature": 0}), json!({"temperature": 1, "seed": 3, "top_p": 0.9, "logprobs": 3})]
    {
        let mut body = json!({"model": "tiny", "prompt": "hello", "max_tokens": 5, "ignore_eos": true});
        body.as_object_mut().unwrap().extend(sampling.as_object().unwrap().clone());
        let answer = ask(address, &body);
        assert_eq!(answer["usage"]["completion_tokens"], 5, "{answer}");
    }
    assert_eq!(fs::read_to_string(&notes).unwrap(), before);
}

#[test]
fn a_fault_of_the_gpu_ends_the_engine_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let kernels = Cubins::encode(&[cubins()]);
    // Later than the generation at start: 700 is an illegal address.
    let script = Some(("SPARKHERD_HOST_DRIVER_FAULT", OsStr::new("cuGraphLaunch:700:60")));
    let mut engine = Engine::start_with(directory.path(), Platform::cuda(2), &kernels, script);
    let Event::Ready { address, .. } = engine.news() else { panic!("it is not ready") };
    let body =
        json!({"model": "tiny", "prompt": "hello", "max_tokens": 100, "temperature": 0, "ignore_eos": true});
    // Its answer breaks off.
    let _ = send(address, &body);
    let Event::Failed { reason, message } = engine.news() else { panic!("it did not fail") };
    assert_eq!(reason, FailureReason::GpuFault, "{message}");
    assert!(message.contains("error 700, CUDA_ERROR_ILLEGAL_ADDRESS"), "{message}");
    assert_eq!(engine.child.wait().unwrap().code(), Some(1));
}

#[test]
fn a_gpu_that_is_full_is_told_as_such() {
    let kernels = Cubins::encode(&[cubins()]);
    for (function, named) in [
        ("cuDevicePrimaryCtxRetain", "GPU memory for a context"),
        ("cuModuleLoadData", "GPU memory for kernels"),
        ("cuMemHostAlloc", "pinned host memory"),
        ("cuMemAlloc_v2", "GPU memory for arenas"),
        ("cuGraphInstantiateWithFlags", "GPU memory for a recorded step"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let fault = format!("{function}:2:1");
        let script = Some(("SPARKHERD_HOST_DRIVER_FAULT", OsStr::new(&fault)));
        let mut engine = Engine::start_with(directory.path(), Platform::cuda(2), &kernels, script);
        let Event::Failed { reason, message } = engine.news() else { panic!("it did not fail") };
        assert_eq!(reason, FailureReason::OutOfMemory, "{function}: {message}");
        assert!(message.contains(&format!("out of {named}: ")), "{function}: {message}");
    }
}

#[test]
fn kernels_of_another_program_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let mut engine = Engine::start(directory.path(), Platform::cuda(2), b"sparkherd kernels 1\nabc\n");
    let Event::Failed { reason, message } = engine.news() else { panic!("it did not fail") };
    assert_eq!(reason, FailureReason::DriverUnsupported);
    assert!(message.contains("made from other sources: abc"), "{message}");
}

#[test]
fn a_model_is_measured_beside_what_the_gpu_does_at_most() {
    let directory = tempfile::tempdir().unwrap();
    let (model, kernels) = (directory.path().join("model"), directory.path().join("kernels"));
    fs::create_dir(&model).unwrap();
    checkpoints::named("tiny-llama3-bf16").unpack(&model).unwrap();
    fs::write(&kernels, Cubins::encode(&[cubins()])).unwrap();
    let measure = |more: &[&str]| {
        let mut program = Command::new(env!("CARGO_BIN_EXE_sparkherd"));
        program.args(["bench", "engine", "--backend", "cuda", "--divisor", "64", "--repeat", "1"]);
        program.args(["--prompt", "9", "--generate", "2", "--depth", "4", "--sequences", "1,2"]);
        program.arg("--cuda-driver").arg(library()).arg("--kernels").arg(&kernels).args(more).arg(&model);
        let output = program.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let report: Value = serde_json::from_str(&measure(&["--json"])).unwrap();
    assert_eq!(report["gpu"], "host shim");
    assert!(report["cpu_path"].is_null() && report["read_gb_per_second"].as_f64().unwrap() > 0.0, "{report}");
    assert!(report["bf16_gflop_per_second"].as_f64().unwrap() > 0.0, "{report}");
    let cases: Vec<_> =
        report["cases"].as_array().unwrap().iter().map(|case| case["tokens"].as_u64()).collect();
    assert_eq!(cases, [Some(9), Some(2), Some(4)], "a prompt, two tokens of one, two of two");
    let table = measure(&[]);
    assert!(table.starts_with("host shim, BF16 at ") && table.contains(" % of the BF16 peak\n"), "{table}");
}

#[test]
fn a_bench_on_a_gpu_that_is_not_there_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let mut program = Command::new(env!("CARGO_BIN_EXE_sparkherd"));
    program.args(["bench", "engine", "--backend", "cuda", "--cuda-driver", "/nowhere/libcuda.so.1"]);
    let output = program.arg(directory.path()).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && error.contains("there is no CUDA driver: "), "{error}");
}
