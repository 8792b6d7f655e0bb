#![expect(unsafe_code, reason = "launches")]

use crate::device::{Device, DeviceError, DeviceMemory, LaunchShape, bytes_of};
use crate::sampling::SampleWords;

const THREADS: u32 = 1024;

/// Chooses a token by each row of logits that is asked of; see `cu/sample.cu`.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// `[logits_rows, vocabulary]` f32: changed on the way, and in the end as they were.
    pub logits: DeviceMemory,
    /// [`SampleWords`], uploaded.
    pub words: DeviceMemory,
    /// `[requests]` of [`SampleWords::RESULT_WORDS`] u32
    pub results: DeviceMemory,
    /// Rows that are asked of.
    pub requests: u32,
    pub logits_rows: u32,
    /// At most [`SampleWords::VOCABULARY_MAX`].
    pub vocabulary: u32,
}

#[repr(C)]
struct SampleArguments {
    logits: u64,
    words: u64,
    results: u64,
    vocabulary: u64,
}

impl Sample {
    /// # Safety
    ///
    /// The words are those that [`SampleWords`] made of as many requests, whole; each is of another row, below `logits_rows`.
    pub unsafe fn launch(&self, device: &mut dyn Device) -> Result<(), DeviceError> {
        // SAFETY: the caller's; a row of logits and a result are one block's.
        unsafe { self.launch_as("sample", device) }
    }

    /// # Safety
    ///
    /// As of [`Sample::launch`].
    pub(crate) unsafe fn launch_as(
        &self,
        kernel: &'static str,
        device: &mut dyn Device,
    ) -> Result<(), DeviceError> {
        let Self { logits, words, results, requests, logits_rows, vocabulary } = *self;
        if vocabulary == 0 || vocabulary > SampleWords::VOCABULARY_MAX {
            let got = vocabulary as usize;
            return Err(DeviceError::Shape { kernel, what: "vocabulary", got, wanted: "1 to 2^19" });
        }
        let (requests_wide, vocabulary) = (u64::from(requests), u64::from(vocabulary));
        let (request, result) = (SampleWords::REQUEST_WORDS as u64, SampleWords::RESULT_WORDS as u64);
        let arguments = SampleArguments {
            logits: logits.of_f32(kernel, "logits", u64::from(logits_rows) * vocabulary)?,
            words: words.of_u32(kernel, "words", requests_wide * request)?,
            results: results.of_u32(kernel, "results", requests_wide * result)?,
            vocabulary,
        };
        let shape = LaunchShape { grid: [requests, 1, 1], threads: THREADS };
        // SAFETY: logits and results are as long as their shapes say; the caller vouches for what the words say.
        unsafe { device.launch(kernel, shape, bytes_of(&arguments)) }
    }
}
