use std::fs;
use std::io;
use std::path::Path;

use serde::Deserialize;

/// A tiny model with seeded weights.
#[derive(Clone, Copy, Debug)]
pub struct Checkpoint {
    pub name: &'static str,
    /// What transformers says of it.
    golden: &'static str,
    files: &'static [(&'static str, &'static [u8])],
}

/// A prompt.
#[derive(Clone, Debug, Deserialize)]
pub struct Prompt {
    pub name: String,
    pub prompt_tokens: Vec<u32>,
}

/// Of the golden, as far as it is needed here.
#[derive(Debug, Deserialize)]
struct Golden {
    cases: Vec<Prompt>,
}

/// All of them.
pub const ALL: &[Checkpoint] = include!(concat!(env!("OUT_DIR"), "/checkpoints.rs"));

/// The one of this name.
pub fn named(name: &str) -> Checkpoint {
    *ALL.iter().find(|checkpoint| checkpoint.name == name).unwrap()
}

impl Checkpoint {
    /// Writes its files into a directory.
    pub fn unpack(&self, directory: &Path) -> io::Result<()> {
        self.files.iter().try_for_each(|(name, bytes)| fs::write(directory.join(name), bytes))
    }

    pub fn prompts(&self) -> Vec<Prompt> {
        serde_json::from_str::<Golden>(self.golden).unwrap().cases
    }
}
