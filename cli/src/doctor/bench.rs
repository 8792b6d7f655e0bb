use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use sparkherd_gpu::{Gpu, GpuSource};

use super::readings::{BenchReadings, CudaMemory, GpuSpeed};

/// Often enough to see the clock settle within seconds of load.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What makes the GPU work: our own kernels, or a test's script.
pub(crate) trait GpuBench {
    /// What CUDA counts as free now.
    fn memory(&mut self) -> anyhow::Result<CudaMemory>;

    /// Reads memory and multiplies matrices for ten seconds at most.
    fn speed(&mut self) -> anyhow::Result<GpuSpeed>;
}

/// Makes the GPU work and looks at it meanwhile.
pub(super) fn measure(bench: &mut dyn GpuBench, source: &dyn GpuSource) -> BenchReadings {
    let memory = bench.memory().map_err(|error| format!("{error:#}"));
    let (done, finished) = channel();
    let (speed, under_load) = thread::scope(|scope| {
        let watcher = scope.spawn(move || {
            let mut looks = Vec::new();
            while finished.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
                looks.extend(first_gpu(source));
            }
            looks
        });
        let speed = bench.speed().map_err(|error| format!("{error:#}"));
        let _ = done.send(());
        (speed, watcher.join().unwrap_or_default())
    });
    BenchReadings { memory, speed, under_load }
}

fn first_gpu(source: &dyn GpuSource) -> Option<Gpu> {
    source.read().ok()?.gpus.into_iter().next()
}
