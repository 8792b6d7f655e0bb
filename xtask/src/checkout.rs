//! The files of this checkout, as git sees them: what is committed, and what would be with the next commit.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// A text file, with its path relative to the root.
#[derive(Debug)]
pub struct TextFile {
    pub path: PathBuf,
    pub text: String,
}

impl TextFile {
    pub fn has_extension(&self, extensions: &[&str]) -> bool {
        let extension = self.path.extension().and_then(|extension| extension.to_str());
        extension.is_some_and(|extension| extensions.contains(&extension))
    }
}

pub fn root() -> PathBuf {
    e2e::toolchain::repository()
}

/// All files that are not ignored and are UTF-8, in order of their paths.
pub fn text_files(root: &Path) -> Result<Vec<TextFile>> {
    let mut git = Command::new("git");
    git.current_dir(root).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let output = git.output().context("failed to run git")?;
    ensure!(output.status.success(), "git ls-files: {}", String::from_utf8_lossy(&output.stderr));
    let listed = String::from_utf8(output.stdout)?;
    let mut paths: Vec<PathBuf> = listed.split_terminator('\0').map(PathBuf::from).collect();
    paths.sort();
    paths.dedup();
    // A file that was deleted but not yet committed is still listed; it has no content to look at.
    let read = paths.into_iter().filter_map(|path| {
        let text = String::from_utf8(fs::read(root.join(&path)).ok()?).ok()?;
        Some(TextFile { path, text })
    });
    Ok(read.collect())
}
