#![expect(unsafe_code, reason = "launches")]

use crate::device::{Device, DeviceError};
use crate::sample::Sample;

/// Log-probabilities of what was chosen and of the likeliest, where they are asked for; see `cu/logprobs.cu`.
#[derive(Clone, Copy, Debug)]
pub struct Logprobs {
    /// The operands it was chosen with.
    pub of: Sample,
}

impl Logprobs {
    /// # Safety
    ///
    /// As of [`Sample::launch`], which was launched before with the same operands.
    pub unsafe fn launch(&self, device: &mut dyn Device) -> Result<(), DeviceError> {
        // SAFETY: the caller's; the results name tokens of the vocabulary.
        unsafe { self.of.launch_as("logprobs", device) }
    }
}
