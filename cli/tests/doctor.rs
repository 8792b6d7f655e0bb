//! `sparkherd doctor` as a process: its status, and JSON that says what the table says.

#![expect(clippy::unwrap_used, reason = "a helper that fails is a failed test")]

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// A machine with so much available that memory is fine, and too little of it to measure its speed.
fn machine(available_mib: u64) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let meminfo = format!(
        "MemTotal: 3145728 kB\nMemFree: 1000000 kB\nMemAvailable: {} kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n",
        available_mib << 10
    );
    fs::write(root.path().join("meminfo"), meminfo).unwrap();
    fs::write(root.path().join("buddyinfo"), "Node 0, zone Normal 0 0 0 0 0 0 0 0 0 0 64\n").unwrap();
    root
}

fn doctor(proc_root: &Path, more: &[&str]) -> (Option<i32>, String) {
    let nowhere = proc_root.join("no-store");
    let mut arguments =
        vec!["doctor", "--proc-root", proc_root.to_str().unwrap(), "--store", nowhere.to_str().unwrap()];
    arguments.extend(more);
    let output = Command::new(env!("CARGO_BIN_EXE_sparkherd")).args(&arguments).output().unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

fn verdict_of(report: &Value, check: &str) -> String {
    let checks = report["checks"].as_array().unwrap();
    let line = checks.iter().find(|line| line["check"] == check).unwrap();
    line["verdict"].as_str().unwrap().to_owned()
}

#[test]
fn json_and_status_say_the_same() {
    let root = machine(3000);
    let (status, json) = doctor(root.path(), &["--json"]);
    let report: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(verdict_of(&report, "memory"), "ok", "{report}");
    assert_eq!(verdict_of(&report, "disk of the store"), "unknown", "{report}");
    assert_eq!(verdict_of(&report, "memory read by CPU"), "unknown", "{report}");
    // A machine that has a GPU may fail by it.
    assert_eq!(status, Some(i32::from(report["verdict"] == "fail")), "{report}");
}

#[test]
fn a_machine_without_memory_fails() {
    let root = machine(1000);
    let (status, table) = doctor(root.path(), &[]);
    assert_eq!(status, Some(1), "{table}");
    assert!(table.starts_with("CHECK"), "{table}");
    assert!(table.contains("fail     3.0 GiB in all, 1000.0 MiB available"), "{table}");
}
