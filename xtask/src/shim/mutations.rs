//! Each fault of the list, put into the kernels by itself: the tests that let one pass are not worth much.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use super::library::{self, Build, Recipe};
use super::list::{self, Mutation, Seen};
use super::{Tests, outcome};

/// What the test of the operations says when it was asked for none.
const NO_CASE: &str = "no case is named";

/// The kernels without a fault, and the tests that pass with them.
struct Sound<'a> {
    tests: Tests,
    plain: Build,
    races: &'a Build,
    folder: PathBuf,
}

pub fn check(binary: &Path, folder: &Path, races: &Build) -> Result<()> {
    let started = Instant::now();
    let plain = Build::new(Recipe::Plain, &folder.join("plain"))?;
    let folder = folder.join("mutations");
    let tests = Tests { binary: binary.to_owned(), environment: Vec::new() };
    let sound = Sound { tests, plain, races, folder };
    // A library that passes nothing would catch everything.
    sound.tests.pass(&sound.plain.library, &["operations::", "nvfp4::", "sampling::"])?;
    let mutations = list::all();
    let next = Mutex::new(mutations.iter().enumerate());
    let problems = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                // A statement by itself, so that the lock is not held while the tests run.
                let take = || next.lock().ok().and_then(|mut left| left.next());
                while let Some((number, mutation)) = take() {
                    let result = sound.catch(number, mutation);
                    let told = result.with_context(|| format!("{}: {}", mutation.file, mutation.what));
                    if let (Err(error), Ok(mut problems)) = (told, problems.lock()) {
                        problems.push(format!("{error:#}"));
                    }
                }
            });
        }
    });
    let problems = problems.into_inner().unwrap_or_default();
    ensure!(problems.is_empty(), "{}", problems.join("\n"));
    println!("mutations: {} faults are caught, each; {} s", mutations.len(), started.elapsed().as_secs());
    Ok(())
}

impl Sound<'_> {
    /// The tests have to fail, and the plain ones have to pass where only the race detector sees it.
    fn catch(&self, number: usize, mutation: &Mutation) -> Result<()> {
        let folder = self.folder.join(number.to_string());
        let changed = write(mutation, &folder)?;
        let build = if mutation.seen == Seen::AsRace { self.races } else { &self.plain };
        let library = build.with(&folder, &changed)?;
        let mut command = self.tests.command(&library, &[mutation.tests()]);
        let (passed, text) = outcome(command.env("SPARKHERD_KERNELS_CASES", mutation.cases))?;
        ensure!(!text.contains(NO_CASE), "no case is named {:?}", mutation.cases);
        ensure!(!passed, "no case sees it");
        let is_race = text.contains("no barrier between");
        ensure!(is_race == (mutation.seen == Seen::AsRace), "it fails of something else:\n{text}");
        Ok(())
    }
}

/// Copies the kernels with the fault in them. Returns the sources that have to be compiled again.
fn write(mutation: &Mutation, folder: &Path) -> Result<Vec<PathBuf>> {
    let common = folder.join("common");
    fs::create_dir_all(&common)?;
    for (from, to) in [(library::kernels(), folder), (library::kernels().join("common"), &common)] {
        for entry in fs::read_dir(from)? {
            let path = entry?.path();
            if let (true, Some(name)) = (path.is_file(), path.file_name()) {
                fs::copy(&path, to.join(name))?;
            }
        }
    }
    let file = folder.join(mutation.file);
    fs::write(&file, mutated(&fs::read_to_string(&file)?, mutation)?)?;
    if file.extension().is_some_and(|extension| extension == "cu") {
        return Ok(vec![file]);
    }
    library::sources(folder)
}

fn mutated(text: &str, mutation: &Mutation) -> Result<String> {
    match text.matches(mutation.text).count() {
        1 => Ok(text.replacen(mutation.text, mutation.replacement, 1)),
        count => bail!("{:?} is there {count} times, not once", mutation.text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_replaced_is_there_once() {
        let mutation = Mutation {
            file: "a.cu",
            text: "+ 1",
            replacement: "+ 2",
            what: "",
            cases: "",
            seen: Seen::AsResult,
        };
        assert_eq!(mutated("a + 1", &mutation).unwrap(), "a + 2");
        for text in ["a", "a + 1 + 1"] {
            assert!(mutated(text, &mutation).unwrap_err().to_string().contains("times, not once"));
        }
    }

    #[test]
    fn every_mutation_is_of_the_kernels_as_they_are() {
        for mutation in &list::all() {
            let text = fs::read_to_string(library::kernels().join(mutation.file)).unwrap();
            mutated(&text, mutation).unwrap();
        }
    }
}
