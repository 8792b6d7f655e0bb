//! Calls that have no place in a kind of code: what a function decides depends on its arguments, and the clock,
//! the environment and the disk come in as such.

use std::path::Path;

use crate::checkout::TextFile;
use crate::tidy::source::{code_only, without_tests};

/// Crates that decide and compute, and neither see nor touch the world.
const PURE: [&str; 5] =
    ["checkpoint/src", "footprint/src", "protocol/src", "operator/planner/src", "crds/src"];
/// Programs for people and tests: they read flags, environment and files themselves.
const PROGRAMS: [&str; 4] = ["cli", "xtask", "e2e", "kernels/proof/src/main.rs"];

#[derive(Debug, Clone, Copy, PartialEq)]
enum Scope {
    /// All code, tests too.
    Everywhere,
    /// Code of crates that others link, without their tests.
    Libraries,
    /// Code of [`PURE`] crates, without their tests.
    Pure,
}

/// What must not be written, where, and what to do instead.
const BANNED: [(&str, Scope, &str); 19] = [
    ("todo!", Scope::Everywhere, "write it, or leave it out and say so in the status"),
    ("unimplemented!", Scope::Everywhere, "write it, or leave it out and say so in the status"),
    ("dbg!", Scope::Everywhere, "use tracing"),
    ("#[allow(", Scope::Everywhere, "use #[expect(…, reason = \"…\")]"),
    ("#![allow(", Scope::Everywhere, "use #![expect(…, reason = \"…\")]"),
    ("env::var", Scope::Libraries, "environment is read in cli and passed in"),
    ("env::set_var", Scope::Libraries, "pass it as an argument"),
    ("env::args", Scope::Libraries, "flags are read in cli and passed in"),
    ("process::exit", Scope::Libraries, "return an error; cli decides about the exit code"),
    ("Utc::now", Scope::Libraries, "take the time as an argument"),
    ("Local::now", Scope::Libraries, "take the time as an argument"),
    ("SystemTime::now", Scope::Pure, "take the time as an argument"),
    ("Instant::now", Scope::Pure, "take the time as an argument"),
    ("Timestamp::now", Scope::Pure, "take the time as an argument"),
    ("std::fs", Scope::Pure, "take the bytes as an argument"),
    ("std::net::Tcp", Scope::Pure, "pure code has no network"),
    ("std::process", Scope::Pure, "pure code starts nothing"),
    ("thread::spawn", Scope::Pure, "pure code has one thread"),
    ("RandomState", Scope::Pure, "take a seed as an argument"),
];

pub fn offences(files: &[TextFile]) -> Vec<String> {
    files.iter().filter(|file| file.has_extension(&["rs"])).flat_map(offences_in).collect()
}

fn offences_in(file: &TextFile) -> Vec<String> {
    let all = code_only(&file.text);
    let shipped = if is_test(&file.path) { String::new() } else { without_tests(&all) };
    let mut offences = Vec::new();
    for (call, scope, instead) in BANNED {
        let code = if scope == Scope::Everywhere { &all } else { &shipped };
        if !is_in_scope(&file.path, scope) {
            continue;
        }
        for (number, line) in code.lines().enumerate() {
            if line.contains(call) {
                offences.push(format!("{}:{}: {call}: {instead}", file.path.display(), number + 1));
            }
        }
    }
    offences
}

fn is_in_scope(path: &Path, scope: Scope) -> bool {
    match scope {
        Scope::Everywhere => true,
        Scope::Libraries => !PROGRAMS.iter().any(|folder| path.starts_with(folder)),
        Scope::Pure => PURE.iter().any(|folder| path.starts_with(folder)),
    }
}

/// Tests are in `tests/` folders and `tests.rs`, or inline under `#[cfg(test)]`; build scripts are not shipped.
fn is_test(path: &Path) -> bool {
    let in_folder =
        path.components().any(|part| part.as_os_str() == "tests" || part.as_os_str() == "benches");
    in_folder || path.ends_with("tests.rs") || path.ends_with("build.rs")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offences_of(path: &str, text: &str) -> Vec<String> {
        offences(&[TextFile { path: path.into(), text: text.into() }])
    }

    #[test]
    fn a_clock_is_banned_only_where_decisions_are_made() {
        let text = "fn now() -> Instant { Instant::now() }";
        assert_eq!(offences_of("operator/planner/src/plan.rs", text).len(), 1);
        assert!(offences_of("operator/src/control.rs", text).is_empty());
        assert!(offences_of("operator/planner/tests/simulation.rs", text).is_empty());
    }

    #[test]
    fn an_offence_names_its_line_and_the_way_out() {
        let text =
            "\n#[cfg(test)]\nmod tests { fn f() { std::env::var(\"A\"); } }\nfn g() { std::env::var(\"B\") }";
        let found = offences_of("agent/src/lib.rs", text);
        assert_eq!(found, ["agent/src/lib.rs:4: env::var: environment is read in cli and passed in"]);
        assert!(offences_of("cli/src/main.rs", text).is_empty());
    }

    #[test]
    fn a_lint_is_not_silenced_anywhere() {
        assert_eq!(offences_of("cli/tests/fit.rs", "#[allow(dead_code)] fn f() {}").len(), 1);
        assert!(offences_of("cli/tests/fit.rs", "// #[allow(dead_code)]\nfn f() {}").is_empty());
    }
}
