use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use sparkherd_protocol::EngineConfig;

/// Writes the configuration into memory that only an inherited descriptor reaches, and seals it: nothing secret in
/// argv, environment or files, and no child can change what another may read.
pub fn sealed(config: &EngineConfig) -> io::Result<OwnedFd> {
    let descriptor = memfd_create("engine-config", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut file = File::from(descriptor);
    serde_json::to_writer(&mut file, config)?;
    file.flush()?;
    file.rewind()?;
    fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
    Ok(file.into())
}
