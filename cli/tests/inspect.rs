//! `sparkherd inspect` as a process: its one line, its status, and that it reads nothing outside the root.

#![expect(clippy::unwrap_used, reason = "a helper that fails is a failed test")]

mod model;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::Value;

/// Status and line.
fn inspect(directory: &Path, root: Option<&Path>) -> (Option<i32>, Value) {
    let mut arguments = vec!["inspect", directory.to_str().unwrap()];
    if let Some(root) = root {
        arguments.extend(["--root", root.to_str().unwrap()]);
    }
    let output = model::sparkherd(&arguments);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.matches('\n').count(), 1, "{text}");
    (output.status.code(), serde_json::from_str(&text).unwrap())
}

fn assert_refused(answer: (Option<i32>, Value), reason: &str, message: &str) {
    let (status, line) = answer;
    assert_eq!(status, Some(1), "{line}");
    assert_eq!(line["error"]["reason"], reason, "{line}");
    assert!(line["error"]["message"].as_str().unwrap().contains(message), "{line}");
    assert!(line.get("inspection").is_none(), "{line}");
}

#[test]
fn a_checkpoint_gives_facts_files_and_digest() {
    let directory = tempfile::tempdir().unwrap();
    model::write(directory.path());
    let (status, line) = inspect(directory.path(), None);
    assert_eq!(status, Some(0), "{line}");
    assert_eq!(line["inspection"]["facts"]["parameters"], 696);
    assert_eq!(line["inspection"]["files"][1]["name"], "model.safetensors");
    assert_eq!(line["inspection"]["digest"].as_str().unwrap().len(), 64);
    // What holds on every kernel; namespaces and Landlock depend on where it runs.
    assert_eq!(line["sandbox"]["limits"], true);
    assert_eq!(line["sandbox"]["noNewPrivileges"], true);
}

#[test]
fn the_digest_does_not_depend_on_the_place() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    model::write(here.path());
    model::write(there.path());
    let digest = |directory: &Path| inspect(directory, None).1["inspection"]["digest"].clone();
    assert_eq!(digest(here.path()), digest(there.path()));
}

#[test]
fn links_may_lead_anywhere_beneath_the_root() {
    let root = tempfile::tempdir().unwrap();
    let (blobs, snapshot) = (root.path().join("blobs"), root.path().join("snapshots/main"));
    fs::create_dir_all(&blobs).unwrap();
    fs::create_dir_all(&snapshot).unwrap();
    model::write(&blobs);
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        symlink(Path::new("../../blobs").join(name), snapshot.join(name)).unwrap();
    }
    assert_eq!(inspect(&snapshot, Some(root.path())).0, Some(0));
    assert_refused(inspect(&snapshot, None), "Unresolvable", "a symbolic link leads out of the allowed root");
    let link = root.path().join("latest");
    symlink("snapshots/main", &link).unwrap();
    assert_eq!(inspect(&link, Some(root.path())).0, Some(0));
}

#[test]
fn nothing_outside_the_root_is_read() {
    let (root, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    model::write(outside.path());
    let refusal = "the directory lies outside the allowed root";
    assert_refused(inspect(outside.path(), Some(root.path())), "Unresolvable", refusal);
    let link = root.path().join("model");
    symlink(outside.path(), &link).unwrap();
    assert_refused(inspect(&link, Some(root.path())), "Unresolvable", refusal);
    let dotted = root.path().join("..").join(outside.path().file_name().unwrap());
    assert_refused(inspect(&dotted, Some(root.path())), "Unresolvable", refusal);

    let inside = root.path().join("inside");
    fs::create_dir(&inside).unwrap();
    model::write(&inside);
    fs::remove_file(inside.join("config.json")).unwrap();
    symlink(outside.path().join("config.json"), inside.join("config.json")).unwrap();
    let refusal = "a symbolic link leads out of the allowed root";
    assert_refused(inspect(&inside, Some(root.path())), "Unresolvable", refusal);
}

#[test]
fn only_regular_files_are_opened() {
    let directory = tempfile::tempdir().unwrap();
    model::write(directory.path());
    fs::remove_file(directory.path().join("tokenizer.json")).unwrap();
    fs::create_dir(directory.path().join("tokenizer.json")).unwrap();
    assert_refused(
        inspect(directory.path(), None),
        "Unresolvable",
        "tokenizer.json cannot be read: not a regular file",
    );
}

#[test]
fn a_directory_that_is_not_there_is_unresolvable() {
    let directory = tempfile::tempdir().unwrap();
    let gone = directory.path().join("gone");
    assert_refused(inspect(&gone, Some(directory.path())), "Unresolvable", "the directory cannot be opened");
}

#[test]
fn what_is_not_supported_is_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    model::write(directory.path());
    fs::write(directory.path().join("tokenizer.json"), "{}").unwrap();
    assert_refused(inspect(directory.path(), None), "UnsupportedModel", "tokenizer.json");
    model::write(directory.path());
    fs::remove_file(directory.path().join("model.safetensors")).unwrap();
    fs::write(directory.path().join("pytorch_model.bin"), "x").unwrap();
    assert_refused(inspect(directory.path(), None), "UnsupportedModel", "only pickle files");
}
