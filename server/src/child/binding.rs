use std::io;

use rustix::process::{Signal, getppid, set_parent_process_death_signal};

use super::ChildError;

/// When memory ends, an engine goes before its agent and before what else runs on the host.
const OOM_SCORE_ADJ: &str = "800";

/// Makes this process the kernel's first choice when memory ends. Raising one's own score needs no right; a kernel that
/// refuses all the same leaves the choice to itself.
pub(super) fn prefer_as_oom_victim() {
    if let Err(error) = std::fs::write("/proc/self/oom_score_adj", OOM_SCORE_ADJ) {
        tracing::warn!(%error, "oom_score_adj stays as it is");
    }
}

/// Asks the kernel to kill this process when its agent ends: for a child that is stuck in a driver and would never see the
/// end of its input. An agent that died before the request leaves a new parent behind.
pub(super) fn bind_to_parent() -> Result<(), ChildError> {
    let parent = getppid();
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(|error| ChildError::Parent(error.into()))?;
    if getppid() == parent {
        Ok(())
    } else {
        Err(ChildError::Parent(io::Error::other("it has ended already")))
    }
}
