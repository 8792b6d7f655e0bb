use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Bytes a replica takes, by what they are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Parts {
    /// The tensors, in their stored type or requantised.
    pub weights_bytes: u64,
    /// The paged pool of keys and values.
    pub kv_bytes: u64,
    /// Slots of recurrent layers; 0 where the model has none.
    pub state_bytes: u64,
    /// Activations and scratch for the largest batch.
    pub workspace_bytes: u64,
    /// The process itself: code, tokenizer, HTTP, and on CUDA the driver's context.
    pub runtime_bytes: u64,
}

/// Bytes a replica takes, by where they lie, and by part. `device_bytes + host_bytes` equals the sum of the parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Footprint {
    /// Bytes of device memory; on a GB10 the same pool as the host's, on the CPU backend 0.
    pub device_bytes: u64,
    /// Bytes of host memory.
    pub host_bytes: u64,
    pub parts: Parts,
}

impl Footprint {
    /// Whether this one takes no more than `admitted`, in device and in host memory.
    pub const fn fits_within(&self, admitted: &Self) -> bool {
        self.device_bytes <= admitted.device_bytes && self.host_bytes <= admitted.host_bytes
    }

    /// What one unified pool must hold for this replica.
    pub const fn total_bytes(&self) -> u64 {
        self.device_bytes.saturating_add(self.host_bytes)
    }
}
