//! What no compiler and no lint checks. clippy has the rest: functions of more than 70 lines, `unwrap`, `panic`,
//! printing (see the workspace's lints).

mod calls;
mod layers;
mod licences;
mod modules;
mod sizes;
mod source;
mod words;

use anyhow::{Result, ensure};

use crate::{cargo, checkout};

/// Runs all checks and names every offence, not just the first.
pub fn run() -> Result<()> {
    let root = checkout::root();
    let files = checkout::text_files(&root)?;
    let metadata = cargo::metadata()?;
    let mut offences = Vec::new();
    offences.extend(sizes::offences(&files));
    offences.extend(calls::offences(&files));
    offences.extend(words::offences(&files));
    offences.extend(modules::offences(&files, &metadata, &root)?);
    offences.extend(layers::offences()?);
    offences.extend(licences::offences(&metadata));
    for long in sizes::long_files(&files) {
        println!("tidy: {long}");
    }
    ensure!(offences.is_empty(), "{} offences:\n{}", offences.len(), offences.join("\n"));
    Ok(())
}
