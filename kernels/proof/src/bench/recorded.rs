use std::time::Duration;

use sparkherd_kernels::{Device as _, Gpu, median_time};

use super::{Bench, BenchError};

/// Launches of one recording: enough that beginning it is not seen.
const LAUNCHES: u32 = 64;

impl Bench<'_> {
    /// What one launch takes among many that are recorded, as those of a step are: a short kernel by itself would be measured
    /// beside the host's own time for its launch.
    pub(super) fn recorded_time(
        &self,
        gpu: &mut Gpu,
        mut launch: impl FnMut(&mut Gpu) -> Result<(), BenchError>,
    ) -> Result<Duration, BenchError> {
        let launches = (LAUNCHES / self.extent.divisor).max(2);
        gpu.begin_recording()?;
        for _ in 0..launches {
            launch(gpu)?;
        }
        let recording = gpu.end_recording()?;
        let took = median_time(gpu, self.extent.launches, |gpu| {
            // SAFETY: whoever launches vouches for the operands, which are alive as long as this GPU.
            #[expect(unsafe_code, reason = "launches that were recorded above")]
            let replayed = unsafe { gpu.replay(recording) };
            Ok::<_, BenchError>(replayed?)
        })?;
        Ok(took / launches)
    }
}
