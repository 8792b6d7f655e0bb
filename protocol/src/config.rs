use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sparkherd_footprint::{Footprint, Platform, Serving};

/// Who may ask. Hashes are lower-case hex SHA-256 of the keys; the keys themselves never reach an engine's configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Access {
    /// Anybody may ask, with or without a key.
    pub anonymous: bool,
    pub key_hashes: Vec<String>,
}

/// All an engine needs to start. Written by the agent into a sealed memfd.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineConfig {
    /// Directory with `config.json`, the weights and the tokenizer.
    pub model_dir: PathBuf,
    /// Names clients may send as `model`; the first is the one answers carry.
    pub served_names: Vec<String>,
    pub serving: Serving,
    pub platform: Platform,
    /// What was admitted; the loader fails if its own arithmetic or its allocation differs.
    pub footprint: Footprint,
    /// Address to listen on; port 0 lets the system choose (`ready` tells which).
    pub listen: SocketAddr,
    pub access: Access,
    /// This life of this process, in metrics and `ready`.
    pub incarnation: String,
    /// Seed of whatever a request leaves to chance without giving a seed itself.
    pub seed: u64,
}
