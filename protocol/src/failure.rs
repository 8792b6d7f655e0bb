use std::fmt;

use serde::{Deserialize, Serialize, de::IntoDeserializer as _};

/// Why an engine gives up, for programs; the message beside it is for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureReason {
    ConfigInvalid,
    /// The system refuses threads, or the bond with the agent.
    SystemError,
    AddressUnavailable,
    UnsupportedModel,
    /// The model takes more than it was admitted with.
    FootprintMismatch,
    /// The host or the GPU has less than the footprint says, or than others have left.
    OutOfMemory,
    /// There is no GPU, no driver, or no kernels that it loads or computes with rightly.
    DriverUnsupported,
    /// The GPU failed in a way that is lasting for this process ("sticky"); another may find it whole.
    GpuFault,
    LoadFailed,
    ProbeFailed,
    EngineFailed,
    /// Of another version.
    #[serde(other)]
    Unknown,
}

impl FailureReason {
    /// By its name; none of what another version may have said.
    pub fn named(name: &str) -> Option<Self> {
        let named: Result<Self, serde::de::value::Error> = Self::deserialize(name.into_deserializer());
        named.ok().filter(|reason| *reason != Self::Unknown)
    }
}

impl fmt::Display for FailureReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Their names are for programs and people.
        fmt::Debug::fmt(self, formatter)
    }
}
