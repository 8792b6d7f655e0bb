//! Packages in folders of their own, beside the build's other results, kept until other ones are asked for.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Written last, with what was asked for.
const INSTALLED: &str = "installed";

/// A virtual environment with these requirements; returns its interpreter.
pub(super) fn python(name: &str, requirements: &[&str]) -> PathBuf {
    let folder = folder(name);
    let python = folder.join("bin/python");
    let wanted = requirements.join("\n");
    if !has(&folder, &wanted) {
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder));
        let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
        run(Command::new(&python).args(install).args(requirements));
        fs::write(folder.join(INSTALLED), wanted).unwrap();
    }
    python
}

/// A copy of a Node script beside the packages of its lock file: imports are looked for from where a script lies.
pub(super) fn node(name: &str, script: &Path) -> PathBuf {
    let folder = folder(name);
    fs::create_dir_all(&folder).unwrap();
    let source = script.parent().unwrap();
    let wanted = fs::read_to_string(source.join("package-lock.json")).unwrap();
    if !has(&folder, &wanted) {
        for file in ["package.json", "package-lock.json"] {
            fs::copy(source.join(file), folder.join(file)).unwrap();
        }
        let install = ["ci", "--ignore-scripts", "--no-audit", "--no-fund"];
        run(Command::new("npm").args(install).current_dir(&folder));
        fs::write(folder.join(INSTALLED), wanted).unwrap();
    }
    let copy = folder.join(script.file_name().unwrap());
    fs::copy(script, &copy).unwrap();
    copy
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

fn has(folder: &Path, wanted: &str) -> bool {
    fs::read_to_string(folder.join(INSTALLED)).is_ok_and(|installed| installed == wanted)
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
