use std::fs::File;
use std::io::Read;

use sparkherd_protocol::EngineConfig;

use super::{ChildError, ConfigSource};

/// Many times a configuration with hundreds of keys.
const CONFIG_BYTES_MAX: u64 = 4 << 20;

pub(super) fn read(source: &ConfigSource) -> Result<EngineConfig, ChildError> {
    let file = match source {
        // Opened anew by its name in /proc: adopting a number as a descriptor cannot be checked.
        ConfigSource::Descriptor(descriptor) => File::open(format!("/proc/self/fd/{descriptor}")),
        ConfigSource::File(path) => File::open(path),
    };
    let mut text = Vec::new();
    let read = file.and_then(|file| file.take(CONFIG_BYTES_MAX).read_to_end(&mut text));
    read.map_err(ChildError::ConfigRead)?;
    Ok(serde_json::from_slice(&text)?)
}
