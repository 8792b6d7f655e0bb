use std::io;

use rustix::process::{Signal, getppid, set_parent_process_death_signal};

use super::ChildError;

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
