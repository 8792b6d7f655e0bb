use std::ffi::OsString;

/// What a child may see of the agent's environment: how to log and where programs lie, never where the API server is.
const KEPT: [&str; 4] = ["PATH", "RUST_LOG", "RUST_BACKTRACE", "LD_LIBRARY_PATH"];

/// The environment of every child.
pub fn child_environment() -> Vec<(&'static str, OsString)> {
    KEPT.iter().filter_map(|name| Some((*name, std::env::var_os(name)?))).collect()
}
