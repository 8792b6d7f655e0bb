use std::ffi::OsString;

/// What a child may see of the agent's environment: how to log and where programs lie, never where the API server is.
const KEPT: [&str; 4] = ["PATH", "RUST_LOG", "RUST_BACKTRACE", "LD_LIBRARY_PATH"];

/// The environment of every child, out of the agent's own.
pub fn child_environment(own: impl Iterator<Item = (OsString, OsString)>) -> Vec<(OsString, OsString)> {
    own.filter(|(name, _)| KEPT.iter().any(|kept| name == kept)).collect()
}
