use std::fs;
use std::path::Path;

use super::ProbeError;

/// What `/proc/meminfo` says at one moment.
#[derive(Clone, Debug)]
pub struct Meminfo {
    /// Where it was read, for errors.
    path: String,
    text: String,
}

impl Meminfo {
    pub fn read(proc_root: &Path) -> Result<Self, ProbeError> {
        let path = proc_root.join("meminfo");
        let shown = path.display().to_string();
        let text =
            fs::read_to_string(&path).map_err(|source| ProbeError::Read { path: shown.clone(), source })?;
        Ok(Self { path: shown, text })
    }

    /// One of its lines in kB, as bytes.
    pub fn bytes(&self, field: &'static str) -> Result<u64, ProbeError> {
        self.text
            .lines()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))
            .and_then(|value| value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok())
            .map(|kib| kib.saturating_mul(1024))
            .ok_or_else(|| ProbeError::MissingField { path: self.path.clone(), field })
    }
}
