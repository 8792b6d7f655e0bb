//! `sparkherd key` as a process.

#![expect(clippy::unwrap_used, reason = "a helper that fails is a failed test")]

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn key(arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sparkherd"));
    command.arg("key").args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn a_new_key_comes_with_its_hash() {
    let output = key(&[], "");
    let printed = text(&output.stdout);
    let (first, second) = printed.trim_end().split_once('\n').unwrap();
    let made = first.strip_prefix("key: ").unwrap();
    assert!(made.starts_with("sk-spark-") && made.len() == "sk-spark-".len() + 64, "{made}");
    assert_eq!(text(&key(&["hash"], &format!("{made}\n")).stdout).trim_end(), second);
    assert_ne!(printed, text(&key(&[], "").stdout), "two keys differ");
}

#[test]
fn a_given_key_is_hashed() {
    // SHA-256 of "abc" (FIPS 180-2, appendix B.1).
    let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(text(&key(&["hash"], "abc").stdout), format!("sha256: {hash}\n"));
    let json: Value = serde_json::from_slice(&key(&["hash", "--json"], "abc\n").stdout).unwrap();
    assert_eq!(json, serde_json::json!({ "sha256": hash }));
    let json: Value = serde_json::from_slice(&key(&["--json"], "").stdout).unwrap();
    assert!(json["key"].is_string() && json["sha256"].is_string());
}

#[test]
fn no_key_is_an_error() {
    let output = key(&["hash"], " \n");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("no key on standard input"));
}
