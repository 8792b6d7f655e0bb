use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use sparkherd_checkpoint::{Files, gguf_file_name};

/// A checkpoint on disk: its directory, or its one GGUF file, beside which nothing counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelDirectory(pub PathBuf);

impl ModelDirectory {
    /// Where its files lie.
    pub fn directory(&self) -> &Path {
        match self.only_file() {
            Some(_) => self.0.parent().unwrap_or(&self.0),
            None => &self.0,
        }
    }

    fn only_file(&self) -> Option<&str> {
        gguf_file_name(&self.0).filter(|_| self.0.is_file())
    }
}

impl Files for ModelDirectory {
    fn names(&self) -> io::Result<BTreeSet<String>> {
        if let Some(file) = self.only_file() {
            return Ok(BTreeSet::from([file.to_owned()]));
        }
        // A name that is not UTF-8 is none that a checkpoint uses.
        fs::read_dir(&self.0)?
            .filter_map(|entry| entry.map(|entry| entry.file_name().into_string().ok()).transpose())
            .collect()
    }

    fn bytes(&self, name: &str) -> io::Result<u64> {
        fs::metadata(self.directory().join(name)).map(|metadata| metadata.len())
    }

    fn range(&self, name: &str, offset: u64, limit: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut file = File::open(self.directory().join(name))?;
        file.seek(SeekFrom::Start(offset))?;
        file.take(limit).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}
