//! Files that look like code and are not: tracked `.rs` files that no `mod` leads to.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::cargo::Metadata;
use crate::checkout::TextFile;
use crate::tidy::source::code_only;

/// Names every Rust file that is not reached from a target of the workspace.
pub fn offences(files: &[TextFile], metadata: &Metadata, root: &Path) -> Result<Vec<String>> {
    let sources: BTreeMap<&Path, &str> = files
        .iter()
        .filter(|file| file.has_extension(&["rs"]))
        .map(|file| (file.path.as_path(), file.text.as_str()))
        .collect();
    let own = metadata.packages.iter().filter(|package| package.source.is_none());
    let mut roots = Vec::new();
    for target in own.flat_map(|package| &package.targets) {
        roots.push(target.src_path.strip_prefix(root)?.to_owned());
    }
    let reached = reach(&sources, roots);
    let dead = sources.keys().filter(|path| !reached.contains(**path));
    Ok(dead.map(|path| format!("{}: no mod leads to it", path.display())).collect())
}

fn reach(sources: &BTreeMap<&Path, &str>, roots: Vec<PathBuf>) -> BTreeSet<PathBuf> {
    let is_root: BTreeSet<PathBuf> = roots.iter().cloned().collect();
    let (mut reached, mut unread) = (BTreeSet::new(), roots);
    while let Some(path) = unread.pop() {
        let Some(text) = sources.get(path.as_path()) else { continue };
        if !reached.insert(path.clone()) {
            continue;
        }
        let folder = submodule_folder(&path, is_root.contains(&path));
        for module in declared_modules(text) {
            match module {
                Module::Named(name) => {
                    unread.push(folder.join(format!("{name}.rs")));
                    unread.push(folder.join(name).join("mod.rs"));
                }
                // `#[path]` is relative to the folder of the file it stands in.
                Module::At(file) => unread.push(path.with_file_name("").join(file)),
            }
        }
    }
    reached
}

/// Submodules of a crate root and of `mod.rs` lie beside it, those of `x.rs` in `x/`.
fn submodule_folder(path: &Path, is_root: bool) -> PathBuf {
    let beside = path.with_file_name("");
    if is_root || path.ends_with("mod.rs") { beside } else { path.with_extension("") }
}

#[derive(Debug, PartialEq)]
enum Module {
    Named(String),
    At(String),
}

/// The `mod name;` of a file, and `include!` of a sibling. Inline modules that declare files are not used here.
fn declared_modules(text: &str) -> Vec<Module> {
    let code = code_only(text);
    let mut modules = Vec::new();
    let mut path = None;
    for (line, raw) in code.lines().zip(text.lines()) {
        if line.contains("#[path") || line.contains("include!(") {
            path = raw.split('"').nth(1).map(str::to_owned);
        }
        if line.contains("include!(") {
            modules.extend(path.take().map(Module::At));
        }
        let Some(declaration) = line.trim_end().strip_suffix(';') else { continue };
        let mut words = declaration.split_whitespace().rev();
        if let (Some(name), Some("mod")) = (words.next(), words.next()) {
            modules.push(path.take().map_or_else(|| Module::Named(name.to_owned()), Module::At));
        }
    }
    modules
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_followed_into_folders() {
        let files = [
            ("a/src/lib.rs", "mod one;\npub(crate) mod two;"),
            ("a/src/one.rs", "#[cfg(test)]\nmod tests;"),
            ("a/src/one/tests.rs", ""),
            ("a/src/two/mod.rs", "#[path = \"other.rs\"]\nmod three; // mod dead;"),
            ("a/src/two/other.rs", ""),
            ("a/src/dead.rs", ""),
        ];
        let sources = files.iter().map(|(path, text)| (Path::new(*path), *text)).collect();
        let reached = reach(&sources, vec!["a/src/lib.rs".into()]);
        let dead: Vec<_> = files.iter().filter(|(path, _)| !reached.contains(Path::new(*path))).collect();
        assert_eq!(dead, [&("a/src/dead.rs", "")]);
    }
}
