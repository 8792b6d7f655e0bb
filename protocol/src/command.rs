use serde::{Deserialize, Serialize};

use crate::Access;

/// Agent to engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    /// Accept for 5 s more with `Connection: close`, then refuse with 503; finish what runs within `seconds`; exit 0.
    Drain { seconds: u32 },
    /// From now on these keys, and these names, count.
    Access { access: Access, served_names: Vec<String> },
    /// Exit now.
    Stop,
}
