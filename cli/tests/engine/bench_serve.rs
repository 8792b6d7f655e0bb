//! `sparkherd bench serve` against the engine child.

use std::process::{Command, Output};

use serde_json::Value;

use crate::harness::{Engine, MODEL, config};

fn bench(url: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sparkherd"));
    command.args(["bench", "serve", &format!("{url}/v1"), "--prompt-tokens", "8", "--output-tokens", "3"]);
    command.args(arguments).output().unwrap()
}

fn report(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn both_loops_count_what_was_answered() {
    let engine = Engine::start(&config(), Some("answer \"one two three four\"\ntoken-delay 5ms"));
    let url = engine.ready();
    for kind in [["--concurrency", "3"], ["--rate", "200"]] {
        let arguments =
            [&["--model", MODEL, "--requests", "9", "--json", "--stop-at-eos"], &kind[..]].concat();
        let report = report(&bench(&url, &arguments));
        assert_eq!((&report["completed"], &report["failed"]), (&9.into(), &0.into()), "{report}");
        assert_eq!(report["output_tokens"], 27, "the request that went before is not counted");
        assert!(report["prompt_tokens"].as_u64().unwrap() >= 9 * 16, "{report}");
        assert!(report["server_cpu_us_per_output_token"].as_f64().is_some_and(|us| us >= 0.0), "{report}");
        let milliseconds = |name: &str| report[name]["p50"].as_f64().unwrap();
        assert!(milliseconds("inter_token_ms") > 0.0 && milliseconds("time_per_output_token_ms") > 0.0);
        assert!(milliseconds("end_to_end_ms") >= milliseconds("time_to_first_token_ms") + 9.0, "{report}");
    }
}

#[test]
fn a_server_that_refuses_is_an_error() {
    let engine = Engine::start(&config(), Some("answer \"one\""));
    let url = engine.ready();
    let refused = bench(&url, &["--model", "nobody", "--concurrency", "1", "--stop-at-eos"]);
    assert!(!refused.status.success());
    let error = String::from_utf8_lossy(&refused.stderr);
    assert!(error.contains("first request") && error.contains("status 404: model_not_found"), "{error}");
}
