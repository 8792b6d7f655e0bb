use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    path::PathBuf,
};

use sparkherd_checkpoint::Files;

/// A checkpoint's directory on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelDirectory(pub PathBuf);

impl Files for ModelDirectory {
    fn names(&self) -> io::Result<BTreeSet<String>> {
        // A name that is not UTF-8 is none that a checkpoint uses.
        fs::read_dir(&self.0)?
            .filter_map(|entry| entry.map(|entry| entry.file_name().into_string().ok()).transpose())
            .collect()
    }

    fn bytes(&self, name: &str) -> io::Result<u64> {
        fs::metadata(self.0.join(name)).map(|metadata| metadata.len())
    }

    fn range(&self, name: &str, offset: u64, limit: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut file = File::open(self.0.join(name))?;
        file.seek(SeekFrom::Start(offset))?;
        file.take(limit).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}
